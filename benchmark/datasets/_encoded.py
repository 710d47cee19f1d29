"""Files of encoded images, read up to a limit."""

import os
from pathlib import Path

from ..errors import MissingDataError
from ..files.images import MAX_BYTES, looks_whole
from ..files.untrusted import open_regular

#: Bytes at the ends of a file that are looked at.
_HEAD, _TAIL = 24, 12


def read_encoded(path: Path) -> bytes:
    """Return the bytes of a file, or its first `MAX_BYTES + 1` bytes if it is larger.

    Raises:
        MissingDataError: it cannot be read.
    """
    try:
        with open_regular(path, follow_links=True) as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise MissingDataError(unreadable(path, error)) from None


def is_doubtful(path: Path) -> bool:
    """Tell whether the ends of a file are not those of an image, so that it must be decoded to find out."""
    try:
        with open_regular(path, follow_links=True) as file:
            head = file.read(_HEAD)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            return not looks_whole(head, file.read())
    except OSError:
        return True


def unreadable(path: Path, error: OSError) -> str:
    """Return the error message for a file or folder that the system does not let us read."""
    return f"{path} cannot be read: {(error.strerror or str(error)).lower()}; change its permissions"
