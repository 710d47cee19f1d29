"""A shared folder as the second tier: files are renamed or linked into place, so that each is seen whole or not."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ..errors import CorruptArtifactError
from ..files import atomic

TEMPORARY = "tmp"
#: What a file system says that knows no hard links.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_CHUNK = 1 << 24


class Folder:
    """Files below a folder that several machines mount.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of a regular file, fewer where it is shorter."""
        path = self._root / name
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(path, flags)
        except OSError as cause:
            if cause.errno in (errno.ELOOP, errno.ENXIO):
                raise CorruptArtifactError(f"{name} is not a regular file") from cause
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise CorruptArtifactError(f"{name} is not a regular file")
        with os.fdopen(descriptor, "rb") as file:
            file.seek(start)
            return file.read(end - start)

    def put(self, name: str, source: Path) -> None:
        """Make a copy of a file visible under a name, whole, in place of what is there."""
        with self._temporary() as temporary, source.open("rb") as file:
            atomic.write_chunks(temporary, iter(lambda: file.read(_CHUNK), b""))
            self._place(temporary, name)

    def create(self, name: str, data: bytes) -> None:
        """Make bytes visible under a name, whole; of all who try at once one succeeds.

        Raises:
            FileExistsError: the name is taken.

        Note:
            Without hard links the last of several who try within milliseconds wins.
        """
        path = self._root / name
        with self._temporary() as temporary:
            atomic.write_new(temporary, data)
            atomic.make_folder(path.parent)
            try:
                os.link(temporary, path)
            except OSError as cause:
                if cause.errno not in _NO_LINKS:
                    raise
                if os.path.lexists(path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from cause
                temporary.rename(path)
            atomic.sync_folder(path.parent)

    def move(self, name: str, target: str) -> None:
        """Rename a file, or whatever bears its name."""
        self._place(self._root / name, target)

    def remove(self, name: str) -> None:
        """Remove a file."""
        atomic.remove(self._root / name)

    def sizes(self) -> dict[str, int]:
        """Bytes of every file, by name; links and devices count 0."""
        found = {}
        for folder, _, names in os.walk(self._root, onerror=_unless_gone):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    facts = path.lstat()
                    found[path.relative_to(self._root).as_posix()] = facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        return found

    def modified(self, name: str) -> datetime:
        """When a file was written, by the clock of the folder's server."""
        return datetime.fromtimestamp((self._root / name).lstat().st_mtime, tz=UTC)

    def top(self) -> set[str]:
        """Names of the files and folders at the top."""
        try:
            return {path.name for path in self._root.iterdir()}
        except FileNotFoundError:
            return set()

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        path = self._root / TEMPORARY / secrets.token_hex(16)
        atomic.make_folder(path.parent)
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _place(self, path: Path, name: str) -> None:
        target = self._root / name
        atomic.make_folder(target.parent)
        path.replace(target)
        atomic.sync_folder(target.parent)


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
