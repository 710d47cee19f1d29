"""Which stages to compute, in which order, and what a failure costs: the same for every runner.

A runner gives a executor, which starts stages and tells what became of them; nothing else differs between runners.
"""

from __future__ import annotations

import contextlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from ..errors import CorruptArtifactError, StorageError
from ..pipeline.plan import Plan, Stage
from ..store.manifest import Artifact
from ..store.store import Store
from ..training.progress import NullProgress, Progress
from .attempt import Report, usable

#: A stage may be lost so many times more often where it had not begun.
_UNBEGUN = 10
#: Requests at a time to a tier that machines share.
_READERS = 16
#: Told of the key and the scores of a cell.
Scored = Callable[[str, Artifact], None]
_T = TypeVar("_T")


class Listener(Protocol):
    """Told of stages as they begin and end."""

    def begin(self, stage: Stage, index: int, total: int) -> None:
        """A stage begins: number `index` (from 1) of `total` to compute."""

    def watch(self, stage: Stage) -> Progress:
        """What to tell of the training steps of a stage that begins."""

    def end(self, stage: Stage, seconds: float) -> None:
        """A stage is done."""

    def on_retry(self, stage: Stage, reason: str) -> None:
        """A stage lost its process or machine and will begin again."""

    def fail(self, stage: Stage, reason: str) -> None:
        """A stage failed; its cells are lost, the others go on."""

    def note(self, sentence: str) -> None:
        """Something that the user should know of the run."""


class NullListener:
    """A listener that says nothing."""

    def begin(self, stage: Stage, index: int, total: int) -> None:
        """Ignore."""

    def watch(self, stage: Stage) -> Progress:
        """Ignore."""
        return NullProgress()

    def end(self, stage: Stage, seconds: float) -> None:
        """Ignore."""

    def on_retry(self, stage: Stage, reason: str) -> None:
        """Ignore."""

    def fail(self, stage: Stage, reason: str) -> None:
        """Ignore."""

    def note(self, sentence: str) -> None:
        """Ignore."""


@dataclass(frozen=True)
class Failure:
    """A stage that failed, and what that costs."""

    stage: Stage
    reason: str
    #: Keys of the cells that need the stage.
    cells: tuple[str, ...]


@dataclass
class Outcome:
    """What became of a plan.

    Args:
        scores: artifact of the scores stage, by its key.
        failures: reason by the key of the stage that failed or could not be reached.
        blocked: keys of stages that could not be reached, each with those of its inputs that failed.
        computed: keys of the stages computed now.
    """

    scores: dict[str, Artifact] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, tuple[str, ...]] = field(default_factory=dict)
    computed: list[str] = field(default_factory=list)

    def causes(self, plan: Plan) -> list[Failure]:
        """The stages that failed by themselves, each with the cells that it costs."""
        behind = {cell: self._behind(cell) for cell in plan.cells if cell in self.failures}
        return [
            Failure(plan.stages[key], reason, tuple(cell for cell, keys in behind.items() if key in keys))
            for key, reason in self.failures.items()
            if key not in self.blocked
        ]

    def _behind(self, key: str) -> set[str]:
        """The stages that failed by themselves, and so cost the stage `key`."""
        if key not in self.blocked:
            return {key}
        return {found for one in self.blocked[key] for found in self._behind(one)}


@dataclass(frozen=True)
class Done:
    """A stage that a executor is done with.

    Args:
        stage: which.
        report: what came of it; `None` if its process or machine was lost.
        lost: how it was lost, one phrase.
        begun: it had begun when it was lost, so that it may be what killed its process.
    """

    stage: Stage
    report: Report | None
    lost: str = ""
    begun: bool = True


class Executor(Protocol):
    """Computes stages somewhere."""

    #: How often a stage is begun again that lost its process or machine.
    retries: int

    def idle(self) -> bool:
        """Whether another stage can be started now."""

    def fits(self, stage: Stage) -> bool:
        """Whether there is memory for a stage beside those that run."""

    def start(self, stage: Stage, progress: Progress) -> None:
        """Begin a stage; it is idle and the stage fits."""

    def wait(self) -> Sequence[Done]:
        """Wait until a stage ends, or a short while, and say which ended."""

    def close(self) -> None:
        """End whatever runs still."""


def find_pending(plan: Plan, store: Store) -> tuple[dict[str, Artifact | None], list[Stage]]:
    """What the store has of a plan, after verification, and the stages to compute.

    What does not match its manifest goes to quarantine. What is only in a tier that machines share is looked at, and
    so downloaded, only where it is scores or is read by a stage that is to be computed.
    """
    here = {stage.key for stage in plan.stages.values() if store.exists(stage.kind, stage.key)}
    found: dict[str, Artifact | None] = dict.fromkeys(plan.stages)
    asked: set[str] = set()
    new = set(plan.stages) if store.address.remote is None else here | plan.cells.keys()
    while True:
        stages = [stage for stage in plan.stages.values() if stage.key in new]
        found |= map_stages(store, lambda stage: usable(store, stage), stages)
        asked |= new
        todo = needed(plan, found, {key for key in here if found[key] is None})
        new = {key for stage in todo if stage.key in asked for key in stage.inputs.values()} - asked
        if not new:
            return found, todo


def needed(plan: Plan, found: dict[str, Artifact | None], damaged: set[str]) -> list[Stage]:
    """The stages to compute, in order.

    A stage whose artifact is missing is computed only if a stage that is to be computed reads it; one whose artifact
    was damaged is always computed again, so that a plan leaves nothing damaged behind.
    """
    want = set(damaged)
    for stage in reversed(plan.stages.values()):
        if found[stage.key] is None and (stage.key in plan.cells or stage.key in want):
            want.add(stage.key)
        if stage.key in want:
            want |= {key for key in stage.inputs.values() if found[key] is None}
    return [stage for stage in plan.stages.values() if stage.key in want]


def map_stages(store: Store, question: Callable[[Stage], _T], stages: Iterable[Stage]) -> dict[str, _T]:
    """The answer for each stage, by key; of a store at a URL several are asked for at a time."""
    stages = list(stages)
    with ThreadPoolExecutor(_READERS if store.address.remote else 1) as readers:
        return dict(zip((stage.key for stage in stages), readers.map(question, stages), strict=True))


class ResultCollector:
    """Takes the scores of every cell as soon as they are there, so that whoever stops a run has what was done.

    Args:
        plan: what is run.
        store: holds the scores.
        found: what the store had before.
        outcome: the scores are added to it.
        scored: told of the scores of each cell, once, with their key.
    """

    def __init__(
        self, plan: Plan, store: Store, found: dict[str, Artifact | None], outcome: Outcome, scored: Scored | None
    ) -> None:
        self._plan, self._store, self._outcome, self._scored = plan, store, outcome, scored
        for key in plan.cells:
            self._take(key, found[key])

    def _take(self, key: str, artifact: Artifact | None) -> bool:
        if artifact is None:
            return False
        if self._scored is not None:
            self._scored(key, artifact)
        self._outcome.scores[key] = artifact
        return True

    def end(self, stage: Stage) -> None:
        """A stage is done; if its scores are damaged or not seen here yet, the end of the run sees to that."""
        if stage.key in self._plan.cells:
            with contextlib.suppress(CorruptArtifactError):
                self._take(stage.key, self._store.find(stage.kind, stage.key))

    def finish(self) -> None:
        """Take what is left, and put all in the order of the plan.

        Raises:
            StorageError: scores were computed elsewhere and are not in the store here.
        """
        scores = self._outcome.scores
        for key in self._plan.cells:
            if key in scores or key in self._outcome.failures:
                continue
            if not self._take(key, self._store.find("scores", key)):
                raise StorageError(
                    f"expected {self._plan.stages[key].title} in the store {self._store.root} after it was computed, "
                    f"found none; choose a store that this and every computing machine share"
                )
        self._outcome.scores = {key: scores[key] for key in self._plan.cells if key in scores}


class Schedule:
    """Runs stages in the order of the plan, as far as what they read is there.

    Args:
        todo: the stages to compute, every one after those that it reads.
        executor: computes them.
        listener: told of them.
        outcome: what became of them is added to it.
        collector: takes their scores.
    """

    def __init__(
        self,
        todo: Sequence[Stage],
        executor: Executor,
        listener: Listener,
        outcome: Outcome,
        collector: ResultCollector | None = None,
    ) -> None:
        self._executor, self._listener, self._outcome, self._collector = executor, listener, outcome, collector
        self._stages = list(todo)
        self._numbers = {stage.key: index for index, stage in enumerate(self._stages)}
        self._missing = {stage.key: self._numbers.keys() & set(stage.inputs.values()) for stage in self._stages}
        self._readers: dict[str, list[Stage]] = {key: [] for key in self._numbers}
        for stage in self._stages:
            for key in self._missing[stage.key]:
                self._readers[key].append(stage)
        self._ready = [number for key, number in self._numbers.items() if not self._missing[key]]
        self._losses: Counter[tuple[str, bool]] = Counter()
        self._running = 0

    def run(self) -> None:
        """Compute every stage, or fail it."""
        while self._ready or self._running:
            self._start()
            for done in self._executor.wait():
                self._running -= 1
                self._finish(done)

    def _start(self) -> None:
        held = []
        while self._ready and self._executor.idle():
            number = heapq.heappop(self._ready)
            stage = self._stages[number]
            if not self._executor.fits(stage):
                held.append(number)
                continue
            self._listener.begin(stage, number + 1, len(self._stages))
            self._executor.start(stage, self._listener.watch(stage))
            self._running += 1
        for number in held:
            heapq.heappush(self._ready, number)

    def _finish(self, done: Done) -> None:
        stage, report = done.stage, done.report
        if report is None:
            self._lose(done)
            return
        for sentence in report.notes:
            self._listener.note(sentence)
        if report.reason is not None:
            self._fail(stage, report.reason)
            return
        if report.computed:
            self._outcome.computed.append(stage.key)
        self._listener.end(stage, report.seconds)
        if self._collector is not None:
            self._collector.end(stage)
        for reader in self._readers[stage.key]:
            self._missing[reader.key].discard(stage.key)
            if not self._missing[reader.key] and reader.key not in self._outcome.failures:
                heapq.heappush(self._ready, self._numbers[reader.key])

    def _lose(self, done: Done) -> None:
        stage, how = done.stage, done.lost
        self._losses[stage.key, done.begun] += 1
        times = self._losses[stage.key, done.begun]
        if times <= self._executor.retries * (1 if done.begun else _UNBEGUN):
            self._listener.on_retry(stage, how)
            heapq.heappush(self._ready, self._numbers[stage.key])
        else:
            self._fail(stage, how if times == 1 else f"{how}; so it went {times} times")

    def _fail(self, stage: Stage, reason: str) -> None:
        self._outcome.failures[stage.key] = reason
        self._listener.fail(stage, reason)
        for reader in self._readers[stage.key]:
            roles = [role for role, key in reader.inputs.items() if key in self._outcome.failures]
            self._outcome.blocked[reader.key] = tuple(reader.inputs[role] for role in roles)
            if reader.key not in self._outcome.failures:
                self._fail(reader, f"its {roles[0]} failed")
