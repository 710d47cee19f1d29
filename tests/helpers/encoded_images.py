"""Images encoded by hand, byte by byte, so that what a reader makes of them can be computed without it."""

import struct
import zlib

import numpy as np

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples: np.ndarray, depth: int, colour: int, *chunks: bytes) -> bytes:
    """A PNG of samples `H W C`, integers below 2^depth, with further chunks before the pixels."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if depth == 16:
        lines = [row.astype(">u2").tobytes() for row in rows]
    else:
        bits = (rows[..., None] >> np.arange(depth - 1, -1, -1)) & 1
        lines = [np.packbits(row.reshape(-1)).tobytes() for row in bits.astype(np.uint8)]
    pixels = zlib.compress(b"".join(b"\0" + line for line in lines))
    return header(width, height, depth, colour) + b"".join(chunks) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def header(width: int, height: int, depth: int = 8, colour: int = GREY) -> bytes:
    """The beginning of a PNG, before its pixels."""
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def empty(width: int, height: int) -> bytes:
    """A grey PNG that declares its size and has no pixels."""
    return header(width, height) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
