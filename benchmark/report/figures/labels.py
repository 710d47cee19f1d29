"""Order and labels of the records in a figure."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...analysis.row_labels import flat
from ...core.config import BUDGETS
from ...records.record import Choice, Record
from ..formatting import sanitize

_KINDS = ("dataset", "defense", "attack")
_LIMIT = 40


def varying_fields(choices: Iterable[Choice]) -> list[str]:
    """Dotted names, sorted, of the fields in which configurations of one component differ."""
    values = [flat(choice.fields) for choice in choices]
    names = sorted({name for fields in values for name in fields})
    return [name for name in names if len({repr(fields.get(name)) for fields in values}) > 1]


def format_value(value: Any, field: str = "") -> str:
    """A short text for the value of a field.

    Example:
        >>> format_value(3.0), format_value([0.5, 0.999]), format_value(None, "layer")
        ('3', '[0.5, 0.999]', 'last')
    """
    if value is None:
        return "last" if field.rpartition(".")[2] == "layer" else "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return sanitize(value, _LIMIT)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        text = ", ".join(value)
    else:
        text = json.dumps(value, ensure_ascii=False)
    return f"{len(value)} values" if isinstance(value, list) and len(text) > _LIMIT else sanitize(text, _LIMIT)


def natural_key(value: Any) -> tuple[int, float, tuple[tuple[str, int], ...]]:
    """Sort key for values of a field: numbers by size, then texts with their numbers by size, then all others.

    Example:
        >>> sorted(["conv10", "conv2", 10, 9.5], key=natural_key)
        [9.5, 10, 'conv2', 'conv10']
    """
    if isinstance(value, int | float):
        return 0, float(value), ()
    if not isinstance(value, str):
        value = "\U0010ffff" + json.dumps(value, sort_keys=True)
    parts = re.findall(r"([^0-9]*)([0-9]{0,15})", value)
    return 1, 0.0, tuple((text, int(digits or -1)) for text, digits in parts)


def sort_records(records: Sequence[Record]) -> list[Record]:
    """Sort by defense (`none` first), attack and data set, each with its varying fields; then by budget and seed."""
    fields = _varying_by_component(records)

    def key(record: Record) -> tuple[Any, ...]:
        found: list[Any] = []
        for kind in ("defense", "attack", "dataset"):
            choice: Choice = getattr(record.cell, kind)
            values = flat(choice.fields)
            found += [choice.name != "none", choice.name, choice.version]
            found.append([natural_key(values.get(name)) for name in fields[kind, choice.name]])
        return (*found, BUDGETS.index(record.cell.budget), record.cell.seed, record.key)

    return sorted(records, key=key)


def record_labels(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """A label for each record that names everything in which it differs from the others, else its defense.

    A label has the name of a component if the records differ in it, and a field if configurations of that component do.
    """
    fields = _varying_by_component(records)
    names = {kind: {getattr(record.cell, kind).name for record in records} for kind in _KINDS}
    versions: dict[tuple[str, str], set[tuple[str, int]]] = {}
    for record in records:
        for kind in _KINDS:
            choice: Choice = getattr(record.cell, kind)
            versions.setdefault((kind, choice.name), set()).add((choice.distribution, choice.version))
    found = []
    for record in records:
        words: list[str] = []
        for kind in _KINDS:
            choice = getattr(record.cell, kind)
            words += [choice.name] if len(names[kind]) > 1 else []
            if len(versions[kind, choice.name]) > 1:
                words.append(f"{choice.name} version {choice.version} of {sanitize(choice.distribution, _LIMIT)}")
            words += _settings(flat(choice.fields), fields[kind, choice.name])
        words += _budget_and_seed(records, record, are_shared=False)
        found.append(tuple(dict.fromkeys(words)) or (record.cell.defense.name,))
    return found


def shared_settings(records: Sequence[Record]) -> tuple[str, ...]:
    """Protocol, components, budget and seed that all records have in common."""
    first = records[0]
    words = [first.protocol] if len({record.protocol for record in records}) == 1 else []
    for kind in ("defense", "attack"):
        if len({getattr(record.cell, kind).name for record in records}) == 1:
            words.append(f"{kind} {getattr(first.cell, kind).name}")
    return (*words, *_budget_and_seed(records, first, are_shared=True))


def _budget_and_seed(records: Sequence[Record], record: Record, *, are_shared: bool) -> list[str]:
    """Budget and seed of a record: those that all records share, or those that they do not."""
    same_budget = len({other.cell.budget for other in records}) == 1
    same_seed = len({other.cell.seed for other in records}) == 1
    words = [f"budget {record.cell.budget}"] if same_budget == are_shared else []
    return words + ([f"seed {record.cell.seed}"] if same_seed == are_shared else [])


def _varying_by_component(records: Sequence[Record]) -> dict[tuple[str, str], list[str]]:
    """Varying fields by kind and name of component."""
    groups: dict[tuple[str, str], list[Choice]] = {}
    for record in records:
        for kind in _KINDS:
            choice: Choice = getattr(record.cell, kind)
            groups.setdefault((kind, choice.name), []).append(choice)
    return {owner: varying_fields(choices) for owner, choices in groups.items()}


def _settings(values: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [f"{name} = {format_value(values.get(name), name)}" for name in names]
