"""What a picture of a record may contain."""

import io
import zlib

import pytest
from PIL import Image
from privbench.benchmark.files.png import fault_of_png


def png(mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (9, 9)).save(file, "PNG", **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def with_chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG with a chunk behind its header."""
    return png()[:33] + chunk(kind, content) + png()[33:]


HEADER = (12_000).to_bytes(4, "big") * 2 + bytes((8, 2, 0, 0, 0))


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_plain_pictures(mode: str) -> None:
    assert fault_of_png(png(mode)) is None


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (png(save_all=True, append_images=[Image.new("RGB", (9, 9), "red")]), "such as animation"),
        (with_chunk(b"IHDR", HEADER), "more than a header and pixels"),
        (with_chunk(b"tEXt", b"Title\0verified by everyone"), "more than a header and pixels"),
        (with_chunk(b"tRNS", bytes(6)), "more than a header and pixels"),
        (png() + b"<script>", "more than a header and pixels"),
        (png()[:-12], "or with less"),
        (png()[:33], "or with less"),
        (png()[:33] + png()[-12:], "or with less"),
        (png("RGBA"), "not grey or RGB"),
        (png("LA"), "not grey or RGB"),
        (png("P"), "not grey or RGB"),
        (png("1"), "not grey or RGB"),
        (png()[:30], "or with less"),
        (png()[:23], "another kind of file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_pictures(content: bytes, fault: str) -> None:
    assert fault in str(fault_of_png(content))
