"""Eligibility of defenses for a rank: three trainings, a target that has learned, utility near the undefended one's.

A target that has learned nothing leaks nothing, so leakage is compared at matched utility.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.config import BUILT_IN, Definition, is_placebo
from ..core.ranking_rules import RankingRules
from ..core.statistics import LEVEL
from ..core.text import count
from ..records.record import Interval, Record
from .aggregate import Row, Section, Summary
from .cell_flags import target_collapsed
from .ranking_rows import scores_by_seed
from .suites import is_of_suite

#: Trainings of the target without which a defense has no rank.
MIN_SEEDS = 3
#: Name of the built-in undefended target.
UNDEFENDED = "none"
#: Differences below this are rounding errors.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Match:
    """Utility of a defense beside that of the undefended target.

    Args:
        reference: label of the undefended target that it is compared with; empty if there is none.
        distance: how much worse the defense is, in units of the score; negative if it is better; `None` without both.
        interval: 95 % interval of the distance over trainings (Welch's); `None` for the reference itself and below two
            trainings.
        margin: how much worse a ranked defense may be.
    """

    reference: str
    distance: float | None
    interval: Interval | None
    margin: float

    @property
    def within(self) -> bool:
        """True if the distance is at most the margin."""
        return self.distance is not None and self.distance <= self.margin + _ROUNDING

    @property
    def is_uncertain(self) -> bool:
        """True if the interval of the distance contains the margin, so that the mean alone decides."""
        return self.interval is not None and self.interval[0] < self.margin < self.interval[1]


def utility_score(section: Section, rules: RankingRules) -> Definition | None:
    """Return the score by which utility is compared: the protocol's, or else the section's first one with a value."""
    found = [
        column
        for column in section.columns
        if column.measures == "utility" and any(row.scores[column.name].value is not None for row in section.rows)
    ]
    return next((column for column in found if column.name == rules.utility), found[0] if found else None)


def utilities(section: Section, score: Definition | None, rules: RankingRules) -> dict[str, Summary]:
    """Return the utility of each defense, from the row with the most seeds, under a suite's attack where there is one.

    More attacks must not move the mean over trainings that decides about a rank.
    """
    names = {name for attacks in rules.attacks.values() for name in attacks}
    found: dict[str, tuple[tuple[bool, int], Summary]] = {}
    for row in section.rows if score else ():
        assert score is not None
        summary = row.scores[score.name]
        weight = any(is_of_suite(row, name) for name in names), summary.seeds
        if summary.value is not None and (row.defense not in found or weight > found[row.defense][0]):
            found[row.defense] = weight, summary
    return {defense: summary for defense, (_, summary) in found.items()}


class Eligibility:
    """Tells for each defense of a section why it has no rank.

    Args:
        section: the section.
        rules: rules of its protocol.
    """

    def __init__(self, section: Section, rules: RankingRules) -> None:
        self._rules = rules
        self.utility = utility_score(section, rules)
        self.utilities = utilities(section, self.utility, rules)
        self._records: dict[str, list[Record]] = {}
        for row in section.rows:
            self._records.setdefault(row.defense, []).extend(row.records)
        self._undefended = [label for label in self._records if self._is_undefended(label)]
        plain = [label for label in self._undefended if not any(r.changed.get("defense") for r in self._records[label])]
        self._plain = max(plain, key=self._seeds_and_version, default="")

    def _is_undefended(self, label: str) -> bool:
        choice = self._records[label][0].cell.defense
        return (choice.name, choice.distribution) == (UNDEFENDED, BUILT_IN)

    def _seeds_and_version(self, label: str) -> tuple[int, int]:
        return self._seeds(label), self._records[label][0].cell.defense.version

    def _seeds(self, label: str) -> int:
        return self.utilities[label].seeds if label in self.utilities else 0

    def is_control(self, label: str) -> bool:
        """Return whether a defense is the built-in placebo."""
        choice = self._records[label][0].cell.defense
        return is_placebo(choice.name, choice.distribution)

    def match(self, label: str) -> Match:
        """Compare the utility of a defense with the undefended target under the same recipe, or else the plain one."""
        reference = self._reference(label)
        own, other = self.utilities.get(label), self.utilities.get(reference)
        if own is None or other is None or own.value is None or other.value is None:
            return Match(reference, None, None, self._rules.margin)
        sign = 1.0 if own.definition.better == "higher" else -1.0
        distance = sign * (other.value - own.value)
        interval = None if label == reference else _welch(distance, own, other)
        return Match(reference, distance, interval, self._rules.margin)

    def _reference(self, label: str) -> str:
        if label in self._undefended:
            return self._plain or label
        recipe = self._records[label][0].cell.defense.fields.get("recipe")
        same = [
            each
            for each in self._undefended
            if recipe is not None and self._records[each][0].cell.defense.fields.get("recipe") == recipe
        ]
        return self._plain if self._plain in same else max(same, key=self._seeds_and_version, default=self._plain)

    def reasons(self, label: str, rows: Mapping[str, Row], column: Definition) -> Iterator[str]:
        """Yield why a defense with values under all attacks of the suite is not ranked; nothing if it is.

        Args:
            label: the defense.
            rows: its rows, by attack of the suite.
            column: the leakage score.
        """
        if self.is_control(label):
            yield "a control, which is never ranked"
            return
        yield from _few_seeds({attack: set(scores_by_seed(row, column)) for attack, row in rows.items()})
        records = [record for row in rows.values() for record in row.records]
        collapsed = sorted({record.cell.seed for record in records if _is_collapsed(record)})
        if collapsed:
            yield f"the target of seed {', '.join(map(str, collapsed))} is not above chance"
        yield from self._mismatch(label)

    def _mismatch(self, label: str) -> Iterator[str]:
        match = self.match(label)
        if not match.reference:
            yield "there is no undefended target to compare utility with"
        elif match.distance is None:
            yield f"{label if label not in self.utilities else match.reference} has no utility score"
        elif not match.within:
            yield f"its utility is {points(match.distance)} below {match.reference}, more than {points(match.margin)}"
        elif match.reference not in (label, self._plain) and not self.match(match.reference).within:
            lost = self.match(match.reference).distance
            yield f"its recipe alone costs {'utility' if lost is None else points(lost)} without a defense"
        if match.reference and label != match.reference and 0 < self._seeds(match.reference) < MIN_SEEDS:
            seeds = count(self._seeds(match.reference), "seed")
            yield f"{match.reference}, with which utility is compared, has {seeds} and needs {MIN_SEEDS}"


def points(value: float) -> str:
    """Format a difference of fractions or correlations in points, hundredths.

    Example:
        >>> points(0.222), points(0.05)
        ('22.2 points', '5 points')
    """
    return f"{round(100 * value, 1):g} points"


def _few_seeds(seeds: Mapping[str, set[int]]) -> Iterator[str]:
    """Yield a reason if fewer seeds than a rank needs were run under every attack; `seeds` has those of each."""
    shared = set.intersection(*seeds.values())
    if len(shared) >= MIN_SEEDS:
        return
    few = [attack for attack, found in seeds.items() if len(found) < MIN_SEEDS]
    where = "" if len(few) == len(seeds) else f" under {', '.join(few) or 'all attacks'}"
    yield f"{count(len(shared), 'seed')}{where}; a rank needs {MIN_SEEDS}"


def _is_collapsed(record: Record) -> bool:
    """Return whether the target of a record is not above chance, by its flag or by its scores."""
    if any(flag.name == "target_collapsed" for flag in record.flags):
        return True
    utility = (name for name in record.scores if name in ("accuracy", "mcc"))
    scores: dict[str, Any] = {name: record.scores[name].model_dump() for name in utility}
    return target_collapsed(scores) is not None


def _welch(distance: float, first: Summary, second: Summary) -> Interval | None:
    """Return the 95 % interval of a difference of two means over trainings."""
    parts = [(summary.std**2 / summary.seeds, summary.seeds - 1) for summary in (first, second) if summary.std]
    if not all(summary.seeds > 1 for summary in (first, second)) or not parts:
        return None
    from scipy.special import stdtrit

    variance = math.fsum(part for part, _ in parts)
    freedom = variance**2 / math.fsum(part**2 / n for part, n in parts)
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(variance)
    return distance - half, distance + half
