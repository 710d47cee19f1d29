"""Resolve selections into configured components."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from .. import registry
from ..contracts import Component
from ..core.config import Budget, Configuration
from ..errors import InvalidConfigurationError, UnknownComponentError
from ..registry import Kind
from .cell import Choice, Selection
from .given import check_given


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
    values, of_budget = defaults(cls), budget_values(cls, budget)
    if kind == "defense" and dataset is not None:
        # The recipe of a data set has its values for the budget already.
        values["recipe"] = dataset.component.target.model_dump()
        of_budget.pop("recipe", None)
    _merge(values, _preset(cls, selection, dataset))
    _merge(values, of_budget)
    _merge(values, _of_dataset(cls, dataset, f"@{budget}"))
    where = selection.where or kind
    changes: dict[str, Any] = {}
    for name, given in (selection.fields or {}).items():
        check_given(f"{where}.{name}", given)
    _merge(changes, dict(selection.fields or {}))
    for scope in (kind, selection.name):
        for path, value in settings.items():
            first, _, rest = path.partition(".")
            if first == scope:
                check_given(path, value)
                _merge(changes, _nest(rest.split("."), value))
    _merge(values, changes)
    entry = registry.find(kind, selection.name)
    return Choice(kind, selection.name, entry.distribution, build(cls, values, where, selection.name))


def build(cls: type[Configuration], values: Mapping[str, Any], where: str, name: str) -> Any:
    """Validate `values` into `cls`, with errors that name the field as the user wrote it."""
    try:
        built = cls.model_validate(values)
        for field, given in built.model_dump().items():
            check_given(f"{where}.{field}", given)  # text may be a number, too
        return built
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
    """Return the published defaults of all fields that have one, nested configurations as dictionaries."""
    values: dict[str, Any] = {}
    for name, info in cls.model_fields.items():
        if not info.is_required():
            value = info.get_default(call_default_factory=True)
            values[name] = value.model_dump() if isinstance(value, Configuration) else value
    return values


def budget_values(cls: type[Configuration], budget: Budget) -> dict[str, Any]:
    """Return the values that differ from the published ones under `budget`, nested."""
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
    """Return the preset of the data set, or else of its family; a suffix chooses that of a budget."""
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
