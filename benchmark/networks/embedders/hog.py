"""Histograms of oriented gradients: an embedding of any image, without weights."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ...core.config import Protocol
from ...errors import InvalidConfigurationError
from .embedder import Embedder


class HOG(Embedder):
    r"""Histograms of oriented gradients, the private features C of images that are not faces.

    A feature-level attack needs features C of its data. This embedder has no weights, so it runs on every machine, for
    digits and objects. It describes the shape in an image without its brightness:

    1. central differences, 0 at the border; in colour, those of the channel with the largest gradient at the pixel;
    2. in cells of `H // 8` x `W // 8` pixels, magnitudes summed by direction, 9 bins of 20 degrees, sign ignored;
    3. blocks of 2 x 2 cells, one cell apart, each normalised by L2-Hys:
       $v \to v / \sqrt{\lVert v \rVert^2 + \epsilon^2}$, clipped at 0.2, normalised again;
    4. all blocks in one vector, with one more coordinate, divided by its length.

    For R x Q cells D is 36 (R - 1)(Q - 1) + 1: 1765 for 16 x 16, 32 x 32 and 64 x 64 pixels. Incomplete cells at the
    bottom and right, of fewer than `H // 8` rows or `W // 8` columns, are ignored, as in scikit-image. Sides that are
    not divisible by 8 can have more than 8 cells. Coordinates and therefore cosines are not negative.

    An image without any gradient has no direction. Its vector is 0 except the last coordinate, which is 1; in all other
    images it is 0. So a flat image has cosine 1 with a flat image and cosine 0 with all others.

    Compare a cosine with those of unrelated images. For private test images of the same class and of different classes
    the mean cosines are 0.61 and 0.42 on digits, 0.44 and 0.26 on MNIST, 0.51 and 0.49 on CIFAR-10.

    The embedding is differentiable in the magnitudes, not in the choice of channel and bin of a pixel.

    References:
        Dalal, Triggs. Histograms of Oriented Gradients for Human Detection. CVPR 2005.
        https://doi.org/10.1109/CVPR.2005.177

    Note:
        A pixel counts for one cell and one bin, as in scikit-image; Dalal and Triggs interpolate between neighbours.

    Note:
        Cells scale with the image, so the number of cells is the same for all sizes; Dalal and Triggs use 8 pixels.

    Note:
        We compute in float64, so that the choice between channels of equal gradient is the same on every machine.
    """

    faces: ClassVar[bool] = False
    weights: ClassVar[str | None] = None

    def embed(self, x: Tensor, protocol: Protocol) -> Tensor:
        """Embed images as unit vectors `N D`.

        Args:
            x: `float32 N C H W` in [0, 1], at least 16 pixels high and wide.
            protocol: no effect.

        Raises:
            InvalidConfigurationError: the images are too small.
        """
        if min(x.shape[-2:]) < _SMALLEST:
            raise InvalidConfigurationError(
                f"expected images for hog to be at least {_SMALLEST} x {_SMALLEST}, got {x.shape[-2]} x {x.shape[-1]}; "
                "choose another embedder or data set"
            )
        blocks = _blocks(_histograms(x)).flatten(1)
        flat = (blocks.detach() == 0).all(1, keepdim=True)
        return functional.normalize(torch.cat([blocks, flat.to(blocks.dtype)], 1)).to(x.dtype)


_BINS = 9
_CELLS = 8
_SMALLEST = 16
_EPSILON = 1e-5
_CUT = 0.2


def _histograms(x: Tensor) -> Tensor:
    """Mean gradient magnitude by cell and direction, `float64 N R Q 9`."""
    down, right = _gradient(x.double())
    square = down.square() + right.square()
    strongest = square.argmax(1, keepdim=True)
    down, right, square = (part.gather(1, strongest) for part in (down, right, square))
    magnitude = torch.where(square > 0, square, 1).sqrt() * (square > 0)
    angle = torch.rad2deg(torch.atan2(down.detach(), right.detach())).remainder(180)
    bins = (angle * _BINS / 180).long().clamp(max=_BINS - 1)
    votes = magnitude.new_zeros(len(x), _BINS, *x.shape[-2:]).scatter(1, bins, magnitude)
    cell = tuple(max(side // _CELLS, 1) for side in x.shape[-2:])
    return functional.avg_pool2d(votes, cell).permute(0, 2, 3, 1)


def _gradient(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences downwards and to the right, 0 at the border."""
    down = functional.pad(x[..., 2:, :] - x[..., :-2, :], (0, 0, 1, 1))
    right = functional.pad(x[..., 2:] - x[..., :-2], (1, 1, 0, 0))
    return down, right


def _blocks(histograms: Tensor) -> Tensor:
    """Normalised blocks `N R-1 Q-1 2 2 9` of 2 x 2 cells, from histograms `N R Q 9`."""
    blocks = histograms.unfold(1, 2, 1).unfold(2, 2, 1).permute(0, 1, 2, 4, 5, 3)
    return _normalised(_normalised(blocks).clamp(max=_CUT))


def _normalised(blocks: Tensor) -> Tensor:
    return blocks / (blocks.square().sum((-3, -2, -1), keepdim=True) + _EPSILON**2).sqrt()
