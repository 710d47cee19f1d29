"""The folder of a report, which replaces an earlier report at once or not at all."""

import os
from collections.abc import Iterable
from pathlib import Path

from ...errors import StorageError
from ...files.atomic import replaced_folder, storage_errors
from ...files.untrusted import open_regular

#: An element near the start of every report's index.
GENERATOR_TAG = '<meta name="generator" content="privbench report">'
_HEAD_BYTES = 4096
#: Top-level files and folders of a report.
_CONTENTS = {"index.html", "definitions.html", "published.html", "compare.html", "board.css", "board.js"}
_CONTENTS |= {"boards", "cells", "pictures", "private"}


def require_replaceable(path: Path) -> None:
    """Refuse to replace anything but an empty folder or an earlier report.

    Raises:
        StorageError: there is a file, or a folder that is neither empty nor only a report.
    """
    if not os.path.lexists(path):
        return
    if not path.is_dir():
        raise StorageError(f"expected {path} to be a folder, got a file; remove it or choose another --output")
    names = {entry.name for entry in path.iterdir()}
    if not names:
        return
    if not _is_report(path / "index.html"):
        raise StorageError(f"expected {path} to be an earlier report, got another folder; choose another --output")
    others = sorted(names - _CONTENTS)
    if others:
        raise StorageError(
            f"{path} contains {others[0]!r}, which is not part of a report and would be deleted; move it away or "
            "choose another --output"
        )


def _is_report(index: Path) -> bool:
    try:
        with open_regular(index, follow_links=True) as file:
            return GENERATOR_TAG.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False


def write_report(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a report to a folder; after a failure an earlier report there is unchanged.

    Args:
        path: the folder.
        files: relative path and content of each file.

    Raises:
        StorageError: there is something other than a report, or the folder cannot be written.
    """
    with storage_errors(path, otherwise="choose another --output"):
        path = path.resolve()
        require_replaceable(path)
        with replaced_folder(path) as temporary:
            made = {temporary}
            for name, content in files:
                file = temporary / name
                if file.parent not in made:
                    file.parent.mkdir(parents=True)
                    made.add(file.parent)
                file.write_bytes(content)
