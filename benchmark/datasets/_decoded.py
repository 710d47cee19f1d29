"""Cache of decoded images: one safetensors file per data set, recomputed if it is missing or damaged.

The file is written image by image and mapped into memory when it is read, so it may be larger than the memory.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..core.paths import cache_root
from ..errors import StorageError
from ..files.atomic import replaced_file, storage_errors

_log = logging.getLogger(__name__)

#: Starts the decoding of each part: its images, `uint8 C H W`, one by one.
Decode = Callable[[], Mapping[str, Iterable[np.ndarray]]]
Shapes = Mapping[str, tuple[int, ...]]


def cache_key(content: Any) -> str:
    """SHA-256 of `content` as JSON, 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def decoded_path(name: str, key: str) -> Path:
    """Path of the file of data set `name` with `key`, below `PRIVBENCH_CACHE` or the user's cache folder."""
    named = os.environ.get("PRIVBENCH_CACHE")
    root = Path(named).expanduser() if named else cache_root()
    return root / "datasets" / f"{name}-{key[:16]}.safetensors"


def decoded(path: Path, key: str, part: str, shapes: Shapes, decode: Decode) -> Tensor:
    """Read one part, `uint8 N C H W`, from the file at `path`; the file is recomputed if it is missing or damaged.

    Args:
        path: of the file.
        key: identifies the content; a file with another key is recomputed.
        part: name of the part to read.
        shapes: `N, C, H, W` of all parts.
        decode: starts the decoding.

    Raises:
        StorageError: the file cannot be written.
    """
    found = _read(path, key, part, shapes[part]) if path.is_file() else None
    if found is None:
        _write(path, key, shapes, decode)
        found = _read(path, key, part, shapes[part])
    if found is None:
        raise StorageError(f"expected {path} to contain what was just written, got other bytes; check the disk")
    return found


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


def _write(path: Path, key: str, shapes: Shapes, decode: Decode) -> None:
    with (
        storage_errors(path.parent, otherwise="set PRIVBENCH_CACHE to a folder with space"),
        replaced_file(path) as temporary,
    ):
        _fill(temporary, key, shapes, decode)


def _fill(path: Path, key: str, shapes: Shapes, decode: Decode) -> None:
    """Write the header, then every image, then the header again with the checksums, which are known only then."""
    facts = {"key": key, **dict.fromkeys(shapes, hashlib.sha256().hexdigest())}
    path.touch(mode=0o600)  # the images may be private: only the user may read them
    with path.open("wb") as file:
        file.write(_header(facts, shapes))
        images = decode()
        for part, shape in shapes.items():
            state, count = hashlib.sha256(), 0
            for pixels in images[part]:
                assert pixels.dtype == np.uint8 and pixels.shape == shape[1:]
                content = pixels.tobytes()
                state.update(content)
                file.write(content)
                count += 1
            assert count == shape[0]
            facts[part] = state.hexdigest()
        file.seek(0)
        file.write(_header(facts, shapes))


def _header(facts: Mapping[str, str], shapes: Shapes) -> bytes:
    """Header of a safetensors file: the length of the JSON text, and the text padded to a multiple of 8 bytes."""
    table: dict[str, object] = {"__metadata__": dict(facts)}
    begin = 0
    for part, shape in shapes.items():
        end = begin + math.prod(shape)
        table[part] = {"dtype": "U8", "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(table).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _checksum(pixels: Tensor) -> str:
    return hashlib.sha256(pixels.contiguous().numpy().data).hexdigest()
