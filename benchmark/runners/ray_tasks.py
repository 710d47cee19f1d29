"""Code that runs on the machines of a Ray cluster: the task that computes a stage, and the actor for progress."""

import dataclasses
import logging
import os
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

from ... import __version__
from ..errors import PrivbenchError
from ..pipeline.plan import Stage
from ..pipeline.session import Session
from ..store.store import Store
from .attempt import StageResult, attempt
from .progress import LoopProgress, ThrottledProgress
from .worker import WarningHandler, WorkerConfig

#: Longest time until a file that another machine wrote is visible here: network file systems cache missing files.
VISIBLE_SECONDS = 60.0
#: Seconds between two messages about the progress of a loop.
PROGRESS_SECONDS = 1.0
_PREFIX = "PRIVBENCH_"


class ProgressBoard:
    """Ray actor that receives the progress of stages; the command reads it."""

    def __init__(self) -> None:
        self._stages: dict[str, tuple[float, LoopProgress | None]] = {}

    def update(self, key: str, seconds: float, loop: LoopProgress | None) -> None:
        """Replace the progress of the stage `key`: seconds since it started, and its loop."""
        self._stages[key] = seconds, loop

    def take(self) -> dict[str, tuple[float, LoopProgress | None]]:
        """Return and forget the progress received since the last call."""
        stages, self._stages = self._stages, {}
        return stages


def compute(
    stage: Stage, config: WorkerConfig, version: str, environment: Mapping[str, str], board: Any
) -> StageResult:
    """Compute a stage, if this machine has the command's version of privbench."""
    mismatch = version_mismatch(version)
    if mismatch:
        return StageResult(mismatch)
    set_environment(environment)
    started = 0.0

    def send(loop: LoopProgress | None) -> None:
        board.update.remote(stage.key, time.monotonic() - started, loop)

    def on_start() -> None:
        nonlocal started
        started = time.monotonic()
        send(None)

    notes: list[str] = []
    handler, logger = WarningHandler(notes.append), logging.getLogger("privbench")
    logger.addHandler(handler)
    try:
        session = _session(config)
        session.progress = ThrottledProgress(send, PROGRESS_SECONDS)
        with session.store.lease([stage.key, *stage.inputs.values()], shared=False):
            _await_inputs(stage, session.store)
            result = attempt(stage, session, on_start)
    except PrivbenchError as cause:
        result = StageResult(str(cause))
    finally:
        logger.removeHandler(handler)
    return dataclasses.replace(result, notes=tuple(notes))


@cache
def _session(config: WorkerConfig) -> Session:
    """One session per configuration, so that a process reads each data set once."""
    return config.open_session()


def _await_inputs(stage: Stage, store: Store) -> None:
    """Wait until the inputs of a stage are visible here; if they never are, the stage itself reports it."""
    until = time.monotonic() + VISIBLE_SECONDS
    for role, key in stage.inputs.items():
        while store.find(role, key, verify=False) is None and time.monotonic() < until:
            time.sleep(0.5)


def privbench_environment() -> dict[str, str]:
    """Environment variables of this process that machines take over."""
    return {name: value for name, value in os.environ.items() if name.startswith(_PREFIX)}


def set_environment(environment: Mapping[str, str]) -> None:
    """Set environment variables; those that the machine sets itself, such as its cache folder, take precedence."""
    for name, value in environment.items():
        os.environ.setdefault(name, value)


def version_mismatch(expected: str) -> str | None:
    """Reason why this machine's version of privbench cannot be used; `None` if it is the expected one."""
    if expected == __version__:
        return None
    return f"privbench is {__version__} there and {expected} here; install the same version on every machine"
