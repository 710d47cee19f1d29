"""Verifications: the levels that records of a submission reached, kept beside the submissions, never in them.

RESULTS/verifications/NAME.json     verification of RESULTS/submissions/NAME

A verification applies only to the submission whose `submission.json` has the SHA-256 in it. It holds the numbers and
texts that the verifier computed, which reports show in place of the submitter's.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, JsonValue, model_validator

from ..core.config import Configuration
from ..errors import PrivbenchError
from ..files import atomic
from ..files.documents import Document
from ..files.tree import Tree
from .record import ArtifactReference, Cost, Environment, Flag, Hash, Name, NotRun, Record, RecordedScore
from .submission import Text

#: Raised when the meaning or set of fields changes; older readers refuse newer verifications.
SCHEMA = 2
#: Folder of verifications in the results.
FOLDER = "verifications"

Level = Literal["self-reported", "recomputed", "re-run"]
#: From the lowest to the highest.
LEVELS: tuple[Level, ...] = ("self-reported", "recomputed", "re-run")
#: Meaning of each level, for readers of a report.
EXPLANATIONS: dict[Level, str] = {
    "self-reported": "The numbers and texts are the author's. Nobody else has confirmed all of them.",
    "recomputed": "Someone else computed the scores, intervals, values by label and flags that are shown here, from "
    "the submitted reconstructions and predictions and with their own judges, and the author's scores agree with them. "
    "The picture is drawn again from the reconstructions. "
    "What the author states about the training and the attack (curves, queries, times) is left out. This level cannot "
    "show that the attack produced the reconstructions, or that the target was trained as described: reconstructions "
    "and predictions that were made up consistently reach it, too.",
    "re-run": "Someone else ran the cell again from scratch. Everything shown here is of that run, and the author's "
    "scores agree with it.",
}
#: The same in one line, for tables.
LEGEND = (
    "Level: self-reported by the author; recomputed by a verifier from the stored reconstructions and predictions; "
    "re-run by a verifier from scratch; the lowest of a row's seeds. Recomputed does not show that the attack made the "
    "reconstructions."
)
Outcome = Literal["equal", "within", "not compared"]


class CheckedScore(Configuration):
    """A score of a record and the score that the verifier computed.

    `equal` means equal up to rounding in every part; `within` means that the claimed value is in the interval that the
    verifier computed, with other copies of the judges.
    """

    claimed: float | None
    found: float | None
    outcome: Outcome
    reason: str = Field("", description="why it was not compared")


class Published(Configuration):
    """Numbers and texts that reports show of a verified record in place of its author's; others are not shown.

    `queries`, `costs`, `target` and `curves` are those of a repetition of the cell, and empty without one.
    """

    scores: dict[Name, RecordedScore]
    flags: tuple[Flag, ...]
    judge: dict[str, JsonValue]
    artifacts: dict[str, ArtifactReference]
    environment: Environment = Field(description="of the verifier")
    created: str = Field(description="when the numbers were computed")
    changed: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    command: tuple[str, ...]
    not_run: dict[str, NotRun] = Field(default_factory=dict)
    queries: dict[str, int] = Field(default_factory=dict)
    costs: dict[str, Cost] = Field(default_factory=dict)
    target: dict[str, JsonValue] = Field(default_factory=dict)
    curves: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, record: Record) -> "Published":
        """Take everything from a record that the verifier made."""
        return cls.model_validate({name: getattr(record, name) for name in cls.model_fields})

    def replace(self, claim: Record) -> Record:
        """Return a record with the identity and the picture of `claim` and everything else from here."""
        values = claim.model_dump(
            include={"schema_version", "key", "key_format", "protocol", "cell", "access", "picture"}
        )
        return Record.model_validate(values | self.model_dump())


class CheckedRecord(Configuration):
    """Verification of one record."""

    level: Level
    scores: dict[Name, CheckedScore] = Field(default_factory=dict)
    notes: tuple[str, ...] = Field((), description="what was not checked, and why")
    published: Published | None = Field(None, description="missing at the lowest level")
    since: str = Field("", description="when a record with this key first reached a level above the lowest; UTC")

    @model_validator(mode="after")
    def _is_backed(self) -> "CheckedRecord":
        if (self.level == LEVELS[0]) != (self.published is None):
            raise ValueError("expected the numbers of the verifier above the lowest level, and only there")
        return self


class Verification(Document):
    """The file `verifications/NAME.json`."""

    document_kind: ClassVar[str] = "written by `privbench verify`"
    remedy: ClassVar[str] = "remove it and verify the submission again with --write"
    max_bytes: ClassVar[int] = 64 << 20

    format: Literal["privbench verification"] = "privbench verification"
    schema_version: int = Field(SCHEMA, ge=1, le=SCHEMA)
    submission: Hash = Field(description="SHA-256 of its submission.json")
    by: Text = Field(description="who verified")
    created: Text = Field(description="UTC, ISO 8601")
    privbench: Text
    python: Text
    torch: Text
    platform: Text
    records: dict[Hash, CheckedRecord]

    @classmethod
    def upgrade(cls, value: dict[str, Any], schema: int) -> dict[str, Any]:
        """Take the levels from a verification without numbers: reports would show those of the submitter."""
        records = value.get("records")
        if schema == 1 and isinstance(records, dict):
            note = "an earlier privbench verified it and did not keep its own numbers; verify it again"
            value = value | {"records": {key: {"level": LEVELS[0], "notes": [note]} for key in records}}
        return value | {"schema_version": SCHEMA}


def lowest(levels: Iterable[Level]) -> Level:
    """Lowest of several levels; the lowest of all if there are none."""
    return min(levels, key=LEVELS.index, default=LEVELS[0])


def verification_path(results: Path, name: str) -> Path:
    """Path of the verification of a submission."""
    return results / FOLDER / f"{name}.json"


def write_verification(found: Verification, results: Path, name: str) -> Path:
    """Write the verification of a submission, atomically and through no link inside the results; returns its path.

    A record keeps the time at which it was first verified, which decides who owns it.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = verification_path(results, name)
    try:
        earlier = Verification.read(path).records if path.is_file() else {}
    except PrivbenchError:
        earlier = {}
    since = {key: earlier[key].since for key, each in found.records.items() if key in earlier and each.since}
    records = {
        key: each.model_copy(update={"since": since[key]}) if since.get(key) else each
        for key, each in found.records.items()
    }
    found = found.model_copy(update={"records": records})
    with atomic.storage_errors(path, otherwise="choose another results folder"):
        Tree(results).write_file(path, found.text().encode())
    return path
