"""What `run` and `paper run` share: where and how stages are computed, and what is said of those that failed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..pipeline.plan import Plan
    from ..records.record import Record
    from ..runners.scheduler import Outcome

Jobs = Annotated[
    int, typer.Option("--jobs", "-j", min=1, help="Stages to compute at a time on a machine, sharing its CPU threads.")
]
Runner = Annotated[str, typer.Option("--runner", help="local: this machine; ray: a Ray cluster.")]
Address = Annotated[
    str | None,
    typer.Option("--address", help="Of the Ray cluster, HOST:PORT; default: RAY_ADDRESS, the one here, or a new one."),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads of a stage; default: those of the machine, divided by --jobs."),
]
StageTimeout = Annotated[
    float | None, typer.Option("--stage-timeout", metavar="SECONDS", help="Stop a stage that takes longer.")
]
#: Cells that are named for one failed stage.
_MOST_CELLS = 3


def how(
    runner: str, address: str | None, jobs: int, threads: int | None, stage_timeout: float | None
) -> dict[str, Any]:
    """The options as `api.execute` takes them.

    Raises:
        typer.BadParameter: a value is out of range.
    """
    if runner not in ("local", "ray"):
        raise typer.BadParameter(f"expected --runner to be local or ray, got {runner!r}")
    if stage_timeout is not None and not 0 < stage_timeout < float("inf"):
        raise typer.BadParameter(f"expected --stage-timeout to be a number of seconds above 0, got {stage_timeout:g}")
    return {
        "runner": runner,
        "address": address,
        "jobs": jobs,
        "threads": threads,
        "stage_timeout": stage_timeout,
    }


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Say after Ctrl-C how to go on, and end with 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("privbench: interrupted; the same command goes on where it stopped", err=True)
        raise typer.Exit(130) from None


def failures(plan: Plan, outcome: Outcome) -> list[dict[str, Any]]:
    """The stages that failed by themselves, for a machine to read."""
    return [
        {
            "stage": cause.stage.title,
            "kind": cause.stage.kind,
            "key": cause.stage.key,
            "reason": cause.reason,
            "cells": [plan.cells[key].title for key in cause.cells],
        }
        for cause in outcome.causes(plan)
    ]


def halved(record: Record) -> list[str]:
    """Stages of a record that memory ran out in."""
    return [
        f"memory ran out in {stage}, which went on with {cost.images_at_once} images at once"
        for stage, cost in record.costs.items()
        if cost.images_at_once is not None
    ]


def summary(plan: Plan, outcome: Outcome) -> list[str]:
    """The stages that failed by themselves, and what they cost, line by line."""
    found = failures(plan, outcome)
    if not found:
        return []
    lost = sum(key in outcome.failures for key in plan.cells)
    lines = [f"{lost} cell{'s were' if lost > 1 else ' was'} lost; the same command computes only what failed:"]
    for one in found:
        cells = one["cells"]
        named = "; ".join(cells[:_MOST_CELLS]) + (f" and {len(cells) - _MOST_CELLS} more" * (len(cells) > _MOST_CELLS))
        costs = f" (costs {len(cells)} cells: {named})" if len(cells) > 1 else ""
        lines.append(f"    {one['stage']}: {one['reason']}{costs}")
    return lines
