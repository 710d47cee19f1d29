"""`privbench paper`: published tables, what reproduces them, and how far ours are from them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options

if TYPE_CHECKING:
    from ..plan import Plan
    from ..publications.comparison import Comparison, Entry, Line
    from ..publications.publication import Cell, Column, Published, Row, Table
    from ..runners.local import Outcome

app = typer.Typer(no_args_is_help=True, help="Published tables: list, show, run, compare.")

TableName = Annotated[str, typer.Argument(metavar="TABLE", help="A name from `privbench paper list`.")]
Rows = Annotated[
    list[str], typer.Option("--rows", metavar="LABEL", help="Only rows with this label, or whose label contains it.")
]
Substitute = Annotated[
    str | None,
    typer.Option("--dataset", "-d", help="Data set in place of the published one; nothing is compared then."),
]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, help="Stages to compute at a time.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
_WIDTH = 110
_LEGEND = (
    "within: published = the printed value ± its spread contains ours; ours = our 95 % interval contains the printed "
    "value."
)
_SPREAD = " A printed ± is a spread, over draws, trials or identities, not an interval of the mean."


@app.command("list")
def list_tables(as_json: Json = False) -> None:
    """List the published tables."""
    from ..publications.publication import tables

    rows = [
        {"name": t.name, "kind": t.kind, "rows": len(t.rows), "runnable": _runnable(t), "caption": t.caption}
        for t in tables()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = _grid("table", "rows", "can be run", "what it shows")
    for row in rows:
        runs = f"{row['runnable']} of {row['rows']}" if row["kind"] == "results" else "settings"
        table.add_row(row["name"], str(row["rows"]), runs, _text(str(row["caption"])))
    _print(table)


@app.command()
def show(name: TableName, as_json: Json = False) -> None:
    """Show a table as published: values, what reproduces each row, what is known to be wrong."""
    from ..publications.publication import load

    table = load(name)
    if as_json:
        used = {row.label: _used(row) for row in table.rows} if table.kind == "settings" else {}
        typer.echo(json.dumps(table.model_dump(mode="json") | {"used": used}, indent=1))
        return
    _print(_text(f"{table.name}: {table.caption}\n{table.citation}. {table.link}\n"))
    _print(_settings(table) if table.kind == "settings" else _results(table))
    if any(row.cell.fields for row in table.rows):
        _print(_recipes(table))
    if table.kind == "results":
        attacks = dict.fromkeys(f"{' and '.join(row.cell.attacks)} on {row.cell.protocol}" for row in table.rows)
        _print(_text(f"Runs as {', '.join(attacks)}, scored by {', '.join(table.evaluators)}."))
        _sources(table)
    for column in table.columns:
        if column.spread_meaning:
            _print(_text(f"± of {column.title}: {column.spread_meaning}."))
    reasons: dict[str, list[str]] = {}
    for row in table.rows:
        if row.not_runnable:
            reasons.setdefault(row.not_runnable, []).append(row.label)
    for reason, labels in reasons.items():
        _print(_text(f"Cannot be run ({'; '.join(labels)}): {reason}"))
    _discrepancies(table, table.rows)


@app.command()
def run(
    name: TableName,
    budget: options.BudgetOption = None,
    seed: options.Seeds = [],  # noqa: B006
    rows: Rows = [],  # noqa: B006
    dataset: Substitute = None,
    setting: options.Settings = [],  # noqa: B006
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
    results: options.ResultsFolder = None,
    device: options.DeviceOption = "auto",
    jobs: Jobs = 1,
    as_json: Json = False,
) -> None:
    """Run the cells behind a table and compare; what is in the store already is not computed again."""
    from ..publications.publication import load, matrices
    from ..spec import parse_settings

    table = load(name)
    planned = matrices(
        table,
        budget or "quick",  # type: ignore[arg-type]
        seed or [0],
        labels=rows,
        dataset=dataset,
        settings=parse_settings(setting),
    )
    cells = [cell for matrix in planned for cell in matrix.cells()]
    from ..api import execute
    from ..folders import data_root, results_root, store_root
    from ..publications.comparison import compare as put_together
    from ..records import Records
    from .progress import Display

    began = time.monotonic()
    with Display() as display:
        plan, outcome, written = execute(
            cells,
            data=data_root(data),
            store=store_root(store),
            results=results_root(results),
            device=device,
            jobs=jobs,
            listener=display,
        )
    found = Records(tuple(record for record, _ in written), tuple(path for _, path in written))
    comparison = put_together(table, found, labels=rows, dataset=dataset)
    _present(comparison, rows, as_json)
    problems = [*_problems(plan, outcome), *_undefined(comparison)]
    left_out = _not_run(comparison, rows, parse_settings(setting))
    for problem in [*problems, *left_out]:
        typer.echo(f"privbench: {problem}", err=True)
    done = f"{len(outcome.computed)} of {len(plan.stages)} stages computed in {time.monotonic() - began:.1f} s"
    typer.echo(f"{done}; {len(found)} records in {results_root(results)}", err=True)
    if problems or (rows and left_out):
        raise typer.Exit(1)


@app.command()
def compare(
    name: TableName,
    results: Annotated[
        Path | None,
        typer.Argument(metavar="[RESULTS]", envvar="PRIVBENCH_RESULTS", help="Folder of records; default: results."),
    ] = None,
    budget: Annotated[str | None, typer.Option("--budget", help="Of the records: smoke, quick or full; all.")] = None,
    rows: Rows = [],  # noqa: B006
    dataset: Substitute = None,
    as_json: Json = False,
) -> None:
    """Compare records that exist with a table; runs nothing."""
    from ..errors import MissingDataError
    from ..folders import results_root
    from ..publications.comparison import compare as put_together
    from ..publications.publication import load, require_results
    from ..records import load_records

    table = load(name)
    require_results(table)
    root = results_root(results)
    records = load_records(root)
    comparison = put_together(table, records, labels=rows, dataset=dataset, budget=budget)
    if not comparison.lines:
        command = f"privbench paper run {table.name}" + (f" --dataset {dataset}" if dataset else "")
        raise MissingDataError(f"expected {root} to hold records of {table.name}, got none; make them with `{command}`")
    _present(comparison, rows, as_json)
    for problem in records.problems:
        typer.echo(f"privbench: {problem}", err=True)
    if records.problems:
        raise typer.Exit(1)


def _runnable(table: Table) -> int:
    return sum(not row.not_runnable for row in table.rows) if table.kind == "results" else 0


def _problems(plan: Plan, outcome: Outcome) -> Iterator[str]:
    """Cells without a meaning and failed stages."""
    for skipped in plan.skipped:
        yield f"n/a: {skipped.cell.title}: {skipped.reason}"
    for key, reason in outcome.failures.items():
        yield f"{plan.stages[key].title} failed: {reason}"


def _not_run(comparison: Comparison, labels: list[str], settings: dict[str, Any]) -> list[str]:
    """Rows that cannot be run, by reason."""
    whose: dict[str, list[str]] = {}
    for row in comparison.table.select(labels):
        reason = row.obstacle(comparison.substitute, settings)
        if reason:
            whose.setdefault(reason, []).append(row.label)
    return [f"n/a: {'; '.join(of)}: {reason}" for reason, of in whose.items()]


def _undefined(comparison: Comparison) -> Iterator[str]:
    for line in comparison.lines:
        for entry in line.entries:
            if entry.verdict == "undefined":
                yield f"{line.label}: {entry.score} is undefined: {entry.reason}"


def _present(comparison: Comparison, labels: list[str], as_json: bool) -> None:
    """Print a comparison."""
    if as_json:
        facts = asdict(comparison) | {"table": comparison.table.name}
        chosen = comparison.table.select(labels)
        facts["discrepancies"] = [note.model_dump() for note in comparison.table.discrepancies]
        facts["rows"] = {row.label: [note.model_dump() for note in row.discrepancies] for row in chosen}
        typer.echo(json.dumps(facts, indent=1))
        return
    table = comparison.table
    _print(_text(f"{table.name}: {table.caption}\n{table.citation}. {table.link}\n"))
    if comparison.substitute:
        _loud(comparison, labels)
    several = {row.label for row in table.rows if len(row.cell.attacks) > 1}
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in comparison.lines:
        groups.setdefault((line.protocol, line.budget), []).append(line)
    for (protocol, budget), lines in groups.items():
        _print(_text(f"ours: protocol {protocol}, budget {budget}{_effort(budget)}"))
        _print(_comparison(lines, several))
        for note in _notes(lines):
            _print(_text(note))
        _print(_text(""))
    if comparison.missing:
        _print(_text(f"no records of {'; '.join(comparison.missing)}"))
    spread = any(column.spread for column in table.columns)
    _print(_text(f"{_LEGEND}{_SPREAD if spread else ''}\n"))
    _discrepancies(table, table.select(labels))


def _loud(comparison: Comparison, labels: list[str]) -> None:
    from rich.text import Text

    published = " and ".join(dict.fromkeys(row.cell.dataset for row in comparison.table.select(labels)))
    words = f"NOT THE PUBLISHED PROTOCOL: {comparison.substitute} stands in for {published}. Nothing is compared."
    _print(Text(f"{words}\n", style="bold red"))


def _effort(budget: str) -> str:
    return "" if budget == "full" else ", less than the published effort"


def _sources(table: Table) -> None:
    """Which of several attacks gives which column."""
    titles: dict[str, list[str]] = {}
    for column in table.columns:
        if column.attack:
            titles.setdefault(column.attack, []).append(column.title)
    for attack, columns in titles.items():
        _print(_text(f"{', '.join(columns)}: of {attack}."))


def _comparison(lines: list[Line], several: set[str]) -> Any:
    """Lines beside what was printed; those of rows in `several` name their attack."""
    table = _grid("row", "score", "published", "ours [95 %]", "seeds", "difference", "within")
    for column in table.columns[2:6]:
        column.justify = "right"
    for number, line in enumerate(lines):
        attack = f" [{line.attack}]" if line.label in several else ""
        for place, entry in enumerate(line.entries):
            label = f"{line.label}{attack}{'*' * bool(line.deviations)}" if place == 0 else ""
            table.add_row(
                _text(label), _text(entry.column), _printed(entry), *_ours(entry), style="dim" if number % 2 else ""
            )
    return table


def _printed(entry: Entry) -> str:
    value = f"{entry.published:.{entry.decimals}f}"
    return value if entry.published_spread is None else f"{value} ± {entry.published_spread:.{entry.decimals}f}"


def _ours(entry: Entry) -> tuple[str, str, str, str]:
    """Value with interval, seeds, difference and verdict."""
    if entry.ours is None:
        return "-", "", "", entry.verdict
    text = f"{entry.ours:.{entry.decimals}f}"
    if entry.interval is not None:
        text += " [{:.{d}f}, {:.{d}f}]".format(*entry.interval, d=entry.decimals)
    difference = "" if entry.difference is None else f"{entry.difference:+.{entry.decimals}f}"
    return text, str(entry.seeds), difference, entry.verdict.removeprefix("within ")


def _notes(lines: list[Line]) -> Iterator[str]:
    """Why entries do not compare, what was set otherwise, and doubts; each once, with the rows that it is about."""
    whose: dict[str, list[str]] = {}
    for line in lines:
        columns: dict[str, list[str]] = {}
        for entry in line.entries:
            if entry.reason:
                columns.setdefault(f"{entry.verdict}: {entry.reason}", []).append(entry.column)
        found = [f"* {', '.join(line.deviations)}"] if line.deviations else []
        found += line.flags
        for note, titles in columns.items():
            found.append(note if len(titles) == len(line.entries) else f"{', '.join(titles)}: {note}")
        for note in found:
            whose.setdefault(note, []).append(line.label)
    for note, labels in whose.items():
        yield note if len(labels) == len(lines) else f"{note} ({'; '.join(dict.fromkeys(labels))})"


def _results(table: Table) -> Any:
    """Values, and the defense with its preset where that is all that reproduces a row."""
    plain = not any(row.cell.fields for row in table.rows)
    grid = _grid("row", *(_heading(column) for column in table.columns), *(["defense:preset"] if plain else []))
    for row in table.rows:
        values = [_value(row, column) for column in table.columns]
        grid.add_row(_text(row.label), *values, *([_text(_defense(row.cell))] if plain else []))
    return grid


def _recipes(table: Table) -> Any:
    """What reproduces each row, where rows set fields."""
    grid = _grid("row", "defense", "settings")
    for row in table.rows:
        settings = (f"{scope} {_fields(fields)}" for scope, fields in row.cell.fields.items())
        grid.add_row(_text(row.label), _text(_defense(row.cell)), _text("; ".join(settings)))
    return grid


def _defense(cell: Cell) -> str:
    return f"{cell.defense}:{cell.preset}" if cell.preset else cell.defense


def _fields(fields: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in fields.items()
    )


def _heading(column: Column) -> str:
    sign = {"higher": "↑", "lower": "↓", None: ""}[column.better]
    unit = " %" if column.unit == "per cent" else ""
    return f"{column.title}{unit} {sign}".strip()


def _value(row: Row, column: Column) -> str:
    value: Published | None = row.values.get(column.name)
    if value is None:
        return "-"
    digits = column.decimals
    return f"{value.value:.{digits}f}" + ("" if value.spread is None else f" ± {value.spread:.{digits}f}")


def _settings(table: Table) -> Any:
    """Printed weights beside those of the preset."""
    grid = _grid("row", "printed", "used here", "preset")
    for row in table.rows:
        printed = ", ".join(f"{name} {value.value:g}" for name, value in row.values.items())
        used = ", ".join(f"{name} {value:g}" for name, value in _used(row).items())
        grid.add_row(_text(row.label), printed, used, _text(f"{row.cell.defense}:{row.cell.preset}"))
    return grid


def _used(row: Row) -> dict[str, float]:
    """The preset's values of the fields that a row of settings prints."""
    fields = row.cell.configuration("full")
    return {name: float(fields[name]) for name in row.values}


def _discrepancies(table: Table, rows: tuple[Row, ...]) -> None:
    notes: dict[tuple[str, str], list[str]] = {}
    for note in table.discrepancies:
        notes[note.what, note.where] = []
    for row in rows:
        for note in row.discrepancies:
            notes.setdefault((note.what, note.where), []).append(row.label)
    if not notes:
        return
    _print(_text("Known discrepancies:"))
    for (what, where), labels in notes.items():
        _print(_text(f"- {', '.join(labels)}{': ' if labels else ''}{what} [{where}]"))


def _grid(*titles: str) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Grid

    return Grid(*titles, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))


def _text(words: str) -> Any:
    from rich.text import Text

    return Text(words)


def _print(what: Any) -> None:
    from rich.console import Console

    console = Console()
    Console(width=min(console.width, _WIDTH) if console.is_terminal else _WIDTH, highlight=False).print(what)
