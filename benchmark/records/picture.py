"""Pictures of reconstructions as PNG bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

#: Shown size of a small image, in pixels; larger ones keep their own.
TILE = 64
_GAP = 4
#: Height of the line of labels, in pixels.
HEADER = 18
#: Rows of a record's picture: draws per label, or lines of single images.
ROWS = 4
#: Columns of a record's picture.
COLUMNS = 10
_BACKGROUND = 255
_INK = 40


def picture_of(items: Mapping[str, Any]) -> bytes | None:
    """Draw a grid of reconstructions: for labels the first trial, a row per draw; for single images the first ones.

    Args:
        items: evidence by kind, with arrays or tensors on the CPU; others than reconstructions are not read.

    Returns:
        A PNG; `None` without reconstructions of images.
    """
    if "ClassReconstructions" in items:
        found = items["ClassReconstructions"]
        pixels = np.asarray(found.pixels[0, :ROWS, :COLUMNS])
        labels = [str(int(label)) for label in found.labels[:COLUMNS]]
    elif "PairedReconstructions" in items:
        found = items["PairedReconstructions"]
        columns = max(1, min(COLUMNS, len(found.pixels)))
        rows = min(ROWS, len(found.pixels) // columns)
        pixels = np.asarray(found.pixels[: rows * columns]).reshape(rows, columns, *found.pixels.shape[1:])
        labels = [""] * columns
    else:
        return None
    return grid_png(pixels, labels) if pixels.size else None


def grid_png(pixels: NDArray[np.uint8], labels: Sequence[str | int]) -> bytes:
    """Draw reconstructions as a grid: a row per draw, a column per label, the label above its column.

    Without a label there is no line for labels.

    Small images are enlarged by a whole factor without smoothing, so that each pixel stays what the attack found.

    Args:
        pixels: `uint8 S K C H W`, one or three channels, at least one image.
        labels: K names, perhaps empty.

    Returns:
        A PNG; equal input gives equal bytes.
    """
    draws, columns, channels, height, width = pixels.shape
    assert pixels.dtype == np.uint8
    assert channels in (1, 3)
    assert len(labels) == columns
    factor = max(1, TILE // max(height, width))
    step_y, step_x = height * factor + _GAP, width * factor + _GAP
    header = HEADER if any(labels) else _GAP
    canvas = np.full((header + draws * step_y, columns * step_x + _GAP, channels), _BACKGROUND, np.uint8)
    for row in range(draws):
        for column in range(columns):
            tile = pixels[row, column].transpose(1, 2, 0).repeat(factor, 0).repeat(factor, 1)
            y, x = header + row * step_y, _GAP + column * step_x
            canvas[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    image = Image.fromarray(canvas.squeeze(2) if channels == 1 else canvas)
    _name_columns(image, labels, step_x)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _name_columns(image: Image.Image, labels: Sequence[str | int], step: int) -> None:
    """Write each label above the middle of its column; what does not fit is cut."""
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    ink = _INK if image.mode == "L" else (_INK,) * 3
    for column, label in enumerate(labels):
        text = " ".join(str(label).split())
        while len(text) > 1 and draw.textlength(text, font) > step:
            text = text[:-1]
        middle = _GAP + column * step + (step - _GAP) / 2
        draw.text((middle - draw.textlength(text, font) / 2, 1), text, fill=ink, font=font)
