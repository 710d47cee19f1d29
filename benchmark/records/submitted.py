"""Records of submissions in a results folder, with the level that their verification gives them."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

from pydantic import ValidationError

from ..errors import CorruptArtifactError, PrivbenchError
from . import submission
from .record import Record
from .signatures import read_signed
from .submission import INDEX, Facts, Index, SubmittedRecord, picture_path, read_index, read_listed, read_record
from .verification import FOLDER, LEVELS, Level, Verification, verification_path

#: Kinds of evidence that pictures show.
_PICTURED = ("ClassReconstructions", "PairedReconstructions")


@dataclass(frozen=True)
class SubmittedPicture:
    """The picture of a record of a submission: the author's file, or drawn from the evidence of a verified record.

    Args:
        folder: the submission.
        path: the PNG, or the evidence.
        facts: that the file must match.
        kind: of the evidence; empty for a PNG.
    """

    folder: Path
    path: str
    facts: Facts
    kind: str = ""

    def png(self) -> bytes | None:
        """Return the PNG; `None` if the evidence has no image.

        Raises:
            PrivbenchError: the file does not match the index any more.
        """
        data = read_listed(self.folder, self.path, self.facts)
        if not self.kind:
            return data
        from safetensors.numpy import load

        from .picture import picture_of

        return picture_of({self.kind: SimpleNamespace(**load(data))})


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
        since: when it first reached a level above the lowest, UTC; empty if it did not.
        notes: what was not checked.
        picture: `None` if the submission has none.
    """

    submission: str
    contact: str
    paper: str
    level: Level = LEVELS[0]
    by: str = ""
    verified: str = ""
    since: str = ""
    notes: tuple[str, ...] = ()
    picture: SubmittedPicture | None = None


@dataclass(frozen=True)
class Submitted:
    """A record of a submission: as it is shown, and as its author wrote it."""

    record: Record
    claim: Record
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


def load(folder: Path, results: Path | None) -> Iterator[Submitted | str]:
    """Yield the records of a submission that match its index, and an error message for each that does not.

    A verified record has the numbers and texts of its verification in place of the submitter's, and a picture that is
    drawn from its evidence. Evidence is read when its picture is asked for.

    Args:
        folder: the submission.
        results: the results folder whose `verifications` count; `None` if the submission is not in its `submissions`.
    """
    try:
        index, sha256 = read_index(folder)
    except PrivbenchError as problem:
        yield str(problem)
        return
    found: Verification | None = None
    if results is not None:
        try:
            found = _verification(folder, results, sha256)
        except PrivbenchError as problem:
            yield str(problem)
    for entry in index.records:
        try:
            claim = read_record(folder, entry, index)
            picture = _picture(folder, entry, index)
            if picture is not None:
                picture.png()
            checked = found.records.get(claim.key) if found else None
            record = checked.published.replace(claim) if checked and checked.published else claim
            if picture is None:
                record = record.model_copy(update={"picture": None})
        except (PrivbenchError, ValidationError) as problem:
            yield str(problem)
            continue
        source = Provenance(folder.name, index.contact, index.paper, picture=picture)
        if found is not None and checked is not None:
            source = replace(
                source,
                level=checked.level,
                by=found.by,
                verified=found.created,
                since=checked.since,
                notes=checked.notes,
                picture=None if picture is None else _drawn(picture, entry, index, checked.level),
            )
        yield Submitted(record, claim, folder / entry.record, source)


def _picture(folder: Path, entry: SubmittedRecord, index: Index) -> SubmittedPicture | None:
    """Return the author's picture of a record; `None` if the index lists none."""
    path = picture_path(entry)
    return SubmittedPicture(folder, path, index.files[path]) if path in index.files else None


def _drawn(picture: SubmittedPicture, entry: SubmittedRecord, index: Index, level: Level) -> SubmittedPicture | None:
    """Replace the picture of a verified record by one of the evidence, which the verifier read."""
    if level == LEVELS[0]:
        return picture
    for kind in entry.evidence:
        if kind in _PICTURED:
            path = entry.evidence[kind]
            return SubmittedPicture(picture.folder, path, index.files[path], kind)
    return None


def results_of(folder: Path, path: Path) -> Path | None:
    """Return the results folder whose verifications count for a submission that was found under `path`.

    Only `RESULTS/verifications` counts for `RESULTS/submissions/NAME`, and only if `path` is one of RESULTS,
    RESULTS/submissions and RESULTS/submissions/NAME.
    """
    inside = folder.absolute().parent
    if inside.name != submission.FOLDER or path.absolute() not in (inside.parent, inside, folder.absolute()):
        return None
    return inside.parent


def read_verified(folder: Path, results: Path) -> tuple[Index, Verification | None]:
    """Read the index of a submission, and its verification in a results folder; `None` if there is none.

    Raises:
        PrivbenchError: one of them cannot be read, or the verification is of another state of the submission.
    """
    index, sha256 = read_index(folder)
    return index, _verification(folder, results, sha256)


def _verification(folder: Path, results: Path, sha256: str) -> Verification | None:
    path = verification_path(results, folder.name)
    if not os.path.lexists(path):
        return None
    found = read_signed(path, results)
    if found.submission != sha256:
        raise CorruptArtifactError(
            f"expected {path} to verify the submission {folder.name} in its present state, got a verification of "
            f"another state, which is ignored; verify it again with `privbench verify {folder} --write`"
        )
    return found
