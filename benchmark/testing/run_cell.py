"""A run of one cell, and the round trip of its record."""

import atexit
import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .. import registry
from ..analysis.record_set import load_records
from ..core.config import Task
from ..errors import PrivbenchError
from ..pipeline.cell import Cell, Choice, Selection
from ..pipeline.plan import build_plan
from ..pipeline.resolve import resolve
from ..pipeline.session import Session
from ..pipeline.write_record import write_record
from ..records.record import Record
from ..registry import Kind
from ..runners import local
from ..store.store import Store
from .check import fail, require
from .component import TINY, ComponentUnderTest, digits
from .samples import CPU, Sample

#: Attack on the default cell, by kind of evidence.
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
    """Run a cell in a temporary folder; write, read and report its record.

    Args:
        subject: the component under test.
        dataset: by default a few digits.
        defense: by default `none`.
        attack: by default one that returns `evidence`.
        evaluator: by default accuracy and one that reads the evidence.
        task: of the default data set.
        evidence: the kind that the default attack returns.
        data: the data folder.

    Raises:
        ConformanceError: a stage or a score fails, or the record changes when it is written and read.
    """
    dataset = dataset or sample_choice(Sample(task=task))
    kind = evidence or ("ClassReconstructions" if task == "classes" else "PairedReconstructions")
    attack = attack or choose("attack", ATTACKS[kind])
    reads = _EVALUATORS.get(attack.component.yields)
    usual = [choose("evaluator", name) for name in ("accuracy", *([reads] if reads else []))]
    protocol = dataset.component.protocol
    usual = [choice for choice in usual if not choice.component.unavailable(protocol)]
    evaluators = (evaluator,) if evaluator else tuple(usual)
    defense = defense or choose("defense", "none")
    cell = Cell(dataset, defense, attack, evaluators, 0, "smoke")
    with tempfile.TemporaryDirectory() as folder:
        store = _evidence_store() if evaluator else Path(folder) / "store"
        written = _run(cell, Path(folder), store, data or Path(folder))
        _check_reported(written, Path(folder), cell, subject)


def sample_choice(sample: Sample) -> Choice:
    """The few digits in place of the data set `digits`, as one of another package: it has fewer attacked labels."""
    return dataclasses.replace(digits(), distribution="privbench.testing", component=sample)


def choose(kind: Kind, name: str) -> Choice:
    """A built-in component with the cheapest settings."""
    cls = registry.load(kind, name)
    settings = {f"{kind}.{field}": value for field, value in TINY.items() if field in cls.model_fields}
    if kind == "defense":
        settings |= {"defense.recipe.max_steps": 2, "defense.recipe.batch_size": 16}
    return resolve(kind, Selection(name), "smoke", settings, digits())


@functools.cache
def _evidence_store() -> Path:
    """A store that the checks of all evaluators in this process share, as the stages before are the same."""
    folder = tempfile.mkdtemp(prefix="privbench-check-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _run(cell: Cell, folder: Path, root: Path, data: Path) -> Sequence[tuple[Record, Path]]:
    plan, store = build_plan([cell], data), Store(root)
    for skipped in plan.skipped:
        fail(f"the cell is rejected: {skipped.reason}", "declare the tasks that the component supports in `tasks`")
    for key in plan.cells:
        store.discard("scores", key)
    outcome = local.execute(plan, Session(store, data, CPU))
    for key, reason in outcome.failures.items():
        fail(f"the stage {plan.stages[key].kind} fails: {reason}", "return values that privbench can store and read")
    return [write_record(plan, key, artifact, folder) for key, artifact in outcome.scores.items()]


def _check_reported(
    written: Sequence[tuple[Record, Path]], folder: Path, cell: Cell, subject: ComponentUnderTest
) -> None:
    from ..report.tables.tables import markdown

    try:
        records = load_records(folder, strict=True)
    except PrivbenchError as cause:
        fail(f"the record cannot be read: {cause}", "choose names and values that a record can hold")
    require(
        list(records) == [record for record, _ in written] and len(records) == 1,
        "the record that is read differs from the one that was written",
        "give scores values that JSON can represent",
    )
    (found,) = records
    for name, score in found.scores.items():
        require(
            score.reason is None or not score.reason.startswith(f"{score.evaluator} failed: "),
            f"the score {name} failed: {score.reason}",
            "for an undefined score, return a Score with the value None and the reason",
        )
    text = markdown(records)
    shown = cell.defense.name in text and cell.attack.name in text
    require(shown, f"the report of the record does not name {subject.title}", "choose a name of letters and digits")
