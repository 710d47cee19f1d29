"""The public Python functions: run cells, load targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .contracts import Budget, Task
from .errors import PrivbenchError, UnsupportedCellError
from .folders import data_root, require_writable, results_root, store_root
from .models import load_target as _load_target
from .networks.network import Network
from .plan import Plan, make
from .records import Record, Records
from .results import write_records
from .runners import local
from .spec import Cell, Matrix, Selection, resolve
from .stages import Workshop
from .store import Store
from .training import choose_device

#: An attack for each task: a target is planned as part of a cell, and does not depend on the attack.
_ATTACKS: dict[Task, str] = {"classes": "kedmi", "attributes": "decoder"}


def execute(
    cells: Sequence[Cell],
    *,
    data: Path,
    store: Path,
    results: Path,
    device: str = "auto",
    jobs: int = 1,
    listener: local.Listener | None = None,
) -> tuple[Plan, local.Outcome, list[tuple[Record, Path]]]:
    """Plan cells, compute what is missing and write their records."""
    chosen = choose_device(device)
    require_writable(results)
    plan = make(cells, data)
    progress = listener.progress if listener else None
    outcome = local.execute(plan, Workshop(Store(store), data, chosen, progress), listener, jobs)
    return plan, outcome, write_records(plan, outcome, results)


def run(
    defense: str | Sequence[str],
    attack: str | Sequence[str],
    *,
    dataset: str | Sequence[str] = "digits",
    evaluators: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    budget: Budget = "quick",
    settings: Mapping[str, Any] | None = None,
    data: Path | None = None,
    store: Path | None = None,
    results: Path | None = None,
    device: str = "auto",
) -> Records:
    """Run every data set x defense x attack x seed and return the records.

    Args:
        defense: names, each with an optional `:preset`.
        attack: names, each with an optional `:preset`.
        dataset: names.
        evaluators: names; by default all that apply.
        seeds: one cell each.
        budget: `smoke`, `quick` or `full`.
        settings: `scope.field` to value, such as `{"attack.iterations": 500}`.
        data: folder of the data sets; by default `PRIVBENCH_DATA` or the user's data folder.
        store: folder of artifacts; by default `PRIVBENCH_STORE` or the user's cache folder.
        results: folder of records; by default `PRIVBENCH_RESULTS` or `results`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Raises:
        PrivbenchError: a name or value is wrong, or a stage failed.
    """
    matrix = Matrix(
        _selections(dataset),
        _selections(defense),
        _selections(attack),
        None if evaluators is None else _selections(evaluators),
        tuple(seeds),
        budget,
        dict(settings or {}),
    )
    plan, outcome, records = execute(
        matrix.cells(),
        data=data_root(data),
        store=store_root(store),
        results=results_root(results),
        device=device,
    )
    for key, reason in outcome.failures.items():
        raise PrivbenchError(f"{plan.stages[key].title} failed: {reason}")
    return Records(tuple(record for record, _ in records), tuple(path for _, path in records))


def load_target(
    defense: str,
    *,
    dataset: str = "digits",
    seed: int = 0,
    budget: Budget = "quick",
    settings: Mapping[str, Any] | None = None,
    data: Path | None = None,
    store: Path | None = None,
    device: str = "cpu",
) -> Network:
    """The trained target of a defense out of the store, checked against its stored predictions.

    Raises:
        PrivbenchError: it has not been trained yet, or its file is damaged.
    """
    fields = dict(settings or {})
    task = resolve("dataset", Selection.parse(dataset), budget, fields).component.protocol.task
    attacks = _selections(_ATTACKS[task])
    matrix = Matrix(_selections(dataset), _selections(defense), attacks, None, (seed,), budget, fields)
    cell = matrix.cells()[0]
    root, chosen = data_root(data), choose_device(device)
    workshop = Workshop(Store(store_root(store)), root, chosen)
    plan = make([cell], root)
    if plan.skipped:
        raise UnsupportedCellError(plan.skipped[0].reason)
    stage = next(stage for stage in plan.stages.values() if stage.kind == "target")
    artifact = workshop.store.find("target", stage.key)
    if artifact is None:
        command = (
            f"privbench run --dataset {dataset} --defense {defense} --attack {_ATTACKS[task]} --seed {seed} "
            f"--budget {budget}"
        )
        raise PrivbenchError(f"expected {stage.title} to be in the store; train it with `{command}`")
    return _load_target(artifact, cell, workshop.images(cell.dataset, "private_test"), chosen)


def _selections(names: str | Sequence[str]) -> tuple[Selection, ...]:
    return tuple(Selection.parse(name) for name in ([names] if isinstance(names, str) else names))
