"""Mean of hits over trials, draws and labels with its intervals and spreads, shared by the accuracy evaluators.

`interval` is a bootstrap over labels and, within a label, over its draws (Wilson's over the labels where all outcomes
are equal); `intervals["classes"]` is Student-t over label means, `intervals["draws"]` holds the labels fixed,
`intervals["trials"]` is Student-t over trial means. `spreads` are the sample standard deviations of trial means and
label means, and `released_spread`.
"""

import numpy as np
from numpy.typing import NDArray

from ..benchmark.core.evidence import Score
from ..benchmark.core.statistics import Interval, sample_std, stratified, student, two_level, wilson

#: Below this many labels the bootstrap is visibly too narrow.
_FEW = 20
_FEW_LABELS = (
    "with fewer than 20 labels the bootstrap interval is too narrow as a statement about labels in general; "
    "prefer `classes` for that, and `draws` or `trials` for these labels alone"
)


def hit_rate(
    hits: NDArray[np.float64],
    chance: float,
    group: int,
    resamples: int,
    seed: int,
    notes: tuple[str, ...] = (),
) -> Score:
    """Score of hits.

    Args:
        hits: `R S K`, values in [0, 1]: trials, draws, attacked labels; at least one.
        chance: expected value of guessing.
        group: labels attacked together.
        resamples: number of bootstrap resamples.
        seed: seed of the bootstrap.
        notes: first notes of the score.
    """
    draws = hits.reshape(-1, hits.shape[2]).T
    by_label, by_trial = draws.mean(1), hits.mean((1, 2))
    interval, more = _interval(draws, resamples, seed)
    return Score(
        value=float(hits.mean()),
        n=hits.size,
        interval=interval,
        intervals={
            "classes": student(by_label, (0, 1)),
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
        notes=(*notes, *more),
    )


def _interval(draws: NDArray[np.float64], resamples: int, seed: int) -> tuple[Interval | None, tuple[str, ...]]:
    """Interval over labels of hits `K n`, and notes on it."""
    labels = len(draws)
    if labels < 2:
        return None, ("one label was attacked, so there is no interval over labels",)
    if np.ptp(draws) == 0:
        note = f"all reconstructions have the same outcome, so the interval is Wilson's over the {labels} labels"
        return wilson(float(draws.flat[0]) * labels, labels), (note,)
    return two_level(draws, resamples, seed), (_FEW_LABELS,) if labels < _FEW else ()


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
