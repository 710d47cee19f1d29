"""The header of a safetensors file, read up to a limit before any tensor is decoded."""

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CorruptArtifactError
from .documents import parse_json
from .stand_ins import stand_in
from .untrusted import shown

#: Larger headers are refused; the header of a network of a thousand tensors takes a hundred kilobytes.
MAX_HEADER = 8 << 20
_SIZE = 8
#: Names of types in torch, by their names in a header.
DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
}


@dataclass(frozen=True)
class Layout:
    """Type and shape of a tensor.

    Args:
        dtype: its name in torch, such as `float32`.
        shape: sizes of its dimensions.
    """

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        sizes = " x ".join(str(size) for size in self.shape) or "one value"
        return f"{self.dtype}, {sizes}"

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def begins_like(head: bytes, size: int) -> bool:
    """Tell whether a file of `size` bytes that begins with `head` can be safetensors.

    The first eight bytes are a length, which by chance can equal the signature of another kind of file.
    """
    length = int.from_bytes(head[:_SIZE], "little")
    return head[_SIZE : _SIZE + 1] == b"{" and 2 <= length <= size - _SIZE


def layouts(data: bytes, source: str) -> dict[str, Layout]:
    """Read names, types and shapes of the tensors from the header of a safetensors file.

    Raises:
        CorruptArtifactError: the header is too large, exceeds the file, or is not a safetensors header.
    """
    length = int.from_bytes(data[:_SIZE], "little")
    if len(data) < _SIZE or length > len(data) - _SIZE:
        raise CorruptArtifactError(
            f"expected {source} to be a safetensors file, got a header of {length:,} bytes in a file of {len(data):,}; "
            "get the file again"
        )
    if length > MAX_HEADER:
        raise CorruptArtifactError(
            f"expected {source} to have a header of at most {MAX_HEADER:,} bytes, got {length:,}; get the file again"
        )
    header = parse_json(data[_SIZE : _SIZE + length], f"the header of {source}", MAX_HEADER)
    return {name: _layout(value, name, source) for name, value in header.items() if name != "__metadata__"}


def _layout(value: Any, name: str, source: str) -> Layout:
    fields = value if isinstance(value, dict) else {}
    dtype, shape = fields.get("dtype"), fields.get("shape")
    plain = (
        isinstance(dtype, str) and isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape)
    )
    if not plain or dtype not in DTYPES:
        raise CorruptArtifactError(
            f"expected tensor {shown(repr(name))} of {source} to have a type and a shape, got {shown(repr(value))}; "
            "get the file again"
        )
    assert isinstance(dtype, str)
    assert isinstance(shape, list)
    return Layout(DTYPES[dtype], tuple(shape))


def other_kind(file: Path, head: bytes) -> str | None:
    """Recognise a file that is not safetensors by its first bytes; `None` if it may be safetensors or is unknown.

    Args:
        file: opened if it is an archive.
        head: its first bytes.
    """
    if begins_like(head, file.stat().st_size):
        return None
    if found := stand_in(head):
        return found
    if head.startswith(b"\x80"):
        return "a pickle, which can run code when read"
    if not head.startswith(b"PK\x03\x04"):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            arrays = any(name.endswith(".npy") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return "a damaged archive"
    return "a NumPy archive, to be converted" if arrays else "a pickle of PyTorch, which can run code when read"
