"""Leaderboards: defenses of a section in the order of their worst case over attacks.

What the order is worth is in `rank_statistics`; definitions are in `docs/ranking.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core.config import Definition
from ..records.record import Interval, RecordedScore
from . import letter_display, rank_bootstrap
from .aggregate import Row, Section, Summary, bounds, evaluator_of, latest
from .rank_bootstrap import Estimate, Sample

#: Scores that lead, the first that a section has; then the others in their order.
PRIMARY = ("attack_acc", "verified_acc", "ssim", "face_similarity", "feature_similarity")
#: Below this many identities a note says so.
FEW = 20
#: Below this many observations of an identity the worst of several attacks is visibly overestimated.
FEW_DRAWS = 50
ONE_SEED = "one seed: nothing here says how much another training would change"
_Z = 1.959963984540054


@dataclass(frozen=True)
class Worst:
    """Worst case of one defense over attacks, for one leakage score.

    Args:
        value: the mean over identities of the worst over attacks, or the score of the one attack; or `None`.
        interval: 95 %; `None` where nothing varies.
        n: identities behind it; where `basis` is `score`, the observations.
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
        defense: its name, as in `Row.defense`.
        rows: one for each attack of the ranking that was run, in the ranking's order.
        utility: the section's first utility score, of the row with most seeds.
        worst: over the attacks.
        missing: attacks of the ranking that were not run or have no value; then there is no rank.
        rank: 1 is best for the defender; equal values share one.
        rank_interval: ranks that cannot be ruled out, for all defenses together in 95 %.
        group: letters; defenses that share one cannot be told apart. Numbers if there are more than 26 groups.
    """

    defense: str
    rows: tuple[Row, ...]
    utility: Summary | None
    worst: Worst
    missing: tuple[str, ...]
    rank: int | None
    rank_interval: tuple[int, int] | None
    group: str

    @property
    def seeds(self) -> int:
        """The fewest seeds under an attack."""
        return min((len(row.seeds) for row in self.rows), default=0)


@dataclass(frozen=True)
class Ranking:
    """Defenses by one leakage score: the ranked ones first, best for the defender first."""

    score: Definition
    attacks: tuple[str, ...]
    standings: tuple[Standing, ...]
    notes: tuple[str, ...]


def rankings(section: Section) -> tuple[Ranking, ...]:
    """A ranking for each leakage score that has a value, the primary one first."""
    return tuple(_ranking(section, column) for column in _columns(section))


def primary(section: Section) -> Ranking | None:
    """The first of `rankings`; `None` where no leakage score has a value."""
    columns = _columns(section)
    return _ranking(section, columns[0]) if columns else None


def _columns(section: Section) -> list[Definition]:
    order = {name: i for i, name in enumerate(PRIMARY)}
    columns = [
        column
        for column in section.columns
        if column.measures == "leakage" and any(row.scores[column.name].value is not None for row in section.rows)
    ]
    return sorted(columns, key=lambda column: order.get(column.name, len(PRIMARY)))


def _ranking(section: Section, column: Definition) -> Ranking:
    notes: list[str] = []
    cells = _cells(section, column, notes)
    defenses = list(dict.fromkeys(row.defense for row in section.rows))
    attacks = _attacks(cells, column, notes)
    by_identity = len(attacks) > 1 or all(_has_identities(cells[cell], column) for cell in cells if cell[1] in attacks)
    utilities = _utilities(section)
    found: list[Standing] = []
    complete: list[Standing] = []
    for defense in defenses:
        rows = tuple(cells[defense, attack] for attack in attacks if (defense, attack) in cells)
        standing = Standing(
            defense=defense,
            rows=rows,
            utility=utilities.get(defense),
            worst=Worst(None, None, 0, "identity" if by_identity else "score", ""),
            missing=tuple(attack for attack in attacks if _value(cells.get((defense, attack)), column) is None),
            rank=None,
            rank_interval=None,
            group="",
        )
        reason = _why_not(standing, cells, column, by_identity)
        if reason:
            found.append(replace(standing, worst=replace(standing.worst, reason=reason)))
        else:
            complete.append(standing)
    if complete:
        estimate, unknown = (_by_identity if by_identity else _by_score)(complete, column, notes)
        found = [*_ranked(complete, column, estimate, unknown), *found]
    return Ranking(column, attacks, tuple(found), tuple(dict.fromkeys(notes)))


def _cells(section: Section, column: Definition, notes: list[str]) -> dict[tuple[str, str], Row]:
    """The row of each defense and attack; of several, the one with most seeds, then the newest."""
    rows = [row for row in section.rows if not row.scores[column.name].not_applicable]
    behind = {id(row): evaluator_of(row, column.name) for row in rows}
    kinds: dict[str, list[Row]] = {}
    versions: dict[str, int] = {}
    for row in rows:
        choice = behind[id(row)]
        if choice is not None:
            kinds.setdefault(choice[0], []).append(row)
            versions[choice[0]] = choice[1]
    best = max(kinds, key=lambda kind: (versions[kind], len(kinds[kind]), kind))
    if len(kinds) > 1:
        left = sum(len(rows) for kind, rows in kinds.items() if kind != best)
        notes.append(
            f"several evaluators or versions give this score: {left} rows of other than the newest and most used are "
            f"left out"
        )
    cells: dict[tuple[str, str], Row] = {}
    for row in rows:
        choice = behind[id(row)]
        if choice is not None and choice[0] != best:
            continue
        cell = (row.defense, row.attack)
        other = cells.get(cell)
        if other is not None:
            notes.append(f"several rows of {row.defense} under {row.attack}: the one with most seeds counts")
        if other is None or _weight(row, column) > _weight(other, column):
            cells[cell] = row
    return cells


def _weight(row: Row, column: Definition) -> tuple[int, str]:
    return row.scores[column.name].seeds, max(record.created for record in row.records)


def _value(row: Row | None, column: Definition) -> float | None:
    return None if row is None else row.scores[column.name].value


def _attacks(cells: Mapping[tuple[str, str], Row], column: Definition, notes: list[str]) -> tuple[str, ...]:
    """Attacks with a value against two defenses; all with a value if there is none."""
    against: dict[str, int] = {}
    for (_, attack), row in cells.items():
        if _value(row, column) is not None:
            against[attack] = against.get(attack, 0) + 1
    defenses = {defense for (defense, _), row in cells.items() if _value(row, column) is not None}
    shared = tuple(sorted(attack for attack, count in against.items() if count > 1))
    if len(defenses) < 2 or not shared:
        return tuple(sorted(against))
    notes += [
        f"{attack} has a value against one defense only and does not count"
        for attack in sorted(against)
        if attack not in shared
    ]
    return shared


def _utilities(section: Section) -> dict[str, Summary]:
    """By defense, the first utility score with a value, of the row with most seeds."""
    found: dict[str, Summary] = {}
    for column in section.columns:
        of_column: dict[str, Summary] = {}
        for row in section.rows if column.measures == "utility" else ():
            summary, other = row.scores[column.name], of_column.get(row.defense)
            if summary.value is not None and (other is None or summary.seeds > other.seeds):
                of_column[row.defense] = summary
        found = of_column | found
    return found


def _scores(row: Row, column: Definition) -> dict[int, RecordedScore]:
    """By seed, the scores with a value."""
    found = {seed: record.scores.get(column.name) for seed, record in latest(row.records, column.name).items()}
    return {seed: score for seed, score in found.items() if score is not None and score.value is not None}


def _has_identities(row: Row, column: Definition) -> bool:
    return all(score.per_class is not None for score in _scores(row, column).values())


def _why_not(standing: Standing, cells: Mapping[tuple[str, str], Row], column: Definition, by_identity: bool) -> str:
    """Why a defense has no worst case."""
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
    worst = rank_bootstrap.by_identity(_sample(standing, column))
    return "" if np.isfinite(worst).any() else "no identity has a value under every attack and seed"


def _sample(standing: Standing, column: Definition, identities: int = 0) -> Sample:
    """Costs by attack, seed and identity."""
    sign = 1.0 if column.better == "lower" else -1.0
    scores = [_scores(row, column) for row in standing.rows]
    width = max([identities, *(len(score.per_class or ()) for by_seed in scores for score in by_seed.values())])
    costs = []
    for by_seed in scores:
        values = np.full((len(by_seed), width), math.nan)
        for i, score in enumerate(by_seed.values()):
            found = np.array([math.nan if v is None else v for v in score.per_class or ()], dtype=np.float64)
            values[i, : len(found)] = sign * found
        costs.append(values)
    return Sample(standing.defense, tuple(costs), tuple(tuple(by_seed) for by_seed in scores))


def _by_identity(standings: Sequence[Standing], column: Definition, notes: list[str]) -> tuple[Estimate, None]:
    samples = [_sample(standing, column) for standing in standings]
    width = max(sample.costs[0].shape[1] for sample in samples)
    samples = [
        sample if sample.costs[0].shape[1] == width else _sample(standing, column, width)
        for sample, standing in zip(samples, standings, strict=True)
    ]
    estimate = rank_bootstrap.estimate(samples)
    fewest, most = int(estimate.identities.min()), int(estimate.identities.max())
    if most < FEW:
        notes.append(f"only {count(most, 'identity', 'identities')}: intervals and ranks lean on a normal distribution")
    if fewest < width:
        notes.append("some identities have no value under some attack and are left out of that defense's worst case")
    notes += _seed_notes([[len(seeds) for seeds in sample.seeds] for sample in samples])
    notes += _draw_notes(standings, column)
    return estimate, None


def _by_score(
    standings: Sequence[Standing], column: Definition, notes: list[str]
) -> tuple[Estimate, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    sign = 1.0 if column.better == "lower" else -1.0
    summaries = [standing.rows[0].scores[column.name] for standing in standings]
    cost = np.array([sign * (summary.value or 0.0) for summary in summaries])
    error = np.array([_error(summary) for summary in summaries])
    freedom = np.array([summary.seeds - 1.0 if summary.seeds > 1 else math.inf for summary in summaries])
    notes.append("no values by identity: scores are compared as if each defense had been measured on other data")
    notes += _seed_notes([[summary.seeds] for summary in summaries])
    return rank_bootstrap.from_intervals(cost, error, freedom), ~np.isfinite(error)


def _error(summary: Summary) -> float:
    """Standard error: over seeds, or from the score's own interval; infinite where neither is known."""
    assert summary.value is not None
    if summary.std:
        return summary.std / math.sqrt(summary.seeds)
    if summary.interval is None or summary.seeds > 1:
        return math.inf
    low, high = summary.interval
    return max(summary.value - low, high - summary.value) / _Z or math.inf


def _seed_notes(seeds: Sequence[Sequence[int]]) -> Iterator[str]:
    """What the numbers of seeds leave unsaid; `seeds` has those of each defense under each attack."""
    alone = sum(min(counts) < 2 for counts in seeds)
    if all(max(counts) < 2 for counts in seeds):
        yield ONE_SEED
    elif alone:
        yield (
            f"{alone} of {count(len(seeds), 'defense', 'defenses')} with one seed under some attack: nothing here "
            f"says how much another training would change there"
        )


def _draw_notes(standings: Sequence[Standing], column: Definition) -> Iterator[str]:
    """The worst of several noisy values is too bad on average; which attack is the noisiest."""
    if column.unit != "fraction" or len(standings[0].rows) < 2:
        return
    drawn = [
        (sum(score.n for score in scores.values()) / sum(len(score.per_class or ()) for score in scores.values()), row)
        for standing in standings
        for row in standing.rows
        if (scores := _scores(row, column))
    ]
    fewest, row = min(drawn, key=lambda item: item[0])
    if 0 < fewest < FEW_DRAWS:
        yield (
            f"{fewest:.3g} observations of an identity under {row.attack}: the worst of several attacks is "
            f"overestimated"
        )


def count(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def _ranked(
    standings: Sequence[Standing],
    column: Definition,
    estimate: Estimate,
    unknown: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None,
) -> list[Standing]:
    surely = rank_bootstrap.surely_lower(estimate, unknown=unknown)
    ranks = rank_bootstrap.rank_sets(estimate.cost, surely)
    worst = _worst(standings, column, estimate, by_identity=unknown is None)
    order = sorted(range(len(standings)), key=lambda i: (ranks[i][0], standings[i].defense))
    apart = (surely | surely.T)[np.ix_(order, order)]
    texts = letter_display.texts(letter_display.groups(apart))
    return [
        replace(standings[i], worst=worst[i], rank=ranks[i][0], rank_interval=ranks[i][1:], group=text)
        for i, text in zip(order, texts, strict=True)
    ]


def _worst(standings: Sequence[Standing], column: Definition, estimate: Estimate, *, by_identity: bool) -> list[Worst]:
    if not by_identity:
        summaries = [standing.rows[0].scores[column.name] for standing in standings]
        return [Worst(summary.value, summary.interval, summary.n, "score", "") for summary in summaries]
    lower = column.better == "lower"
    low, high = bounds(column.unit)
    intervals = rank_bootstrap.spread(estimate, (low, high) if lower else (-high, -low))
    values = estimate.cost if lower else -estimate.cost
    turned = [i if lower or i is None else (-i[1], -i[0]) for i in intervals]
    return [
        Worst(float(value), interval, int(n), "identity", "")
        for value, interval, n in zip(values, turned, estimate.identities, strict=True)
    ]
