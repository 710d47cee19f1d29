"""`privbench run` and `privbench plan`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options, run_options

if TYPE_CHECKING:
    from ..pipeline.plan import Plan
    from ..runners.scheduler import Outcome
    from ..store.store import Store

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]


def run(
    matrix: options.MatrixFile = None,
    dataset: options.Datasets = [],  # noqa: B006
    defense: options.Defenses = [],  # noqa: B006
    attack: options.Attacks = [],  # noqa: B006
    evaluator: options.Evaluators = [],  # noqa: B006
    seed: options.Seeds = [],  # noqa: B006
    budget: options.BudgetOption = None,
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
    """Train or load targets, attack them, score the attacks, write records and print a table.

    What is in the store already is not computed again; an interrupted run goes on where it stopped.
    """
    how = run_options.how(runner, address, jobs, threads, stage_timeout)
    chosen = options.matrix_of(matrix, dataset, defense, attack, evaluator, seed, budget, setting)
    from ..api import execute
    from ..core.paths import data_root, results_root, store_root
    from .progress import Display

    began = time.monotonic()
    with run_options.resumable(), Display() as display:
        plan, outcome, records = execute(
            chosen.cells(),
            data=data_root(data),
            store=store_root(store),
            results=results_root(results),
            device=device,
            listener=display,
            **how,
        )
    if as_json:
        typer.echo(json.dumps(_facts(plan, outcome, records), indent=1))
    else:
        _present(records)
    for record, _ in records:
        for flag in record.flags:
            typer.echo(f"note: {record.cell.defense.name} under {record.cell.attack.name}: {flag.message}", err=True)
        for sentence in run_options.halved(record):
            typer.echo(f"note: {record.cell.defense.name} under {record.cell.attack.name}: {sentence}", err=True)
    problems = _problems(plan, outcome, records)
    for problem in problems:
        typer.echo(problem if problem.startswith(" ") else f"privbench: {problem}", err=True)
    done = f"{len(outcome.computed)} of {len(plan.stages)} stages computed in {time.monotonic() - began:.1f} s"
    typer.echo(f"{done}; {len(records)} records in {results_root(results)}", err=True)
    if problems:
        raise typer.Exit(1)


def _facts(plan: Plan, outcome: Outcome, records: list[Any]) -> dict[str, Any]:
    return {
        "records": [json.loads(record.model_dump_json()) for record, _ in records],
        "failures": run_options.failures(plan, outcome),
        "skipped": [{"cell": skipped.cell.title, "reason": skipped.reason} for skipped in plan.skipped],
    }


def _present(records: list[Any]) -> None:
    if records:
        from rich.console import Console

        from ..analysis.record_set import Records
        from ..report.tables.tables import console

        Console().print(console(Records(tuple(record for record, _ in records), tuple(path for _, path in records))))


def _problems(plan: Plan, outcome: Outcome, records: list[Any]) -> list[str]:
    """What the user must know: cells without a meaning, undefined scores, failed stages."""
    found = [f"n/a: {skipped.cell.title}: {skipped.reason}" for skipped in plan.skipped]
    for record, _ in records:
        cell = record.cell
        found += [
            f"{cell.defense.name} under {cell.attack.name}: {name} is undefined: {score.reason}"
            for name, score in record.scores.items()
            if score.value is None
        ]
    return found + run_options.summary(plan, outcome)


def plan(
    matrix: options.MatrixFile = None,
    dataset: options.Datasets = [],  # noqa: B006
    defense: options.Defenses = [],  # noqa: B006
    attack: options.Attacks = [],  # noqa: B006
    evaluator: options.Evaluators = [],  # noqa: B006
    seed: options.Seeds = [],  # noqa: B006
    budget: options.BudgetOption = None,
    setting: options.Settings = [],  # noqa: B006
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
    as_json: Json = False,
) -> None:
    """Show the stages of a run and what is cached; runs nothing."""
    chosen = options.matrix_of(matrix, dataset, defense, attack, evaluator, seed, budget, setting)
    from ..core.paths import data_root, store_root
    from ..pipeline.plan import build_plan
    from ..store.store import Store

    made = build_plan(chosen.cells(), data_root(data))
    rows = _rows(made, Store(store_root(store)))
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "cached", "took", "key")
    for row in rows["stages"]:
        took = "" if row["seconds"] is None else f"{row['seconds']:.0f} s"
        table.add_row(row["title"], "yes" if row["cached"] else "no", took, row["key"][:12])
    Console().print(table)
    missing = sum(not row["cached"] for row in rows["stages"])
    typer.echo(f"{len(made.cells)} cells, {len(made.stages)} stages, {missing} to compute")
    for entry in rows["skipped"] + rows["not_run"]:
        typer.echo(f"n/a: {entry['what']}: {entry['reason']}")


def _rows(made: Plan, store: Store) -> dict[str, list[dict[str, Any]]]:
    from ..runners.scheduler import map_stages

    stages = []
    manifests = map_stages(store, lambda stage: store.manifest(stage.kind, stage.key), made.stages.values())
    for stage in made.stages.values():
        manifest = manifests[stage.key]
        stages.append(
            {
                "kind": stage.kind,
                "title": stage.title,
                "key": stage.key,
                "inputs": dict(stage.inputs),
                "cached": manifest is not None,
                "seconds": manifest.info["seconds"] if manifest else None,
            }
        )
    skipped = [{"what": skipped.cell.title, "reason": skipped.reason} for skipped in made.skipped]
    reasons = {(name, reason) for cell in made.cells.values() for name, reason in cell.unavailable()}
    return {
        "stages": stages,
        "skipped": skipped,
        "not_run": [{"what": name, "reason": reason} for name, reason in sorted(reasons)],
    }
