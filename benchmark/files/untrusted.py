"""Files that somebody else made: read in bounds or refused, never through a link, and nothing in them is executed."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import CorruptArtifactError, MissingDataError
from .documents import MAX_DEPTH, depth

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")
#: A relative folder has at most so many parts.
_PARTS = 8
_CHUNK = 1 << 22
_MOST_SHOWN = 120


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file, or its first `limit + 1` where it has more.

    Raises:
        MissingDataError: it is not there, or cannot be read.
        CorruptArtifactError: it is a link, a folder or a device.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    data = bytearray()
    try:
        if path.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        with os.fdopen(os.open(path, flags), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise IsADirectoryError(errno.EISDIR, "not a regular file")
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
        if cause.errno == errno.EISDIR:
            raise CorruptArtifactError(
                f"expected {path} to be a regular file, got something else; remove it"
            ) from cause
        reason = (cause.strerror or str(cause)).lower()
        raise MissingDataError(f"expected {path} to be readable: {reason}; change its permissions") from cause
    return bytes(data)


def parse_json(data: bytes, source: str, limit: int) -> dict[str, Any]:
    """The object in bytes of JSON.

    Args:
        data: at most `limit` bytes of UTF-8, at most 64 levels, without NaN, infinity, or a name given twice.
        source: what the bytes are, for messages.
        limit: bytes.

    Raises:
        CorruptArtifactError: it is something else.
    """
    if len(data) > limit:
        raise CorruptArtifactError(f"expected {source} to take at most {limit:,} bytes, got more; get the file again")
    if data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<":
        raise CorruptArtifactError(f"expected {source} to be JSON, got a web page; get the file again")
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_unique)
        if depth(value) > MAX_DEPTH:
            raise RecursionError
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise CorruptArtifactError(
            f"expected {source} to be nested at most {MAX_DEPTH} levels deep, got more; get the file again"
        ) from None
    except ValueError as cause:
        reason = shown(str(cause))
        raise CorruptArtifactError(f"expected {source} to be JSON: {reason}; get the file again") from None
    if not isinstance(value, dict):
        raise CorruptArtifactError(f"expected {source} to be a JSON object, got {type(value).__name__}; get it again")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def shown(text: object, limit: int = _MOST_SHOWN) -> str:
    """Text of unknown origin for a message: printable, on one line, of bounded length."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * limit])
    line = " ".join(line.split())
    return line if len(line) <= limit else f"{line[: limit - 3]}..."


def is_relative_folder(text: str) -> bool:
    """Whether `text` is a plain relative path with `/`: no `..`, no leading dot or slash, no drive, no backslash."""
    parts = text.split("/")
    return len(parts) <= _PARTS and all(_PART.fullmatch(part) and not part.endswith(".") for part in parts)


def inside(root: Path, relative: str) -> Path:
    """The folder `relative` below `root`.

    Raises:
        CorruptArtifactError: it is outside, by its name or by a symbolic link.
    """
    if not is_relative_folder(relative):
        raise CorruptArtifactError(
            f"expected a folder inside {root}, got {shown(repr(relative))}, which may leave it; use a plain "
            "relative path"
        )
    path = root.joinpath(*PurePosixPath(relative).parts)
    if not path.resolve().is_relative_to(root.resolve()):
        raise CorruptArtifactError(
            f"expected {path} to be a folder inside {root}, got a symbolic link out of it; put the folder there"
        )
    return path
