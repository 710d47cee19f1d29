"""Verification of a submission: whether it is valid and complete, and whether its scores follow from its evidence."""

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.config import is_placebo
from ..core.evidence import Evidence
from ..errors import CorruptArtifactError, InvalidConfigurationError, MissingDataError, PrivbenchError
from ..files.untrusted import shown
from ..pipeline.keys import KEY_FORMAT
from ..pipeline.record_artifacts import name_of
from ..pipeline.session import Session
from ..records.record import Record
from ..records.submission import Submission, SubmittedRecord, by_group, read_submission
from ..records.verification import LEVELS, CheckedRecord, CheckedScore, Level, Published, Verification
from .check_components import Components, check_components, require_published_steps
from .check_evidence import Reference, check_digests, check_picture, read_evidence
from .published import published_scores
from .recompute import prepare_judges, recompute_scores
from .rejection import reject
from .rerun import RerunConfig, rerun_cell
from .shared_judges import SharedJudges
from .unique_evidence import Sketches, copy_problem, output_hashes, verified_outputs

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
#: Called before each record: its number from 1, the number of records, and the record.
Begin = Callable[[int, int, Record], object]


def _silent(number: int, count: int, record: Record) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class SubmissionResult:
    """Result of the verification of a submission.

    Args:
        submission: the submission.
        problems: why it is rejected, one sentence per record; empty if it is not.
        records: results for valid records, by key.
    """

    submission: Submission
    problems: tuple[str, ...]
    records: Mapping[str, CheckedRecord]


@dataclass(frozen=True)
class _Work:
    """What the records of one submission share while they are verified.

    Args:
        session: the verifier's data and store.
        rerun: where cells are run again; `None` if they are not.
        sketches: samples of the evidence so far.
        shared: judges with the features that they have computed.
    """

    session: Session
    rerun: RerunConfig | None
    sketches: Sketches
    shared: SharedJudges


def verify_submission(
    folder: Path, session: Session, rerun: RerunConfig | None = None, *, begin: Begin = _silent
) -> SubmissionResult:
    """Verify a submission without executing anything in it.

    Args:
        folder: folder of the submission.
        session: the verifier's data and store, in which missing judges are trained.
        rerun: if given, also runs every cell again.
        begin: called before each record, with its number from 1, the number of records, and the record.

    Raises:
        PrivbenchError: the whole submission is rejected; the message has the reason.
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
    work = _Work(session, rerun, Sketches(), SharedJudges(session.device))
    elsewhere = verified_outputs(folder)
    records = list(zip(submission.index.records, submission.records, strict=True))
    for i, (entry, record) in enumerate(records, 1):
        begin(i, len(records), record)
        try:
            _require_own_evidence(submission, entry, record, elsewhere)
            found[record.key] = _check_record(submission, entry, record, work)
        except PrivbenchError as problem:
            problems.append(str(problem))
    for record, other, kind in work.sketches.copies():
        problems.append(copy_problem(record, other, kind))
        found.pop(record.key, None)
        found.pop(other.key, None)
    return SubmissionResult(submission, tuple(problems), found)


def _require_own_evidence(
    submission: Submission, entry: SubmittedRecord, record: Record, elsewhere: Mapping[str, tuple[str, str]]
) -> None:
    """Reject a record whose reconstructions are those of another record of a submission that was verified before."""
    for sha256 in output_hashes(submission.index, entry):
        name, key = elsewhere.get(sha256, ("", record.key))
        if key != record.key:
            reject(record, "have reconstructions of its own", f"those of the record {key[:12]} in {name}")


def _require_seeds(submission: Submission) -> None:
    """Reject a submission if a defense under an attack lacks a seed that it declares; a placebo needs only one."""
    declared = set(submission.index.seeds)
    for group in by_group(submission.records).values():
        given = {record.cell.seed for record in group}
        defense = group[0].cell.defense
        enough = given <= declared if is_placebo(defense.name, defense.distribution) else given == declared
        if enough and len(group) == len(given):
            continue
        cell, seed = group[0].cell, min(given ^ declared, default=min(declared))
        raise CorruptArtifactError(
            f"expected {cell.defense.name} under {cell.attack.name} on {group[0].protocol} with the budget "
            f"{cell.budget} to have each of the seeds {', '.join(map(str, sorted(declared)))} once as "
            f"{submission.folder} declares, got {'none' if seed not in given else 'another number'} for {seed}; submit "
            "all of them"
        )


def _check_record(submission: Submission, entry: SubmittedRecord, record: Record, work: _Work) -> CheckedRecord:
    components = check_components(record)
    dataset, session, rerun = components.dataset, work.session, work.rerun
    try:
        dataset.files()
        session.images(dataset, "private_test")
    except MissingDataError as cause:
        if rerun is not None:
            raise
        return CheckedRecord(level=LEVELS[0], notes=(f"not recomputed: {cause}",))
    require_published_steps(record, components, len(session.images(dataset, "judge_train")))
    reference = Reference(
        record, components.protocol, dataset.component.negatives, lambda part: session.images(dataset, part)
    )
    items = read_evidence(submission, entry, reference)
    work.sketches.add(record, items)
    _require_attack_output(record, components, items)
    check_picture(submission, entry, record, items)
    check_digests(submission, entry, record)
    evidence = Evidence(components.protocol, items, reference.load, record.cell.attack.fields)  # type: ignore[arg-type]
    checked = _recompute(entry, record, components, evidence, work)
    if rerun is None:
        return checked
    scores, published = rerun_cell(record, components, rerun)
    return _at_level("re-run", scores, tuple(_uncompared(record, scores)), published)


def _at_level(
    level: Level, scores: Mapping[str, CheckedScore], notes: tuple[str, ...], published: Published | None
) -> CheckedRecord:
    """Give a record a level, or the lowest if notes say that something was not checked."""
    if notes or published is None:
        return CheckedRecord(level=LEVELS[0], scores=dict(scores), notes=notes)
    return CheckedRecord(level=level, scores=dict(scores), published=published, since=published.created)


def _require_attack_output(record: Record, components: Components, items: Mapping[str, Any]) -> None:
    """Reject evidence of other kinds than the record's attack returns."""
    if components.attack is None:
        return
    yields = components.attack.component.yields
    unexpected = items.keys() - {yields, "Predictions", "Negatives", "Encodings"}
    if unexpected:
        raise CorruptArtifactError(
            f"expected {name_of(record)} to have {yields}, which its attack returns, got {min(unexpected)}; create the "
            "submission again with `privbench submit`"
        )


def _recompute(
    entry: SubmittedRecord, record: Record, components: Components, evidence: Evidence, work: _Work
) -> CheckedRecord:
    """Recompute the scores; notes say why the record does not reach the level recomputed."""
    verifier = prepare_judges(record, components, work.session, work.shared)
    found = recompute_scores(record, components, evidence, verifier)
    notes = [
        f"its {kind} {getattr(record.cell, kind).name} is not available here ({reason}), so that its fields, seed and "
        "keys were not checked"
        for kind, reason in sorted(components.missing.items())
    ]
    notes += [f"{name} was not recomputed: {reason}" for name, reason in sorted(found.missing.items())]
    if verifier.missing and not found.missing:
        notes.append(f"its keys were not compared: {verifier.missing}")
    if record.key_format != KEY_FORMAT:
        notes.append(
            f"its keys have format {record.key_format} and this privbench makes format {KEY_FORMAT}, so that they were "
            "not compared with its components, fields and data; run its cell again"
        )
    notes += _uncompared(record, found.checked)
    published = (
        None if notes else published_scores(record, components, found.found, verifier, entry.probe, work.session)
    )
    return _at_level("recomputed", found.checked, tuple(notes), published)


def _uncompared(record: Record, scores: Mapping[str, CheckedScore]) -> Iterator[str]:
    """Reasons for a lower level: scores that were not compared, except those of quality, which are not ranked."""
    for name, score in scores.items():
        if score.outcome == "not compared" and record.scores[name].definition.measures != "quality":
            yield f"{name}: {score.reason}"


def make_verification(found: SubmissionResult, by: str) -> Verification:
    """Create the stored verification of a submission that is not rejected.

    Args:
        found: result without problems.
        by: name of the verifier.
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
