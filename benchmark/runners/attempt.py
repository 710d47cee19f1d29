"""One stage, computed where this runs: whatever goes wrong comes back as a sentence."""

from __future__ import annotations

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
class Report:
    """What came of a stage.

    Args:
        reason: why it failed; `None` if it did not.
        seconds: how long it took.
        computed: it was computed now, and not found computed by another process meanwhile.
        spoiled: something of it ran out of memory or failed, so that the process may still hold memory for nothing.
        peak: bytes of memory of the process that computed it, at most; 0 where unknown.
        device_peak: bytes of its accelerator's memory, at most.
        notes: what the user should know of it.
    """

    reason: str | None = None
    seconds: float = 0.0
    computed: bool = False
    spoiled: bool = False
    peak: int = 0
    device_peak: int = 0
    notes: tuple[str, ...] = ()


def attempt(stage: Stage, session: Session, begun: Callable[[], None] | None = None) -> Report:
    """Compute one stage under its lock, unless another process did meanwhile.

    Args:
        stage: what to compute.
        session: where.
        begun: called when the lock is held and computing begins.
    """
    began = time.monotonic()
    reason, exhausted, artifact = None, False, None
    try:
        with session.store.lock(stage.kind, stage.key):
            if usable(session.store, stage) is None:
                if begun:
                    begun()
                artifact = run(stage, session)
    except PrivbenchError as cause:
        reason = str(cause)
    except Exception as cause:  # a plugin's fault: the other cells go on
        exhausted = is_out_of_memory(cause)
        log.debug("%s failed", stage.title, exc_info=True)
        reason = f"{type(cause).__name__} in {raised_in(cause)}: {cause}; --debug shows where"
    if exhausted:
        reason = "out of memory; use a smaller batch, a device or machine with more, or fewer --jobs"
    info = artifact.info if artifact else {}
    return Report(
        reason,
        time.monotonic() - began,
        artifact is not None,
        exhausted or bool(info.get("failed")),
        info.get("host_peak_memory_bytes", 0),
        info.get("peak_memory_bytes", 0) if session.device.type == "cuda" else 0,
    )


def usable(store: Store, stage: Stage) -> Artifact | None:
    """The stage's artifact, unless it holds scores of an evaluator that raised: those are tried again."""
    artifact = store.find(stage.kind, stage.key)
    if artifact is not None and artifact.info.get("failed"):
        store.discard(stage.kind, stage.key)
        return None
    return artifact
