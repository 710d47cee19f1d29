"""Normalising flows that are trained together, as one batch of matrix products."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal, Transform, constraints
from torch.nn import functional
from zuko.distributions import NormalizingFlow
from zuko.transforms import (
    AdditiveTransform,
    ComposedTransform,
    CouplingTransform,
    DependentTransform,
    MonotonicAffineTransform,
)


class CouplingFlows(nn.Module):
    r"""Stack of independent coupling flows from N(0, I), with an exact density.

    Each of `steps` steps scales and shifts every dimension, permutes the dimensions (a fixed order, of each flow its
    own) and adds a function of one half to the other half; with x = f(eps), log q(x) = log N(eps; 0, I) - log |det
    df/deps|. The other transforms and their Jacobians are zuko's. A flow of zuko holds one set of weights, so the
    networks inside the couplings are ours: their weights have a leading dimension of flows, and one batch of products
    computes all of them. Their last layer starts at zero, where a step is the permutation, so q starts as N(0, I).

    References:
        Dinh, Krueger, Bengio. NICE: Non-linear Independent Components Estimation. 2014.
        https://arxiv.org/abs/1410.8516
        Kingma, Dhariwal. Glow: Generative Flow with Invertible 1x1 Convolutions. 2018.
        https://arxiv.org/abs/1807.03039

    Args:
        flows: F, number of flows.
        features: D, dimension of each, at least 2.
        steps: coupling steps of each.
        hidden: width of the two hidden layers in a coupling.
        affine: couplings also scale (RealNVP) instead of only adding (NICE).

    Example:
        >>> flows = CouplingFlows(flows=3, features=4, steps=2, hidden=8)
        >>> x, log_q = flows(torch.zeros(3, 5, 4))
        >>> x.shape, log_q.shape
        (torch.Size([3, 5, 4]), torch.Size([3, 5]))
    """

    order: Tensor

    def __init__(self, flows: int, features: int, steps: int, hidden: int, affine: bool = False) -> None:
        super().__init__()
        assert features >= 2
        self._affine = affine
        half, moved = (features + 1) // 2, features // 2
        outputs = moved * (2 if affine else 1)
        self.log_scale = nn.Parameter(torch.zeros(steps, flows, 1, features))
        self.shift = nn.Parameter(torch.zeros(steps, flows, 1, features))
        self.weight1 = nn.Parameter(torch.randn(steps, flows, half, hidden) / math.sqrt(half))
        self.bias1 = nn.Parameter(torch.zeros(steps, flows, 1, hidden))
        self.weight2 = nn.Parameter(torch.randn(steps, flows, hidden, hidden) / math.sqrt(hidden))
        self.bias2 = nn.Parameter(torch.zeros(steps, flows, 1, hidden))
        self.weight3 = nn.Parameter(torch.zeros(steps, flows, hidden, outputs))
        self.bias3 = nn.Parameter(torch.zeros(steps, flows, 1, outputs))
        orders = [torch.randperm(features) for _ in range(steps * flows)]
        self.register_buffer("order", torch.stack(orders).view(steps, flows, features))

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return samples and their log-density.

        Args:
            noise: draws of N(0, I), `F N D`.

        Returns:
            x `F N D` and log q(x) `F N`, in nats.
        """
        x, volume = self.transform().call_and_ladj(noise)
        return x, standard_normal(noise) - volume

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density log q(x) `F N`, in nats, of points `F N D`."""
        base = Independent(Normal(torch.zeros_like(x), torch.ones_like(x)), 1)
        log_q: Tensor = NormalizingFlow(self.transform().inv, base).log_prob(x)
        return log_q

    def transform(self) -> ComposedTransform:
        """Build the map f from noise to samples, which acts on the last dimension of `F N D`."""
        features = self.order.shape[-1]
        mask = torch.arange(features, device=self.order.device) < (features + 1) // 2
        steps: list[Transform] = []
        for step, order in enumerate(self.order):
            steps += [
                MonotonicAffineTransform(self.shift[step], self.log_scale[step]),
                _Permutation(order),
                CouplingTransform(lambda half, step=step: self._coupling(half, step), mask),
            ]
        return ComposedTransform(*steps)

    def _coupling(self, half: Tensor, step: int) -> Transform:
        hidden = functional.elu(torch.baddbmm(self.bias1[step], half, self.weight1[step]))
        hidden = functional.elu(torch.baddbmm(self.bias2[step], hidden, self.weight2[step]))
        output = torch.baddbmm(self.bias3[step], hidden, self.weight3[step])
        update = MonotonicAffineTransform(*output.chunk(2, dim=-1)) if self._affine else AdditiveTransform(output)
        transform: Transform = DependentTransform(update, 1)
        return transform


class _Permutation(Transform):
    """Permutation of the dimensions of `F N D`, by one order for each flow, `F D`; zuko's has one for all.

    Args:
        order: `int64 F D`, from where each dimension is taken.
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self._order = order

    def _call(self, x: Tensor) -> Tensor:
        return x.gather(-1, self._order[:, None].expand_as(x))

    def _inverse(self, y: Tensor) -> Tensor:
        return y.gather(-1, self._order.argsort(-1)[:, None].expand_as(y))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[:-1])


def standard_normal(x: Tensor) -> Tensor:
    """The log-density log N(x; 0, I) `...` of points `... D`, in nats."""
    return -0.5 * (x.square() + math.log(2 * math.pi)).sum(-1)


def divergence(x: Tensor, log_q: Tensor) -> Tensor:
    """Monte-Carlo estimate of KL(q || N(0, I)) of each flow, in nats: mean over n of log q(x_n) - log N(x_n; 0, I).

    Args:
        x: samples of q, `F N D`.
        log_q: their log-density, `F N`.

    Returns:
        `F`; unbiased, so it may be negative.
    """
    return (log_q - standard_normal(x)).mean(-1)
