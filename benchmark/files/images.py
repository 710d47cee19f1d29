"""One reader of JPEG and PNG images from anybody: whatever form they have, they become upright RGB of 8 bits."""

import io
import math

import numpy as np
from PIL import Image

from .png import START
from .stand_ins import HEAD, stand_in
from .untrusted import shown

#: Increase when pixels change; the version belongs into the keys of what is made from images.
VERSION = 2
#: An image with more pixels or a file with more bytes is refused before it is decoded.
MAX_PIXELS = 50_000_000
MAX_BYTES = 64 << 20
SUFFIXES = (".jpg", ".jpeg", ".png")
_FORMATS = ("JPEG", "PNG")
_ORIENTATION = 0x0112
#: What turns an image upright, by its orientation in EXIF.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Other files that are found under the name of an image, by their first bytes or those from the given position on.
_OTHERS = (
    (0, b"GIF8", "a GIF picture"),
    (0, b"BM", "a BMP picture"),
    (0, b"II*\0", "a TIFF picture"),
    (0, b"MM\0*", "a TIFF picture"),
    (8, b"WEBP", "a WebP picture"),
    (4, b"ftyp", "a HEIC or AVIF picture or a video"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"%!", "a PostScript drawing"),
    (0, b"\xc5\xd0\xd3\xc6", "a PostScript drawing"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
)
_JPEG = b"\xff\xd8\xff"
_PNG = START[:8]
_DAMAGED = "is cut off or damaged in its header"


def read_image(content: bytes) -> Image.Image:
    """Decode a JPEG or PNG image.

    - Samples of 16 bits keep their high byte.
    - Transparent pixels, by an alpha channel, a palette or a transparent colour, show a white background.
    - Grey, palette, 1-bit and CMYK images become RGB by Pillow's formulas; colour profiles are not applied.
    - An orientation in EXIF is applied; one that cannot be read is none, as in other programs.
    - Of several pictures in a JPEG file (MPO) the first counts; an animated PNG is refused.

    Args:
        content: the whole file, whatever its name.

    Returns:
        An image of mode `RGB`.

    Raises:
        ValueError: says in one phrase, to follow the name of the file, what it is instead.
    """
    if len(content) > MAX_BYTES:
        raise ValueError(f"has more than {MAX_BYTES >> 20} MiB")
    kind = other_kind(content)
    if kind:
        raise ValueError(f"is {kind} and not a JPEG or PNG image")
    if content.startswith(_PNG):
        if not content.startswith(START):
            raise ValueError(_DAMAGED)
        _bound(*_declared_size(content))
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"has more than {MAX_PIXELS:,} pixels") from None
    except Exception:  # Pillow raises errors of many types for damaged headers
        raise ValueError(_DAMAGED) from None
    with image:
        _bound(*image.size)
        if image.format == "PNG" and getattr(image, "n_frames", 1) > 1:
            raise ValueError("is an animation; save one picture of it as an image")
        deep = image.format == "PNG" and content[len(START) + 8] == 16
        if deep and image.mode == "RGB" and "transparency" in image.info:
            raise ValueError("has 16 bits and a transparent colour; save it with 8 bits or an alpha channel")
        try:
            image.load()
            return _upright(_opaque(image, content), image)
        except Exception as cause:  # and for damaged pixels
            raise ValueError(f"is cut off or damaged ({shown(cause)})") from None


def other_kind(head: bytes) -> str | None:
    """Name what a file is that begins with `head`; `None` for a JPEG or PNG image."""
    if head.startswith((_JPEG, _PNG)):
        return None
    if found := stand_in(head):
        return "an SVG drawing" if b"<svg" in head[:HEAD].lower() else found
    for position, mark, kind in _OTHERS:
        if head.startswith(mark, position):
            return kind
    return "another kind of file"


def looks_whole(head: bytes, tail: bytes) -> bool:
    """Tell whether a file with these ends may be a whole JPEG or PNG image within the limit of pixels.

    A file for which this is false may still decode, such as one with bytes behind the image. It is false for a file
    that was cut off.

    Args:
        head: the first 24 bytes.
        tail: the last 12 bytes.
    """
    if head.startswith(START):
        return math.prod(_declared_size(head)) <= MAX_PIXELS and b"IEND" in tail
    return head.startswith(_JPEG) and tail.endswith(b"\xff\xd9")


def _declared_size(head: bytes) -> tuple[int, int]:
    """Return width and height that the header of a PNG declares."""
    width, height = (int.from_bytes(head[begin : begin + 4], "big") for begin in (len(START), len(START) + 4))
    return width, height


def _bound(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}")


def _opaque(image: Image.Image, content: bytes) -> Image.Image:
    """Convert a loaded image to RGB of 8 bits on a white background."""
    key = image.info.get("transparency")
    alpha = None
    if image.mode.startswith("I"):  # 16 bits of grey
        samples = np.asarray(image)
        if key is not None:
            alpha = Image.fromarray(np.where(samples == key, 0, 255).astype(np.uint8))
        image = Image.fromarray((samples >> 8).astype(np.uint8))
    elif image.mode == "L" and key is not None:
        image.info["transparency"] = key * 255 // (2 ** content[len(START) + 8] - 1)  # as Pillow scales the samples
    if key is not None or image.mode in ("LA", "RGBA", "PA"):
        if alpha is None:
            image = image.convert("RGBA")
            alpha = image.getchannel("A")
        background = Image.new("RGB", image.size, "white")
        background.paste(image.convert("RGB"), mask=alpha)
        return background
    return image.convert("RGB")


def _upright(pixels: Image.Image, image: Image.Image) -> Image.Image:
    """Turn pixels as the metadata of the image says."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # metadata that is damaged says nothing
        orientation = None
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return pixels if turn is None else pixels.transpose(turn)
