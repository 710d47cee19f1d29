"""The leaderboard of a section in words: who ranks where by the primary leakage score, and what casts doubt on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ...analysis.aggregate import Section, Summary
from ...analysis.flags import cross_cell_flags as between_cells
from ...analysis.ranking import Ranking, Standing, count, primary
from ...core.config import Definition
from ...records.record import Interval
from ..formatting import Shown, format_interval, heading, number, plain, shown

LEGEND = (
    "Rank: 1 is best for the defender; in brackets the ranks that cannot be ruled out (95 %, for all defenses of a "
    "leaderboard together). Defenses that share a letter cannot be told apart. Worst case: of each identity the worst "
    "attack, averaged over identities. Only defenses with all attacks are ranked."
)


@dataclass(frozen=True)
class RankedDefense:
    """One defense of a leaderboard.

    Args:
        rank: such as `2 (1-3)`; `-` for a defense that is not ranked.
        group: letters.
        defense: its name.
        utility: with interval and n, where it has one.
        worst: the worst case with interval and n.
        attacks: how many were run, such as `3` or `2 of 3`.
        seeds: how many, such as `1` or `1 to 3`.
        values: utility and worst case as numbers.
        intervals: theirs.
    """

    rank: str
    group: str
    defense: str
    utility: Shown
    worst: Shown
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
        heads: of the columns, in the order of `Line`.
        lines: the ranked ones first.
        notes: what a reader must know.
    """

    title: str
    utility: Definition | None
    score: Definition
    heads: tuple[str, ...]
    lines: tuple[RankedDefense, ...]
    notes: tuple[str, ...]


def board(section: Section) -> LeaderboardTable | None:
    """The leaderboard by the primary score; `None` where no leakage score has a value."""
    ranking = primary(section)
    if ranking is None:
        return None
    utility = next((s.utility.definition for s in ranking.standings if s.utility is not None), None)
    attacks = ", ".join(plain(attack, 60) for attack in ranking.attacks)
    return LeaderboardTable(
        title=f"Leaderboard: {plain(ranking.score.title, 40)}, worst case over {attacks}",
        utility=utility,
        score=ranking.score,
        heads=(
            *("Rank", "Group", "Defense", "Utility" if utility is None else heading(utility)),
            *(f"Worst {heading(ranking.score)}", "Attacks", "Seeds"),
        ),
        lines=tuple(_line(ranking, standing) for standing in ranking.standings),
        notes=tuple(plain(note) for note in ranking.notes) + tuple(_flags(section)),
    )


def _line(ranking: Ranking, standing: Standing) -> RankedDefense:
    run, wanted = len(ranking.attacks) - len(standing.missing), len(ranking.attacks)
    return RankedDefense(
        rank=rank(standing),
        group=plain(standing.group, 24),
        defense=plain(standing.defense, 60),
        utility=_utility(standing.utility),
        worst=worst(ranking.score, standing),
        attacks=str(run) if run == wanted else f"{run} of {wanted}",
        seeds=_seeds(standing),
        values=(None if standing.utility is None else standing.utility.value, standing.worst.value),
        intervals=(None if standing.utility is None else standing.utility.interval, standing.worst.interval),
    )


def rank(standing: Standing) -> str:
    """Rank with its interval, such as `2 (1-3)`; `-` for none."""
    if standing.rank is None or standing.rank_interval is None:
        return "-"
    low, high = standing.rank_interval
    return f"{standing.rank} ({low}-{high})" if low < high else f"{standing.rank} ({low})"


def worst(score: Definition, standing: Standing) -> Shown:
    """The worst case with interval and what is behind it."""
    found = standing.worst
    counted = f"n {found.n:,}" if found.basis == "score" else count(found.n, "identity", "identities")
    return Shown(
        value=number(found.value, score.unit),
        interval=format_interval(found.interval, score.unit),
        basis=counted if found.value is not None else "",
        spread="",
        reason=plain(found.reason),
    )


def details(cell: Shown) -> list[str]:
    """What stands below a value."""
    return [cell.interval or "no interval", *cell.basis.split(", ")] if cell.basis else []


def _utility(summary: Summary | None) -> Shown:
    return Shown("n/a", "", "", "", "") if summary is None else shown(summary, summary.seeds)


def _seeds(standing: Standing) -> str:
    counts = sorted({len(row.seeds) for row in standing.rows})
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "-"


def _flags(section: Section) -> Iterator[str]:
    """Each flag with the defenses and attacks that have it."""
    found: dict[str, dict[str, dict[str, None]]] = {}
    across = between_cells(section)
    for row in section.rows:
        for record in row.records:
            for flag in (*record.flags, *across.get(record.key, ())):
                found.setdefault(flag.name, {}).setdefault(row.defense, {})[row.attack] = None
    for name, whose in sorted(found.items()):
        cells = (
            f"{plain(defense, 60)} ({', '.join(plain(a, 60) for a in attacks)})" for defense, attacks in whose.items()
        )
        yield plain(f"flag {plain(name, 60)}: {'; '.join(cells)}")
