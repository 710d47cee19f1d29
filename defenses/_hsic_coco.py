"""Kernels, dependence measures and the bilateral regulariser of BiDO.

References:
    Peng, Liu, Zhang, Lan, Ye, Liu, Han: Bilateral Dependency Optimization: Defending Against Model-inversion Attacks,
    KDD 2022. https://arxiv.org/abs/2206.05483
    Gretton, Bousquet, Smola, Schoelkopf: Measuring Statistical Dependence with Hilbert-Schmidt Norms, ALT 2005.
    Gretton, Herbrich, Smola, Bousquet, Schoelkopf: Kernel Methods for Measuring Independence, JMLR 2005 (COCO).
    Fukumizu, Gretton, Sun, Schoelkopf: Kernel Measures of Conditional Dependence, NIPS 2007 (normalized HSIC).

Every measure compares two kernel matrices of one batch of `m` samples, in two steps: `represent` maps the centred
kernel of each random variable to a representation, and `compare` takes two representations. X and Y are thus
represented once per step, for any number of layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Bandwidth of the Gaussian kernels in units of the square root of the dimension.
SIGMA = 5.0
#: Ridge of the normalized HSIC, in units of the batch size.
EPSILON = 1e-5


class _Gram(torch.autograd.Function):
    """`z z'`, whose gradient `(g + g') z` takes one matrix product where differentiating `z @ z.T` takes two."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z @ z.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (z,) = ctx.saved_tensors
        (g,) = gradients
        product: Tensor = (g + g.T) @ z
        return product


def squared_distances(z: Tensor) -> Tensor:
    """Squared Euclidean distances `m m` between the rows of `z`, flattened to `m d`.

    `||a - b||^2 = a'a + b'b - 2 a'b`, in the precision of `z`, but at least float32. All later operations are on `m m`
    matrices and cheap, so the result is float64 where the device supports it (MPS does not).

    Note:
        Rounding may make a distance slightly negative; it is then 0, where the released code takes the absolute value.
    """
    z = _rows(z)
    gram: Tensor = _Gram.apply(z.to(torch.promote_types(z.dtype, torch.float32)))
    gram = gram.to(_precision(z.device))
    norms = gram.diagonal()
    return (norms[:, None] + norms[None, :] - 2 * gram).clamp_min(0)


def gaussian_kernel_minus_one(z: Tensor, sigma: float) -> Tensor:
    """Gaussian kernel `m m` of the rows of `z`, flattened to `m d`, minus 1.

    `k(a, b) = exp(-||a - b||^2 / (2 sigma^2 d))`: the bandwidth is `sigma sqrt(d)`. Centring removes the constant, and
    without it the kernel keeps the digits that float32 loses near 1.
    """
    scale = 2 * sigma**2 * z[0].numel()
    return torch.expm1(squared_distances(z) / -scale)


def label_kernel(y: Tensor) -> Tensor:
    """Linear kernel `m m` of labels: number of one-hot entries, or attributes, that two images share.

    Args:
        y: class labels `int64 m`, as one-hot vectors: the kernel is 1 where two labels agree, else 0; or attributes
            `bool m A`, as vectors of 0 and 1: the kernel is `y_i' y_j`, from 0 to A.

    Note:
        No paper defines the kernel for attributes. The linear kernel generalises that of the labels: with one attribute
        per class the two are equal. Centred, it does not depend on which value of an attribute is called 1.
    """
    if y.dtype == torch.bool:
        vectors = y.to(_precision(y.device))
        return vectors @ vectors.T
    return (y[:, None] == y[None, :]).to(_precision(y.device))


def centre(kernels: Tensor) -> Tensor:
    """Centre kernels `... m m`, `H K H` with `H = I - 11'/m`, so that rows and columns sum to zero."""
    rows = kernels.mean(-1, keepdim=True)
    columns = kernels.mean(-2, keepdim=True)
    return kernels - rows - columns + rows.mean(-2, keepdim=True)


@dataclass(frozen=True)
class Measure:
    """Dependence measure of centred kernels.

    Args:
        represent: maps centred kernels `n m m` to their representations `n m m`.
        compare: maps two representations `... m m` to the dependence `...`.
    """

    represent: Callable[[Tensor], Tensor]
    compare: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        """Dependence of two variables with kernels `k` and `l` (`m m`, not centred); a scalar."""
        a, b = self.represent(centre(torch.stack((k, l))))
        return self.compare(a, b)


def _normalize(kernels: Tensor) -> Tensor:
    m = kernels.shape[-1]
    ridge = EPSILON * m
    identity = torch.eye(m, dtype=kernels.dtype, device=kernels.device)
    # `inv_ex` does not wait for the device; a singular matrix gives NaN, which the loss then shows.
    inverse: Tensor = torch.linalg.inv_ex(kernels + ridge * identity).inverse
    return identity - ridge * inverse


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((-2, -1))


def _biased(a: Tensor, b: Tensor) -> Tensor:
    return _inner(a, b) / (a.shape[-1] - 1) ** 2


def _coco_frobenius(a: Tensor, b: Tensor) -> Tensor:
    return _root((a @ b).square().sum((-2, -1)), 0.25) / a.shape[-1]


def _coco_spectral(a: Tensor, b: Tensor) -> Tensor:
    return _root(torch.linalg.matrix_norm(a @ b, ord=2), 0.5) / a.shape[-1]


def _root(value: Tensor, power: float) -> Tensor:
    """`value ** power` with gradient 0 at 0, where a latent that is constant over the batch would make it infinite."""
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0) ** power, 0.0)


def _identity(kernels: Tensor) -> Tensor:
    return kernels


#: `trace(R_K R_L)` with `R_K = K~ (K~ + eps m I)^-1`; in [0, m - 1].
#:
#: The released code centres on one side, `K~ = K H`. In the basis (complement of 1, 1) that is block triangular with
#: the block of `H K H` and zero on the diagonal, and so are the inverse and `R`; the trace reads only the diagonal.
#: So `K~ = H K H` gives the same value and gradient from a symmetric, well-conditioned matrix.
HSIC_NORMALIZED = Measure(_normalize, _inner)
#: Eq. 5, `trace(K H L H) / (m - 1)^2`; at least 0.
HSIC_BIASED = Measure(_identity, _biased)
#: `sqrt(||H K H H L H||_F) / m`, as released; at least 0.
COCO_FROBENIUS = Measure(_identity, _coco_frobenius)
#: Eq. 2, the same with the spectral norm; at least 0 and at most the Frobenius form.
COCO_SPECTRAL = Measure(_identity, _coco_spectral)


def regulariser(
    measure: Measure,
    x: Tensor,
    y: Tensor,
    latents: Sequence[Tensor],
    *,
    lambda_x: float,
    lambda_y: float,
    sigma: float = SIGMA,
) -> Tensor:
    """Bilateral term of BiDO (Eq. 7), summed over layers.

    `sum_j lambda_x d(X, Z_j) - lambda_y d(Z_j, Y)`

    The kernels of X and Y are computed once, and all kernels are represented in one batch on the device: one batched
    inverse of M + 2 matrices for the normalized HSIC. A term whose weight is 0 is not computed.

    Args:
        measure: d, such as `HSIC_NORMALIZED`.
        x: images `m C H W`.
        y: labels `int64 m`, or attributes `bool m A`.
        latents: Z_1 ... Z_M, each `m ...`.
        lambda_x: weight of the dependence on the input; at least 0.
        lambda_y: weight of the dependence on the label; at least 0.
        sigma: bandwidth of the Gaussian kernels in units of the square root of the dimension.

    Returns:
        A scalar in the precision of `x`, but at least float32.

    Note:
        The paper states O(m^2) for HSIC; the normalized estimator inverts `m m` matrices, which is O(m^3). The
        released code computes 4 kernels and 4 inverses per layer on the CPU, where M + 2 of each are enough.
    """
    if not (lambda_x or lambda_y):
        return x.new_zeros(())
    # The entries of the kernels are close to 1, where bfloat16 has too few digits.
    with torch.autocast(x.device.type, enabled=False):
        sides = [gaussian_kernel_minus_one(x, sigma)] if lambda_x else []
        sides += [label_kernel(y)] if lambda_y else []
        kernels = [*sides, *(gaussian_kernel_minus_one(z, sigma) for z in latents)]
        represented = measure.represent(centre(torch.stack(kernels)))
        zs = represented[len(sides) :]
        total = zs.new_zeros(())
        if lambda_x:
            total = total + lambda_x * measure.compare(represented[0], zs).sum()
        if lambda_y:
            total = total - lambda_y * measure.compare(zs, represented[len(sides) - 1]).sum()
        return total.to(torch.promote_types(x.dtype, torch.float32))


def _rows(z: Tensor) -> Tensor:
    """Flatten `z` to `m d`, without a copy for channels-last memory; the order within a row changes no distance."""
    if z.dim() == 4 and z.is_contiguous(memory_format=torch.channels_last):
        z = z.movedim(1, -1)
    return z.flatten(1)


def _precision(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
