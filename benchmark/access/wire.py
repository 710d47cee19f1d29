"""Messages between processes of a cell: a JSON header and raw tensor bytes, never pickle.

A message consists of the length of the header (four bytes, big-endian), the header in UTF-8 JSON, which lists the
tensors by name, dtype and shape, and the bytes of the tensors in that order.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from typing import IO, Any

import torch
from torch import Tensor

_LENGTH = struct.Struct("!I")
#: Bytes of the header and of all tensors of one message; a longer one is refused before memory is taken for it.
_MAX_HEADER, MAX_TENSORS = 64 << 20, 16 << 30


def take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Return this process's standard input and output for messages; what others print goes to standard error."""
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return reader, writer


def write_message(stream: IO[bytes], header: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> None:
    """Write one message; contiguous CPU tensors are not copied."""
    tensors = tensors or {}
    listed = [[name, str(value.dtype).removeprefix("torch."), list(value.shape)] for name, value in tensors.items()]
    text = json.dumps({"header": dict(header), "tensors": listed}).encode()
    stream.write(_LENGTH.pack(len(text)))
    stream.write(text)
    for value in tensors.values():
        stream.write(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    stream.flush()


def read_message(stream: IO[bytes], limit: int = MAX_TENSORS) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read one message: its header and its tensors, on the CPU.

    Args:
        stream: from another process.
        limit: bytes of all tensors.

    Raises:
        EOFError: the stream has ended.
        ValueError: the bytes are not a message, or are too many.
    """
    (length,) = _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))
    if length > _MAX_HEADER:
        raise ValueError(f"expected a header of at most {_MAX_HEADER:,} bytes, got {length:,}")
    try:
        message = json.loads(_read_exactly(stream, length))
        header, listed = dict(message["header"]), [_checked(*entry) for entry in message["tensors"]]
    except (KeyError, TypeError, RecursionError) as cause:
        raise ValueError("expected a header and a list of tensors") from cause
    size = sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in listed)
    if size > limit:
        raise ValueError(f"expected tensors of at most {limit:,} bytes, got {size:,}")
    return header, {name: _read_tensor(stream, dtype, shape) for name, dtype, shape in listed}


def _checked(name: Any, dtype: Any, shape: Any) -> tuple[str, torch.dtype, list[int]]:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else None
    sizes = isinstance(shape, list) and len(shape) <= 16 and all(type(n) is int and 0 <= n < 1 << 48 for n in shape)
    if not (isinstance(name, str) and isinstance(found, torch.dtype) and sizes):
        raise ValueError(f"expected name, dtype and shape of a tensor, got {[name, dtype, shape]!r}"[:300])
    return name, found, shape


def _read_tensor(stream: IO[bytes], dtype: torch.dtype, shape: list[int]) -> Tensor:
    if math.prod(shape) == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(_read_exactly(stream, math.prod(shape) * dtype.itemsize), dtype=dtype).reshape(shape)


def _read_exactly(stream: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError("the stream ended within a message" if done else "the stream ended")
        done += count
    return data
