"""`privbench run` and `privbench plan`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import typer

from ..core.config import is_placebo
from ..core.text import count
from .options import CellOptions, RunOptions, expand_groups
from .outcome import failures, notes, print_totals, problems
from .output import console, echo, print_json, print_problems, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..analysis.record_set import Records
    from ..pipeline.plan import Plan
    from ..pipeline.preflight import Gap
    from ..runners.outcome import Outcome
    from ..store.store import Store


@expand_groups
def run(selection: CellOptions, options: RunOptions) -> None:
    """Train or load targets, attack them and score the attacks.

    Writes a record of each cell and prints a table. Artifacts in the store are not computed again; run the same command
    again to resume an interrupted run.
    """
    began = time.monotonic()
    plan, outcome, records = options.execute(selection.cells())
    if options.as_json:
        print_json(_facts(plan, outcome, records))
    elif records:
        from ..report.tables import tables

        console().print(tables.console(records))
    for record in records:
        for note in notes(record):
            echo(note, err=True)
    found = [*undefined_scores(records), *problems(plan, outcome)]
    print_problems(found)
    print_totals(plan, outcome, began, records, options.results)
    if found:
        raise typer.Exit(1)


def _facts(plan: Plan, outcome: Outcome, records: Records) -> dict[str, Any]:
    return {
        "records": [json.loads(record.model_dump_json()) for record in records],
        "failures": failures(plan, outcome),
        "skipped": [{"cell": skipped.cell.title, "reason": skipped.reason} for skipped in plan.skipped],
    }


def undefined_scores(records: Records) -> Iterator[str]:
    """Name the scores that have no value although they have a meaning; those of controls do not count."""
    for record in records:
        if is_placebo(record.cell.defense.name, record.cell.defense.distribution):
            continue  # a target that knows no labels may leave scores undefined
        for name, score in record.scores.items():
            if score.value is None and not score.not_applicable:
                cell = f"{record.cell.defense.name} under {record.cell.attack.name}"
                yield f"{cell}: {name} is undefined: {score.reason}"


@expand_groups
def plan(selection: CellOptions, options: RunOptions) -> None:
    """Show the stages of a run, and which are cached.

    Nothing is run or downloaded. Missing files, such as weights, are listed; if a run needs them, the exit code is 1.
    Every option of `run` is accepted; --results, --device, --jobs, --runner, --address, --threads and
    --stage-timeout do not change the plan.
    """
    from ..core.paths import data_root, store_root
    from ..pipeline.plan import build_plan
    from ..pipeline.preflight import require_supported
    from ..store.store import Store

    made = build_plan(selection.cells(), data_root(options.data))
    require_supported(made.cells.values())
    facts = _plan_facts(made, Store(store_root(options.store)))
    if options.as_json:
        print_json(facts)
    else:
        _print_plan(facts, len(made.cells))
    if facts["missing"]:
        raise typer.Exit(1)


def _print_plan(facts: Mapping[str, list[dict[str, Any]]], cells: int) -> None:
    print_table(
        ("stage", "cached", "took", "key"),
        [
            (
                row["title"],
                "yes" if row["cached"] else "no",
                "" if row["seconds"] is None else f"{row['seconds']:.0f} s",
                row["key"][:12],
            )
            for row in facts["stages"]
        ],
    )
    missing = sum(not row["cached"] for row in facts["stages"])
    echo(f"{count(cells, 'cell')}, {count(len(facts['stages']), 'stage')}, {missing} to compute")
    for entry in facts["skipped"]:
        echo(f"n/a: {entry['what']}: {entry['reason']}")
    for word, kind in (("n/a", "not_run"), ("cannot run", "missing")):
        for entry in facts[kind]:
            echo(f"{word}: {entry['what']} ({count(entry['cells'], 'cell')}): {entry['reason']}")


def _plan_facts(made: Plan, store: Store) -> dict[str, list[dict[str, Any]]]:
    from ..pipeline.preflight import missing_files, unavailable_scores
    from ..runners.pending import map_stages, to_compute

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
    return {
        "stages": stages,
        "skipped": [{"what": skipped.cell.title, "reason": skipped.reason} for skipped in made.skipped],
        "not_run": _gap_facts(unavailable_scores(made.cells.values())),
        "missing": _gap_facts(missing_files(made, to_compute(made, manifests))),
    }


def _gap_facts(gaps: list[Gap]) -> list[dict[str, Any]]:
    return [{"what": ", ".join(gap.users), "reason": gap.reason, "cells": gap.cells} for gap in gaps]
