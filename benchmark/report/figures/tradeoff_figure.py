"""The trade-off figure: utility against leakage.

Equal input gives equal bytes, in PNG and in SVG.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from ..formatting import sanitize
from ..tradeoff import Axis, Panel, Point
from .series import Series, TradeoffSeries
from .style import COLOURS, DPI, GREY, MARKERS, NORMAL, SMALL, line_height, panel_columns, privbench_style, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Size of a panel, space beside and below it for the axis, margin; in pixels.
_WIDE, _HIGH, _LEFT, _BELOW, _MARGIN = 620, 520, 110, 90, 24
_BETWEEN, _TITLE = 40, 60
#: Distance from a point to its note in pixels, and the sides for a note in order of preference: across and up.
_OFFSET = 11
_SIDES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
_Box = tuple[float, float, float, float]


def draw(found: TradeoffSeries) -> Figure:
    """Draw one panel for each attack, with common axes; bars are 95 % intervals."""
    plot, names = found.plot, [series.name for series in found.series]
    columns = panel_columns(len(plot.panels), 3)
    rows = -(-len(plot.panels) // columns)
    styles = _line_styles(found.series)
    caption = f"{found.title} · bars: 95 % intervals"
    entry = max(text_width(name, NORMAL) for name in names) + 110
    content = max(columns * (_WIDE + _BETWEEN) + _LEFT, entry, text_width(caption, SMALL))
    width = round(content) + 2 * _MARGIN
    legend_columns = min(len(names), max(1, int(width / entry)))
    top = _MARGIN + line_height(SMALL)
    foot = -(-len(names) // legend_columns) * 32 + 2 * _MARGIN
    height = top + rows * (_TITLE + _HIGH) + _BELOW + foot
    xlim, ylim = ((axis.low, axis.high) for axis in (plot.leakage, plot.utility))
    with privbench_style():
        figure = Figure((width / DPI, height / DPI), dpi=DPI)
        figure.text(_MARGIN / width, 1 - _MARGIN / height, caption, size=SMALL, color=GREY, va="top")
        for index, panel in enumerate(plot.panels):
            row, column = divmod(index, columns)
            left = _MARGIN + _LEFT + column * (_WIDE + _BETWEEN)
            bottom = height - top - (row + 1) * (_TITLE + _HIGH)
            box = np.divide((left, bottom, _WIDE, _HIGH), (width, height, width, height))
            axes = figure.add_axes(tuple(box), xlim=xlim, ylim=ylim)
            axes.set_title(panel.attack)
            _draw_axes(axes, plot.leakage, plot.utility, first=column == 0, last=index + columns >= len(plot.panels))
            _draw_chance(axes, panel)
            members = [(series.points(panel), styles[series.name]) for series in found.series]
            lines = [(points, style) for points, style in members if points]
            for points, style in lines:
                _draw_line(axes, [point for point, _ in points], style)
            _annotate(axes, lines)
        figure.legend(handles=list(styles.values()), loc="lower center", ncols=legend_columns, columnspacing=1.4)
    return figure


def _line_styles(found: Sequence[Series]) -> dict[str, Line2D]:
    """Colour and marker of each series; only the undefended target is black."""
    styles: dict[str, Line2D] = {}
    index = 0
    for series in found:
        name = series.name
        undefended = name.partition(":")[0].partition(",")[0] == "none"
        colour = COLOURS[0] if undefended else COLOURS[1 + index % (len(COLOURS) - 1)]
        marker = MARKERS[0] if undefended else MARKERS[1 + index % (len(MARKERS) - 1)]
        index += not undefended
        styles[name] = Line2D([], [], color=colour, linewidth=1, marker=marker, label=sanitize(name, 80))
        styles[name].set(markersize=5, markeredgecolor="white", markeredgewidth=0.4)
        styles[name].set_linestyle("-" if series.joined else "none")
    return styles


def _draw_axes(axes: Axes, leakage: Axis, utility: Axis, *, first: bool, last: bool) -> None:
    """Draw axes and grid; only the panels at the left and at the bottom have numbers and a title on an axis."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eaeef2", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5, labelleft=first, labelbottom=last)
    for axis, score, is_labelled in ((axes.xaxis, leakage, last), (axes.yaxis, utility, first)):
        axis.set_ticks([tick.value for tick in score.ticks], [tick.label for tick in score.ticks])
        if is_labelled:
            axis.set_label_text(score.title)


def _draw_chance(axes: Axes, panel: Panel) -> None:
    """Draw a line at the leakage of an attack that guesses."""
    if panel.chance is not None:
        axes.axvline(panel.chance, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        transform = axes.get_xaxis_transform()
        axes.text(panel.chance, 0.01, " chance", color=GREY, size=SMALL, transform=transform)


def _draw_line(axes: Axes, points: Sequence[Point], style: Line2D) -> None:
    """Draw the points of a series with intervals and seeds, joined if its style says so."""
    colour = style.get_color()
    for point in points:
        if point.leakage.interval:
            axes.hlines(point.y, *point.leakage.interval, color=colour, linewidth=0.9, alpha=0.45)
        if point.utility.interval:
            axes.vlines(point.x, *point.utility.interval, color=colour, linewidth=0.9, alpha=0.45)
        if point.seeds:
            xs, ys = zip(*point.seeds, strict=True)
            axes.scatter(xs, ys, s=5, color=colour, alpha=0.4, linewidths=0)
    line = Line2D([point.x for point in points], [point.y for point in points])
    line.update_from(style)
    axes.add_line(line)


def _annotate(axes: Axes, lines: Sequence[tuple[Sequence[tuple[Point, str]], Line2D]]) -> None:
    """Write each note on the side of its point where it covers least."""
    frame = axes.get_window_extent().extents
    taken = [box for points, _ in lines for point, _ in points for box in _boxes_of_point(axes, point)]
    taken += [box for points, style in lines if style.get_linestyle() == "-" for box in _boxes_of_line(axes, points)]
    for points, style in lines:
        for point, note in points:
            if not note:
                continue
            x, y = axes.transData.transform((point.x, point.y))
            size = text_width(note, SMALL) + 4, line_height(SMALL) * 0.8
            boxes = {side: _note_box(x, y, size, *side) for side in _SIDES}
            side = min(_SIDES, key=lambda side: _cost(boxes[side], taken, frame))
            taken.append(boxes[side])
            text = axes.annotate(
                note,
                (point.x, point.y),
                (_OFFSET * 72 / DPI * side[0], _OFFSET * 72 / DPI * side[1]),
                textcoords="offset points",
                ha=("right", "center", "left")[side[0] + 1],
                va=("top", "center", "bottom")[side[1] + 1],
                size=SMALL,
                color=style.get_color(),
            )
            text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])


def _boxes_of_point(axes: Axes, point: Point) -> list[_Box]:
    """Boxes in pixels of a point and its bars."""
    x, y = point.x, point.y
    extents = [(x, x, y, y, 8.0)]
    if point.leakage.interval:
        extents.append((*point.leakage.interval, y, y, 2.0))
    if point.utility.interval:
        extents.append((x, x, *point.utility.interval, 2.0))
    boxes = []
    for left, right, low, high, margin in extents:
        (x0, y0), (x1, y1) = axes.transData.transform([(left, low), (right, high)])
        boxes.append((x0 - margin, y0 - margin, x1 + margin, y1 + margin))
    return boxes


def _boxes_of_line(axes: Axes, points: Sequence[tuple[Point, str]]) -> list[_Box]:
    """Boxes in pixels along the line through some points."""
    corners = axes.transData.transform([(point.x, point.y) for point, _ in points])
    boxes: list[_Box] = []
    for start, end in itertools.pairwise(corners):
        steps = max(1, int(np.abs(end - start).max() / 6))
        boxes += [(x - 3, y - 3, x + 3, y + 3) for x, y in np.linspace(start, end, steps, endpoint=False)]
    return boxes


def _note_box(x: float, y: float, size: tuple[float, float], x_side: int, y_side: int) -> _Box:
    """The box of a note of that size, on that side of a point."""
    left = x + _OFFSET * x_side - size[0] * (1 - x_side) / 2
    low = y + _OFFSET * y_side - size[1] * (1 - y_side) / 2
    return left, low, left + size[0], low + size[1]


def _cost(box: _Box, taken: Sequence[_Box], frame: Sequence[float]) -> float:
    """The area that a box covers, plus three times its area outside the frame."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return sum(_overlap(box, other) for other in taken) + 3 * (area - _overlap(box, frame))


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
