"""Check of the evidence in a submission: bounded, complete, and about the verifier's copy of the data."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core import evidence as evidence_kinds
from ..core.config import Part, Protocol
from ..core.evidence import Images
from ..errors import CorruptArtifactError
from ..files.png import require_png
from ..files.safetensors_header import begins_like, layouts
from ..files.tensors import unpack
from ..files.untrusted import shown
from ..pipeline.record_artifacts import name_of
from ..pipeline.victim_encodings import items_of
from ..records.picture import HEADER, picture_of
from ..records.record import Record
from ..records.submission import Submission, SubmittedRecord, picture_path
from ..store.manifest import TENSORS, digest_of
from .rejection import reject

#: Type and number of dimensions (`None` for any) of each tensor, by kind of evidence.
_TENSORS: dict[str, dict[str, tuple[torch.dtype, int | None]]] = {
    "ClassReconstructions": {"pixels": (torch.uint8, 6), "labels": (torch.int64, 1)},
    "PairedReconstructions": {"pixels": (torch.uint8, 4), "items": (torch.int64, 1)},
    "FeatureEstimates": {"features": (torch.float32, 2), "items": (torch.int64, 1)},
    "Encodings": {"z": (torch.float32, None), "items": (torch.int64, 1)},
    "Negatives": {"pixels": (torch.uint8, 4), "labels": (torch.int64, 1), "fooled": (torch.bool, 1)},
    "Predictions": {"logits": (torch.float32, 2), "labels": (torch.int64, 1)},
}
#: Kinds of evidence that attacks return; each record has one of them.
_ATTACK_OUTPUTS = ("ClassReconstructions", "PairedReconstructions", "FeatureEstimates")
_RESUBMIT = "create the submission again with `privbench submit`"


@dataclass(frozen=True)
class Reference:
    """Data that evidence is checked against.

    Args:
        record: record of the evidence.
        protocol: installed protocol of the record's data set.
        negatives: largest number of calibrated negatives per label.
        load: loads a part of the verifier's copy of the data.
    """

    record: Record
    protocol: Protocol
    negatives: int
    load: Callable[[Part], Images]


def read_evidence(submission: Submission, entry: SubmittedRecord, reference: Reference) -> dict[str, Any]:
    """Read the evidence of one record, by kind, and check it.

    Raises:
        CorruptArtifactError: a file is not evidence of its kind, evidence is incomplete, or labels differ.
        MissingDataError: the data set is not on this machine.
    """
    outputs = [kind for kind in _ATTACK_OUTPUTS if kind in entry.evidence]
    if len(outputs) > 1 or "Predictions" not in entry.evidence:
        raise CorruptArtifactError(
            f"expected {name_of(reference.record)} to have predictions and the output of one attack, got "
            f"{', '.join(sorted(entry.evidence)) or 'nothing'}; {_RESUBMIT}"
        )
    found: dict[str, Any] = {}
    for kind, path in entry.evidence.items():
        tensors = _read_tensors(submission, path, kind, reference.protocol)
        _CHECKS[kind](tensors, reference)
        found[kind] = getattr(evidence_kinds, kind)(**tensors)
    return found


def _read_tensors(submission: Submission, path: str, kind: str, protocol: Protocol) -> dict[str, Tensor]:
    """Read the tensors of a file after a check of its header."""
    data, source = submission.file(path), str(submission.folder / path)
    _require_safetensors(data, source)
    wanted = dict(_TENSORS[kind])
    if kind == "Predictions" and protocol.task == "attributes":
        wanted["labels"] = (torch.bool, 2)
    given = layouts(data, source)
    for name in sorted(given.keys() ^ wanted.keys()):
        raise CorruptArtifactError(
            f"expected {source} to contain {', '.join(sorted(wanted))} of {kind}, got "
            f"{'no ' if name in wanted else ''}{shown(repr(name))}; {_RESUBMIT}"
        )
    for name, (dtype, dims) in wanted.items():
        layout = given[name]
        if layout.dtype != str(dtype).removeprefix("torch.") or dims not in (None, len(layout.shape)):
            raise CorruptArtifactError(
                f"expected {name} of {source} to be {str(dtype).removeprefix('torch.')} with {dims or 'any number of'} "
                f"dimensions, got {shown(layout)}; {_RESUBMIT}"
            )
    declared = sum(given[name].elements * wanted[name][0].itemsize for name in wanted)
    if declared > len(data):
        raise CorruptArtifactError(
            f"expected {source} to contain the {declared:,} bytes of tensors that its header declares, got a file of "
            f"{len(data):,} bytes; {_RESUBMIT}"
        )
    return unpack(data)


def _require_safetensors(data: bytes, source: str) -> None:
    if begins_like(data[:16], len(data)):
        return
    kinds = {b"\x80": "a pickle, which can run code when read", b"PK": "an archive, which can hold a pickle"}
    kind = next((kind for start, kind in kinds.items() if data.startswith(start)), "another kind of file")
    raise CorruptArtifactError(f"expected {source} to be a safetensors file, got {kind}; remove it")


def _check_class_reconstructions(found: dict[str, Tensor], reference: Reference) -> None:
    protocol, shape = reference.protocol, tuple(found["pixels"].shape)
    expected = (protocol.trials, protocol.draws, protocol.attacked, *protocol.image)
    names = ("trials", "draws", "attacked labels", "channels", "rows", "columns")
    for name, given, wanted in zip(names, shape, expected, strict=True):
        _require_count(given, wanted, f"{name} of reconstructions", reference)
    labels = list(range(protocol.attacked))
    if found["labels"].tolist() != labels:
        requirement = f"have reconstructions of the labels 0 to {protocol.attacked - 1} in order"
        reject(reference.record, requirement, shown(found["labels"].tolist()))


def _check_paired_reconstructions(found: dict[str, Tensor], reference: Reference) -> None:
    _check_items(found, reference, "pixels")
    _check_image_shape(found["pixels"], reference, "reconstructions")


def _check_items(found: dict[str, Tensor], reference: Reference, values: str) -> None:
    """Reject evidence that does not cover the observed private test images."""
    expected = items_of(reference.protocol, len(reference.load("private_test")))
    _require_count(len(found["items"]), len(expected), "observed private test images", reference)
    if not torch.equal(found["items"], expected):
        requirement = f"cover the {len(expected)} evenly spaced private test images of its protocol"
        reject(reference.record, requirement, "others")
    shape = tuple(found[values].shape)
    _require_count(shape[0] if shape else 0, len(expected), f"{values} of observed private test images", reference)


def _check_predictions(found: dict[str, Tensor], reference: Reference) -> None:
    truth = reference.load("private_test").truth(reference.protocol.task)
    logits, labels = found["logits"], found["labels"]
    _require_count(len(logits), len(truth), "predictions of private test images", reference)
    _require_count(logits.shape[1], reference.protocol.classes, "logits of each private test image", reference)
    if labels.shape != truth.shape or not torch.equal(labels, truth):
        reject(reference.record, f"be those of {reference.protocol.id} on this machine", "others", "the labels")


def _check_negatives(found: dict[str, Tensor], reference: Reference) -> None:
    _check_image_shape(found["pixels"], reference, "negatives")
    labels, count = found["labels"], len(found["pixels"])
    _require_count(len(labels), count, "labels of negatives", reference)
    _require_count(len(found["fooled"]), count, "verdicts on negatives", reference)
    most = min(reference.negatives, len(reference.load("public")) // max(1, reference.protocol.attacked))
    if count and (int(labels.min()) < 0 or int(labels.max()) >= reference.protocol.attacked):
        requirement = f"have the labels 0 to {reference.protocol.attacked - 1}"
        reject(reference.record, requirement, "others", "the negatives")
    largest = int(torch.bincount(labels).max()) if count else 0
    if largest > most:
        reject(reference.record, f"have at most {most} negatives per label", largest)


def _check_image_shape(pixels: Tensor, reference: Reference, what: str) -> None:
    if tuple(pixels.shape[1:]) != reference.protocol.image:
        requirement = f"be images of {' x '.join(map(str, reference.protocol.image))}"
        reject(reference.record, requirement, " x ".join(map(str, pixels.shape[1:])), f"the {what}")


def _require_count(given: int, wanted: int, what: str, reference: Reference) -> None:
    if given != wanted:
        reject(reference.record, f"have the {wanted} {what} of its protocol", given)


_CHECKS: dict[str, Callable[[dict[str, Tensor], Reference], None]] = {
    "ClassReconstructions": _check_class_reconstructions,
    "PairedReconstructions": _check_paired_reconstructions,
    "FeatureEstimates": partial(_check_items, values="features"),
    "Encodings": partial(_check_items, values="z"),
    "Negatives": _check_negatives,
    "Predictions": _check_predictions,
}


def check_digests(submission: Submission, entry: SubmittedRecord, record: Record) -> None:
    """Reject evidence whose digest is not the one that the record states for the stage that computed it.

    The digest of a target covers its weights, too, which a submission does not contain.

    Raises:
        CorruptArtifactError: a digest differs.
    """
    for kind, path in entry.evidence.items():
        role = "evidence" if kind in _ATTACK_OUTPUTS else "negatives"
        if (kind in _ATTACK_OUTPUTS or kind == "Negatives") and role in record.artifacts:
            found = digest_of({f"{kind}{TENSORS}": submission.index.files[path].sha256})
            if found != record.artifacts[role].digest:
                requirement = f"have {kind} with the digest {record.artifacts[role].digest[:12]} that it states"
                reject(record, requirement, found[:12])


def check_picture(submission: Submission, entry: SubmittedRecord, record: Record, evidence: dict[str, Any]) -> None:
    """Reject a picture that does not show the record's reconstructions; a record needs no picture.

    The line of labels above the reconstructions is not compared, since fonts differ.

    Raises:
        CorruptArtifactError: the picture shows something else, is too large or is damaged.
    """
    path = picture_path(entry)
    if path not in submission.index.files:
        return
    data, source = submission.file(path), submission.folder / path
    require_png(data, str(source))
    expected = picture_of(evidence)
    if expected is None:
        raise CorruptArtifactError(
            f"expected {name_of(record)} to have no picture, since its attack reconstructs no images, got one; "
            f"{_RESUBMIT}"
        )
    given, wanted = _decode_png(data, str(source)), _decode_png(expected, "the picture of the reconstructions")
    header = HEADER if "ClassReconstructions" in evidence else 0
    if given.shape != wanted.shape or not np.array_equal(given[header:], wanted[header:]):
        raise CorruptArtifactError(
            f"expected {source} to show the reconstructions in the submission, got another picture; {_RESUBMIT}"
        )


def _decode_png(data: bytes, source: str) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as cause:
        raise CorruptArtifactError(f"expected {source} to be an intact PNG: {shown(cause)}; {_RESUBMIT}") from None
