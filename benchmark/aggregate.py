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

from .contracts import BUDGETS, Definition, gives_no
from .record import Choice, Interval, Record, RecordedScore

MEASURES = ("utility", "leakage", "quality")
_BOUNDS = {"fraction": (0.0, 1.0), "similarity": (-1.0, 1.0), "distance": (0.0, math.inf), "ratio": (0.0, math.inf)}
_ANYWHERE = (-math.inf, math.inf)


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


def latest(records: Iterable[Record], score: str) -> dict[int, Record]:
    """By seed, the record that counts for a score: the last that was made, of those that have it if any has."""
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
    return json.dumps(choice.model_dump(mode="json"), sort_keys=True)


def _grouped(records: Iterable[Record], key: Callable[[Record], Any]) -> dict[Any, list[Record]]:
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return groups


def sections(records: Sequence[Record]) -> Iterator[Section]:
    """Aggregate by protocol, budget and data set configuration, in that order."""
    groups = _grouped(records, lambda r: (r.protocol, BUDGETS.index(r.cell.budget), _identity(r.cell.dataset)))
    for (protocol, budget, _), members in sorted(groups.items(), key=lambda item: item[0]):
        alike = [r for r in records if (r.protocol, r.cell.budget) == (protocol, BUDGETS[budget])]
        dataset = _labels("dataset", alike)[_identity(members[0].cell.dataset)]
        columns = _columns(members)
        not_run = sorted({item for record in members for item in _could_have_run(record)})
        yield Section(protocol, BUDGETS[budget], dataset, columns, tuple(_rows(members, columns)), tuple(not_run))


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


def _rows(records: Sequence[Record], columns: Sequence[Definition]) -> list[Row]:
    defenses, attacks = _labels("defense", records), _labels("attack", records)
    owners = {
        column.name: {record.scores[column.name].evaluator for record in records if column.name in record.scores}
        for column in columns
    }
    disputed = _disputed(records)
    names = _distinct([choice for record in records for choice in record.cell.evaluators], {})

    def key(record: Record) -> tuple[str, ...]:
        behind = [_identity(record.evaluator(score)) if score in record.scores else "" for score in disputed]
        return (_identity(record.cell.attack), _identity(record.cell.defense), *behind)

    rows = []
    for (attack, defense, *behind), members in _grouped(records, key).items():
        scores = {column.name: _summary(column, members, owners[column.name]) for column in columns}
        members = sorted(members, key=lambda r: (r.cell.seed, r.created, r.key))
        evaluators = ", ".join(dict.fromkeys(names[identity] for identity in behind if identity))
        rows.append(Row(defenses[defense], attacks[attack], evaluators, tuple(members), scores))
    return sorted(rows, key=lambda row: (row.attack, row.defense != "none", row.defense, row.evaluators))


def _disputed(records: Iterable[Record]) -> list[str]:
    """Scores that come from different evaluators, or versions or fields of one."""
    behind: dict[str, set[str]] = {}
    for record in records:
        for name in record.scores:
            behind.setdefault(name, set()).add(_identity(record.evaluator(name)))
    return sorted(name for name, evaluators in behind.items() if len(evaluators) > 1)


def _labels(kind: str, records: Iterable[Record]) -> dict[str, str]:
    """A short name of each configuration of one kind of component, by identity."""
    choices: list[Choice] = []
    changed: dict[str, dict[str, Any]] = {}
    for record in records:
        choice = getattr(record.cell, kind)
        choices.append(choice)
        changed.setdefault(_identity(choice), {}).update(flat(record.changed.get(kind, {})))
    return _distinct(choices, changed)


def _distinct(choices: Iterable[Choice], changed: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The name, followed by what the user changed and by whatever tells it from others of that name."""
    by_name: dict[str, dict[str, Choice]] = {}
    for choice in choices:
        by_name.setdefault(choice.name, {})[_identity(choice)] = choice
    labels = {}
    for name, group in by_name.items():
        fields = {identity: flat(choice.fields) for identity, choice in group.items()}
        names = sorted({field for values in fields.values() for field in values})
        differing = [field for field in names if len({repr(values.get(field)) for values in fields.values()}) > 1]
        for identity, choice in group.items():
            words = [name]
            if len({other.distribution for other in group.values()}) > 1:
                words.append(f"({choice.distribution})")
            if len({other.version for other in group.values()}) > 1:
                words.append(f"v{choice.version}")
            shown = dict.fromkeys([*sorted(changed.get(identity, {})), *differing])
            words += [f"{field}={_short(fields[identity][field])}" for field in shown if field in fields[identity]]
            labels[identity] = " ".join(words)
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
    from .statistics import sample_std, student

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
