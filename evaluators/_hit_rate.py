"""Mean of hits over trials, draws and labels with its intervals and spreads, shared by the accuracy evaluators.

`interval` is Student-t over the rates of labels, wider near 0 and 1 (`statistics.rate_over_labels`);
`intervals["draws"]` holds the labels fixed, `intervals["trials"]` is Student-t over trial means. `spreads` are the
sample standard deviations of trial means and label means, and `released_spread`.
"""

import numpy as np
from numpy.typing import NDArray

from ..benchmark.core.evidence import Score
from ..benchmark.core.statistics import rate_over_labels, sample_std, stratified, student

#: Fewer labels than this are noted.
_FEW = 20


def hit_rate(
    hits: NDArray[np.float64],
    chance: float,
    group: int,
    notes: tuple[str, ...] = (),
) -> Score:
    """Score of hits.

    Args:
        hits: `R S K`, values in [0, 1]: trials, draws, attacked labels; at least one.
        chance: expected value of guessing.
        group: labels attacked together.
        notes: first notes of the score.
    """
    draws = hits.reshape(-1, hits.shape[2]).T
    by_label, by_trial = draws.mean(1), hits.mean((1, 2))
    return Score(
        value=float(hits.mean()),
        n=hits.size,
        interval=rate_over_labels(draws.ravel(), np.arange(len(draws)).repeat(draws.shape[1])),
        intervals={
            "draws": stratified(draws),
            "trials": student(by_trial, (0, 1)),
        },
        spreads={
            "draws": released_spread(hits, group),
            "trials": sample_std(by_trial),
            "classes": sample_std(by_label),
        },
        chance=chance,
        per_class=tuple(float(value) for value in by_label),
        notes=(*notes, *_labels_note(len(draws))),
    )


def _labels_note(labels: int) -> tuple[str, ...]:
    """Note on an interval over few labels, or over one."""
    if labels < 2:
        return ("one label was attacked, so there is no interval over labels",)
    if labels < _FEW:
        return (f"the interval is over {labels} labels in general; `draws` is for these labels alone",)
    return ()


def released_spread(hits: NDArray[np.float64], group: int) -> float | None:
    """Spread over draws as the code of GMI and KED-MI in BiDO computes it.

    Args:
        hits: `R S K`, values in [0, 1].
        group: labels attacked together; each group has its own standard deviation.

    Returns:
        The mean over trials and groups of the sample standard deviation over draws of the accuracy over the group's
        labels; `None` for one draw.
    """
    trials, draws, labels = hits.shape
    if draws < 2:
        return None
    parts = [hits[:, :, start : start + group].mean(2) for start in range(0, labels, group)]
    return float(np.mean([sample_std(part[trial]) for part in parts for trial in range(trials)]))
