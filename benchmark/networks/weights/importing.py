"""Import of weights from a user's file: checked against the network, converted, and written atomically."""

import hashlib
import logging
import os
import re
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
)
from ...files import atomic
from ...files.safetensors_header import other_kind
from ...files.tensors import pack, unpack
from ...files.untrusted import open_regular
from ...registry import Kind, load, names
from .named import Manifest, published
from .published import unwrapped

log = logging.getLogger("privbench")
#: Kinds of components that read named weights.
KINDS: tuple[Kind, ...] = ("embedder", "perceptual", "network", "evaluator")
#: Kinds among them whose weights can be imported: they are built without arguments.
IMPORTABLE: tuple[Kind, ...] = ("embedder", "perceptual")
#: Larger files are refused; the largest published weights of a classifier take 600 MB.
MAX_BYTES = 4 << 30
_COUNTER = "num_batches_tracked"
_ADVICE = "see docs/weights.md"


def users() -> dict[str, list[tuple[Kind, str, type[Any]]]]:
    """List the registered components that use each weights: kind, name and class; one named like its weights is first.

    A component that does not import is skipped with a warning.
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
    """Import the weights of a network; earlier weights of the same name are replaced.

    Args:
        name: of the weights.
        file: safetensors with the names and shapes of the network, and any floating-point type.
        network: the embedder or perceptual network that uses them.

    Raises:
        InvalidConfigurationError: these weights are published and need no import.
        MissingDataError: the file is missing, of another kind, truncated, or does not fit the network.
        StorageError: the weights folder cannot be written.
    """
    source = published(name)
    if source:
        raise InvalidConfigurationError(
            f"expected weights that must be imported, got {name}, which are published; run `privbench weights fetch "
            f"{name}`, or put {source.url} at {source.path}"
        )
    state = _converted(name, file, _tensors(file), network(pretrained=False).state_dict())
    data = pack(state)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    found = Manifest(name=name, sha256=hashlib.sha256(data).hexdigest(), imported=now, source=file.name)
    require_writable(weights_root())
    with atomic.storage_errors(weights_root(), otherwise="choose another folder with PRIVBENCH_WEIGHTS"):
        atomic.write_file(found.path, data)
        atomic.write_file(weights_root() / f"{name}.json", found.text().encode())
        _remove_earlier(found)
    return found


def expected(network: type[Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights of a network, in its order."""
    state: Mapping[str, Tensor] = network(pretrained=False).state_dict()
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith(_COUNTER)}


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        with open_regular(file, follow_links=True) as opened:
            size = os.fstat(opened.fileno()).st_size
            data = opened.read() if size <= MAX_BYTES else b""
    except OSError as cause:
        reason = (cause.strerror or str(cause)).lower()
        raise MissingDataError(f"expected {file} to be a safetensors file, got none: {reason}; {_ADVICE}") from cause
    if size > MAX_BYTES:
        raise MissingDataError(f"expected {file} to have at most {MAX_BYTES:,} bytes, got {size:,}; {_ADVICE}")
    fault = other_kind(file, data[:512])
    if fault:
        raise MissingDataError(f"expected {file} to be a safetensors file, got {fault}; {_ADVICE}")
    try:
        found = unpack(data)
    except CorruptArtifactError as cause:
        raise MissingDataError(
            f"expected {file} to be a complete safetensors file, got {len(data):,} bytes that are not "
            f"({cause.__cause__}); copy or convert it again"
        ) from cause
    bare = unwrapped(found)
    if bare.keys() != found.keys():
        log.warning("%s has names with the prefix of torch.nn.DataParallel or torch.compile, which is left out", file)
    return bare


def _converted(name: str, file: Path, given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the tensors to the types of the network; the first that does not fit is an error.

    Counters of batch norm, which inference does not use, are left out.
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
    extra = next((key for key in given if key not in wanted and not key.endswith(_COUNTER)), None)
    if extra is not None:
        raise refuse(f"{extra!r}, which the network does not have")
    return state


def shown(shape: tuple[int, ...]) -> str:
    """Format a shape, such as `64 x 3 x 3 x 3`."""
    return " x ".join(str(size) for size in shape) or "one value"


def _remove_earlier(kept: Manifest) -> None:
    """Remove earlier files of tensors, which the manifest no longer names."""
    for path in weights_root().iterdir():
        if path != kept.path and re.fullmatch(re.escape(kept.name) + r"-[0-9a-f]{16}\.safetensors", path.name):
            path.unlink(missing_ok=True)
