"""Files of the shared tier: temporary failures are retried, and permanent ones become one sentence."""

import errno
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from ..errors import PrivbenchError, StorageError
from ..files.untrusted import shown
from .shared_folder import Folder
from .shared_fsspec import Objects

log = logging.getLogger("privbench")
#: Seconds to wait before each retry.
PAUSES = (0.5, 2.0)
CHUNK = 1 << 24
_T = TypeVar("_T")
_PERMANENT = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.EFBIG,
    errno.ELOOP,
}
#: Errors of botocore for mistakes of the user, which derive from no built-in error.
_USER_ERRORS = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError"}
_DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}


class Backend(Protocol):
    """Interface of a file system; `Folder` and `Objects` implement it and document its methods."""

    def read(self, name: str, start: int, end: int) -> bytes:
        """Read bytes of a file."""

    def put(self, name: str, source: Path) -> None:
        """Copy a file to it."""

    def create(self, name: str, data: bytes) -> None:
        """Create a file that does not exist yet."""

    def move(self, name: str, target: str) -> None:
        """Rename a file."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def sizes(self) -> dict[str, int]:
        """Size of every file in bytes."""

    def modified(self, name: str) -> datetime | None:
        """Time when a file was written, if one is kept."""

    def top(self) -> set[str]:
        """Names at the top level."""


class RemoteFiles:
    """Files below a URL.

    Args:
        url: `file:///folder`, or of any protocol that fsspec knows; opened when first used.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._backend: Backend | None = None

    def read(self, name: str, limit: int) -> bytes | None:
        """Read a file, or its first `limit + 1` bytes if it is larger; `None` if it does not exist."""
        try:
            return self._call("read", lambda files: files.read(name, 0, limit + 1))
        except FileNotFoundError:
            return None

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        """Yield the bytes of a file, at most `size + 1`.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        for start in range(0, max(size, 1), CHUNK):
            end = start + CHUNK if start + CHUNK < size else size + 1
            chunk = self._call("read", partial(_read, name, start, end))
            yield chunk
            if len(chunk) < end - start:
                return

    def put(self, name: str, source: Path) -> None:
        """Copy a local file to `name`, atomically, replacing an earlier file."""
        try:
            self._call("write", lambda files: files.put(name, source))
        except (FileNotFoundError, FileExistsError) as cause:
            raise self._refusal("write", cause) from cause

    def create(self, name: str, data: bytes) -> bool:
        """Write a new file, atomically; returns `False` if `name` exists."""
        try:
            self._call("write", lambda files: files.create(name, data))
        except FileExistsError:
            return False
        except FileNotFoundError as cause:
            raise self._refusal("write", cause) from cause
        return True

    def move(self, name: str, target: str) -> None:
        """Rename a file; do nothing if it does not exist."""
        self._change("move", lambda files: files.move(name, target))

    def remove(self, name: str) -> None:
        """Remove a file; do nothing if it does not exist."""
        self._change("remove", lambda files: files.remove(name))

    def sizes(self) -> dict[str, int]:
        """Size of every file in bytes, by name."""
        return self._call("list", lambda files: files.sizes())

    def modified(self, name: str) -> datetime | None:
        """Time when a file was written, by the server's clock; `None` if it does not exist or no time is kept."""
        try:
            found = self._call("read", lambda files: files.modified(name))
        except FileNotFoundError:
            return None
        return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found

    def top(self) -> set[str]:
        """Names of the files and folders at the top level."""
        return self._call("list", lambda files: files.top())

    def _change(self, action: str, call: Callable[[Backend], None]) -> None:
        try:
            self._call(action, call)
        except FileNotFoundError:
            return

    def _call(self, action: str, call: Callable[[Backend], _T]) -> _T:
        """Call the backend, retrying after temporary failures.

        Raises:
            FileNotFoundError: the file does not exist.
            FileExistsError: the file exists.
            StorageError: the failure is permanent, or the retries failed, too.
        """
        for pause in (*PAUSES, None):
            try:
                if self._backend is None:
                    self._backend = _opened(self.url)
                return call(self._backend)
            except (PrivbenchError, FileNotFoundError, FileExistsError):
                raise
            except Exception as cause:
                if pause is None or not _is_temporary(cause):
                    raise self._refusal(action, cause) from cause
                log.debug("cannot %s %s (%s); retrying", action, self.url, shown(cause))
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _refusal(self, action: str, cause: Exception) -> StorageError:
        strerror = getattr(cause, "strerror", None)
        reason = shown(strerror or cause).rstrip(".") or type(cause).__name__
        if isinstance(cause, PermissionError) or getattr(cause, "errno", None) in _DENIED:
            advice = "ask for permission, or choose another store with --store or PRIVBENCH_STORE"
        elif _is_temporary(cause):
            advice = "what was computed is kept in the local tier; run the same command again to continue"
        else:
            advice = "fix the cause, or choose another store with --store or PRIVBENCH_STORE"
        return StorageError(f"cannot {action} the shared store {self.url}: {reason}; {advice}")


def _read(name: str, start: int, end: int, files: Backend) -> bytes:
    return files.read(name, start, end)


def _opened(url: str) -> Backend:
    protocol, _, rest = url.partition("://")
    return Folder(Path(rest)) if protocol in {"file", "local"} else Objects(url)


def _is_temporary(cause: Exception) -> bool:
    """Tell whether a retry may succeed."""
    if isinstance(
        cause, PermissionError | FileNotFoundError | TypeError | ValueError | ImportError | NotImplementedError
    ):
        return False
    return getattr(cause, "errno", None) not in _PERMANENT and type(cause).__name__ not in _USER_ERRORS
