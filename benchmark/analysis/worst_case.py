"""Worst case of each identity over several attacks, between two estimates that bracket it.

The largest of several noisy success rates is too high on average. An attack that is chosen on some observations and
read on others is too low on average, since it may be the wrong one. The true worst case lies between the two
expectations.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
#: More draws are treated as this many; their share of hits is then rounded to a multiple of 1/2000.
MAX_DRAWS = 2000
#: A share of hits differs from a multiple of 1/draws by rounding only.
_ROUNDING = 1e-6
#: One of this many draws is read, the others choose.
_READ = 4
#: Probabilities of one attack in memory at a time.
_CELLS = 1 << 18


@dataclass(frozen=True)
class Sample:
    """Measured costs of one defense.

    Args:
        name: name of the defense, which decides the draws of its seeds.
        costs: `A S K`: attacks, seeds, identities; NaN for missing values.
        seeds: the S seeds, under each of which every attack was run.
        draws: `A S`, for costs that are shares of hits the number of draws of each identity; 0 for other costs.
    """

    name: str
    costs: Floats
    seeds: tuple[int, ...]
    draws: Integers


@dataclass(frozen=True)
class Bracket:
    """Estimates of the worst case of each seed and identity.

    Args:
        low: `S K`, the cost of an attack that other observations chose; at most the worst case on average. Equal to
            `high` if `basis` is `none`, and under one attack. 0 for unknown identities.
        high: `S K`, the largest measured cost; at least the worst case on average. 0 for unknown identities.
        known: `K`, whether every attack has a value for the identity under every seed.
        basis: observations that chose the attacks: `single` (there is one attack), `draws`, `seeds`, or `none` if there
            is nothing to choose on.
    """

    low: Floats
    high: Floats
    known: NDArray[np.bool_]
    basis: str


def draws_of(per_class: Floats, n: int) -> int:
    """Number of draws of each identity if the values are shares of hits among n observations; 0 if they are not.

    Args:
        per_class: `K`, the value of each identity, NaN where it is missing.
        n: number of observations of all identities.
    """
    values = per_class[np.isfinite(per_class)]
    if values.size == 0 or n <= 0 or n % values.size:
        return 0
    draws = n // values.size
    hits = values * draws
    are_shares = ((values >= 0) & (values <= 1)).all() and np.abs(hits - hits.round()).max() <= _ROUNDING * draws
    return int(draws) if are_shares else 0


def bracket(sample: Sample) -> Bracket:
    """Estimate the worst case of each seed and identity from below and from above.

    Attacks are chosen on draws if there are at least two of each identity under every attack and seed, else on the
    other seeds. Both estimates are of `max_a p[a, s, k]`, with p the expected cost of an attack with a seed.
    """
    known: NDArray[np.bool_] = np.asarray(np.isfinite(sample.costs).all((0, 1)))
    costs = np.where(known, sample.costs, 0.0)
    high = costs.max(0)
    if len(costs) == 1:
        return Bracket(high, high, known, "single")
    if (sample.draws >= 2).all():
        low = np.stack([_chosen_on_draws(costs[:, s], sample.draws[:, s]) for s in range(len(sample.seeds))])
        return Bracket(low * known, high, known, "draws")
    if len(sample.seeds) >= 2:
        return Bracket(_chosen_on_seeds(costs), high, known, "seeds")
    return Bracket(high, high, known, "none")


def _chosen_on_seeds(costs: Floats) -> Floats:
    """Cost `S K` under each seed of the attack with the largest mean cost under the other seeds; ties share."""
    others = costs.sum(1, keepdims=True) - costs
    largest = others >= others.max(0) - 1e-12 * np.abs(costs).max()
    low: Floats = (costs * largest).sum(0) / largest.sum(0)
    return low


def _chosen_on_draws(costs: Floats, draws: Integers) -> Floats:
    """Cost `K` of the attack with the largest cost on three quarters of the draws, on the last quarter.

    The exact average over all splits of the draws, independent for each attack: the hits among the draws that choose
    have a hypergeometric distribution. Equally large costs share the choice.

    Args:
        costs: `A K`, shares of hits, or their negatives.
        draws: `A`, at least 2.
    """
    shift = -1.0 if (costs < 0).any() else 0.0
    draws = np.minimum(draws, MAX_DRAWS)
    hits = np.rint((costs - shift) * draws[:, None]).astype(np.int64)
    read = np.maximum(draws // _READ, 1)
    low = np.zeros(costs.shape[1])
    step = max(1, _CELLS // int(draws.max()))
    for start in range(0, len(low), step):
        part = slice(start, start + step)
        for attack, chosen in enumerate(_choices(hits[:, part], draws, draws - read)):
            rest = hits[attack, part] - np.arange(len(chosen))[:, None]
            low[part] += (chosen * rest).sum(0) / read[attack]
    return low + shift


def _choices(hits: Integers, draws: Integers, choosing: Integers) -> Iterator[Floats]:
    """For each attack `C K`: the probability that it is chosen with c hits among the draws that choose.

    Of several attacks with the same largest share of hits one is drawn: with u uniform in [0, 1] as the place of the
    attack in a random order, an equal share of another attack does not matter with probability u. The integral over u
    of the product over the other attacks is a polynomial, which Gauss-Legendre quadrature integrates exactly.
    """
    chances = [_hypergeometric(*found) for found in zip(hits, draws.tolist(), choosing.tolist(), strict=True)]
    below = [np.concatenate((np.zeros_like(chance[:1]), chance.cumsum(0))) for chance in chances]
    places, weights = np.polynomial.legendre.leggauss((len(hits) + 1) // 2)
    for attack, chance in enumerate(chances):
        ours = np.arange(choosing[attack] + 1)
        products = [chance * weight / 2 for weight in weights]
        for other, lower in enumerate(below):
            if other != attack:
                fewer = lower[-(-ours * choosing[other] // choosing[attack])]
                equal = lower[ours * choosing[other] // choosing[attack] + 1] - fewer
                for place, product in zip(places, products, strict=True):
                    product *= fewer + (place + 1) / 2 * equal
        yield np.sum(products, axis=0)


def _hypergeometric(hits: Integers, draws: int, choosing: int) -> Floats:
    """`C K`: probability of c = 0 .. `choosing` hits among `choosing` of the draws, with `hits` among all of them."""
    c = np.arange(choosing + 1)[:, None]
    rest = draws - hits - choosing + c
    possible = (c <= hits) & (rest >= 0)
    f = _log_factorials(draws)
    first = f[hits] - f[c] - f[np.where(possible, hits - c, 0)]
    second = f[draws - hits] - f[choosing - c] - f[np.where(possible, rest, 0)]
    logarithm = first + second - (f[draws] - f[choosing] - f[draws - choosing])
    return np.where(possible, np.exp(np.where(possible, logarithm, 0.0)), 0.0)


@cache
def _log_factorials(largest: int) -> Floats:
    """`0! .. largest!`, logarithms."""
    return np.concatenate(([0.0], np.log(np.arange(1, largest + 1)).cumsum()))
