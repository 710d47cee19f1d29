"""A submission: one folder of plain data, with records and what their scores were made from. Imports no torch.

DIR/submission.json                              who, which paper, and size and SHA-256 of every other file
DIR/records/PROTOCOL/DEFENSE/ATTACK/KEY.json     records, as in the results; KEY.png their pictures
DIR/evidence/KIND-HASH.safetensors               what the evaluators read, shared by all records that have the same

A submission is read in bounds, through no link, and nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, StringConstraints, ValidationError

from ..core.canonical import canonical
from ..core.config import Configuration
from ..errors import CorruptArtifactError, IncompatibleRecordError, MissingDataError
from ..files.untrusted import parse_json, read_bounded, shown
from ..store.manifest import TENSORS
from .record import Hash, Record, location, read

FORMAT = "privbench submission"
#: Raised when the meaning or set of fields changes; older readers refuse newer submissions.
SCHEMA = 1
INDEX = "submission.json"
#: Folder of submissions in the results.
FOLDER = "submissions"
#: A larger index is not read.
MAX_INDEX = 4 << 20
#: A larger file is not read; the usual hosts of git repositories refuse such files, too.
MAX_FILE = 100 << 20
#: All files of a submission together take no more.
MAX_TOTAL = 2 << 30
#: A submission has no more files.
MAX_FILES = 4096
#: Folders are nested no deeper; records are four folders down.
_MOST_FOLDERS = 4
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}"
_LAYOUT = re.compile(
    rf"records/(?:{_PART}/){{3}}[0-9a-f]{{64}}\.(?:json|png)|evidence/[A-Za-z]+-[0-9a-f]{{16}}\.safetensors"
)
_ENDINGS = (".json", ".png", TENSORS)
_AGAIN = "make the submission again with `privbench submit`"

Kind = Literal[
    "ClassReconstructions", "PairedReconstructions", "FeatureEstimates", "Encodings", "Predictions", "Negatives"
]
Text = Annotated[
    str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f]*[^\x00-\x20][^\x00-\x1f]*$")
]
FilePath = Annotated[str, StringConstraints(max_length=500)]


class Facts(Configuration):
    """What a file must be."""

    bytes: int = Field(ge=0, le=MAX_FILE)
    sha256: Hash


class SubmittedRecord(Configuration):
    """A record with the files that belong to it."""

    record: FilePath
    evidence: dict[Kind, FilePath] = Field(description="by kind of evidence, the file that holds it")
    probe: dict[str, JsonValue] = Field(
        default_factory=dict, description="how the target answered when it was asked twice, see `probe.examine`"
    )


class Index(Configuration):
    """The file `submission.json`."""

    format: Literal["privbench submission"] = "privbench submission"
    schema_version: int = Field(SCHEMA, ge=1, le=SCHEMA)
    privbench: Text = Field(description="version that made the submission")
    created: Text = Field(description="UTC, ISO 8601")
    contact: Text = Field(description="whom to ask")
    paper: Text = Field(description="title or address of the publication")
    seeds: tuple[int, ...] = Field(min_length=1, description="what every defense under every attack was run with")
    records: tuple[SubmittedRecord, ...] = Field(min_length=1)
    files: dict[FilePath, Facts] = Field(description="every file but this one")

    def text(self) -> str:
        """The content of the file, made for review."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Submission:
    """A submission whose files are those of its index, with the hashes that they must have.

    Args:
        folder: where it is.
        index: what it says.
        sha256: of `submission.json`, which stands for the whole.
        records: as they were read, in the order of the index.
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
        """The bytes of a file that the index lists, compared with size and SHA-256.

        Raises:
            MissingDataError: it is not there, or cannot be read.
            CorruptArtifactError: it is another file.
        """
        return read_listed(self.folder, path, self.index.files[path])


def read_submission(folder: Path) -> Submission:
    """Read a submission and compare every file with its index; images and tensors are not decoded.

    Raises:
        MissingDataError: there is no submission in the folder, or a file is missing.
        CorruptArtifactError: something is there that must not be, or is not what the index says.
        IncompatibleRecordError: a record is damaged, or the submission is of a newer privbench.
    """
    index, sha256 = read_index(folder)
    present = dict(_scan(folder))
    listed = {INDEX, *index.files}
    for path in sorted(present.keys() - listed):
        raise CorruptArtifactError(
            f"expected {folder} to hold the files of its {INDEX} and no others, got {shown(repr(path))}; remove it"
        )
    for path in sorted(listed - present.keys()):
        raise MissingDataError(f"expected {folder / path} as {INDEX} lists it, found none; {_AGAIN}")
    for path, facts in index.files.items():
        read_listed(folder, path, facts)
    records = tuple(read_record(folder, entry, index) for entry in index.records)
    if len({record.key for record in records}) < len(records):
        raise CorruptArtifactError(f"expected {folder} to hold each record once, got one twice; {_AGAIN}")
    return Submission(folder, index, sha256, records)


def read_index(folder: Path) -> tuple[Index, str]:
    """The index of a submission, whose paths all stay in the folder, and the SHA-256 of its file.

    Raises:
        MissingDataError: there is none.
        CorruptArtifactError: it is no index, or names a file that no submission holds.
        IncompatibleRecordError: it is of a newer privbench.
    """
    source = str(folder / INDEX)
    if folder.is_symlink():
        raise CorruptArtifactError(f"expected {folder} to be a folder, got a symbolic link; put the folder there")
    if not os.path.lexists(folder / INDEX):
        raise MissingDataError(
            f"expected {folder} to be a submission, found no {INDEX} there; make one with `privbench submit`"
        )
    data = read_bounded(folder / INDEX, MAX_INDEX)
    value = parse_json(data, source, MAX_INDEX)
    schema = value.get("schema_version")
    if value.get("format") != FORMAT or type(schema) is not int or schema < 1:
        raise CorruptArtifactError(f"expected {source} to be the index of a submission, got another file; {_AGAIN}")
    if schema > SCHEMA:
        raise IncompatibleRecordError(
            f"{source} has schema {shown(schema)} and this privbench reads up to {SCHEMA}; upgrade privbench"
        )
    try:
        index = Index.model_validate(value)
    except ValidationError as cause:
        raise CorruptArtifactError(_sentence(source, cause)) from None
    require_consistent(index, source)
    return index, hashlib.sha256(data).hexdigest()


def _sentence(source: str, cause: ValidationError) -> str:
    problem: Any = cause.errors(include_url=False)[0]
    where = shown(".".join(map(str, problem["loc"])) or "it")
    if problem["type"] == "missing":
        return f"expected {source} to have {where}, found none; {_AGAIN}"
    if problem["type"] == "extra_forbidden":
        return f"expected {source} to have known fields only, got {where}; {_AGAIN}"
    wanted = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"expected {where} in {source} to be {shown(wanted)}, got {shown(repr(problem['input']))}; {_AGAIN}"


def require_consistent(index: Index, source: str) -> None:
    """Refuse paths that leave the folder or have another layout, and files that nothing refers to or that are gone."""
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
                f"{_AGAIN}"
            )
    if len(set(used)) < len(used):
        raise CorruptArtifactError(f"expected {source} to list each record once, got one twice; {_AGAIN}")
    shared = {path for entry in index.records for path in entry.evidence.values()}
    for path in sorted(index.files.keys() - set(used) - shared - pictures):
        raise CorruptArtifactError(
            f"expected {source} to list files of its records only, got {shown(repr(path))}; {_AGAIN}"
        )


def _require_plain(path: str, source: str) -> None:
    """Refuse the path of a file that no submission holds."""
    parts = path.split("/")
    if path.startswith(("/", "\\", "~")) or ".." in parts or "\\" in path or ":" in path:
        raise CorruptArtifactError(
            f"expected files in {source} to be inside the submission, got {shown(repr(path))}, which leaves it; "
            "use plain relative paths"
        )
    _require_kind(path, source)
    if not _LAYOUT.fullmatch(path):
        raise CorruptArtifactError(
            f"expected files in {source} to be records/PROTOCOL/DEFENSE/ATTACK/KEY.json, their PNGs, or "
            f"evidence/KIND-HASH{TENSORS}, got {shown(repr(path))}; {_AGAIN}"
        )


def _require_kind(path: str, source: str) -> None:
    """Refuse a file by its name alone, whether listed or found."""
    name = path.rpartition("/")[2].lower()
    if name.startswith("verification"):
        raise CorruptArtifactError(
            f"expected {source} to leave verification to others, got {shown(repr(path))}; remove it, since a "
            "submission's level comes from who verified it"
        )
    if not name.endswith(_ENDINGS):
        raise CorruptArtifactError(
            f"expected {source} to hold JSON, PNG and safetensors only, got {shown(repr(path))}, which may run code "
            "when it is read; remove it"
        )


def _scan(folder: Path) -> Iterator[tuple[str, int]]:
    """Relative path and size of every file, none of them a link.

    Raises:
        CorruptArtifactError: a link, a device, or too many or too large files.
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
    if prefix.count("/") > _MOST_FOLDERS:
        raise CorruptArtifactError(
            f"expected {folder} to be at most {_MOST_FOLDERS} folders deep, got {shown(repr(prefix))}; remove it"
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
    """The bytes of a file, compared with what the index says of it; see `Submission.file`."""
    data = read_bounded(folder / path, facts.bytes)
    sha256 = hashlib.sha256(data).hexdigest()
    if len(data) != facts.bytes:
        raise CorruptArtifactError(
            f"expected {folder / path} to take {facts.bytes:,} bytes as {INDEX} says, got "
            f"{'fewer' if len(data) < facts.bytes else 'more'}; {_AGAIN}"
        )
    if sha256 != facts.sha256:
        raise CorruptArtifactError(
            f"expected {folder / path} to have the SHA-256 {facts.sha256[:16]}... that {INDEX} lists, got "
            f"{sha256[:16]}...; {_AGAIN}"
        )
    return data


def read_record(folder: Path, entry: SubmittedRecord, index: Index) -> Record:
    """A record of a submission, which is where its contents say.

    Raises:
        IncompatibleRecordError: it is damaged.
        CorruptArtifactError: it belongs elsewhere, or a picture is listed that it does not name.
    """
    record = read(folder / entry.record)
    due = location(record, Path()).as_posix()
    if due != entry.record:
        raise CorruptArtifactError(
            f"expected the record {folder / entry.record} to be kept at {due} by what it says, got another place; "
            f"{_AGAIN}"
        )
    picture = Path(due).with_suffix(".png").as_posix()
    if record.picture is None and picture in index.files:
        raise CorruptArtifactError(
            f"expected {INDEX} to list a picture of {folder / entry.record} only if the record names one, got one; "
            f"{_AGAIN}"
        )
    return record


def picture_path(entry: SubmittedRecord) -> str:
    """Where the picture of a record is, if it has one."""
    return Path(entry.record).with_suffix(".png").as_posix()


def files_of(contents: Mapping[str, bytes]) -> dict[str, Facts]:
    """The table of files of an index."""
    return {path: Facts(bytes=len(data), sha256=hashlib.sha256(data).hexdigest()) for path, data in contents.items()}


def group_of(record: Record) -> str:
    """Equal for records that differ in nothing but the seed."""
    cell = record.cell.model_dump(mode="json", exclude={"seed", "evaluators"})
    return canonical([record.protocol, cell])


def by_group(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Records that differ in nothing but the seed."""
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(group_of(record), []).append(record)
    return found
