"""Alignment of faces for a face network: one differentiable warp of a protocol's image."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import InvalidConfigurationError
from .embedder import Embedder

if TYPE_CHECKING:
    from ...core.config import Protocol

Box = tuple[int, int, int, int]
#: Mean positions of eyes, nose and corners of the mouth in CelebA's aligned frame: x + iy, left and top first.
CELEBA_POINTS = (69.3 + 111.2j, 107.6 + 111.1j, 88.0 + 135.1j, 71.1 + 152.1j, 105.6 + 152.2j)
#: Their positions in ArcFace's template of 112 x 112 pixels.
ARCFACE_POINTS = (38.29 + 51.70j, 73.53 + 51.50j, 56.03 + 71.74j, 41.55 + 92.37j, 70.73 + 92.20j)


@dataclass(frozen=True)
class Similarity:
    """Similarity transform z -> turn z + shift of points x + iy: scaling, rotation and translation.

    The centres of pixels have integer coordinates.
    """

    turn: complex
    shift: complex

    def __call__(self, z: complex) -> complex:
        """Map a point."""
        return self.turn * z + self.shift

    def then(self, after: Similarity) -> Similarity:
        """Compose this map with another that follows it."""
        return Similarity(after.turn * self.turn, after(self.shift))

    def inverse(self) -> Similarity:
        """Return the inverse map."""
        return Similarity(1 / self.turn, -self.shift / self.turn)


def fit(source: tuple[complex, ...], target: tuple[complex, ...]) -> Similarity:
    r"""Fit the similarity transform that maps `source` to `target` in least squares.

    $$\min_{a, b} \sum_i |a s_i + b - t_i|^2, \quad
      a = \frac{\sum_i \overline{(s_i - \bar s)} (t_i - \bar t)}{\sum_i |s_i - \bar s|^2}, \quad b = \bar t - a \bar s$$

    References:
        Umeyama. Least-Squares Estimation of Transformation Parameters Between Two Point Patterns. TPAMI 1991.
        https://doi.org/10.1109/34.88573
    """
    s, t = sum(source) / len(source), sum(target) / len(target)
    cross = sum((p - s).conjugate() * (q - t) for p, q in zip(source, target, strict=True))
    turn = cross / sum(abs(p - s) ** 2 for p in source)
    return Similarity(turn, t - turn * s)


@dataclass(frozen=True)
class Chip:
    """Square region of a face that a face network takes as input.

    Args:
        size: side in pixels.
        transform: from CelebA's aligned frame of 178 x 218 pixels to pixels of the chip.
    """

    size: int
    transform: Similarity


#: ArcFace's template, fitted to CelebA's mean points.
ARCFACE = Chip(112, fit(CELEBA_POINTS, ARCFACE_POINTS))
#: dlib's chip of 150 pixels with a quarter of padding, derived from ArcFace's.
_DLIB_SCALE = 1.49138
DLIB = Chip(150, ARCFACE.transform.then(Similarity(_DLIB_SCALE, 74.0 + 47.14j - _DLIB_SCALE * (55.913 + 51.599j))))


def square(left: int, top: int, side: int, size: int) -> Chip:
    """Chip of `size` pixels from a square of CelebA's aligned frame."""
    scale, corner = size / side, complex(left - 0.5, top - 0.5)
    return Chip(size, Similarity(scale, -scale * corner - complex(0.5, 0.5)))


def require_face_box(embedder: str, protocol: Protocol) -> Box:
    """Return the box of the protocol's image in CelebA's aligned frame.

    Raises:
        InvalidConfigurationError: the protocol has no such box, so its images are not aligned faces.
    """
    if protocol.face_box is None:
        raise InvalidConfigurationError(
            f"expected images for {embedder} to be aligned faces with a face_box, got {protocol.id} without; "
            "choose a data set of faces, or the embedder hog"
        )
    return protocol.face_box


def align(x: Tensor, box: Box, chip: Chip) -> Tensor:
    """Warp faces to chips bilinearly; outside the image its border is repeated.

    Images finer than the chip are first downsampled with antialiasing; grey images are repeated in three channels.

    Args:
        x: `N C H W`, 1 or 3 channels.
        box: left, top, width and height of the images in CelebA's aligned frame.
        chip: region and size of the result.

    Returns:
        `N 3 S S`, differentiable in `x`.

    Raises:
        InvalidConfigurationError: the images have another number of channels.
    """
    if x.shape[1] not in (1, 3):
        raise InvalidConfigurationError(
            f"expected faces to have 1 or 3 channels, got {x.shape[1]}; choose a data set of grey or colour faces"
        )
    left, top, width, height = box
    scale = abs(chip.transform.turn)
    size = [min(x.shape[2], round(height * scale)), min(x.shape[3], round(width * scale))]
    if size != list(x.shape[2:]):
        x = functional.interpolate(x, size, mode="bilinear", antialias=True)
    corner = torch.tensor([left - 0.5, top - 0.5], dtype=torch.float64)
    extent = torch.tensor([width, height], dtype=torch.float64)
    grid = (2 * (_frame_grid(chip) - corner) / extent - 1).to(x)
    chips = functional.grid_sample(
        x, grid.expand(len(x), -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=False
    )
    return chips.expand(-1, 3, -1, -1)


def _frame_grid(chip: Chip) -> Tensor:
    """Points of CelebA's frame, x and y, that the chip's pixels sample: `float64 1 S S 2`."""
    back = chip.transform.inverse()
    v, u = torch.meshgrid(*[torch.arange(chip.size, dtype=torch.float64)] * 2, indexing="ij")
    x = back.turn.real * u - back.turn.imag * v + back.shift.real
    y = back.turn.imag * u + back.turn.real * v + back.shift.imag
    return torch.stack([x, y], -1)[None]


class AlignedFaceEmbedder(Embedder):
    """Embedder of aligned faces: it warps images to chips and normalises the vectors of a face network."""

    weights: ClassVar[str]
    chip: ClassVar[Chip]

    @abstractmethod
    def compute(self, chips: Tensor) -> Tensor:
        """Vectors `N D` of any length, of chips `N 3 S S` in [0, 1]."""

    def embed(self, x: Tensor, protocol: Protocol) -> Tensor:
        """Embed aligned faces as unit vectors `N D`.

        Raises:
            InvalidConfigurationError: the protocol has no `face_box`, or the images have neither 1 nor 3 channels.
        """
        chips = align(x, require_face_box(self.weights, protocol), self.chip)
        return functional.normalize(self.compute(chips), dim=1)
