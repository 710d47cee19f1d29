"""Messages between the attack's process and the target's: a JSON header and raw tensor bytes, never pickle.

A message consists of the length of the header (four bytes, big-endian), the header in UTF-8 JSON, which lists the
tensors by name, dtype and shape, and the bytes of the tensors in that order.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import IO, Any

import torch
from torch import Tensor

_LENGTH = struct.Struct("!I")


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


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read one message: its header and its tensors, on the CPU.

    Raises:
        EOFError: the stream has ended.
        ValueError: the bytes are not a message.
    """
    message = json.loads(_read_exactly(stream, _LENGTH.unpack(_read_exactly(stream, _LENGTH.size))[0]))
    return message["header"], {name: _read_tensor(stream, dtype, shape) for name, dtype, shape in message["tensors"]}


def _read_tensor(stream: IO[bytes], name: str, shape: list[int]) -> Tensor:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or min(shape, default=0) < 0:
        raise ValueError(f"expected a dtype and a shape, got {name!r} and {shape!r}")
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
