"""Cosines in float64, shared by the similarity evaluators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def unit(x: Tensor) -> NDArray[np.float64]:
    """Rows `N D` at unit length; a row of zeros has no direction and becomes NaN."""
    rows: NDArray[np.float64] = x.double().cpu().numpy()
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    found: NDArray[np.float64] = np.divide(rows, length, out=np.full_like(rows, np.nan), where=length > 0)
    return found


def cosine(x: Tensor, y: Tensor) -> NDArray[np.float64]:
    """Cosine of each pair of rows.

    Args:
        x: `N D`, finite.
        y: the same.

    Returns:
        `float64 N` in [-1, 1], NaN where a row is zero.
    """
    found: NDArray[np.float64] = np.clip((unit(x) * unit(y)).sum(1), -1, 1)
    return found


def not_finite(x: Tensor, what: str) -> str | None:
    """Why rows have no cosine, in one sentence; `None` if they can have one."""
    bad = int((~x.isfinite().all(1)).sum())
    return f"{bad} of {len(x)} images have {what} that are not finite" if bad else None
