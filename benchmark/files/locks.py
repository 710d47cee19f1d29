"""Locks on files of a tree, which the system releases when their process ends, however it ends."""

import errno
import os
from pathlib import Path

from ..errors import StorageError
from .tree import Tree

#: Errors of a lock that another process holds, and of a file system without locks.
_HELD = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


def lock(tree: Tree, path: Path) -> int | None:
    """Lock a file, which is made if it does not exist, without waiting.

    Returns:
        A descriptor, which holds the lock until it is closed; `None` if another process or thread holds it.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
        StorageError: the file system has no locks.
    """
    descriptor = tree.descriptor(path, os.O_RDWR | os.O_CREAT)
    try:
        _lock(descriptor)
    except OSError as cause:
        os.close(descriptor)
        if cause.errno in _HELD:
            return None
        if cause.errno not in _UNSUPPORTED:
            raise
        raise StorageError(f"cannot lock {path}: its file system has no locks; choose another folder") from cause
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _lock(descriptor: int) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
