"""Calibrated negatives: public images that a target takes for a private label, as surely as it takes private ones.

They show nothing of the private data, so whoever finds the label there is wrong. How often a judge does says how many
of the reconstructions that merely fool the target it would let pass.
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

#: Images drawn for each that is pushed: one that the target takes for every label it could be pushed to is of no use.
_SPARE = 2


@dataclass(frozen=True)
class Ball:
    """Where an image may be pushed, in levels of 255: every pixel by `radius` at most, by `step` at a time."""

    radius: int
    step: int
    steps: int

    @classmethod
    def of(cls, channels: int) -> Ball:
        """The usual radius for images of one channel (0.3 of the range) and in colour (8/255)."""
        return cls(76, 8, 16) if channels == 1 else cls(8, 1, 16)


def make_negatives(
    network: Network, public: Images, known: Predictions, labels: tuple[int, ...], each: int, context: Context
) -> Negatives:
    """Push public images until the target takes them for a label.

    An image goes against the sign of the gradient of the loss of its label, in an L-infinity ball around where it
    began, until the target says the label and its log-odds `z_y - log sum_{j != y} exp z_j` reach the median of those
    of the true label over the private test images that the target gets right. It stays in the ball if they do not.
    For each label the images are the first of a random order that no label before took and that the target does not
    take for the label as they are. Pixels are whole levels throughout, so that what is stored is what was tried.

    Args:
        network: the target.
        public: images of no private class.
        known: what the target says of the private test images.
        labels: towards which images are pushed.
        each: images per label, fewer where public images lack.
        context: with the device and the seed.

    References:
        C. Szegedy et al., "Intriguing properties of neural networks", ICLR 2014, https://arxiv.org/abs/1312.6199.
        A. Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018,
        https://arxiv.org/abs/1706.06083: projected gradient steps, and the radii.
        Ho et al., "Revisiting Model Inversion Evaluation", 2025, https://arxiv.org/abs/2505.03519: reconstructions
        that show nobody pass for successes, as adversarial examples that one network hands on to the next.

    Note:
        Images that are pushed only until the target's decision flips are none that an attack would end with: on digits
        no judge took one of 300 for the label. Attacks go on until the target is sure, hence the log-odds.

    Note:
        Steps are larger and fewer than Madry et al.'s (40 of 0.01 on MNIST), since they may stop early and the targets
        are not trained against them.

    Note:
        A stochastic target is asked anew after the last step, with noise of a fixed seed; `fooled` is that answer.
    """
    each = min(each, len(public) // max(1, len(labels)))
    order = torch.randperm(len(public), generator=torch.Generator().manual_seed(derive(context.seed, "order")))
    pool = public.pixels[order[: _SPARE * each * len(labels)]]
    said = predict(network, pool, context.device, derive(context.seed, "pool")).argmax(1) if len(pool) else order[:0]
    index, wanted = _assign(said, labels, each)
    start, sure = pool[index], _sure(known)
    ball, parts = Ball.of(pool.shape[1]), []
    context.progress.begin("negatives", len(start), 0)
    with frozen(network), torch.random.fork_rng([context.device] if context.device.type == "cuda" else []):
        for begin in range(0, len(start), CHUNK):
            part = slice(begin, begin + CHUNK)
            seed = derive(context.seed, "push", begin)
            parts.append(_push(network, start[part].to(context.device), wanted[part], ball, sure, seed))
            context.progress.advance(min(begin + CHUNK, len(start)), {})
    context.progress.end()
    pixels = torch.cat(parts) if parts else start
    answers = predict(network, pixels, context.device, derive(context.seed, "fooled")).argmax(1) if parts else wanted
    return Negatives(pixels, wanted, answers == wanted)


def _assign(said: Tensor, labels: tuple[int, ...], each: int) -> tuple[Tensor, Tensor]:
    """Which images of a pool are pushed to which label, `int64 N` both; `said` is what the target takes them for."""
    free = torch.ones(len(said), dtype=torch.bool)
    chosen = []
    for label in labels:
        found = (free & (said != label)).nonzero().flatten()[:each]
        free[found] = False
        chosen.append(found)
    lengths = torch.tensor([len(found) for found in chosen], dtype=torch.int64)
    return torch.cat(chosen), torch.tensor(labels).repeat_interleave(lengths)


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """`log(p / (1 - p))` of each row's label, `N`, without the rounding of p near 1."""
    own = labels[:, None]
    return logits.gather(1, own)[:, 0] - logits.scatter(1, own, -torch.inf).logsumexp(1)


def _sure(known: Predictions) -> float:
    """The median log-odds of the private test images that the target gets right; minus infinity without any."""
    odds = log_odds(known.logits.double(), known.labels)
    right = odds[known.logits.argmax(1) == known.labels]
    return float(right.median()) if len(right) else -torch.inf


def _push(network: Network, start: Tensor, labels: Tensor, ball: Ball, sure: float, seed: int) -> Tensor:
    """Images `uint8 N C H W`, on the network's device, at the end of their way; the result is on the CPU."""
    device = start.device
    origin, labels = start.short(), labels.to(device)
    low, high = (origin - ball.radius).clamp(min=0), (origin + ball.radius).clamp(max=255)
    found, moving = origin.clone(), torch.arange(len(origin), device=device)
    for step in range(ball.steps):
        seed_layers(device, derive(seed, step))
        x = found[moving].float().div(255).requires_grad_()
        logits = network.logits(x)
        odds = log_odds(logits, labels[moving])
        left = (logits.argmax(1) != labels[moving]) | (odds < sure)
        if not bool(left.any()):
            break
        gradient, moving = _gradient(odds.sum(), x)[left], moving[left]
        moved = found[moving] + ball.step * gradient.nan_to_num(0).sign().short()
        found[moving] = torch.minimum(torch.maximum(moved, low[moving]), high[moving])
    return found.to(torch.uint8).cpu()


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    """The gradient of a scalar, 0 where none reaches `x`; the probe of the target tells that in a flag."""
    if not value.requires_grad:
        return torch.zeros_like(x)
    try:
        (gradient,) = torch.autograd.grad(value, x, allow_unused=True, materialize_grads=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # an operation without a derivative, which stops every attack by gradients alike
        return torch.zeros_like(x)
    return gradient
