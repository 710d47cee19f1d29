"""Run a plan on a Ray cluster: every stage is a task with declared resources.

Which stages are computed, what a failure costs and how often a lost stage is begun again is the schedule's business,
as on one machine; Ray starts tasks where there is room for them and says what became of them.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ..errors import InvalidConfigurationError
from ..pipeline.plan import Plan, Stage
from ..store.store import Store
from ..training.progress import Progress
from . import memory
from .attempt import Report
from .processes import slow
from .ray_cluster import Cluster, ClusterError, Head, connected
from .ray_tasks import Expected, Job, ProgressBoard, Told, check_machine, compute, mark_of
from .scheduler import Done, Listener, NullListener, Outcome, ResultCollector, Schedule, Scored, find_pending
from .worker import WorkerConfig

#: Seconds between looks at progress and time limits.
_TICK = 0.5
#: Seconds that machines have to say whether they can compute, and tasks to end when they are cancelled.
_ANSWER, _GRACE = 300.0, 5.0
#: Tasks that wait for room, so that none is left unused between two stages.
_WAITING = 4
#: A stage is given this much more memory than one like it was measured to take.
_SPARE = 1.2
#: Accelerators are shared in so many parts.
_SHARES = 8
_PREFIX = "PRIVBENCH_"


def execute(
    plan: Plan,
    store: Store,
    data_root: Path,
    device: str,
    cluster: Cluster,
    listener: Listener | None = None,
    scored: Scored | None = None,
) -> Outcome:
    """Compute what is missing; the same records come out as on one machine with as many threads a stage.

    Raises:
        ClusterError: Ray is not installed, the cluster cannot be reached or is lost, or a machine of it cannot compute
            the plan.
    """
    listener = listener or NullListener()
    found, todo = find_pending(plan, store)
    outcome = Outcome()
    collector = ResultCollector(plan, store, found, outcome, scored)
    if todo:
        with connected(cluster.address) as ray:
            size = _size(ray, device, cluster)
            # Of a URL every machine makes its own local tier.
            place = WorkerConfig(store.address.remote or store.address, data_root.absolute(), size.device, size.threads)
            _check_machines(ray, todo, store, place)
            listener.note(size.sentence)
            known = memory.measured(todo, found.values(), store)
            executor = RayExecutor(ray, place, size, cluster.stage_timeout, known)
            try:
                Schedule(todo, executor, listener, outcome, collector).run()
            finally:
                executor.close()
    collector.finish()
    return outcome


@dataclass(frozen=True)
class Size:
    """What the machines of a cluster offer to a stage.

    Args:
        device: where a stage computes.
        threads: of the CPU for each stage.
        memory: bytes of the largest machine.
        machines: how many can compute.
    """

    device: torch.device
    threads: int
    memory: int
    machines: int

    @property
    def sentence(self) -> str:
        """For the user."""
        machines = f"{self.machines} machine{'s' * (self.machines > 1)}"
        threads = f"{self.threads} CPU thread{'s' * (self.threads > 1)}"
        return f"Ray cluster of {machines}; {threads} a stage, on {self.device.type}"


def _size(ray: Any, device: str, cluster: Cluster) -> Size:
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not machines:
        raise ClusterError("expected a Ray cluster with CPUs, got none; start machines with `ray start --address`")
    if device not in ("auto", "cpu", "cuda"):
        raise InvalidConfigurationError(f"expected device to be auto, cpu or cuda on a Ray cluster, got {device!r}")
    with_gpu = [resources for resources in machines if resources.get("GPU", 0) >= 1]
    if device == "cuda" and not with_gpu:
        raise InvalidConfigurationError("expected device 'cuda' to exist on the Ray cluster, got none; use auto")
    cuda = bool(with_gpu) and device != "cpu"
    usable = with_gpu if cuda else machines
    least = int(min(resources["CPU"] for resources in usable))
    most = int(max(resources["CPU"] for resources in usable))
    share = max(cluster.jobs, int(min(resources["GPU"] for resources in usable)) if cuda else 1)
    threads = cluster.threads or max(1, least // share)
    if threads > most:
        raise InvalidConfigurationError(
            f"expected --threads to be at most {most}, the CPUs of the largest machine of the cluster, got {threads}"
        )
    size = int(max(resources.get("memory", 0) for resources in usable))
    return Size(torch.device("cuda", 0) if cuda else torch.device("cpu"), threads, size, len(usable))


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}


def _check_machines(ray: Any, todo: Sequence[Stage], store: Store, place: WorkerConfig) -> None:
    """Refuse a cluster whose machines do not all see the store, the data and the packages.

    Raises:
        ClusterError: names the machine and what it lacks.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    datasets = {stage.cell.dataset.name: stage.cell.dataset for stage in todo}
    choices = [choice for stage in todo for choice in (stage.cell.defense, stage.cell.attack, *stage.cell.evaluators)]
    expected = Expected(
        __version__,
        place.store,
        mark_of(store),
        place.data_root,
        tuple((one, one.component.fingerprint(place.data_root)) for one in datasets.values()),
        tuple({type(choice.component): choice.component for choice in choices}.values()),
        _environment(),
    )
    asked = {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            task = ray.remote(check_machine).options(num_cpus=0, max_retries=-1, scheduling_strategy=there)
            name = f"machine {node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            asked[task.remote(expected)] = name
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER)
    for reference, name in asked.items():
        if reference not in answered:
            raise ClusterError(f"{name} of the Ray cluster does not answer; look at `ray status` and take it out")
        try:
            problem = ray.get(reference)
        except ray.exceptions.RayError as cause:
            problem = f"{_last_line(cause)}; install privbench and the same plugins on every machine"
        if problem:
            raise ClusterError(f"{name} of the Ray cluster cannot compute: {problem}")


def _last_line(cause: BaseException) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(cause).__name__


class RayExecutor:
    """Computes stages as Ray tasks.

    Args:
        ray: connected.
        place: where on each machine.
        size: what machines offer.
        stage_timeout: seconds that a stage may take, `None` for any time.
        known: what stages of a sort took before; what they take now is added.
    """

    retries = 9

    def __init__(
        self, ray: Any, place: WorkerConfig, size: Size, stage_timeout: float | None, known: memory.Measured
    ) -> None:
        self._ray, self._place, self._size, self._timeout, self._known = ray, place, size, stage_timeout, known
        self._head = Head(ray)
        # The board is where this process is, and comes back, empty, if its process is killed.
        self._board = (
            ray.remote(ProgressBoard).options(num_cpus=0, max_restarts=-1, scheduling_strategy=_here(ray)).remote()
        )
        self._task = ray.remote(compute)
        self._running: dict[Any, _Running] = {}
        self._reading: Any = None
        self._looked = self._counted = 0.0
        self._limit = 0

    def idle(self) -> bool:
        """Whether another task may be given to Ray: a few more than there is room for."""
        now = time.monotonic()
        if (now - self._counted > 10 and self._head.answers()) or not self._limit:
            self._counted = now
            with contextlib.suppress(self._ray.exceptions.RayError):  # the head went away just now
                cpus = int(self._ray.cluster_resources().get("CPU", 0))
                self._limit = max(1, cpus // self._size.threads) + _WAITING
        return len(self._running) < self._limit

    def fits(self, stage: Stage) -> bool:
        """Ray finds the room."""
        return True

    def start(self, stage: Stage, progress: Progress) -> None:
        """Give a stage to Ray, with the resources that it needs."""
        job = Job(stage, self._place, _environment(), __version__, self._board)
        reference = self._task.options(name=stage.title, max_retries=0, **self._resources(stage)).remote(job)
        self._running[reference] = _Running(stage, progress)

    def _resources(self, stage: Stage) -> dict[str, float]:
        """CPUs, and memory and the share of an accelerator as far as a stage like it was measured before."""
        found: dict[str, float] = {"num_cpus": self._size.threads}
        host, device = self._known.host(stage), self._known.device(stage)
        if host and self._size.memory:
            found["memory"] = min(int(host * _SPARE), self._size.memory)
        if self._size.device.type == "cuda":
            found["num_gpus"] = _share(device)
        return found

    def wait(self) -> Sequence[Done]:
        """Wait until a task ends, or a short while, and see how far the others are."""
        references = list(self._running)
        ended, _ = self._ray.wait(references, timeout=_TICK)
        if ended:
            ended, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        if time.monotonic() - self._looked > _TICK:
            self._look()
        return [self._ended(reference) for reference in ended]

    def _look(self) -> None:
        """Read the board, without waiting for it, and stop what takes too long."""
        self._looked = time.monotonic()
        if not self._head.answers():
            return
        if self._reading is None:
            self._reading = self._board.read.remote()
        elif self._ray.wait([self._reading], timeout=0)[0]:
            reading, self._reading = self._reading, None
            with contextlib.suppress(self._ray.exceptions.RayError):  # the board is on its way back
                self._show(self._ray.get(reading))
        for reference, running in self._running.items():
            if self._timeout is not None and running.seconds() > self._timeout and not running.late:
                running.late = True
                self._ray.cancel(reference, force=True)

    def _show(self, told: Mapping[str, Told]) -> None:
        for running in self._running.values():
            news = told.get(running.stage.key)
            if news is not None:
                running.began = time.monotonic() - news.seconds
                if news.looping is not None:
                    news.looping.tell(running.progress, running.loops)

    def _ended(self, reference: Any) -> Done:
        errors = self._ray.exceptions
        running = self._running.pop(reference)
        stage = running.stage
        running.leave()
        try:
            report: Report = self._ray.get(reference)
        except errors.RayTaskError as cause:
            return Done(stage, Report(_last_line(cause)))
        except errors.OutOfMemoryError:
            return Done(stage, None, "its process was killed by Ray, because memory ran out")
        except errors.RayError as cause:
            if running.late:
                return Done(stage, Report(slow(self._timeout)))
            return Done(stage, None, _loss(cause), running.began is not None)
        if report.peak:
            self._known.learn(stage.resource_class, report.peak, report.device_peak)
        return Done(stage, report)

    def close(self) -> None:
        """Cancel what runs still, and wait a little for it to end."""
        if self._head.is_lost:  # it would be asked in vain
            return
        ray, left = self._ray, list(self._running)
        self._running.clear()
        with contextlib.suppress(ray.exceptions.RayError, ConnectionError):
            for force in (False, True):
                for reference in left:
                    ray.cancel(reference, force=force)
                left = ray.wait(left, num_returns=len(left), timeout=_GRACE)[1] if left else []
            ray.kill(self._board)


def _here(ray: Any) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def _share(peak: int | None) -> float:
    """Share of an accelerator: all of it for a stage that was never measured."""
    if not peak or not torch.cuda.is_available():
        return 1.0
    total = torch.cuda.get_device_properties(0).total_memory
    return min(1.0, max(1, math.ceil(_SHARES * _SPARE * peak / total)) / _SHARES)


def _loss(cause: Exception) -> str:
    """How a task was lost, as a phrase."""
    machine = "NodeDied" in type(cause).__name__ or "node" in str(cause).lower().split("worker")[0]
    return "its machine was lost" if machine else "its process died"


@dataclass
class _Running:
    """A task that was given to Ray."""

    stage: Stage
    progress: Progress
    began: float | None = None
    late: bool = False

    def __post_init__(self) -> None:
        self.loops: set[str] = set()

    def seconds(self) -> float:
        """How long it has been computed, as far as is known."""
        return 0.0 if self.began is None else time.monotonic() - self.began

    def leave(self) -> None:
        """End what it shows."""
        for _ in self.loops:
            self.progress.end()
