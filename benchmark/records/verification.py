"""How far a record was verified, and where that is written down: beside the submissions, never in them.

RESULTS/verifications/NAME.json     what was found about RESULTS/submissions/NAME

A finding counts for the submission whose `submission.json` has the SHA-256 that it names, and for no other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from ..core.config import Configuration
from ..errors import CorruptArtifactError, IncompatibleRecordError, StorageError
from ..files.atomic import replace
from ..files.untrusted import parse_json, read_bounded, shown
from .record import Hash, Name
from .submission import Text

FORMAT = "privbench verification"
#: Raised when the meaning or set of fields changes; older readers refuse newer findings.
SCHEMA = 1
#: Folder of findings in the results.
FOLDER = "verifications"
#: A larger finding is not read.
MAX_BYTES = 16 << 20

Level = Literal["self-reported", "recomputed", "re-run"]
#: From the least to the most.
LEVELS: tuple[Level, ...] = ("self-reported", "recomputed", "re-run")
#: What each level means, for readers of a report.
EXPLANATIONS: dict[Level, str] = {
    "self-reported": "Nobody but its author has checked the record.",
    "recomputed": "Someone else computed every score of utility and leakage again from the stored reconstructions and "
    "predictions, with judges of their own, and they agree. That the reconstructions are what the attack gives, and "
    "that the target was trained as described, is the author's word.",
    "re-run": "Someone else ran the cell again from nothing, and the scores agree.",
}
#: The same in one line, for tables.
LEGEND = (
    "Level: self-reported by the author; recomputed by a verifier from the stored reconstructions and predictions; "
    "re-run by a verifier from nothing; the lowest of a row's seeds."
)
Outcome = Literal["equal", "within", "not compared"]


class CheckedScore(Configuration):
    """A score of a record beside what the verifier found.

    `equal` means by the same judges and up to rounding, `within` by other copies of the judges and inside the record's
    interval.
    """

    claimed: float | None
    found: float | None
    outcome: Outcome
    reason: str = Field("", description="why it was not compared")


class CheckedRecord(Configuration):
    """What was found about one record."""

    level: Level
    scores: dict[Name, CheckedScore] = Field(default_factory=dict)
    notes: tuple[str, ...] = Field((), description="what was not checked, and why")


class Verification(Configuration):
    """The file `verifications/NAME.json`."""

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

    def text(self) -> str:
        """The content of the file, made for review."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def lowest(levels: Iterable[Level]) -> Level:
    """The least of several levels; of none, the least of all."""
    return min(levels, key=LEVELS.index, default=LEVELS[0])


def place_of(results: Path, name: str) -> Path:
    """Where the finding about a submission is kept."""
    return results / FOLDER / f"{name}.json"


def read_verification(path: Path) -> Verification:
    """Read a finding.

    Raises:
        MissingDataError: there is none.
        CorruptArtifactError: it is no finding.
        IncompatibleRecordError: it is of a newer privbench.
    """
    value = parse_json(read_bounded(path, MAX_BYTES), str(path), MAX_BYTES)
    schema = value.get("schema_version")
    if value.get("format") != FORMAT or type(schema) is not int or schema < 1:
        raise CorruptArtifactError(
            f"expected {path} to be a finding of `privbench verify`, got another file; remove it"
        )
    if schema > SCHEMA:
        raise IncompatibleRecordError(
            f"{path} has schema {shown(schema)} and this privbench reads up to {SCHEMA}; upgrade privbench"
        )
    try:
        return Verification.model_validate(value)
    except ValidationError as cause:
        problem = cause.errors(include_url=False, include_input=False)[0]
        where = shown(".".join(map(str, problem["loc"])) or "the whole")
        raise CorruptArtifactError(
            f"{path} is damaged: {where}: {shown(problem['msg'])}; verify the submission again with --write"
        ) from None


def write_verification(found: Verification, results: Path, name: str) -> Path:
    """Write a finding at once or not at all.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = place_of(results, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, found.text().encode())
    except OSError as cause:
        reason = cause.strerror or str(cause)
        raise StorageError(f"{path} cannot be written: {reason}; choose another results folder") from cause
    return path
