"""Durable writes of files and folders: after a crash the old or the new content is there, whole and synced."""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..errors import PrivbenchError, StorageError

_CHUNK = 1 << 24
_REMEDIES = {
    errno.ENOSPC: "free some space, or ",
    errno.EDQUOT: "free some of your quota, or ",
    errno.EFBIG: "raise the limit on file size, or ",
    errno.EIO: "check the disk, or ",
    errno.ELOOP: "remove the link, or ",
}


@contextlib.contextmanager
def storage_errors(
    path: Path, action: str = "write", otherwise: str = "choose another folder with --store or PRIVBENCH_STORE"
) -> Iterator[None]:
    """Turn an `OSError` of the block into one sentence about `path`.

    Args:
        path: of the file or folder.
        action: what the block does with it, a verb.
        otherwise: what the user can do if the cause cannot be removed, as an order.

    Raises:
        StorageError: the operating system refused.
    """
    try:
        yield
    except PrivbenchError:
        raise
    except OSError as cause:
        reason = cause.strerror or str(cause)
        reason = reason[:1].lower() + reason[1:]
        remedy = _REMEDIES.get(cause.errno or 0, "")
        raise StorageError(f"cannot {action} {path}: {reason}; {remedy}{otherwise}") from cause


def is_denied(error: StorageError) -> bool:
    """Tell whether an error is due to missing permissions or a read-only file system."""
    return getattr(error.__cause__, "errno", None) in (errno.EACCES, errno.EPERM, errno.EROFS)


def write_new(path: Path, data: bytes) -> None:
    """Write and sync a file that does not exist yet."""
    write_chunks(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), [data])


def write_chunks(descriptor: int, chunks: Iterable[bytes], *, sync: bool = True) -> str:
    """Write, sync and close a file that is open for writing; returns the SHA-256 of all chunks."""
    found = hashlib.sha256()
    try:
        for chunk in chunks:
            found.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view[:_CHUNK]) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return found.hexdigest()


def write_file(path: Path, content: bytes) -> None:
    """Write a file in place of an earlier one or none, making its folder; see `replaced_file`."""
    with replaced_file(path) as temporary:
        write_new(temporary, content)


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a path for the block to write a file to, which then replaces `path`; on failure `path` is unchanged.

    Args:
        path: of the file; its folder is made.

    Raises:
        OSError: the file cannot be written.
    """
    path = path.absolute()
    temporary = path.with_name(f".{secrets.token_hex(8)}.partial")
    make_folder(path.parent)
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder of files in place of an earlier one or none; the caller has checked that it may be replaced.

    Args:
        folder: to write.
        files: content by name or relative path with `/`.

    Raises:
        StorageError: it cannot be written; the earlier folder is unchanged.
    """
    with storage_errors(folder, otherwise="choose another folder"), replaced_folder(folder) as temporary:
        for name, content in files.items():
            make_folder((temporary / name).parent)
            write_new(temporary / name, content)


@contextlib.contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder for the block to fill, which then replaces `folder`; on failure `folder` is unchanged.

    Args:
        folder: to replace or make; its parent is made.

    Raises:
        OSError: the folder cannot be written.
    """
    folder = folder.absolute()
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    make_folder(temporary.parent)
    try:
        temporary.mkdir()
        yield temporary
        sync_folder(temporary)
        make_folder(folder.parent)
        _swap(temporary, folder)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(temporary)
        raise


def _swap(temporary: Path, folder: Path) -> None:
    """Rename `temporary` to `folder`; an earlier folder is put back if that fails, and removed if it succeeds."""
    earlier = folder.with_name(f"{temporary.name}.earlier")
    existed = os.path.lexists(folder)
    if existed:
        folder.rename(earlier)
    try:
        temporary.rename(folder)
    except BaseException:
        if existed:
            earlier.rename(folder)
        raise
    sync_folder(folder.parent)
    if existed:
        remove(earlier)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, where the file system supports it."""
    if os.name == "nt":
        return
    try:
        _sync(path, os.O_RDONLY)
    except OSError as cause:
        if cause.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, durably; do nothing if it exists."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        path.mkdir()
        sync_folder(path.parent)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; do nothing if it does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def children(folder: Path) -> list[Path]:
    """List the entries of a folder, sorted by name; empty if the folder does not exist."""
    with storage_errors(folder, "read"):
        try:
            return sorted(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
