"""Records side by side in a figure: their order, what tells them apart, what they share."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...analysis.aggregate import flat
from ...core.config import BUDGETS
from ...records.record import Choice, Record
from ..formatting import plain

_KINDS = ("dataset", "defense", "attack")
_LIMIT = 40


def varied(choices: Iterable[Choice]) -> list[str]:
    """Dotted names of the fields, sorted, in which configurations of one component differ."""
    values = [flat(choice.fields) for choice in choices]
    names = sorted({name for fields in values for name in fields})
    return [name for name in names if len({repr(fields.get(name)) for fields in values}) > 1]


def written(value: Any, field: str = "") -> str:
    """A field's value in few characters.

    Example:
        >>> written(3.0), written([0.5, 0.999]), written(None, "layer")
        ('3', '[0.5, 0.999]', 'last')
    """
    if value is None:
        return "last" if field.rpartition(".")[2] == "layer" else "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return plain(value, _LIMIT)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        text = ", ".join(value)
    else:
        text = json.dumps(value, ensure_ascii=False)
    return f"{len(value)} values" if isinstance(value, list) and len(text) > _LIMIT else plain(text, _LIMIT)


def in_order(value: Any) -> tuple[int, float, tuple[tuple[str, int], ...]]:
    """Sorts values of a field: numbers by size, then text with its numbers by size, then the rest.

    Example:
        >>> sorted(["conv10", "conv2", 10, 9.5], key=in_order)
        [9.5, 10, 'conv2', 'conv10']
    """
    if isinstance(value, int | float):
        return 0, float(value), ()
    if not isinstance(value, str):
        value = "\U0010ffff" + json.dumps(value, sort_keys=True)
    parts = re.findall(r"([^0-9]*)([0-9]{0,15})", value)
    return 1, 0.0, tuple((text, int(digits or -1)) for text, digits in parts)


def arranged(records: Sequence[Record]) -> list[Record]:
    """By defense (`none` first), attack and data set, each followed by its varied fields; then by budget and seed."""
    fields = _varied(records)

    def key(record: Record) -> tuple[Any, ...]:
        found: list[Any] = []
        for kind in ("defense", "attack", "dataset"):
            choice: Choice = getattr(record.cell, kind)
            values = flat(choice.fields)
            found += [choice.name != "none", choice.name, choice.version]
            found.append([in_order(values.get(name)) for name in fields[kind, choice.name]])
        return (*found, BUDGETS.index(record.cell.budget), record.cell.seed, record.key)

    return sorted(records, key=key)


def labels(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Of each record, what tells it from the others, in words; the defense where nothing does.

    A component's name is given where the records differ in it, a field where configurations of that component do.
    """
    fields = _varied(records)
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
                words.append(f"{choice.name} version {choice.version} of {plain(choice.distribution, _LIMIT)}")
            words += _settings(flat(choice.fields), fields[kind, choice.name])
        words += _common(records, record, alike=False)
        found.append(tuple(dict.fromkeys(words)) or (record.cell.defense.name,))
    return found


def shared(records: Sequence[Record]) -> tuple[str, ...]:
    """What all records have in common, in words: protocol, components, budget, seed."""
    first = records[0]
    words = [first.protocol] if len({record.protocol for record in records}) == 1 else []
    for kind in ("defense", "attack"):
        if len({getattr(record.cell, kind).name for record in records}) == 1:
            words.append(f"{kind} {getattr(first.cell, kind).name}")
    return (*words, *_common(records, first, alike=True))


def _common(records: Sequence[Record], record: Record, *, alike: bool) -> list[str]:
    """Budget and seed of a record, each where the records are alike in it, or each where they are not."""
    same_budget = len({other.cell.budget for other in records}) == 1
    same_seed = len({other.cell.seed for other in records}) == 1
    words = [f"budget {record.cell.budget}"] if same_budget == alike else []
    return words + ([f"seed {record.cell.seed}"] if same_seed == alike else [])


def _varied(records: Sequence[Record]) -> dict[tuple[str, str], list[str]]:
    """The varied fields by kind and name of component."""
    groups: dict[tuple[str, str], list[Choice]] = {}
    for record in records:
        for kind in _KINDS:
            choice: Choice = getattr(record.cell, kind)
            groups.setdefault((kind, choice.name), []).append(choice)
    return {owner: varied(choices) for owner, choices in groups.items()}


def _settings(values: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    return [f"{name} = {written(values.get(name), name)}" for name in names]
