"""Messages about a finished run, which `run` and `paper run` share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.text import count
from .output import echo

if TYPE_CHECKING:
    from ..analysis.record_set import Records
    from ..pipeline.plan import Plan
    from ..records.record import Record
    from ..runners.outcome import Outcome

#: Cells that are named for one failed stage.
_MOST_CELLS = 3


def notes(record: Record) -> list[str]:
    """Flags of a record, and its stages that ran out of memory."""
    found = [flag.message for flag in record.flags]
    found += [
        f"out of memory in {stage}; continued with {count(cost.images_at_once, 'image')} at once"
        for stage, cost in record.costs.items()
        if cost.images_at_once is not None
    ]
    return [f"note: {record.cell.defense.name} under {record.cell.attack.name}: {note}" for note in found]


def failures(plan: Plan, outcome: Outcome) -> list[dict[str, Any]]:
    """The stages that failed themselves, as JSON."""
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


def problems(plan: Plan, outcome: Outcome) -> list[str]:
    """Cells that do not apply, and stages that failed themselves, line by line."""
    lines = [f"n/a: {skipped.cell.title}: {skipped.reason}" for skipped in plan.skipped]
    failed = failures(plan, outcome)
    if failed:
        cells = count(sum(key in outcome.failures for key in plan.cells), "cell")
        lines.append(f"{cells} failed; run the same command again to recompute only the failed stages:")
    for failure in failed:
        titles = failure["cells"]
        more = f" and {len(titles) - _MOST_CELLS} more" if len(titles) > _MOST_CELLS else ""
        affected = f" (affects {len(titles)} cells: {'; '.join(titles[:_MOST_CELLS])}{more})" if len(titles) > 1 else ""
        lines.append(f"    {failure['stage']}: {failure['reason']}{affected}")
    return lines


def print_totals(plan: Plan, outcome: Outcome, began: float, records: Records, results: Path | None) -> None:
    """Print the numbers of computed stages and records, and the time since `began`."""
    from ..core.paths import results_root

    stages = (
        f"{len(outcome.computed)} of {count(len(plan.stages), 'stage')} computed in {time.monotonic() - began:.1f} s"
    )
    echo(f"{stages}; {count(len(records), 'record')} in {results_root(results)}", err=True)
