"""Top-k hits of logits, shared by the accuracy evaluators."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


def top_k(logits: Tensor, labels: Tensor, k: int) -> NDArray[np.float64]:
    """Whether the label is among the k largest logits: 1 or 0, or the probability of it where logits tie.

    With `a` logits larger than the label's and `b` equal to it (itself included), a random order of the equal ones
    puts the label among the first k with probability `clip((k - a) / b, 0, 1)`.

    Args:
        logits: `N K`, finite.
        labels: `int64 N`, in [0, K).
        k: at least 1.

    Returns:
        `float64 N`, in [0, 1].

    Note:
        The released codes take `argmax` and `topk`, which favour some index when logits tie; here equal logits score
        chance, so that a collapsed network gains nothing from the numbering of the classes.
    """
    scores, target = logits.double().cpu().numpy(), labels.cpu().numpy()
    own = scores[np.arange(len(target)), target][:, None]
    larger, equal = (scores > own).sum(1), (scores == own).sum(1)
    hits: NDArray[np.float64] = np.clip((k - larger) / equal, 0.0, 1.0)
    return hits


def not_finite(logits: Tensor) -> str | None:
    """Why logits cannot be ranked, in one sentence; `None` if they can."""
    bad = int((~logits.isfinite().all(1)).sum())
    return f"{bad} of {len(logits)} images have logits that are not finite" if bad else None
