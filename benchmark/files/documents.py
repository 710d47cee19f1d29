"""Versioned JSON documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass


MAX_DEPTH = 64


def depth(value: Any) -> int:
    """Levels of nested lists and objects; one beyond the limit stands for all deeper ones."""
    level, values = 0, [value]
    while values and level <= MAX_DEPTH:
        values = [child for each in values for child in _members(each)]
        level += bool(values)
    return level


def _members(value: Any) -> Iterable[Any]:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return (member for member in members if isinstance(member, dict | list | tuple))
