"""Figures of images and of encodings: reconstructions beside originals, t-SNE plots by attribute or label.

Equal input gives equal bytes, in PNG and in SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ..formatting import sanitize
from .style import (
    COLOURS,
    DPI,
    FAINT,
    GREY,
    MARKERS,
    NORMAL,
    SMALL,
    line_height,
    panel_columns,
    privbench_style,
    text_width,
    wrap,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Largest size in pixels to which a small image is enlarged by a whole factor.
TILE = 140
_GAP, _BREAK, _MARGIN = 6, 20, 24
#: Side of a panel, side of a single panel, space between two, space for a title; in pixels.
_SIDE, _SINGLE, _BETWEEN, _HEAD = 470, 680, 36, 100


@dataclass(frozen=True)
class ImageRow:
    """Images side by side.

    Args:
        name: lines of the label of the row.
        pixels: `uint8 N C H W`, of one or three channels.
    """

    name: tuple[str, ...]
    pixels: NDArray[np.uint8]


def image_grid(
    rows: Sequence[ImageRow], caption: Sequence[str], *, headings: Sequence[str] = (), private_rows: int = 0
) -> Figure:
    """Draw images in rows, each with its name to its left.

    Small images are enlarged by a whole factor without smoothing, so that each pixel of the PNG is one of the image.

    Args:
        rows: of equally many images of equal size.
        caption: settings that all rows share.
        headings: names of the columns.
        private_rows: number of rows at the top with private images; a gap follows.
    """
    tile = _enlarge(rows[0].pixels[0]).shape
    canvas, tops = _canvas(rows, private_rows)
    left = _MARGIN + round(max(text_width(line, NORMAL) for row in rows for line in row.name)) + 2 * _GAP
    lines = wrap(caption, max(left - _MARGIN + canvas.shape[1], 4 * TILE))
    width = max(left + canvas.shape[1], round(_MARGIN + max(text_width(line, SMALL) for line in lines))) + _MARGIN
    top = _MARGIN + len(lines) * line_height(SMALL) + _GAP + (line_height(NORMAL) if headings else 0)
    height = top + canvas.shape[0] + _MARGIN
    with privbench_style():
        figure = Figure((width / DPI, height / DPI), dpi=DPI)
        _write(figure, _MARGIN, _MARGIN, "\n".join(lines), size=SMALL, color=GREY, va="top", linespacing=1.25)
        bottom = height - top - canvas.shape[0]
        box = np.divide((left, bottom, canvas.shape[1], canvas.shape[0]), (width, height, width, height))
        axes = figure.add_axes(tuple(box))
        axes.imshow(canvas, interpolation="none", aspect="auto")
        axes.set_axis_off()
        for row, start in zip(rows, tops, strict=True):
            text = "\n".join(row.name)
            _write(figure, left - 2 * _GAP, top + start + tile[0] / 2, text, ha="right", va="center", linespacing=1.25)
        for index, heading in enumerate(headings):
            middle = left + index * (tile[1] + _GAP) + tile[1] / 2
            _write(figure, middle, top - 2 * _GAP, heading, ha="center", va="baseline", color=GREY)
    return figure


def _write(figure: Figure, x: float, y: float, text: str, **options: Any) -> None:
    """Write text at a position in pixels from the upper left."""
    width, height = figure.get_size_inches() * DPI
    figure.text(x / width, 1 - y / height, text, **options)


def _enlarge(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert `C H W` to `H W C` and enlarge it to at most the size of a tile."""
    factor = max(1, TILE // max(image.shape[1:]))
    return image.transpose(1, 2, 0).repeat(factor, 0).repeat(factor, 1)


def _canvas(rows: Sequence[ImageRow], private_rows: int) -> tuple[NDArray[np.uint8], list[int]]:
    """All images on white, and the top of each row."""
    shape = rows[0].pixels.shape
    assert shape[1] in (1, 3)
    assert all(row.pixels.shape == shape for row in rows)
    high, wide, channels = _enlarge(rows[0].pixels[0]).shape
    tops = [i * (high + _GAP) + (_BREAK if 0 < private_rows <= i else 0) for i in range(len(rows))]
    canvas = np.full((tops[-1] + high, shape[0] * (wide + _GAP) - _GAP, channels), 255, np.uint8)
    for top, row in zip(tops, rows, strict=True):
        for column, image in enumerate(row.pixels):
            left = column * (wide + _GAP)
            canvas[top : top + high, left : left + wide] = _enlarge(image)
    return canvas.repeat(3 // channels, 2), tops


@dataclass(frozen=True)
class PointGroup:
    """Style of the points with one label or combination of attributes; the size is an area, as in matplotlib."""

    name: str
    colour: str
    marker: str
    size: float


@dataclass(frozen=True)
class Embedding:
    """Encodings of one record, embedded in the plane.

    Args:
        title: settings that distinguish the record from the others.
        note: such as the cut layer.
        points: `float64 N 2`.
        groups: `int64 N`, the index of each point's group.
    """

    title: tuple[str, ...]
    note: str
    points: NDArray[np.float64]
    groups: NDArray[np.int64]


def attribute_groups(names: Sequence[str]) -> list[PointGroup]:
    """Groups for one or two attributes: images in group 2 i + j have the first if i = 1 and the second if j = 1.

    The hue shows the first attribute, marker and shade show the second.
    """
    first = sanitize(names[0], 30)
    if len(names) == 1:
        return [PointGroup(f"{first} −", "#E08214", "o", 11), PointGroup(f"{first} +", "#2166AC", "^", 13)]
    second = sanitize(names[1], 30)
    return [
        PointGroup(f"{first} −, {second} −", "#F4A55C", "o", 10),
        PointGroup(f"{first} −, {second} +", "#8C2D04", "^", 18),
        PointGroup(f"{first} +, {second} −", "#67A9DB", "o", 10),
        PointGroup(f"{first} +, {second} +", "#08306B", "^", 18),
    ]


def label_groups(labels: Sequence[int]) -> list[PointGroup]:
    """One group for each label; labels beyond the number of markers share the last group."""
    shown = labels if len(labels) <= len(MARKERS) else labels[: len(MARKERS) - 1]
    colours = (*COLOURS[1:], COLOURS[0], "#7F3C8D", "#8C6D31", "#5B6770")
    found = [PointGroup(f"label {label}", colours[i], MARKERS[i], 12) for i, label in enumerate(shown)]
    return found if len(shown) == len(labels) else [*found, PointGroup("other labels", FAINT, "o", 8)]


def embedding_figure(embeddings: Sequence[Embedding], groups: Sequence[PointGroup], caption: Sequence[str]) -> Figure:
    """Draw one panel for each embedding, without ticks because the axes of t-SNE have no meaning."""
    columns = panel_columns(len(embeddings), 4)
    rows = -(-len(embeddings) // columns)
    side = _SIDE if columns > 1 else _SINGLE
    titles = [wrap(embedding.title, side, 9, bold=True) for embedding in embeddings]
    head = _HEAD + (max(map(len, titles)) - 1) * line_height(9)
    width = columns * (side + _BETWEEN) - _BETWEEN + 2 * _MARGIN
    notes = wrap(caption, width - 2 * _MARGIN)
    present = [group for i, group in enumerate(groups) if any((each.groups == i).any() for each in embeddings)]
    entry = max(text_width(group.name, NORMAL) for group in present) + 70
    legend_columns = min(len(present), max(1, int(width / entry)))
    top = _MARGIN + len(notes) * line_height(SMALL)
    foot = -(-len(present) // legend_columns) * 32 + 2 * _MARGIN
    height = top + rows * (head + side) + foot
    with privbench_style():
        figure = Figure((width / DPI, height / DPI), dpi=DPI)
        _write(figure, _MARGIN, _MARGIN, "\n".join(notes), size=SMALL, color=GREY, va="top", linespacing=1.25)
        for index, embedding in enumerate(embeddings):
            row, column = divmod(index, columns)
            left, bottom = _MARGIN + column * (side + _BETWEEN), height - top - (row + 1) * (head + side)
            box = np.divide((left, bottom, side, side), (width, height, width, height))
            _draw_embedding(figure.add_axes(tuple(box)), embedding, "\n".join(titles[index]), groups)
        figure.legend(
            handles=[_legend_handle(group) for group in present],
            loc="lower center",
            ncols=legend_columns,
            handletextpad=0.2,
            columnspacing=1.2,
        )
    return figure


def _draw_embedding(axes: Axes, embedding: Embedding, title: str, groups: Sequence[PointGroup]) -> None:
    counts = [int((embedding.groups == i).sum()) for i in range(len(groups))]
    for index in sorted(range(len(groups)), key=lambda i: (groups[i].colour != FAINT, -counts[i])):
        group = groups[index]
        x, y = embedding.points[embedding.groups == index].T
        axes.scatter(x, y, group.size, group.colour, marker=group.marker, linewidths=0.25, edgecolors="white")
    axes.set_title(title, pad=14)
    note = axes.annotate(embedding.note, (0, 1), (0, 3), "axes fraction", "offset points", size=SMALL, color=GREY)
    note.set_verticalalignment("bottom")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(FAINT)
    axes.margins(0.04)


def _legend_handle(group: PointGroup) -> Line2D:
    size = 1.4 * max(group.size, 12) ** 0.5
    handle = Line2D([], [], color=group.colour, linestyle="", marker=group.marker, markersize=size, label=group.name)
    handle.set(markeredgecolor="white", markeredgewidth=0.25)
    return handle
