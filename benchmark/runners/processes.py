"""Compute stages in separate processes: a stage that hangs, is killed or exhausts memory affects no other stage."""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.util
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

import torch

from ..core.paths import short_temporary_root
from ..pipeline.plan import Stage
from ..training.progress import Progress
from . import memory
from .attempt import StageResult
from .memory import PeakMemory
from .progress import LoopProgress, RunningStage
from .scheduler import FinishedStage
from .worker import StageStarted, WorkerConfig, WorkerReady, serve

#: Seconds to wait for a process to exit by itself.
_EXIT_SECONDS = 5.0
#: Seconds between checks of time limits.
_POLL_SECONDS = 1.0


@dataclass
class WorkerSlot:
    """A slot for one worker process, and the stage that it computes."""

    device: torch.device
    process: BaseProcess | None = None
    pipe: Connection | None = None
    running: RunningStage | None = None
    device_total: int = 0


class ProcessExecutor:
    """Computes up to `jobs` stages at a time, each in a process that is reused for later stages.

    Args:
        config: of the workers.
        jobs: number of processes; CUDA devices are assigned to them in turn.
        timeout: seconds that a stage may take; `None` for no limit.
        peaks: known peak memory of stages; peaks of finished stages are added.
        note: shows a message to the user.
    """

    retries = 1

    def __init__(
        self, config: WorkerConfig, jobs: int, timeout: float | None, peaks: PeakMemory, note: Callable[[str], None]
    ) -> None:
        self._config, self._timeout, self._peaks, self._note = config, timeout, peaks, note
        self._slots = [WorkerSlot(device) for device in _devices(config.device, jobs)]

    def is_idle(self) -> bool:
        """Return whether a slot is free."""
        return any(slot.running is None for slot in self._slots)

    def memory_shortage(self, stage: Stage) -> str | None:
        """Message saying that the measured peak of a stage does not fit beside the running ones; `None` if it does.

        A stage that was never measured counts as what its process holds now. A stage that has the machine to itself
        is always tried.
        """
        if all(slot.running is None for slot in self._slots):
            return None
        if self._find_slot(stage) is None:
            return self._shortage(stage, self._peaks.device(stage) or 0, "no accelerator has that much left")
        needed, free = self._peaks.host(stage), memory.available()
        if needed is None or free is None:
            return None
        resident = {id(slot): memory.resident(slot.process.pid or 0) for slot in self._slots if slot.process}
        expected = {id(slot): self._peaks.host(slot.running.stage) or 0 for slot in self._slots if slot.running}
        taken = sum(max(amount, resident.get(slot, 0)) for slot, amount in expected.items())
        left = free + sum(resident.values()) - taken
        if needed <= left:
            return None
        return self._shortage(stage, needed, f"{memory.format_bytes(max(0, left))} is left")

    def _shortage(self, stage: Stage, needed: int, left: str) -> str:
        return (
            f"memory is scarce, so fewer than {len(self._slots)} stages run at a time: {stage.title} needs "
            f"{memory.format_bytes(needed)} and {left}"
        )

    def start(self, stage: Stage, progress: Progress) -> None:
        """Send a stage to a worker process, a new one if necessary."""
        slot = self._find_slot(stage)
        assert slot is not None
        if slot.process is None:
            self._start_process(slot)
        assert slot.pipe is not None
        slot.running = RunningStage(stage, progress)
        with contextlib.suppress(OSError):  # the process is dead; `wait` reports it
            slot.pipe.send(stage)

    def _find_slot(self, stage: Stage) -> WorkerSlot | None:
        """A free slot, preferably with a live process; `None` if no device has memory for the stage."""
        needed = self._peaks.device(stage) or 0
        free = [slot for slot in self._slots if slot.running is None]
        fitting = [slot for slot in free if self._free_device_memory(slot) >= needed]
        if len(free) == len(self._slots):
            fitting = fitting or free
        return min(fitting, key=lambda slot: (len(self._stages_on(slot)), slot.process is None), default=None)

    def _stages_on(self, slot: WorkerSlot) -> list[Stage]:
        """The stages that run on a slot's device."""
        return [other.running.stage for other in self._slots if other.device == slot.device and other.running]

    def _free_device_memory(self, slot: WorkerSlot) -> float:
        """Bytes of a slot's accelerator that its running stages are not expected to use."""
        total = max(other.device_total for other in self._slots if other.device == slot.device)
        taken = sum(self._peaks.device(stage) or 0 for stage in self._stages_on(slot))
        return total - taken if total and taken else float("inf")

    def _start_process(self, slot: WorkerSlot) -> None:
        context = _context()
        slot.pipe, worker_pipe = context.Pipe()
        config = dataclasses.replace(self._config, device=slot.device)
        slot.process = context.Process(
            target=serve, args=(worker_pipe, config, dict(os.environ)), name="privbench stage"
        )
        slot.process.start()
        worker_pipe.close()

    def wait(self) -> Sequence[FinishedStage]:
        """Receive messages until a stage finishes or a second has passed, and kill stages over the time limit."""
        slots = {slot.pipe: slot for slot in self._slots if slot.pipe is not None}
        pipes = connection.wait(list(slots), timeout=_POLL_SECONDS)
        finished = [stage for pipe in pipes for stage in self._receive(slots[pipe])]  # type: ignore[index]
        for slot in self._slots:
            if slot.process is not None and slot.running is not None and slot.running.exceeds(self._timeout):
                slot.running.timed_out = True
                kill(slot.process)
        return finished

    def _receive(self, slot: WorkerSlot) -> Iterator[FinishedStage]:
        """Handle all messages of a worker."""
        try:
            while slot.pipe is not None and slot.pipe.poll():
                yield from self._handle(slot, slot.pipe.recv())
        except (EOFError, OSError):
            yield from self._handle_exit(slot)

    def _handle(self, slot: WorkerSlot, message: object) -> Iterator[FinishedStage]:
        running = slot.running
        match message:
            case WorkerReady(device_total):
                slot.device_total = device_total
            case str():
                self._note(message)
            case StageStarted() if running is not None:
                running.started = time.monotonic()
            case LoopProgress() if running is not None:
                running.show(message)
            case StageResult() if running is not None:
                running.end_loop()
                slot.running = None
                if message.discard_process:
                    _stop(slot)
                if message.host_peak:
                    self._peaks.add(running.stage.resource_class, message.host_peak, message.device_peak)
                yield FinishedStage(running.stage, message)

    def _handle_exit(self, slot: WorkerSlot) -> Iterator[FinishedStage]:
        """Free the slot of a dead process; its stage, if any, is lost or has exceeded the time limit."""
        assert slot.process is not None
        slot.process.join(_EXIT_SECONDS)
        running, slot.running, loss = slot.running, None, describe_exit(slot.process.exitcode)
        _stop(slot)
        if running is None:
            return
        running.end_loop()
        if running.timed_out:
            yield FinishedStage(running.stage, StageResult(timeout_reason(self._timeout), self._timeout or 0.0))
        else:
            yield FinishedStage(running.stage, None, loss)

    def close(self) -> None:
        """Stop all processes; of unfinished stages only checkpoints remain."""
        for slot in self._slots:
            _stop(slot)


def _stop(slot: WorkerSlot) -> None:
    """Stop the process of a slot."""
    if slot.pipe is not None:
        slot.pipe.close()
    if slot.process is not None:
        kill(slot.process)
    slot.pipe = slot.process = None


def kill(process: BaseProcess) -> None:
    """Kill a process and those that it started in its session."""
    if process.pid is not None and hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def describe_exit(code: int | None) -> str:
    """Phrase that says how a process ended."""
    if code is None or code >= 0:
        return f"its process ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"


def timeout_reason(timeout: float | None) -> str:
    """Reason of a stage that exceeded the time limit."""
    return f"it ran longer than --stage-timeout {timeout:g} and was stopped; increase the limit"


def _devices(device: torch.device, jobs: int) -> list[torch.device]:
    """The device of each slot: the given one, or all CUDA devices in turn if there are several jobs."""
    if device.type == "cuda" and (device.index is None or jobs > 1):
        count = torch.cuda.device_count()
        return [torch.device("cuda", i % count) for i in range(jobs)]
    return [device] * jobs


def _context() -> ForkServerContext | SpawnContext:
    """Context that forks processes from a server that has only imported PyTorch; without fork, it spawns them."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([serve.__module__])
    _shorten_socket_paths()
    return context


def _shorten_socket_paths() -> None:
    """Let the fork server have its sockets in a short folder where `TMPDIR` is too long for the path of a socket."""
    root = short_temporary_root(len("/pymp-12345678/listener-12345678"))
    if root is None:
        return
    before, tempfile.tempdir = tempfile.tempdir, root
    try:
        multiprocessing.util.get_temp_dir()  # creates the folder of this process, which it keeps
    finally:
        tempfile.tempdir = before
