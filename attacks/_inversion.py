"""What attacks in the latent space of a generator share: published groups, gradients, frozen networks, pixels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..benchmark.access.views import WhiteBoxView

if TYPE_CHECKING:
    from ..benchmark.training.context import Context

#: Images that go through the networks at once, by kind of device; the rest of the memory is the target's.
IMAGES_AT_ONCE = {"cpu": 64, "cuda": 1024}

Part = tuple[slice, int]
M = TypeVar("M", bound=nn.Module)


def chunk_size(context: Context) -> int:
    """How many images go through the networks at once; fewer when memory ran out, which changes rounding only."""
    return context.chunk_size(IMAGES_AT_ONCE.get(context.device.type, IMAGES_AT_ONCE["cpu"]))


def parts(labels: int, group: int, repeats: int, limit: int, *, whole: bool) -> list[Part]:
    """Cut a batch of `repeats` times `labels` latents, labels fastest, into what fits in memory.

    The published attacks optimise `group` labels together, which decides the scale of a mean loss and what minibatch
    discrimination compares with. A part holds groups of one size; the last group of each repeat is smaller where
    `group` does not divide `labels`.

    Args:
        labels: how many.
        group: labels that are optimised together.
        repeats: of the labels.
        limit: images of a part at most.
        whole: groups are kept whole, even those larger than `limit`; otherwise such a group is cut.

    Returns:
        Slices of the batch, each with the size of its groups.

    Example:
        >>> parts(5, 60, 2, 64, whole=True), parts(7, 4, 1, 64, whole=True)
        ([(slice(0, 10, None), 5)], [(slice(0, 4, None), 4), (slice(4, 7, None), 3)])
        >>> parts(3, 3, 1, 2, whole=False)
        [(slice(0, 2, None), 3), (slice(2, 3, None), 3)]
    """
    count, rest = divmod(labels, group)
    sizes = ([group] * count + [rest] * (rest > 0)) * repeats
    result, start = [], 0
    for size, run in itertools.groupby(sizes):
        end = start + size * len(list(run))
        step = limit if size > limit and not whole else size * max(1, limit // size)
        result += [(slice(first, min(first + step, end)), size) for first in range(start, end, step)]
        start = end
    return result


def descend(
    view: WhiteBoxView,
    targets: Tensor,
    cut: Sequence[Part],
    images: Callable[[slice], Tensor],
    prior: Callable[[Tensor, int], Tensor],
    identity_weight: float,
) -> dict[str, Tensor]:
    """Add the gradient of the attack loss to the leaves behind `images`, part by part.

    loss = sum over groups of the group's mean of [prior(x, group) + identity_weight * CE(T(x), y)]

    Each group gets the gradient that the published attack, which runs one group at a time, gives it.

    Args:
        view: the white-box view of the target T.
        targets: labels `int64 N` of the whole batch.
        cut: what `parts` returned.
        images: of a slice of the batch, `M C H W`, differentiable in the latents.
        prior: loss of each image, `M`, from images and size of their groups.
        identity_weight: factor of the cross-entropy.

    Returns:
        The mean prior loss and the mean cross-entropy of the batch.
    """
    sums = torch.zeros(2, device=targets.device)
    for part, group in cut:
        x = images(part)
        realism = prior(x, group)
        identity = functional.cross_entropy(view.logits(x), targets[part], reduction="none")
        ((realism + identity_weight * identity).sum() / group).backward()  # type: ignore[no-untyped-call]
        sums += torch.stack((realism.detach().sum(), identity.detach().sum()))
    realism_mean, identity_mean = sums / len(targets)
    return {"prior": realism_mean, "identity": identity_mean}


def restored(module: M, state: Mapping[str, Tensor], device: torch.device) -> M:
    """`module` with the weights of a prior, in evaluation mode and without gradients for its parameters."""
    module.load_state_dict(dict(state), strict=True)
    return module.to(device).eval().requires_grad_(False)


def weights(module: nn.Module) -> dict[str, Tensor]:
    """The state of `module` on the CPU, as a prior keeps it."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def adam(
    module: nn.Module, learning_rate: float, betas: tuple[float, float], device: torch.device
) -> torch.optim.Optimizer:
    """Adam over the parameters of `module`, in one kernel where the device has it."""
    fused = device.type in ("cpu", "cuda")
    return torch.optim.Adam(module.parameters(), lr=learning_rate, betas=betas, fused=fused)


@torch.no_grad()
def pixels(generator: Callable[[Tensor], Tensor], z: Tensor, limit: int) -> Tensor:
    """Images `uint8 ... C H W` on the CPU of latents `... D`, `limit` at a time, in 256 levels (rounded)."""
    flat = z.reshape(-1, z.shape[-1])
    x = torch.cat([quantise(generator(part)) for part in torch.split(flat, limit)])
    return x.reshape(*z.shape[:-1], *x.shape[1:])


def quantise(x: Tensor) -> Tensor:
    """Images in [0, 1] as `uint8` on the CPU, rounded to the nearest of 256 levels."""
    return x.clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
