"""Top-k hits of logits, shared by the accuracy evaluators."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def top_k(logits: Tensor, labels: Tensor, k: int) -> NDArray[np.float64]:
    """Hits of the label among the k largest logits: 1 or 0, or the probability of a hit where logits tie.

    With `a` logits larger than the label's and `b` equal to it (itself included), a random order of the equal ones
    puts the label among the first k with probability `clip((k - a) / b, 0, 1)`.

    Args:
        logits: `N K`, finite.
        labels: `int64 N`, in [0, K).
        k: at least 1.

    Returns:
        `float64 N`, in [0, 1].

    Note:
        The released codes use `argmax` and `topk`, which prefer some index when logits tie. Here equal logits score
        chance, so the numbering of the classes does not favour a collapsed network.
    """
    scores, target = logits.double().cpu().numpy(), labels.cpu().numpy()
    own = scores[np.arange(len(target)), target][:, None]
    larger, equal = (scores > own).sum(1), (scores == own).sum(1)
    hits: NDArray[np.float64] = np.clip((k - larger) / equal, 0.0, 1.0)
    return hits
