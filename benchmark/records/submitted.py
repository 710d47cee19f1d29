"""Submissions beside the records of a results folder, with the level that somebody else's finding gives them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PrivbenchError
from . import submission
from .record import Record
from .submission import INDEX, Index, picture_path, read_index, read_listed, read_record
from .verification import FOLDER, LEVELS, CheckedRecord, Level, Verification, place_of, read_verification


@dataclass(frozen=True)
class Provenance:
    """Where a submitted record comes from, and how far it was verified.

    Args:
        submission: name of the submission.
        contact: whom to ask.
        paper: title or address of the publication.
        level: of the record.
        by: who verified it; empty if nobody did.
        verified: when, in UTC; empty if it was not.
        notes: what was not checked.
    """

    submission: str
    contact: str
    paper: str
    level: Level = LEVELS[0]
    by: str = ""
    verified: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submitted:
    """A record of a submission; or a problem with it."""

    record: Record
    path: Path
    source: Provenance


def submissions(path: Path) -> list[Path]:
    """The folders of submissions in a results folder, or in a folder of submissions, or the one that `path` is."""
    if os.path.lexists(path / INDEX):
        return [path]
    inside = path / submission.FOLDER
    found = _folders(inside) if inside.is_dir() else []
    return found + [folder for folder in _folders(path) if os.path.lexists(folder / INDEX)]


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def is_stray(file: Path, root: Path, folders: Sequence[Path]) -> bool:
    """Whether a JSON file below `root` is no record of the results: of a submission, or a finding about one."""
    return any(file.is_relative_to(folder) for folder in folders) or file.is_relative_to(root / FOLDER)


def load(folder: Path) -> Iterator[Submitted | str]:
    """The records of a submission, whose bytes are those of its index; where one is not, the sentence why.

    Evidence is not read.
    """
    try:
        index, sha256 = read_index(folder)
    except PrivbenchError as problem:
        yield str(problem)
        return
    found, problem_ = _finding(folder, sha256)
    if problem_:
        yield problem_
    for entry in index.records:
        try:
            for path in (entry.record, picture_path(entry)):
                if path in index.files:
                    read_listed(folder, path, index.files[path])
            record = read_record(folder, entry, index)
        except PrivbenchError as problem:
            yield str(problem)
            continue
        yield Submitted(record, folder / entry.record, _source(folder, index, record, found))


def _finding(folder: Path, sha256: str) -> tuple[Verification | None, str]:
    """The finding about a submission in just this state, or why there is none although there is a file."""
    name = folder.resolve().name
    path = place_of(folder.resolve().parent.parent, name)
    if not os.path.lexists(path):
        return None, ""
    try:
        found = read_verification(path)
    except PrivbenchError as problem:
        return None, str(problem)
    if found.submission == sha256:
        return found, ""
    return None, (
        f"expected {path} to be about the submission {name} as it is, got a finding about another state of it, which "
        f"counts for nothing; verify it again with `privbench verify {folder} --write`"
    )


def _source(folder: Path, index: Index, record: Record, found: Verification | None) -> Provenance:
    name = folder.resolve().name
    checked: CheckedRecord | None = found.records.get(record.key) if found else None
    if found is None or checked is None:
        return Provenance(name, index.contact, index.paper)
    return Provenance(name, index.contact, index.paper, checked.level, found.by, found.created, checked.notes)
