"""The leaderboard of a section as text: ranks by the primary leakage score, and reasons for doubt."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...analysis.aggregate import Section
from ...analysis.cross_cell_flags import cross_cell_flags
from ...analysis.eligibility import Match, points
from ...analysis.ranking import primary
from ...analysis.standings import Ranking, Standing, WorstCase
from ...core.config import Definition
from ...records.record import Interval
from ..formatting import FormattedScore, column_heading, format_interval, format_number, format_score, sanitize

LEGEND = (
    "Rank: 1 is best for the defender; in parentheses the ranks that cannot be ruled out (95 %, jointly for all "
    "defenses of a leaderboard). Defenses that share a letter do not differ significantly. Worst case: the worst "
    "attack of the suite on each identity, averaged over identities. Ranked: defenses under all attacks of the suite, "
    "with three seeds, targets above chance, and utility near the undefended target's. Best known: the strongest "
    "attack in one record, of any kind, settings and seed. 3 trainings x 60 identities: what the interval covers."
)


@dataclass(frozen=True)
class RankedDefense:
    """One defense of a leaderboard.

    Args:
        rank: such as `2 (1-3)`; `-` for a defense that is not ranked, `control` for the placebo.
        group: letters; defenses that share one do not differ significantly.
        defense: its name.
        utility: with interval, what that covers, and the distance from the undefended target.
        worst: the worst case with interval and what that covers.
        best: value and attack of the best known attack.
        attacks: how many of the suite were run, such as `3` or `2 of 3`.
        seeds: how many, such as `1` or `1 to 3`.
        reason: why it is not ranked; empty if it is.
        values: utility and worst case as numbers.
        intervals: intervals of the two.
    """

    rank: str
    group: str
    defense: str
    utility: FormattedScore
    worst: FormattedScore
    best: str
    attacks: str
    seeds: str
    reason: str
    values: tuple[float | None, float | None]
    intervals: tuple[Interval | None, Interval | None]


@dataclass(frozen=True)
class LeaderboardTable:
    """A leaderboard.

    Args:
        title: score and attacks.
        utility: definition of the utility score, if there is one.
        score: definition of the leakage score.
        headings: of the columns, in the order of the first eight fields of `RankedDefense`.
        rows: ranked defenses first.
        notes: remarks on the ranking and the flags of its cells.
    """

    title: str
    utility: Definition | None
    score: Definition
    headings: tuple[str, ...]
    rows: tuple[RankedDefense, ...]
    notes: tuple[str, ...]


def leaderboard_table(section: Section) -> LeaderboardTable | None:
    """The leaderboard by the primary score; `None` if no leakage score has a value."""
    ranking = primary(section)
    if ranking is None:
        return None
    utility = ranking.utility
    attacks = ", ".join(sanitize(attack, 60) for attack in ranking.attacks) or "no attack"
    title = f"Leaderboard: {sanitize(ranking.score.title, 40)}"
    return LeaderboardTable(
        title=f"{title}, worst case over {attacks} (suite {ranking.rules.suite})",
        utility=utility,
        score=ranking.score,
        headings=(
            *("Rank", "Group", "Defense", "Utility" if utility is None else column_heading(utility)),
            *(f"Worst {column_heading(ranking.score)}", "Best known", "Attacks", "Seeds"),
        ),
        rows=tuple(_ranked_defense(ranking, standing) for standing in ranking.standings),
        notes=(*_ranking_notes(ranking), *_flag_notes(section)),
    )


def _ranked_defense(ranking: Ranking, standing: Standing) -> RankedDefense:
    total, utility, worst, best = len(ranking.attacks), standing.utility, standing.worst, standing.best
    run = total - len(standing.missing)
    counts = sorted({len(row.seeds) for row in standing.rows})
    return RankedDefense(
        rank=_format_rank(standing),
        group=sanitize(standing.group, 24),
        defense=sanitize(standing.defense, 60),
        utility=format_utility(standing),
        worst=format_worst_case(ranking.score, worst),
        best="n/a" if best is None else f"{format_number(best.value, ranking.score.unit)} {sanitize(best.attack, 60)}",
        attacks=str(run) if run == total else f"{run} of {total}",
        seeds=" to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "-",
        reason=sanitize(standing.reason),
        values=(None if utility is None else utility.value, worst.value),
        intervals=(None if utility is None else utility.interval, worst.interval),
    )


def format_utility(standing: Standing) -> FormattedScore:
    """The utility of a defense as text, with its distance from the undefended target."""
    if standing.utility is None:
        return FormattedScore("n/a", "", "", "", "")
    score = format_score(standing.utility, standing.utility.seeds)
    distance = format_distance(standing.match) if standing.match.reference != standing.defense else ""
    return replace(score, basis=", ".join(filter(None, (standing.utility.covers, distance))))


def format_distance(match: Match) -> str:
    """Distance of a utility from that of the undefended target, in words; empty without one."""
    if match.distance is None:
        return ""
    direction = "below" if match.distance >= 0 else "above"
    return f"{points(abs(match.distance))} {direction} {sanitize(match.reference, 60)}"


def uncertain_match(standing: Standing) -> str:
    """A remark on a utility that is neither surely within the margin nor surely beyond it; else empty."""
    match = standing.match
    if match.interval is None or not match.is_uncertain or standing.is_control:
        return ""
    low, high = (points(end).removesuffix(" points") for end in match.interval)
    return f"its interval [{low}, {high}] spans the margin of {points(match.margin)}; the mean decides"


def _ranking_notes(ranking: Ranking) -> Iterator[str]:
    if ranking.further:
        names = ", ".join(sanitize(attack, 60) for attack in ranking.further)
        yield sanitize(f"attacks outside the suite, which change no rank: {names}")
    for standing in ranking.standings:
        if uncertain_match(standing):
            distance = f"{sanitize(standing.defense, 60)} is {format_distance(standing.match)}"
            yield sanitize(f"{distance}: {uncertain_match(standing)}")
    for note in ranking.notes:
        yield sanitize(note)


def _format_rank(standing: Standing) -> str:
    if standing.rank is None or standing.rank_interval is None:
        return "control" if standing.is_control else "-"
    low, high = standing.rank_interval
    return f"{standing.rank} ({low}-{high})" if low < high else f"{standing.rank} ({low})"


def format_worst_case(score: Definition, worst: WorstCase) -> FormattedScore:
    """The worst case of a defense as text."""
    return FormattedScore(
        value=format_number(worst.value, score.unit),
        interval=format_interval(worst.interval, score.unit),
        basis=worst.covers,
        spread="",
        reason=sanitize(worst.reason),
    )


def _flag_notes(section: Section) -> Iterator[str]:
    """Each flag with the defenses and attacks that have it."""
    flagged: dict[str, dict[str, dict[str, None]]] = {}
    cross_cell = cross_cell_flags(section)
    for row in section.rows:
        for record in row.records:
            for flag in (*record.flags, *cross_cell.get(record.key, ())):
                flagged.setdefault(flag.name, {}).setdefault(row.defense, {})[row.attack] = None
    for name, defenses in sorted(flagged.items()):
        cells = (
            f"{sanitize(defense, 60)} ({', '.join(sanitize(attack, 60) for attack in attacks)})"
            for defense, attacks in defenses.items()
        )
        yield sanitize(f"flag {sanitize(name, 60)}: {'; '.join(cells)}")
