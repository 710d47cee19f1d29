"""Bundle records and their evidence from the store as a submission."""

from __future__ import annotations

import datetime
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contracts import Evaluator
from ..core.config import is_placebo
from ..errors import InvalidConfigurationError
from ..files.atomic import write_folder
from ..files.tensors import pack
from ..pipeline import record_artifacts
from ..pipeline.record_artifacts import name_of
from ..records import submission
from ..records.record import Record, location
from ..records.submission import INDEX, MAX_FILE, Index, SubmittedRecord, by_group
from ..registry import load
from ..store.manifest import TENSORS

if TYPE_CHECKING:
    from torch import Tensor

    from ..analysis.record_set import Records
    from ..pipeline.session import Session

log = logging.getLogger("privbench")
_SHORT = 16


def write_submission(records: Records, folder: Path, session: Session, *, contact: str, paper: str) -> Index:
    """Write a submission folder atomically.

    Evidence that several records share is stored once. Private images and weights are not included.

    Args:
        records: records to submit.
        folder: new folder of the submission.
        session: its store has the records' artifacts; its data set gives the latents for attacks on features.
        contact: contact of the author.
        paper: title or address of the publication.

    Returns:
        Content of `submission.json`.

    Raises:
        InvalidConfigurationError: the folder exists, a text is empty or too long, or a defense lacks a seed that others
            have.
        MissingDataError: an artifact is no longer in the store; the message has the record's command.
        IncompatibleRecordError: a component or an artifact differs from that of the record.
        StorageError: the folder cannot be written.
    """
    if folder.is_symlink() or folder.exists():
        raise InvalidConfigurationError(f"expected --output to be a new folder, got {folder}; choose another --name")
    contact, paper = _require_line("--contact", contact), _require_line("--paper", paper)
    seeds = _shared_seeds(records)
    contents: dict[str, bytes] = {}
    entries = [
        _add_record(record, records.picture(record), session, contents)
        for record in sorted(records, key=lambda record: location(record, Path()).as_posix())
    ]
    from ... import __version__

    index = Index(
        privbench=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        contact=contact,
        paper=paper,
        seeds=seeds,
        records=tuple(entries),
        files=submission.files_of(contents),
    )
    submission.require_consistent(index, str(folder / INDEX))
    write_folder(folder, {**contents, INDEX: index.text().encode()})
    return index


def _require_line(option: str, value: str) -> str:
    found = " ".join(value.split())
    if not 0 < len(found) <= 300 or not found.isprintable():
        raise InvalidConfigurationError(f"expected {option} to be one line of 1 to 300 characters, got {value!r}")
    return found


def _shared_seeds(records: Records) -> tuple[int, ...]:
    """Return the seeds of all records; each defense but the placebo must have them all under each attack."""
    seeds = sorted({record.cell.seed for record in records})
    for group in by_group(records).values():
        if is_placebo(group[0].cell.defense.name, group[0].cell.defense.distribution):
            continue
        missing = sorted(set(seeds) - {record.cell.seed for record in group})
        if missing:
            cell = group[0].cell
            raise InvalidConfigurationError(
                f"expected {cell.defense.name} under {cell.attack.name} on {group[0].protocol} to have the seeds "
                f"{', '.join(map(str, seeds))} of the other records, got none for {missing[0]}; run it with "
                f"--seed {missing[0]}, or submit it separately"
            )
    return tuple(seeds)


def _add_record(record: Record, picture: bytes | None, session: Session, contents: dict[str, bytes]) -> SubmittedRecord:
    """Add the files of one record to the contents."""
    path = location(record, Path()).as_posix()
    contents[path] = record.text().encode()
    if picture is not None:
        contents[Path(path).with_suffix(".png").as_posix()] = picture
    elif record.picture is not None:
        log.warning("the picture of %s is missing and is left out", name_of(record))
    evidence: dict[str, str] = {}
    for kind, tensors in _load_evidence(record, session).items():
        data = pack(tensors)
        if len(data) > MAX_FILE:
            log.warning(
                "%s of %s has %s bytes and is left out; scores that need it remain self-reported",
                *(kind, name_of(record), f"{len(data):,}"),
            )
            continue
        evidence[kind] = f"evidence/{kind}-{hashlib.sha256(data).hexdigest()[:_SHORT]}{TENSORS}"
        contents[evidence[kind]] = data
    scores = record_artifacts.artifact(record, "scores", session.store)
    return SubmittedRecord.model_validate(
        {"record": path, "evidence": evidence, "probe": scores.info.get("probe") or {}}
    )


def _load_evidence(record: Record, session: Session) -> Mapping[str, Mapping[str, Tensor]]:
    """Load the evidence that the record's evaluators read, as tensors by kind."""
    cell = record_artifacts.cell_of(record)
    evaluators: list[type[Evaluator]] = [load("evaluator", choice.name) for choice in record.cell.evaluators]
    needs = {kind for evaluator in evaluators for need in evaluator.needs for kind in need.split("|")}
    yields = cell.attack.component.yields
    found = {yields: _load_tensors(record, "evidence", yields, session)}
    found["Predictions"] = _load_tensors(record, "target", "predictions", session)
    if "Negatives" in needs:
        found["Negatives"] = _load_tensors(record, "negatives", "Negatives", session)
    if "Encodings" in needs and cell.attack.component.access == "features":
        encodings = record_artifacts.encodings(record, session)
        found["Encodings"] = {"z": encodings.z, "items": encodings.items}
    return found


def _load_tensors(record: Record, role: str, group: str, session: Session) -> Mapping[str, Any]:
    """Load a group of tensors of one of the record's artifacts."""
    return record_artifacts.artifact(record, role, session.store).tensors(group)
