"""The header of a PNG, checked before the picture is decoded."""

from ..errors import CorruptArtifactError

#: Pictures of records are smaller.
MAX_BYTES = 4 << 20
#: Larger pictures are not decoded: a small file can declare enough pixels to fill any memory.
MAX_PIXELS = 1 << 24
#: Signature of a PNG and the start of its first chunk, IHDR, of 13 bytes.
START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_HEADER = len(START) + 8


def fault_of_png(data: bytes) -> str | None:
    """Describe what the bytes are if not a PNG of at most 4 MiB and 16,777,216 pixels; `None` if they are one."""
    if not data.startswith(START) or len(data) < _HEADER:
        return "another kind of file"
    if len(data) > MAX_BYTES:
        return f"more than {MAX_BYTES:,} bytes"
    width, height = (int.from_bytes(data[begin : begin + 4], "big") for begin in (len(START), len(START) + 4))
    if not 0 < width * height <= MAX_PIXELS:
        return f"one of {width:,} x {height:,} pixels"
    return None


def require_png(data: bytes, source: str) -> None:
    """Refuse bytes that are not a PNG within the limits; see `fault_of_png`.

    Raises:
        CorruptArtifactError: says what they are instead.
    """
    fault = fault_of_png(data)
    if fault:
        raise CorruptArtifactError(
            f"expected {source} to be a PNG of at most {MAX_BYTES:,} bytes and {MAX_PIXELS:,} pixels, got {fault}; "
            "remove it"
        )
