"""The way to a Ray cluster: to connect, quietly, and to notice that it is gone."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ..errors import PrivbenchError

log = logging.getLogger("privbench")
#: Seconds between looks whether the head is there, and without it until the run is given up: after 60 Ray ends the
#: process; a head that is kept by others, as on Kubernetes, comes back sooner.
_LOOK, _GIVE_UP = 3.0, 45.0
#: No usage statistics, no warning of what a later Ray will do, and nothing of its C++ part on standard error.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
#: Ray's thread that prints what happens to machines.
_PRINTER = "ray_listen_error_messages"


class ClusterError(PrivbenchError, ConnectionError):
    """A Ray cluster that cannot be reached or cannot compute the plan, or is lost."""


@dataclass(frozen=True)
class Cluster:
    """Which cluster, and how it is used.

    Args:
        address: `HOST:PORT`; by default `RAY_ADDRESS`, else the one that runs on this machine, else a new one.
        jobs: stages at a time on one machine, unless `threads` is given.
        threads: of the CPU for each stage; by default those of the smallest machine, divided among the jobs, or among
            its accelerators if they are more.
        stage_timeout: seconds after which a stage is stopped.
    """

    address: str | None = None
    jobs: int = 1
    threads: int | None = None
    stage_timeout: float | None = None


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster; a connection that was there before is used and left.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _library()
    if ray.is_initialized():
        yield ray
        return
    named = os.environ.get("RAY_ADDRESS") if address in (None, "auto") else address
    named = named or address  # "auto" wants one that runs on this machine; without a name a new one will do
    if named not in (None, "auto", "local"):
        _require_head(named)
    stale = named in (None, "auto") and _is_stale()
    if stale and named == "auto":
        raise ClusterError("no Ray cluster can be reached at this machine: the last one is gone; start it again")
    with _unprinted():
        _connect(ray, "local" if stale else named)
        try:
            yield ray
        finally:
            # Ray prints what it has held back, from this thread.
            with contextlib.redirect_stdout(io.StringIO()):
                ray.shutdown()


def _require_head(address: str) -> None:
    """Ray itself looks for a head that is not there for minutes, without a word.

    Raises:
        ClusterError: nothing listens there, or it is no address of a head.
    """
    if address.startswith("ray://"):
        raise ClusterError(
            f"expected --address to be HOST:PORT of the cluster, got {address!r}, which is for clients outside of it; "
            "start the command on a machine of the cluster"
        )
    place = _place(address)
    if place is None:
        raise ClusterError(f"expected --address to be HOST:PORT of the cluster, as `ray start` prints, got {address!r}")
    reason = _refusal(place)
    if reason:
        raise ClusterError(f"no Ray cluster can be reached at {address}: {reason}; look at `ray status` there")


def _place(address: str) -> tuple[str, int] | None:
    """Host and port of an address, `None` if it is none."""
    host, _, port = address.rpartition(":")
    fits = bool(host) and port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16
    return (host.strip("[]"), int(port)) if fits else None


def _refusal(place: tuple[str, int]) -> str | None:
    """Why nothing answers there, a phrase; `None` if something does."""
    try:
        with socket.create_connection(place, timeout=_LOOK):
            return None
    except OSError as cause:
        return cause.strerror or str(cause) or type(cause).__name__


def _is_stale() -> bool:
    """Whether the cluster that ran on this machine last, as Ray has noted, is gone."""
    usual = os.environ.get("TMPDIR", "/tmp") if sys.platform.startswith("linux") else "/tmp"
    noted = Path(os.environ.get("RAY_TMPDIR", usual), "ray", "ray_current_cluster")
    try:
        place = _place(noted.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False
    return place is not None and _refusal(place) is not None


def _connect(ray: Any, address: str | None) -> None:
    def init(address: str, **more: Any) -> None:
        ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=True, **more)

    try:
        with _silent():
            if address not in (None, "local"):
                init(address)
                return
            if address is None:
                with contextlib.suppress(ConnectionError):
                    init("auto")
                    return
            init("local", include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as cause:
        where = "this machine" if address in (None, "auto", "local") else address
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise ClusterError(
            f"no Ray cluster can be reached at {where}: {reason.rstrip('.')}; look at `ray status` there"
        ) from cause


def _library() -> Any:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # as `ray start` does; `ray.init` does not
    try:
        import ray
    except ImportError as cause:
        raise ClusterError("--runner ray needs ray: pip install 'privbench[ray]'") from cause
    return ray


def _has_token() -> bool:
    """Whether this machine has the token that clusters started with `ray start` then ask for."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or path.is_file()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing on standard error from Ray's C++ part, which repeats in its own words what is raised anyway."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


class _Unprinted:
    """Standard output without what Ray prints there of lost machines, which would stand in the middle of JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, unless Ray does."""
        if threading.current_thread().name != _PRINTER:
            return self._stream.write(text)
        log.debug("ray: %s", text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _unprinted() -> Iterator[None]:
    if sys.stdout is None:
        yield
        return
    with contextlib.redirect_stdout(_Unprinted(sys.stdout)):
        yield


class Head:
    """The cluster's head, and this machine's part in the cluster.

    Args:
        ray: connected.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        context = ray.get_runtime_context()
        self._address, self._node = str(context.gcs_address), context.get_node_id()
        self._place = _place(self._address)
        self._answered = self._looked = time.monotonic()
        self.is_lost = False

    def answers(self) -> bool:
        """Whether the head answered at the last look, at most some seconds ago.

        Raises:
            ClusterError: it has been gone for too long, or the cluster has given up this machine.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOK:
            self._looked = now
            if self._is_there():
                self._answered = time.monotonic()
                self._check_this_machine()
            elif now - self._answered > _GIVE_UP:
                self._lose(f"the head of the Ray cluster, {self._address}, is lost; start the cluster again")
        return self._answered >= self._looked

    def _is_there(self) -> bool:
        return self._place is None or _refusal(self._place) is None

    def _check_this_machine(self) -> None:
        """Without its own part of Ray this process can start nothing."""
        try:
            nodes = self._ray.nodes()
        except self._ray.exceptions.RayError:  # the head went away just now
            return
        if any(node["NodeID"] == self._node and not node["Alive"] for node in nodes):
            self._lose("the Ray cluster has lost this machine; start Ray again on it")

    def _lose(self, sentence: str) -> None:
        self.is_lost = True
        raise ClusterError(f"{sentence}, and the same command goes on where it stopped")
