"""A classifier's training written out by hand: seeds, batches, augmentation, losses, schedule and optimisers.

Nothing here calls the code of a training. With the fixture `double` both compute in float64 and agree to rounding.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Sequence

import torch
from privbench.benchmark.core.config import Recipe
from torch import Tensor, nn


def seed_of(*parts: int | str) -> int:
    """The first 63 bits after the top one of the SHA-256 of the parts as JSON."""
    first = hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()[:16]
    return int(first, 16) % 2**63


def generator(*parts: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_of(*parts))


def batch(count: int, size: int, seed: int, step: int) -> list[int]:
    """Images of a step of the shuffle sampler: every epoch is a new permutation, without its incomplete end."""
    epoch, position = divmod(step, count // size)
    order = torch.randperm(count, generator=generator(seed, "epoch", epoch)).tolist()
    return order[position * size : (position + 1) * size]


def augmented(images: Tensor, kind: str, drawn: torch.Generator) -> Tensor:
    """Images `N C H W`, pixel by pixel: where each pixel comes from, 0 where it comes from nowhere."""
    n, _, height, width = images.shape
    mirrored, down, right, rows, columns = [0] * n, [0] * n, [0] * n, [range(0)] * n, [range(0)] * n
    if kind in ("flip", "crop_flip"):
        mirrored = torch.randint(0, 2, (n,), generator=drawn).tolist()
    if kind == "crop_flip":
        offsets = torch.randint(0, 9, (2, n, 1), generator=drawn) - 4
        down, right = offsets[0].flatten().tolist(), offsets[1].flatten().tolist()
    if kind == "cutout":
        rows, columns = box(n, height, drawn), box(n, width, drawn)
    found = []
    for i, image in enumerate(images.tolist()):
        erased = {(r, c) for r in rows[i] for c in columns[i]}

        def pixel(channel: list[list[float]], r: int, c: int, i: int = i, erased: set = erased) -> float:
            y, x = r + down[i], (width - 1 - c if mirrored[i] else c) + right[i]
            return channel[y][x] if 0 <= y < height and 0 <= x < width and (r, c) not in erased else 0

        found.append([[[pixel(ch, r, c) for c in range(width)] for r in range(height)] for ch in image])
    return torch.tensor(found, dtype=images.dtype)


def box(n: int, side: int, drawn: torch.Generator) -> list[range]:
    """Positions that a box of half the side covers, around points that are uniform over the side."""
    size = side // 2
    centres = torch.randint(0, side if size % 2 else side + 1, (n, 1), generator=drawn).flatten().tolist()
    return [range(centre - size // 2, centre - size // 2 + size) for centre in centres]


def outputs(stages: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """Output of each stage; the last are the logits."""
    found = []
    for stage in stages:
        x = stage(x)
        found.append(x)
    return found


def task_loss(logits: Tensor, y: Tensor) -> Tensor:
    """`-log softmax(logits)_y` in the mean over images, or the mean binary cross-entropy over images and attributes."""
    total = torch.zeros(())
    if y.dtype != torch.bool:
        for row, label in zip(logits, y.tolist(), strict=True):
            total = total - row[label] + row.exp().sum().log()
        return total / len(y)
    for row, truth in zip(logits, y.tolist(), strict=True):
        for logit, attribute in zip(row, truth, strict=True):
            right = 1 / (1 + (-logit if attribute else logit).exp())
            total = total - right.log()
    return total / y.numel()


def rate(recipe: Recipe, epoch: int) -> float:
    """Step size in an epoch: times gamma at each milestone that has passed."""
    value = recipe.learning_rate
    for milestone in recipe.milestones:
        if milestone <= epoch:
            value = value * recipe.gamma
    return value


class SGD:
    """`v <- mu v + g` from `v = g`, then `w <- w - rate (g + mu v)` with Nesterov, else `w - rate v`."""

    def __init__(self, momentum: float, nesterov: bool, weight_decay: float) -> None:
        self.momentum, self.nesterov, self.decay = momentum, nesterov, weight_decay
        self.velocity: dict[int, Tensor] = {}

    def step(self, weights: Sequence[Tensor], gradients: Sequence[Tensor | None], step_size: float) -> None:
        for i, (w, gradient) in enumerate(zip(weights, gradients, strict=True)):
            if gradient is not None:
                g = gradient + self.decay * w.data
                v = self.velocity[i] = self.momentum * self.velocity[i] + g if i in self.velocity else g
                w.data = w.data - step_size * (g + self.momentum * v if self.nesterov else v)


class Adam:
    """Kingma and Ba, Algorithm 1, with the L2 penalty in the gradient."""

    def __init__(self, betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0) -> None:
        self.betas, self.decay, self.t = betas, weight_decay, 0
        self.moments: dict[int, tuple[Tensor, Tensor]] = {}

    def step(self, weights: Sequence[Tensor], gradients: Sequence[Tensor | None], step_size: float) -> None:
        self.t += 1
        (one, two), t = self.betas, self.t
        for i, (w, gradient) in enumerate(zip(weights, gradients, strict=True)):
            if gradient is not None:
                g = gradient + self.decay * w.data
                m, v = self.moments.get(i, (torch.zeros_like(g), torch.zeros_like(g)))
                m, v = one * m + (1 - one) * g, two * v + (1 - two) * g * g
                self.moments[i] = m, v
                w.data = w.data - step_size * (m / (1 - one**t)) / ((v / (1 - two**t)).sqrt() + 1e-8)


def optimizer(recipe: Recipe) -> SGD | Adam:
    if recipe.optimizer == "adam":
        return Adam(weight_decay=recipe.weight_decay)
    return SGD(recipe.momentum, recipe.nesterov, recipe.weight_decay)


def train(
    stages: nn.ModuleList,
    pixels: Tensor,
    truth: Tensor,
    recipe: Recipe,
    loss: Callable[[nn.ModuleList, Tensor, Tensor], Tensor],
    *,
    seed: int,
    loop: str = "target",
    augmentation: str = "none",
) -> tuple[nn.ModuleList, list[float]]:
    """Train a copy of the stages; return it in evaluation mode, and the loss of each step."""
    trained, used = copy.deepcopy(stages).train(), optimizer(recipe)
    weights = [w for w in trained.parameters() if w.requires_grad]
    an_epoch = len(pixels) // recipe.batch_size
    steps, batches, losses = recipe.epochs * an_epoch, seed_of(seed, loop, "batches"), []
    for i in range(steps if recipe.max_steps is None else min(steps, recipe.max_steps)):
        chosen = batch(len(pixels), recipe.batch_size, batches, i)
        x = torch.stack([pixels[j] for j in chosen]).double() / 255
        x = augmented(x, augmentation, generator(batches, "step", i))
        torch.manual_seed(seed_of(seed, loop, i))
        value = loss(trained, x, torch.stack([truth[j] for j in chosen]))
        gradients = torch.autograd.grad(value, weights, allow_unused=True)
        used.step(weights, gradients, rate(recipe, i // an_epoch))
        losses.append(float(value.detach()))
    return trained.eval(), losses


def assert_equal(found: nn.Module, expected: nn.Module, tolerance: float = 1e-8) -> None:
    """Compare all weights and buffers of two networks in their order."""
    theirs, ours = (list(module.state_dict().items()) for module in (expected, found))
    assert len(ours) == len(theirs)
    for (name, one), (_, other) in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}")
