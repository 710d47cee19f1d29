"""Labels that tell configurations of components apart, and what is equal for equal configurations."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ..records.record import Choice, Record

_encode = json.JSONEncoder(sort_keys=True).encode


def identity_of(choice: Choice) -> str:
    """Return a text that is equal for equal components."""
    return _encode([choice.name, choice.distribution, choice.version, choice.fields, choice.files])


class IdentityCache:
    """Identities of components, computed once for each object; the objects must outlive the cache."""

    def __init__(self) -> None:
        self._found: dict[int, str] = {}

    def __call__(self, choice: Choice) -> str:
        """Return `identity_of(choice)`."""
        found = self._found.get(id(choice))
        if found is None:
            found = self._found[id(choice)] = identity_of(choice)
        return found


def labels(kind: str, records: Iterable[Record], identity: IdentityCache) -> dict[str, str]:
    """Labels of the configurations of one kind of component, by identity."""
    choices: list[Choice] = []
    changed: dict[str, dict[str, Any]] = {}
    for record in records:
        choice = getattr(record.cell, kind)
        choices.append(choice)
        changed.setdefault(identity(choice), {}).update(flat(record.changed.get(kind, {})))
    return unique_labels(choices, changed, identity)


def unique_labels(
    choices: Iterable[Choice], changed: Mapping[str, Mapping[str, Any]], identity: IdentityCache
) -> dict[str, str]:
    """Name of each component, followed by the fields that the user changed or that differ among its namesakes."""
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
            read = {field: value for field, value in fields[key].items() if not _is_unread(field, fields[key])}
            words += [f"{field}={_format_value(read[field])}" for field in shown if field in read]
            labels[key] = " ".join(words)
    return labels


def _is_unread(field: str, values: Mapping[str, Any]) -> bool:
    """Return whether the optimiser of a recipe does not read the field, so that a label need not show it."""
    adam, constant = values.get("recipe.optimizer") == "adam", not values.get("recipe.milestones")
    return (field in ("recipe.momentum", "recipe.nesterov") and adam) or (field == "recipe.gamma" and constant)


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested fields to dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
