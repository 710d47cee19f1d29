"""Functions that several attacks share: optimisation in a latent space in batches, states of networks, images."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..benchmark.access.views import WhiteBoxView
from ..benchmark.training.context import Context

#: Images that go through the networks at once, by kind of device; the target needs the rest of the memory.
IMAGES_AT_ONCE = {"cpu": 64, "cuda": 1024}

Chunk = tuple[slice, int]
M = TypeVar("M", bound=nn.Module)


def chunk_size(context: Context) -> int:
    """Images to send through the networks at once; fewer after memory ran out, which changes only the rounding."""
    return context.chunk_size(IMAGES_AT_ONCE.get(context.device.type, IMAGES_AT_ONCE["cpu"]))


def split_batch(labels: int, group: int, repeats: int, limit: int, *, whole: bool) -> list[Chunk]:
    """Split a batch of `repeats` times `labels` latents, labels fastest, into chunks that fit in memory.

    The published attacks optimise `group` labels together, which decides the scale of a mean loss and what minibatch
    discrimination compares with. All groups of a chunk have one size; the last group of each repeat is smaller where
    `group` does not divide `labels`.

    Args:
        labels: number of labels.
        group: labels that are optimised together.
        repeats: copies of the labels.
        limit: largest number of images in a chunk.
        whole: keep groups whole, even those larger than `limit`; otherwise split them.

    Returns:
        Slices of the batch, each with the size of its groups.

    Example:
        >>> split_batch(5, 60, 2, 64, whole=True), split_batch(7, 4, 1, 64, whole=True)
        ([(slice(0, 10, None), 5)], [(slice(0, 4, None), 4), (slice(4, 7, None), 3)])
        >>> split_batch(3, 3, 1, 2, whole=False)
        [(slice(0, 2, None), 3), (slice(2, 3, None), 3)]
    """
    count, rest = divmod(labels, group)
    sizes = ([group] * count + [rest] * (rest > 0)) * repeats
    chunks, start = [], 0
    for size, run in itertools.groupby(sizes):
        end = start + size * len(list(run))
        step = limit if size > limit and not whole else size * max(1, limit // size)
        chunks += [(slice(first, min(first + step, end)), size) for first in range(start, end, step)]
        start = end
    return chunks


def accumulate_gradients(
    view: WhiteBoxView,
    targets: Tensor,
    chunks: Sequence[Chunk],
    images: Callable[[slice], Tensor],
    prior: Callable[[Tensor, int], Tensor],
    identity_weight: float,
) -> dict[str, Tensor]:
    """Add the gradient of the attack loss to the latents behind `images`, chunk by chunk.

    loss = sum over groups of the group's mean of [prior(x, group) + identity_weight * CE(T(x), y)]

    Each group gets the same gradient as in the published attack, which runs one group at a time.

    Args:
        view: the white-box view of the target T.
        targets: labels `int64 N` of the whole batch.
        chunks: from `split_batch`.
        images: returns the images `M C H W` of a slice of the batch, differentiable in the latents.
        prior: returns the loss `M` of each image, from images and the size of their groups.
        identity_weight: factor of the cross-entropy.

    Returns:
        The mean prior loss and the mean cross-entropy of the batch.
    """
    sums = torch.zeros(2, device=targets.device)
    for chunk, group in chunks:
        x = images(chunk)
        realism = prior(x, group)
        identity = functional.cross_entropy(view.logits(x), targets[chunk], reduction="none")
        ((realism + identity_weight * identity).sum() / group).backward()  # type: ignore[no-untyped-call]
        sums += torch.stack((realism.detach().sum(), identity.detach().sum()))
    realism_mean, identity_mean = sums / len(targets)
    return {"prior": realism_mean, "identity": identity_mean}


def load_frozen(module: M, state: Mapping[str, Tensor], device: torch.device) -> M:
    """Load the weights of a prior into `module`, in evaluation mode and without gradients for its parameters."""
    module.load_state_dict(dict(state), strict=True)
    return module.to(device).eval().requires_grad_(False)


def cpu_state(module: nn.Module) -> dict[str, Tensor]:
    """Copy the state of `module` to the CPU, as a prior stores it."""
    return {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}


def adam(
    module: nn.Module, learning_rate: float, betas: tuple[float, float], device: torch.device
) -> torch.optim.Optimizer:
    """Adam over the parameters of `module`, in one kernel where the device has it."""
    fused = device.type in ("cpu", "cuda")
    return torch.optim.Adam(module.parameters(), lr=learning_rate, betas=betas, fused=fused)


@torch.no_grad()
def map_latents(function: Callable[[Tensor], Tensor], latents: Tensor, context: Context) -> Tensor:
    """Apply `function`, which returns its result on the CPU, to the observed latents `N ...`, chunk by chunk."""
    return torch.cat([function(z.to(context.device)) for z in torch.split(latents, context.chunk_size(256))])


@torch.no_grad()
def generate_images(generator: Callable[[Tensor], Tensor], z: Tensor, limit: int) -> Tensor:
    """Generate images `uint8 ... C H W` on the CPU from latents `... D`, `limit` at a time."""
    flat = z.reshape(-1, z.shape[-1])
    x = torch.cat([quantise(generator(chunk)) for chunk in torch.split(flat, limit)])
    return x.reshape(*z.shape[:-1], *x.shape[1:])


def quantise(x: Tensor) -> Tensor:
    """Convert images in [0, 1] to `uint8` on the CPU, rounded to the nearest of 256 levels."""
    return x.clamp(0, 1).mul(255).round().to(torch.uint8).cpu()
