"""Public Python functions: run cells, load targets."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from . import registry
from .analysis.record_set import Records
from .core.config import Budget, Task
from .core.paths import Address, data_root, require_writable, results_root, store_root
from .errors import InvalidConfigurationError, PrivbenchError, UnsupportedCellError
from .networks.classifiers.network import Network
from .pipeline.cell import Cell, Selection
from .pipeline.matrix import Matrix
from .pipeline.plan import Plan, build_plan
from .pipeline.preflight import require_supported
from .pipeline.resolve import resolve
from .pipeline.session import Session
from .pipeline.trained_models import load_target as _load_target
from .pipeline.write_record import write_record
from .records.record import Record
from .runners import local
from .runners.outcome import Outcome
from .runners.scheduler import Listener
from .store.manifest import Artifact
from .store.store import Store
from .training.device import choose_device

Runner = Literal["local", "ray"]
#: An attack for each task: a target is planned as part of a cell, and does not depend on the attack.
_ATTACKS: dict[Task, str] = {"classes": "kedmi", "attributes": "decoder"}
#: Endings of files of weights, which are no names of defenses.
_FILES = (".safetensors", ".pth", ".pt", ".pkl", ".ckpt", ".bin", ".json")


def execute(
    cells: Sequence[Cell],
    *,
    data: Path,
    store: Path | Address,
    results: Path,
    device: str = "auto",
    runner: Runner = "local",
    address: str | None = None,
    jobs: int = 1,
    threads: int | None = None,
    stage_timeout: float | None = None,
    listener: Listener | None = None,
) -> tuple[Plan, Outcome, list[tuple[Record, Path]]]:
    """Plan cells, compute what is missing and write the record of each as soon as it has its scores.

    Args:
        cells: what to run.
        data: the data folder.
        store: holds artifacts.
        results: folder of records.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        runner: `local` or `ray`; plan, keys and records are the same.
        address: of the Ray cluster; by default `RAY_ADDRESS`, else the one that runs on this machine, else a new one.
        jobs: stages at a time on one machine.
        threads: of the CPU for each stage; by default those of the machine, divided among the jobs.
        stage_timeout: seconds after which a stage is stopped; by default never.
        listener: receives the progress of stages.

    Raises:
        PrivbenchError: a name or value is wrong, a component does not support the images of a data set, or a file that
            a stage to compute reads is missing; failures of stages are in the outcome.
    """
    if address is not None and runner != "ray":
        raise InvalidConfigurationError(f"expected --address with --runner ray only, got {address!r}; leave it out")
    for name, count in (("jobs", jobs), ("threads", threads)):
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise InvalidConfigurationError(f"expected {name} to be an integer of 1 or more, got {count!r}")
    if runner not in get_args(Runner):
        raise InvalidConfigurationError(f"expected runner to be one of {', '.join(get_args(Runner))}, got {runner!r}")
    require_writable(results)
    plan, opened = build_plan(cells, data), Store(store)
    require_supported(plan.cells.values())
    chosen = choose_device(device) if runner == "local" else None
    written: dict[str, tuple[Record, Path]] = {}
    with opened.lease(plan.stages) as renew:

        def on_scores(key: str, artifact: Artifact) -> None:
            written[key] = write_record(plan, key, artifact, results)
            renew()

        if chosen is None:
            from .runners import ray
            from .runners.ray_cluster import Cluster

            cluster = Cluster(address, jobs, threads, stage_timeout)
            outcome = ray.execute(plan, opened, data, device, cluster, listener, on_scores)
        else:
            session = Session(opened, data, chosen)
            outcome = local.execute(
                plan, session, listener, jobs, threads=threads, stage_timeout=stage_timeout, on_scores=on_scores
            )
    return plan, outcome, [written[key] for key in outcome.scores]


def run(
    defense: str | Sequence[str],
    attack: str | Sequence[str],
    *,
    dataset: str | Sequence[str] = "digits",
    evaluators: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    budget: Budget = "quick",
    settings: Mapping[str, Any] | None = None,
    controls: bool = True,
    sandbox: bool | None = None,
    data: str | Path | None = None,
    store: str | Path | None = None,
    results: str | Path | None = None,
    device: str = "auto",
    runner: Runner = "local",
    jobs: int = 1,
    threads: int | None = None,
) -> Records:
    """Run every data set x defense x attack x seed and return the records, those of controls last.

    Args:
        defense: names, each with an optional `:preset`.
        attack: names, each with an optional `:preset`.
        dataset: names.
        evaluators: names; by default all that apply.
        seeds: one cell each.
        budget: `smoke`, `quick` or `full`.
        settings: `scope.field` to value, such as `{"attack.iterations": 500}`.
        controls: also attack a placebo, a target trained on permuted labels, under the first seed.
        sandbox: run every attack (or none) in a process of its own; by default those of plugins.
        data: folder of the data sets; by default `PRIVBENCH_DATA` or the user's data folder.
        store: folder of artifacts or URL of a shared store; by default `PRIVBENCH_STORE` or the user's cache folder.
        results: folder of records; by default `PRIVBENCH_RESULTS` or `results`.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        runner: `local` or `ray`.
        jobs: stages at a time on one machine.
        threads: of the CPU for each stage; by default those of the machine, divided among the jobs.

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
        controls,
        sandbox=sandbox,
    )
    plan, outcome, records = execute(
        matrix.cells(),
        data=data_root(data),
        store=store_root(store),
        results=results_root(results),
        device=device,
        runner=runner,
        jobs=jobs,
        threads=threads,
    )
    for key, reason in outcome.failures.items():
        raise PrivbenchError(f"{plan.stages[key].title} failed: {reason}")
    return Records(tuple(record for record, _ in records), tuple(path for _, path in records))


def load_target(
    source: str | Path | None = None,
    *,
    defense: str | None = None,
    zoo: str | Path | None = None,
    check_accuracy: bool = False,
    dataset: str | None = None,
    seed: int | None = None,
    budget: Budget | None = None,
    settings: Mapping[str, Any] | None = None,
    data: str | Path | None = None,
    store: str | Path | None = None,
    device: str = "cpu",
) -> Network:
    """Load a trained target, in evaluation mode: from the store, an exported folder, or a zoo.

    With `zoo`, `source` is a name in it. Otherwise a `Path`, and text with a separator, is the folder of an export.
    Other text is a registered defense (with an optional `:preset`), else a folder, else a name in `PRIVBENCH_ZOO`.

    A target from the store must repeat its stored predictions, which needs the data set. An exported target must match
    its SHA-256 before it is parsed, fit the network that it names tensor by tensor, and repeat its stored logits for
    noise images; nothing is unpickled. Its manifest describes an export, so `dataset`, `seed`, `budget`, `settings` and
    `store` are refused for one.

    Args:
        source: see above.
        defense: the same as a `source` that is a defense, whatever else has that name.
        zoo: folder, `https://` or `file://` address of a zoo; by default `PRIVBENCH_ZOO`.
        check_accuracy: test the target again on the private test images; a difference of more than 0.01 is an error.
        dataset: of a defense; by default `digits`.
        seed: of a defense; by default 0.
        budget: of a defense; by default `quick`.
        settings: of a defense, `scope.field` to value.
        data: folder of the data sets; by default `PRIVBENCH_DATA` or the user's data folder.
        store: folder of artifacts or URL of a shared store; by default `PRIVBENCH_STORE` or the user's cache folder.
        device: where to put the target.

    Raises:
        PrivbenchError: it has not been trained yet, is not there, or is not what it should be.
    """
    if (source is None) == (defense is None):
        raise InvalidConfigurationError("expected either source or defense, got both or neither; give one of them")
    export = None if source is None else _export(source, zoo)
    if defense is not None and zoo is not None:
        raise InvalidConfigurationError("expected defense without zoo, got both; name a target of the zoo as source")
    if export is None:
        return _from_store(
            str(source) if defense is None else defense,
            "digits" if dataset is None else dataset,
            0 if seed is None else seed,
            "quick" if budget is None else budget,
            dict(settings or {}),
            data,
            store,
            device,
            check_accuracy,
        )
    given = {"dataset": dataset, "seed": seed, "budget": budget, "settings": settings, "store": store}
    for name, value in given.items():
        if value is not None:
            raise InvalidConfigurationError(
                f"expected {name} to be left out for an exported target, whose manifest says it, got {value!r}; omit it"
            )
    from .exports.load import load_export

    folder, sha256 = export
    chosen_device = choose_device(device)
    return load_export(folder, sha256=sha256, device=chosen_device, check_accuracy=check_accuracy, data=data_root(data))


def _export(source: str | Path, zoo: str | Path | None) -> tuple[Path, str | None] | None:
    """Return the folder of an exported target and, from a zoo, the SHA-256 of its manifest; `None` for a defense."""
    from .exports.zoo import locate, open_zoo

    text = str(source)
    if zoo is None:
        if isinstance(source, Path) or any(separator in text for separator in ("/", os.sep)):
            return Path(source).expanduser(), None
        if text.partition(":")[0].strip() in registry.names("defense"):
            return None
        if Path(text).exists() or Path(text).suffix in _FILES:
            return Path(text), None
        zoo = os.environ.get("PRIVBENCH_ZOO") or None
    if zoo is None:
        return None
    opened = open_zoo(zoo)
    return locate(opened, text), opened.entry(text).manifest.sha256


def _from_store(
    defense: str,
    dataset: str,
    seed: int,
    budget: Budget,
    fields: dict[str, Any],
    data: str | Path | None,
    store: str | Path | None,
    device: str,
    check_accuracy: bool,
) -> Network:
    """Load the target of a defense from the store and check its stored predictions."""
    task = resolve("dataset", Selection.parse(dataset), budget, fields).component.protocol.task
    attacks = _selections(_ATTACKS[task])
    chosen = (_selections(dataset), _selections(defense), attacks, None, (seed,), budget, fields)
    cell = Matrix(*chosen, controls=False, sandbox=False).cells()[0]
    root, place = data_root(data), choose_device(device)
    session = Session(Store(store_root(store)), root, place)
    plan = build_plan([cell], root)
    if plan.skipped:
        raise UnsupportedCellError(plan.skipped[0].reason)
    stage = next(stage for stage in plan.stages.values() if stage.kind == "target")
    artifact = session.store.find("target", stage.key)
    if artifact is None:
        command = (
            f"privbench run --dataset {dataset} --defense {defense} --attack {_ATTACKS[task]} --seed {seed} "
            f"--budget {budget}"
        )
        raise PrivbenchError(f"expected {stage.title} to be in the store; train it with `{command}`")
    test = session.images(cell.dataset, "private_test")
    network = _load_target(artifact, cell, test, place)
    if check_accuracy:
        from .exports.load import recheck

        claim = (artifact.info["test_accuracy"], artifact.info["n"])
        protocol = cell.dataset.component.protocol
        recheck(network, test, protocol, claim, artifact.info["prediction_seed"], place, str(artifact.path))
    return network


def _selections(names: str | Sequence[str]) -> tuple[Selection, ...]:
    return tuple(Selection.parse(name) for name in ([names] if isinstance(names, str) else names))
