"""Downloads through torchvision, with one error message for every failure."""

import contextlib
import errno
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import MissingDataError, StorageError

#: Seconds without an answer after which a download fails; torchvision itself would wait for ever.
_TIMEOUT = 30.0
_STORAGE = {errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST}


def download(name: str, root: Path, fetch: Callable[[Path], object], by_hand: str) -> None:
    """Create `root` and call `fetch(root)`, which downloads and extracts.

    Args:
        name: of the data set, for messages.
        root: the data folder.
        fetch: calls torchvision's downloading functions.
        by_hand: instruction to the user for a download by hand.

    Raises:
        StorageError: the folder cannot be written.
        MissingDataError: the download failed.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        # torchvision prints its progress; stdout is for results.
        with contextlib.redirect_stdout(sys.stderr), _timeout():
            fetch(root)
    except (OSError, RuntimeError) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, OSError) and error.errno in _STORAGE:
            raise StorageError(
                f"{name} cannot be written below {root} ({cause}): choose another data folder"
            ) from error
        raise MissingDataError(f"{name} could not be downloaded ({cause}): {by_hand}") from error


@contextlib.contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
