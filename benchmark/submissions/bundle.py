"""Making a submission of records whose artifacts are in the store."""

from __future__ import annotations

import datetime
import hashlib
import logging
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..contracts import Evaluator
from ..errors import IncompatibleRecordError, InvalidConfigurationError
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


def submit(records: Records, folder: Path, session: Session, *, contact: str, paper: str) -> Index:
    """Write a submission, whole or not at all.

    Kinds of evidence that are the same for several records are stored once. Private originals and weights stay here.

    Args:
        records: what is submitted, with their files.
        folder: to be made.
        session: its store holds the records' artifacts; its data set gives the latents of attacks on features.
        contact: whom to ask.
        paper: title or address of the publication.

    Returns:
        What `submission.json` says.

    Raises:
        InvalidConfigurationError: the folder exists, a text is empty or long, or a defense lacks a seed of others.
        MissingDataError: an artifact is not in the store any more; names the record's command.
        IncompatibleRecordError: a record's component or artifact is not the one that is here.
        StorageError: the folder cannot be written.
    """
    if folder.is_symlink() or folder.exists():
        raise InvalidConfigurationError(f"expected --output to be a new folder, got {folder}; choose another --name")
    contact, paper = _text("--contact", contact), _text("--paper", paper)
    seeds = _seeds(records)
    contents: dict[str, bytes] = {}
    entries = []
    for record in sorted(records, key=lambda record: location(record, Path()).as_posix()):
        entries.append(_add(record, records.picture(record), session, contents))
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


def _text(option: str, value: str) -> str:
    found = " ".join(value.split())
    if not 0 < len(found) <= 300 or not found.isprintable():
        raise InvalidConfigurationError(f"expected {option} to be a line of 1 to 300 characters, got {value!r}")
    return found


def _seeds(records: Records) -> tuple[int, ...]:
    """The seeds of all records, which every group of them must have."""
    seeds = sorted({record.cell.seed for record in records})
    for group in by_group(records).values():
        missing = sorted(set(seeds) - {record.cell.seed for record in group})
        if missing:
            cell = group[0].cell
            raise InvalidConfigurationError(
                f"expected {cell.defense.name} under {cell.attack.name} on {group[0].protocol} to have the seeds "
                f"{', '.join(map(str, seeds))} as the other records have, got none for {missing[0]}; run it with "
                f"--seed {missing[0]}, or submit it by itself"
            )
    return tuple(seeds)


def _add(record: Record, picture: bytes | None, session: Session, contents: dict[str, bytes]) -> SubmittedRecord:
    """Put the files of one record among the contents."""
    path = location(record, Path()).as_posix()
    contents[path] = record.text().encode()
    if picture is not None:
        contents[Path(path).with_suffix(".png").as_posix()] = picture
    elif record.picture is not None:
        log.warning("the picture of %s is not beside it and is left out", name_of(record))
    evidence: dict[str, str] = {}
    for kind, tensors in _evidence(record, session).items():
        data = pack(tensors)
        if len(data) > MAX_FILE:
            log.warning(
                "%s of %s takes %s bytes and is left out; scores made from it stay self-reported",
                *(kind, name_of(record), f"{len(data):,}"),
            )
            continue
        evidence[kind] = f"evidence/{kind}-{hashlib.sha256(data).hexdigest()[:_SHORT]}{TENSORS}"
        contents[evidence[kind]] = data
    scores = record_artifacts.artifact(record, "scores", session.store)
    return SubmittedRecord.model_validate(
        {"record": path, "evidence": evidence, "probe": scores.info.get("probe") or {}}
    )


def _evidence(record: Record, session: Session) -> Mapping[str, Mapping[str, Tensor]]:
    """What the record's evaluators read, tensors by kind."""
    cell = record_artifacts.cell_of(record)
    needs = {kind for choice in record.cell.evaluators for need in _needs(choice.name) for kind in need.split("|")}
    yields = cell.attack.component.yields
    found = {yields: _stored(record, "evidence", yields, session)}
    found["Predictions"] = _stored(record, "target", "predictions", session)
    if "Negatives" in needs:
        found["Negatives"] = _stored(record, "negatives", "Negatives", session)
    if "Encodings" in needs and cell.attack.component.access == "features":
        encodings = record_artifacts.encodings(record, session)
        found["Encodings"] = {"z": encodings.z, "items": encodings.items}
    return found


def _needs(evaluator: str) -> Sequence[str]:
    kind: type[Evaluator] = load("evaluator", evaluator)
    return kind.needs


def _stored(record: Record, role: str, group: str, session: Session) -> Mapping[str, Any]:
    """A group of tensors of the artifact that the record names."""
    artifact = record_artifacts.artifact(record, role, session.store)
    if artifact.digest != record.artifacts[role].digest:
        raise IncompatibleRecordError(
            f"the {role} of {name_of(record)} in the store is another one than the record was made of; make the "
            f"record again with `{shlex.join(record.command)}`"
        )
    return artifact.tensors(group)
