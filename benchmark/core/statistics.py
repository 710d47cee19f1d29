"""Intervals and standard deviations of reported numbers, in float64; without variation an interval is `None`."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Interval = tuple[float, float]
LEVEL = 0.95
#: A rate is near 0 if it is below `_NEAR` and amounts to fewer than `_FEW` labels' worth of hits.
_NEAR, _FEW = 0.4, 3.0
#: Rates of labels that differ by less are equal.
_ROUNDING = 1e-12


def wilson(successes: float, n: float) -> Interval | None:
    """Compute the Wilson score interval (95 %) of a proportion.

    With `p = successes / n` and `z = 1.96`: `(p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)`.

    References:
        E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.

    Args:
        successes: in [0, n]; an expected count may be fractional.
        n: trials, or an effective number of them.

    Returns:
        The bounds, in [0, 1]; `None` without a trial.

    Example:
        >>> [round(bound, 4) for bound in wilson(8, 10)]
        [0.4902, 0.9433]
    """
    from scipy.special import ndtri

    assert 0 <= successes <= n
    if n == 0:
        return None
    p, z = successes / n, float(ndtri((1 + LEVEL) / 2))
    centre, scale = p + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, min(p, (centre - half) / scale)), min(1.0, max(p, (centre + half) / scale))


def student(values: ArrayLike, bounds: Interval = (-math.inf, math.inf)) -> Interval | None:
    """Compute the Student-t interval (95 %) of a mean, `mean +- t(n-1) s / sqrt(n)`, clipped to `bounds`.

    Args:
        values: `N` finite numbers, one per independent unit.
        bounds: possible range of the mean, such as (0, 1) for a fraction.

    Returns:
        The bounds; `None` for fewer than two values and if all values are equal.

    Example:
        >>> [round(bound, 4) for bound in student([1.0, 2.0, 3.0])]
        [-0.4841, 4.4841]
    """
    x = _finite(values)
    if x.size < 2 or np.ptp(x) == 0:
        return None
    return _clipped(float(x.mean()), _t(x.size - 1) * float(x.std(ddof=1)) / math.sqrt(x.size), bounds)


def clustered(values: ArrayLike, groups: ArrayLike, bounds: Interval = (-math.inf, math.inf)) -> Interval | None:
    """Compute the Student-t interval (95 %) of a mean over grouped observations, which are dependent within a group.

    With `r_g` the sum of `value - mean` over group g, and G groups: `mean +- t(G-1) s`,
    `s^2 = G / (G - 1) sum_g r_g^2 / N^2`, clipped to `bounds`. Groups of one value each give `student`.

    References:
        W. G. Cochran, "Sampling Techniques", 3rd edition, 1977, section 6.3 (the ratio estimate).

    Args:
        values: `N` finite numbers.
        groups: `N` integers, the group of each.
        bounds: possible range of the mean.

    Returns:
        The bounds; `None` for fewer than two groups and without variation.

    Example:
        >>> [round(bound, 4) for bound in clustered([1.0, 2.0, 3.0], [7, 8, 9])]
        [-0.4841, 4.4841]
    """
    x = _finite(values)
    if x.size < 2 or np.ptp(x) == 0:
        return None
    _, group = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(group, x - x.mean())
    if sums.size < 2 or not sums.any():
        return None
    error = math.sqrt(sums.size / (sums.size - 1) * float(np.square(sums).sum())) / x.size
    return _clipped(float(x.mean()), _t(sums.size - 1) * error, bounds)


def rate_over_labels(hits: ArrayLike, labels: ArrayLike) -> Interval | None:
    """Compute the interval (95 %) of a rate over labels, the independent units; hits of one label are dependent.

    It is `clustered`, which for labels with equally many hits is Student's t over the rates of the K labels. Near 0 and
    1 it is wider: where the rate p is below 0.4 and K p below 3, the upper bound is at least Wilson's with n = K, and
    likewise the lower bound where 1 - p is. Student's interval alone misses such rates, since most labels are never
    hit, and the few that are decide the mean. Labels of equal rates give Wilson's interval with n = K.

    Args:
        hits: `N` values in [0, 1]; fractions where outcomes tie.
        labels: `N` integers, the label of each.

    Returns:
        The bounds, in [0, 1]; `None` for fewer than two labels.

    Note:
        `docs/intervals.md` has the coverage for 2 to 300 labels: at least 92 % in every setting. The percentile
        bootstrap over labels and draws, which we used before, covers 59 to 75 % in the worst setting.

    Example:
        >>> [round(bound, 2) for bound in rate_over_labels([0, 1, 1, 1, 0, 1, 0, 1], [0, 0, 1, 1, 2, 2, 3, 3])]
        [0.22, 1.0]
    """
    x = _finite(hits)
    assert np.all((x >= 0) & (x <= 1))
    _, group = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.bincount(group)
    if counts.size < 2:
        return None
    p, k = float(x.mean()), counts.size
    widest = wilson(p * k, k)
    found = clustered(x, group, (0.0, 1.0)) if np.ptp(np.bincount(group, x) / counts) > _ROUNDING else None
    if found is None or widest is None:
        return widest
    near = min(_NEAR, _FEW / k)
    return min(found[0], widest[0]) if 1 - p < near else found[0], max(found[1], widest[1]) if p < near else found[1]


def jackknife(value: float, left_out: ArrayLike, bounds: Interval = (-math.inf, math.inf)) -> Interval | None:
    """Compute the Student-t interval (95 %) of a statistic from its values without one group at a time.

    `value +- t(G-1) s` with `s^2 = (G - 1) / G sum_g (v_g - mean)^2`, clipped to `bounds`; `student` for a mean.

    References:
        B. Efron, C. Stein, "The jackknife estimate of variance", Annals of Statistics 9, 1981.

    Args:
        value: the statistic of all groups.
        left_out: `G` finite numbers, the statistic without each group.
        bounds: possible range of the statistic.

    Returns:
        The bounds; `None` for fewer than three groups and without variation.

    Example:
        >>> [round(bound, 4) for bound in jackknife(2.0, [2.5, 2.0, 1.5])]
        [-0.4841, 4.4841]
    """
    x = _finite(left_out)
    if x.size < 3 or np.ptp(x) == 0:
        return None
    error = math.sqrt((x.size - 1) / x.size * float(np.square(x - x.mean()).sum()))
    return _clipped(value, _t(x.size - 1) * error, bounds)


def _t(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def _clipped(centre: float, half: float, bounds: Interval) -> Interval:
    return max(bounds[0], centre - half), min(bounds[1], centre + half)


def stratified(values: ArrayLike) -> Interval | None:
    """Compute the interval (95 %) of a mean of fractions over fixed labels, where only the draws vary.

    With `p` the mean and `V = sum_k s_k^2 / (n K^2)` the variance of the stratified mean (`s_k` the sample standard
    deviation of label k): Wilson's interval with the effective number of trials `p (1 - p) / V`.

    Args:
        values: `K n`, values in [0, 1], draws of each label.

    Returns:
        The bounds, in [0, 1]; `None` for one draw and if the draws of every label are equal.
    """
    x = _finite(values)
    labels, draws = x.shape
    assert np.all((x >= 0) & (x <= 1))
    if labels == 0 or draws < 2 or not np.ptp(x, axis=1).any():
        return None
    p = float(x.mean())
    variance = float(x.var(axis=1, ddof=1).sum()) / (draws * labels**2)
    effective = p * (1 - p) / variance
    return wilson(p * effective, effective)


def percentile(resampled: ArrayLike) -> Interval | None:
    """Compute the percentile bootstrap interval (95 %) from values on resampled data; `None` if they are all equal."""
    x = _finite(resampled)
    if x.size < 2 or np.ptp(x) == 0:
        return None
    return _quantiles(x)


def _quantiles(x: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(x, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def sample_std(values: ArrayLike) -> float | None:
    """Compute the sample standard deviation (ddof 1); `None` for fewer than two values.

    Example:
        >>> sample_std([1.0, 3.0]), sample_std([1.0])
        (1.4142135623730951, None)
    """
    x = _finite(values)
    if x.size < 2:
        return None
    return 0.0 if np.ptp(x) == 0 else float(x.std(ddof=1))


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    assert np.isfinite(x).all()
    return x
