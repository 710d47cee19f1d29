"""Run a plan on this machine: one stage after the other, or several at once in processes of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..pipeline.plan import Plan, Stage
from ..pipeline.session import Session
from ..training.progress import Progress
from . import memory
from .attempt import attempt
from .processes import ProcessExecutor
from .scheduler import Done, Executor, Listener, NullListener, Outcome, ResultCollector, Schedule, Scored, find_pending


def execute(
    plan: Plan,
    session: Session,
    listener: Listener | None = None,
    jobs: int = 1,
    *,
    threads: int | None = None,
    stage_timeout: float | None = None,
    scored: Scored | None = None,
) -> Outcome:
    """Compute what is missing.

    Args:
        plan: what to do.
        session: where to do it.
        listener: told of stages.
        jobs: processes at a time, each with a CUDA device in turn.
        threads: of the CPU for each stage; by default what PyTorch takes on this machine, divided among the jobs.
            The number changes rounding: bytes are the same for the same number of threads.
        stage_timeout: seconds after which a stage's process is killed; without it there is no limit, and one job runs
            in this process.
        scored: told of the scores of each cell as soon as they are there.

    Returns:
        Scores and failures. A failed stage costs the cells that need it, no others.
    """
    listener = listener or NullListener()
    found, todo = find_pending(plan, session.store)
    outcome = Outcome()
    collector = ResultCollector(plan, session.store, found, outcome, scored)
    jobs = max(1, min(jobs, len(todo)))
    count = threads or max(1, torch.get_num_threads() // jobs)
    executor: Executor
    if jobs == 1 and stage_timeout is None:
        executor = SerialExecutor(session, count)
    else:
        known = memory.measured(todo, found.values(), session.store)
        executor = ProcessExecutor(session, jobs, count, stage_timeout, known, listener.note)
    try:
        Schedule(todo, executor, listener, outcome, collector).run()
    finally:
        executor.close()
    collector.finish()
    return outcome


class SerialExecutor:
    """Computes one stage after the other in this process.

    Args:
        session: where.
        threads: of the CPU.
    """

    retries = 0

    def __init__(self, session: Session, threads: int) -> None:
        self._session, self._before = session, (torch.get_num_threads(), session.progress)
        self._stage: Stage | None = None
        if threads != self._before[0]:
            torch.set_num_threads(threads)

    def idle(self) -> bool:
        """Whether another stage can be started now."""
        return self._stage is None

    def fits(self, stage: Stage) -> bool:
        """A stage that has the process to itself is always tried."""
        return True

    def start(self, stage: Stage, progress: Progress) -> None:
        """Choose the stage that `wait` computes."""
        self._stage, self._session.progress = stage, progress

    def wait(self) -> Sequence[Done]:
        """Compute the stage."""
        assert self._stage is not None
        stage, self._stage = self._stage, None
        return [Done(stage, attempt(stage, self._session))]

    def close(self) -> None:
        """Leave things as they were."""
        threads, self._session.progress = self._before
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
