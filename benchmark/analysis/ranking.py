"""Leaderboards: defenses of a section in the order of their worst case over the protocol's attack suite.

`rank_bootstrap` has the statistics of the order, `eligibility` tells which defenses have a rank, `suites` has the
attacks; `docs/ranking.md` has the definitions.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..core.config import Definition
from ..core.ranking_rules import RankingRules
from ..core.text import count
from ..records.bounds import bounds
from . import letter_display, rank_bootstrap
from .aggregate import Row, Section, trainings
from .eligibility import Eligibility
from .rank_bootstrap import Booleans, Estimate
from .ranking_rows import Cells, best_known, comparable_rows, further_cells, scores_by_seed, suite_cells
from .standings import Ranking, Standing, WorstCase
from .suites import rules_of, suite_attacks
from .worst_case import Sample, bracket, draws_of

#: Primary scores: the first that a section has leads; the other scores follow in their order.
PRIMARY = ("verified_acc", "attack_acc", "ssim", "face_similarity", "feature_similarity")
#: With fewer identities, a ranking has a note.
MIN_IDENTITIES = 20
#: With fewer draws of each identity, a ranking over several attacks has a note.
MIN_DRAWS = 50
ONE_SEED = "one seed: variation between trainings is unknown"


def rankings(section: Section) -> tuple[Ranking, ...]:
    """Rank the defenses by each leakage score that has a value, the primary score first.

    Rows of submissions that nobody verified are left out, unless there are no others.
    """
    section = section.trusted
    rules = rules_of(section)
    eligibility = Eligibility(section, rules)
    return tuple(_ranking(section, column, rules, eligibility) for column in _leakage_columns(section))


def primary(section: Section) -> Ranking | None:
    """Return the first of `rankings`; `None` if no leakage score has a value."""
    section = section.trusted
    columns = _leakage_columns(section)
    rules = rules_of(section)
    return _ranking(section, columns[0], rules, Eligibility(section, rules)) if columns else None


def _leakage_columns(section: Section) -> list[Definition]:
    order = {name: i for i, name in enumerate(PRIMARY)}
    columns = [
        column
        for column in section.columns
        if column.measures == "leakage" and any(row.scores[column.name].value is not None for row in section.rows)
    ]
    return sorted(columns, key=lambda column: order.get(column.name, len(PRIMARY)))


def _ranking(section: Section, column: Definition, rules: RankingRules, eligibility: Eligibility) -> Ranking:
    notes: list[str] = []
    rows = comparable_rows(section, column, notes)
    attacks = suite_attacks(rules, column, rows)
    suite = suite_cells(rows, attacks, column, notes)
    others = further_cells(rows, suite, column)
    known = best_known(rows, column)
    by_identity = len(attacks) > 1 or all(_has_identities(row, column) for row in suite.values())
    eligible: list[Standing] = []
    measured: list[Standing] = []
    unmeasured: list[Standing] = []
    for defense in dict.fromkeys(row.defense for row in section.rows):
        standing = Standing(
            defense=defense,
            rows=tuple(suite[defense, attack] for attack in attacks if (defense, attack) in suite),
            further=tuple(row for (of, _), row in others.items() if of == defense),
            utility=eligibility.utilities.get(defense),
            match=eligibility.match(defense),
            worst=WorstCase(None, None, 0, "identity" if by_identity else "score", ""),
            best=known.get(defense),
            missing=tuple(attack for attack in attacks if not _has_value(suite.get((defense, attack)), column)),
            is_control=eligibility.is_control(defense),
        )
        why = _reason_without_worst_case(standing, attacks, suite, others, column, by_identity)
        if why:
            unmeasured.append(replace(standing, reason=why, worst=replace(standing.worst, reason=why)))
            continue
        named = dict(zip(attacks, standing.rows, strict=True))
        standing = replace(standing, reason="; ".join(eligibility.reasons(defense, named, column)))
        (measured if standing.reason else eligible).append(standing)
    found = _estimated(eligible, column, by_identity, notes)
    listed = _estimated(measured, column, by_identity, notes if not eligible else [], ranked=False)
    standings = (*found, *listed, *sorted(unmeasured, key=lambda standing: standing.defense))
    return Ranking(
        score=column,
        rules=rules,
        attacks=attacks,
        further=tuple(sorted({attack for _, attack in others})),
        utility=eligibility.utility,
        standings=tuple(sorted(standings, key=lambda standing: standing.is_control)),
        notes=tuple(dict.fromkeys(notes)),
    )


def _estimated(
    standings: Sequence[Standing], column: Definition, by_identity: bool, notes: list[str], *, ranked: bool = True
) -> list[Standing]:
    """Add the worst cases, and ranks if they are wanted; the best for the defender is first."""
    if not standings:
        return []
    estimate, unknown = (_estimate_by_identity if by_identity else _estimate_by_score)(standings, column, notes)
    if ranked:
        return _rank(standings, column, estimate, unknown)
    worst = _worst(standings, column, estimate, by_identity=by_identity)
    order = sorted(range(len(standings)), key=lambda i: (estimate.cost[i], standings[i].defense))
    return [replace(standings[i], worst=worst[i]) for i in order]


def _has_value(row: Row | None, column: Definition) -> bool:
    return row is not None and row.scores[column.name].value is not None


def _has_identities(row: Row, column: Definition) -> bool:
    return all(score.per_class is not None for score in scores_by_seed(row, column).values())


def _reason_without_worst_case(
    standing: Standing, attacks: Sequence[str], suite: Cells, others: Cells, column: Definition, by_identity: bool
) -> str:
    """Explain why a defense has no worst case; empty if it has one."""
    if not attacks:
        return "no attack of the suite gives what this score reads"
    reasons = []
    for attack in standing.missing:
        row = suite.get((standing.defense, attack))
        if row is not None:
            reasons.append(f"{attack}: {row.scores[column.name].reason}")
        elif any(other.records[0].cell.attack.name == attack for other in standing.further):
            reasons.append(f"{attack} was run in another version or with other settings only")
        else:
            reasons.append(f"{attack} was not run")
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
    error = np.array([summary.std / math.sqrt(summary.seeds) if summary.std else math.inf for summary in summaries])
    dof = np.array([max(summary.seeds - 1.0, 1.0) for summary in summaries])
    notes.append("no values by identity: scores are compared as if each defense had been measured on different data")
    notes += _seed_notes([[summary.seeds] for summary in summaries])
    return rank_bootstrap.estimate_from_errors(cost, error, dof), ~np.isfinite(error)


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
        return [WorstCase(each.value, each.interval, each.n, "score", "", each.covers) for each in summaries]
    lower = column.better == "lower"
    low, high = bounds(column.unit)
    intervals = rank_bootstrap.intervals(estimate, (low, high) if lower else (-high, -low))
    values = estimate.cost if lower else -estimate.cost
    if not lower:
        intervals = [None if interval is None else (-interval[1], -interval[0]) for interval in intervals]
    return [
        WorstCase(float(value), interval, int(n), "identity", "", _covers(standing, column, int(n)))
        for standing, value, interval, n in zip(standings, values, intervals, estimate.identities, strict=True)
    ]


def _covers(standing: Standing, column: Definition, identities: int) -> str:
    """Tell over what the interval of a worst case generalises; draws of each identity if their number is known."""
    sample = _sample(standing, column)
    draws = int(sample.draws.min())
    parts = [trainings(len(sample.seeds)), count(identities, "identity", "identities")]
    return " x ".join(parts + ([count(draws, "draw")] if draws else []))
