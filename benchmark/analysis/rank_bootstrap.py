"""Bootstrap of the worst-case costs of defenses: intervals, significant differences and rank sets.

All numbers are float64, and costs: a defender prefers lower values. Equal samples give equal results in any order.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ..core.statistics import LEVEL

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
RESAMPLES = 1000
#: Resamples whose differences are in memory at a time.
_CHUNK = 200
#: Finite stand-in for infinite degrees of freedom.
_MAX_DOF = 1e6
#: Draws for Tukey's quantile, in multiples of the resamples.
_TUKEY_DRAWS = 4
#: Deviations below this share of the largest cost are rounding errors.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class Sample:
    """Measured costs of one defense.

    Args:
        name: name of the defense, which decides the draws of its seeds.
        costs: for each attack, `S K`: seeds, identities; NaN for missing values.
        seeds: for each attack, the S seeds.
    """

    name: str
    costs: tuple[Floats, ...]
    seeds: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Estimate:
    """Estimated costs of M defenses with their errors.

    Args:
        cost: `M`, worst-case cost of each defense.
        resampled: `M B`, the same on resampled data.
        seed_variance: `M`, the part of the variance that comes from seeds.
        identities: `M`, number of identities of each defense; 0 if unknown.
        dof: `M`, degrees of freedom of the variance over identities, or of the whole variance if that is unknown.
        seed_dof: `M`, degrees of freedom of the variance over seeds.
        has_seeds: `M`, whether there are several seeds, so that a variance over seeds is known.
    """

    cost: Floats
    resampled: Floats
    seed_variance: Floats
    identities: NDArray[np.int64]
    dof: Floats
    seed_dof: Floats
    has_seeds: Booleans


def worst_by_identity(sample: Sample) -> Floats:
    """`K`: maximum over attacks of the mean over seeds; NaN if an attack or a seed has no value."""
    worst: Floats = np.stack([costs.mean(0) for costs in sample.costs]).max(0)
    return worst


def draw_counts(units: int, resamples: int, *entropy: int) -> Floats:
    """`B U`: how often each of U units is drawn when U - 1 units are drawn with replacement (one, if U is 1).

    The mean of U - 1 draws has the variance `s^2 / U` with s^2 the sample variance, as has the mean of U independent
    units; the mean of U draws would have `(U - 1) / U` of it.

    References:
        J. N. K. Rao, C. F. J. Wu, "Resampling inference with complex survey data", JASA 83, 1988.
    """
    if units == 1:
        return np.ones((resamples, 1))
    counts = _generator(*entropy).multinomial(units - 1, np.full(units, 1 / units), size=resamples)
    return counts.astype(np.float64)


def _generator(*entropy: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def estimate(samples: Sequence[Sample], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Resample identities, jointly for all samples, and the seeds within each sample.

    Attacks on one defense with the same seeds attacked the same targets, so their seeds are drawn together.
    """
    worst = np.stack([worst_by_identity(sample) for sample in samples])
    known = np.isfinite(worst)
    assert known.any(1).all()
    filled = np.where(known, worst, 0.0)
    cost = filled.sum(1) / known.sum(1)
    counts = draw_counts(worst.shape[1], resamples, seed)
    seed_variance = np.zeros(len(samples))
    weights = known.astype(np.float64) @ counts.T
    sums = filled @ counts.T
    several = [[len(seeds) for seeds in sample.seeds if len(seeds) > 1] for sample in samples]
    for i, sample in enumerate(samples):
        if several[i]:
            on_seeds = _worst_on_resampled_seeds(sample, known[i], resamples, seed)
            sums[i] = np.einsum("bk,bk->b", on_seeds, counts)
            seed_variance[i] = (on_seeds.sum(1) / known[i].sum()).var(ddof=1)
    with np.errstate(invalid="ignore"):
        resampled = np.where(weights > 0, sums / weights, cost[:, None])
    return Estimate(
        cost=cost,
        resampled=resampled,
        seed_variance=seed_variance,
        identities=known.sum(1),
        dof=np.maximum(known.sum(1) - 1.0, 1.0),
        seed_dof=np.array([min(numbers, default=2) - 1.0 for numbers in several]),
        has_seeds=np.array([bool(numbers) for numbers in several]),
    )


def _worst_on_resampled_seeds(sample: Sample, known: Booleans, resamples: int, seed: int) -> Floats:
    """`B K`: worst case of each identity on resampled seeds; 0 where it is unknown."""
    name = zlib.crc32(sample.name.encode())
    counts = {seeds: draw_counts(len(seeds), resamples, seed, name, *seeds) for seeds in dict.fromkeys(sample.seeds)}
    worst = np.full((resamples, known.size), -math.inf)
    for costs, seeds in zip(sample.costs, sample.seeds, strict=True):
        np.maximum(worst, counts[seeds] @ np.where(known, costs, 0.0) / max(len(seeds) - 1, 1), out=worst)
    return worst * known


def estimate_from_errors(
    cost: Floats, error: Floats, dof: Floats, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Estimate of independent costs with known standard errors, with normal deviations in place of resamples.

    Args:
        cost: `M`.
        error: `M`, standard errors; infinite if unknown.
        dof: `M`, their degrees of freedom; may be infinite.
        resamples: number of draws.
        seed: seed of the draws.
    """
    normal = _generator(seed).standard_normal((len(cost), resamples))
    normal = (normal - normal.mean(1, keepdims=True)) / normal.std(1, ddof=1, keepdims=True)
    resampled = cost[:, None] + np.where(np.isfinite(error), error, 0.0)[:, None] * normal
    zeros = np.zeros(len(cost))
    return Estimate(cost, resampled, zeros, zeros.astype(np.int64), np.minimum(dof, _MAX_DOF), zeros + 1, zeros > 0)


def intervals(found: Estimate, bounds: tuple[float, float]) -> list[tuple[float, float] | None]:
    """95 % interval of each cost; `None` without variation.

    With `v` the variance over the resamples and `u` the part of it that comes from seeds: `cost +- h`,
    `h^2 = t(K - 1)^2 (v - u) + t(S - 1)^2 u`, cut to `bounds`.

    References:
        G. Y. Zou, A. Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 27,
        2008 (intervals of sums from the intervals of the parts).

    Note:
        The percentiles of the resamples are not used: in the simulations of `docs/ranking.md` they were too narrow.
    """
    variance = found.resampled.var(axis=1, ddof=1)
    from_identities = _t_quantile(found.dof) ** 2 * np.maximum(variance - found.seed_variance, 0.0)
    half = np.sqrt(from_identities + _t_quantile(found.seed_dof) ** 2 * found.seed_variance)
    rounding = _rounding_variance(found)
    return [
        None if v <= rounding else (max(bounds[0], float(c - h)), min(bounds[1], float(c + h)))
        for c, h, v in zip(found.cost, half, variance, strict=True)
    ]


def _t_quantile(dof: Floats) -> Floats:
    from scipy.special import stdtrit

    quantiles: Floats = stdtrit(dof, (1 + LEVEL) / 2)
    return quantiles


def _rounding_variance(found: Estimate) -> float:
    """Largest variance that rounding errors explain."""
    return float(_ROUNDING * np.abs(found.cost).max()) ** 2


def significantly_lower(found: Estimate, *, unknown: Booleans | None = None) -> Booleans:
    """`M M`: whether the cost of i is significantly lower than that of j, with 95 % simultaneous confidence.

    With `D_ij` the difference of two costs and `s_ij` its standard deviation over the resamples, `c` is the 95 %
    quantile over resamples of `max_ij |D*_ij - D_ij| / s_ij`. i is significantly lower than j if `-D_ij / s_ij`
    exceeds the quantile of Student's t, with the degrees of freedom of `s_ij`, at the level that c has in the normal
    distribution.

    References:
        M. Mogstad, J. P. Romano, A. M. Shaikh, D. Wilhelm, "Inference for Ranks with Applications to Mobility across
        Neighbourhoods and Academic Achievement across Countries", Review of Economic Studies 91, 2024.

    Args:
        found: the costs.
        unknown: `M`, defenses with unknown errors; their differences are never significant.

    Note:
        Mogstad et al. take c directly from the bootstrap, for many observations. A handful of identities or seeds
        underestimates the largest of many differences, so c is at least Tukey's quantile, the same for M independent
        normal costs, and it is converted to Student's t.

    Note:
        Two or three seeds may agree by chance, so the variance over seeds of each defense with several seeds is at
        least the mean of these variances.

    Note:
        A difference that is the same for all K identities has no standard deviation. It is significant if a sign test
        over identities is, `2^(1 - K) <= 0.05 / pairs`.
    """
    from scipy.special import ndtri, stdtr

    size = len(found.cost)
    excluded = np.zeros(size, dtype=bool) if unknown is None else unknown
    if size < 2:
        return np.zeros((size, size), dtype=bool)
    difference = found.cost[:, None] - found.cost
    seed_variance, seed_dof = _pooled_seed_variance(found)
    variance, constant = _difference_variances(found, seed_variance - found.seed_variance)
    tested = ~(excluded[:, None] | excluded)
    scale = np.sqrt(np.divide(1.0, variance, out=np.zeros_like(variance), where=tested & ~constant))
    critical = _critical_value(found.resampled - found.cost[:, None], scale)
    critical = max(critical, _tukey_quantile(size, found.resampled.shape[1]))
    distance = -difference * scale
    lower = distance > critical
    rows, columns = np.nonzero(lower)
    dof = _welch_satterthwaite(found, seed_variance, seed_dof, variance, rows, columns)
    lower[rows, columns] = -ndtri(stdtr(dof, -distance[rows, columns])) > critical
    identities = np.minimum(found.identities[:, None], found.identities)
    sign_test = tested & constant & (2.0 ** (1 - identities) <= (1 - LEVEL) / (size * (size - 1) / 2))
    lower |= sign_test & (difference < -_ROUNDING * np.abs(found.cost).max())
    return lower


def _pooled_seed_variance(found: Estimate) -> tuple[Floats, float]:
    """Variances over seeds, at least their mean if there are several seeds, and the degrees of freedom of the mean."""
    several = found.has_seeds
    if not several.any():
        return found.seed_variance, 1.0
    mean = found.seed_variance[several].mean()
    return np.where(several, np.maximum(found.seed_variance, mean), 0.0), float(found.seed_dof[several].sum())


def _difference_variances(found: Estimate, added: Floats) -> tuple[Floats, Booleans]:
    """Variances of all differences, with a variance `added` to each cost, and whether the difference is constant."""
    covariance = np.atleast_2d(np.cov(found.resampled))
    own = np.diag(covariance) + added
    variance = np.maximum(own[:, None] + own - 2 * covariance, 0.0)
    return variance, variance <= np.maximum(_rounding_variance(found), 1e-12 * (own[:, None] + own))


def _welch_satterthwaite(
    found: Estimate,
    seed_variance: Floats,
    seed_dof: float,
    variance: Floats,
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
) -> Floats:
    """Degrees of freedom of differences, after Welch and Satterthwaite."""
    total = variance[rows, columns]
    from_seeds = seed_variance[rows] + seed_variance[columns]
    from_identities = np.maximum(total - from_seeds, 0.0)
    fewest = np.minimum(found.dof[rows], found.dof[columns])
    dof = np.square(total) / (np.square(from_identities) / fewest + np.square(from_seeds) / seed_dof)
    return np.asarray(np.minimum(dof, fewest + seed_dof * (from_seeds > 0)))


def _critical_value(deviation: Floats, scale: Floats) -> float:
    """Quantile of the largest scaled difference, over the resamples `B` of deviations `M B`."""
    largest = np.zeros(deviation.shape[1])
    buffer = np.empty((len(deviation), _CHUNK))
    for start in range(0, deviation.shape[1], _CHUNK):
        chunk = np.ascontiguousarray(deviation[:, start : start + _CHUNK])
        best = largest[start : start + _CHUNK]
        for i in range(len(chunk) - 1):
            differences = np.subtract(chunk[i + 1 :], chunk[i], out=buffer[i + 1 :, : chunk.shape[1]])
            np.abs(differences, out=differences)
            differences *= scale[i, i + 1 :, None]
            np.maximum(best, differences.max(0), out=best)
    return float(np.quantile(largest, LEVEL))


@cache
def _tukey_quantile(size: int, resamples: int) -> float:
    """The same quantile for independent normal costs of equal variance: that of their range, over sqrt(2).

    `scipy.stats.studentized_range` gives the same up to 1.4 % of sampling error, but its import takes longer (0.6 s)
    than most reports.
    """
    ranges = np.ptp(_generator(size).standard_normal((resamples * _TUKEY_DRAWS, size)), axis=1)
    return float(np.quantile(ranges, LEVEL)) / math.sqrt(2)


def rank_sets(cost: Floats, lower: Booleans) -> list[tuple[int, int, int]]:
    """Rank, lowest and highest possible rank: `1 + #lower`, `1 + #significantly lower`, `M - #significantly higher`.

    Costs that differ only by rounding have equal ranks.
    """
    below = (cost[:, None] < cost - _ROUNDING * np.abs(cost).max()).sum(0)
    return [(int(1 + below[i]), int(1 + lower[:, i].sum()), int(len(cost) - lower[i].sum())) for i in range(len(cost))]
