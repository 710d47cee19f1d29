"""Checks of the files of data sets: present, complete and with the published checksum."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import MissingDataError
from ..files.stand_ins import HEAD, stand_in
from ..files.untrusted import open_regular

#: Bytes of a file that is read as a whole, at most.
MAX_BYTES = 1 << 28
_CHUNK = 1 << 20
#: Marks of Unicode text, and their encodings.
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True)
class DownloadSource:
    """A published file.

    Args:
        path: below the data folder.
        origin: instruction to the user, such as `download x from y and put it there`.
        size: bytes, or `None` if unknown.
        md5: hexadecimal checksum, or `None` if unknown.
    """

    path: str
    origin: str
    size: int | None = None
    md5: str | None = None


def problem(root: Path, source: DownloadSource) -> str | None:
    """Check a file; return an error message, or `None` if the file is correct."""
    path = root / source.path
    return _catch_read_errors(path, source.origin, lambda: _check(path, source, None))


def read(root: Path, source: DownloadSource) -> bytes:
    """Read and check a file.

    Raises:
        MissingDataError: the file is missing, an HTML page, truncated, or has another checksum.
    """
    path = root / source.path
    content: list[bytes] = []

    def check() -> str | None:
        if not path.is_file():
            return _check(path, source, None)
        with open_regular(path, follow_links=True) as file:
            content.append(file.read(MAX_BYTES + 1))
        if len(content[0]) > MAX_BYTES:
            return damaged(path, f"is another file, of more than {MAX_BYTES >> 20} MiB", source.origin)
        return _check(path, source, content[0])

    error = _catch_read_errors(path, source.origin, check)
    if error:
        raise MissingDataError(error)
    return content[0]


def read_text(root: Path, source: DownloadSource) -> bytes:
    """Read a text file as programs on any system save it: without its mark of Unicode, lines ended by line feeds.

    The published checksum may be that of the file or that of what is returned.

    Raises:
        MissingDataError: as for `read`.
    """
    path = root / source.path
    content = read(root, replace(source, md5=None))
    marks = [mark for mark in _MARKS if content.startswith(mark)]
    try:
        plain = content.decode(_MARKS[marks[0]]).encode() if marks else content
    except UnicodeError:
        raise MissingDataError(damaged(path, "is not text", source.origin)) from None
    plain = plain.replace(b"\r\n", b"\n")
    if source.md5 is not None and source.md5 not in (digest(content), digest(plain)):
        raise MissingDataError(damaged(path, _other_version(digest(content), source.md5), source.origin))
    return plain


def missing(path: Path, origin: str) -> str:
    """Error message for a missing path, or for a file in place of a folder."""
    for ancestor in (path, *path.parents):
        if ancestor.exists():
            if not ancestor.is_dir():
                return f"expected {ancestor} to be a folder, got a file; move it away or choose another data folder"
            break
    return f"{path} is missing: {origin}"


def damaged(path: Path, problem: str, origin: str) -> str:
    """Error message for a file with wrong content."""
    return f"{path} {problem}; delete it and {origin}"


def _catch_read_errors(path: Path, origin: str, check: Callable[[], str | None]) -> str | None:
    try:
        return check()
    except OSError as error:
        return f"{path} cannot be read ({error.strerror or error}): change its permissions, or delete it and {origin}"


def _check(path: Path, source: DownloadSource, content: bytes | None) -> str | None:
    if path.is_dir():
        return f"expected {path} to be a file, got a folder; move it away and {source.origin}"
    if content is None and not path.exists():
        return missing(path, source.origin)
    if found := stand_in(_head(path) if content is None else content[:HEAD]):
        return damaged(path, f"is {found} that was saved instead of the file", source.origin)
    size = path.stat().st_size if content is None else len(content)
    if source.size is not None and size < source.size:
        return damaged(path, f"is truncated, {size:,} of {source.size:,} bytes", source.origin)
    if source.size is not None and size > source.size:
        return damaged(path, f"is another file, {size:,} bytes instead of {source.size:,}", source.origin)
    if source.md5 is not None:
        md5 = _md5(path) if content is None else digest(content)
        if md5 != source.md5:
            return damaged(path, _other_version(md5, source.md5), source.origin)
    return None


def _other_version(md5: str, published: str) -> str:
    return f"is damaged or another version, MD5 {md5} instead of {published}"


def digest(content: bytes) -> str:
    """MD5 as published, in hexadecimal; it detects accidental damage, not an attack."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _head(path: Path) -> bytes:
    with open_regular(path, follow_links=True) as file:
        return file.read(HEAD)


def _md5(path: Path) -> str:
    state = hashlib.md5(usedforsecurity=False)
    with open_regular(path, follow_links=True) as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()
