"""Faces as a face network was trained to see them: one differentiable warp of a protocol's image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import InvalidConfigurationError

if TYPE_CHECKING:
    from ...core.config import Protocol

Box = tuple[int, int, int, int]
#: Where eyes, nose and corners of the mouth lie on average in CelebA's aligned frame: x + iy, left and top first.
CELEBA_POINTS = (69.3 + 111.2j, 107.6 + 111.1j, 88.0 + 135.1j, 71.1 + 152.1j, 105.6 + 152.2j)
#: Where ArcFace's alignment puts them in 112 x 112 pixels.
ARCFACE_POINTS = (38.29 + 51.70j, 73.53 + 51.50j, 56.03 + 71.74j, 41.55 + 92.37j, 70.73 + 92.20j)


@dataclass(frozen=True)
class Similarity:
    """The map z -> turn z + shift of the plane, points written x + iy: scaling, rotation and translation.

    Pixels have whole coordinates at their centres.
    """

    turn: complex
    shift: complex

    def __call__(self, z: complex) -> complex:
        """Where a point goes."""
        return self.turn * z + self.shift

    def then(self, after: Similarity) -> Similarity:
        """This map, followed by another."""
        return Similarity(after.turn * self.turn, after(self.shift))

    def inverse(self) -> Similarity:
        """The map back."""
        return Similarity(1 / self.turn, -self.shift / self.turn)


def fit(source: tuple[complex, ...], target: tuple[complex, ...]) -> Similarity:
    r"""The similarity that takes `source` nearest to `target`.

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
    """What a face network looks at.

    Args:
        size: side in pixels.
        place: from CelebA's aligned frame of 178 x 218 pixels to pixels of the chip.
    """

    size: int
    place: Similarity


#: ArcFace's template, fitted to CelebA's mean points.
ARCFACE = Chip(112, fit(CELEBA_POINTS, ARCFACE_POINTS))
#: dlib's chip of 150 pixels with a quarter of padding, from ArcFace's.
_DLIB_SCALE = 1.49138
DLIB = Chip(150, ARCFACE.place.then(Similarity(_DLIB_SCALE, 74.0 + 47.14j - _DLIB_SCALE * (55.913 + 51.599j))))


def square(left: int, top: int, side: int, size: int) -> Chip:
    """A square of CelebA's aligned frame, enlarged or reduced to `size` pixels."""
    scale, corner = size / side, complex(left - 0.5, top - 0.5)
    return Chip(size, Similarity(scale, -scale * corner - complex(0.5, 0.5)))


def require_face_box(embedder: str, protocol: Protocol) -> Box:
    """Where the protocol's image lies in CelebA's aligned frame.

    Raises:
        InvalidConfigurationError: the protocol does not say, so it is not one of aligned faces.
    """
    if protocol.face_box is None:
        raise InvalidConfigurationError(
            f"expected images for {embedder} to be aligned faces with a face_box, got {protocol.id} without; "
            "choose a data set of faces, or the embedder hog"
        )
    return protocol.face_box


def align(x: Tensor, box: Box, chip: Chip) -> Tensor:
    """The chips of faces, bilinear; what lies beyond the image repeats its border.

    Images finer than the chip are first reduced with an antialiasing filter; grey ones are repeated in three channels.

    Args:
        x: `N C H W`, 1 or 3 channels.
        box: left, top, width and height of the images in CelebA's aligned frame.
        chip: what to show.

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
    scale = abs(chip.place.turn)
    size = [min(x.shape[2], round(height * scale)), min(x.shape[3], round(width * scale))]
    if size != list(x.shape[2:]):
        x = functional.interpolate(x, size, mode="bilinear", antialias=True)
    corner = torch.tensor([left - 0.5, top - 0.5], dtype=torch.float64)
    extent = torch.tensor([width, height], dtype=torch.float64)
    grid = (2 * (_shown(chip) - corner) / extent - 1).to(x)
    found = functional.grid_sample(
        x, grid.expand(len(x), -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=False
    )
    return found.expand(-1, 3, -1, -1)


def _shown(chip: Chip) -> Tensor:
    """Points of CelebA's frame, x and y, that the chip's pixels show: `float64 1 S S 2`."""
    back = chip.place.inverse()
    v, u = torch.meshgrid(*[torch.arange(chip.size, dtype=torch.float64)] * 2, indexing="ij")
    x = back.turn.real * u - back.turn.imag * v + back.shift.real
    y = back.turn.imag * u + back.turn.real * v + back.shift.imag
    return torch.stack([x, y], -1)[None]
