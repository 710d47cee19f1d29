"""Records of submissions in a results folder, with the level that their verification gives them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import PrivbenchError
from . import submission
from .record import Record
from .submission import INDEX, Index, picture_path, read_index, read_listed, read_record
from .verification import FOLDER, LEVELS, CheckedRecord, Level, Verification, verification_path


@dataclass(frozen=True)
class Provenance:
    """Source of a submitted record and the level of its verification.

    Args:
        submission: name of the submission.
        contact: whom to ask.
        paper: title or address of the publication.
        level: of the record.
        by: who verified it; empty if nobody did.
        verified: time of the verification, UTC; empty if there is none.
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
    """A record of a submission."""

    record: Record
    path: Path
    source: Provenance


def submissions(path: Path) -> list[Path]:
    """List the submissions in a results folder or a folder of submissions, or `path` if it is a submission itself."""
    if os.path.lexists(path / INDEX):
        return [path]
    inside = path / submission.FOLDER
    found = _folders(inside) if inside.is_dir() else []
    return found + [folder for folder in _folders(path) if os.path.lexists(folder / INDEX)]


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def is_of_submission(file: Path, root: Path, folders: Sequence[Path]) -> bool:
    """Tell whether a JSON file below `root` belongs to a submission or is a verification, not a record of its own."""
    return any(file.is_relative_to(folder) for folder in folders) or file.is_relative_to(root / FOLDER)


def load(folder: Path) -> Iterator[Submitted | str]:
    """Yield the records of a submission that match its index, and an error message for each that does not.

    Evidence is not read.
    """
    try:
        index, sha256 = read_index(folder)
    except PrivbenchError as problem:
        yield str(problem)
        return
    found, mismatch = _verification(folder, sha256)
    if mismatch:
        yield mismatch
    for entry in index.records:
        try:
            record = read_record(folder, entry, index)
            picture = picture_path(entry)
            if picture in index.files:
                read_listed(folder, picture, index.files[picture])
        except PrivbenchError as problem:
            yield str(problem)
            continue
        yield Submitted(record, folder / entry.record, _source(folder, index, record, found))


def _verification(folder: Path, sha256: str) -> tuple[Verification | None, str]:
    """Read the verification of a submission; if it cannot be read or is of another state, return a message instead."""
    name = folder.resolve().name
    path = verification_path(folder.resolve().parent.parent, name)
    if not os.path.lexists(path):
        return None, ""
    try:
        found = Verification.read(path)
    except PrivbenchError as problem:
        return None, str(problem)
    if found.submission == sha256:
        return found, ""
    return None, (
        f"expected {path} to verify the submission {name} in its present state, got a verification of another state, "
        f"which is ignored; verify it again with `privbench verify {folder} --write`"
    )


def _source(folder: Path, index: Index, record: Record, found: Verification | None) -> Provenance:
    name = folder.resolve().name
    checked: CheckedRecord | None = found.records.get(record.key) if found else None
    if found is None or checked is None:
        return Provenance(name, index.contact, index.paper)
    return Provenance(name, index.contact, index.paper, checked.level, found.by, found.created, checked.notes)
