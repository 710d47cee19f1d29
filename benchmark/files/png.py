"""The parts of a PNG, checked before the picture is decoded."""

from ..errors import CorruptArtifactError

#: Pictures of records are smaller.
MAX_BYTES = 4 << 20
#: Larger pictures are not decoded: a small file can declare enough pixels to fill any memory.
MAX_PIXELS = 1 << 24
#: Signature of a PNG and the start of its first chunk, IHDR, of 13 bytes.
START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_HEADER = len(START) + 8
#: Signature of a PNG.
_SIGNATURE = START[:8]
#: Bits per channel, and grey or RGB: those without alpha and palette.
_PLAIN = (b"\x08\x00", b"\x08\x02")


def fault_of_png(data: bytes) -> str | None:
    """Describe what the bytes are if not a plain PNG of at most 4 MiB and 16,777,216 pixels; `None` if they are one.

    Plain means grey or RGB of 8 bits, one header, pixels and nothing else: no alpha, animation, text or second header.
    """
    if not data.startswith(START) or len(data) < _HEADER:
        return "another kind of file"
    if len(data) > MAX_BYTES:
        return f"more than {MAX_BYTES:,} bytes"
    width, height = (int.from_bytes(data[begin : begin + 4], "big") for begin in (len(START), len(START) + 4))
    if not 0 < width * height <= MAX_PIXELS:
        return f"one of {width:,} x {height:,} pixels"
    if data[_HEADER : _HEADER + 2] not in _PLAIN:
        return "one that is not grey or RGB of 8 bits"
    chunks = _chunks(data)
    if chunks[:1] + chunks[-1:] != [b"IHDR", b"IEND"] or set(chunks[1:-1]) != {b"IDAT"}:
        return "one with more than a header and pixels, such as animation, or with less"
    return None


def _chunks(data: bytes) -> list[bytes]:
    """Return the types of the chunks; none for bytes that are not exactly a sequence of chunks."""
    place, types = len(_SIGNATURE), []
    while place < len(data):
        types.append(data[place + 4 : place + 8])
        place += 12 + int.from_bytes(data[place : place + 4], "big")
    return types if place == len(data) else []


def require_png(data: bytes, source: str) -> None:
    """Refuse bytes that are not a PNG within the limits; see `fault_of_png`.

    Raises:
        CorruptArtifactError: says what they are instead.
    """
    fault = fault_of_png(data)
    if fault:
        raise CorruptArtifactError(
            f"expected {source} to be a plain PNG of at most {MAX_BYTES:,} bytes and {MAX_PIXELS:,} pixels, got "
            f"{fault}; remove it"
        )
