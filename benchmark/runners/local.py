"""Run a plan on this machine: one stage after another, or several at once in separate processes."""

import contextlib
from collections.abc import Sequence

import torch

from ..pipeline.plan import Plan, Stage
from ..pipeline.preflight import require_files
from ..pipeline.session import Session
from ..training.progress import Progress
from . import memory
from .attempt import attempt
from .outcome import OnScores, Outcome, ResultCollector
from .pending import find_pending
from .processes import ProcessExecutor
from .scheduler import Executor, FinishedStage, Listener, Schedule
from .worker import WorkerConfig


def execute(
    plan: Plan,
    session: Session,
    listener: Listener | None = None,
    jobs: int = 1,
    *,
    threads: int | None = None,
    stage_timeout: float | None = None,
    on_scores: OnScores | None = None,
) -> Outcome:
    """Compute the stages of a plan that the store does not have.

    Args:
        plan: the plan to run.
        session: its store, data and device.
        listener: receives the events of stages.
        jobs: number of concurrent processes; CUDA devices are assigned to them in turn.
        threads: CPU threads of each stage; by default PyTorch's number for this machine, divided by `jobs`. The number
            changes rounding: bytes are the same for the same number of threads.
        stage_timeout: seconds after which a stage's process is killed; without it there is no limit, and a single job
            runs in this process.
        on_scores: called with the scores of each cell as soon as they exist.

    Returns:
        Scores and failures. A failed stage costs the cells that need it, no others.

    Raises:
        MissingDataError: a stage to compute needs a file, such as weights, that is missing or damaged.
    """
    listener = listener or Listener()
    found, todo = find_pending(plan, session.store)
    require_files(plan, todo)
    collector = ResultCollector(plan, session.store, found, on_scores)
    jobs = max(1, min(jobs, len(todo)))
    count = threads or max(1, torch.get_num_threads() // jobs)
    executor: Executor
    if jobs == 1 and stage_timeout is None:
        executor = SerialExecutor(session, count)
    else:
        peaks = memory.known_peaks(todo, found.values(), session.store)
        config = WorkerConfig(session.store.address, session.data_root, session.device, count)
        executor = ProcessExecutor(config, jobs, stage_timeout, peaks, listener.note)
    with contextlib.closing(executor):
        Schedule(todo, executor, listener, collector).run()
    return collector.finish()


class SerialExecutor:
    """Computes one stage after another in this process.

    Args:
        session: the session of all stages.
        threads: CPU threads of a stage.
    """

    retries = 0

    def __init__(self, session: Session, threads: int) -> None:
        self._session, self._before = session, (torch.get_num_threads(), session.progress)
        self._stage: Stage | None = None
        if threads != self._before[0]:
            torch.set_num_threads(threads)

    def is_idle(self) -> bool:
        """Return whether another stage can start now."""
        return self._stage is None

    def memory_shortage(self, stage: Stage) -> str | None:
        """`None`: a stage that has the process to itself is always tried."""
        return None

    def start(self, stage: Stage, progress: Progress) -> None:
        """Set the stage that `wait` computes."""
        self._stage, self._session.progress = stage, progress

    def wait(self) -> Sequence[FinishedStage]:
        """Compute the stage."""
        assert self._stage is not None
        stage, self._stage = self._stage, None
        return [FinishedStage(stage, attempt(stage, self._session))]

    def close(self) -> None:
        """Restore the number of threads and the progress."""
        threads, self._session.progress = self._before
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
