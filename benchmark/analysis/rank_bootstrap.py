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
from .worst_case import Sample, bracket

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
class Estimate:
    """Estimated costs of M defenses with their errors, from below and from above (see `worst_case`).

    Args:
        cost: `M`, worst-case cost of each defense; at most the true one on average.
        ceiling: `M`, the mean of the largest measured costs; at least the true worst-case cost on average.
        resampled: `2 M B`, cost and ceiling on resampled data.
        seed_variance: `2 M`, the parts of their variances that come from seeds.
        identities: `M`, number of identities of each defense; 0 if unknown.
        dof: `M`, degrees of freedom of the variance over identities, or of the whole variance if that is unknown.
        seed_dof: `M`, degrees of freedom of the variance over seeds.
        has_seeds: `M`, whether there are several seeds, so that a variance over seeds is known.
        basis: `M`, what chose the attacks, as in `worst_case.Bracket`; with `none`, `cost` is only a ceiling and has
            neither an interval nor significant differences.
    """

    cost: Floats
    ceiling: Floats
    resampled: Floats
    seed_variance: Floats
    identities: NDArray[np.int64]
    dof: Floats
    seed_dof: Floats
    has_seeds: Booleans
    basis: tuple[str, ...]


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

    Each seed and identity has its own worst case, so the estimates are means over seeds and identities.
    """
    brackets = [bracket(sample) for sample in samples]
    known = np.stack([found.known for found in brackets])
    assert known.any(1).all()
    worst = np.stack([(found.low.mean(0), found.high.mean(0)) for found in brackets], axis=1)
    cost = worst.sum(2) / known.sum(1)
    counts = draw_counts(known.shape[1], resamples, seed)
    seed_variance = np.zeros(cost.shape)
    weights = known.astype(np.float64) @ counts.T
    sums = worst @ counts.T
    seeds = np.array([len(sample.seeds) for sample in samples])
    for i, (sample, found) in enumerate(zip(samples, brackets, strict=True)):
        if seeds[i] > 1:
            drawn = draw_counts(seeds[i], resamples, seed, zlib.crc32(sample.name.encode()), *sample.seeds)
            drawn /= seeds[i] - 1
            for part, values in enumerate((found.low, found.high)):
                sums[part, i] = np.einsum("bs,sk,bk->b", drawn, values, counts, optimize=True)
                seed_variance[part, i] = (drawn @ values.sum(1) / known[i].sum()).var(ddof=1)
    with np.errstate(invalid="ignore"):
        resampled = np.where(weights > 0, sums / weights, cost[:, :, None])
    return Estimate(
        cost=cost[0],
        ceiling=cost[1],
        resampled=resampled,
        seed_variance=seed_variance,
        identities=known.sum(1),
        dof=np.maximum(known.sum(1) - 1.0, 1.0),
        seed_dof=np.maximum(seeds - 1.0, 1.0),
        has_seeds=seeds > 1,
        basis=tuple(found.basis for found in brackets),
    )


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
    zeros = np.zeros((2, len(cost)))
    return Estimate(
        cost=cost,
        ceiling=cost,
        resampled=np.stack((resampled, resampled)),
        seed_variance=zeros,
        identities=zeros[0].astype(np.int64),
        dof=np.minimum(dof, _MAX_DOF),
        seed_dof=zeros[0] + 1,
        has_seeds=zeros[0] > 0,
        basis=("single",) * len(cost),
    )


def intervals(found: Estimate, bounds: tuple[float, float]) -> list[tuple[float, float] | None]:
    """95 % interval of each worst-case cost; `None` without variation, and if nothing chose the attacks.

    From `cost - h` to `ceiling + h'`, where `h^2 = t(K - 1)^2 (v - u) + t(S - 1)^2 u` with `v` the variance over the
    resamples and `u` the part of it that comes from seeds. The truth is between the expectations of cost and ceiling,
    so each end fails for at most 2.5 %. For shares the ends are Wilson's with the same h.

    References:
        G. Y. Zou, A. Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 27,
        2008 (intervals of sums from the intervals of the parts).

    Note:
        The percentiles of the resamples are not used: in the simulations of `docs/ranking.md` they were too narrow.
    """
    variance = found.resampled.var(axis=2, ddof=1)
    from_identities = _t_quantile(found.dof) ** 2 * np.maximum(variance - found.seed_variance, 0.0)
    half = np.sqrt(from_identities + _t_quantile(found.seed_dof) ** 2 * found.seed_variance)
    low, high = _ends(found.cost, half[0], bounds)[0], _ends(found.ceiling, half[1], bounds)[1]
    missing = (variance.max(0) <= _rounding_variance(found)) | (np.array(found.basis) == "none")
    return [
        None if without else (max(bounds[0], float(a)), min(bounds[1], float(b)))
        for a, b, without in zip(low, high, missing, strict=True)
    ]


def _ends(cost: Floats, half: Floats, bounds: tuple[float, float]) -> tuple[Floats, Floats]:
    """`cost +- half`; for a share p the x with `(x - p)^2 = h^2 x (1 - x) / (p (1 - p))`, as in Wilson's interval."""
    width = bounds[1] - bounds[0]
    if not math.isfinite(width):
        return cost - half, cost + half
    share, h = (cost - bounds[0]) / width, half / width
    e = np.divide(np.square(h), share * (1 - share), out=np.zeros_like(h), where=h > _ROUNDING)
    centre, root = share + e / 2, np.sqrt(np.square(h) + np.square(e) / 4)
    return bounds[0] + width * (centre - root) / (1 + e), bounds[0] + width * (centre + root) / (1 + e)


def _t_quantile(dof: Floats) -> Floats:
    from scipy.special import stdtrit

    quantiles: Floats = stdtrit(dof, (1 + LEVEL) / 2)
    return quantiles


def _rounding_variance(found: Estimate) -> float:
    """Largest variance that rounding errors explain."""
    return float(_ROUNDING * np.abs(found.ceiling).max()) ** 2


def significantly_lower(found: Estimate, *, unknown: Booleans | None = None) -> Booleans:
    """`M M`: whether the cost of i is significantly lower than that of j, with 95 % simultaneous confidence.

    With `D_ij` the ceiling of i minus the cost of j and `s_ij` its standard deviation over the resamples, `c` is the
    95 % quantile over resamples of `max_ij (D_ij - D*_ij) / s_ij`. i is significantly lower than j if `-D_ij / s_ij`
    exceeds the quantile of Student's t, with the degrees of freedom of `s_ij`, at the level that c has in the normal
    distribution.

    References:
        M. Mogstad, J. P. Romano, A. M. Shaikh, D. Wilhelm, "Inference for Ranks with Applications to Mobility across
        Neighbourhoods and Academic Achievement across Countries", Review of Economic Studies 91, 2024.

    Args:
        found: the costs.
        unknown: `M`, defenses with unknown errors; their differences are never significant, as are those of defenses
            for which nothing chose the attacks.

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
    excluded = np.array(found.basis) == "none"
    if unknown is not None:
        excluded |= unknown
    if size < 2:
        return np.zeros((size, size), dtype=bool)
    difference = found.ceiling[:, None] - found.cost
    seed_variance, seed_dof = _pooled_seed_variance(found)
    variance, constant = _difference_variances(found, seed_variance - found.seed_variance)
    tested = ~(excluded[:, None] | excluded | np.eye(size, dtype=bool))
    scale = np.sqrt(np.divide(1.0, variance, out=np.zeros_like(variance), where=tested & ~constant))
    critical = _critical_value(found, scale)
    critical = max(critical, _tukey_quantile(size, found.resampled.shape[2]))
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
    """`2 M`, variances over seeds, at least their mean if there are several seeds; the mean's degrees of freedom."""
    several = found.has_seeds
    if not several.any():
        return found.seed_variance, 1.0
    mean = found.seed_variance[:, several].mean(1, keepdims=True)
    return np.where(several, np.maximum(found.seed_variance, mean), 0.0), float(found.seed_dof[several].sum())


def _difference_variances(found: Estimate, added: Floats) -> tuple[Floats, Booleans]:
    """Variances of `D`, with variances `added` to costs and ceilings, and whether the difference is constant."""
    size = len(found.cost)
    covariance = np.cov(found.resampled.reshape(2 * size, -1))
    cost, ceiling = np.diag(covariance).reshape(2, size) + added
    variance = np.maximum(ceiling[:, None] + cost - 2 * covariance[size:, :size], 0.0)
    return variance, variance <= np.maximum(_rounding_variance(found), 1e-12 * (ceiling[:, None] + cost))


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
    from_seeds = seed_variance[1, rows] + seed_variance[0, columns]
    from_identities = np.maximum(total - from_seeds, 0.0)
    fewest = np.minimum(found.dof[rows], found.dof[columns])
    dof = np.square(total) / (np.square(from_identities) / fewest + np.square(from_seeds) / seed_dof)
    return np.asarray(np.minimum(dof, fewest + seed_dof * (from_seeds > 0)))


def _critical_value(found: Estimate, scale: Floats) -> float:
    """Quantile over the resamples of the largest scaled deviation of a difference."""
    cost = found.resampled[0] - found.cost[:, None]
    ceiling = found.resampled[1] - found.ceiling[:, None]
    largest = np.zeros(cost.shape[1])
    for start in range(0, cost.shape[1], _CHUNK):
        chunk = np.ascontiguousarray(cost[:, start : start + _CHUNK])
        best, buffer = largest[start : start + _CHUNK], np.empty_like(chunk)
        for i, own in enumerate(ceiling[:, start : start + _CHUNK]):
            np.subtract(chunk, own, out=buffer)
            np.multiply(buffer, scale[i, :, None], out=buffer)
            np.maximum(best, buffer.max(0), out=best)
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
