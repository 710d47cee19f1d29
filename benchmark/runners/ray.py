"""Run a plan on a Ray cluster: every stage is a task with declared resources.

The schedule decides which stages are computed and retried, as on one machine; Ray places the tasks on machines.
"""

import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ..pipeline.plan import Plan, Stage
from ..pipeline.preflight import require_files
from ..store.store import Store
from ..training.progress import Progress
from .attempt import StageResult
from .memory import PeakMemory, known_peaks
from .outcome import OnScores, Outcome, ResultCollector
from .pending import find_pending
from .processes import timeout_reason
from .progress import LoopProgress, RunningStage
from .ray_cluster import Cluster, Head, connected
from .ray_machines import check_machines, cluster_resources, last_line
from .ray_tasks import ProgressBoard, compute, privbench_environment
from .scheduler import FinishedStage, Listener, Schedule
from .worker import WorkerConfig

#: Seconds between checks of progress and time limits, and between counts of the cluster's CPUs.
_POLL_SECONDS, _COUNT_SECONDS = 0.5, 10.0
#: Seconds that cancelled tasks have to end.
_CANCEL_SECONDS = 5.0
#: Number of queued tasks, so that no machine is idle between two stages.
_QUEUED = 4
#: A task requests the measured peak memory of its stage times this factor.
_MEMORY_MARGIN = 1.2
#: Accelerators are shared in so many parts.
_GPU_PARTS = 8


def execute(
    plan: Plan,
    store: Store,
    data_root: Path,
    device: str,
    cluster: Cluster,
    listener: Listener | None = None,
    on_scores: OnScores | None = None,
) -> Outcome:
    """Compute the stages of a plan that the store does not have.

    The records are those of a run on one machine with the same number of threads per stage.

    Raises:
        ClusterError: Ray is not installed, the cluster cannot be reached or is lost, or one of its machines cannot
            compute the plan.
    """
    listener = listener or Listener()
    found, todo = find_pending(plan, store)
    require_files(plan, todo)
    collector = ResultCollector(plan, store, found, on_scores)
    if todo:
        with connected(cluster.address) as ray:
            resources = cluster_resources(ray, device, cluster)
            # For a store at a URL every machine creates its own local tier.
            address = store.address.remote or store.address
            config = WorkerConfig(address, data_root.absolute(), resources.device, resources.threads)
            check_machines(ray, todo, store, config)
            listener.note(resources.summary)
            peaks = known_peaks(todo, found.values(), store)
            executor = RayExecutor(ray, config, resources.memory, cluster.stage_timeout, peaks)
            with contextlib.closing(executor):
                Schedule(todo, executor, listener, collector).run()
    return collector.finish()


class RayExecutor:
    """Computes stages as Ray tasks.

    Args:
        ray: the connected library.
        config: of the workers on each machine.
        memory_limit: bytes of memory of the largest machine; 0 if unknown.
        stage_timeout: seconds that a stage may take; `None` for no limit.
        peaks: known peak memory of stages; peaks of finished stages are added.
    """

    retries = 9

    def __init__(
        self, ray: Any, config: WorkerConfig, memory_limit: int, stage_timeout: float | None, peaks: PeakMemory
    ) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._config, self._memory_limit = ray, config, memory_limit
        self._timeout, self._peaks = stage_timeout, peaks
        self._head = Head(ray)
        # The actor runs on this machine, and Ray restarts it, empty, if its process is killed.
        this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor = ray.remote(ProgressBoard).options(num_cpus=0, max_restarts=-1, scheduling_strategy=this_node)
        self._board = actor.remote()
        self._task = ray.remote(compute)
        self._running: dict[Any, RunningStage] = {}
        self._pending_read: Any = None
        self._polled = 0.0
        self._limit = 1 + _QUEUED
        self._update_limit()

    def _update_limit(self) -> None:
        """Set the number of tasks to submit at a time: those that the cluster can run, and a few more."""
        self._counted = time.monotonic()
        with contextlib.suppress(self._ray.exceptions.RayError):  # the head was lost a moment ago
            cpus = int(self._ray.cluster_resources().get("CPU", 0))
            self._limit = max(1, cpus // self._config.threads) + _QUEUED

    def is_idle(self) -> bool:
        """Return whether another task may be submitted."""
        return len(self._running) < self._limit

    def memory_shortage(self, stage: Stage) -> str | None:
        """`None`: Ray delays a task until its memory is free."""
        return None

    def start(self, stage: Stage, progress: Progress) -> None:
        """Submit a stage, with the resources that it needs."""
        task = self._task.options(name=stage.title, max_retries=0, **self._requested(stage))
        reference = task.remote(stage, self._config, __version__, privbench_environment(), self._board)
        self._running[reference] = RunningStage(stage, progress)

    def _requested(self, stage: Stage) -> dict[str, float]:
        """CPUs of a stage, and, if stages like it were measured, its memory and its share of an accelerator."""
        requested: dict[str, float] = {"num_cpus": self._config.threads}
        host, device = self._peaks.host(stage), self._peaks.device(stage)
        if host and self._memory_limit:
            requested["memory"] = min(int(host * _MEMORY_MARGIN), self._memory_limit)
        if self._config.device.type == "cuda":
            requested["num_gpus"] = _gpu_share(device)
        return requested

    def wait(self) -> Sequence[FinishedStage]:
        """Wait until a task ends, or a short while, and show the progress of the others."""
        references = list(self._running)
        ended, _ = self._ray.wait(references, timeout=_POLL_SECONDS)
        if ended:
            ended, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        if time.monotonic() - self._polled > _POLL_SECONDS:
            self._polled = time.monotonic()
            if self._head.check():
                self._poll()
        return [self._finish(reference) for reference in ended]

    def _poll(self) -> None:
        """Read the progress, without waiting for it, stop tasks over the time limit and count the CPUs."""
        if self._pending_read is None:
            self._pending_read = self._board.take.remote()
        elif self._ray.wait([self._pending_read], timeout=0)[0]:
            reference, self._pending_read = self._pending_read, None
            with contextlib.suppress(self._ray.exceptions.RayError):  # Ray is restarting the actor
                self._show(self._ray.get(reference))
        for reference, running in self._running.items():
            if running.exceeds(self._timeout) and not running.timed_out:
                running.timed_out = True
                self._ray.cancel(reference, force=True)
        if time.monotonic() - self._counted > _COUNT_SECONDS:
            self._update_limit()

    def _show(self, stages: dict[str, tuple[float, LoopProgress | None]]) -> None:
        for running in self._running.values():
            seconds, loop = stages.get(running.stage.key, (None, None))
            if seconds is not None:
                running.started = time.monotonic() - seconds
            if loop is not None:
                running.show(loop)

    def _finish(self, reference: Any) -> FinishedStage:
        errors = self._ray.exceptions
        running = self._running.pop(reference)
        stage = running.stage
        running.end_loop()
        try:
            result: StageResult = self._ray.get(reference)
        except errors.RayTaskError as cause:
            return FinishedStage(stage, StageResult(last_line(cause)))
        except errors.OutOfMemoryError:
            return FinishedStage(stage, None, "its process was killed by Ray, because memory ran out")
        except errors.RayError as cause:
            if running.timed_out:
                return FinishedStage(stage, StageResult(timeout_reason(self._timeout)))
            return FinishedStage(stage, None, _describe_loss(cause), running.started is not None)
        if result.host_peak:
            self._peaks.add(stage.resource_class, result.host_peak, result.device_peak)
        return FinishedStage(stage, result)

    def close(self) -> None:
        """Cancel all tasks, and give them some seconds to end."""
        if self._head.is_lost:  # no request would be answered
            return
        ray, left = self._ray, list(self._running)
        self._running.clear()
        with contextlib.suppress(ray.exceptions.RayError, ConnectionError):
            for force in (False, True):
                for reference in left:
                    ray.cancel(reference, force=force)
                left = ray.wait(left, num_returns=len(left), timeout=_CANCEL_SECONDS)[1] if left else []
            ray.kill(self._board)


def _gpu_share(peak: int | None) -> float:
    """Share of an accelerator: all of it for a stage that was never measured."""
    if not peak or not torch.cuda.is_available():
        return 1.0
    total = torch.cuda.get_device_properties(0).total_memory
    return min(1.0, max(1, math.ceil(_GPU_PARTS * _MEMORY_MARGIN * peak / total)) / _GPU_PARTS)


def _describe_loss(cause: Exception) -> str:
    """Phrase that says how a task was lost."""
    machine = "NodeDied" in type(cause).__name__ or "node" in str(cause).lower().split("worker")[0]
    return "its machine was lost" if machine else "its process died"
