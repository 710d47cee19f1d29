"""Calibrated negatives: public images that a target classifies as a private label as confidently as private images.

They show nothing of the private data, so a judge that finds the label there is wrong. The rate at which it does
estimates how many reconstructions that merely fool the target it would accept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..core.evidence import Images, Negatives, Predictions
from ..core.seeds import derive, seed_layers
from ..training.optimisation import frozen
from .trained_models import CHUNK, predict

if TYPE_CHECKING:
    from ..networks.classifiers.network import Network
    from ..training.context import Context

#: Images drawn for each image used; an image that the target already gives the wanted label is not used.
_SPARE = 2


@dataclass(frozen=True)
class Ball:
    """An L-infinity ball in levels of 255: each pixel changes by at most `radius`, in steps of `step`."""

    radius: int
    step: int
    steps: int

    @classmethod
    def of(cls, channels: int) -> Ball:
        """Return the usual radius: 0.3 of the range for one channel, 8/255 in colour."""
        return cls(76, 8, 16) if channels == 1 else cls(8, 1, 16)


def make_negatives(
    network: Network, public: Images, known: Predictions, labels: tuple[int, ...], each: int, context: Context
) -> Negatives:
    """Change public images until the target classifies them as a given label.

    An image moves against the sign of the gradient of the loss of its label, in an L-infinity ball around its
    start, until the target predicts the label and its log-odds `z_y - log sum_{j != y} exp z_j` reach the median of
    those of the true label over the private test images that the target classifies correctly, or until the steps are
    used up. For each label the images are the first in a random order that no earlier label used and that the target
    does not give the label unchanged. Pixels are whole levels throughout, so that the stored image is the tested one.

    Args:
        network: the target.
        public: images of no private class.
        known: the target's predictions on the private test images.
        labels: the wanted labels.
        each: images per label; fewer if there are not enough public images.
        context: with the device and the seed.

    References:
        C. Szegedy et al., "Intriguing properties of neural networks", ICLR 2014, https://arxiv.org/abs/1312.6199.
        A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018,
        https://arxiv.org/abs/1706.06083: projected gradient steps, and the radii.
        Ho et al., "Revisiting Model Inversion Evaluation", 2025, https://arxiv.org/abs/2505.03519: reconstructions
        that show nobody count as successes, like adversarial examples that transfer between networks.

    Note:
        Images at which the decision has just flipped are no fair negatives: on digits no judge gave one of 300 the
        label. Attacks continue until the target is confident, hence the log-odds.

    Note:
        Steps are larger and fewer than Madry et al.'s (40 of 0.01 on MNIST), since they may stop early and the
        targets are not adversarially trained.

    Note:
        A stochastic target predicts again after the last step, with noise of a fixed seed; `fooled` holds the result.
    """
    each = min(each, len(public) // max(1, len(labels)))
    order = torch.randperm(len(public), generator=torch.Generator().manual_seed(derive(context.seed, "order")))
    pool = public.pixels[order[: _SPARE * each * len(labels)]]
    predicted = (
        predict(network, pool, context.device, derive(context.seed, "pool")).argmax(1) if len(pool) else order[:0]
    )
    index, wanted = _assign(predicted, labels, each)
    start, threshold = pool[index], _confident_log_odds(known)
    ball, parts = Ball.of(pool.shape[1]), []
    context.progress.begin("negatives", len(start), 0)
    with frozen(network), torch.random.fork_rng([context.device] if context.device.type == "cuda" else []):
        for begin in range(0, len(start), CHUNK):
            part = slice(begin, begin + CHUNK)
            seed = derive(context.seed, "push", begin)
            parts.append(_move(network, start[part].to(context.device), wanted[part], ball, threshold, seed))
            context.progress.advance(min(begin + CHUNK, len(start)), {})
    context.progress.end()
    pixels = torch.cat(parts) if parts else start
    answers = predict(network, pixels, context.device, derive(context.seed, "fooled")).argmax(1) if parts else wanted
    return Negatives(pixels, wanted, answers == wanted)


def _assign(predicted: Tensor, labels: tuple[int, ...], each: int) -> tuple[Tensor, Tensor]:
    """Assign images of a pool to wanted labels: indices and labels, both `int64 N`; `predicted` are the target's."""
    free = torch.ones(len(predicted), dtype=torch.bool)
    chosen = []
    for label in labels:
        found = (free & (predicted != label)).nonzero().flatten()[:each]
        free[found] = False
        chosen.append(found)
    lengths = torch.tensor([len(found) for found in chosen], dtype=torch.int64)
    return torch.cat(chosen), torch.tensor(labels).repeat_interleave(lengths)


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute `log(p / (1 - p))` of each row's label, `N`, without the rounding of p near 1."""
    own = labels[:, None]
    return logits.gather(1, own)[:, 0] - logits.scatter(1, own, -torch.inf).logsumexp(1)


def _confident_log_odds(known: Predictions) -> float:
    """Return the median log-odds of correctly classified private test images; minus infinity without any."""
    odds = log_odds(known.logits.double(), known.labels)
    right = odds[known.logits.argmax(1) == known.labels]
    return float(right.median()) if len(right) else -torch.inf


def _move(network: Network, start: Tensor, labels: Tensor, ball: Ball, threshold: float, seed: int) -> Tensor:
    """Move images `uint8 N C H W` towards their labels; the result is on the CPU."""
    device = start.device
    origin, labels = start.short(), labels.to(device)
    low, high = (origin - ball.radius).clamp(min=0), (origin + ball.radius).clamp(max=255)
    found, moving = origin.clone(), torch.arange(len(origin), device=device)
    for step in range(ball.steps):
        seed_layers(device, derive(seed, step))
        x = found[moving].float().div(255).requires_grad_()
        logits = network.logits(x)
        odds = log_odds(logits, labels[moving])
        left = (logits.argmax(1) != labels[moving]) | (odds < threshold)
        if not bool(left.any()):
            break
        gradient, moving = _gradient(odds.sum(), x)[left], moving[left]
        moved = found[moving] + ball.step * gradient.nan_to_num(0).sign().short()
        found[moving] = torch.minimum(torch.maximum(moved, low[moving]), high[moving])
    return found.to(torch.uint8).cpu()


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of a scalar, 0 where none reaches `x`; the probe of the target raises a flag for that."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    try:
        (gradient,) = torch.autograd.grad(value, x, allow_unused=True, materialize_grads=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # an operation without a derivative, which stops every attack by gradients alike
        return torch.zeros_like(x)
    return gradient
