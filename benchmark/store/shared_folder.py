"""A shared folder as the shared tier: files are renamed or linked into place, so that nobody reads a part of one."""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ..files.tree import Tree
from ..files.untrusted import open_regular
from .layout import TEMPORARY

#: Errors of a file system without hard links.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_CHUNK = 1 << 24


class Folder:
    """Files below a folder that several machines mount. Links below it are not followed.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._tree = root, Tree(root)

    def read(self, name: str, start: int, end: int) -> bytes:
        """Read bytes `start` to `end` of a regular file, fewer if it is shorter.

        Raises:
            CorruptArtifactError: it is a link, a folder or a device.
        """
        with self._tree.open(self._root / name) as file:
            file.seek(start)
            return file.read(end - start)

    def put(self, name: str, source: Path) -> None:
        """Copy a local file to `name`, atomically, replacing an earlier file."""
        with self._temporary() as temporary, open_regular(source) as file:
            self._tree.replace_file(self._root / name, temporary, iter(lambda: file.read(_CHUNK), b""))

    def create(self, name: str, data: bytes) -> None:
        """Write a new file, atomically; if several processes create it at once, one succeeds.

        Raises:
            FileExistsError: the file exists.

        Note:
            Without hard links, the last of several that create it within milliseconds wins.
        """
        path, tree = self._root / name, self._tree
        with self._temporary() as temporary:
            tree.write_new(temporary, [data])
            tree.make_folder(path.parent)
            try:
                tree.link(temporary, path)
            except OSError as cause:
                if cause.errno not in _NO_LINKS:
                    raise
                if tree.exists(path):
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from cause
                tree.rename(temporary, path)
            tree.sync_folder(path.parent)

    def move(self, name: str, target: str) -> None:
        """Rename a file, or whatever has its name."""
        destination = self._root / target
        self._tree.make_folder(destination.parent)
        self._tree.rename(self._root / name, destination)
        self._tree.sync_folder(destination.parent)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._tree.remove(self._root / name)

    def sizes(self) -> dict[str, int]:
        """Size of every file in bytes, by name; 0 for links and devices."""
        return {
            path.relative_to(self._root).as_posix(): facts.st_size if stat.S_ISREG(facts.st_mode) else 0
            for path, facts in self._tree.files(self._root)
        }

    def modified(self, name: str) -> datetime:
        """Time when a file was written, by the clock of the folder's server."""
        return datetime.fromtimestamp(self._tree.status(self._root / name).st_mtime, tz=UTC)

    def top(self) -> set[str]:
        """Names of the files and folders at the top level."""
        return {path.name for path in self._tree.children(self._root)}

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Yield the path of a new file, which is removed in the end."""
        path = self._root / TEMPORARY / secrets.token_hex(16)
        self._tree.make_folder(path.parent)
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                self._tree.remove(path)
