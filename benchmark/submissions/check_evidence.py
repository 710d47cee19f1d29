"""The evidence in a submission: read in bounds, complete, and about the verifier's own data."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
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
from ..pipeline.picture import HEADER
from ..pipeline.record_artifacts import name_of
from ..pipeline.scoring import picture_of
from ..pipeline.victim_encodings import items_of
from ..records.record import Record
from ..records.submission import Submission, SubmittedRecord, picture_path

#: By kind and tensor, its type and number of dimensions (`None` for any).
_TENSORS: dict[str, dict[str, tuple[torch.dtype, int | None]]] = {
    "ClassReconstructions": {"pixels": (torch.uint8, 6), "labels": (torch.int64, 1)},
    "PairedReconstructions": {"pixels": (torch.uint8, 4), "items": (torch.int64, 1)},
    "FeatureEstimates": {"features": (torch.float32, 2), "items": (torch.int64, 1)},
    "Encodings": {"z": (torch.float32, None), "items": (torch.int64, 1)},
    "Negatives": {"pixels": (torch.uint8, 4), "labels": (torch.int64, 1), "fooled": (torch.bool, 1)},
    "Predictions": {"logits": (torch.float32, 2), "labels": (torch.int64, 1)},
}
#: What attacks return; each record has one of them.
YIELDED = ("ClassReconstructions", "PairedReconstructions", "FeatureEstimates")
_AGAIN = "make the submission again with `privbench submit`"


@dataclass(frozen=True)
class About:
    """What evidence is compared with.

    Args:
        record: whose evidence it is.
        protocol: of the record's data set, as it is here.
        negatives: calibrated negatives per label at most.
        private: loads a part of the verifier's own copy of the data.
    """

    record: Record
    protocol: Protocol
    negatives: int
    private: Callable[[Part], Images]


def read_evidence(submission: Submission, entry: SubmittedRecord, about: About) -> dict[str, Any]:
    """The evidence of one record by kind, complete and about the verifier's own data.

    Raises:
        CorruptArtifactError: a file is no evidence of its kind, something is left out, or labels are others.
        MissingDataError: the data set is not here.
    """
    yielded = [kind for kind in YIELDED if kind in entry.evidence]
    if len(yielded) > 1 or "Predictions" not in entry.evidence:
        raise CorruptArtifactError(
            f"expected {name_of(about.record)} to have predictions and what one attack gives, got "
            f"{', '.join(sorted(entry.evidence)) or 'nothing'}; {_AGAIN}"
        )
    found: dict[str, Any] = {}
    for kind, path in entry.evidence.items():
        tensors = _tensors(submission, path, kind, about.protocol)
        _CHECKS[kind](tensors, about)
        found[kind] = getattr(evidence_kinds, kind)(**tensors)
    return found


def _tensors(submission: Submission, path: str, kind: str, protocol: Protocol) -> dict[str, Tensor]:
    """The tensors of a file, none of which is made before its header was checked."""
    data, source = submission.file(path), str(submission.folder / path)
    _require_safetensors(data, source)
    wanted = dict(_TENSORS[kind])
    if kind == "Predictions" and protocol.task == "attributes":
        wanted["labels"] = (torch.bool, 2)
    given = layouts(data, source)
    for name in sorted(given.keys() ^ wanted.keys()):
        raise CorruptArtifactError(
            f"expected {source} to hold {', '.join(sorted(wanted))} of {kind}, got "
            f"{'no ' if name in wanted else ''}{shown(repr(name))}; {_AGAIN}"
        )
    for name, (dtype, dims) in wanted.items():
        layout = given[name]
        if layout.dtype != str(dtype).removeprefix("torch.") or dims not in (None, len(layout.shape)):
            raise CorruptArtifactError(
                f"expected {name} of {source} to be {str(dtype).removeprefix('torch.')} of {dims or 'any number of'} "
                f"dimensions, got {shown(layout)}; {_AGAIN}"
            )
    declared = sum(given[name].elements * wanted[name][0].itemsize for name in wanted)
    if declared > len(data):
        raise CorruptArtifactError(
            f"expected {source} to hold the tensors that its header declares, got {declared:,} bytes of them in a file "
            f"of {len(data):,}; {_AGAIN}"
        )
    return unpack(data)


def _require_safetensors(data: bytes, source: str) -> None:
    if begins_like(data[:16], len(data)):
        return
    kinds = {b"\x80": "a pickle, which can run code when read", b"PK": "an archive, which can hold a pickle"}
    kind = next((kind for start, kind in kinds.items() if data.startswith(start)), "another kind of file")
    raise CorruptArtifactError(f"expected {source} to be a safetensors file, got {kind}; remove it")


def _classes(found: dict[str, Tensor], about: About) -> None:
    protocol, shape = about.protocol, tuple(found["pixels"].shape)
    due = (protocol.trials, protocol.draws, protocol.attacked, *protocol.image)
    names = ("trials", "draws", "attacked labels", "channels", "rows", "columns")
    for name, given, wanted in zip(names, shape, due, strict=True):
        _require_count(given, wanted, f"{name} of reconstructions", about)
    labels = list(range(protocol.attacked))
    if found["labels"].tolist() != labels:
        raise CorruptArtifactError(
            f"expected {name_of(about.record)} to have reconstructions of the labels 0 to "
            f"{protocol.attacked - 1} in order, got {shown(found['labels'].tolist())}; run its cell again"
        )


def _paired(found: dict[str, Tensor], about: About) -> None:
    _items(found, about, "pixels")
    _image(found["pixels"], about, "reconstructions")


def _features(found: dict[str, Tensor], about: About) -> None:
    _items(found, about, "features")


def _encodings(found: dict[str, Tensor], about: About) -> None:
    _items(found, about, "z")


def _items(found: dict[str, Tensor], about: About, values: str) -> None:
    """Refuse evidence that is not about each observed private test image."""
    due = items_of(about.protocol, len(about.private("private_test")))
    _require_count(len(found["items"]), len(due), "observed private test images", about)
    if not torch.equal(found["items"], due):
        raise CorruptArtifactError(
            f"expected {name_of(about.record)} to be about the {len(due)} evenly spaced private test images "
            "that its protocol names, got others; run its cell again"
        )
    shape = tuple(found[values].shape)
    _require_count(shape[0] if shape else 0, len(due), f"{values} of observed private test images", about)


def _predictions(found: dict[str, Tensor], about: About) -> None:
    truth = about.private("private_test").truth(about.protocol.task)
    logits, labels = found["logits"], found["labels"]
    _require_count(len(logits), len(truth), "predictions of private test images", about)
    _require_count(logits.shape[1], about.protocol.classes, "logits of each private test image", about)
    if labels.shape != truth.shape or not torch.equal(labels, truth):
        raise CorruptArtifactError(
            f"expected the labels in {name_of(about.record)} to be those of {about.protocol.id} here, got "
            "others; run its cell again on the published data"
        )


def _negatives(found: dict[str, Tensor], about: About) -> None:
    _image(found["pixels"], about, "negatives")
    labels, count = found["labels"], len(found["pixels"])
    _require_count(len(labels), count, "labels of negatives", about)
    _require_count(len(found["fooled"]), count, "answers to negatives", about)
    most = min(about.negatives, len(about.private("public")) // max(1, about.protocol.attacked))
    if count and (int(labels.min()) < 0 or int(labels.max()) >= about.protocol.attacked):
        raise CorruptArtifactError(
            f"expected the negatives of {name_of(about.record)} to be pushed towards the labels 0 to "
            f"{about.protocol.attacked - 1}, got others; run its cell again"
        )
    largest = int(torch.bincount(labels).max()) if count else 0
    if largest > most:
        raise CorruptArtifactError(
            f"expected {name_of(about.record)} to have at most {most} negatives of a label, got {largest}; run "
            "its cell again"
        )


def _image(pixels: Tensor, about: About, what: str) -> None:
    if tuple(pixels.shape[1:]) != about.protocol.image:
        raise CorruptArtifactError(
            f"expected the {what} of {name_of(about.record)} to be images of "
            f"{' x '.join(map(str, about.protocol.image))}, got {' x '.join(map(str, pixels.shape[1:]))}; run its cell "
            "again"
        )


def _require_count(given: int, wanted: int, what: str, about: About) -> None:
    if given != wanted:
        raise CorruptArtifactError(
            f"expected {name_of(about.record)} to have {wanted} {what} as its protocol asks for, got {given}; "
            "run its cell again and submit all of it"
        )


_CHECKS: dict[str, Callable[[dict[str, Tensor], About], None]] = {
    "ClassReconstructions": _classes,
    "PairedReconstructions": _paired,
    "FeatureEstimates": _features,
    "Encodings": _encodings,
    "Negatives": _negatives,
    "Predictions": _predictions,
}


def require_picture(submission: Submission, entry: SubmittedRecord, record: Record, evidence: dict[str, Any]) -> None:
    """Refuse a picture that does not show the record's reconstructions; a record without one is none the worse.

    The line of labels above the pictures is not compared, since fonts differ.

    Raises:
        CorruptArtifactError: it shows something else, or is too large to be looked at.
    """
    path = picture_path(entry)
    if path not in submission.index.files:
        return
    data, source = submission.file(path), submission.folder / path
    require_png(data, str(source))
    due = picture_of(evidence)
    if due is None:
        raise CorruptArtifactError(
            f"expected {name_of(record)} to have no picture, since its attack reconstructs none, got one; {_AGAIN}"
        )
    shown_, wanted = _pixels(data, str(source)), _pixels(due, "the picture of the reconstructions")
    header = HEADER if "ClassReconstructions" in evidence else 0
    if shown_.shape != wanted.shape or not np.array_equal(shown_[header:], wanted[header:]):
        raise CorruptArtifactError(
            f"expected {source} to show the reconstructions that the submission holds, got another picture; {_AGAIN}"
        )


def _pixels(data: bytes, source: str) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as cause:
        raise CorruptArtifactError(f"expected {source} to be a whole PNG: {shown(cause)}; {_AGAIN}") from None
