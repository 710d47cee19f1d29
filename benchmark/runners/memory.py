"""How much memory is free, and how much a stage takes as far as one like it was measured before."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..pipeline.plan import Stage
from ..store.manifest import Artifact
from ..store.store import Store

#: Manifests of a store are looked through for at most so many seconds.
LOOK_SECONDS = 2.0
_CGROUP = Path("/sys/fs/cgroup")


def available() -> int | None:
    """Bytes that processes started now can have, of the machine or the container; `None` where that is unknown."""
    if not sys.platform.startswith("linux"):
        return None
    found = [amount for amount in (_of_machine(), _of_container()) if amount is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _of_container() -> int | None:
    """What the process's control group (version 2) leaves; its page cache counts as free."""
    with suppress(OSError, ValueError):
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            facts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
            used = int((_CGROUP / "memory.current").read_text(encoding="ascii")) - int(facts.get("inactive_file", 0))
            return max(0, int(limit) - used)
    return None


def held(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where that is unknown."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


class Measured:
    """Peaks of memory by the resource_class of stage: the largest that was seen."""

    def __init__(self) -> None:
        self._host: dict[str, int] = {}
        self._device: dict[str, int] = {}

    def learn(self, resource_class: str, host: int, device: int) -> None:
        """A stage of a resource_class took so many bytes of memory, and of its accelerator's."""
        self._host[resource_class] = max(host, self._host.get(resource_class, 0))
        self._device[resource_class] = max(device, self._device.get(resource_class, 0))

    def read(self, artifacts: Iterable[Artifact | None]) -> None:
        """Learn from what artifacts say of how they were made."""
        for artifact in artifacts:
            info = artifact.info if artifact else {}
            resource_class, host, device = (
                info.get("resource_class"),
                info.get("host_peak_memory_bytes"),
                info.get("peak_memory_bytes"),
            )
            if isinstance(resource_class, str) and isinstance(host, int) and isinstance(device, int):
                self.learn(resource_class, host, device if str(info.get("device")).startswith("cuda") else 0)

    def host(self, stage: Stage) -> int | None:
        """Bytes of memory that a stage is expected to take; `None` where none like it was measured."""
        return self._host.get(stage.resource_class) or None

    def device(self, stage: Stage) -> int | None:
        """Bytes of an accelerator's memory that a stage is expected to take; `None` where none like it was measured."""
        return self._device.get(stage.resource_class) or None


def measured(todo: Iterable[Stage], found: Iterable[Artifact | None], store: Store) -> Measured:
    """What is known of the stages to compute: from the artifacts of the plan, and from others in the store."""
    result = Measured()
    result.read(found)
    unknown = {stage.kind for stage in todo if result.host(stage) is None}
    until = time.monotonic() + LOOK_SECONDS
    for entry in store.entries() if unknown else ():
        if entry.kind in unknown and entry.state == "artifact":
            result.read([store.find(entry.kind, entry.key, verify=False)])
        if time.monotonic() > until:
            break
    return result


def shown(amount: int) -> str:
    """An amount of memory in a sentence."""
    return f"{amount / 1e9:.1f} GB"
