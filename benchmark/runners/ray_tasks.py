"""What runs on the machines of a Ray cluster: stages, a look at whether a machine can compute them, and progress."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ... import __version__
from ..errors import PrivbenchError
from ..pipeline.cell import Choice
from ..pipeline.plan import Stage
from ..pipeline.session import Session
from ..store.store import Store, open_store
from .attempt import Report, attempt
from .worker import Looping, ThrottledProgress, Warnings, WorkerConfig

#: Seconds until what another machine has written must be seen here: shared folders remember what was not there.
PATIENCE = 60.0
#: Seconds between two messages of a stage.
TELL_SECONDS = 1.0
#: A key that no stage has.
_NO_KEY = "0" * 64


@dataclass(frozen=True)
class Told:
    """How far a stage is: seconds since it began, and its loop."""

    seconds: float
    looping: Looping | None


class ProgressBoard:
    """An actor to which stages say how far they are; the console reads it."""

    def __init__(self) -> None:
        self._told: dict[str, Told] = {}

    def tell(self, key: str, told: Told) -> None:
        """A stage says how far it is."""
        self._told[key] = told

    def read(self) -> dict[str, Told]:
        """What was said since the last time."""
        told, self._told = self._told, {}
        return told


@dataclass(frozen=True)
class Job:
    """A stage and where to compute it."""

    stage: Stage
    place: WorkerConfig
    environment: Mapping[str, str]
    version: str
    board: Any


def compute(job: Job) -> Report:
    """Compute a stage."""
    other = _other_version(job.version)
    if other:
        return Report(other)
    _adopt(job.environment)
    board, key, began = job.board, job.stage.key, [0.0]

    def say(looping: Looping | None) -> None:
        board.tell.remote(key, Told(time.monotonic() - began[0], looping))

    def begun() -> None:
        began[0] = time.monotonic()
        say(None)

    notes: list[str] = []
    handler, logger = Warnings(notes.append), logging.getLogger("privbench")
    logger.addHandler(handler)
    try:
        session = _session(job.place)
        session.progress = ThrottledProgress(say, TELL_SECONDS)
        _await_inputs(job.stage, session.store)
        report = attempt(job.stage, session, begun)
    except PrivbenchError as cause:
        report = Report(str(cause))
    finally:
        logger.removeHandler(handler)
    return dataclasses.replace(report, notes=tuple(notes))


@cache
def _session(place: WorkerConfig) -> Session:
    """One for each place, so that data sets are read once a process."""
    return place.session()


def _await_inputs(stage: Stage, store: Store) -> None:
    """Wait for what the stage reads to be seen here; a stage that does not find it says so itself."""
    until = time.monotonic() + PATIENCE
    for role, key in stage.inputs.items():
        while store.find(role, key, verify=False) is None and time.monotonic() < until:
            time.sleep(0.5)


@dataclass(frozen=True)
class Expected:
    """What a machine must have."""

    version: str
    store: Any
    #: Time of the store's oldest file in nanoseconds: another folder of the same name has another.
    mark: int | None
    data_root: Any
    #: Data sets, with what identifies their files.
    datasets: tuple[tuple[Choice, str], ...]
    #: Unpickled there, so that packages that it lacks are missed now.
    components: tuple[Any, ...]
    environment: Mapping[str, str]


def check_machine(expected: Expected) -> str | None:
    """Why this machine cannot compute the stages, one phrase; `None` if it can."""
    other = _other_version(expected.version)
    if other:
        return other
    _adopt(expected.environment)
    try:
        store = open_store(expected.store)
        if expected.mark is not None and mark_of(store) != expected.mark:
            return (
                f"the folder {store.root} is not the store that the command sees under this name; give --store a "
                "folder that all machines share, or a URL"
            )
        with store.lock("scores", _NO_KEY):
            store.find("scores", _NO_KEY)
        for dataset, fingerprint in expected.datasets:
            # Where files are named by published checksums there is no fingerprint, and checking them is quick.
            for problem in () if fingerprint else dataset.component.check(expected.data_root):
                return str(problem)
            if dataset.component.fingerprint(expected.data_root) != fingerprint:
                return f"the files of {dataset.name} in {expected.data_root} differ from those that the command sees"
    except PrivbenchError as cause:
        return str(cause)
    return None


def mark_of(store: Store) -> int | None:
    """When the store was made, in nanoseconds; the store is made if there is none yet. `None` where it is remote."""
    if store.address.remote is not None:
        return None
    with store.lock("scores", _NO_KEY):
        return (store.root / "format.json").stat().st_mtime_ns


def _adopt(environment: Mapping[str, str]) -> None:
    """Take variables over; what the machine says itself, as of its folder for caches, counts."""
    for name, value in environment.items():
        os.environ.setdefault(name, value)


def _other_version(expected: str) -> str | None:
    if expected == __version__:
        return None
    return f"privbench is {__version__} there and {expected} here; install the same version on every machine"
