"""Records side by side, aggregated over seeds.

Numbers are put together only where everything but the seed is the same: protocol, budget, data set, defense, attack,
their fields and versions, and the evaluator behind each score.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.config import BUDGETS, Definition, gives_no
from ..records.record import Choice, Interval, Record, RecordedScore

MEASURES = ("utility", "leakage", "quality")
_BOUNDS = {"fraction": (0.0, 1.0), "similarity": (-1.0, 1.0), "distance": (0.0, math.inf), "ratio": (0.0, math.inf)}
_ANYWHERE = (-math.inf, math.inf)
_encode = json.JSONEncoder(sort_keys=True).encode


@dataclass(frozen=True)
class Summary:
    """A score over the seeds of a row.

    Args:
        definition: what the score means.
        value: the mean over seeds, or `None`.
        seeds: how many seeds have a value.
        n: observations behind them all.
        std: sample standard deviation over seeds; `None` below two seeds.
        interval: 95 %: Student-t over seeds, or the score's own where there is one seed; `None` without variation.
        chance: what guessing gives, where all seeds agree on it.
        reason: why seeds have no value; empty if all have one.
        foreign: no seed has one because the attack never gives what the score reads.
    """

    definition: Definition
    value: float | None
    seeds: int
    n: int
    std: float | None
    interval: Interval | None
    chance: float | None
    reason: str
    foreign: bool = False


@dataclass(frozen=True)
class Row:
    """One defense under one attack, over seeds; equal in everything else."""

    defense: str
    attack: str
    #: What tells the evaluators from those of other rows; mostly empty.
    evaluators: str
    records: tuple[Record, ...]
    scores: dict[str, Summary]

    @property
    def seeds(self) -> list[int]:
        """The distinct seeds, sorted."""
        return sorted({record.cell.seed for record in self.records})


@dataclass(frozen=True)
class Section:
    """Rows that can be compared: one protocol, budget and data set configuration."""

    protocol: str
    budget: str
    dataset: str
    columns: tuple[Definition, ...]
    rows: tuple[Row, ...]
    #: Evaluators that did not run although the attack gives what they read, each with a reason.
    not_run: tuple[tuple[str, str], ...]


def bounds(unit: str) -> Interval:
    """The range that a score of a unit can have."""
    return _BOUNDS.get(unit, _ANYWHERE)


def latest(records: Sequence[Record], score: str) -> dict[int, Record]:
    """By seed, the record that counts for a score: the last that was made, of those that have it if any has."""
    if len(records) == 1:
        return {records[0].cell.seed: records[0]}
    found: dict[int, Record] = {}
    for record in sorted(records, key=lambda r: (score in r.scores, r.created, r.key)):
        found[record.cell.seed] = record
    return dict(sorted(found.items()))


def evaluator_of(row: Row, score: str) -> tuple[str, int] | None:
    """Identity and version of the evaluator behind a score of a row; `None` where no record has the score."""
    record = next((record for record in row.records if score in record.scores), None)
    if record is None:
        return None
    choice = record.evaluator(score)
    return _identity(choice), choice.version


def _identity(choice: Choice) -> str:
    """Equal for equal components."""
    return _encode([choice.name, choice.distribution, choice.version, choice.fields, choice.files])


class _Identities:
    """Identities of components, each object's made once; they must outlive this."""

    def __init__(self) -> None:
        self._found: dict[int, str] = {}

    def __call__(self, choice: Choice) -> str:
        found = self._found.get(id(choice))
        if found is None:
            found = self._found[id(choice)] = _identity(choice)
        return found


def _grouped(records: Iterable[Record], key: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def sections(records: Sequence[Record]) -> Iterator[Section]:
    """Aggregate by protocol, budget and data set configuration, in that order."""
    identity = _Identities()
    alike = _grouped(records, lambda r: (r.protocol, BUDGETS.index(r.cell.budget)))
    for (protocol, budget), together in sorted(alike.items(), key=lambda item: item[0]):
        datasets = _labels("dataset", together, identity)
        groups = _grouped(together, lambda r: identity(r.cell.dataset))
        for dataset, members in sorted(groups.items()):
            columns = _columns(members)
            rows = tuple(_rows(members, columns, identity))
            not_run = sorted({item for record in members for item in _could_have_run(record)})
            yield Section(protocol, BUDGETS[budget], datasets[dataset], columns, rows, tuple(not_run))


def _could_have_run(record: Record) -> Iterator[tuple[str, str]]:
    """Evaluators that did not run, with the reasons; without those that read what such an attack never gives."""
    return ((name, reason) for name, reason in record.not_run.items() if not _is_foreign(record, reason))


def _is_foreign(record: Record, reason: str) -> bool:
    return reason.startswith(gives_no(record.cell.attack.name))


def _columns(records: Iterable[Record]) -> tuple[Definition, ...]:
    """Definitions by measure and name; of two versions of a score, the newer evaluator's."""
    found: dict[str, tuple[int, Definition]] = {}
    for record in records:
        for name, score in record.scores.items():
            version = record.evaluator(name).version
            if name not in found or version > found[name][0]:
                found[name] = (version, score.definition.model_copy(update={"name": name}))
    definitions = [definition for _, definition in found.values()]
    return tuple(sorted(definitions, key=lambda d: (MEASURES.index(d.measures), d.name)))


def _rows(records: Sequence[Record], columns: Sequence[Definition], identity: _Identities) -> list[Row]:
    defenses, attacks = _labels("defense", records, identity), _labels("attack", records, identity)
    owners: dict[str, set[str]] = {column.name: set() for column in columns}
    for record in records:
        for name, score in record.scores.items():
            owners[name].add(score.evaluator)
    disputed = _disputed(records, identity)
    names = _distinct([c for record in records for c in record.cell.evaluators], {}, identity) if disputed else {}

    def key(record: Record) -> tuple[str, ...]:
        behind = [identity(record.evaluator(score)) if score in record.scores else "" for score in disputed]
        return (identity(record.cell.attack), identity(record.cell.defense), *behind)

    rows = []
    for (attack, defense, *behind), members in _grouped(records, key).items():
        scores = {column.name: _summary(column, members, owners[column.name]) for column in columns}
        members = sorted(members, key=lambda r: (r.cell.seed, r.created, r.key))
        evaluators = ", ".join(dict.fromkeys(names[found] for found in behind if found))
        rows.append(Row(defenses[defense], attacks[attack], evaluators, tuple(members), scores))
    return sorted(rows, key=lambda row: (row.attack, row.defense != "none", row.defense, row.evaluators))


def _disputed(records: Iterable[Record], identity: _Identities) -> list[str]:
    """Scores that come from different evaluators, or versions or fields of one."""
    behind: dict[str, set[str]] = {}
    for record in records:
        evaluators = {choice.name: identity(choice) for choice in reversed(record.cell.evaluators)}
        for name, score in record.scores.items():
            behind.setdefault(name, set()).add(evaluators[score.evaluator])
    return sorted(name for name, evaluators in behind.items() if len(evaluators) > 1)


def _labels(kind: str, records: Iterable[Record], identity: _Identities) -> dict[str, str]:
    """A short name of each configuration of one kind of component, by identity."""
    choices: list[Choice] = []
    changed: dict[str, dict[str, Any]] = {}
    for record in records:
        choice = getattr(record.cell, kind)
        choices.append(choice)
        changed.setdefault(identity(choice), {}).update(flat(record.changed.get(kind, {})))
    return _distinct(choices, changed, identity)


def _distinct(
    choices: Iterable[Choice], changed: Mapping[str, Mapping[str, Any]], identity: _Identities
) -> dict[str, str]:
    """The name, followed by what the user changed and by whatever tells it from others of that name."""
    by_name: dict[str, dict[str, Choice]] = {}
    for choice in choices:
        by_name.setdefault(choice.name, {})[identity(choice)] = choice
    labels = {}
    for name, group in by_name.items():
        fields = {key: flat(choice.fields) for key, choice in group.items()}
        names = sorted({field for values in fields.values() for field in values})
        differing = [field for field in names if len({repr(values.get(field)) for values in fields.values()}) > 1]
        several = [len({getattr(choice, of) for choice in group.values()}) > 1 for of in ("distribution", "version")]
        for key, choice in group.items():
            words = [name]
            words += [f"({choice.distribution})"] if several[0] else []
            words += [f"v{choice.version}"] if several[1] else []
            shown = dict.fromkeys([*sorted(changed.get(key, {})), *differing])
            words += [f"{field}={_short(fields[key][field])}" for field in shown if field in fields[key]]
            labels[key] = " ".join(words)
    return labels


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields with dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _summary(column: Definition, records: Sequence[Record], owners: set[str]) -> Summary:
    """One score over seeds; of two records of a seed, the one made last."""
    counted = latest(records, column.name)
    scores = {seed: record.scores.get(column.name) for seed, record in counted.items()}
    found = [score for score in scores.values() if score is not None and score.value is not None]
    missing = {seed: _reason(column.name, counted[seed], owners) for seed in scores if not _has_value(scores[seed])}
    values = [score.value for score in found if score.value is not None]
    chances = {score.chance for score in found or scores.values() if score is not None}
    std, interval = _spread(column, found, values)
    return Summary(
        definition=found[0].definition if found else column,
        value=math.fsum(values) / len(values) if values else None,
        seeds=len(values),
        n=sum(score.n for score in found),
        std=std,
        interval=interval,
        chance=chances.pop() if len(chances) == 1 else None,
        reason=_together(missing, len(scores)),
        foreign=len(missing) == len(scores) and all(_is_foreign(counted[seed], why) for seed, why in missing.items()),
    )


def _has_value(score: RecordedScore | None) -> bool:
    return score is not None and score.value is not None


def _spread(
    column: Definition, found: Sequence[RecordedScore], values: Sequence[float]
) -> tuple[float | None, Interval | None]:
    if len(values) < 2:
        return None, found[0].interval if found else None
    from ..core.statistics import sample_std, student

    return sample_std(values), student(values, bounds(column.unit))


def _reason(name: str, record: Record, owners: set[str]) -> str:
    """Why a record has no value of a score that the evaluators `owners` give."""
    score = record.scores.get(name)
    if score is not None and score.reason is not None:
        return score.reason
    return next((reason for owner, reason in sorted(record.not_run.items()) if owner in owners), "was not scored")


def _together(missing: dict[int, str], seeds: int) -> str:
    """The reasons of all seeds as one text."""
    whose: dict[str, list[int]] = {}
    for seed, reason in missing.items():
        whose.setdefault(reason, []).append(seed)
    if seeds == len(missing) and len(whose) == 1:
        return next(iter(whose))
    return "; ".join(f"seed {', '.join(map(str, which))}: {reason}" for reason, which in whose.items())
