"""Stages in processes of their own: a stage that hangs, is killed or takes all memory costs nothing but itself."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

import torch

from ..pipeline.plan import Stage
from ..pipeline.session import Session
from ..training.progress import Progress
from . import memory
from .attempt import Report
from .scheduler import Done
from .worker import Begun, Ended, Looping, Ready, Said, WorkerConfig, serve

#: Seconds given to a process to end by itself.
_GRACE = 5.0
#: Seconds between looks at memory and time limits.
_TICK = 1.0


@dataclass
class WorkerSlot:
    """A place for one process, and the stage in it."""

    device: torch.device
    process: BaseProcess | None = None
    link: Connection | None = None
    stage: Stage | None = None
    progress: Progress | None = None
    expected: int = 0
    expected_device: int = 0
    deadline: float | None = None
    device_total: int = 0
    late: bool = False
    loops: set[str] = field(default_factory=set)


class ProcessExecutor:
    """Computes up to `jobs` stages at a time, each in a process that is kept for the next.

    Args:
        session: where.
        jobs: stages at a time.
        threads: of the CPU for each.
        stage_timeout: seconds that a stage may take, `None` for any time.
        known: what stages of a sort took before; what they take now is added.
        note: told what the user should know.
    """

    retries = 1

    def __init__(
        self,
        session: Session,
        jobs: int,
        threads: int,
        stage_timeout: float | None,
        known: memory.Measured,
        note: Callable[[str], None],
    ) -> None:
        self._session, self._threads, self._timeout = session, threads, stage_timeout
        self._known, self._note = known, note
        self._slots = [WorkerSlot(device) for device in _devices(session.device, jobs)]
        self._scarce = False

    def idle(self) -> bool:
        """Whether there is a slot for another stage."""
        return any(slot.stage is None for slot in self._slots)

    def fits(self, stage: Stage) -> bool:
        """Whether memory suffices for a stage beside those that run, as far as their peaks were measured before.

        What is unknown counts as what its process holds now. A stage that has the machine to itself is always tried.
        """
        busy = [slot for slot in self._slots if slot.stage is not None]
        wanted = self._known.host(stage)
        if not busy:
            return True
        slot = self._slot(stage)
        if slot is None:
            return False
        free = memory.available()
        if wanted is None or free is None:
            return True
        holds = {id(one): memory.held(one.process.pid or 0) for one in self._slots if one.process is not None}
        taken = sum(max(one.expected, holds.get(id(one), 0)) for one in busy)
        room = free + sum(holds.values())
        if taken + wanted <= room:
            return True
        if not self._scarce:
            self._scarce = True
            self._note(
                f"memory is scarce, so fewer than {len(self._slots)} stages run at a time: {stage.title} took "
                f"{memory.shown(wanted)} before and {memory.shown(max(0, room - taken))} are left"
            )
        return False

    def start(self, stage: Stage, progress: Progress) -> None:
        """Give a stage to a process, a new one if need be."""
        slot = self._slot(stage)
        assert slot is not None
        if slot.process is None:
            self._open(slot)
        assert slot.link is not None
        slot.stage, slot.progress, slot.deadline, slot.late = stage, progress, None, False
        slot.expected, slot.expected_device = self._known.host(stage) or 0, self._known.device(stage) or 0
        with contextlib.suppress(OSError):  # it is dead: `wait` says so
            slot.link.send(stage)

    def _slot(self, stage: Stage) -> WorkerSlot | None:
        """A free slot, one whose process lives if there is any; `None` if no device has memory for the stage."""
        wanted = self._known.device(stage) or 0
        free = [slot for slot in self._slots if slot.stage is None and self._device_room(slot) >= wanted]
        if not free and all(slot.stage is None for slot in self._slots):
            free = self._slots
        return min(free, key=lambda slot: (self._share(slot.device), slot.process is None), default=None)

    def _share(self, device: torch.device) -> int:
        return sum(slot.stage is not None for slot in self._slots if slot.device == device)

    def _device_room(self, slot: WorkerSlot) -> float:
        """Bytes of a slot's accelerator that are not expected to be taken by the stages on it."""
        others = [one for one in self._slots if one.device == slot.device]
        total = max(one.device_total for one in others)
        taken = sum(one.expected_device for one in others if one.stage is not None)
        return total - taken if total and taken else float("inf")

    def _open(self, slot: WorkerSlot) -> None:
        context = _context()
        slot.link, theirs = context.Pipe()
        place = WorkerConfig(self._session.store.address, self._session.data_root, slot.device, self._threads)
        process = context.Process(target=serve, args=(theirs, place, dict(os.environ)), name="privbench stage")
        process.start()
        slot.process = process
        theirs.close()

    def wait(self) -> Sequence[Done]:
        """Hear what the processes say until a stage ends or a second is over."""
        links = {slot.link: slot for slot in self._slots if slot.link is not None}
        found = connection.wait(list(links), timeout=_TICK)
        done = [ended for link in found for ended in self._hear(links[link])]  # type: ignore[index]
        now = time.monotonic()
        for slot in self._slots:
            if slot.deadline is not None and now > slot.deadline and slot.process is not None:
                slot.late = True
                kill(slot.process)
        return done

    def _hear(self, slot: WorkerSlot) -> Iterator[Done]:
        assert slot.link is not None
        try:
            while slot.link is not None and slot.link.poll():
                yield from self._understand(slot, slot.link.recv())
        except (EOFError, OSError):
            yield from self._bury(slot)

    def _understand(self, slot: WorkerSlot, message: object) -> Iterator[Done]:
        stage, progress = slot.stage, slot.progress
        match message:
            case Ready(device_total):
                slot.device_total = device_total
            case Begun():
                slot.deadline = None if self._timeout is None else time.monotonic() + self._timeout
            case Said(sentence):
                self._note(sentence)
            case Looping() if progress is not None:
                message.tell(progress, slot.loops)
            case Ended(report) if stage is not None:
                self._leave(slot)
                if report.spoiled:
                    self._close(slot)
                if report.peak:
                    self._known.learn(stage.resource_class, report.peak, report.device_peak)
                yield Done(stage, report)

    def _bury(self, slot: WorkerSlot) -> Iterator[Done]:
        """The process of a slot is gone; its stage, if it had one, is lost, or was too slow."""
        assert slot.process is not None
        slot.process.join(_GRACE)
        stage, late, how = slot.stage, slot.late, end_of(slot.process.exitcode)
        self._leave(slot)
        self._close(slot)
        if stage is None:
            return
        if late:
            yield Done(stage, Report(slow(self._timeout), self._timeout or 0.0))
        else:
            yield Done(stage, None, how)

    def _leave(self, slot: WorkerSlot) -> None:
        for _ in slot.loops:
            assert slot.progress is not None
            slot.progress.end()
        slot.stage, slot.progress, slot.deadline, slot.late = None, None, None, False
        slot.expected = slot.expected_device = 0
        slot.loops.clear()

    def _close(self, slot: WorkerSlot) -> None:
        if slot.link is not None:
            slot.link.close()
        if slot.process is not None:
            kill(slot.process)
        slot.link = slot.process = None

    def close(self) -> None:
        """End all processes; what they compute is lost but for checkpoints."""
        for slot in self._slots:
            self._close(slot)


def kill(process: BaseProcess) -> None:
    """End a process at once, with those that it started in its session."""
    if process.pid is not None and hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def end_of(code: int | None) -> str:
    """How a process ended, as a phrase."""
    if code is None or code >= 0:
        return f"its process ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"


def slow(timeout: float | None) -> str:
    """What is said of a stage that took too long."""
    return f"it took longer than --stage-timeout {timeout:g} and was stopped; give it more seconds"


def _devices(device: torch.device, jobs: int) -> list[torch.device]:
    """The device of each slot: the one named, or all CUDA devices in turn where there are several jobs."""
    if device.type == "cuda" and (device.index is None or jobs > 1):
        count = torch.cuda.device_count()
        return [torch.device("cuda", i % count) for i in range(jobs)]
    return [device] * jobs


def _context() -> ForkServerContext | SpawnContext:
    """New processes are forks of one that has imported PyTorch and done nothing, where the system has forks."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([serve.__module__])
    return context
