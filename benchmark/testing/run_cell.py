"""A run of one cell, and its record there and back."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..analysis.record_set import load_records
from ..core.config import Task
from ..errors import PrivbenchError
from ..pipeline.cell import Cell, Choice, Selection
from ..pipeline.plan import build_plan
from ..pipeline.resolve import resolve
from ..pipeline.session import Session
from ..pipeline.write_record import write_record
from ..records.record import Record
from ..runners import local
from ..store.store import Store
from .check import broken, require
from .component import TINY, ComponentUnderTest
from .samples import CPU, Sample

#: What a defense or data set is attacked with, and an evaluator is given, by kind of evidence.
ATTACKS = {
    "ClassReconstructions": "gmi",
    "PairedReconstructions": "decoder",
    "FeatureEstimates": "feature_regression",
}
_EVALUATORS = {
    "ClassReconstructions": "attack_acc",
    "PairedReconstructions": "mse",
    "FeatureEstimates": "feature_similarity",
}


def round_trip(
    subject: ComponentUnderTest,
    *,
    dataset: Choice | None = None,
    defense: Choice | None = None,
    attack: Choice | None = None,
    evaluator: Choice | None = None,
    task: Task = "classes",
    evidence: str | None = None,
    data: Path | None = None,
) -> None:
    """Run a cell in a temporary folder, and write, read and report its record.

    Args:
        subject: the component on trial.
        dataset: by default a few digits.
        defense: by default none.
        attack: by default one that gives `evidence`.
        evaluator: by default accuracy and one that reads the evidence.
        task: of the default data set.
        evidence: the kind that the default attack gives.
        data: the data folder.

    Raises:
        BrokenLawError: a stage or a score fails, or the record does not come back.
    """
    digits = resolve("dataset", Selection("digits"), "smoke", {})
    dataset = dataset or Choice("dataset", "digits", digits.distribution, Sample(task=task))
    kind = evidence or ("ClassReconstructions" if task == "classes" else "PairedReconstructions")
    attack = attack or choose("attack", ATTACKS[kind], digits)
    reads = _EVALUATORS.get(attack.component.yields)
    usual = [choose("evaluator", name, digits) for name in ("accuracy", *([reads] if reads else []))]
    protocol = dataset.component.protocol
    usual = [choice for choice in usual if not choice.component.unavailable(protocol)]
    evaluators = (evaluator,) if evaluator else tuple(usual)
    defense = defense or choose("defense", "none", digits)
    cell = Cell(dataset, defense, attack, evaluators, 0, "smoke")
    with tempfile.TemporaryDirectory() as folder:
        store = _evidence_store() if evaluator else Path(folder) / "store"
        written = _written(cell, Path(folder), store, data or Path(folder))
        _check_reported(written, Path(folder), cell, subject)


def choose(kind: Any, name: str, digits: Choice) -> Choice:
    """A built-in component with the cheapest settings."""
    cls = resolve(kind, Selection(name), "smoke", {}, digits).component
    settings = {f"{kind}.{field}": value for field, value in TINY.items() if field in type(cls).model_fields}
    if kind == "defense":
        settings |= {"defense.recipe.max_steps": 2, "defense.recipe.batch_size": 16}
    return resolve(kind, Selection(name), "smoke", settings, digits)


@functools.cache
def _evidence_store() -> Path:
    """A store for all evaluators of this process: targets, attacks and judges before them are built in."""
    folder = tempfile.mkdtemp(prefix="privbench-laws-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _written(cell: Cell, folder: Path, root: Path, data: Path) -> Sequence[tuple[Record, Path]]:
    plan, store = build_plan([cell], data), Store(root)
    for skipped in plan.skipped:
        broken(f"the cell is refused: {skipped.reason}", "declare the tasks that the component works on in `tasks`")
    for key in plan.cells:
        store.discard("scores", key)
    outcome = local.execute(plan, Session(store, data, CPU))
    for key, reason in outcome.failures.items():
        broken(f"the stage {plan.stages[key].kind} fails: {reason}", "let it give what the harness stores and reads")
    return [write_record(plan, key, artifact, folder) for key, artifact in outcome.scores.items()]


def _check_reported(
    written: Sequence[tuple[Record, Path]], folder: Path, cell: Cell, subject: ComponentUnderTest
) -> None:
    from ..report.tables.tables import markdown

    try:
        records = load_records(folder, strict=True)
    except PrivbenchError as cause:
        broken(f"the record cannot be read again: {cause}", "choose names and values that a record can hold")
    require(
        list(records) == [record for record, _ in written] and len(records) == 1,
        "the record that is read differs from the one that was written",
        "give scores values that JSON can hold",
    )
    (found,) = records
    for name, score in found.scores.items():
        require(
            score.reason is None or not score.reason.startswith(f"{score.evaluator} failed: "),
            f"the score {name} is lost: {score.reason}",
            "let score() give a Score whose value is None, with the reason, where it is undefined",
        )
    text = markdown(records)
    shown = cell.defense.name in text and cell.attack.name in text
    require(shown, f"the report of the record does not name {subject.title}", "choose a name of letters and digits")
