"""Rerun of a submitted cell from scratch, and comparison of its scores."""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .. import api
from ..errors import PrivbenchError, UnsupportedCellError
from ..pipeline.record_artifacts import name_of
from ..records.record import Record
from ..records.verification import CheckedScore, Published
from .check_components import Components
from .published import reasons_not_run
from .recompute import compare_score


@dataclass(frozen=True)
class RerunConfig:
    """Folders and device of reruns.

    Args:
        store: store only for reruns, so that no artifact of the original run is reused.
        data: the data folder.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    """

    store: Path
    data: Path
    device: str = "auto"


def rerun_cell(
    record: Record, components: Components, config: RerunConfig
) -> tuple[dict[str, CheckedScore], Published]:
    """Run a record's cell and compare every score; returns the comparison, and the numbers of the new run.

    A claimed value must be in the interval of the new run, widened by the square root of 2, since both vary.

    Raises:
        UnsupportedCellError: a component of the record is not installed.
        PrivbenchError: a stage failed.
        CorruptArtifactError: a score differs.
    """
    _require_installed(record, components)
    with tempfile.TemporaryDirectory() as results:
        plan, outcome, records = api.execute(
            [components.cell(record)], data=config.data, store=config.store, results=Path(results), device=config.device
        )
    for key, reason in outcome.failures.items():
        raise PrivbenchError(f"{name_of(record)} cannot be run again: {plan.stages[key].title}: {reason}")
    ((rerun, _),) = records
    found = rerun.model_dump(mode="json")["scores"]
    checked = {
        name: compare_score(record, name, found[name], exact=False, widen=math.sqrt(2)) for name in record.scores
    }
    return checked, Published.of(rerun).model_copy(update={"not_run": reasons_not_run(record, components)})


def _require_installed(record: Record, components: Components) -> None:
    for kind, reason in components.missing.items():
        raise UnsupportedCellError(
            f"{name_of(record)} cannot be run again: its {kind} {getattr(record.cell, kind).name} is not available: "
            f"{reason}; verify it without --rerun"
        )
    for name, reason in components.missing_evaluators.items():
        raise UnsupportedCellError(
            f"{name_of(record)} cannot be run again: its evaluator {name} is not available: {reason}; verify it "
            "without --rerun"
        )
