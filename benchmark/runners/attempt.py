"""Compute one stage in this process; every failure comes back as a reason."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import PrivbenchError
from ..pipeline.failures import is_out_of_memory, raised_in
from ..pipeline.plan import Stage
from ..pipeline.session import Session
from ..pipeline.stages import run
from ..store.manifest import Artifact
from ..store.store import Store

log = logging.getLogger("privbench")


@dataclass(frozen=True)
class StageResult:
    """Result of an attempt to compute a stage.

    Args:
        reason: why it failed; `None` if it did not.
        seconds: wall-clock time.
        computed: it was computed here; `False` if another process had computed it.
        discard_process: the stage failed or ran out of memory, so its process may still hold memory and must end.
        host_peak: peak memory in bytes of the process that computed it; 0 if unknown.
        device_peak: peak memory in bytes of its accelerator.
        notes: messages for the user.
    """

    reason: str | None = None
    seconds: float = 0.0
    computed: bool = False
    discard_process: bool = False
    host_peak: int = 0
    device_peak: int = 0
    notes: tuple[str, ...] = ()


def attempt(stage: Stage, session: Session, on_start: Callable[[], None] | None = None) -> StageResult:
    """Compute one stage under its lock, unless another process has computed it.

    Args:
        stage: the stage to compute.
        session: its store, data and device.
        on_start: called when the lock is held and computing begins.
    """
    began = time.monotonic()
    reason, exhausted, artifact = None, False, None
    try:
        with session.store.lock(stage.kind, stage.key):
            if find_usable(session.store, stage) is None:
                if on_start:
                    on_start()
                _discard_failed_scores(session.store, stage)
                artifact = run(stage, session)
    except PrivbenchError as cause:
        reason = str(cause)
    except Exception as cause:  # an error in a component fails this stage; the other cells go on
        exhausted = is_out_of_memory(cause)
        log.debug("%s failed", stage.title, exc_info=True)
        reason = f"{type(cause).__name__} in {raised_in(cause)}: {cause}; --debug shows where"
    if exhausted:
        reason = "out of memory; use a smaller batch, a device or machine with more memory, or fewer --jobs"
    info = artifact.info if artifact else {}
    return StageResult(
        reason,
        time.monotonic() - began,
        artifact is not None,
        exhausted or bool(info.get("failed")),
        info.get("host_peak_memory_bytes", 0),
        info.get("peak_memory_bytes", 0) if session.device.type == "cuda" else 0,
    )


def find_usable(store: Store, stage: Stage) -> Artifact | None:
    """The stage's artifact; `None` if it is missing or holds scores of an evaluator that raised."""
    artifact = store.find(stage.kind, stage.key)
    return None if artifact is None or artifact.info.get("failed") else artifact


def _discard_failed_scores(store: Store, stage: Stage) -> None:
    """Delete a stored artifact that is not usable, because `Store.write` keeps what is stored already.

    The caller holds the lock and is about to compute the stage.
    """
    if store.exists(stage.kind, stage.key):
        store.discard(stage.kind, stage.key)
