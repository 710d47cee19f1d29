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
from ..pipeline.session import Workshop
from ..training.progress import Progress
from . import memory
from .attempt import Report
from .scheduler import Done
from .worker import Begun, Ended, Looping, Place, Ready, Said, serve

#: Seconds given to a process to end by itself.
_GRACE = 5.0
#: Seconds between looks at memory and time limits.
_TICK = 1.0


@dataclass
class _Seat:
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


class Processes:
    """Computes up to `jobs` stages at a time, each in a process that is kept for the next.

    Args:
        workshop: where.
        jobs: stages at a time.
        threads: of the CPU for each.
        stage_timeout: seconds that a stage may take, `None` for any time.
        known: what stages of a sort took before; what they take now is added.
        note: told what the user should know.
    """

    retries = 1

    def __init__(
        self,
        workshop: Workshop,
        jobs: int,
        threads: int,
        stage_timeout: float | None,
        known: memory.Measured,
        note: Callable[[str], None],
    ) -> None:
        self._workshop, self._threads, self._timeout = workshop, threads, stage_timeout
        self._known, self._note = known, note
        self._seats = [_Seat(device) for device in _devices(workshop.device, jobs)]
        self._scarce = False

    def idle(self) -> bool:
        """Whether there is a seat for another stage."""
        return any(seat.stage is None for seat in self._seats)

    def fits(self, stage: Stage) -> bool:
        """Whether memory suffices for a stage beside those that run, as far as their peaks were measured before.

        What is unknown counts as what its process holds now. A stage that has the machine to itself is always tried.
        """
        busy = [seat for seat in self._seats if seat.stage is not None]
        wanted = self._known.host(stage)
        if not busy:
            return True
        seat = self._seat(stage)
        if seat is None:
            return False
        free = memory.available()
        if wanted is None or free is None:
            return True
        holds = {id(one): memory.held(one.process.pid or 0) for one in self._seats if one.process is not None}
        taken = sum(max(one.expected, holds.get(id(one), 0)) for one in busy)
        room = free + sum(holds.values())
        if taken + wanted <= room:
            return True
        if not self._scarce:
            self._scarce = True
            self._note(
                f"memory is scarce, so fewer than {len(self._seats)} stages run at a time: {stage.title} took "
                f"{memory.shown(wanted)} before and {memory.shown(max(0, room - taken))} are left"
            )
        return False

    def start(self, stage: Stage, progress: Progress) -> None:
        """Give a stage to a process, a new one if need be."""
        seat = self._seat(stage)
        assert seat is not None
        if seat.process is None:
            self._open(seat)
        assert seat.link is not None
        seat.stage, seat.progress, seat.deadline, seat.late = stage, progress, None, False
        seat.expected, seat.expected_device = self._known.host(stage) or 0, self._known.device(stage) or 0
        with contextlib.suppress(OSError):  # it is dead: `wait` says so
            seat.link.send(stage)

    def _seat(self, stage: Stage) -> _Seat | None:
        """A free seat, one whose process lives if there is any; `None` if no device has memory for the stage."""
        wanted = self._known.device(stage) or 0
        free = [seat for seat in self._seats if seat.stage is None and self._device_room(seat) >= wanted]
        if not free and all(seat.stage is None for seat in self._seats):
            free = self._seats
        return min(free, key=lambda seat: (self._share(seat.device), seat.process is None), default=None)

    def _share(self, device: torch.device) -> int:
        return sum(seat.stage is not None for seat in self._seats if seat.device == device)

    def _device_room(self, seat: _Seat) -> float:
        """Bytes of a seat's accelerator that are not expected to be taken by the stages on it."""
        others = [one for one in self._seats if one.device == seat.device]
        total = max(one.device_total for one in others)
        taken = sum(one.expected_device for one in others if one.stage is not None)
        return total - taken if total and taken else float("inf")

    def _open(self, seat: _Seat) -> None:
        context = _context()
        seat.link, theirs = context.Pipe()
        place = Place(self._workshop.store.address, self._workshop.data_root, seat.device, self._threads)
        process = context.Process(target=serve, args=(theirs, place, dict(os.environ)), name="privbench stage")
        process.start()
        seat.process = process
        theirs.close()

    def wait(self) -> Sequence[Done]:
        """Hear what the processes say until a stage ends or a second is over."""
        links = {seat.link: seat for seat in self._seats if seat.link is not None}
        found = connection.wait(list(links), timeout=_TICK)
        done = [ended for link in found for ended in self._hear(links[link])]  # type: ignore[index]
        now = time.monotonic()
        for seat in self._seats:
            if seat.deadline is not None and now > seat.deadline and seat.process is not None:
                seat.late = True
                kill(seat.process)
        return done

    def _hear(self, seat: _Seat) -> Iterator[Done]:
        assert seat.link is not None
        try:
            while seat.link is not None and seat.link.poll():
                yield from self._understand(seat, seat.link.recv())
        except (EOFError, OSError):
            yield from self._bury(seat)

    def _understand(self, seat: _Seat, message: object) -> Iterator[Done]:
        stage, progress = seat.stage, seat.progress
        match message:
            case Ready(device_total):
                seat.device_total = device_total
            case Begun():
                seat.deadline = None if self._timeout is None else time.monotonic() + self._timeout
            case Said(sentence):
                self._note(sentence)
            case Looping() if progress is not None:
                message.tell(progress, seat.loops)
            case Ended(report) if stage is not None:
                self._leave(seat)
                if report.spoiled:
                    self._close(seat)
                if report.peak:
                    self._known.learn(stage.sort, report.peak, report.device_peak)
                yield Done(stage, report)

    def _bury(self, seat: _Seat) -> Iterator[Done]:
        """The process of a seat is gone; its stage, if it had one, is lost, or was too slow."""
        assert seat.process is not None
        seat.process.join(_GRACE)
        stage, late, how = seat.stage, seat.late, end_of(seat.process.exitcode)
        self._leave(seat)
        self._close(seat)
        if stage is None:
            return
        if late:
            yield Done(stage, Report(slow(self._timeout), self._timeout or 0.0))
        else:
            yield Done(stage, None, how)

    def _leave(self, seat: _Seat) -> None:
        for _ in seat.loops:
            assert seat.progress is not None
            seat.progress.end()
        seat.stage, seat.progress, seat.deadline, seat.late = None, None, None, False
        seat.expected = seat.expected_device = 0
        seat.loops.clear()

    def _close(self, seat: _Seat) -> None:
        if seat.link is not None:
            seat.link.close()
        if seat.process is not None:
            kill(seat.process)
        seat.link = seat.process = None

    def close(self) -> None:
        """End all processes; what they compute is lost but for checkpoints."""
        for seat in self._seats:
            self._close(seat)


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
    """The device of each seat: the one named, or all CUDA devices in turn where there are several jobs."""
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
