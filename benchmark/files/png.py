"""The header of a PNG, read before anything is made of the picture."""

from __future__ import annotations

from ..errors import CorruptArtifactError

#: A larger file is no picture of a record.
MAX_BYTES = 4 << 20
#: More pixels are not decoded: a small file can declare enough of them to fill any memory.
MAX_PIXELS = 1 << 24
#: How every PNG begins: signature, then the chunk IHDR of 13 bytes.
START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_HEADER = len(START) + 8


def fault_of_png(data: bytes) -> str | None:
    """What keeps bytes from being a PNG that can be shown: at most 4 MiB and 16,777,216 pixels; `None` if nothing."""
    if not data.startswith(START) or len(data) < _HEADER:
        return "another kind of file"
    if len(data) > MAX_BYTES:
        return f"more than {MAX_BYTES:,} bytes"
    width, height = (int.from_bytes(data[begin : begin + 4], "big") for begin in (len(START), len(START) + 4))
    if not 0 < width * height <= MAX_PIXELS:
        return f"one of {width:,} x {height:,} pixels"
    return None


def require_png(data: bytes, source: str) -> None:
    """Refuse bytes that are no PNG that can be shown.

    Raises:
        CorruptArtifactError: says what they are instead.
    """
    fault = fault_of_png(data)
    if fault:
        raise CorruptArtifactError(
            f"expected {source} to be a PNG of at most {MAX_BYTES:,} bytes and {MAX_PIXELS:,} pixels, got {fault}; "
            "remove it"
        )
