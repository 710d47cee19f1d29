"""`privbench paper`: published tables, what reproduces them, and how far ours are from them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options, run_options
from . import paper_tables as printed

if TYPE_CHECKING:
    from ..papers.comparison import ComparedRow, ComparedValue, Comparison
    from ..papers.table import Table
    from ..pipeline.plan import Plan
    from ..runners.scheduler import Outcome

app = typer.Typer(no_args_is_help=True, help="Published tables: list, show, run, compare.")

TableName = Annotated[str, typer.Argument(metavar="TABLE", help="A name from `privbench paper list`.")]
Rows = Annotated[
    list[str], typer.Option("--rows", metavar="LABEL", help="Only rows with this label, or whose label contains it.")
]
Substitute = Annotated[
    str | None,
    typer.Option("--dataset", "-d", help="Data set in place of the published one; nothing is compared then."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
_LEGEND = (
    "within: published = the printed value ± its spread contains ours; ours = our 95 % interval contains the printed "
    "value."
)
_SPREAD = " A printed ± is a spread, over draws, trials or identities, not an interval of the mean."


@app.command("list")
def list_tables(as_json: Json = False) -> None:
    """List the published tables."""
    from ..papers.table import tables

    rows = [
        {"name": t.name, "kind": t.kind, "rows": len(t.rows), "runnable": _runnable(t), "caption": t.caption}
        for t in tables()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = printed.grid("table", "rows", "can be run", "what it shows")
    for row in rows:
        runs = f"{row['runnable']} of {row['rows']}" if row["kind"] == "results" else "settings"
        table.add_row(row["name"], str(row["rows"]), runs, printed.text(str(row["caption"])))
    printed.put(table)


@app.command()
def show(name: TableName, as_json: Json = False) -> None:
    """Show a table as published: values, what reproduces each row, what is known to be wrong."""
    from ..papers.table import load

    table = load(name)
    if as_json:
        used = {row.label: printed.used(row) for row in table.rows} if table.kind == "settings" else {}
        typer.echo(json.dumps(table.model_dump(mode="json") | {"used": used}, indent=1))
        return
    printed.heading(table)
    if table.kind == "settings":
        printed.settings(table)
    else:
        printed.results(table)
    for column in table.columns:
        if column.spread_meaning:
            printed.put(f"± of {column.title}: {column.spread_meaning}.")
    reasons: dict[str, list[str]] = {}
    for row in table.rows:
        if row.not_runnable:
            reasons.setdefault(row.not_runnable, []).append(row.label)
    for reason, labels in reasons.items():
        printed.put(f"Cannot be run ({'; '.join(labels)}): {reason}")
    printed.discrepancies(table, table.rows)


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
    jobs: run_options.Jobs = 1,
    runner: run_options.Runner = "local",
    address: run_options.Address = None,
    threads: run_options.Threads = None,
    stage_timeout: run_options.StageTimeout = None,
    as_json: Json = False,
) -> None:
    """Run the cells behind a table and compare; what is in the store already is not computed again."""
    from ..papers.matrices import matrices
    from ..papers.table import load
    from ..pipeline.matrix import parse_settings

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
    from ..analysis.record_set import Records
    from ..api import execute
    from ..core.paths import data_root, results_root, store_root
    from ..papers.comparison import compare as put_together
    from .progress import Display

    began = time.monotonic()
    with run_options.resumable(), Display() as display:
        plan, outcome, written = execute(
            cells,
            data=data_root(data),
            store=store_root(store),
            results=results_root(results),
            device=device,
            listener=display,
            **run_options.how(runner, address, jobs, threads, stage_timeout),
        )
    found = Records(tuple(record for record, _ in written), tuple(path for _, path in written))
    comparison = put_together(table, found, labels=rows, dataset=dataset)
    _present(comparison, rows, as_json)
    problems = [*_problems(plan, outcome), *_undefined(comparison)]
    left_out = _not_run(comparison, rows, parse_settings(setting))
    for problem in [*problems, *left_out]:
        typer.echo(problem if problem.startswith(" ") else f"privbench: {problem}", err=True)
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
    from ..analysis.record_set import load_records
    from ..core.paths import results_root
    from ..errors import MissingDataError
    from ..papers.comparison import compare as put_together
    from ..papers.table import load, require_results

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
    yield from run_options.summary(plan, outcome)


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
    printed.heading(table)
    if comparison.substitute:
        _loud(comparison, labels)
    several = {row.label for row in table.rows if len(row.cell.attacks) > 1}
    groups: dict[tuple[str, str], list[ComparedRow]] = {}
    for line in comparison.lines:
        groups.setdefault((line.protocol, line.budget), []).append(line)
    for (protocol, budget), lines in groups.items():
        printed.put(f"ours: protocol {protocol}, budget {budget}{_effort(budget)}")
        printed.put(_comparison(lines, several))
        for note in _notes(lines):
            printed.put(note)
        printed.put("")
    if comparison.missing:
        printed.put(f"no records of {'; '.join(comparison.missing)}")
    spread = any(column.spread for column in table.columns)
    printed.put(f"{_LEGEND}{_SPREAD if spread else ''}\n")
    printed.discrepancies(table, table.select(labels))


def _loud(comparison: Comparison, labels: list[str]) -> None:
    published = " and ".join(dict.fromkeys(row.cell.dataset for row in comparison.table.select(labels)))
    words = f"NOT THE PUBLISHED PROTOCOL: {comparison.substitute} stands in for {published}. Nothing is compared."
    printed.put(printed.text(f"{words}\n", "bold red"))


def _effort(budget: str) -> str:
    return "" if budget == "full" else ", less than the published effort"


def _comparison(lines: list[ComparedRow], several: set[str]) -> Any:
    """Lines beside what was printed; those of rows in `several` name their attack."""
    table = printed.grid("row", "score", "published", "ours [95 %]", "seeds", "difference", "within")
    for column in table.columns[2:6]:
        column.justify = "right"
    for number, line in enumerate(lines):
        attack = f" [{line.attack}]" if line.label in several else ""
        for place, entry in enumerate(line.entries):
            label = f"{line.label}{attack}{'*' * bool(line.deviations)}" if place == 0 else ""
            value = printed.number(entry.published, entry.decimals, entry.published_spread)
            words = (printed.text(label), printed.text(entry.column), value, *_ours(entry))
            table.add_row(*words, style="dim" if number % 2 else "")
    return table


def _ours(entry: ComparedValue) -> tuple[str, str, str, str]:
    """Value with interval, seeds, difference and verdict."""
    if entry.ours is None:
        return "-", "", "", entry.verdict
    text = printed.number(entry.ours, entry.decimals)
    if entry.interval is not None:
        text += f" [{', '.join(printed.number(end, entry.decimals) for end in entry.interval)}]"
    difference = "" if entry.difference is None else f"{entry.difference:+.{entry.decimals}f}"
    return text, str(entry.seeds), difference, entry.verdict.removeprefix("within ")


def _notes(lines: list[ComparedRow]) -> Iterator[str]:
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
