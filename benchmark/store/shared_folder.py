"""A shared folder as the shared tier: files are renamed or linked into place, so that nobody reads a part of one."""

import contextlib
import errno
import os
import secrets
import stat
from datetime import UTC, datetime
from pathlib import Path

from ..errors import CorruptArtifactError
from ..files import atomic
from ..files.untrusted import open_regular
from .layout import TEMPORARY

#: Errors of a file system without hard links.
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
        """Read bytes `start` to `end` of a regular file, fewer if it is shorter."""
        try:
            with open_regular(self._root / name) as file:
                file.seek(start)
                return file.read(end - start)
        except OSError as cause:
            if cause.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise CorruptArtifactError(f"{name} is not a regular file") from cause
            raise

    def put(self, name: str, source: Path) -> None:
        """Copy a local file to `name`, atomically, replacing an earlier file."""
        temporary = self._temporary()
        with source.open("rb") as file, atomic.replaced_file(self._root / name, temporary):
            atomic.write_chunks(temporary, iter(lambda: file.read(_CHUNK), b""))

    def create(self, name: str, data: bytes) -> None:
        """Write a new file, atomically; if several processes create it at once, one succeeds.

        Raises:
            FileExistsError: the file exists.

        Note:
            Without hard links, the last of several that create it within milliseconds wins.
        """
        path, temporary = self._root / name, self._temporary()
        try:
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
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def move(self, name: str, target: str) -> None:
        """Rename a file, or whatever has its name."""
        destination = self._root / target
        atomic.make_folder(destination.parent)
        (self._root / name).replace(destination)
        atomic.sync_folder(destination.parent)

    def remove(self, name: str) -> None:
        """Remove a file."""
        atomic.remove(self._root / name)

    def sizes(self) -> dict[str, int]:
        """Size of every file in bytes, by name; 0 for links and devices."""
        found = {}
        for folder, _, names in os.walk(self._root, onerror=_raise_unless_missing):
            for name in names:
                path = Path(folder, name)
                with contextlib.suppress(FileNotFoundError):
                    facts = path.lstat()
                    found[path.relative_to(self._root).as_posix()] = facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        return found

    def modified(self, name: str) -> datetime:
        """Time when a file was written, by the clock of the folder's server."""
        return datetime.fromtimestamp((self._root / name).lstat().st_mtime, tz=UTC)

    def top(self) -> set[str]:
        """Names of the files and folders at the top level."""
        try:
            return {path.name for path in self._root.iterdir()}
        except FileNotFoundError:
            return set()

    def _temporary(self) -> Path:
        path = self._root / TEMPORARY / secrets.token_hex(16)
        atomic.make_folder(path.parent)
        return path


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
