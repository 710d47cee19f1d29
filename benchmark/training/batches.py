"""Batches of images that are stored on the device as `uint8`; each batch is a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ..core.evidence import Images
from ..core.seeds import derive
from ..errors import InvalidConfigurationError

Sampler = Literal["shuffle", "identity"]
Augmentation = Literal["none", "flip", "crop_flip", "cutout"]
#: Zeros around an image before the random crop.
PADDING = 4


class Batches:
    """Endless training batches, indexed by step.

    The order of an epoch comes from a generator seeded by (seed, epoch), the augmentation of a batch from one seeded by
    (seed, step), both on the CPU. A run that resumes at any step, or on another device, gets the same batches.

    `shuffle` cuts a permutation of the images into batches. `identity` puts P = batch_size / K identities with K
    images each into a batch; in an epoch it uses floor(n / K) K of an identity's n images, each at most once, and the
    identities of a batch are distinct. The last, incomplete batch of an epoch is dropped. With fewer images than
    `batch_size`, or fewer identities than P, a batch contains all of them.

    `flip` mirrors each image with probability 1/2; `crop_flip` also pads it by 4 zeros and cuts it back at a random
    offset, drawn for each image. `cutout` blackens a box of half the height and width around a random point; near the
    border part of the box lies outside the image.

    Args:
        images: `uint8 N C H W`, moved to the device once, or batch by batch if they would fill more than half of the
            free memory of a GPU.
        batch_size: B, images per step.
        seed: of the whole sequence.
        sampler: `shuffle` or `identity` (of `images.identities`, else of `images.labels`, if those are classes).
        instances: K, images per identity in a batch of the identity sampler.
        augmentation: `none`, `flip`, `crop_flip` or `cutout`.
        device: device of the batches.

    Raises:
        InvalidConfigurationError: there are no images, or no identity has K images for the identity sampler.

    Note:
        BiDO's sampler stops an epoch when fewer than P identities are left, so the number of batches varies between
        epochs. Ours picks identities so that every epoch has the largest possible number of batches; the epoch of a
        step is known in advance.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        seed: int,
        sampler: Sampler = "shuffle",
        instances: int = 4,
        augmentation: Augmentation = "none",
        device: torch.device | str = "cpu",
    ) -> None:
        assert images.pixels.dtype == torch.uint8 and images.pixels.ndim == 4
        if len(images) == 0:
            raise InvalidConfigurationError("expected images to contain at least one image, got none")
        self._device = torch.device(device)
        self._pixels = images.pixels.to(self._device) if _fits(images.pixels, self._device) else images.pixels
        self._labels = None if images.labels is None else images.labels.to(device)
        self._seed = seed
        self._augmentation = augmentation
        self._order: _Order
        if sampler == "identity":
            self._order = _ByIdentity(_identities(images), batch_size, instances)
        else:
            self._order = _Shuffled(len(images), batch_size)
        self._epoch: tuple[int, Tensor] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch, at least 1."""
        return self._order.steps

    def at(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Return the batch of `step`.

        Args:
            step: from 0, counted over all epochs.

        Returns:
            `float32 B C H W` in [0, 1], augmented, and the images' labels, `int64 B` or `bool B A` (`None` for
            unlabelled images).
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            order = self._order.draw(_generator(self._seed, "epoch", epoch))
            self._epoch = epoch, order.to(self._pixels.device)
        index = self._epoch[1][position]
        pixels = self._pixels[index].to(self._device)
        pixels = augment(pixels, self._augmentation, _generator(self._seed, "step", step))
        labels = None if self._labels is None else self._labels[index.to(self._device)]
        return to_float(pixels), labels


def batches(images: Images, size: int, device: torch.device | str = "cpu") -> Iterator[tuple[Tensor, Tensor | None]]:
    """Iterate over all images once, in order, without augmentation; the last batch may be smaller.

    Yields:
        `float32 B C H W` in [0, 1] and `int64 B` labels (`None` for unlabelled images).
    """
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        labels = None if images.labels is None else images.labels[part].to(device)
        yield to_float(images.pixels[part].to(device)), labels


def to_float(pixels: Tensor) -> Tensor:
    """Convert `uint8` 0 .. 255 to `float32` in [0, 1]."""
    return pixels.to(torch.float32).div_(255)


def augment(pixels: Tensor, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """Augment images `N C H W` as described in `Batches`, with random numbers of a CPU generator.

    References:
        DeVries, Taylor. Improved Regularization of Convolutional Neural Networks with Cutout. 2017.
        https://arxiv.org/abs/1708.04552
    """
    if kind == "none":
        return pixels
    n, _, height, width = pixels.shape
    if kind == "cutout":
        rows, columns = _cutout(n, height, generator), _cutout(n, width, generator)
        box = rows[:, None, :, None] & columns[:, None, None, :]
        return pixels.masked_fill(box.to(pixels.device), 0)
    mirrored = torch.randint(0, 2, (n,), generator=generator)
    if kind == "flip":
        chosen = mirrored.bool().to(pixels.device).view(n, 1, 1, 1)
        return torch.where(chosen, pixels.flip(-1), pixels)
    offsets = torch.randint(0, 2 * PADDING + 1, (2, n, 1), generator=generator)
    rows = offsets[0] + torch.arange(height)
    columns = offsets[1] + torch.where(mirrored.bool().view(n, 1), torch.arange(width).flip(0), torch.arange(width))
    return _gather(functional.pad(pixels, (PADDING,) * 4), rows.to(pixels.device), columns.to(pixels.device))


def _gather(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Select rows `N H'` and columns `N W'` of pixels `N C H W`; returns `N C H' W'`."""
    n, channels = pixels.shape[:2]
    image = torch.arange(n, device=pixels.device).view(n, 1, 1, 1)
    channel = torch.arange(channels, device=pixels.device).view(1, channels, 1, 1)
    return pixels[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _cutout(n: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw which of `length` positions the box of `cutout` covers, `bool n length`: half of them, fewer at a border.

    The centre c is uniform in 0 .. length for an even size s of the box, in 0 .. length - 1 for an odd one. The box
    covers c - floor(s / 2) .. c - floor(s / 2) + s - 1.
    """
    size = length // 2
    centre = torch.randint(0, length + 1 - size % 2, (n, 1), generator=generator)
    offset = torch.arange(length) - (centre - size // 2)
    return (offset >= 0) & (offset < size)


def _fits(pixels: Tensor, device: torch.device) -> bool:
    """Return whether the images can be stored on the device and leave memory for the network and its gradients."""
    return device.type != "cuda" or pixels.nbytes <= torch.cuda.mem_get_info(device)[0] // 2


def _generator(seed: int, *name: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, *name))


def _identities(images: Images) -> Tensor:
    identities = images.labels if images.identities is None else images.identities
    if identities is None or identities.ndim != 1:
        raise InvalidConfigurationError(
            "expected images to have identities or class labels for sampler 'identity', got neither; "
            "use sampler 'shuffle'"
        )
    return identities.cpu()


class _Shuffled:
    """Order of the shuffle sampler: a permutation cut into batches."""

    def __init__(self, count: int, batch_size: int) -> None:
        self._count = count
        self._size = min(batch_size, count)
        self.steps = count // self._size

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw the indices of one epoch, `int64 steps B`."""
        order = torch.randperm(self._count, generator=generator)
        return order[: self.steps * self._size].view(self.steps, self._size)


class _ByIdentity:
    """Order of the identity sampler: P identities with K images each."""

    def __init__(self, identities: Tensor, batch_size: int, instances: int) -> None:
        _, self._identity, counts = identities.unique(  # type: ignore[no-untyped-call]
            return_inverse=True, return_counts=True
        )
        self._groups = counts // instances
        self._start = counts.cumsum(0) - counts
        self._instances = instances
        usable = int((self._groups > 0).sum())
        if usable == 0:
            raise InvalidConfigurationError(
                f"expected an identity to have at least {instances} images for sampler 'identity', "
                f"got at most {int(counts.max())}; use fewer instances or sampler 'shuffle'"
            )
        self._per_batch = min(max(batch_size // instances, 1), usable)
        self.steps = _max_batches(self._groups, self._per_batch)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw the indices of one epoch, `int64 steps P*K`; the images of an identity are adjacent."""
        order = torch.randperm(len(self._identity), generator=generator)
        order = order[self._identity[order].argsort(stable=True)]
        members = torch.arange(self._instances)
        left = self._groups.clone()
        rows = []
        for remaining in range(self.steps, 0, -1):
            picked = self._pick(left, remaining, generator)
            left[picked] -= 1
            first = self._start[picked] + left[picked] * self._instances
            rows.append(order[(first[:, None] + members).flatten()])
        return torch.stack(rows)

    def _pick(self, left: Tensor, remaining: int, generator: torch.Generator) -> Tensor:
        """Draw P identities with groups left; first those that every remaining batch needs."""
        rank = torch.rand(len(left), generator=generator)
        rank[left >= remaining] += 1
        rank[left == 0] = -1
        return rank.topk(self._per_batch).indices


_Order = _Shuffled | _ByIdentity


def _max_batches(groups: Tensor, identities: int) -> int:
    """Largest number T of batches of P distinct identities: the largest with sum_i min(groups_i, T) >= T P."""
    low, high = 1, int(groups.sum()) // identities
    while low < high:
        middle = (low + high + 1) // 2
        if int(groups.clamp(max=middle).sum()) >= middle * identities:
            low = middle
        else:
            high = middle - 1
    return low
