"""Decoded images kept between runs: one checked safetensors file a data set, made again when anything is wrong."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import StorageError
from ..folders import cache_root

_log = logging.getLogger(__name__)


def decoded_path(name: str, key: str) -> Path:
    """The file of data set `name` under `key`, below `PRIVBENCH_CACHE` or this user's cache folder."""
    named = os.environ.get("PRIVBENCH_CACHE")
    root = Path(named).expanduser() if named else cache_root()
    return root / "datasets" / f"{name}-{key[:16]}.safetensors"


def decoded(
    path: Path, key: str, part: str, shape: tuple[int, ...], decode: Callable[[], Mapping[str, Tensor]]
) -> Tensor:
    """One part from the file at `path`, or from `decode`, which then makes the file.

    Args:
        path: of the file.
        key: identifies the content; a file of another key is made again.
        part: wanted.
        shape: that the part must have.
        decode: decodes all parts, `uint8`.

    Raises:
        StorageError: the file cannot be written.
    """
    found = _read(path, key, part, shape) if path.exists() else None
    if found is not None:
        return found
    parts = decode()
    _write(path, key, parts)
    return parts[part]


def _read(path: Path, key: str, part: str, shape: tuple[int, ...]) -> Tensor | None:
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            pixels: Tensor = file.get_tensor(part)
    except (OSError, SafetensorError) as error:
        _log.warning("%s cannot be read (%s); decoding the images again", path, error)
        return None
    if facts.get("key") != key or tuple(pixels.shape) != shape or facts.get(part) != _checksum(pixels):
        _log.warning("%s does not match its checksum; decoding the images again", path)
        return None
    return pixels


def _write(path: Path, key: str, parts: Mapping[str, Tensor]) -> None:
    facts = {"key": key, **{part: _checksum(pixels) for part, pixels in parts.items()}}
    temporary = path.with_name(f"{path.stem}-{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(parts), temporary, metadata=facts)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"decoded images cannot be written to {path.parent} ({error}): set PRIVBENCH_CACHE to a folder with space"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _checksum(pixels: Tensor) -> str:
    return hashlib.sha256(pixels.contiguous().numpy().data).hexdigest()
