"""Schedule the stages of a plan: order, retries and the cost of failures are the same for every executor.

An executor only starts stages and returns those that finished.
"""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ..pipeline.plan import Stage
from ..training.progress import NullProgress, Progress
from .attempt import StageResult
from .outcome import ResultCollector

#: A stage that was lost before it started to compute is retried so many times more often.
_NOT_STARTED_FACTOR = 10


class Listener:
    """Receives the events of a run and ignores those whose method is not overridden."""

    def begin(self, stage: Stage, index: int, total: int) -> None:
        """A stage begins: number `index` (from 1) of `total` to compute."""

    def watch(self, stage: Stage) -> Progress:
        """Return the object that receives the training progress of a stage."""
        return NullProgress()

    def end(self, stage: Stage, seconds: float) -> None:
        """A stage is done."""

    def on_retry(self, stage: Stage, reason: str) -> None:
        """A stage lost its process or machine and will be retried."""

    def fail(self, stage: Stage, reason: str) -> None:
        """A stage failed; the cells that need it fail, the others go on."""

    def note(self, message: str) -> None:
        """Show a message about the run."""


@dataclass(frozen=True)
class FinishedStage:
    """A stage that an executor is done with.

    Args:
        stage: the stage.
        result: its result; `None` if its process or machine was lost.
        loss: how it was lost, in one phrase.
        started: it was computing when it was lost, so it may have killed its process.
    """

    stage: Stage
    result: StageResult | None
    loss: str = ""
    started: bool = True


class Executor(Protocol):
    """Computes stages."""

    #: How often a stage that lost its process or machine is retried.
    retries: int

    def is_idle(self) -> bool:
        """Return whether another stage can start now."""

    def memory_shortage(self, stage: Stage) -> str | None:
        """Message saying that memory does not suffice for a stage beside the running ones; `None` if it does."""

    def start(self, stage: Stage, progress: Progress) -> None:
        """Start a stage, if idle and without a memory shortage."""

    def wait(self) -> Sequence[FinishedStage]:
        """Wait until a stage finishes, or a short while, and return the finished stages."""

    def close(self) -> None:
        """Stop all running stages."""


class Schedule:
    """Runs stages in the order of the plan, each as soon as its inputs exist.

    Args:
        todo: the stages to compute, each after its inputs.
        executor: computes them.
        listener: receives their events.
        collector: receives their results.
    """

    def __init__(
        self, todo: Sequence[Stage], executor: Executor, listener: Listener, collector: ResultCollector
    ) -> None:
        self._executor, self._listener = executor, listener
        self._collector, self._outcome = collector, collector.outcome
        self._stages = list(todo)
        self._numbers = {stage.key: index for index, stage in enumerate(self._stages)}
        self._missing = {stage.key: self._numbers.keys() & set(stage.inputs.values()) for stage in self._stages}
        self._dependents: dict[str, list[Stage]] = {key: [] for key in self._numbers}
        for stage in self._stages:
            for key in self._missing[stage.key]:
                self._dependents[key].append(stage)
        self._ready = [number for key, number in self._numbers.items() if not self._missing[key]]
        self._losses: Counter[tuple[str, bool]] = Counter()
        self._running = 0
        self._shortage_noted = False

    def run(self) -> None:
        """Compute every stage, or let it fail."""
        while self._ready or self._running:
            self._start()
            for finished in self._executor.wait():
                self._running -= 1
                self._finish(finished)

    def _start(self) -> None:
        """Start as many ready stages as the executor takes."""
        deferred = []
        while self._ready and self._executor.is_idle():
            number = heapq.heappop(self._ready)
            stage = self._stages[number]
            shortage = self._executor.memory_shortage(stage)
            if shortage is not None:
                deferred.append(number)
                if not self._shortage_noted:
                    self._shortage_noted = True
                    self._listener.note(shortage)
                continue
            self._listener.begin(stage, number + 1, len(self._stages))
            self._executor.start(stage, self._listener.watch(stage))
            self._running += 1
        for number in deferred:
            heapq.heappush(self._ready, number)

    def _finish(self, finished: FinishedStage) -> None:
        stage, result = finished.stage, finished.result
        if result is None:
            self._retry_or_fail(finished)
            return
        for note in result.notes:
            self._listener.note(note)
        if result.reason is not None:
            self._fail(stage, result.reason)
            return
        if result.computed:
            self._outcome.computed.append(stage.key)
        self._listener.end(stage, result.seconds)
        self._collector.end(stage)
        for dependent in self._dependents[stage.key]:
            self._missing[dependent.key].discard(stage.key)
            if not self._missing[dependent.key] and dependent.key not in self._outcome.failures:
                heapq.heappush(self._ready, self._numbers[dependent.key])

    def _retry_or_fail(self, lost: FinishedStage) -> None:
        stage = lost.stage
        self._losses[stage.key, lost.started] += 1
        times = self._losses[stage.key, lost.started]
        if times <= self._executor.retries * (1 if lost.started else _NOT_STARTED_FACTOR):
            self._listener.on_retry(stage, lost.loss)
            heapq.heappush(self._ready, self._numbers[stage.key])
        else:
            self._fail(stage, lost.loss if times == 1 else f"{lost.loss}; failed {times} times")

    def _fail(self, stage: Stage, reason: str) -> None:
        """Fail a stage and all that depend on it."""
        self._outcome.failures[stage.key] = reason
        self._listener.fail(stage, reason)
        for dependent in self._dependents[stage.key]:
            roles = [role for role, key in dependent.inputs.items() if key in self._outcome.failures]
            self._outcome.blocked[dependent.key] = tuple(dependent.inputs[role] for role in roles)
            if dependent.key not in self._outcome.failures:
                self._fail(dependent, f"its {roles[0]} failed")
