"""A submitted cell, run again from nothing through the ordinary plan, and its scores compared."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from .. import api
from ..errors import PrivbenchError, UnsupportedCellError
from ..pipeline.record_artifacts import name_of
from ..records.record import Record
from ..records.verification import CheckedScore
from .check_components import Components
from .recompute import SAME, compare


@dataclass(frozen=True)
class Rerun:
    """Where cells are run again.

    Args:
        store: of reruns alone, so that nothing that was computed for the record is taken for a second computation.
        data: the data folder.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
    """

    store: Path
    data: Path
    device: str = "auto"


def rerun(record: Record, components: Components, how: Rerun) -> dict[str, CheckedScore]:
    """Run a record's cell and compare every score: equal where the evidence is the same, else within its interval.

    Raises:
        UnsupportedCellError: a component of the record is not installed.
        PrivbenchError: a stage failed.
        CorruptArtifactError: a score is another one.
    """
    _require_installed(record, components)
    with tempfile.TemporaryDirectory() as results:
        plan, outcome, records = api.execute(
            [components.cell(record)], data=how.data, store=how.store, results=Path(results), device=how.device
        )
    for key, reason in outcome.failures.items():
        raise PrivbenchError(f"{name_of(record)} cannot be run again: {plan.stages[key].title}: {reason}")
    ((again, _),) = records
    found = again.model_dump(mode="json")["scores"]
    same = _digests(again) == _digests(record)
    return {name: compare(record, name, found[name], SAME if same else ()) for name in record.scores}


def _require_installed(record: Record, components: Components) -> None:
    for kind, reason in components.absent.items():
        raise UnsupportedCellError(
            f"{name_of(record)} cannot be run again: its {kind} {getattr(record.cell, kind).name} cannot be "
            f"made here: {reason}; leave --rerun out"
        )
    for name, reason in components.missing.items():
        raise UnsupportedCellError(
            f"{name_of(record)} cannot be run again: evaluator {name} cannot score here: {reason}; leave --rerun out"
        )


def _digests(record: Record) -> dict[str, str]:
    """What the scores were made from, to the last bit."""
    return {role: reference.digest for role, reference in record.artifacts.items() if role != "scores"}
