"""What to run: selections of components, resolved into cells; matrices; canonical JSON and keys.

A component's fields are resolved in layers, later ones winning: the published defaults of its class, the preset (the
one named, or the one of the data set or its family), the budget's values (then the preset `NAME@BUDGET` of the data set
or its family), and what the user sets.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from .. import registry
from ..contracts import (
    BUDGETS,
    Attack,
    Budget,
    Component,
    Configuration,
    Dataset,
    Defense,
    Evaluator,
    StageKind,
    gives_no,
)
from ..errors import BrokenComponentError, InvalidConfigurationError, UnknownComponentError
from ..registry import Kind

#: Raised when the way keys are made changes; it is part of every key.
KEY_FORMAT = 1
SCOPES = ("dataset", "defense", "attack", "evaluator")


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; equal values give equal text.

    Example:
        >>> canonical({"b": 1, "a": [0.5, None]})
        '{"a":[0.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


@dataclass(frozen=True)
class Selection:
    """A component by name, with what the user sets.

    Args:
        name: registered name.
        preset: named settings, or `None` for those of the data set.
        fields: values by field; nested fields as nested mappings.
        where: how the user wrote it, for messages.
    """

    name: str
    preset: str | None = None
    fields: Mapping[str, Any] | None = None
    where: str = ""

    @classmethod
    def parse(cls, text: str) -> Selection:
        """From `name` or `name:preset`."""
        name, _, preset = text.partition(":")
        return cls(name.strip(), preset.strip() or None)


@dataclass(frozen=True)
class Choice:
    """A configured component with the name it was found under."""

    kind: Kind
    name: str
    distribution: str
    component: Any

    def identity(self, stage: StageKind | None = None) -> dict[str, Any]:
        """What of it decides the result of `stage` (of any stage by default)."""
        files = self.component.files(stage)
        return {
            "name": self.name,
            "distribution": self.distribution,
            "version": type(self.component).version,
            "fields": self.component.config(stage),
            **({"files": dict(files)} if files else {}),
        }


@dataclass(frozen=True)
class Cell:
    """Data set x defense x attack x seed, under a budget."""

    dataset: Choice
    defense: Choice
    attack: Choice
    evaluators: tuple[Choice, ...]
    seed: int
    budget: Budget
    #: Evaluators that do not apply, with the reason.
    not_run: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """Short name for progress and messages."""
        return f"{self.dataset.name} {self.defense.name} {self.attack.name} seed {self.seed}"

    def identity(self) -> dict[str, Any]:
        """Everything that names the cell."""
        return {
            "dataset": self.dataset.identity(),
            "defense": self.defense.identity(),
            "attack": self.attack.identity(),
            "evaluators": [choice.identity() for choice in self.evaluators],
            "seed": self.seed,
            "budget": self.budget,
        }


@dataclass(frozen=True)
class Matrix:
    """Every data set x defense x attack x seed.

    Args:
        settings: `scope.field` to value, where the scope is a kind (`attack`) or a component's name (`kedmi`).
        evaluators: `None` means all that apply.
    """

    datasets: tuple[Selection, ...]
    defenses: tuple[Selection, ...]
    attacks: tuple[Selection, ...]
    evaluators: tuple[Selection, ...] | None = None
    seeds: tuple[int, ...] = (0,)
    budget: Budget = "quick"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def cells(self) -> list[Cell]:
        """Resolve into cells, in the order given.

        Raises:
            PrivbenchError: a name, field or value is wrong.
        """
        settings = self.settings
        _check_scopes(settings, self)
        _check_numbers(self)
        found = []
        for data in self.datasets:
            dataset = resolve("dataset", data, self.budget, settings)
            defenses = [resolve("defense", name, self.budget, settings, dataset) for name in self.defenses]
            attacks = [resolve("attack", name, self.budget, settings, dataset) for name in self.attacks]
            scored = [(attack, *_evaluators(self, dataset, attack, settings)) for attack in attacks]
            found += [
                Cell(dataset, defense, attack, evaluators, seed, self.budget, not_run)
                for defense, (attack, evaluators, not_run) in itertools.product(defenses, scored)
                for seed in self.seeds
            ]
        return found


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """From `scope.field=value`; the value is JSON, or a string if it is not.

    Example:
        >>> parse_settings(["attack.iterations=500", "defense.estimator=biased"])
        {'attack.iterations': 500, 'defense.estimator': 'biased'}

    Raises:
        InvalidConfigurationError: a text has another form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or "." not in path.strip():
            raise InvalidConfigurationError(
                f"expected --set to be SCOPE.FIELD=VALUE such as attack.iterations=500, got {text!r}"
            )
        try:
            found[path.strip()] = json.loads(value, parse_constant=lambda constant: constant)
        except (json.JSONDecodeError, RecursionError):
            found[path.strip()] = value
    return found


def _check_scopes(settings: Mapping[str, Any], matrix: Matrix) -> None:
    selections = [*matrix.datasets, *matrix.defenses, *matrix.attacks, *(matrix.evaluators or ())]
    known = {*SCOPES, *(selection.name for selection in selections)}
    if matrix.evaluators is None:
        known |= set(registry.names("evaluator"))
    for path in settings:
        if path.partition(".")[0] not in known:
            raise UnknownComponentError("scope of --set", path.partition(".")[0], known)


def _check_numbers(matrix: Matrix) -> None:
    if matrix.budget not in BUDGETS:
        raise InvalidConfigurationError(f"expected budget to be one of {', '.join(BUDGETS)}, got {matrix.budget!r}")
    for seed in matrix.seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise InvalidConfigurationError(f"expected seed to be an integer from 0 to 2**63 - 1, got {seed!r}")
    if not matrix.seeds:
        raise InvalidConfigurationError("expected seeds to name at least one seed, got none")


def resolve(
    kind: Kind,
    selection: Selection,
    budget: Budget,
    settings: Mapping[str, Any],
    dataset: Choice | None = None,
) -> Choice:
    """Find a component and give its fields their values.

    Raises:
        UnknownComponentError: no such component, preset or field.
        InvalidConfigurationError: a value is out of range or of the wrong type.
    """
    cls = registry.load(kind, selection.name)
    values = defaults(cls)
    _merge(values, _preset(cls, selection, dataset))
    _merge(values, budget_values(cls, budget))
    _merge(values, _of_dataset(cls, dataset, f"@{budget}"))
    where = selection.where or kind
    changes: dict[str, Any] = {}
    _merge(changes, dict(selection.fields or {}))
    for scope in (kind, selection.name):
        for path, value in settings.items():
            first, _, rest = path.partition(".")
            if first == scope:
                _merge(changes, _nest(rest.split("."), value))
    _merge(values, changes)
    entry = registry.find(kind, selection.name)
    return Choice(kind, selection.name, entry.distribution, build(cls, values, where, selection.name))


def build(cls: type[Configuration], values: Mapping[str, Any], where: str, name: str) -> Any:
    """Validate `values` into `cls`, with errors that name the field as the user wrote it."""
    try:
        return cls.model_validate(values)
    except ValidationError as cause:
        problem = cause.errors(include_url=False)[0]
        path = ".".join([where, *map(str, problem["loc"])])
        if problem["type"] == "extra_forbidden":
            owner: Any = cls
            for part in problem["loc"][:-1]:
                owner = owner.model_fields[str(part)].annotation
            parent = path.rpartition(".")[0]
            known = [f"{parent}.{field}" for field in owner.model_fields]
            raise UnknownComponentError(f"field of {name}", path, known) from None
        reason = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise InvalidConfigurationError(f"expected {path} to be {reason}, got {problem['input']!r}") from None


def defaults(cls: type[Configuration]) -> dict[str, Any]:
    """The published defaults of every field that has one, nested configurations as dictionaries."""
    values: dict[str, Any] = {}
    for name, info in cls.model_fields.items():
        if not info.is_required():
            value = info.get_default(call_default_factory=True)
            values[name] = value.model_dump() if isinstance(value, Configuration) else value
    return values


def budget_values(cls: type[Configuration], budget: Budget) -> dict[str, Any]:
    """The values that differ from the published ones under `budget`, nested."""
    values: dict[str, Any] = {}
    for name, info in cls.model_fields.items():
        extra = info.json_schema_extra
        budgets = extra.get("budgets", {}) if isinstance(extra, dict) else {}
        if isinstance(budgets, dict) and budget in budgets:
            values[name] = budgets[budget]
        nested = info.annotation
        if isinstance(nested, type) and issubclass(nested, Configuration):
            inner = budget_values(nested, budget) | values.get(name, {})
            if inner:
                values[name] = inner
    return values


def _preset(cls: type[Component], selection: Selection, dataset: Choice | None) -> Mapping[str, Any]:
    if selection.preset is not None:
        if selection.preset not in cls.presets:
            raise UnknownComponentError(f"preset of {selection.name}", selection.preset, cls.presets)
        return cls.presets[selection.preset]
    return _of_dataset(cls, dataset)


def _of_dataset(cls: type[Component], dataset: Choice | None, suffix: str = "") -> Mapping[str, Any]:
    """The preset named after the data set, or else after its family; with a suffix, that of a budget."""
    if dataset is None:
        return {}
    for name in (dataset.name, type(dataset.component).family):
        if name + suffix in cls.presets:
            return cls.presets[name + suffix]
    return {}


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _nest(path: Sequence[str], value: Any) -> dict[str, Any]:
    return {path[0]: _nest(path[1:], value) if len(path) > 1 else value}


def _evaluators(
    matrix: Matrix, dataset: Choice, attack: Choice, settings: Mapping[str, Any]
) -> tuple[tuple[Choice, ...], tuple[tuple[str, str], ...]]:
    """The evaluators that apply to a cell, and why the others do not."""
    named = matrix.evaluators is not None
    selections = matrix.evaluators or tuple(Selection(name) for name in registry.names("evaluator"))
    available = {"Predictions", "Negatives", attack.component.yields}
    if attack.component.access == "features":
        available.add("Encodings")
    chosen: list[Choice] = []
    not_run: list[tuple[str, str]] = []
    for selection in selections:
        try:
            choice = resolve("evaluator", selection, matrix.budget, settings, dataset)
        except BrokenComponentError as cause:
            if named:
                raise
            not_run.append((selection.name, str(cause)))
            continue
        evaluator: Evaluator = choice.component
        if not named and evaluator.optional:
            continue
        missing = [kind.replace("|", " or ") for kind in evaluator.needs if available.isdisjoint(kind.split("|"))]
        reason = gives_no(attack.name, ", ".join(missing)) if missing else None
        reason = reason or _unmet(evaluator, dataset) or evaluator.unavailable(dataset.component.protocol)
        if reason:
            not_run.append((selection.name, reason))
        else:
            chosen.append(choice)
    return tuple(chosen), tuple(not_run)


def _unmet(evaluator: Evaluator, dataset: Choice) -> str | None:
    """What of the harness's own the evaluator asks for and the data set cannot have, in one sentence."""
    protocol = dataset.component.protocol
    if "Negatives" in evaluator.needs and protocol.task != "classes":
        return f"calibrated negatives are pushed towards class labels and {protocol.id} has attributes"
    if "second" in evaluator.judges and protocol.second_judge_network is None:
        return f"a second judge is asked and {protocol.id} names no network for one"
    return None


def could_have_run(cell: Cell) -> tuple[tuple[str, str], ...]:
    """The cell's `not_run` without evaluators that read what such an attack never gives."""
    return tuple(item for item in cell.not_run if not item[1].startswith(gives_no(cell.attack.name)))


def unsupported(cell: Cell) -> str | None:
    """Why the cell has no meaning, in one sentence; `None` if it has."""
    dataset: Dataset = cell.dataset.component
    task = dataset.protocol.task
    for choice in (cell.defense, cell.attack):
        component: Defense | Attack = choice.component
        if task not in component.tasks:
            return f"{choice.kind} {choice.name} works on {' and '.join(sorted(component.tasks))}, not on {task}"
    return None
