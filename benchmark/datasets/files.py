"""Is a file of a data set there, whole and what it should be? One sentence for everything that is not."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import MissingDataError

#: How an HTML page begins; download sites answer with one when a quota is used up.
_HTML = (b"<!doctype", b"<html", b"<head", b"<!--", b"<?xml")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class DownloadSource:
    """A file as its publisher offers it.

    Args:
        path: below the data folder.
        origin: where it comes from, as an order: `download x from y and put it there`.
        size: bytes, where known.
        md5: hexadecimal checksum, where known.
    """

    path: str
    origin: str
    size: int | None = None
    md5: str | None = None


def problem(root: Path, source: DownloadSource) -> str | None:
    """What is wrong with the file, in one sentence; `None` if it is what it should be."""
    path = root / source.path
    return _guard(path, source.origin, lambda: _verdict(path, source, None))


def read(root: Path, source: DownloadSource) -> bytes:
    """The file's bytes, checked.

    Raises:
        MissingDataError: it is missing, an HTML page, truncated or of another checksum.
    """
    path = root / source.path
    kept: list[bytes] = []

    def look() -> str | None:
        if not path.is_file():
            return _verdict(path, source, None)
        kept.append(path.read_bytes())
        return _verdict(path, source, kept[0])

    sentence = _guard(path, source.origin, look)
    if sentence:
        raise MissingDataError(sentence)
    return kept[0]


def folder_problem(path: Path, origin: str) -> str | None:
    """What is wrong with a folder, in one sentence."""
    return None if path.is_dir() else missing(path, origin)


def missing(path: Path, origin: str) -> str:
    """The sentence for a path that is not there, or is a file where a folder is needed."""
    for ancestor in (path, *path.parents):
        if ancestor.exists():
            if not ancestor.is_dir():
                return f"expected {ancestor} to be a folder, got a file; move it away or choose another data folder"
            break
    return f"{path} is missing: {origin}"


def is_html(head: bytes) -> bool:
    """Whether a file that begins with `head` is a web page."""
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_HTML)


def damaged(path: Path, what: str, origin: str) -> str:
    """The sentence for a file whose content is wrong."""
    return f"{path} {what}; delete it and {origin}"


def _guard(path: Path, origin: str, look: Callable[[], str | None]) -> str | None:
    try:
        return look()
    except OSError as error:
        return f"{path} cannot be read ({error.strerror or error}): change its permissions, or delete it and {origin}"


def _verdict(path: Path, source: DownloadSource, content: bytes | None) -> str | None:
    if path.is_dir():
        return f"expected {path} to be a file, got a folder; move it away and {source.origin}"
    if content is None and not path.exists():
        return missing(path, source.origin)
    if is_html(_head(path) if content is None else content[:512]):
        return damaged(path, "is a web page that was saved instead of the file", source.origin)
    size = path.stat().st_size if content is None else len(content)
    if source.size is not None and size < source.size:
        return damaged(path, f"is truncated, {size:,} of {source.size:,} bytes", source.origin)
    if source.size is not None and size > source.size:
        return damaged(path, f"is another file, {size:,} bytes where {source.size:,} are published", source.origin)
    if source.md5 is not None:
        md5 = _md5(path) if content is None else digest(content)
        if md5 != source.md5:
            return damaged(path, f"is damaged or another version, MD5 {md5} where {source.md5} is due", source.origin)
    return None


def digest(content: bytes) -> str:
    """MD5 as publishers print it; it guards against accidents, not against attackers."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _md5(path: Path) -> str:
    state = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()
