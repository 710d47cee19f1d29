"""Figures of images and of encodings: reconstructions beside originals, t-SNE coloured by attributes or labels.

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

from ..formatting import plain
from .style import COLOURS, DPI, FAINT, GREY, MARKERS, NORMAL, SMALL, across, height_of, lines_of, styled, width_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Shown size of an image, in pixels, as far as a whole factor reaches it.
TILE = 140
_GAP, _BREAK, _MARGIN = 6, 20, 24
#: Side of a cloud, of a lone one, space between two, space for a title; in pixels.
_SIDE, _LONE, _BETWEEN, _HEAD = 470, 680, 36, 100


@dataclass(frozen=True)
class Strip:
    """Images in a row.

    Args:
        name: what the row is, a line each.
        pixels: `uint8 N C H W`, of one or three channels.
    """

    name: tuple[str, ...]
    pixels: NDArray[np.uint8]


def grid(
    strips: Sequence[Strip], caption: Sequence[str], *, headings: Sequence[str] = (), first_is_original: bool = False
) -> Figure:
    """Images in rows, each with its name to its left.

    Small images are enlarged by a whole factor without smoothing, so that each pixel of the PNG is one of the image.

    Args:
        strips: the rows, N and the size of the images common.
        caption: what all rows have in common.
        headings: a name of each column.
        first_is_original: set the first row apart.
    """
    tile = _enlarged(strips[0].pixels[0]).shape
    canvas, tops = _canvas(strips, first_is_original)
    left = _MARGIN + round(max(width_of(line, NORMAL) for strip in strips for line in strip.name)) + 2 * _GAP
    lines = lines_of(caption, max(left - _MARGIN + canvas.shape[1], 4 * TILE))
    width = max(left + canvas.shape[1], round(_MARGIN + max(width_of(line, SMALL) for line in lines))) + _MARGIN
    top = _MARGIN + len(lines) * height_of(SMALL) + _GAP + (height_of(NORMAL) if headings else 0)
    height = top + canvas.shape[0] + _MARGIN
    with styled():
        figure = Figure((width / DPI, height / DPI), dpi=DPI)
        _write(figure, _MARGIN, _MARGIN, "\n".join(lines), size=SMALL, color=GREY, va="top", linespacing=1.25)
        bottom = height - top - canvas.shape[0]
        box = np.divide((left, bottom, canvas.shape[1], canvas.shape[0]), (width, height, width, height))
        axes = figure.add_axes(tuple(box))
        axes.imshow(canvas, interpolation="none", aspect="auto")
        axes.set_axis_off()
        for strip, start in zip(strips, tops, strict=True):
            text = "\n".join(strip.name)
            _write(figure, left - 2 * _GAP, top + start + tile[0] / 2, text, ha="right", va="center", linespacing=1.25)
        for index, heading in enumerate(headings):
            middle = left + index * (tile[1] + _GAP) + tile[1] / 2
            _write(figure, middle, top - 2 * _GAP, heading, ha="center", va="baseline", color=GREY)
    return figure


def _write(figure: Figure, x: float, y: float, text: str, **options: Any) -> None:
    """Text at a place in pixels from the upper left."""
    width, height = figure.get_size_inches() * DPI
    figure.text(x / width, 1 - y / height, text, **options)


def _enlarged(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`C H W` as `H W C` of about the size of a tile."""
    factor = max(1, TILE // max(image.shape[1:]))
    return image.transpose(1, 2, 0).repeat(factor, 0).repeat(factor, 1)


def _canvas(strips: Sequence[Strip], first_is_original: bool) -> tuple[NDArray[np.uint8], list[int]]:
    """All images on white, and where each row begins."""
    shape = strips[0].pixels.shape
    assert shape[1] in (1, 3)
    assert all(strip.pixels.shape == shape for strip in strips)
    high, wide, channels = _enlarged(strips[0].pixels[0]).shape
    tops = [row * (high + _GAP) + (_BREAK if first_is_original and row else 0) for row in range(len(strips))]
    canvas = np.full((tops[-1] + high, shape[0] * (wide + _GAP) - _GAP, channels), 255, np.uint8)
    for top, strip in zip(tops, strips, strict=True):
        for column, image in enumerate(strip.pixels):
            left = column * (wide + _GAP)
            canvas[top : top + high, left : left + wide] = _enlarged(image)
    return canvas.repeat(3 // channels, 2), tops


@dataclass(frozen=True)
class Group:
    """Points of one kind in a cloud; the size is matplotlib's, an area."""

    name: str
    colour: str
    marker: str
    size: float


@dataclass(frozen=True)
class Cloud:
    """Encodings of one record in the plane.

    Args:
        title: what tells the record from the others.
        note: such as the cut layer.
        points: `float64 N 2`.
        kinds: `int64 N`, the place of each point's group.
    """

    title: tuple[str, ...]
    note: str
    points: NDArray[np.float64]
    kinds: NDArray[np.int64]


def groups_of_signs(names: Sequence[str]) -> list[Group]:
    """Groups of one or two attributes: group 2 i + j has the first if i and the second if j.

    The hue says whether an image has the first attribute, marker and shade whether it has the second.
    """
    first = plain(names[0], 30)
    if len(names) == 1:
        return [Group(f"{first} −", "#E08214", "o", 11), Group(f"{first} +", "#2166AC", "^", 13)]
    second = plain(names[1], 30)
    return [
        Group(f"{first} −, {second} −", "#F4A55C", "o", 10),
        Group(f"{first} −, {second} +", "#8C2D04", "^", 18),
        Group(f"{first} +, {second} −", "#67A9DB", "o", 10),
        Group(f"{first} +, {second} +", "#08306B", "^", 18),
    ]


def groups_of_classes(labels: Sequence[int]) -> list[Group]:
    """Groups of labels; where there are more than have a marker, the last group is all the others."""
    shown = labels if len(labels) <= len(MARKERS) else labels[: len(MARKERS) - 1]
    colours = (*COLOURS[1:], COLOURS[0], "#7F3C8D", "#8C6D31", "#5B6770")
    found = [Group(f"label {label}", colours[i], MARKERS[i], 12) for i, label in enumerate(shown)]
    return found if len(shown) == len(labels) else [*found, Group("other labels", FAINT, "o", 8)]


def plane(found: Sequence[Cloud], groups: Sequence[Group], caption: Sequence[str]) -> Figure:
    """Encodings in the plane, a panel each; axes of t-SNE have no meaning and no ticks."""
    columns = across(len(found), 4)
    rows = -(-len(found) // columns)
    side = _SIDE if columns > 1 else _LONE
    titles = [lines_of(cloud.title, side, 9, bold=True) for cloud in found]
    head = _HEAD + (max(map(len, titles)) - 1) * height_of(9)
    width = columns * (side + _BETWEEN) - _BETWEEN + 2 * _MARGIN
    notes = lines_of(caption, width - 2 * _MARGIN)
    present = [group for i, group in enumerate(groups) if any((cloud.kinds == i).any() for cloud in found)]
    beside = min(len(present), max(1, int(width / (max(width_of(group.name, NORMAL) for group in present) + 70))))
    top = _MARGIN + len(notes) * height_of(SMALL)
    foot = -(-len(present) // beside) * 32 + 2 * _MARGIN
    height = top + rows * (head + side) + foot
    with styled():
        figure = Figure((width / DPI, height / DPI), dpi=DPI)
        _write(figure, _MARGIN, _MARGIN, "\n".join(notes), size=SMALL, color=GREY, va="top", linespacing=1.25)
        for index, cloud in enumerate(found):
            row, column = divmod(index, columns)
            left, bottom = _MARGIN + column * (side + _BETWEEN), height - top - (row + 1) * (head + side)
            box = np.divide((left, bottom, side, side), (width, height, width, height))
            _cloud(figure.add_axes(tuple(box)), cloud, "\n".join(titles[index]), groups)
        figure.legend(
            handles=[_handle(group) for group in present],
            loc="lower center",
            ncols=beside,
            handletextpad=0.2,
            columnspacing=1.2,
        )
    return figure


def _cloud(axes: Axes, cloud: Cloud, title: str, groups: Sequence[Group]) -> None:
    counts = [int((cloud.kinds == i).sum()) for i in range(len(groups))]
    for index in sorted(range(len(groups)), key=lambda i: (groups[i].colour != FAINT, -counts[i])):
        group, chosen = groups[index], cloud.points[cloud.kinds == index]
        x, y = chosen.T
        axes.scatter(x, y, group.size, group.colour, marker=group.marker, linewidths=0.25, edgecolors="white")
    axes.set_title(title, pad=14)
    note = axes.annotate(cloud.note, (0, 1), (0, 3), "axes fraction", "offset points", size=SMALL, color=GREY)
    note.set_verticalalignment("bottom")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(FAINT)
    axes.margins(0.04)


def _handle(group: Group) -> Line2D:
    size = 1.4 * max(group.size, 12) ** 0.5
    look = Line2D([], [], color=group.colour, linestyle="", marker=group.marker, markersize=size, label=group.name)
    look.set(markeredgecolor="white", markeredgewidth=0.25)
    return look
