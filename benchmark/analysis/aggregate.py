"""Aggregation of records over seeds.

Records are aggregated only if everything but the seed is equal: protocol, budget, data set, defense, attack, their
fields and versions, and the evaluator behind each score.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..core.config import BUDGETS, Definition, is_placebo
from ..core.text import count
from ..records.bounds import bounds
from ..records.record import Interval, Record, RecordedScore
from .row_labels import IdentityCache, identity_of, labels, unique_labels

MEASURES = ("utility", "leakage", "quality")


@dataclass(frozen=True)
class Summary:
    """One score of a row, aggregated over seeds.

    Args:
        definition: definition of the score.
        value: mean over seeds, or `None`.
        seeds: number of seeds with a value.
        n: number of observations of all seeds.
        std: sample standard deviation over seeds; `None` below two seeds.
        interval: 95 % interval: Student-t over seeds, or the score's own for one seed; `None` without variation.
        chance: value of a random guess; `None` if the seeds differ in it.
        reason: why seeds have no value; empty if all have one.
        not_applicable: whether no seed has a value because the attack never returns what the score needs, or because it
            has no meaning here by construction.
    """

    definition: Definition
    value: float | None
    seeds: int
    n: int
    std: float | None
    interval: Interval | None
    chance: float | None
    reason: str
    not_applicable: bool = False

    @property
    def covers(self) -> str:
        """Sources of variation in the interval: the trainings, or of one training the n observations."""
        return trainings(self.seeds) if self.value is not None else ""


@dataclass(frozen=True)
class Row:
    """One defense under one attack: records that are equal in everything but the seed."""

    defense: str
    attack: str
    #: Labels of the evaluators where they differ between rows; usually empty.
    evaluators: str
    records: tuple[Record, ...]
    scores: dict[str, Summary]
    #: Whether all its records are of submissions that nobody verified.
    is_unverified: bool = False

    @property
    def seeds(self) -> list[int]:
        """The distinct seeds, sorted."""
        return sorted({record.cell.seed for record in self.records})

    @property
    def is_control(self) -> bool:
        """True for the built-in placebo, which controls the other rows and is never ranked."""
        defense = self.records[0].cell.defense
        return is_placebo(defense.name, defense.distribution)


#: Factor of images in [0, 1] in BiDO's dependence on X where they are in [-1, 1], as in the VMI experiments.
VMI_SCALE = 2


@dataclass(frozen=True)
class Section:
    """Comparable rows: one protocol, budget and data set configuration."""

    protocol: str
    budget: str
    dataset: str
    columns: tuple[Definition, ...]
    rows: tuple[Row, ...]
    #: Applicable evaluators that did not run, each with a reason.
    not_run: tuple[tuple[str, str], ...]
    #: What the settings of the rows change in the meaning of published numbers.
    notes: tuple[str, ...] = ()

    @cached_property
    def trusted(self) -> "Section":
        """The section without rows of submissions that nobody verified, if it has others.

        Rankings and controls are computed from it, so that such a submission moves nobody else's numbers.
        """
        rows = tuple(row for row in self.rows if not row.is_unverified)
        if not rows or len(rows) == len(self.rows):
            return self
        names = {name for row in rows for record in row.records for name in record.scores}
        return replace(self, rows=rows, columns=tuple(column for column in self.columns if column.name in names))


def trainings(number: int) -> str:
    """Return a number of trainings of the target as text.

    Example:
        >>> trainings(1), trainings(3)
        ('1 training', '3 trainings')
    """
    return count(number, "training")


def counted(records: Sequence[Record], score: str) -> dict[int, Record]:
    """The record of each seed that counts for a score: the first that has the score, else the first.

    Times that records state decide nothing, since anyone can write any.
    """
    found: dict[int, Record] = {}
    for record in sorted(records, key=lambda record: score not in record.scores):
        found.setdefault(record.cell.seed, record)
    return dict(sorted(found.items()))


def evaluator_of(row: Row, score: str) -> tuple[str, int] | None:
    """Identity and version of the evaluator behind a score of a row; `None` if no record has the score."""
    record = next((record for record in row.records if score in record.scores), None)
    if record is None:
        return None
    choice = record.evaluator(score)
    return identity_of(choice), choice.version


def _group_by(records: Iterable[Record], key: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def sections(records: Sequence[Record], unverified: Collection[str] = ()) -> Iterator[Section]:
    """Aggregate records by protocol, budget and data set configuration, in that order.

    Args:
        records: of several for one seed, the first counts.
        unverified: keys of the records of submissions that nobody verified.
    """
    identity = IdentityCache()
    by_budget = _group_by(records, lambda r: (r.protocol, BUDGETS.index(r.cell.budget)))
    for (protocol, budget), group in sorted(by_budget.items(), key=lambda item: item[0]):
        datasets = labels("dataset", group, identity)
        by_dataset = _group_by(group, lambda r: identity(r.cell.dataset))
        for dataset, members in sorted(by_dataset.items()):
            columns = _columns(members)
            rows = tuple(_rows(members, columns, identity, unverified))
            not_run = sorted({item for record in members for item in _applicable_not_run(record)})
            yield Section(protocol, BUDGETS[budget], datasets[dataset], columns, rows, tuple(not_run), _notes(members))


def _applicable_not_run(record: Record) -> Iterator[tuple[str, str]]:
    """Evaluators that are applicable to the attack and did not run, with the reasons."""
    return ((name, why.reason) for name, why in record.not_run.items() if why.code != "not_applicable")


def _notes(records: Sequence[Record]) -> tuple[str, ...]:
    """The range of X in BiDO, where it is that of the VMI experiments."""
    scaled = sorted({r.cell.defense.name for r in records if r.cell.defense.fields.get("x_scale") == VMI_SCALE})
    note = (
        "in the dependence on X, images are in [-1, 1], as in the released code of the VMI experiments, not in [0, 1]"
    )
    return (f"{' and '.join(scaled)}: {note} (x_scale = 2)",) if scaled else ()


def _columns(records: Iterable[Record]) -> tuple[Definition, ...]:
    """Definitions by measure and name; the newest evaluator defines a score that several versions give."""
    found: dict[str, tuple[int, Definition]] = {}
    for record in records:
        for name, score in record.scores.items():
            version = record.evaluator(name).version
            if name not in found or version > found[name][0]:
                found[name] = (version, score.definition.model_copy(update={"name": name}))
    definitions = [definition for _, definition in found.values()]
    return tuple(sorted(definitions, key=lambda d: (MEASURES.index(d.measures), d.name)))


def _rows(
    records: Sequence[Record], columns: Sequence[Definition], identity: IdentityCache, unverified: Collection[str]
) -> list[Row]:
    defenses, attacks = labels("defense", records, identity), labels("attack", records, identity)
    owners: dict[str, set[str]] = {column.name: set() for column in columns}
    for record in records:
        for name, score in record.scores.items():
            owners[name].add(score.evaluator)
    ambiguous = _ambiguous_scores(records, identity)
    names = unique_labels([c for record in records for c in record.cell.evaluators], {}, identity) if ambiguous else {}

    def key(record: Record) -> tuple[str, ...]:
        evaluators = (identity(record.evaluator(score)) if score in record.scores else "" for score in ambiguous)
        return (identity(record.cell.attack), identity(record.cell.defense), *evaluators)

    rows = []
    for (attack, defense, *identities), members in _group_by(records, key).items():
        members = sorted(members, key=lambda r: (r.cell.seed, -r.key_format))
        scores = {column.name: _summary(column, members, owners[column.name]) for column in columns}
        evaluators = ", ".join(dict.fromkeys(names[found] for found in identities if found))
        is_unverified = all(record.key in unverified for record in members)
        rows.append(Row(defenses[defense], attacks[attack], evaluators, tuple(members), scores, is_unverified))
    return sorted(
        rows, key=lambda row: (row.attack, row.is_control, row.defense != "none", row.defense, row.evaluators)
    )


def _ambiguous_scores(records: Iterable[Record], identity: IdentityCache) -> list[str]:
    """Scores that several evaluators give, or several versions or configurations of one."""
    sources: dict[str, set[str]] = {}
    for record in records:
        evaluators = {choice.name: identity(choice) for choice in reversed(record.cell.evaluators)}
        for name, score in record.scores.items():
            sources.setdefault(name, set()).add(evaluators[score.evaluator])
    return sorted(name for name, identities in sources.items() if len(identities) > 1)


def _summary(column: Definition, records: Sequence[Record], owners: set[str]) -> Summary:
    """Aggregate one score over seeds."""
    by_seed = counted(records, column.name)
    scores = {seed: record.scores.get(column.name) for seed, record in by_seed.items()}
    found = [score for score in scores.values() if score is not None and score.value is not None]
    missing = {
        seed: _reason(column.name, by_seed[seed], owners)
        for seed, score in scores.items()
        if score is None or score.value is None
    }
    values = [score.value for score in found if score.value is not None]
    chances = {score.chance for score in found or scores.values() if score is not None}
    std, interval = _std_and_interval(column, found, values)
    return Summary(
        definition=found[0].definition if found else column,
        value=math.fsum(values) / len(values) if values else None,
        seeds=len(values),
        n=sum(score.n for score in found),
        std=std,
        interval=interval,
        chance=chances.pop() if len(chances) == 1 else None,
        reason=_join_reasons(missing, len(scores)),
        not_applicable=len(missing) == len(scores)
        and all(_not_applicable(column.name, by_seed[seed], owners) for seed in missing),
    )


def _std_and_interval(
    column: Definition, found: Sequence[RecordedScore], values: Sequence[float]
) -> tuple[float | None, Interval | None]:
    if len(values) < 2:
        return None, found[0].interval if found else None
    from ..core.statistics import sample_std, student

    return sample_std(values), student(values, bounds(column.unit))


def _reason(name: str, record: Record, owners: set[str]) -> str:
    """Explain why a record has no value of a score that one of the evaluators `owners` gives."""
    score = record.scores.get(name)
    if score is not None and score.reason is not None:
        return score.reason
    return next((record.not_run[owner].reason for owner in sorted(owners & record.not_run.keys())), "was not scored")


def _not_applicable(name: str, record: Record, owners: set[str]) -> bool:
    """Return whether a score has no meaning here, or the attack never returns what its evaluators `owners` need."""
    if name in record.scores:
        return record.scores[name].not_applicable
    reasons = [record.not_run[owner] for owner in owners & record.not_run.keys()]
    return bool(reasons) and all(why.code == "not_applicable" for why in reasons)


def _join_reasons(missing: dict[int, str], seeds: int) -> str:
    """Combine the reasons of all seeds into one text."""
    by_reason: dict[str, list[int]] = {}
    for seed, reason in missing.items():
        by_reason.setdefault(reason, []).append(seed)
    if seeds == len(missing) and len(by_reason) == 1:
        return next(iter(by_reason))
    return "; ".join(f"seed {', '.join(map(str, found))}: {reason}" for reason, found in by_reason.items())
