"""Free memory of this machine, and peak memory of stages as measured in earlier runs."""

import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..pipeline.plan import Stage
from ..store.manifest import Artifact
from ..store.store import Store

#: Longest time for reading manifests of the store.
SCAN_SECONDS = 2.0
_CGROUP = Path("/sys/fs/cgroup")


def available() -> int | None:
    """Bytes available to new processes, of the machine or of the container; `None` if unknown."""
    if not sys.platform.startswith("linux"):
        return None
    found = [amount for amount in (_available_on_machine(), _available_in_container()) if amount is not None]
    return min(found, default=None)


def _available_on_machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _available_in_container() -> int | None:
    """Bytes below the limit of the process's control group (version 2); its page cache counts as free."""
    with suppress(OSError, ValueError):
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
            used = int((_CGROUP / "memory.current").read_text(encoding="ascii")) - int(stat.get("inactive_file", 0))
            return max(0, int(limit) - used)
    return None


def resident(pid: int) -> int:
    """Resident memory of a process in bytes; 0 if unknown."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


class PeakMemory:
    """The largest measured peak memory of each resource class of stages."""

    def __init__(self) -> None:
        self._host: dict[str, int] = {}
        self._device: dict[str, int] = {}

    def add(self, resource_class: str, host: int, device: int) -> None:
        """Add a measurement: bytes of host memory and of accelerator memory."""
        self._host[resource_class] = max(host, self._host.get(resource_class, 0))
        self._device[resource_class] = max(device, self._device.get(resource_class, 0))

    def add_artifact(self, artifact: Artifact | None) -> None:
        """Add the measurement that an artifact holds, if any."""
        info = artifact.info if artifact else {}
        resource_class = info.get("resource_class")
        host, device = info.get("host_peak_memory_bytes"), info.get("peak_memory_bytes")
        if isinstance(resource_class, str) and isinstance(host, int) and isinstance(device, int):
            self.add(resource_class, host, device if str(info.get("device")).startswith("cuda") else 0)

    def host(self, stage: Stage) -> int | None:
        """Expected bytes of host memory of a stage; `None` if no stage of its class was measured."""
        return self._host.get(stage.resource_class) or None

    def device(self, stage: Stage) -> int | None:
        """Expected bytes of accelerator memory of a stage; `None` if no stage of its class was measured."""
        return self._device.get(stage.resource_class) or None


def known_peaks(todo: Iterable[Stage], found: Iterable[Artifact | None], store: Store) -> PeakMemory:
    """Peak memory of the stages to compute, from the artifacts of the plan and from others in the store."""
    peaks = PeakMemory()
    for artifact in found:
        peaks.add_artifact(artifact)
    unknown = {stage.kind for stage in todo if peaks.host(stage) is None}
    until = time.monotonic() + SCAN_SECONDS
    for entry in store.entries() if unknown else ():
        if entry.kind in unknown and entry.state == "artifact":
            peaks.add_artifact(store.find(entry.kind, entry.key, verify=False))
        if time.monotonic() > until:
            break
    return peaks


def format_bytes(amount: int) -> str:
    """An amount of memory in gigabytes."""
    return f"{amount / 1e9:.1f} GB"
