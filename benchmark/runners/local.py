"""Run a plan on this machine: one stage after the other, or several at once in processes of their own."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from ..errors import PrivbenchError
from ..plan import Plan, Stage
from ..stages import Workshop, run
from ..store import Artifact, Store
from ..training import Progress, Silent

log = logging.getLogger("privbench")


class Listener(Protocol):
    """Told of stages as they begin and end."""

    @property
    def progress(self) -> Progress:
        """Told of every training step."""

    def begin(self, stage: Stage, index: int, total: int) -> None:
        """A stage begins: number `index` (from 1) of `total` to compute."""

    def end(self, stage: Stage, seconds: float) -> None:
        """A stage is done."""

    def fail(self, stage: Stage, reason: str) -> None:
        """A stage failed; its cells are lost, the others go on."""


class Quiet:
    """A listener that says nothing."""

    progress: Progress = Silent()

    def begin(self, stage: Stage, index: int, total: int) -> None:
        """Ignore."""

    def end(self, stage: Stage, seconds: float) -> None:
        """Ignore."""

    def fail(self, stage: Stage, reason: str) -> None:
        """Ignore."""


@dataclass
class Outcome:
    """What became of a plan.

    Args:
        scores: artifact of the scores stage, by its key.
        failures: reason by the key of the stage that failed or could not be reached.
        computed: keys of the stages computed now.
    """

    scores: dict[str, Artifact] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    computed: list[str] = field(default_factory=list)


def survey(plan: Plan, store: Store) -> dict[str, Artifact | None]:
    """Every stage's artifact after verification; what does not match its manifest goes to quarantine.

    A stage whose artifact is missing is computed only if a stage that is to be computed reads it; one whose artifact
    was damaged is always computed again, so that a plan leaves nothing damaged behind.
    """
    found: dict[str, Artifact | None] = {}
    for stage in plan.stages.values():
        found[stage.key] = _usable(store, stage)
    return found


def needed(plan: Plan, found: dict[str, Artifact | None], damaged: set[str]) -> list[Stage]:
    """The stages to compute, in order."""
    want = set(damaged)
    for stage in reversed(plan.stages.values()):
        if found[stage.key] is None and (stage.key in plan.cells or stage.key in want):
            want.add(stage.key)
        if stage.key in want:
            want |= {key for key in stage.inputs.values() if found[key] is None}
    return [stage for stage in plan.stages.values() if stage.key in want]


def execute(plan: Plan, workshop: Workshop, listener: Listener | None = None, jobs: int = 1) -> Outcome:
    """Compute what is missing.

    Args:
        plan: what to do.
        workshop: where to do it.
        listener: told of stages.
        jobs: processes at a time; each takes its share of the CPU's threads (which changes rounding: bytes are the
            same for the same number of threads), and of the CUDA devices in turn.

    Returns:
        Scores and failures. A failed stage costs the cells that need it, no others.
    """
    listener = listener or Quiet()
    before = {stage.key for stage in plan.stages.values() if workshop.store.exists(stage.kind, stage.key)}
    found = survey(plan, workshop.store)
    damaged = {key for key in before if found[key] is None}
    todo = needed(plan, found, damaged)
    outcome = Outcome()
    if jobs <= 1 or len(todo) <= 1:
        _serial(todo, workshop, listener, outcome)
    else:
        _parallel(todo, workshop, listener, outcome, min(jobs, len(todo)))
    for key in plan.cells:
        if key not in outcome.failures:
            artifact = found[key] or workshop.store.find("scores", key)
            assert artifact is not None
            outcome.scores[key] = artifact
    return outcome


def _serial(todo: Sequence[Stage], workshop: Workshop, listener: Listener, outcome: Outcome) -> None:
    for index, stage in enumerate(todo, 1):
        reason = _blocked(stage, outcome)
        if reason is None:
            listener.begin(stage, index, len(todo))
            began = time.monotonic()
            reason = attempt(stage, workshop)
            if reason is None:
                outcome.computed.append(stage.key)
                listener.end(stage, time.monotonic() - began)
                continue
        outcome.failures[stage.key] = reason
        listener.fail(stage, reason)


def _blocked(stage: Stage, outcome: Outcome) -> str | None:
    for role, key in stage.inputs.items():
        if key in outcome.failures:
            return f"its {role} failed"
    return None


def attempt(stage: Stage, workshop: Workshop) -> str | None:
    """Compute one stage under its lock, unless another process did meanwhile; the reason if it fails."""
    try:
        with workshop.store.lock(stage.kind, stage.key):
            if _usable(workshop.store, stage) is None:
                run(stage, workshop)
    except PrivbenchError as cause:
        return str(cause)
    except (MemoryError, torch.OutOfMemoryError):
        return "out of memory; use a smaller batch, a smaller chunk or another device"
    except Exception as cause:  # a plugin's fault: the other cells go on
        log.debug("%s failed", stage.title, exc_info=True)
        where = _raised_in(cause)
        return f"{type(cause).__name__} in {where}: {cause}; --debug shows where"
    return None


def _raised_in(cause: BaseException) -> str:
    trace = cause.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return Path(trace.tb_frame.f_code.co_filename).name if trace else "unknown"


def _usable(store: Store, stage: Stage) -> Artifact | None:
    """The stage's artifact, unless it holds scores of an evaluator that raised: those are tried again."""
    artifact = store.find(stage.kind, stage.key)
    if artifact is not None and artifact.info.get("failed"):
        store.discard(stage.kind, stage.key)
        return None
    return artifact


def _parallel(todo: Sequence[Stage], workshop: Workshop, listener: Listener, outcome: Outcome, jobs: int) -> None:
    threads = max(1, torch.get_num_threads() // jobs)
    waiting = {stage.key: stage for stage in todo}
    numbers = {stage.key: index for index, stage in enumerate(todo, 1)}
    running: dict[Future[str | None], tuple[Stage, float, torch.device]] = {}
    devices = _devices(workshop.device, jobs)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start, initargs=(threads,)) as pool:
        while waiting or running:
            for stage in _ready(waiting, running, outcome):
                reason = _blocked(stage, outcome)
                if reason is None and not devices:
                    continue
                del waiting[stage.key]
                if reason is not None:
                    outcome.failures[stage.key] = reason
                    listener.fail(stage, reason)
                    continue
                device = devices.pop()
                listener.begin(stage, numbers[stage.key], len(todo))
                future = pool.submit(_work, stage, workshop.store.root, workshop.data_root, device)
                running[future] = (stage, time.monotonic(), device)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage, began, device = running.pop(future)
                devices.append(device)
                reason = _result(future)
                if reason is None:
                    outcome.computed.append(stage.key)
                    listener.end(stage, time.monotonic() - began)
                else:
                    outcome.failures[stage.key] = reason
                    listener.fail(stage, reason)


def _ready(
    waiting: dict[str, Stage], running: dict[Future[str | None], tuple[Stage, float, torch.device]], outcome: Outcome
) -> Iterator[Stage]:
    """Stages none of whose inputs is still to come."""
    busy = waiting.keys() | {stage.key for stage, _, _ in running.values()}
    return iter([stage for stage in waiting.values() if not busy & set(stage.inputs.values())])


def _result(future: Future[str | None]) -> str | None:
    try:
        return future.result()
    except Exception as cause:  # the process died
        return f"its process ended: {cause}"


def _devices(device: torch.device, jobs: int) -> list[torch.device]:
    if (device.type == "cuda" and device.index is None) or (device.type == "cuda" and jobs > 1):
        count = torch.cuda.device_count()
        return [torch.device("cuda", i % count) for i in range(jobs)]
    return [device] * jobs


def _start(threads: int) -> None:
    torch.set_num_threads(threads)


def _work(stage: Stage, store: Path, data_root: Path, device: torch.device) -> str | None:
    return attempt(stage, Workshop(Store(store), data_root, device))
