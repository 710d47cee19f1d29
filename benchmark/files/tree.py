"""Files and folders below a root that are reached without following a link: each folder is opened from the one above.

Whoever can write into a store or an unpacked archive could otherwise plant a link there, and a command would read,
overwrite or delete what it leads to. The root itself, and what is above it, may be a link: its user named it.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path

from ..errors import CorruptArtifactError
from . import atomic

#: Whether the system opens a name in the folder of a descriptor. Without it, as on Windows, links are looked for first.
_RELATIVE = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NONBLOCK", 0)
_FILE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
#: A folder that another process removes at the same time is tried so often.
_ATTEMPTS = 5


class Tree:
    """Files and folders below a root folder. Paths begin with the root; a link in one raises `OSError` with `ELOOP`.

    Args:
        root: the folder; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def descriptor(self, path: Path, flags: int) -> int:
        """Open a regular file, without waiting for a device, and return its descriptor.

        Args:
            path: of the file.
            flags: of `os.open`.
        """
        with self._parent(path) as (name, at):
            try:
                if not _RELATIVE:
                    _refuse_link(path, at)
                opened = os.open(name, flags | _FILE, 0o666, dir_fd=at)
            except OSError as cause:
                _refuse_link(path, at)
                raise OSError(cause.errno, cause.strerror, str(path)) from cause
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise IsADirectoryError(errno.EISDIR, f"{path.name} is not a regular file", str(path))
        return opened

    def open(self, path: Path) -> BufferedReader:
        """Open a regular file for reading.

        Raises:
            CorruptArtifactError: it is a link, a folder or a device.
        """
        try:
            return os.fdopen(self.descriptor(path, os.O_RDONLY), "rb")
        except OSError as cause:
            if cause.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise CorruptArtifactError(f"{path.name} is not a regular file") from cause
            raise

    def read(self, path: Path, limit: int) -> bytes:
        """Return the bytes of a regular file.

        Raises:
            CorruptArtifactError: it is a link, a folder or a device, or has more than `limit` bytes.
        """
        with self.open(path) as file:
            if os.fstat(file.fileno()).st_size <= limit and len(data := file.read(limit + 1)) <= limit:
                return data
        raise CorruptArtifactError(f"{path.name} is larger than {limit:,} bytes")

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of a regular file, 64 hexadecimal digits."""
        with self.open(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def status(self, path: Path) -> os.stat_result:
        """Describe a file, folder or link."""
        if path == self.root:
            return path.stat()
        with self._parent(path) as (name, at):
            return os.stat(name, dir_fd=at, follow_symlinks=False)

    def exists(self, path: Path) -> bool:
        """Tell whether there is anything, also a link that leads nowhere."""
        try:
            self.status(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_folder(self, path: Path) -> bool:
        """Tell whether there is a folder, not a link to one."""
        try:
            return stat.S_ISDIR(self.status(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def children(self, folder: Path) -> list[Path]:
        """List the entries of a folder, sorted by name; empty if there is no such folder."""
        return [folder / name for name, _ in self.entries(folder)]

    def entries(self, folder: Path) -> list[tuple[str, os.stat_result]]:
        """List names in a folder and what they are, sorted by name; empty if there is no such folder."""
        found: list[tuple[str, os.stat_result]] = []
        try:
            with self._folder(folder) as at, os.scandir(folder if at is None else at) as entries:
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(found, key=lambda pair: pair[0])

    def files(self, folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield everything below a folder but folders."""
        for name, facts in self.entries(folder):
            if stat.S_ISDIR(facts.st_mode):
                yield from self.files(folder / name)
            else:
                yield folder / name, facts

    def size(self, path: Path) -> int:
        """Count the bytes of a file, or of all files below a folder, without those that cannot be read or vanish."""
        total = 0
        with contextlib.suppress(OSError):
            if not self.is_folder(path):
                return self.status(path).st_size
            for _, facts in self.files(path):
                total += facts.st_size
        return total

    def make_folder(self, folder: Path) -> None:
        """Make a folder and those above it, durably; do nothing if it exists."""
        atomic.make_folder(self.root)
        with self._folder(folder, make=True):
            pass

    def new_folder(self, folder: Path) -> None:
        """Make a folder that does not exist yet, in an existing one, without syncing its name."""
        with self._parent(folder) as (name, at):
            os.mkdir(name, dir_fd=at)

    def write_new(self, path: Path, chunks: Iterable[bytes], *, sync: bool = True) -> str:
        """Write a file that does not exist yet, in an existing folder; returns its SHA-256."""
        return atomic.write_chunks(self.descriptor(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), chunks, sync=sync)

    def replace_file(self, path: Path, temporary: Path, chunks: Iterable[bytes]) -> None:
        """Write a file in place of an earlier one or none, making its folder; on failure the earlier one is unchanged.

        Args:
            path: of the file.
            temporary: a new path below the same root.
            chunks: the content.
        """
        self.make_folder(path.parent)
        try:
            self.write_new(temporary, chunks)
            with self._parent(temporary) as (name, at), self._parent(path) as (target, target_at):
                os.replace(name, target, src_dir_fd=at, dst_dir_fd=target_at)
            self.sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                self.remove(temporary)

    def write_file(self, path: Path, content: bytes) -> None:
        """Write a file in place of an earlier one or none, through a hidden file beside it; see `replace_file`."""
        self.replace_file(path, path.with_name(f".{secrets.token_hex(8)}.partial"), [content])

    def rename(self, path: Path, target: Path) -> None:
        """Rename a file, folder or link; the folder of `target` must exist."""
        with self._parent(path) as (name, at), self._parent(target) as (new, new_at):
            os.rename(name, new, src_dir_fd=at, dst_dir_fd=new_at)

    def link(self, path: Path, target: Path) -> None:
        """Give a file a second name, which must be new; the folder of `target` must exist."""
        with self._parent(path) as (name, at), self._parent(target) as (new, new_at):
            os.link(name, new, src_dir_fd=at, dst_dir_fd=new_at)

    def remove(self, path: Path) -> None:
        """Remove a file, a link or a whole folder; do nothing if it does not exist."""
        for _ in range(_ATTEMPTS):
            try:
                with self._parent(path) as (name, at):
                    if stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                        shutil.rmtree(name, dir_fd=at)
                    else:
                        os.unlink(name, dir_fd=at)
                return
            except FileNotFoundError:  # it, or something in it, was removed meanwhile
                if not self.exists(path):
                    return
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))

    def sync_folder(self, folder: Path) -> None:
        """Make the names in a folder durable, where the file system supports it."""
        with self._folder(folder) as at:
            _sync(at)

    @contextlib.contextmanager
    def _parent(self, path: Path) -> Iterator[tuple[str, int | None]]:
        """Yield the name of a path and the descriptor of its folder; without descriptors, the path and `None`."""
        with self._folder(path.parent) as at:
            yield (str(path) if at is None else path.name), at

    @contextlib.contextmanager
    def _folder(self, folder: Path, *, make: bool = False) -> Iterator[int | None]:
        """Yield the descriptor of a folder; `None` on a system without such descriptors."""
        path, at = self.root, _open_root(self.root)
        try:
            for part in folder.relative_to(self.root).parts:
                path = path / part
                try:
                    inner = _open_folder(path, at)
                except FileNotFoundError:
                    if not make:
                        raise
                    _make(path, at)
                    inner = _open_folder(path, at)
                _close(at)
                at = inner
            yield at
        finally:
            _close(at)


def _open_root(path: Path) -> int | None:
    return os.open(path, _FOLDER) if _RELATIVE else None


def _open_folder(path: Path, at: int | None) -> int | None:
    try:
        if at is not None:
            return os.open(path.name, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
        if stat.S_ISDIR(path.lstat().st_mode):
            return None
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as cause:
        _refuse_link(path, at)
        raise OSError(cause.errno, cause.strerror, str(path)) from cause


def _refuse_link(path: Path, at: int | None) -> None:
    """Raise `ELOOP` if the path is a link."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        facts = os.stat(str(path) if at is None else path.name, dir_fd=at, follow_symlinks=False)
        if stat.S_ISLNK(facts.st_mode):
            raise OSError(errno.ELOOP, f"{path} is a symbolic link", str(path))


def _make(path: Path, at: int | None) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(str(path) if at is None else path.name, dir_fd=at)
        _sync(at)


def _sync(at: int | None) -> None:
    try:
        if at is not None:
            os.fsync(at)
    except OSError as cause:
        if cause.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _close(at: int | None) -> None:
    if at is not None:
        os.close(at)
