"""Printing of published tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .output import console

if TYPE_CHECKING:
    from ..papers.table import Column, Published, Reproduction, Row, Table

_WIDTH = 110


def grid(*titles: str) -> Any:
    """An empty table with these column titles."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Grid

    return Grid(*titles, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))


def text(content: str, style: str = "") -> Any:
    """A text that is printed as it is, without markup."""
    from rich.text import Text

    return Text(content, style=style)


def put(content: Any) -> None:
    """Print a table or a text, at most 110 characters wide."""
    found = console()
    width = min(found.width, _WIDTH) if found.is_terminal else _WIDTH
    console(width=width, highlight=False).print(text(content) if isinstance(content, str) else content)


def heading(table: Table) -> None:
    """Print the caption and the source of the table."""
    put(f"{table.name}: {table.caption}\n{table.citation}. {table.link}\n")


def results(table: Table) -> None:
    """Print the values, the components that reproduce them, and the attack of each column."""
    plain = not any(row.cell.fields for row in table.rows)
    found = grid("row", *(_title(column) for column in table.columns), *(["defense:preset"] if plain else []))
    for row in table.rows:
        values = [_value(row, column) for column in table.columns]
        found.add_row(text(row.label), *values, *([text(_defense(row.cell))] if plain else []))
    put(found)
    if not plain:
        put(_recipes(table))
    attacks = dict.fromkeys(f"{' and '.join(row.cell.attacks)} on {row.cell.protocol}" for row in table.rows)
    put(f"Runs as {', '.join(attacks)}, scored by {', '.join(table.evaluators)}.")
    titles: dict[str, list[str]] = {}
    for column in table.columns:
        if column.attack:
            titles.setdefault(column.attack, []).append(column.title)
    for attack, columns in titles.items():
        put(f"{', '.join(columns)}: from {attack}.")


def settings(table: Table) -> None:
    """Print published settings beside those of the presets."""
    found = grid("row", "printed", "used here", "preset")
    for row in table.rows:
        printed = ", ".join(f"{name} {value.value:g}" for name, value in row.values.items())
        ours = ", ".join(f"{name} {value:g}" for name, value in used(row).items())
        found.add_row(text(row.label), printed, ours, text(_defense(row.cell)))
    put(found)


def used(row: Row) -> dict[str, float]:
    """The preset's values of the fields that a row of settings prints."""
    fields = row.cell.configuration("full")
    return {name: float(fields[name]) for name in row.values}


def discrepancies(table: Table, rows: Sequence[Row]) -> None:
    """Print known discrepancies of the table and of some of its rows, each once."""
    notes: dict[tuple[str, str], list[str]] = {(note.what, note.where): [] for note in table.discrepancies}
    for row in rows:
        for note in row.discrepancies:
            notes.setdefault((note.what, note.where), []).append(row.label)
    if notes:
        put("Known discrepancies:")
    for (what, where), labels in notes.items():
        put(f"- {'; '.join(labels)}{': ' if labels else ''}{what} [{where}]")


def _recipes(table: Table) -> Any:
    found = grid("row", "defense", "settings")
    for row in table.rows:
        fields = (f"{scope} {_values(fields)}" for scope, fields in row.cell.fields.items())
        found.add_row(text(row.label), text(_defense(row.cell)), text("; ".join(fields)))
    return found


def _defense(cell: Reproduction) -> str:
    return f"{cell.defense}:{cell.preset}" if cell.preset else cell.defense


def _values(fields: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in fields.items()
    )


def _title(column: Column) -> str:
    sign = {"higher": "↑", "lower": "↓", None: ""}[column.better]
    unit = " %" if column.unit == "per cent" else ""
    return f"{column.title}{unit} {sign}".strip()


def _value(row: Row, column: Column) -> str:
    value: Published | None = row.values.get(column.name)
    return "-" if value is None else number(value.value, column.decimals, value.spread)


def number(value: float, decimals: int, spread: float | None = None) -> str:
    """A value and its spread, with this number of decimals.

    Example:
        >>> number(4.36, 2, 5.7)
        '4.36 ± 5.70'
    """
    return f"{value:.{decimals}f}" + ("" if spread is None else f" ± {spread:.{decimals}f}")
