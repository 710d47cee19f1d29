"""`privbench paper`: published tables, the cells that reproduce them, and comparisons with our results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from . import paper_tables as printed
from .options import Json
from .outcome import print_totals, problems
from .output import print_json, print_problems
from .record_arguments import exit_if_unreadable

if TYPE_CHECKING:
    from ..papers.comparison import ComparedRow, ComparedValue, Comparison
    from ..papers.table import Table

app = typer.Typer(no_args_is_help=True, help="Published tables: list, show, run, compare.")

TableName = Annotated[str, typer.Argument(metavar="TABLE", help="A name from `privbench paper list`.")]
Rows = Annotated[
    list[str], typer.Option("--rows", metavar="LABEL", help="Only rows whose label is or contains this; repeat.")
]
Substitute = Annotated[
    str | None,
    typer.Option("--dataset", "-d", help="Data set in place of the published one; no values are compared then."),
]
_LEGEND = (
    "verdict (budget full, three seeds): agrees = our whole 95 % interval is within the tolerance of the printed "
    "value; differs = all of it is outside; undecided = neither. The tolerance is the printed ±, or else 3 points, "
    "0.03 of a similarity, 1 dB, or a tenth of the value."
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
        print_json(rows)
        return
    table = printed.grid("table", "rows", "runnable", "caption")
    for row in rows:
        runnable = f"{row['runnable']} of {row['rows']}" if row["kind"] == "results" else "settings"
        table.add_row(row["name"], str(row["rows"]), runnable, printed.text(str(row["caption"])))
    printed.put(table)


@app.command()
def show(name: TableName, as_json: Json = False) -> None:
    """Show a published table with its values and discrepancies.

    The cells that reproduce each row are listed too.
    """
    from ..papers.table import load

    table = load(name)
    if as_json:
        used = {row.label: printed.used(row) for row in table.rows} if table.kind == "settings" else {}
        print_json(table.model_dump(mode="json") | {"used": used})
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
    for row in table.rows:
        if row.approximation:
            printed.put(f"{row.label}: {row.approximation}.")
    printed.discrepancies(table, table.rows)


@app.command()
@options.expand_groups
def run(
    name: TableName,
    budget: options.BudgetOption = None,
    seed: options.Seeds = [],  # noqa: B006
    rows: Rows = [],  # noqa: B006
    dataset: Substitute = None,
    setting: options.Settings = [],  # noqa: B006
    controls: options.Controls = None,
    sandbox: options.Sandbox = None,
    *,
    where: options.RunOptions,
) -> None:
    """Run the cells behind a table and compare the results.

    Artifacts in the store are not computed again.
    """
    from ..papers.comparison import compare as compare_records
    from ..papers.matrices import matrices
    from ..papers.table import load
    from ..pipeline.matrix import cells_of, parse_settings

    table = load(name)
    settings = parse_settings(setting)
    planned = matrices(
        table,
        budget or "quick",  # type: ignore[arg-type]
        seed or [0],
        labels=rows,
        dataset=dataset,
        settings=settings,
        controls=controls is not False,
        sandbox=sandbox,
    )
    began = time.monotonic()
    plan, outcome, records = where.execute(cells_of(planned))
    comparison = compare_records(table, records, labels=rows, dataset=dataset)
    _present(comparison, rows, where.as_json)
    found = [*problems(plan, outcome), *_undefined(comparison)]
    not_runnable = _not_runnable(comparison, rows, settings)
    print_problems([*found, *not_runnable])
    print_totals(plan, outcome, began, records, where.results)
    if found or (rows and not_runnable):
        raise typer.Exit(1)


@app.command()
def compare(
    name: TableName,
    results: Annotated[
        Path | None,
        typer.Argument(metavar="[RESULTS]", envvar="PRIVBENCH_RESULTS", help="Folder of records; default: results."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Only records of this budget: smoke, quick or full.")
    ] = None,
    rows: Rows = [],  # noqa: B006
    dataset: Substitute = None,
    as_json: Json = False,
) -> None:
    """Compare existing records with a table, without running anything."""
    from ..analysis.record_set import load_records
    from ..core.paths import results_root
    from ..errors import MissingDataError
    from ..papers.comparison import compare as compare_records
    from ..papers.table import load, require_results

    table = load(name)
    require_results(table)
    root = results_root(results)
    records = load_records(root)
    comparison = compare_records(table, records, labels=rows, dataset=dataset, budget=budget)
    if not comparison.lines:
        command = f"privbench paper run {table.name}" + (f" --dataset {dataset}" if dataset else "")
        raise MissingDataError(f"expected {root} to contain records of {table.name}, got none; run `{command}`")
    _present(comparison, rows, as_json)
    exit_if_unreadable(records.problems)


def _runnable(table: Table) -> int:
    return sum(not row.not_runnable for row in table.rows) if table.kind == "results" else 0


def _not_runnable(comparison: Comparison, labels: list[str], settings: dict[str, Any]) -> list[str]:
    """One line for each reason why rows cannot be run."""
    labels_by_reason: dict[str, list[str]] = {}
    for row in comparison.table.select(labels):
        reason = row.reason_not_runnable(comparison.substitute, settings)
        if reason:
            labels_by_reason.setdefault(reason, []).append(row.label)
    return [f"n/a: {'; '.join(found)}: {reason}" for reason, found in labels_by_reason.items()]


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
        print_json(facts)
        return
    table = comparison.table
    printed.heading(table)
    if comparison.substitute:
        _warn_of_substitute(comparison, labels)
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
    printed.put("")
    for text in _order(comparison):
        printed.put(text)


def _order(comparison: Comparison) -> Iterator[str]:
    """Lines about the published orders of rows."""
    yield "Order of the rows, two by two, by our means:"
    if not comparison.orders:
        yield "- no two rows of a column have records of one protocol, budget and attack"
    for order in comparison.orders:
        yield f"- {order.column} ({order.attack}, {order.protocol}, {order.budget}): {order.summary()}"
        for exception in order.exceptions():
            yield f"    not {exception}"


def _warn_of_substitute(comparison: Comparison, labels: list[str]) -> None:
    published = " and ".join(dict.fromkeys(row.cell.dataset for row in comparison.table.select(labels)))
    warning = f"NOT THE PUBLISHED PROTOCOL: {comparison.substitute} replaces {published}. No values are compared."
    printed.put(printed.text(f"{warning}\n", "bold red"))


def _effort(budget: str) -> str:
    return "" if budget == "full" else ", less than the published effort"


def _comparison(lines: list[ComparedRow], several: set[str]) -> Any:
    """Our values beside the published ones; rows in `several` also name their attack."""
    has_differences = any(entry.difference is not None for line in lines for entry in line.entries)
    titles = ["row", "score", "published", "ours [95 %]", "seeds", *["difference"] * has_differences, "verdict"]
    table = printed.grid(*titles)
    for column in table.columns[2:-1]:
        column.justify = "right"
    for number, line in enumerate(lines):
        attack = f" [{line.attack}]" if line.label in several else ""
        for index, entry in enumerate(line.entries):
            label = f"{line.label}{attack}{'*' * bool(line.deviations)}" if index == 0 else ""
            value = printed.number(entry.published, entry.decimals, entry.published_spread)
            ours, seeds, difference, finding = _ours(entry)
            shown = (ours, seeds, *[difference] * has_differences, finding)
            cells = (printed.text(label), printed.text(entry.column), value, *shown)
            table.add_row(*cells, style="dim" if number % 2 else "")
    return table


def _ours(entry: ComparedValue) -> tuple[str, str, str, str]:
    """Our value with its interval, the seeds, the difference and the verdict."""
    if entry.ours is None:
        return "-", "", "", entry.finding
    text = printed.number(entry.ours, entry.decimals)
    if entry.interval is not None:
        text += f" [{', '.join(printed.number(end, entry.decimals) for end in entry.interval)}]"
    difference = "" if entry.difference is None else f"{entry.difference:+.{entry.decimals}f}"
    return text, str(entry.seeds), difference, entry.finding


def _notes(lines: list[ComparedRow]) -> Iterator[str]:
    """Reasons why values are not compared, changed settings, and flags; each once, with its rows."""
    labels_by_note: dict[str, list[str]] = {}
    for line in lines:
        columns: dict[str, list[str]] = {}
        for entry in line.entries:
            if entry.reason and not entry.is_effort:
                columns.setdefault(f"{entry.verdict}: {entry.reason}", []).append(entry.column)
        found = [f"* {', '.join(line.deviations)}"] if line.deviations else []
        found += line.flags
        for note, titles in columns.items():
            found.append(note if len(titles) == len(line.entries) else f"{', '.join(titles)}: {note}")
        for note in found:
            labels_by_note.setdefault(note, []).append(line.label)
    for note, labels in labels_by_note.items():
        yield note if len(labels) == len(lines) else f"{note} ({'; '.join(dict.fromkeys(labels))})"
