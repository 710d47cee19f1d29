"""Export trained targets from the store to folders that can be shared."""

import datetime
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..core.config import Protocol
from ..core.seeds import derive
from ..errors import CorruptArtifactError, IncompatibleRecordError, InvalidConfigurationError, MissingDataError
from ..files import atomic
from ..files.atomic import write_folder
from ..files.documents import parse_json
from ..files.tensors import pack
from ..files.untrusted import read_bounded
from ..networks.classifiers.network import Network
from ..pipeline import record_artifacts
from ..pipeline.cell import Cell, Choice
from ..pipeline.trained_models import CHUNK, load_strictly, load_target, predict
from ..records.record import ArtifactReference, Record
from ..records.record import Choice as RecordedChoice
from ..registry import find, load
from ..store.manifest import Artifact
from ..store.store import Store
from . import manifest as exported
from .load import CPU, local_fields, noise, require_finite, untrained
from .manifest import MANIFEST, WEIGHTS, Answers, Architecture, Decisions, Exported, Training, Weights

log = logging.getLogger("privbench")
#: Images of noise whose logits the manifest contains.
_NOISE = 2
#: Significant digits of those logits.
_DIGITS = 7


def export(record: Record, folder: Path, store: Store, data: Path) -> Exported:
    """Write the target of a record to a folder, atomically; an earlier export there is replaced.

    If the private test images are available, the target must repeat its stored predictions; otherwise a warning says
    that this was not checked.

    Args:
        record: of any attack on the target.
        folder: to write.
        store: that contains the target.
        data: the data folder.

    Returns:
        The manifest.

    Raises:
        InvalidConfigurationError: something else is in the folder.
        MissingDataError: the target is no longer in the store.
        IncompatibleRecordError: a component or the protocol has another version here.
        CorruptArtifactError: the weights do not fit, or the target does not repeat its stored predictions.
        StorageError: the folder cannot be written.
    """
    require_replaceable(folder)
    cell = record_artifacts.cell_of(record)
    protocol: Protocol = cell.dataset.component.protocol
    if protocol.id != record.protocol:
        raise IncompatibleRecordError(
            f"{record_artifacts.name_of(record)} has protocol {record.protocol}, but {cell.dataset.name} is "
            f"{protocol.id} here; run its cell again"
        )
    artifact = record_artifacts.artifact(record, "target", store)
    _check_predictions(artifact, cell, data)
    state = artifact.tensors("network")
    require_finite(state, str(artifact.path))
    network = untrained(cell.defense.component, protocol.model_copy(update={"pretrained": False}))
    load_strictly(network, artifact, f"target of {cell.defense.name}")
    content = pack(state)
    manifest = _manifest(cell, artifact, network, content, len(state))
    write_folder(folder, {WEIGHTS: content, MANIFEST: manifest.text().encode()})
    return manifest


def _check_predictions(artifact: Artifact, cell: Cell, data: Path) -> None:
    try:
        test = cell.dataset.component.load("private_test", data)
    except MissingDataError as cause:
        log.warning("the target's predictions were not checked: %s", cause)
        return
    load_target(artifact, cell, test, CPU)


def _manifest(cell: Cell, artifact: Artifact, network: Network, content: bytes, tensors: int) -> Exported:
    protocol: Protocol = cell.dataset.component.protocol
    info = artifact.info
    dataset, left_out = _portable(cell.dataset)
    defense, left_out_too = _portable(cell.defense)
    from ... import __version__

    values = {
        "privbench": __version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "protocol": protocol.model_dump(mode="json"),
        "dataset": dataset.model_dump(),
        "defense": defense.model_dump(),
        "left_out": left_out + left_out_too,
        "network": _architecture(protocol, network).model_dump(),
        "seed": cell.seed,
        "budget": cell.budget,
        "test_accuracy": info["test_accuracy"],
        "n": info["n"],
        "decisions": _decisions(artifact, protocol).model_dump(),
        "answers": _answers(network, protocol, artifact.key).model_dump(),
        "training": Training(
            steps=_steps(info), seconds=info.get("seconds"), device=info.get("device", "")
        ).model_dump(),
        "source": ArtifactReference(key=artifact.key, digest=artifact.digest).model_dump(),
        "weights": Weights(
            bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), tensors=tensors
        ).model_dump(),
    }
    return Exported.model_validate(values)


def _portable(choice: Choice) -> tuple[RecordedChoice, tuple[str, ...]]:
    """Remove the fields that name files of this machine from a choice; returns it and the names of these fields."""
    identity = choice.identity()
    local = sorted(name for name in local_fields(type(choice.component)) if identity["fields"].get(name) is not None)
    fields = {name: value for name, value in identity["fields"].items() if name not in local}
    return RecordedChoice.model_validate(identity | {"fields": fields}), tuple(
        f"{choice.kind}.{name}" for name in local
    )


def _architecture(protocol: Protocol, network: Network) -> Architecture:
    name = protocol.target_network
    entry, kind = find("network", name), load("network", name)
    return Architecture(
        name=name,
        distribution=entry.distribution,
        release=entry.release,
        version=kind.version,
        family=kind.family,
        pretraining=kind.pretraining if protocol.pretrained else "",
        layers=network.layers,
    )


def _decisions(artifact: Artifact, protocol: Protocol) -> Decisions:
    logits: Tensor = artifact.tensors("predictions")["logits"][:CHUNK]
    seed = artifact.info["prediction_seed"]
    if protocol.task == "classes":
        return Decisions(seed=seed, said=tuple(logits.argmax(1).tolist()))
    return Decisions(
        seed=seed, said=tuple("".join("01"[value] for value in row) for row in (logits > 0).int().tolist())
    )


def _answers(network: Network, protocol: Protocol, key: str) -> Answers:
    seed = derive("answers", key)
    logits = predict(network, noise(seed, _NOISE, protocol), CPU, seed)
    return Answers(seed=seed, logits=tuple(tuple(float(f"{v:.{_DIGITS}g}") for v in row) for row in logits.tolist()))


def _steps(info: Mapping[str, Any]) -> dict[str, int]:
    """Last step of each loop, from its curves."""
    found = {}
    for loop, series in info.get("curves", {}).items():
        last = [int(points[-1][0]) for points in series.values() if points]
        if last:
            found[loop] = max(last)
    return found


def require_replaceable(folder: Path) -> None:
    """Refuse to replace anything but an earlier export.

    Raises:
        InvalidConfigurationError: something else is in the folder.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise InvalidConfigurationError(
            f"expected DIR to be a new folder, got {folder}, which is not a folder; choose another"
        )
    if not folder.exists():
        return
    names = {path.name for path in atomic.children(folder)}
    if names and (not names <= {MANIFEST, WEIGHTS} or not _is_export(folder)):
        raise InvalidConfigurationError(
            f"expected DIR to be a new folder or an earlier export, got {folder} with {', '.join(sorted(names)[:3])}; "
            "choose another"
        )


def _is_export(folder: Path) -> bool:
    """Tell whether a folder has the manifest of an export, of any schema, valid or not."""
    try:
        data = read_bounded(folder / MANIFEST, exported.MAX_MANIFEST)
        return parse_json(data, MANIFEST, exported.MAX_MANIFEST).get("format") == exported.FORMAT
    except (MissingDataError, CorruptArtifactError):
        return False


def choose(records: Mapping[Path, Record], cell: str) -> Record:
    """Choose the record that `cell` means; all given records must have the same target.

    Args:
        records: by path.
        cell: as the user wrote it, for messages.

    Raises:
        InvalidConfigurationError: they have several targets.
    """
    by_target: dict[str, Record] = {}
    for record in records.values():
        by_target.setdefault(record.artifacts["target"].key if "target" in record.artifacts else record.key, record)
    if len(by_target) != 1:
        few = "; ".join(record_artifacts.name_of(record) for record in list(by_target.values())[:3])
        raise InvalidConfigurationError(
            f"expected CELL to mean one target, got {len(by_target)} with {cell}: {few}; name a record or a longer key"
        )
    return next(iter(by_target.values()))
