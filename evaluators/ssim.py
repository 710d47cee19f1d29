"""Structural similarity of reconstructions and originals."""

import torch
from torch import Tensor

from ..benchmark.contracts import Evaluator
from ..benchmark.core.config import Definition, Protocol
from ..benchmark.core.evidence import Evidence, Score
from ..benchmark.networks.judges import Judges
from ._cosine import Values
from ._pairs import pixel_score

#: Standard deviation of the window in pixels, and its half width.
_SIGMA, _HALF = 1.5, 5
#: Constants that keep the quotients finite where an image is constant or black.
_C1, _C2 = 0.01**2, 0.03**2


class SSIM(Evaluator):
    """Structural similarity (SSIM) of reconstructions.

    At every position of an 11 x 11 Gaussian window (sigma 1.5) inside the image, for every channel,
    `(2 m_x m_y + c1)(2 s_xy + c2) / ((m_x^2 + m_y^2 + c1)(s_x^2 + s_y^2 + c2))` with the window's means m, variances
    s^2 and covariance s_xy, c1 = 0.01^2 and c2 = 0.03^2 for values in [0, 1]; the mean over positions and channels is
    the SSIM of an image and its original, and the score is the mean over images. The interval is Student-t over people
    where they are known, else over images. `chance` is the mean SSIM with an original of another identity or class.

    References:
        Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE Transactions
        on Image Processing 13, 2004. T. Xiao et al., "Adversarial Learning of Privacy-Preserving and Task-Oriented
        Representations", AAAI 2020.

    Note:
        The data range is that of the format, 1, not that of each image. Xiao et al. do not state range, window and
        colour space.

    Note:
        Windows that reach beyond the border are left out, as in Wang et al. and scikit-image, which gives the same
        numbers. Some versions of torchmetrics include them, on mirrored pixels. Its map agrees inside the border, but
        it convolves with the whole window, which takes many times as long as rows and columns in turn.
    """

    needs = ("PairedReconstructions",)
    scores = (
        Definition(
            name="ssim",
            title="SSIM",
            measures="leakage",
            better="lower",
            unit="similarity",
            formula="(2 m_x m_y + c1)(2 s_xy + c2) / ((m_x^2 + m_y^2 + c1)(s_x^2 + s_y^2 + c2)) in 11 x 11 Gaussian "
            "windows (sigma 1.5) inside the image, c1 = 0.01^2, c2 = 0.03^2, values in [0, 1]; mean over windows and "
            "channels, then over reconstructions and their originals",
            range="[-1, 1]",
        ),
    )

    def unavailable(self, protocol: Protocol) -> str | None:
        """Reason for images that are smaller than the window."""
        size, (_, height, width) = 2 * _HALF + 1, protocol.image
        if min(height, width) >= size:
            return None
        return f"SSIM needs images of at least {size} x {size} pixels and {protocol.id} has {height} x {width}"

    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute `ssim`, for class tasks with the mean of every class."""
        return {"ssim": pixel_score(evidence, structural_similarity, (-1, 1))}


def structural_similarity(x: Tensor, y: Tensor) -> Values:
    """SSIM of each pair of images.

    Args:
        x: `float64 N C H W` in [0, 1], H and W at least 11.
        y: the same.

    Returns:
        `float64 N`.
    """
    rows, columns = (_windows(size, x) for size in x.shape[2:])

    def mean(values: Tensor) -> Tensor:
        return rows @ values @ columns.T

    m_x, m_y = mean(x), mean(y)
    s_xx, s_yy = (mean(x * x) - m_x * m_x).clamp(min=0), (mean(y * y) - m_y * m_y).clamp(min=0)
    s_xy = mean(x * y) - m_x * m_y
    index = (2 * m_x * m_y + _C1) * (2 * s_xy + _C2) / ((m_x * m_x + m_y * m_y + _C1) * (s_xx + s_yy + _C2))
    values: Values = index.mean((1, 2, 3)).numpy()
    return values


def _windows(size: int, like: Tensor) -> Tensor:
    """Weights of all windows inside one axis of `size` pixels, one row per window."""
    offset = torch.arange(size, dtype=like.dtype, device=like.device)
    distance = offset[None] - offset[_HALF : size - _HALF, None]
    weights = torch.exp(-0.5 * (distance / _SIGMA).square()) * (distance.abs() <= _HALF)
    return weights / weights.sum(1, keepdim=True)
