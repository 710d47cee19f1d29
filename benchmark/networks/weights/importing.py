"""Taking in weights that a user brings: checked against the network, rewritten, put in place whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.paths import require_writable, weights_root
from ...errors import (
    BrokenComponentError,
    CorruptArtifactError,
    InvalidConfigurationError,
    MissingDataError,
    StorageError,
)
from ...files.safetensors_header import other_kind
from ...files.tensors import pack, unpack
from ...registry import Kind, load, names
from .named import Manifest, published

log = logging.getLogger("privbench")
#: Kinds of networks that have named weights.
KINDS: tuple[Kind, ...] = ("embedder", "perceptual")
_COUNTER = "num_batches_tracked"
_ADVICE = "see docs/weights.md"


def users() -> dict[str, list[tuple[Kind, str, type[Any]]]]:
    """Which registered networks use which weights: kind, name and class; one named like its weights comes first.

    A network that does not import is left out with a warning.
    """
    found: dict[str, list[tuple[Kind, str, type[Any]]]] = {}
    for kind in KINDS:
        for name in names(kind):
            try:
                network = load(kind, name)
            except BrokenComponentError as cause:
                log.warning("%s", cause)
                continue
            if network.weights is not None:
                found.setdefault(network.weights, []).append((kind, name, network))
    return {name: sorted(using, key=lambda use: use[1] != name) for name, using in sorted(found.items())}


def import_weights(name: str, file: Path, network: type[Any]) -> Manifest:
    """Import the weights of a network; earlier ones of the same name are replaced.

    Args:
        name: of the weights.
        file: safetensors, the names and shapes those of the network; any floating-point type.
        network: the embedder or perceptual network that they are for.

    Raises:
        InvalidConfigurationError: these weights are published, and not brought.
        MissingDataError: the file is missing, of another kind, truncated, or does not fit the network.
        StorageError: the weights folder cannot be written.
    """
    source = published(name)
    if source:
        raise InvalidConfigurationError(
            f"expected weights that you bring, got {name}, which are published; run `privbench weights fetch {name}`, "
            f"or put {source.url} at {source.place}"
        )
    state = _fitted(name, file, _tensors(file), network(pretrained=False).state_dict())
    data = pack(state)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    found = Manifest(name=name, sha256=hashlib.sha256(data).hexdigest(), imported=now, source=file.name)
    require_writable(weights_root())
    try:
        _write(found.path, data)
        _write(weights_root() / f"{name}.json", found.model_dump_json(indent=1).encode() + b"\n")
        _remove_earlier(found)
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise StorageError(
            f"cannot write {weights_root()}: {reason}; free some space or choose another folder with PRIVBENCH_WEIGHTS"
        ) from cause
    return found


def expected(network: type[Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's weights, in its order."""
    state: Mapping[str, Tensor] = network(pretrained=False).state_dict()
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith(_COUNTER)}


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        data = file.read_bytes()
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise MissingDataError(f"expected {file} to be a safetensors file, got none: {reason}; {_ADVICE}") from cause
    fault = other_kind(file, data[:512])
    if fault:
        raise MissingDataError(f"expected {file} to be a safetensors file, got {fault}; {_ADVICE}")
    try:
        return unpack(data)
    except CorruptArtifactError as cause:
        raise MissingDataError(
            f"expected {file} to be a whole safetensors file, got {len(data):,} bytes that are not one "
            f"({cause.__cause__}); copy or convert it again"
        ) from cause


def _fitted(name: str, file: Path, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as the network has them; the first that is odd is named.

    Counters of batch norm, which inference does not read, are left out.
    """

    def refuse(fault: str) -> MissingDataError:
        return MissingDataError(
            f"expected {file} to hold the weights {name}, got {fault}; `privbench weights show {name}` lists them"
        )

    state: dict[str, Tensor] = {}
    for key, like in wanted.items():
        if key.endswith(_COUNTER):
            continue
        if key not in given:
            raise refuse(f"no tensor {key!r} ({shown(like.shape)})")
        value = given[key]
        if value.shape != like.shape:
            raise refuse(f"{key!r} of {shown(value.shape)} instead of {shown(like.shape)}")
        if value.is_floating_point() != like.is_floating_point() or value.is_complex():
            raise refuse(f"{key!r} of {value.dtype} instead of {like.dtype}")
        state[key] = value.to(like.dtype)
        if not bool(torch.isfinite(state[key]).all()):
            raise refuse(f"values in {key!r} that are infinite or not a number")
    odd = next((key for key in given if key not in wanted and not key.endswith(_COUNTER)), None)
    if odd is not None:
        raise refuse(f"{odd!r}, which the network does not have")
    return state


def shown(shape: tuple[int, ...]) -> str:
    """A shape for people, such as `64 x 3 x 3 x 3`."""
    return " x ".join(str(size) for size in shape) or "one value"


def _write(path: Path, data: bytes) -> None:
    """Write a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.chmod(0o644)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _remove_earlier(kept: Manifest) -> None:
    """Remove the tensors that the manifest no longer names."""
    for path in weights_root().iterdir():
        if path != kept.path and re.fullmatch(re.escape(kept.name) + r"-[0-9a-f]{16}\.safetensors", path.name):
            path.unlink(missing_ok=True)
