"""A folder of files that appears at once: built beside its place, then swapped with what is there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ...errors import StorageError

#: What the index of a report has near its beginning.
MARK = '<meta name="generator" content="privbench report">'
_HEAD = 4096
#: All that a report has at its top.
_OWN = {"index.html", "definitions.html", "published.html", "compare.html", "board.css", "board.js"}
_OWN |= {"boards", "cells", "pictures", "private"}


def check(path: Path) -> None:
    """Refuse to replace what is not an earlier report.

    Raises:
        StorageError: there is a file, or a folder that is neither empty nor a report alone.
    """
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise StorageError(f"expected {path} to be a folder, got a file; remove it or choose another --output")
    names = {entry.name for entry in path.iterdir()}
    if not names:
        return
    if not _is_report(path / "index.html"):
        raise StorageError(f"{path} is a folder that no report made; remove it or choose another --output")
    strangers = sorted(names - _OWN)
    if strangers:
        raise StorageError(
            f"{path} holds {strangers[0]!r} besides a report, and replacing the report would remove it; move it away "
            "or choose another --output"
        )


def _is_report(index: Path) -> bool:
    try:
        with index.open("rb") as file:
            return MARK.encode() in file.read(_HEAD)
    except OSError:
        return False


def replace(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a report to a folder, in place of an earlier one or none; after a failure the earlier one is untouched.

    Args:
        path: of the folder.
        files: relative path and content of each file.

    Raises:
        StorageError: the place is taken by something else or cannot be written.
    """
    try:
        path = path.resolve()
        check(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        session = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial"))
        try:
            _write(session / "new", files)
            _swap(session / "new", path, session / "old")
        finally:
            shutil.rmtree(session, ignore_errors=True)
    except StorageError:
        raise
    except OSError as cause:
        reason = cause.strerror or str(cause)
        raise StorageError(f"{path} cannot be written: {reason}; choose another --output") from cause


def _write(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    folder.mkdir()
    made = {folder}
    for name, content in files:
        file = folder / name
        if file.parent not in made:
            file.parent.mkdir(parents=True)
            made.add(file.parent)
        file.write_bytes(content)


def _swap(new: Path, path: Path, old: Path) -> None:
    """Put `new` at `path`; what was there goes to `old`, and back if the second step fails."""
    if not path.exists():
        new.rename(path)
        return
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
