"""Unit vectors and cosines in float64, shared by the similarity evaluators."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Values = NDArray[np.float64]


def unit(x: Tensor) -> Values:
    """Scale rows `N D` to unit length; a row of zeros has no direction and becomes NaN."""
    rows: Values = x.double().cpu().numpy()
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    units: Values = np.divide(rows, length, out=np.full_like(rows, np.nan), where=length > 0)
    return units


def cosine(x: Tensor, y: Tensor) -> Values:
    """Cosine of each pair of rows.

    Args:
        x: `N D`, finite.
        y: the same.

    Returns:
        `float64 N` in [-1, 1], NaN where a row is zero.
    """
    cosines: Values = np.clip((unit(x) * unit(y)).sum(1), -1, 1)
    return cosines
