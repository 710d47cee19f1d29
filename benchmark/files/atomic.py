"""Durable files: written whole and synced, or not at all; each failure is one sentence that says what to do."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path

from ..errors import (
    PrivbenchError,
    StorageError,
)

_CHUNK = 1 << 24
_ELSEWHERE = "with --store or PRIVBENCH_STORE"
_ADVICE = {
    errno.ENOSPC: f"free some space or choose a folder on another disk {_ELSEWHERE}",
    errno.EDQUOT: f"free some of your quota or choose a folder on another disk {_ELSEWHERE}",
    errno.EFBIG: f"raise the limit on file size or choose a folder on another disk {_ELSEWHERE}",
    errno.ENAMETOOLONG: f"choose a folder with a shorter name {_ELSEWHERE}",
    errno.EIO: "check the disk",
}
_DENIED = f"choose a folder that you may read and write {_ELSEWHERE}"
_ADVICE |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _DENIED)
_ADVICE |= dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.EISDIR), f"choose a folder, not a file, {_ELSEWHERE}")


@contextlib.contextmanager
def storage_errors(path: Path, action: str = "write") -> Iterator[None]:
    """Turn an `OSError` of the block into a sentence about `path`.

    Raises:
        StorageError: the operating system refused.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        advice = _ADVICE.get(cause.errno or 0, f"choose another folder {_ELSEWHERE}")
        raise StorageError(f"cannot {action} {path}: {reason}; {advice}") from cause


def is_denied(error: StorageError) -> bool:
    """Whether an error is of a place that may only be read."""
    return getattr(error.__cause__, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS)


def write_new(path: Path, data: bytes) -> str:
    """Write and sync a file that does not exist yet; returns the SHA-256 of `data`."""
    return write_chunks(path, [data])


def write_chunks(path: Path, chunks: Iterable[bytes]) -> str:
    """Write and sync a file that does not exist yet; returns the SHA-256 of all chunks."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    found = hashlib.sha256()
    try:
        for chunk in chunks:
            found.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view[:_CHUNK]) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return found.hexdigest()


def read(path: Path) -> bytes:
    """The bytes of a regular file; a symbolic link is refused with `OSError`."""
    with _open(path) as file:
        return file.read()


def sha256(path: Path) -> str:
    """SHA-256 of a regular file, 64 hexadecimal digits; a symbolic link is refused with `OSError`."""
    with _open(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path) -> BufferedReader:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(path, flags), "rb")


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the file system knows how."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as cause:
        if cause.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, durably; nothing happens where it exists."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        sync_folder(path.parent)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; what cannot be read, or vanishes meanwhile, counts as none."""
    files = [path]
    if path.is_dir() and not path.is_symlink():
        files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    total = 0
    for file in files:
        with contextlib.suppress(OSError):
            total += file.lstat().st_size
    return total


def children(folder: Path) -> list[Path]:
    """What is in a folder, sorted by name; empty where there is no such folder."""
    with storage_errors(folder, "read"):
        try:
            return sorted(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder of files, whole or not at all; the caller has made sure that one there may be replaced.

    Args:
        folder: to be made.
        files: by name, or by a relative path with `/`.

    Raises:
        StorageError: it cannot be written; what was there stays.
    """
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    with _storage_errors(folder):
        make_folder(folder.absolute().parent)
        try:
            temporary.mkdir()
            for name, content in files.items():
                make_folder((temporary / name).parent)
                write_new(temporary / name, content)
            sync_folder(temporary)
            publish(temporary, folder)
        except BaseException:
            with contextlib.suppress(OSError):
                remove(temporary)
            raise


def publish(temporary: Path, folder: Path) -> None:
    """Put a finished folder in place of `folder`; one that is there is put back if that fails.

    Raises:
        OSError: it cannot be moved.
    """
    away = folder.with_name(f"{temporary.name}.earlier")
    had = os.path.lexists(folder)
    if had:
        folder.rename(away)
    try:
        temporary.rename(folder)
    except BaseException:
        if had:
            away.rename(folder)
        raise
    sync_folder(folder.absolute().parent)
    if had:
        remove(away)


@contextlib.contextmanager
def _storage_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except PrivbenchError:
        raise
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise StorageError(f"cannot write {folder}: {reason}; choose another folder") from cause


def replace(path: Path, content: bytes) -> None:
    """Write a file in place of another, at once or not at all; its folder is there.

    Raises:
        OSError: it cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
