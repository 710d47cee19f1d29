"""Worker process: computes stages and sends messages about them.

A message is `WorkerReady`, `StageStarted`, `LoopProgress`, a `str` for the user, or the `StageResult` of a stage.
"""

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from ..pipeline.session import Session
from ..store.store import open_store
from ..training.progress import Progress
from .attempt import attempt
from .progress import ThrottledProgress

#: Environment variables that libraries read their number of threads from when they are imported.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class WorkerConfig:
    """Store, data and resources of a worker.

    Args:
        store: address of the store.
        data_root: the data folder.
        device: where to compute.
        threads: CPU threads.
    """

    store: Any
    data_root: Path
    device: torch.device
    threads: int

    def open_session(self, progress: Progress | None = None) -> Session:
        """Set the number of threads and open a session."""
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(self.threads)))
        torch.set_num_threads(self.threads)
        threadpool_limits(self.threads)
        return Session(open_store(self.store), self.data_root, self.device, progress)


@dataclass(frozen=True)
class WorkerReady:
    """The worker has started; `device_total` is the memory of its accelerator in bytes, 0 if it has none."""

    device_total: int


@dataclass(frozen=True)
class StageStarted:
    """The stage holds its lock and computes."""


class WarningHandler(logging.Handler):
    """Forwards warnings of privbench, because the output of a worker is not shown.

    Args:
        send: sends a message.
    """

    def __init__(self, send: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Forward a warning."""
        self._send(record.getMessage())


def serve(pipe: Connection, config: WorkerConfig, environment: Mapping[str, str]) -> None:
    """Compute the stages received through `pipe` until it is closed.

    Args:
        pipe: to the parent process.
        config: of this worker.
        environment: variables of the parent process.
    """
    os.environ.clear()
    os.environ.update(environment)
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C must reach only the parent, which ends this process and all that it started
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    lock = threading.Lock()

    def send(message: object) -> None:
        with lock:
            pipe.send(message)

    logger = logging.getLogger("privbench")
    logger.propagate = False
    logger.addHandler(WarningHandler(send))
    session = config.open_session(ThrottledProgress(send))
    send(WorkerReady(torch.cuda.mem_get_info(config.device)[1] if config.device.type == "cuda" else 0))
    try:
        while True:
            stage = pipe.recv()
            send(attempt(stage, session, lambda: send(StageStarted())))
    except (EOFError, OSError):
        return


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
