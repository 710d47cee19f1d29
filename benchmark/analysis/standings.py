"""Standings of defenses in a ranking: worst case, utility, best known attack, and its rank or why it has none."""

from dataclasses import dataclass

from ..core.config import Definition
from ..core.ranking_rules import RankingRules
from ..records.record import Interval, Record
from .aggregate import Row, Summary
from .eligibility import Match
from .ranking_rows import BestKnown


@dataclass(frozen=True)
class WorstCase:
    """Worst case of one defense over the suite's attacks, for one leakage score.

    Args:
        value: mean over identities of the worst case over attacks, or the score under the only attack; or `None`.
        interval: 95 % interval; `None` without variation.
        n: number of identities; of observations if `basis` is `score`.
        basis: `identity` or `score`.
        reason: why there is no value; empty otherwise.
        covers: what varies in the interval, such as `3 trainings x 60 identities`; empty without a value.
    """

    value: float | None
    interval: Interval | None
    n: int
    basis: str
    reason: str
    covers: str = ""


@dataclass(frozen=True)
class Standing:
    """One defense in a ranking.

    Args:
        defense: label of the defense, as in `Row.defense`.
        rows: rows under the attacks of the suite, in the order of the attacks.
        further: rows under other attacks or other settings of them.
        utility: the utility score that decides about ranks.
        match: its distance from the undefended target's.
        worst: worst case over the suite's attacks.
        best: the strongest attack on it that was recorded.
        missing: attacks of the suite without a value.
        is_control: whether it is the placebo.
        reason: why it has no rank; empty if it has one.
        rank: 1 is best for the defender; equal values share a rank.
        rank_interval: lowest and highest rank of the rank set, with 95 % simultaneous confidence for all defenses.
        group: group letters; defenses that share a letter are not distinguishable. Numbers above 26 groups.
    """

    defense: str
    rows: tuple[Row, ...]
    further: tuple[Row, ...]
    utility: Summary | None
    match: Match
    worst: WorstCase
    best: BestKnown | None
    missing: tuple[str, ...]
    is_control: bool
    reason: str = ""
    rank: int | None = None
    rank_interval: tuple[int, int] | None = None
    group: str = ""

    @property
    def records(self) -> tuple[Record, ...]:
        """The records of all its rows."""
        return tuple(record for row in (*self.rows, *self.further) for record in row.records)

    @property
    def seeds(self) -> int:
        """Smallest number of seeds under an attack of the suite."""
        return min((len(row.seeds) for row in self.rows), default=0)


@dataclass(frozen=True)
class Ranking:
    """Defenses by one leakage score: ranked ones, the best for the defender first, then the others, then the control.

    Args:
        score: the leakage score.
        rules: rules of the protocol.
        attacks: names of the suite's attacks whose evidence the score reads.
        further: labels of the other attacks with a value.
        utility: the score by which utility is compared.
        standings: the defenses.
        notes: remarks on the statistics.
    """

    score: Definition
    rules: RankingRules
    attacks: tuple[str, ...]
    further: tuple[str, ...]
    utility: Definition | None
    standings: tuple[Standing, ...]
    notes: tuple[str, ...]
