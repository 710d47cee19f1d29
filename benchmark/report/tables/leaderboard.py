"""The leaderboard of a section as text: ranks by the primary leakage score, and reasons for doubt."""

from collections.abc import Iterator
from dataclasses import dataclass

from ...analysis.aggregate import Section
from ...analysis.cross_cell_flags import cross_cell_flags
from ...analysis.ranking import Ranking, Standing, WorstCase, primary
from ...core.config import Definition
from ...core.text import count
from ...records.record import Interval
from ..formatting import FormattedScore, column_heading, format_interval, format_number, format_score, sanitize

LEGEND = (
    "Rank: 1 is best for the defender; in parentheses the ranks that cannot be ruled out (95 %, jointly for all "
    "defenses of a leaderboard). Defenses that share a letter do not differ significantly. Worst case: the worst "
    "attack on each identity, averaged over identities. Only defenses with results for all attacks are ranked."
)


@dataclass(frozen=True)
class RankedDefense:
    """One defense of a leaderboard.

    Args:
        rank: such as `2 (1-3)`; `-` for a defense that is not ranked.
        group: letters; defenses that share one do not differ significantly.
        defense: its name.
        utility: with interval and n, if it has one.
        worst: the worst case with interval and n.
        attacks: how many were run, such as `3` or `2 of 3`.
        seeds: how many, such as `1` or `1 to 3`.
        values: utility and worst case as numbers.
        intervals: intervals of the two.
    """

    rank: str
    group: str
    defense: str
    utility: FormattedScore
    worst: FormattedScore
    attacks: str
    seeds: str
    values: tuple[float | None, float | None]
    intervals: tuple[Interval | None, Interval | None]


@dataclass(frozen=True)
class LeaderboardTable:
    """A leaderboard.

    Args:
        title: score and attacks.
        utility: definition of the utility score, if there is one.
        score: definition of the leakage score.
        headings: of the columns, in the order of the first seven fields of `RankedDefense`.
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
    utility = next((s.utility.definition for s in ranking.standings if s.utility is not None), None)
    attacks = ", ".join(sanitize(attack, 60) for attack in ranking.attacks)
    return LeaderboardTable(
        title=f"Leaderboard: {sanitize(ranking.score.title, 40)}, worst case over {attacks}",
        utility=utility,
        score=ranking.score,
        headings=(
            *("Rank", "Group", "Defense", "Utility" if utility is None else column_heading(utility)),
            *(f"Worst {column_heading(ranking.score)}", "Attacks", "Seeds"),
        ),
        rows=tuple(_ranked_defense(ranking, standing) for standing in ranking.standings),
        notes=tuple(sanitize(note) for note in ranking.notes) + tuple(_flag_notes(section)),
    )


def _ranked_defense(ranking: Ranking, standing: Standing) -> RankedDefense:
    total, utility, worst = len(ranking.attacks), standing.utility, standing.worst
    run = total - len(standing.missing)
    counts = sorted({len(row.seeds) for row in standing.rows})
    return RankedDefense(
        rank=_format_rank(standing),
        group=sanitize(standing.group, 24),
        defense=sanitize(standing.defense, 60),
        utility=FormattedScore("n/a", "", "", "", "") if utility is None else format_score(utility, utility.seeds),
        worst=format_worst_case(ranking.score, worst),
        attacks=str(run) if run == total else f"{run} of {total}",
        seeds=" to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "-",
        values=(None if utility is None else utility.value, worst.value),
        intervals=(None if utility is None else utility.interval, worst.interval),
    )


def _format_rank(standing: Standing) -> str:
    if standing.rank is None or standing.rank_interval is None:
        return "-"
    low, high = standing.rank_interval
    return f"{standing.rank} ({low}-{high})" if low < high else f"{standing.rank} ({low})"


def format_worst_case(score: Definition, worst: WorstCase) -> FormattedScore:
    """The worst case of a defense as text."""
    basis = f"n {worst.n:,}" if worst.basis == "score" else count(worst.n, "identity", "identities")
    return FormattedScore(
        value=format_number(worst.value, score.unit),
        interval=format_interval(worst.interval, score.unit),
        basis=basis if worst.value is not None else "",
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
