"""Records that arguments of a command mean: paths, folders and keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ..errors import IncompatibleRecordError, MissingDataError
from .output import print_problems

if TYPE_CHECKING:
    from ..analysis.record_set import Records
    from ..records.record import Record
    from ..records.submitted import Provenance


def find_records(argument: str, value: str, results: Path) -> Records:
    """The records that an argument means: a record, a folder of records, or the beginning of a key in the results.

    Args:
        argument: its name, for messages.
        value: given by the user; a key is the key of a record or of its target.
        results: the results folder.

    Raises:
        PrivbenchError: there is none.
    """
    from ..analysis.record_set import Records, load_records

    path = Path(value).expanduser()
    is_path = path.exists() or not re.fullmatch("[0-9a-f]{4,64}", value)
    records = load_records(path if is_path else results)
    pairs = zip(records.items, records.paths, strict=True)
    found = [(record, file) for record, file in pairs if is_path or _has_key(record, value)]
    if not found:
        if is_path and records.problems:
            raise IncompatibleRecordError(records.problems[0])
        expected = f"a record in {path}" if is_path else f"the beginning of a key in {results}"
        raise MissingDataError(
            f"expected {argument} to be {expected}, got {value!r}; run the cell first with `privbench run`"
        )
    return Records(tuple(record for record, _ in found), tuple(file for _, file in found))


def _has_key(record: Record, key: str) -> bool:
    target = record.artifacts.get("target")
    return record.key.startswith(key) or (target is not None and target.key.startswith(key))


def load_all(paths: Sequence[Path]) -> Records:
    """The records in files and folders, each once, with one sentence per file that cannot be read.

    Raises:
        MissingDataError: a path contains no records.
        IncompatibleRecordError: no record can be read, or two with the same key differ.
    """
    from ..analysis.record_set import Records, load_records

    found: dict[str, tuple[Record, Path]] = {}
    problems: list[str] = []
    sources: dict[str, Provenance] = {}
    for path in paths:
        records = load_records(path)
        problems += records.problems
        sources |= records.sources
        if not records and not records.problems:
            raise MissingDataError(f"expected {path} to contain records, found none; make one with `privbench run`")
        for record, file in zip(records, records.paths, strict=True):
            known, other = found.setdefault(record.key, (record, file))
            if known != record:
                raise IncompatibleRecordError(f"{file} and {other} differ and have the same key; give one of them")
    if not found:
        raise IncompatibleRecordError("; ".join(dict.fromkeys(problems)))
    items, files = zip(*found.values(), strict=True)
    return Records(items, files, tuple(problems), sources)


def exit_if_unreadable(problems: Sequence[str]) -> None:
    """Print one line for each file that cannot be read, and exit with 1 if there is one."""
    from ..report.formatting import sanitize

    print_problems(map(sanitize, problems))
    if problems:
        raise typer.Exit(1)
