"""Files from strangers: read up to a limit, not through links; text and paths from them are bounded."""

import errno
import os
import re
import stat
from io import BufferedReader
from pathlib import Path, PurePosixPath

from ..errors import CorruptArtifactError, MissingDataError

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")
_MAX_PARTS = 8
_CHUNK = 1 << 22


def read_bounded(path: Path, limit: int, *, follow_links: bool = False) -> bytes:
    """Return the bytes of a regular file, or its first `limit + 1` bytes if it is larger than `limit`.

    Raises:
        MissingDataError: it does not exist, or cannot be read.
        CorruptArtifactError: it is a folder, a device, or, unless links are followed, a symbolic link.
    """
    data = bytearray()
    try:
        with open_regular(path, follow_links=follow_links) as file:
            while len(data) <= limit and (block := file.read(min(_CHUNK, limit + 1 - len(data)))):
                data += block
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise MissingDataError(f"expected the file {path}, found none; check the path") from cause
    except OSError as cause:
        if cause.errno == errno.ELOOP:
            raise CorruptArtifactError(
                f"expected {path} to be a file, got a symbolic link, which may lead out of the folder; put the "
                "file there"
            ) from cause
        if cause.errno in (errno.EISDIR, errno.ENXIO):
            raise CorruptArtifactError(
                f"expected {path} to be a regular file, got something else; remove it"
            ) from cause
        reason = (cause.strerror or str(cause)).lower()
        raise MissingDataError(f"expected {path} to be readable: {reason}; change its permissions") from cause
    return bytes(data)


def open_regular(path: Path, *, follow_links: bool = False) -> BufferedReader:
    """Open a regular file for reading, without waiting for a device.

    Raises:
        OSError: it cannot be read; `ELOOP` for a symbolic link, `EISDIR` or `ENXIO` for a folder or a device.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    if not follow_links:
        flags |= getattr(os, "O_NOFOLLOW", 0)
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, "not a regular file")
    return os.fdopen(descriptor, "rb")


def shown(text: object, limit: int = 120) -> str:
    """Prepare text of unknown origin for a message: printable, on one line, at most `limit` characters."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit])
    line = " ".join(line.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def is_relative_folder(text: str) -> bool:
    """Tell whether `text` is a plain relative path with `/`: no `..`, leading dot or slash, drive or backslash."""
    parts = text.split("/")
    return len(parts) <= _MAX_PARTS and all(_PART.fullmatch(part) and not part.endswith(".") for part in parts)


def inside(root: Path, relative: str) -> Path:
    """Return the folder `relative` below `root`.

    Raises:
        CorruptArtifactError: it is outside, by its name or by a symbolic link.
    """
    if not is_relative_folder(relative):
        raise CorruptArtifactError(
            f"expected a folder inside {root}, got {shown(repr(relative))}; use a plain relative path"
        )
    path = root.joinpath(*PurePosixPath(relative).parts)
    if not path.resolve().is_relative_to(root.resolve()):
        raise CorruptArtifactError(
            f"expected {path} to be a folder inside {root}, got a symbolic link out of it; put the folder there"
        )
    return path
