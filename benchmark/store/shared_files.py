"""Files of the second tier: what fails for a moment is tried again, and what fails for good is one sentence."""

from __future__ import annotations

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
#: Seconds before each further attempt.
PAUSES = (0.5, 2.0)
CHUNK = 1 << 24
_T = TypeVar("_T")
_FOR_GOOD = {
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
}
#: Errors of botocore for a user's mistakes, which do not derive from any of Python's.
_MISTAKES = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError"}
_DENIED = {errno.EROFS, errno.EACCES, errno.EPERM}


class Backend(Protocol):
    """What a file system must do; `Folder` and `Objects` say how."""

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes of a file."""

    def put(self, name: str, source: Path) -> None:
        """Copy a file there, whole."""

    def create(self, name: str, data: bytes) -> None:
        """Make a file that does not exist yet, whole."""

    def move(self, name: str, target: str) -> None:
        """Rename a file."""

    def remove(self, name: str) -> None:
        """Remove a file."""

    def sizes(self) -> dict[str, int]:
        """Bytes of every file."""

    def modified(self, name: str) -> datetime | None:
        """When a file was written, where a time is kept."""

    def top(self) -> set[str]:
        """Names at the top."""


class RemoteFiles:
    """Files below a URL.

    Args:
        url: `file:///folder`, or of any protocol that fsspec knows; opened when first used.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._backend: Backend | None = None

    def read(self, name: str, limit: int) -> bytes | None:
        """A file, or its first `limit + 1` bytes where it has more; `None` where there is none."""
        try:
            return self._ask("read", lambda files: files.read(name, 0, limit + 1))
        except FileNotFoundError:
            return None

    def chunks(self, name: str, size: int) -> Iterator[bytes]:
        """The bytes of a file, at most `size + 1` of them.

        Raises:
            FileNotFoundError: there is none.
        """
        for start in range(0, max(size, 1), CHUNK):
            end = start + CHUNK if start + CHUNK < size else size + 1
            chunk = self._ask("read", partial(_read, name, start, end))
            yield chunk
            if len(chunk) < end - start:
                return

    def put(self, name: str, source: Path) -> None:
        """Make a copy of a file visible under a name, whole, in place of what is there."""
        try:
            self._ask("write", lambda files: files.put(name, source))
        except (FileNotFoundError, FileExistsError) as cause:
            raise self._refusal("write", cause) from cause

    def create(self, name: str, data: bytes) -> bool:
        """Make bytes visible under a name, whole; `False` where the name is taken."""
        try:
            self._ask("write", lambda files: files.create(name, data))
        except FileExistsError:
            return False
        except FileNotFoundError as cause:
            raise self._refusal("write", cause) from cause
        return True

    def move(self, name: str, target: str) -> None:
        """Rename a file; nothing happens where there is none."""
        self._change("move", lambda files: files.move(name, target))

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens where there is none."""
        self._change("remove", lambda files: files.remove(name))

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by name."""
        return self._ask("list", lambda files: files.sizes())

    def modified(self, name: str) -> datetime | None:
        """When a file was written, by the clock of the server; `None` where it is gone or no time is kept."""
        try:
            found = self._ask("read", lambda files: files.modified(name))
        except FileNotFoundError:
            return None
        return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found

    def top(self) -> set[str]:
        """Names of the files and folders at the top."""
        return self._ask("list", lambda files: files.top())

    def _change(self, action: str, call: Callable[[Backend], None]) -> None:
        try:
            self._ask(action, call)
        except FileNotFoundError:
            return

    def _ask(self, action: str, call: Callable[[Backend], _T]) -> _T:
        """What the call returns, after further attempts where it fails for a moment.

        Raises:
            FileNotFoundError: there is no such file.
            FileExistsError: there is one.
            StorageError: it fails for good, or still.
        """
        for pause in (*PAUSES, None):
            try:
                if self._backend is None:
                    self._backend = _opened(self.url)
                return call(self._backend)
            except (PrivbenchError, FileNotFoundError, FileExistsError):
                raise
            except Exception as cause:
                if pause is None or not _is_passing(cause):
                    raise self._refusal(action, cause) from cause
                log.debug("cannot %s %s yet (%s); trying again", action, self.url, shown(cause))
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _refusal(self, action: str, cause: Exception) -> StorageError:
        strerror = getattr(cause, "strerror", None)
        reason = shown(strerror or cause).rstrip(".") or type(cause).__name__
        if isinstance(cause, PermissionError) or getattr(cause, "errno", None) in _DENIED:
            advice = "ask for permission, or choose another store with --store or PRIVBENCH_STORE"
        elif _is_passing(cause):
            advice = "what was computed is kept in the local tier, and the same command goes on from there"
        else:
            advice = "mend that, or choose another store with --store or PRIVBENCH_STORE"
        return StorageError(f"cannot {action} the shared store {self.url}: {reason}; {advice}")


def _read(name: str, start: int, end: int, files: Backend) -> bytes:
    return files.read(name, start, end)


def _opened(url: str) -> Backend:
    protocol, _, rest = url.partition("://")
    return Folder(Path(rest)) if protocol in {"file", "local"} else Objects(url)


def _is_passing(cause: Exception) -> bool:
    """Whether another attempt may succeed."""
    if isinstance(
        cause, PermissionError | FileNotFoundError | TypeError | ValueError | ImportError | NotImplementedError
    ):
        return False
    return getattr(cause, "errno", None) not in _FOR_GOOD and type(cause).__name__ not in _MISTAKES
