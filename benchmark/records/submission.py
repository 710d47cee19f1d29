"""Submissions: folders of records and of the evidence that their scores were computed from. Imports no torch.

DIR/submission.json                              contact, paper, and size and SHA-256 of every other file
DIR/records/PROTOCOL/DEFENSE/ATTACK/KEY.json     records, as in the results; KEY.png are their pictures
DIR/evidence/KIND-HASH.safetensors               input of the evaluators; records with equal evidence share a file

Files are read up to a limit and not through links, and nothing in them is executed.
"""

import hashlib
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue, StringConstraints

from ..core.canonical import canonical
from ..core.config import Configuration
from ..errors import CorruptArtifactError, MissingDataError
from ..files.documents import Document
from ..files.untrusted import read_bounded, shown
from ..store.manifest import TENSORS
from .record import Hash, Record, location

#: Raised when the meaning or set of fields changes; older readers refuse newer submissions.
SCHEMA = 1
INDEX = "submission.json"
#: Folder of submissions in the results.
FOLDER = "submissions"
#: Larger indexes are refused.
MAX_INDEX = 4 << 20
#: Larger files are refused, as by the usual hosts of git repositories.
MAX_FILE = 100 << 20
#: Limit on all files of a submission together, in bytes.
MAX_TOTAL = 2 << 30
MAX_FILES = 4096
#: Levels of nested folders; records are four folders deep.
_MAX_FOLDERS = 4
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}"
_LAYOUT = re.compile(
    rf"records/(?:{_PART}/){{3}}[0-9a-f]{{64}}\.(?:json|png)|evidence/[A-Za-z]+-[0-9a-f]{{16}}\.safetensors"
)
_ENDINGS = (".json", ".png", TENSORS)
_REMEDY = "create the submission again with `privbench submit`"

Kind = Literal[
    "ClassReconstructions", "PairedReconstructions", "FeatureEstimates", "Encodings", "Predictions", "Negatives"
]
Text = Annotated[
    str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f]*[^\x00-\x20][^\x00-\x1f]*$")
]
FilePath = Annotated[str, StringConstraints(max_length=500)]


class Facts(Configuration):
    """Size and hash that a file must have."""

    bytes: int = Field(ge=0, le=MAX_FILE)
    sha256: Hash


class SubmittedRecord(Configuration):
    """A record and the files that belong to it."""

    record: FilePath
    evidence: dict[Kind, FilePath] = Field(description="file by kind of evidence")
    probe: dict[str, JsonValue] = Field(
        default_factory=dict, description="results of the check for gradient masking, see `gradient_masking.examine`"
    )


class Index(Document):
    """The file `submission.json`."""

    document_kind: ClassVar[str] = "the index of a submission"
    remedy: ClassVar[str] = _REMEDY
    max_bytes: ClassVar[int] = MAX_INDEX

    format: Literal["privbench submission"] = "privbench submission"
    schema_version: int = Field(SCHEMA, ge=1, le=SCHEMA)
    privbench: Text = Field(description="version that made the submission")
    created: Text = Field(description="UTC, ISO 8601")
    contact: Text = Field(description="whom to ask")
    paper: Text = Field(description="title or address of the publication")
    seeds: tuple[int, ...] = Field(
        min_length=1, description="seeds that every defense but the placebo was run with under every attack"
    )
    records: tuple[SubmittedRecord, ...] = Field(min_length=1)
    files: dict[FilePath, Facts] = Field(description="every file except this one")


@dataclass(frozen=True)
class Submission:
    """A submission whose files match its index.

    Args:
        folder: of the submission.
        index: its `submission.json`.
        sha256: of `submission.json`, which identifies the whole submission.
        records: in the order of the index.
    """

    folder: Path
    index: Index
    sha256: str
    records: tuple[Record, ...]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.resolve().name

    def file(self, path: str) -> bytes:
        """Read a file that the index lists and check its size and SHA-256.

        Raises:
            MissingDataError: it does not exist, or cannot be read.
            CorruptArtifactError: it does not match the index.
        """
        return read_listed(self.folder, path, self.index.files[path])


def read_submission(folder: Path) -> Submission:
    """Read a submission and compare every file with its index; images and tensors are not decoded.

    Raises:
        MissingDataError: there is no submission in the folder, or a file is missing.
        CorruptArtifactError: a file is not in the index, or does not match it.
        IncompatibleRecordError: a newer privbench made the submission or a record.
    """
    index, sha256 = read_index(folder)
    present = dict(_scan(folder))
    listed = {INDEX, *index.files}
    for path in sorted(present.keys() - listed):
        raise CorruptArtifactError(
            f"expected {folder} to hold the files of its {INDEX} and no others, got {shown(repr(path))}; remove it"
        )
    for path in sorted(listed - present.keys()):
        raise MissingDataError(f"expected {folder / path} as {INDEX} lists it, found none; {_REMEDY}")
    for path in sorted(index.files.keys() - {entry.record for entry in index.records}):
        read_listed(folder, path, index.files[path])
    records = tuple(read_record(folder, entry, index) for entry in index.records)
    if len({record.key for record in records}) < len(records):
        raise CorruptArtifactError(f"expected {folder} to hold each record once, got one twice; {_REMEDY}")
    return Submission(folder, index, sha256, records)


def read_index(folder: Path) -> tuple[Index, str]:
    """Read the index of a submission, whose paths all stay in the folder; returns it and the SHA-256 of its file.

    Raises:
        MissingDataError: there is none.
        CorruptArtifactError: it is not an index, or lists a file that no submission contains.
        IncompatibleRecordError: a newer privbench made it.
    """
    source = str(folder / INDEX)
    if folder.is_symlink():
        raise CorruptArtifactError(f"expected {folder} to be a folder, got a symbolic link; put the folder there")
    if not os.path.lexists(folder / INDEX):
        raise MissingDataError(
            f"expected {folder} to be a submission, found no {INDEX} there; make one with `privbench submit`"
        )
    data = read_bounded(folder / INDEX, MAX_INDEX)
    index = Index.parse(data, source)
    require_consistent(index, source)
    return index, hashlib.sha256(data).hexdigest()


def require_consistent(index: Index, source: str) -> None:
    """Refuse paths outside the folder or the layout, files that no record refers to, and references to no file."""
    for path in index.files:
        _require_plain(path, source)
    total = sum(facts.bytes for facts in index.files.values())
    if len(index.files) > MAX_FILES or total > MAX_TOTAL:
        raise CorruptArtifactError(
            f"expected {source} to list at most {MAX_FILES:,} files of {MAX_TOTAL:,} bytes in all, got "
            f"{len(index.files):,} of {total:,}; submit fewer records at a time"
        )
    used = [entry.record for entry in index.records]
    pictures = {Path(path).with_suffix(".png").as_posix() for path in used}
    for entry in index.records:
        wrong = [entry.record] if not entry.record.endswith(".json") else []
        wrong += [path for kind, path in entry.evidence.items() if not path.startswith(f"evidence/{kind}-")]
        wrong += [path for path in (entry.record, *entry.evidence.values()) if path not in index.files]
        for path in wrong:
            raise CorruptArtifactError(
                f"expected records in {source} to name files of their kind that it lists, got {shown(repr(path))}; "
                f"{_REMEDY}"
            )
    if len(set(used)) < len(used):
        raise CorruptArtifactError(f"expected {source} to list each record once, got one twice; {_REMEDY}")
    shared = {path for entry in index.records for path in entry.evidence.values()}
    for path in sorted(index.files.keys() - set(used) - shared - pictures):
        raise CorruptArtifactError(
            f"expected {source} to list files of its records only, got {shown(repr(path))}; {_REMEDY}"
        )


def _require_plain(path: str, source: str) -> None:
    """Refuse the path of a file that no submission contains."""
    parts = path.split("/")
    if path.startswith(("/", "\\", "~")) or ".." in parts or "\\" in path or ":" in path:
        raise CorruptArtifactError(
            f"expected files in {source} to be inside the submission, got {shown(repr(path))}; use plain relative paths"
        )
    _require_kind(path, source)
    if not _LAYOUT.fullmatch(path):
        raise CorruptArtifactError(
            f"expected files in {source} to be records/PROTOCOL/DEFENSE/ATTACK/KEY.json, their PNGs, or "
            f"evidence/KIND-HASH{TENSORS}, got {shown(repr(path))}; {_REMEDY}"
        )


def _require_kind(path: str, source: str) -> None:
    """Refuse a file by its name alone."""
    name = path.rpartition("/")[2].lower()
    if name.startswith("verification"):
        raise CorruptArtifactError(
            f"expected {source} to contain no verification, got {shown(repr(path))}; remove it, since only others can "
            "verify a submission"
        )
    if not name.endswith(_ENDINGS):
        raise CorruptArtifactError(
            f"expected {source} to hold JSON, PNG and safetensors only, got {shown(repr(path))}, which may run code "
            "when read; remove it"
        )


def _scan(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield relative path and size of every file.

    Raises:
        CorruptArtifactError: there is a link or a device, or there are too many or too large files.
    """
    count = total = 0
    for path, status in _walk(folder, ""):
        source = folder / path
        if stat.S_ISLNK(status.st_mode):
            raise CorruptArtifactError(
                f"expected {shown(str(source), 300)} to be a file, got a symbolic link, which may lead out of the "
                "folder; put the file there"
            )
        if not stat.S_ISREG(status.st_mode):
            raise CorruptArtifactError(
                f"expected {shown(str(source), 300)} to be a regular file, got something else; remove it"
            )
        _require_kind(path, str(folder))
        count, total = count + 1, total + status.st_size
        if count > MAX_FILES + 1 or status.st_size > MAX_FILE or total > MAX_TOTAL + MAX_INDEX:
            raise CorruptArtifactError(
                f"expected {folder} to hold at most {MAX_FILES:,} files of at most {MAX_FILE:,} bytes each and "
                f"{MAX_TOTAL:,} in all, got more with {shown(repr(path))}; submit fewer records at a time"
            )
        yield path, status.st_size


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    if prefix.count("/") > _MAX_FOLDERS:
        raise CorruptArtifactError(
            f"expected {folder} to be at most {_MAX_FOLDERS} folders deep, got {shown(repr(prefix))}; remove it"
        )
    try:
        with os.scandir(folder / prefix) as found:
            entries = sorted(itertools.islice(found, MAX_FILES + 2), key=lambda entry: entry.name)
        for entry in entries:
            path = f"{prefix}{entry.name}"
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                yield from _walk(folder, f"{path}/")
            else:
                yield path, status
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise MissingDataError(f"expected {folder} to be readable: {reason}; change its permissions") from cause


def read_listed(folder: Path, path: str, facts: Facts) -> bytes:
    """Read a file and check it against its entry in the index; see `Submission.file`."""
    data = read_bounded(folder / path, facts.bytes)
    sha256 = hashlib.sha256(data).hexdigest()
    if len(data) != facts.bytes:
        raise CorruptArtifactError(
            f"expected {folder / path} to have {facts.bytes:,} bytes as {INDEX} lists, got "
            f"{'fewer' if len(data) < facts.bytes else 'more'}; {_REMEDY}"
        )
    if sha256 != facts.sha256:
        raise CorruptArtifactError(
            f"expected {folder / path} to have the SHA-256 {facts.sha256[:16]}... that {INDEX} lists, got "
            f"{sha256[:16]}...; {_REMEDY}"
        )
    return data


def read_record(folder: Path, entry: SubmittedRecord, index: Index) -> Record:
    """Read a record of a submission from the bytes whose size and SHA-256 the index lists.

    Raises:
        MissingDataError: it does not exist.
        IncompatibleRecordError: a newer privbench made it.
        CorruptArtifactError: it is damaged or not the listed file, its path does not match its content, or a picture is
            listed that it does not name.
    """
    record = Record.parse(read_listed(folder, entry.record, index.files[entry.record]), str(folder / entry.record))
    due = location(record, Path()).as_posix()
    if due != entry.record:
        raise CorruptArtifactError(
            f"expected the record {folder / entry.record} to have the path {due}, which follows from its content; "
            f"{_REMEDY}"
        )
    picture = Path(due).with_suffix(".png").as_posix()
    if record.picture is None and picture in index.files:
        raise CorruptArtifactError(
            f"expected {INDEX} to list a picture of {folder / entry.record} only if the record names one, got one; "
            f"{_REMEDY}"
        )
    return record


def picture_path(entry: SubmittedRecord) -> str:
    """Path of the picture of a record, if it has one."""
    return Path(entry.record).with_suffix(".png").as_posix()


def files_of(contents: Mapping[str, bytes]) -> dict[str, Facts]:
    """Make the table of files of an index."""
    return {path: Facts(bytes=len(data), sha256=hashlib.sha256(data).hexdigest()) for path, data in contents.items()}


def group_of(record: Record) -> str:
    """Key that is equal for records that differ only in the seed."""
    cell = record.cell.model_dump(mode="json", exclude={"seed", "evaluators"})
    return canonical([record.protocol, cell])


def by_group(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Group records that differ only in the seed."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(group_of(record), []).append(record)
    return found
