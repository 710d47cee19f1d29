"""Success above the placebo's: what an attack owes to its target.

The placebo is a target trained on permuted labels. What an attack scores on it is due to the priors of attack and
judge, not to what a target knows about labels. `docs/judging.md` says how to read the difference.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..core.config import Definition
from ..records.bounds import bounds
from ..records.record import Interval, Record, RecordedScore
from .aggregate import Row, Section, Summary, counted, evaluator_of

#: Units in which a difference has a meaning of its own.
UNITS = ("fraction", "similarity")
#: The column of excess in tables is of the first of these scores that a section's placebo has.
LEADING = ("verified_acc", "attack_acc")
#: Decimals of a difference; what lies below is rounding, not variation between labels.
_DIGITS = 12
#: Name of the column of excess in tables.
COLUMN = "excess"


@dataclass(frozen=True)
class Excess:
    """A leakage score minus the placebo's under the same attack.

    Args:
        value: the difference; `None` with a reason.
        interval: 95 % interval; `None` with a reason if there is a value.
        n: number of labels whose difference has a value.
        covers: what varies in the interval.
        reason: why value or interval are missing; empty otherwise.
    """

    value: float | None
    interval: Interval | None = None
    n: int = 0
    covers: str = ""
    reason: str = ""


class Controls:
    """The placebos of a section.

    Args:
        section: comparable rows; those of the placebo are its controls.
    """

    def __init__(self, section: Section) -> None:
        self._rows: dict[str, list[Row]] = {}
        for row in section.trusted.rows:
            if row.is_control:
                self._rows.setdefault(row.attack, []).append(row)
        self.leading = self._leading(section.columns)

    def _leading(self, columns: Sequence[Definition]) -> Definition | None:
        """The score whose excess tables show; `None` without a placebo that has one."""
        placebos = [row for rows in self._rows.values() for row in rows]
        known = {column.name: column for column in columns if has_excess(column)}
        names = [*(name for name in LEADING if name in known), *known]
        return next(
            (known[name] for name in names if any(row.scores[name].value is not None for row in placebos)), None
        )

    def of(self, row: Row, score: str) -> Excess | None:
        """Compare a score of a row with the placebo's under the same attack.

        Returns:
            `None` if there is nothing to compare: the section has no placebo, the row is a placebo itself, or its
            attack receives latents of single images, which a placebo does not control.
        """
        if not self._rows or row.is_control or row.scores[score].not_applicable or is_on_features(row.records):
            return None
        own = scores_by_seed(row, score)
        if not own:
            return Excess(None, reason=row.scores[score].reason)
        placebo = self.placebo(row, score)
        if placebo is None:
            return Excess(None, reason=f"{row.attack} was not run against a placebo, or not scored alike")
        return excess(own, scores_by_seed(placebo, score))

    def of_record(self, row: Row, record: Record) -> dict[str, Excess]:
        """Compare the scores of one record of a row with the placebo's, by name, where that has a meaning."""
        alone = replace(row, records=(record,))
        names = [name for name, score in record.scores.items() if has_excess(score.definition)]
        found = {name: self.of(alone, name) for name in names if self._rows}
        return {name: each for name, each in found.items() if each is not None}

    def placebo(self, row: Row, score: str) -> Row | None:
        """Return the placebo under the row's attack and evaluator: of its recipe, or else with most seeds."""
        evaluator, recipe = evaluator_of(row, score), row.records[0].cell.defense.fields.get("recipe")
        found = [other for other in self._rows.get(row.attack, ()) if evaluator_of(other, score) == evaluator]
        found = [other for other in found if other.scores[score].value is not None]

        def preference(other: Row) -> tuple[bool, int]:
            return other.records[0].cell.defense.fields.get("recipe") == recipe, len(other.seeds)

        return max(found, key=preference, default=None)


def has_excess(definition: Definition) -> bool:
    """Return whether the excess of a score is computed: leakage in a unit whose differences mean something."""
    return definition.measures == "leakage" and definition.unit in UNITS


def scores_by_seed(row: Row, score: str) -> dict[int, RecordedScore]:
    """Scores of a row with a value, by seed."""
    found = {seed: record.scores.get(score) for seed, record in counted(row.records, score).items()}
    return {seed: each for seed, each in found.items() if each is not None and each.value is not None}


def is_on_features(records: Sequence[Record]) -> bool:
    """Return whether the attack of the records receives latents of single images, which a placebo does not control."""
    return any(record.access == "features" for record in records)


def excess(own: Mapping[int, RecordedScore], placebo: Mapping[int, RecordedScore]) -> Excess:
    """Subtract the placebo's score from another.

    Args:
        own: scores with a value, by seed, at least one.
        placebo: the placebo's, at least one.
    """
    values, others = ([_value(score) for score in scores.values()] for scores in (own, placebo))
    value = math.fsum(values) / len(values) - math.fsum(others) / len(others)
    labels, other_labels = (_by_label(tuple(scores.values())) for scores in (own, placebo))
    if labels is None or other_labels is None or len(labels) != len(other_labels):
        return Excess(value, reason="no values by label, so the difference has no interval")
    pairs = zip(labels, other_labels, strict=True)
    differences = [round(mine - theirs, _DIGITS) for mine, theirs in pairs if mine is not None and theirs is not None]
    low, high = bounds(next(iter(own.values())).definition.unit)
    interval = paired_interval(value, differences, values, others, (low - high, high - low))
    if interval is None:
        few = "one label" if len(differences) == 1 else "the same difference for every label"
        return Excess(value, n=len(differences), reason=f"{few}, so the difference has no interval")
    return Excess(value, interval, len(differences), _covers(len(differences), len(values), len(others)))


def paired_interval(
    value: float, differences: Sequence[float], own: Sequence[float], placebo: Sequence[float], limits: Interval
) -> Interval | None:
    """Compute the 95 % interval of a score's excess over the placebo's.

    `value +- h`, `h^2 = t(K-1)^2 s_d^2 / K + t(S-1)^2 s^2 / S + t(T-1)^2 s_0^2 / T`, where the first term is Student's
    over labels, which both targets share, and the others, of the trainings of the target and of the placebo, are 0 for
    a single training.

    Args:
        value: the excess.
        differences: `K`, the excess of each label, means over trainings.
        own: `S`, the scores of the trainings of the target.
        placebo: `T`, those of the placebo.
        limits: possible range of the excess.

    Returns:
        The bounds; `None` for fewer than two labels, and if the excess is equal for all labels.

    Note:
        With several trainings, the noise of a label in one training counts in two terms, so the interval is longer than
        needed. A single training is taken as it is: the interval of one training of the placebo does not cover what
        another permutation would change in all labels alike.
    """
    from ..core.statistics import student

    over_labels = student(differences)
    if over_labels is None:
        return None
    half = (over_labels[1] - over_labels[0]) / 2
    for scores in (own, placebo):
        interval = student(scores)
        half = math.hypot(half, 0.0 if interval is None else (interval[1] - interval[0]) / 2)
    return max(limits[0], value - half), min(limits[1], value + half)


def _covers(labels: int, own: int, placebo: int) -> str:
    trainings = f"{own} trainings of the target" if own > 1 else "this training of the target"
    others = f"{placebo} trainings of the placebo" if placebo > 1 else "this training of the placebo"
    return f"{labels} labels; {trainings}; {others}"


def _value(score: RecordedScore) -> float:
    assert score.value is not None
    return score.value


def _by_label(scores: Sequence[RecordedScore]) -> list[float | None] | None:
    """Means over trainings by label, `None` for a label that misses one; `None` if a score has no values by label."""
    rows = [score.per_class or () for score in scores]
    if not rows[0] or any(len(row) != len(rows[0]) for row in rows):
        return None
    found = ([value for value in of_label if value is not None] for of_label in zip(*rows, strict=True))
    return [math.fsum(values) / len(values) if len(values) == len(rows) else None for values in found]


def with_excess(section: Section) -> Section:
    """Return a section for tables, with a column of the excess of its leading score where it has a placebo.

    The column is not a score: rankings and statistics take the section without it.
    """
    controls = Controls(section)
    leading = controls.leading
    if leading is None:
        return section
    column = Definition(
        name=COLUMN,
        title=f"{leading.title} over Placebo",
        measures="leakage",
        better=leading.better,
        unit=leading.unit,
        formula=f"{leading.name} minus the placebo's under the same attack",
        range="[-1, 1]",
    )
    position = section.columns.index(leading) + 1
    rows = [
        replace(row, scores=row.scores | {COLUMN: _summary(column, controls.of(row, leading.name), row, leading)})
        for row in section.rows
    ]
    return replace(
        section, columns=(*section.columns[:position], column, *section.columns[position:]), rows=tuple(rows)
    )


def _summary(column: Definition, found: Excess | None, row: Row, leading: Definition) -> Summary:
    seeds = row.scores[leading.name].seeds
    if found is None:
        return Summary(column, None, 0, 0, None, None, None, "", not_applicable=True)
    reason = found.reason if found.value is None else ""
    return Summary(column, found.value, seeds, found.n, None, found.interval, None, reason)
