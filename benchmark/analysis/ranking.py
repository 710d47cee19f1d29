"""Leaderboards: defenses of a section in the order of their worst case over attacks.

`rank_bootstrap` has the statistics of the order; `docs/ranking.md` has the definitions.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core.config import Definition
from ..core.text import count
from ..records.record import Interval
from . import letter_display, rank_bootstrap
from .aggregate import Row, Section, Summary, bounds
from .rank_bootstrap import Booleans, Estimate
from .ranking_rows import rows_by_cell, scores_by_seed, shared_attacks, utilities
from .worst_case import Sample, bracket, draws_of

#: Primary scores: the first that a section has leads; the other scores follow in their order.
PRIMARY = ("attack_acc", "verified_acc", "ssim", "face_similarity", "feature_similarity")
#: With fewer identities, a ranking has a note.
MIN_IDENTITIES = 20
#: With fewer draws of each identity, a ranking over several attacks has a note.
MIN_DRAWS = 50
ONE_SEED = "one seed: variation between trainings is unknown"
#: 97.5 % quantile of the standard normal distribution.
_Z = 1.959963984540054


@dataclass(frozen=True)
class WorstCase:
    """Worst case of one defense over attacks, for one leakage score.

    Args:
        value: mean over identities of the worst case over attacks, or the score under the only attack; or `None`.
        interval: 95 % interval; `None` without variation.
        n: number of identities; of observations if `basis` is `score`.
        basis: `identity` or `score`.
        reason: why there is no value; empty otherwise.
    """

    value: float | None
    interval: Interval | None
    n: int
    basis: str
    reason: str


@dataclass(frozen=True)
class Standing:
    """One defense in a ranking.

    Args:
        defense: label of the defense, as in `Row.defense`.
        rows: rows under the attacks of the ranking, in the order of the attacks.
        utility: the section's first utility score, from the row with the most seeds.
        worst: worst case over the attacks.
        missing: attacks of the ranking without a value; a defense that misses one has no rank.
        rank: 1 is best for the defender; equal values share a rank.
        rank_interval: lowest and highest rank of the rank set, with 95 % simultaneous confidence for all defenses.
        group: group letters; defenses that share a letter are not distinguishable. Numbers above 26 groups.
    """

    defense: str
    rows: tuple[Row, ...]
    utility: Summary | None
    worst: WorstCase
    missing: tuple[str, ...]
    rank: int | None
    rank_interval: tuple[int, int] | None
    group: str

    @property
    def seeds(self) -> int:
        """Smallest number of seeds under an attack."""
        return min((len(row.seeds) for row in self.rows), default=0)


@dataclass(frozen=True)
class Ranking:
    """Defenses ranked by one leakage score, the best for the defender first; unranked defenses are last."""

    score: Definition
    attacks: tuple[str, ...]
    standings: tuple[Standing, ...]
    notes: tuple[str, ...]


def rankings(section: Section) -> tuple[Ranking, ...]:
    """Rank the defenses by each leakage score that has a value, the primary score first; controls have no rank."""
    section = _without_controls(section)
    return tuple(_ranking(section, column) for column in _leakage_columns(section))


def primary(section: Section) -> Ranking | None:
    """Return the first of `rankings`; `None` if no leakage score has a value."""
    section = _without_controls(section)
    columns = _leakage_columns(section)
    return _ranking(section, columns[0]) if columns else None


def _without_controls(section: Section) -> Section:
    return replace(section, rows=tuple(row for row in section.rows if not row.is_control))


def _leakage_columns(section: Section) -> list[Definition]:
    order = {name: i for i, name in enumerate(PRIMARY)}
    columns = [
        column
        for column in section.columns
        if column.measures == "leakage" and any(row.scores[column.name].value is not None for row in section.rows)
    ]
    return sorted(columns, key=lambda column: order.get(column.name, len(PRIMARY)))


def _ranking(section: Section, column: Definition) -> Ranking:
    notes: list[str] = []
    cells = rows_by_cell(section, column, notes)
    defenses = list(dict.fromkeys(row.defense for row in section.rows))
    attacks = shared_attacks(cells, column, notes)
    by_identity = len(attacks) > 1 or all(_has_identities(cells[cell], column) for cell in cells if cell[1] in attacks)
    utility = utilities(section)
    incomplete: list[Standing] = []
    complete: list[Standing] = []
    for defense in defenses:
        rows = tuple(cells[defense, attack] for attack in attacks if (defense, attack) in cells)
        standing = Standing(
            defense=defense,
            rows=rows,
            utility=utility.get(defense),
            worst=WorstCase(None, None, 0, "identity" if by_identity else "score", ""),
            missing=tuple(attack for attack in attacks if not _has_value(cells.get((defense, attack)), column)),
            rank=None,
            rank_interval=None,
            group="",
        )
        reason = _reason_without_rank(standing, cells, column, by_identity)
        if reason:
            incomplete.append(replace(standing, worst=replace(standing.worst, reason=reason)))
        else:
            complete.append(standing)
    ranked: list[Standing] = []
    if complete:
        estimate, unknown = (_estimate_by_identity if by_identity else _estimate_by_score)(complete, column, notes)
        ranked = _rank(complete, column, estimate, unknown)
    return Ranking(column, attacks, (*ranked, *incomplete), tuple(dict.fromkeys(notes)))


def _has_value(row: Row | None, column: Definition) -> bool:
    return row is not None and row.scores[column.name].value is not None


def _has_identities(row: Row, column: Definition) -> bool:
    return all(score.per_class is not None for score in scores_by_seed(row, column).values())


def _reason_without_rank(
    standing: Standing, cells: Mapping[tuple[str, str], Row], column: Definition, by_identity: bool
) -> str:
    """Explain why a defense has no worst case; empty if it has one."""
    reasons = []
    for attack in standing.missing:
        row = cells.get((standing.defense, attack))
        reasons.append(f"{attack} was not run" if row is None else f"{attack}: {row.scores[column.name].reason}")
    if reasons:
        return "; ".join(reasons)
    if not by_identity:
        return ""
    without = [row.attack for row in standing.rows if not _has_identities(row, column)]
    if without:
        return f"no values by identity under {', '.join(without)}, which a worst case over several attacks needs"
    sample = _sample(standing, column)
    if not sample.seeds:
        return "no seed was run under every attack"
    return "" if bracket(sample).known.any() else "no identity has a value under every attack and seed"


def _sample(standing: Standing, column: Definition, identities: int = 0) -> Sample:
    """Costs of a defense under the seeds that all attacks share, with NaN for at least `identities` identities."""
    sign = 1.0 if column.better == "lower" else -1.0
    scores = [scores_by_seed(row, column) for row in standing.rows]
    seeds = tuple(sorted(set(scores[0]).intersection(*scores[1:])))
    width = max([identities, *(len(score.per_class or ()) for by_seed in scores for score in by_seed.values())])
    costs = np.full((len(scores), len(seeds), width), math.nan)
    draws = np.zeros((len(scores), len(seeds)), dtype=np.int64)
    for a, by_seed in enumerate(scores):
        for s, seed in enumerate(seeds):
            score = by_seed[seed]
            found = np.array([math.nan if v is None else v for v in score.per_class or ()], dtype=np.float64)
            costs[a, s, : len(found)] = sign * found
            draws[a, s] = draws_of(found, score.n) if column.unit == "fraction" else 0
    return Sample(standing.defense, costs, seeds, draws)


def _estimate_by_identity(standings: Sequence[Standing], column: Definition, notes: list[str]) -> tuple[Estimate, None]:
    samples = [_sample(standing, column) for standing in standings]
    width = max(sample.costs.shape[2] for sample in samples)
    samples = [
        sample if sample.costs.shape[2] == width else _sample(standing, column, width)
        for sample, standing in zip(samples, standings, strict=True)
    ]
    estimate = rank_bootstrap.estimate(samples)
    fewest, most = int(estimate.identities.min()), int(estimate.identities.max())
    if most < MIN_IDENTITIES:
        notes.append(f"only {count(most, 'identity', 'identities')}: intervals and ranks assume a normal distribution")
    if fewest < width:
        notes.append("identities without a value under some attack are left out of that defense's worst case")
    notes += _seed_notes([[len(sample.seeds)] for sample in samples])
    notes += _choice_notes(standings, samples, estimate)
    return estimate, None


def _estimate_by_score(
    standings: Sequence[Standing], column: Definition, notes: list[str]
) -> tuple[Estimate, Booleans]:
    sign = 1.0 if column.better == "lower" else -1.0
    summaries = [standing.rows[0].scores[column.name] for standing in standings]
    cost = np.array([sign * (summary.value or 0.0) for summary in summaries])
    error = np.array([_standard_error(summary) for summary in summaries])
    dof = np.array([summary.seeds - 1.0 if summary.seeds > 1 else math.inf for summary in summaries])
    notes.append("no values by identity: scores are compared as if each defense had been measured on different data")
    notes += _seed_notes([[summary.seeds] for summary in summaries])
    return rank_bootstrap.estimate_from_errors(cost, error, dof), ~np.isfinite(error)


def _standard_error(summary: Summary) -> float:
    """Standard error over seeds, or from the score's own interval; infinite if neither is known."""
    assert summary.value is not None
    if summary.std:
        return summary.std / math.sqrt(summary.seeds)
    if summary.interval is None or summary.seeds > 1:
        return math.inf
    low, high = summary.interval
    return max(summary.value - low, high - summary.value) / _Z or math.inf


def _seed_notes(seeds: Sequence[Sequence[int]]) -> Iterator[str]:
    """Notes on too few seeds; `seeds` has the numbers of seeds of each defense under each attack."""
    single = sum(min(counts) < 2 for counts in seeds)
    if all(max(counts) < 2 for counts in seeds):
        yield ONE_SEED
    elif single:
        yield (
            f"{single} of {count(len(seeds), 'defense')} with one seed under some attack: variation "
            f"between their trainings is unknown"
        )


def _choice_notes(standings: Sequence[Standing], samples: Sequence[Sample], estimate: Estimate) -> Iterator[str]:
    """Notes on worst cases over several attacks that few observations, or none, decided."""
    reasons = {
        "none": "one seed and no second draw of an identity: the worst case is too high and has no interval",
        "seeds": "attacks are chosen on other seeds, since no second draw of an identity is known",
    }
    for basis, why in reasons.items():
        names = [sample.name for sample, found in zip(samples, estimate.basis, strict=True) if found == basis]
        if names:
            yield f"{', '.join(names)}: {why}"
    on_draws = [i for i, basis in enumerate(estimate.basis) if basis == "draws"]
    fewest = [(int(samples[i].draws[a].min()), row) for i in on_draws for a, row in enumerate(standings[i].rows)]
    draws, row = min(fewest, key=lambda item: item[0], default=(MIN_DRAWS, None))
    if row is not None and draws < MIN_DRAWS:
        yield (
            f"{draws} draws of each identity under {row.attack}: the worst attack on an identity is uncertain, and "
            f"intervals allow for it"
        )


def _rank(
    standings: Sequence[Standing],
    column: Definition,
    estimate: Estimate,
    unknown: Booleans | None,
) -> list[Standing]:
    lower = rank_bootstrap.significantly_lower(estimate, unknown=unknown)
    ranks = rank_bootstrap.rank_sets(estimate.cost, lower)
    worst = _worst(standings, column, estimate, by_identity=unknown is None)
    order = sorted(range(len(standings)), key=lambda i: (ranks[i][0], standings[i].defense))
    distinct = (lower | lower.T)[np.ix_(order, order)]
    groups = letter_display.format_groups(letter_display.assign_groups(distinct))
    return [
        replace(standings[i], worst=worst[i], rank=ranks[i][0], rank_interval=ranks[i][1:], group=group)
        for i, group in zip(order, groups, strict=True)
    ]


def _worst(
    standings: Sequence[Standing], column: Definition, estimate: Estimate, *, by_identity: bool
) -> list[WorstCase]:
    if not by_identity:
        summaries = [standing.rows[0].scores[column.name] for standing in standings]
        return [WorstCase(summary.value, summary.interval, summary.n, "score", "") for summary in summaries]
    lower = column.better == "lower"
    low, high = bounds(column.unit)
    intervals = rank_bootstrap.intervals(estimate, (low, high) if lower else (-high, -low))
    values = estimate.cost if lower else -estimate.cost
    if not lower:
        intervals = [None if interval is None else (-interval[1], -interval[0]) for interval in intervals]
    return [
        WorstCase(float(value), interval, int(n), "identity", "")
        for value, interval, n in zip(values, intervals, estimate.identities, strict=True)
    ]
