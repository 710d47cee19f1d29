"""Tests of the grid of images, pixel by pixel."""

import io

import numpy as np
import pytest
from PIL import Image
from privbench.benchmark.records.picture import TILE, grid_png


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 32, 32), (3, 32, 32), (3, 64, 64), (1, 5, 7), (3, 100, 80)]
)
def test_every_pixel_is_at_its_position(channels, height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, channels, height, width), dtype=np.uint8)
    before = pixels.copy()
    content = grid_png(pixels, ["a", 1, "a long name that does not fit\nat all"])
    assert content == grid_png(pixels, ["a", 1, "a long name that does not fit\nat all"])
    assert (pixels == before).all()
    shown, factor = opened(content), max(1, TILE // max(height, width))
    gap = 4
    for row in range(2):
        for column in range(3):
            y, x = shown.shape[0] - (2 - row) * (height * factor + gap), gap + column * (width * factor + gap)
            tile = shown[y : y + height * factor : factor, x : x + width * factor : factor]
            assert (tile.reshape(height, width, channels).transpose(2, 0, 1) == pixels[row, column]).all()


def test_labels_are_drawn_above_the_columns():
    pixels = np.full((1, 2, 1, 32, 32), 255, dtype=np.uint8)
    assert (opened(grid_png(pixels, ["", ""])) == 255).all()
    ink = opened(grid_png(pixels, ["", "8"])) < 128
    rows, columns = np.nonzero(ink)
    assert rows.max() < 18
    assert columns.min() > 68
