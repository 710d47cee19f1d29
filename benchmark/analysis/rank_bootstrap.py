"""Which differences between defenses are more than chance, by the bootstrap: intervals, sets of ranks, letters.

Everything is in float64 and on costs: numbers of which a defender prefers the lower. Equal samples give equal results,
in whatever order they come.
"""

from __future__ import annotations

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
#: Resamples whose differences are held at a time.
_CHUNK = 200
#: Degrees of freedom that are as good as infinitely many.
_MANY = 1e6
#: Draws behind Tukey's quantile, in multiples of the resamples.
_TUKEY = 4
#: Deviations below this share of the largest cost are rounding.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class Sample:
    """What is known of one defense.

    Args:
        name: tells its seeds' draws from those of other defenses.
        costs: of each attack, `S K`: seeds, identities; NaN where there is no value.
        seeds: of each attack, the S seeds.
    """

    name: str
    costs: tuple[Floats, ...]
    seeds: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Estimate:
    """Costs of M defenses with what is known of their errors.

    Args:
        cost: `M`, the worst case of each.
        drawn: `M B`, the same on resampled data.
        seed_variance: `M`, the part of the variance that comes from seeds.
        identities: `M`, how many identities stand behind each; 0 where that is not known.
        freedom: `M`, degrees of freedom of the variance over identities, or of the whole where that is not known.
        seed_freedom: `M`, degrees of freedom of the variance over seeds.
        seeded: `M`, whether there are several seeds, so that a variance over them is known.
    """

    cost: Floats
    drawn: Floats
    seed_variance: Floats
    identities: NDArray[np.int64]
    freedom: Floats
    seed_freedom: Floats
    seeded: Booleans


def by_identity(sample: Sample) -> Floats:
    """`K`: the largest over attacks of the mean over seeds; NaN where an attack or a seed has no value."""
    worst: Floats = np.stack([costs.mean(0) for costs in sample.costs]).max(0)
    return worst


def counts(units: int, resamples: int, *entropy: int) -> Floats:
    """`B U`: how often each of U units is drawn when U - 1 are drawn with replacement (once, if there is one).

    The mean of U - 1 draws varies by `s^2 / U` with s^2 the sample variance, as the mean of U independent units does;
    that of U draws would vary by `(U - 1) / U` of it.

    References:
        J. N. K. Rao, C. F. J. Wu, "Resampling inference with complex survey data", JASA 83, 1988.
    """
    if units == 1:
        return np.ones((resamples, 1))
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
    return generator.multinomial(units - 1, np.full(units, 1 / units), size=resamples).astype(np.float64)


def estimate(samples: Sequence[Sample], resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Resample identities, the same for all samples, and within each sample its seeds.

    Attacks on one defense that were run with the same seeds attacked the same targets: their seeds are drawn together.
    """
    worst = np.stack([by_identity(sample) for sample in samples])
    known = np.isfinite(worst)
    assert known.any(1).all()
    filled = np.where(known, worst, 0.0)
    cost = filled.sum(1) / known.sum(1)
    drawn_identities = counts(worst.shape[1], resamples, seed)
    seed_variance = np.zeros(len(samples))
    weights = known.astype(np.float64) @ drawn_identities.T
    sums = filled @ drawn_identities.T
    for i, sample in enumerate(samples):
        if any(len(seeds) > 1 for seeds in sample.seeds):
            on_seeds = _on_drawn_seeds(sample, known[i], resamples, seed)
            sums[i] = np.einsum("bk,bk->b", on_seeds, drawn_identities)
            seed_variance[i] = (on_seeds.sum(1) / known[i].sum()).var(ddof=1)
    with np.errstate(invalid="ignore"):
        drawn = np.where(weights > 0, sums / weights, cost[:, None])
    return Estimate(
        cost=cost,
        drawn=drawn,
        seed_variance=seed_variance,
        identities=known.sum(1),
        freedom=np.maximum(known.sum(1) - 1.0, 1.0),
        seed_freedom=np.array([_seed_freedom(sample) for sample in samples], dtype=np.float64),
        seeded=np.array([any(len(seeds) > 1 for seeds in sample.seeds) for sample in samples]),
    )


def _seed_freedom(sample: Sample) -> int:
    return min((len(seeds) - 1 for seeds in sample.seeds if len(seeds) > 1), default=1)


def _on_drawn_seeds(sample: Sample, known: Booleans, resamples: int, seed: int) -> Floats:
    """`B K`: costs by identity on drawn seeds; 0 where nothing is known."""
    name = zlib.crc32(sample.name.encode())
    drawn = {seeds: counts(len(seeds), resamples, seed, name, *seeds) for seeds in dict.fromkeys(sample.seeds)}
    worst = np.full((resamples, known.size), -math.inf)
    for costs, seeds in zip(sample.costs, sample.seeds, strict=True):
        np.maximum(worst, drawn[seeds] @ np.where(known, costs, 0.0) / max(len(seeds) - 1, 1), out=worst)
    return worst * known


def from_intervals(cost: Floats, error: Floats, freedom: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Independent costs with known standard errors, normal deviations drawn in place of data.

    Args:
        cost: `M`.
        error: `M`, standard errors; infinite where nothing is known.
        freedom: `M`, their degrees of freedom; may be infinite.
        resamples: how many to draw.
        seed: of the draws.
    """
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed])))
    normal = generator.standard_normal((len(cost), resamples))
    normal = (normal - normal.mean(1, keepdims=True)) / normal.std(1, ddof=1, keepdims=True)
    drawn = cost[:, None] + np.where(np.isfinite(error), error, 0.0)[:, None] * normal
    nothing = np.zeros(len(cost))
    counted = nothing.astype(np.int64)
    return Estimate(cost, drawn, nothing, counted, np.minimum(freedom, _MANY), nothing + 1, nothing > 0)


def spread(found: Estimate, bounds: tuple[float, float]) -> list[tuple[float, float] | None]:
    """Interval (95 %) of each cost; `None` without variation.

    With `v` the variance over the resamples and `u` the part of it that seeds alone make: `cost +- h`,
    `h^2 = t(K - 1)^2 (v - u) + t(S - 1)^2 u`, cut to `bounds`.

    References:
        G. Y. Zou, A. Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 27,
        2008 (intervals of sums out of the intervals of the parts).

    Note:
        Not the percentiles of the resamples: in the simulations of `docs/ranking.md` those were too narrow.
    """
    variance = found.drawn.var(axis=1, ddof=1)
    by_identity = _t(found.freedom) ** 2 * np.maximum(variance - found.seed_variance, 0.0)
    half = np.sqrt(by_identity + _t(found.seed_freedom) ** 2 * found.seed_variance)
    tiny = _tiny(found)
    return [
        None if v <= tiny else (max(bounds[0], float(c - h)), min(bounds[1], float(c + h)))
        for c, h, v in zip(found.cost, half, variance, strict=True)
    ]


def _t(freedom: Floats) -> Floats:
    from scipy.special import stdtrit

    quantiles: Floats = stdtrit(freedom, (1 + LEVEL) / 2)
    return quantiles


def _tiny(found: Estimate) -> float:
    """A variance that rounding explains."""
    return float(_ROUNDING * np.abs(found.cost).max()) ** 2


def surely_lower(found: Estimate, *, unknown: Booleans | None = None) -> Booleans:
    """`M M`: whether the cost of i is surely lower than that of j, all statements true together in 95 %.

    With `D_ij` the difference of two costs and `s_ij` its standard deviation over the resamples, `c` is the 95 %
    quantile over resamples of `max_ij |D*_ij - D_ij| / s_ij`. i is surely lower than j if `-D_ij / s_ij` is beyond the
    quantile of Student's t, with the degrees of freedom of `s_ij`, that c is of the normal distribution.

    References:
        M. Mogstad, J. P. Romano, A. M. Shaikh, D. Wilhelm, "Inference for Ranks with Applications to Mobility across
        Neighbourhoods and Academic Achievement across Countries", Review of Economic Studies 91, 2024.

    Args:
        found: the costs.
        unknown: `M`, defenses whose error is not known; nothing is sure of them.

    Note:
        Mogstad et al. take c from the bootstrap as it is, for many observations. A handful of identities or seeds
        cannot show how far the largest of many differences goes, therefore c is at least Tukey's, the same quantile
        for M independent normal costs, and it is carried over to Student's t.

    Note:
        Two or three seeds may agree by chance, therefore the variance over seeds of each defense with several is at
        least the mean of theirs.

    Note:
        Where a difference is the same for all K identities there is nothing to measure it by: it is then sure if a
        sign test over identities is, `2^(1 - K) <= 0.05 / pairs`.
    """
    from scipy.special import ndtri, stdtr

    size = len(found.cost)
    nothing = np.zeros(size, dtype=bool) if unknown is None else unknown
    if size < 2:
        return np.zeros((size, size), dtype=bool)
    difference = found.cost[:, None] - found.cost
    seeds, seed_freedom = _pooled(found)
    variance, flat = _variances(found, seeds - found.seed_variance)
    open_to = ~(nothing[:, None] | nothing)
    scale = np.sqrt(np.divide(1.0, variance, out=np.zeros_like(variance), where=open_to & ~flat))
    critical = max(_critical(found.drawn - found.cost[:, None], scale), _tukey(size, found.drawn.shape[1]))
    distance = -difference * scale
    sure = distance > critical
    rows, columns = np.nonzero(sure)
    freedom = _freedom(found, seeds, seed_freedom, variance, rows, columns)
    sure[rows, columns] = -ndtri(stdtr(freedom, -distance[rows, columns])) > critical
    identities = np.minimum(found.identities[:, None], found.identities)
    constant = open_to & flat & (2.0 ** (1 - identities) <= (1 - LEVEL) / (size * (size - 1) / 2))
    sure |= constant & (difference < -_ROUNDING * np.abs(found.cost).max())
    return sure


def _pooled(found: Estimate) -> tuple[Floats, float]:
    """Variances over seeds, at least their mean where there are several seeds, and the mean's degrees of freedom."""
    several = found.seeded
    if not several.any():
        return found.seed_variance, 1.0
    mean = found.seed_variance[several].mean()
    return np.where(several, np.maximum(found.seed_variance, mean), 0.0), float(found.seed_freedom[several].sum())


def _variances(found: Estimate, more: Floats) -> tuple[Floats, Booleans]:
    """Variances of all differences with what is added to each cost's, and where there is none."""
    covariance = np.atleast_2d(np.cov(found.drawn))
    own = np.diag(covariance) + more
    variance = np.maximum(own[:, None] + own - 2 * covariance, 0.0)
    return variance, variance <= np.maximum(_tiny(found), 1e-12 * (own[:, None] + own))


def _freedom(
    found: Estimate,
    seeds: Floats,
    seed_freedom: float,
    variance: Floats,
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
) -> Floats:
    """Welch and Satterthwaite's degrees of freedom of differences."""
    whole = variance[rows, columns]
    by_seed = seeds[rows] + seeds[columns]
    by_identity = np.maximum(whole - by_seed, 0.0)
    fewer = np.minimum(found.freedom[rows], found.freedom[columns])
    freedom = np.square(whole) / (np.square(by_identity) / fewer + np.square(by_seed) / seed_freedom)
    return np.asarray(np.minimum(freedom, fewer + seed_freedom * (by_seed > 0)))


def _critical(deviation: Floats, scale: Floats) -> float:
    """Quantile of the largest scaled difference, over the resamples `B` of deviations `M B`."""
    largest = np.zeros(deviation.shape[1])
    memory = np.empty((len(deviation), _CHUNK))
    for start in range(0, deviation.shape[1], _CHUNK):
        part = np.ascontiguousarray(deviation[:, start : start + _CHUNK])
        best = largest[start : start + _CHUNK]
        for i in range(len(part) - 1):
            differences = np.subtract(part[i + 1 :], part[i], out=memory[i + 1 :, : part.shape[1]])
            np.abs(differences, out=differences)
            differences *= scale[i, i + 1 :, None]
            np.maximum(best, differences.max(0), out=best)
    return float(np.quantile(largest, LEVEL))


@cache
def _tukey(size: int, resamples: int) -> float:
    """The same quantile for independent normal costs of equal variance: that of their range, over sqrt(2)."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([size])))
    ranges = np.ptp(generator.standard_normal((resamples * _TUKEY, size)), axis=1)
    return float(np.quantile(ranges, LEVEL)) / math.sqrt(2)


def rank_sets(cost: Floats, surely: Booleans) -> list[tuple[int, int, int]]:
    """Rank, lowest and highest rank of each: `1 + #lower`, `1 + #surely lower`, `M - #surely higher`.

    Costs that differ by no more than rounding have equal ranks.
    """
    lower = (cost[:, None] < cost - _ROUNDING * np.abs(cost).max()).sum(0)
    return [
        (int(1 + lower[i]), int(1 + surely[:, i].sum()), int(len(cost) - surely[i].sum())) for i in range(len(cost))
    ]
