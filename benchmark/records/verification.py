"""Verifications: the levels that records of a submission reached, kept beside the submissions, never in them.

RESULTS/verifications/NAME.json     verification of RESULTS/submissions/NAME

A verification applies only to the submission whose `submission.json` has the SHA-256 in it.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from ..core.config import Configuration
from ..files import atomic
from ..files.documents import Document
from .record import Hash, Name
from .submission import Text

#: Raised when the meaning or set of fields changes; older readers refuse newer verifications.
SCHEMA = 1
#: Folder of verifications in the results.
FOLDER = "verifications"

Level = Literal["self-reported", "recomputed", "re-run"]
#: From the lowest to the highest.
LEVELS: tuple[Level, ...] = ("self-reported", "recomputed", "re-run")
#: Meaning of each level, for readers of a report.
EXPLANATIONS: dict[Level, str] = {
    "self-reported": "Nobody but its author has checked the record.",
    "recomputed": "Someone else recomputed every score of utility and leakage from the stored reconstructions and "
    "predictions, with their own judges, and the scores agree. Nobody has verified that the attack produces these "
    "reconstructions, or that the target was trained as described.",
    "re-run": "Someone else ran the cell again from scratch, and the scores agree.",
}
#: The same in one line, for tables.
LEGEND = (
    "Level: self-reported by the author; recomputed by a verifier from the stored reconstructions and predictions; "
    "re-run by a verifier from scratch; the lowest of a row's seeds."
)
Outcome = Literal["equal", "within", "not compared"]


class CheckedScore(Configuration):
    """A score of a record and the score that the verifier computed.

    `equal` means equal up to rounding, with the same judges; `within` means inside the record's interval, with other
    copies of the judges.
    """

    claimed: float | None
    found: float | None
    outcome: Outcome
    reason: str = Field("", description="why it was not compared")


class CheckedRecord(Configuration):
    """Verification of one record."""

    level: Level
    scores: dict[Name, CheckedScore] = Field(default_factory=dict)
    notes: tuple[str, ...] = Field((), description="what was not checked, and why")


class Verification(Document):
    """The file `verifications/NAME.json`."""

    document_kind: ClassVar[str] = "written by `privbench verify`"
    remedy: ClassVar[str] = "remove it and verify the submission again with --write"
    max_bytes: ClassVar[int] = 16 << 20

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


def lowest(levels: Iterable[Level]) -> Level:
    """Lowest of several levels; the lowest of all if there are none."""
    return min(levels, key=LEVELS.index, default=LEVELS[0])


def verification_path(results: Path, name: str) -> Path:
    """Path of the verification of a submission."""
    return results / FOLDER / f"{name}.json"


def write_verification(found: Verification, results: Path, name: str) -> Path:
    """Write the verification of a submission atomically; returns its path.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = verification_path(results, name)
    with atomic.storage_errors(path, otherwise="choose another results folder"):
        atomic.write_file(path, found.text().encode())
    return path
