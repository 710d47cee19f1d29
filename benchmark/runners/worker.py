"""The inside of a process that computes stages for a runner, and what it says to it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ..pipeline.session import Session
from ..store.store import open_store
from ..training.progress import Progress
from .attempt import Report, attempt

#: Variables that libraries, imported later, read their number of threads from.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
#: Seconds between two reports of a loop's progress.
TELL_SECONDS = 0.25


@dataclass(frozen=True)
class WorkerConfig:
    """Where a process computes.

    Args:
        store: address of the store.
        data_root: the data folder.
        device: where to compute.
        threads: of the CPU.
    """

    store: Any
    data_root: Path
    device: torch.device
    threads: int

    def session(self, progress: Progress | None = None) -> Session:
        """Set the number of threads and open the place."""
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        os.environ.update(dict.fromkeys(THREADS, str(self.threads)))
        torch.set_num_threads(self.threads)
        threadpool_limits(self.threads)
        return Session(open_store(self.store), self.data_root, self.device, progress)


@dataclass(frozen=True)
class Ready:
    """The process is there; so many bytes of memory has its accelerator, 0 if it has none."""

    device_total: int


@dataclass(frozen=True)
class Begun:
    """The stage holds its lock and begins."""


@dataclass(frozen=True)
class Said:
    """A sentence for the user."""

    sentence: str


@dataclass(frozen=True)
class Ended:
    """The stage is over."""

    report: Report


@dataclass(frozen=True)
class Looping:
    """How far a loop is; at its end `total` is 0."""

    name: str
    total: int
    done: int
    losses: Mapping[str, float]

    def tell(self, progress: Progress, loops: set[str]) -> None:
        """Pass it on; `loops` holds the names of those that run."""
        if not self.total:
            if self.name in loops:
                loops.discard(self.name)
                progress.end()
            return
        if self.name not in loops:
            for _ in loops:  # the end of another was not heard
                progress.end()
            loops.clear()
            loops.add(self.name)
            progress.begin(self.name, self.total, self.done)
        progress.advance(self.done, self.losses)


class ThrottledProgress:
    """Progress that is put into messages, now and then.

    Args:
        say: takes a message.
        seconds: between two of them.
    """

    def __init__(self, say: Callable[[Looping], None], seconds: float = TELL_SECONDS) -> None:
        self._say, self._seconds = say, seconds
        self._name, self._total, self._told = "", 0, 0.0

    def begin(self, name: str, total: int, done: int) -> None:
        """A loop of `total` steps starts at step `done`."""
        self._name, self._total, self._told = name, total, time.monotonic()
        self._say(Looping(name, total, done, {}))

    def advance(self, done: int, losses: Mapping[str, float]) -> None:
        """`done` steps are over."""
        now = time.monotonic()
        if now - self._told >= self._seconds:
            self._told = now
            self._say(Looping(self._name, self._total, done, dict(losses)))

    def end(self) -> None:
        """The loop is over."""
        self._say(Looping(self._name, 0, 0, {}))


class Warnings(logging.Handler):
    """Hands warnings of privbench on, since nobody reads what this process prints."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say_it = say

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one on."""
        self._say_it(record.getMessage())


def serve(link: Connection, place: WorkerConfig, environment: Mapping[str, str]) -> None:
    """Compute the stages that come through `link` until it is closed.

    Args:
        link: to the process that wants them computed.
        place: where to compute.
        environment: of that process.
    """
    os.environ.clear()
    os.environ.update(environment)
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C is for the process that started this one, which ends this one and all that it started
    threading.Thread(target=_die_with_parent, daemon=True).start()
    lock = threading.Lock()

    def say(message: object) -> None:
        with lock:
            link.send(message)

    logger = logging.getLogger("privbench")
    logger.propagate = False
    logger.addHandler(Warnings(lambda sentence: say(Said(sentence))))
    session = place.session(ThrottledProgress(say))
    say(Ready(torch.cuda.mem_get_info(place.device)[1] if place.device.type == "cuda" else 0))
    try:
        while True:
            stage = link.recv()
            say(Ended(attempt(stage, session, lambda: say(Begun()))))
    except (EOFError, OSError):
        return


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
