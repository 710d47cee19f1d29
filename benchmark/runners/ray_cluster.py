"""Connection to a Ray cluster: connect without Ray's own output, and detect that the cluster is lost."""

import contextlib
import io
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ..core.paths import short_temporary_root
from ..errors import PrivbenchError

log = logging.getLogger("privbench")
#: Seconds between checks of the head, and seconds without a head after which the run ends. After 60 seconds Ray would
#: end the process; a head that something restarts, as on Kubernetes, is back sooner.
_CHECK_SECONDS, _GIVE_UP_SECONDS = 3.0, 45.0
#: No usage statistics, no warning about a future change, no error log of Ray's C++ code on standard error.
_RAY_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
#: Bytes that Ray adds to its temporary folder for the path of a socket.
_SOCKET_ROOM = len("/ray/session_2026-01-31_12-00-00_123456_1234567/sockets/plasma_store")
#: Name of the thread in which Ray prints messages about machines.
_RAY_THREAD = "ray_listen_error_messages"


class ClusterError(PrivbenchError, ConnectionError):
    """A Ray cluster cannot be reached, cannot compute the plan, or is lost."""


@dataclass(frozen=True)
class Cluster:
    """Address and use of a cluster.

    Args:
        address: `HOST:PORT`; by default `RAY_ADDRESS`, else the cluster that runs on this machine, else a new one.
        jobs: number of concurrent stages on one machine, unless `threads` is given.
        threads: CPU threads of each stage; by default the CPUs of the smallest machine, divided by `jobs` or by its
            number of accelerators, whichever is larger.
        stage_timeout: seconds after which a stage is stopped.
    """

    address: str | None = None
    jobs: int = 1
    threads: int | None = None
    stage_timeout: float | None = None


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Yield the Ray library, connected to a cluster; an existing connection is used and kept open.

    Raises:
        ClusterError: Ray is not installed, or the cluster cannot be reached.
    """
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    named = os.environ.get("RAY_ADDRESS") if address in (None, "auto") else address
    named = named or address  # "auto" requires a running cluster; without an address a new one is started
    if named not in (None, "auto", "local"):
        _require_head(named)
    stale = named in (None, "auto") and _is_stale()
    if stale and named == "auto":
        raise ClusterError("no Ray cluster can be reached at this machine: the last one has ended; start it again")
    with _ray_output_hidden():
        _connect(ray, "local" if stale else named)
        try:
            yield ray
        finally:
            # Ray prints buffered messages from this thread.
            with contextlib.redirect_stdout(io.StringIO()):
                ray.shutdown()


def _require_head(address: str) -> None:
    """Require a head at an address, because Ray itself would wait minutes for it without a message.

    Raises:
        ClusterError: nothing listens there, or it is not an address of a head.
    """
    if address.startswith("ray://"):
        raise ClusterError(
            f"expected --address to be HOST:PORT of the cluster, got {address!r}, which is for clients outside of it; "
            "start the command on a machine of the cluster"
        )
    host_and_port = _parse(address)
    if host_and_port is None:
        raise ClusterError(f"expected --address to be HOST:PORT of the cluster, as `ray start` prints, got {address!r}")
    error = _connection_error(host_and_port)
    if error:
        raise ClusterError(f"no Ray cluster can be reached at {address}: {error}; check `ray status` there")


def _parse(address: str) -> tuple[str, int] | None:
    """Host and port of an address; `None` if it is malformed."""
    host, _, port = address.rpartition(":")
    valid = bool(host) and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 1 << 16
    return (host.strip("[]"), int(port)) if valid else None


def _connection_error(host_and_port: tuple[str, int]) -> str | None:
    """Reason why no connection is possible; `None` if one is."""
    try:
        with socket.create_connection(host_and_port, timeout=_CHECK_SECONDS):
            return None
    except OSError as cause:
        return cause.strerror or str(cause) or type(cause).__name__


def _is_stale() -> bool:
    """Return whether the last cluster on this machine, whose address Ray keeps in a file, has ended."""
    default = os.environ.get("TMPDIR", "/tmp") if sys.platform.startswith("linux") else "/tmp"
    file = Path(os.environ.get("RAY_TMPDIR", default), "ray", "ray_current_cluster")
    try:
        host_and_port = _parse(file.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError):
        return False
    return host_and_port is not None and _connection_error(host_and_port) is not None


def _connect(ray: Any, address: str | None) -> None:
    def init(address: str, **more: Any) -> None:
        ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, configure_logging=True, **more)

    try:
        with _stderr_hidden():
            if address not in (None, "local"):
                init(address)
                return
            if address is None:
                with contextlib.suppress(ConnectionError):
                    init("auto")
                    return
            root = None if os.environ.get("RAY_TMPDIR") else short_temporary_root(_SOCKET_ROOM)
            init("local", include_dashboard=False, **({"_temp_dir": root} if root else {}))
    except (ConnectionError, RuntimeError, ValueError, OSError) as cause:
        where = "this machine" if address in (None, "auto", "local") else address
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise ClusterError(
            f"no Ray cluster can be reached at {where}: {reason.rstrip('.')}; check `ray status` there"
        ) from cause


def _import_ray() -> Any:
    for name, value in _RAY_VARIABLES.items():
        os.environ.setdefault(name, value)
    if _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # `ray start` sets it, `ray.init` does not
    try:
        import ray
    except ImportError as cause:
        raise ClusterError("--runner ray needs ray: pip install 'privbench[ray]'") from cause
    return ray


def _has_token() -> bool:
    """Return whether this machine has a token, which clusters started with `ray start` then require."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or path.is_file()


@contextlib.contextmanager
def _stderr_hidden() -> Iterator[None]:
    """Discard what Ray's C++ code writes to standard error; Ray raises the same errors as exceptions."""
    sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


class _WithoutRay:
    """Standard output without Ray's messages about lost machines, which would corrupt JSON output."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, unless Ray's thread does."""
        if threading.current_thread().name != _RAY_THREAD:
            return self._stream.write(text)
        log.debug("ray: %s", text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _ray_output_hidden() -> AbstractContextManager[object]:
    return contextlib.redirect_stdout(_WithoutRay(sys.stdout)) if sys.stdout else contextlib.nullcontext()


class Head:
    """Connection check of the cluster's head and of this machine's node.

    Args:
        ray: the connected library.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        context = ray.get_runtime_context()
        self._address, self._node = str(context.gcs_address), context.get_node_id()
        self._host_and_port = _parse(self._address)
        self._answered = self._checked = time.monotonic()
        self.is_lost = False

    def check(self) -> bool:
        """Check the head, at most every few seconds, and return whether it answered the last check.

        Raises:
            ClusterError: it has not answered for too long, or the cluster has removed this machine.
        """
        now = time.monotonic()
        if now - self._checked >= _CHECK_SECONDS:
            self._checked = now
            if self._host_and_port is None or _connection_error(self._host_and_port) is None:
                self._answered = time.monotonic()
                self._check_this_machine()
            elif now - self._answered > _GIVE_UP_SECONDS:
                self._raise_lost(f"the head of the Ray cluster, {self._address}, is lost; start the cluster again")
        return self._answered >= self._checked

    def _check_this_machine(self) -> None:
        """Check that the cluster still has this machine's node, without which no task can be submitted."""
        try:
            nodes = self._ray.nodes()
        except self._ray.exceptions.RayError:  # the head was lost a moment ago
            return
        if any(node["NodeID"] == self._node and not node["Alive"] for node in nodes):
            self._raise_lost("the Ray cluster has lost this machine; start Ray on it again")

    def _raise_lost(self, message: str) -> None:
        self.is_lost = True
        raise ClusterError(f"{message}, then run the same command again to resume")
