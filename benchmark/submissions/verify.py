"""Verifying a submission: what it holds, whether it is complete, and whether its scores follow from its evidence."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.evidence import Evidence
from ..errors import CorruptArtifactError, InvalidConfigurationError, MissingDataError, PrivbenchError
from ..files.untrusted import shown
from ..pipeline.record_artifacts import name_of
from ..pipeline.session import Session
from ..records.record import Record
from ..records.submission import Submission, SubmittedRecord, by_group, read_submission
from ..records.verification import CheckedRecord, CheckedScore, Verification
from .check_components import Components, components
from .check_evidence import About, read_evidence, require_picture
from .recompute import bench, lacking_flags, recompute
from .rerun import Rerun, rerun

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")


@dataclass(frozen=True)
class SubmissionResult:
    """What is to be said of a submission.

    Args:
        submission: as it was read.
        problems: why it is refused, one sentence a record; empty if it is not.
        records: what was found about each sound record, by key.
    """

    submission: Submission
    problems: tuple[str, ...]
    records: Mapping[str, CheckedRecord]


def verify(folder: Path, session: Session, again: Rerun | None = None) -> SubmissionResult:
    """Verify a submission; nothing in it is executed.

    Args:
        folder: of the submission.
        session: the verifier's own store, where judges are trained if they are missing, and data.
        again: where to run every cell again, too.

    Raises:
        PrivbenchError: the submission as a whole is refused; says why in one sentence.
    """
    submission = read_submission(folder)
    if not _NAME.fullmatch(submission.name):
        raise InvalidConfigurationError(
            f"expected the folder of a submission to have a name of letters, digits, '_', '.', '+' and '-', got "
            f"{shown(repr(submission.name))}; rename it"
        )
    _require_seeds(submission)
    problems: list[str] = []
    found: dict[str, CheckedRecord] = {}
    for entry, record in zip(submission.index.records, submission.records, strict=True):
        try:
            found[record.key] = _check(submission, entry, record, session, again)
        except PrivbenchError as problem:
            problems.append(str(problem))
    return SubmissionResult(submission, tuple(problems), found)


def _require_seeds(submission: Submission) -> None:
    """Refuse a submission in which a defense under an attack lacks a seed that the submission declares."""
    declared = set(submission.index.seeds)
    for group in by_group(submission.records).values():
        given = {record.cell.seed for record in group}
        if given == declared and len(group) == len(declared):
            continue
        cell, odd = group[0].cell, min(given ^ declared, default=min(declared))
        raise CorruptArtifactError(
            f"expected {cell.defense.name} under {cell.attack.name} on {group[0].protocol} with the budget "
            f"{cell.budget} to have each of the seeds {', '.join(map(str, sorted(declared)))} once as "
            f"{submission.folder} declares, got {'none' if odd not in given else 'another number'} for {odd}; submit "
            "all of them"
        )


def _check(
    submission: Submission, entry: SubmittedRecord, record: Record, session: Session, again: Rerun | None
) -> CheckedRecord:
    """Everything about one record."""
    known = components(record)
    dataset = known.dataset
    try:
        dataset.component.files()
        session.images(dataset, "private_test")
    except MissingDataError as cause:
        if again is not None:
            raise
        return CheckedRecord(level="self-reported", notes=(f"not recomputed: {cause}",))
    about = About(record, known.protocol, dataset.component.negatives, lambda part: session.images(dataset, part))
    items = read_evidence(submission, entry, about)
    _require_yielded(record, known, items)
    require_picture(submission, entry, record, items)
    evidence = Evidence(known.protocol, items, about.private, record.cell.attack.fields)  # type: ignore[arg-type]
    scores, notes = _recomputed(entry, record, known, evidence, session)
    if again is None:
        return CheckedRecord(level="self-reported" if notes else "recomputed", scores=scores, notes=notes)
    repeated = rerun(record, known, again)
    notes = tuple(f"{name}: {score.reason}" for name, score in repeated.items() if _decides(record, name, score))
    return CheckedRecord(level="self-reported" if notes else "re-run", scores=repeated, notes=notes)


def _require_yielded(record: Record, known: Components, items: Mapping[str, Any]) -> None:
    """Refuse evidence of another kind than the record's attack gives."""
    if known.attack is None:
        return
    yields = known.attack.component.yields
    strays = items.keys() - {yields, "Predictions", "Negatives", "Encodings"}
    if strays:
        raise CorruptArtifactError(
            f"expected {name_of(record)} to hold {yields}, which its attack gives, got {min(strays)}; make the "
            "submission again with `privbench submit`"
        )


def _recomputed(
    entry: SubmittedRecord, record: Record, known: Components, evidence: Evidence, session: Session
) -> tuple[dict[str, CheckedScore], tuple[str, ...]]:
    """The recomputed scores, and why the record is not called recomputed; empty if it is."""
    found = recompute(record, known, evidence, bench(record, known, session))
    notes = [f"{name} was not recomputed: {reason}" for name, reason in sorted(found.missing.items())]
    notes += [f"{name}: {score.reason}" for name, score in found.checked.items() if _decides(record, name, score)]
    if not found.missing:
        lacking = lacking_flags(record, known, found.found, entry.probe)
        if lacking:
            raise CorruptArtifactError(
                f"expected {name_of(record)} to carry the flag {lacking[0]} that its own numbers raise, got "
                f"{', '.join(flag.name for flag in record.flags) or 'none'}; run its cell again"
            )
    return found.checked, tuple(notes)


def _decides(record: Record, name: str, score: CheckedScore) -> bool:
    """Whether a score that could not be compared keeps the record from a level; scores of quality do not rank."""
    return score.outcome == "not compared" and record.scores[name].definition.measures != "quality"


def written(found: SubmissionResult, by: str) -> Verification:
    """What is stored of a finding about a submission that is not refused.

    Args:
        found: without problems.
        by: who verified.
    """
    import platform

    import torch

    from ... import __version__

    assert not found.problems
    return Verification(
        submission=found.submission.sha256,
        by=by,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        privbench=__version__,
        python=platform.python_version(),
        torch=str(torch.__version__),
        platform=f"{platform.system()} {platform.machine()}",
        records=dict(found.records),
    )
