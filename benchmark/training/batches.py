"""Batches of images that live on the device as `uint8`; each batch is a pure function of (seed, step)."""

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
    """Endless training batches, addressed by step.

    An epoch's order comes from a generator seeded by (seed, epoch) and a batch's augmentation from one seeded by
    (seed, step), both on the CPU: a run that resumes at any step, or on another device, sees the same batches.

    `shuffle` cuts a permutation of the images into batches. `identity` puts P = batch_size / K identities with K
    images each into a batch; in an epoch it uses floor(n / K) K of an identity's n images, each at most once, and the
    identities of a batch are distinct. The last, incomplete batch of an epoch is dropped. Where there are fewer images
    than `batch_size`, or fewer identities than P, a batch holds all of them.

    `flip` mirrors each image with probability 1/2; `crop_flip` also pads it by 4 zeros and cuts it back at a random
    offset, drawn for each image. `cutout` blackens a box of half the height and width around a random point, which
    reaches over the border where the point is near it.

    Args:
        images: `uint8 N C H W`, moved to the device once, or batch by batch where they would fill more than half of
            what is free on a GPU.
        batch_size: B, images per step.
        seed: of the whole sequence.
        sampler: `shuffle` or `identity` (of `images.identities`, else of `images.labels`, if those are classes).
        instances: K, images per identity in a batch of the identity sampler.
        augmentation: `none`, `flip`, `crop_flip` or `cutout`.
        device: where batches are made.

    Raises:
        InvalidConfigurationError: there is no image, or the identity sampler finds no identity with K images.

    Note:
        BiDO's sampler stops an epoch when fewer than P identities are left, after a number of batches that varies from
        epoch to epoch; ours picks identities so that every epoch has the largest possible number of batches, which
        makes the epoch of a step known in advance.
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
            raise InvalidConfigurationError("expected images to hold at least one image, got none")
        self._device = torch.device(device)
        self._pixels = images.pixels.to(self._device) if _fits(images.pixels, self._device) else images.pixels
        self._labels = None if images.labels is None else images.labels.to(device)
        self._seed = seed
        self._augmentation = augmentation
        self._order: _Order
        if sampler == "identity":
            self._order = _ByIdentity(_owners(images), batch_size, instances)
        else:
            self._order = _Shuffled(len(images), batch_size)
        self._epoch: tuple[int, Tensor] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, at least 1."""
        return self._order.steps

    def at(self, step: int) -> tuple[Tensor, Tensor | None]:
        """The batch of `step`.

        Args:
            step: from 0; epochs follow one another.

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
    """All images once, in order, without augmentation; the last batch may be smaller.

    Yields:
        `float32 B C H W` in [0, 1] and `int64 B` labels (`None` for unlabelled images).
    """
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        labels = None if images.labels is None else images.labels[part].to(device)
        yield to_float(images.pixels[part].to(device)), labels


def to_float(pixels: Tensor) -> Tensor:
    """`uint8` 0 .. 255 to `float32` in [0, 1]."""
    return pixels.to(torch.float32).div_(255)


def augment(pixels: Tensor, kind: Augmentation, generator: torch.Generator) -> Tensor:
    """Mirror and shift each image of `N C H W`, or hide a part, by draws of a CPU generator; see `Batches`.

    References:
        DeVries, Taylor. Improved Regularization of Convolutional Neural Networks with Cutout. 2017.
        https://arxiv.org/abs/1708.04552
    """
    if kind == "none":
        return pixels
    n, _, height, width = pixels.shape
    if kind == "cutout":
        rows, columns = _hidden(n, height, generator), _hidden(n, width, generator)
        box = rows[:, None, :, None] & columns[:, None, None, :]
        return pixels.masked_fill(box.to(pixels.device), 0)
    mirrored = torch.randint(0, 2, (n,), generator=generator)
    if kind == "flip":
        chosen = mirrored.bool().to(pixels.device).view(n, 1, 1, 1)
        return torch.where(chosen, pixels.flip(-1), pixels)
    offsets = torch.randint(0, 2 * PADDING + 1, (2, n, 1), generator=generator)
    rows = offsets[0] + torch.arange(height)
    columns = offsets[1] + torch.where(mirrored.bool().view(n, 1), torch.arange(width).flip(0), torch.arange(width))
    return _take(functional.pad(pixels, (PADDING,) * 4), rows.to(pixels.device), columns.to(pixels.device))


def _take(pixels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels `N C H W` at rows `N H'` and columns `N W'`, as `N C H' W'`."""
    n, channels = pixels.shape[:2]
    image = torch.arange(n, device=pixels.device).view(n, 1, 1, 1)
    channel = torch.arange(channels, device=pixels.device).view(1, channels, 1, 1)
    return pixels[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _hidden(n: int, length: int, generator: torch.Generator) -> Tensor:
    """Which of `length` positions are hidden, `bool n length`: half of them, or fewer where the border is near.

    The middle c is uniform in 0 .. length for an even size s of the box, in 0 .. length - 1 for an odd one; hidden
    are c - floor(s / 2) .. c - floor(s / 2) + s - 1.
    """
    size = length // 2
    middle = torch.randint(0, length + 1 - size % 2, (n, 1), generator=generator)
    offset = torch.arange(length) - (middle - size // 2)
    return (offset >= 0) & (offset < size)


def _fits(pixels: Tensor, device: torch.device) -> bool:
    """Whether the images may stay on the device; the network and its gradients need room beside them."""
    return device.type != "cuda" or pixels.nbytes <= torch.cuda.mem_get_info(device)[0] // 2


def _generator(seed: int, *name: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, *name))


def _owners(images: Images) -> Tensor:
    owners = images.labels if images.identities is None else images.identities
    if owners is None or owners.ndim != 1:
        raise InvalidConfigurationError(
            "expected images to have identities or class labels for sampler 'identity', got neither; "
            "use sampler 'shuffle'"
        )
    return owners.cpu()


class _Shuffled:
    """A permutation cut into batches."""

    def __init__(self, count: int, batch_size: int) -> None:
        self._count = count
        self._size = min(batch_size, count)
        self.steps = count // self._size

    def draw(self, generator: torch.Generator) -> Tensor:
        """Indices of one epoch, `int64 steps B`."""
        order = torch.randperm(self._count, generator=generator)
        return order[: self.steps * self._size].view(self.steps, self._size)


class _ByIdentity:
    """P identities with K images each."""

    def __init__(self, owners: Tensor, batch_size: int, instances: int) -> None:
        _, self._owners, counts = owners.unique(return_inverse=True, return_counts=True)  # type: ignore[no-untyped-call]
        self._groups = counts // instances
        self._start = counts.cumsum(0) - counts
        self._instances = instances
        usable = int((self._groups > 0).sum())
        if usable == 0:
            raise InvalidConfigurationError(
                f"expected an identity to have at least {instances} images for sampler 'identity', "
                f"got at most {int(counts.max())}; use fewer instances or sampler 'shuffle'"
            )
        self._identities = min(max(batch_size // instances, 1), usable)
        self.steps = _most_batches(self._groups, self._identities)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Indices of one epoch, `int64 steps P*K`, the images of an identity side by side."""
        order = torch.randperm(len(self._owners), generator=generator)
        order = order[self._owners[order].argsort(stable=True)]
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
        """P random identities of those with groups left; those that every remaining batch needs come first."""
        rank = torch.rand(len(left), generator=generator)
        rank[left >= remaining] += 1
        rank[left == 0] = -1
        return rank.topk(self._identities).indices


_Order = _Shuffled | _ByIdentity


def _most_batches(groups: Tensor, identities: int) -> int:
    """The largest T with sum_i min(groups_i, T) >= T P: so many batches of P distinct identities can be made."""
    low, high = 1, int(groups.sum()) // identities
    while low < high:
        middle = (low + high + 1) // 2
        if int(groups.clamp(max=middle).sum()) >= middle * identities:
            low = middle
        else:
            high = middle - 1
    return low
