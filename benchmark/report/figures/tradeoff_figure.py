"""The figure of utility against leakage.

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
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ...analysis.aggregate import Summary
from ...core.config import Definition
from ..formatting import plain, unit_of
from .style import COLOURS, DPI, GREY, MARKERS, NORMAL, SMALL, across, height_of, styled, width_of
from .tradeoff import Panel, Series, Spot, Tradeoff

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Size of a panel, space beside and below it for the axis, margin; in pixels.
_WIDE, _HIGH, _LEFT, _BELOW, _MARGIN = 620, 520, 110, 90, 24
_BETWEEN, _TITLE = 40, 60
#: From a point to its note, in pixels, and the sides that a note may be on, the best first: across and up.
_OFFSET = 11
_SIDES = ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0))
_Box = tuple[float, float, float, float]


def draw(found: Tradeoff) -> Figure:
    """Utility against leakage: a panel an attack, with common axes; bars are 95 % intervals."""
    columns = across(len(found.panels), 3)
    rows = -(-len(found.panels) // columns)
    looks = _looks(found)
    caption = f"{found.title} · bars: 95 % intervals"
    entry = max(width_of(name, NORMAL) for name in found.names) + 110
    wanted = max(columns * (_WIDE + _BETWEEN) + _LEFT, entry, width_of(caption, SMALL))
    width = round(wanted) + 2 * _MARGIN
    beside = min(len(found.names), max(1, int(width / entry)))
    top = _MARGIN + height_of(SMALL)
    foot = -(-len(found.names) // beside) * 32 + 2 * _MARGIN
    height = top + rows * (_TITLE + _HIGH) + _BELOW + foot
    spots = [spot for panel in found.panels for series in panel.series for spot in series.spots]
    limits = _limits([spot.leakage for spot in spots]), _limits([spot.utility for spot in spots])
    with styled():
        figure = Figure((width / DPI, height / DPI), dpi=DPI)
        figure.text(_MARGIN / width, 1 - _MARGIN / height, caption, size=SMALL, color=GREY, va="top")
        for index, panel in enumerate(found.panels):
            row, column = divmod(index, columns)
            left = _MARGIN + _LEFT + column * (_WIDE + _BETWEEN)
            bottom = height - top - (row + 1) * (_TITLE + _HIGH)
            box = np.divide((left, bottom, _WIDE, _HIGH), (width, height, width, height))
            axes = figure.add_axes(tuple(box), xlim=limits[0], ylim=limits[1])
            _name(axes, found, panel.attack, first=column == 0, last=index + columns >= len(found.panels))
            _chance(axes, panel)
            for series in panel.series:
                _draw_series(axes, series, looks[series.name])
            _annotate(axes, panel, looks)
        figure.legend(handles=list(looks.values()), loc="lower center", ncols=beside, columnspacing=1.4)
    return figure


def _looks(found: Tradeoff) -> dict[str, Line2D]:
    """Colour and marker of each series; black is kept for the undefended target."""
    joined = {series.name for panel in found.panels for series in panel.series if series.joined}
    looks: dict[str, Line2D] = {}
    index = 0
    for name in found.names:
        undefended = name.partition(":")[0].partition(",")[0] == "none"
        colour = COLOURS[0] if undefended else COLOURS[1 + index % (len(COLOURS) - 1)]
        marker = MARKERS[0] if undefended else MARKERS[1 + index % (len(MARKERS) - 1)]
        index += not undefended
        looks[name] = Line2D([], [], color=colour, linewidth=1, marker=marker, label=plain(name, 80))
        looks[name].set(markersize=5, markeredgecolor="white", markeredgewidth=0.4)
        looks[name].set_linestyle("-" if name in joined else "none")
    return looks


def _limits(summaries: Sequence[Summary]) -> tuple[float, float]:
    """From the least to the largest bound, with some room; fractions stay about [0, 1]."""
    values = [bound for summary in summaries for bound in (_value(summary), *(summary.interval or ()))]
    low, high = min(values), max(values)
    room = 0.1 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = low - room, high + room
    return (max(low, -0.03), min(high, 1.03)) if summaries[0].definition.unit == "fraction" else (low, high)


def _value(summary: Summary) -> float:
    assert summary.value is not None
    return summary.value


def _name(axes: Axes, found: Tradeoff, attack: str, *, first: bool, last: bool) -> None:
    """Title, axes and grid; only the panels at the left and at the bottom have numbers and names on an axis."""
    axes.set_title(attack)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eaeef2", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=2.5, labelleft=first, labelbottom=last)
    for axis, definition, shown in ((axes.xaxis, found.leakage, last), (axes.yaxis, found.utility, first)):
        ticks = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(*axis.get_view_interval())
        axis.set_ticks([tick for tick in ticks if _inside(tick, *axis.get_view_interval(), definition)])
        if definition.unit == "fraction":
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(100 * value, 6):g}"))
        if shown:
            unit = f", {unit_of(definition)}" if unit_of(definition) else ""
            axis.set_label_text(f"{plain(definition.title, 40)}{unit} ({definition.better} is better)")


def _inside(tick: float, low: float, high: float, definition: Definition) -> bool:
    return low <= tick <= high and (definition.unit != "fraction" or -1e-9 <= tick <= 1 + 1e-9)


def _chance(axes: Axes, panel: Panel) -> None:
    """A line where an attack that guesses would be."""
    chances = {spot.leakage.chance for series in panel.series for spot in series.spots}
    chance = chances.pop() if len(chances) == 1 else None
    low, high = axes.get_xlim()
    if chance is not None and low <= chance <= high:
        axes.axvline(chance, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
        where = axes.get_xaxis_transform()
        axes.text(chance, 0.01, " chance", color=GREY, size=SMALL, transform=where)


def _draw_series(axes: Axes, series: Series, look: Line2D) -> None:
    colour = look.get_color()
    for spot in series.spots:
        x, y = _value(spot.leakage), _value(spot.utility)
        if spot.leakage.interval:
            axes.hlines(y, *spot.leakage.interval, color=colour, linewidth=0.9, alpha=0.45)
        if spot.utility.interval:
            axes.vlines(x, *spot.utility.interval, color=colour, linewidth=0.9, alpha=0.45)
        if spot.seeds:
            xs, ys = zip(*spot.seeds, strict=True)
            axes.scatter(xs, ys, s=5, color=colour, alpha=0.4, linewidths=0)
    line = Line2D([_value(spot.leakage) for spot in series.spots], [_value(spot.utility) for spot in series.spots])
    line.update_from(look)
    axes.add_line(line)


def _annotate(axes: Axes, panel: Panel, looks: dict[str, Line2D]) -> None:
    """Write each note beside its point, where it covers least of what is there."""
    frame = axes.get_window_extent().extents
    taken = [box for series in panel.series for spot in series.spots for box in _covered(axes, spot)]
    taken += [box for series in panel.series if series.joined for box in _along(axes, series)]
    for series in panel.series:
        for spot in series.spots:
            if not spot.note:
                continue
            x, y = axes.transData.transform((_value(spot.leakage), _value(spot.utility)))
            size = width_of(spot.note, SMALL) + 4, height_of(SMALL) * 0.8
            boxes = {(x_side, y_side): _beside(x, y, size, x_side, y_side) for x_side, y_side in _SIDES}
            side = min(_SIDES, key=lambda each: _cost(boxes[each], taken, frame))
            taken.append(boxes[side])
            text = axes.annotate(
                spot.note,
                (_value(spot.leakage), _value(spot.utility)),
                (_OFFSET * 72 / DPI * side[0], _OFFSET * 72 / DPI * side[1]),
                textcoords="offset points",
                ha=("right", "center", "left")[side[0] + 1],
                va=("top", "center", "bottom")[side[1] + 1],
                size=SMALL,
                color=looks[series.name].get_color(),
            )
            text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])


def _covered(axes: Axes, spot: Spot) -> list[_Box]:
    """Boxes in pixels of a point and its bars."""
    x, y = _value(spot.leakage), _value(spot.utility)
    found = [(x, x, y, y, 8.0)]
    if spot.leakage.interval:
        found.append((*spot.leakage.interval, y, y, 2.0))
    if spot.utility.interval:
        found.append((x, x, *spot.utility.interval, 2.0))
    boxes = []
    for left, right, low, high, thick in found:
        (x0, y0), (x1, y1) = axes.transData.transform([(left, low), (right, high)])
        boxes.append((x0 - thick, y0 - thick, x1 + thick, y1 + thick))
    return boxes


def _along(axes: Axes, series: Series) -> list[_Box]:
    """Boxes in pixels along the line of a series."""
    corners = axes.transData.transform([(_value(spot.leakage), _value(spot.utility)) for spot in series.spots])
    boxes: list[_Box] = []
    for start, end in itertools.pairwise(corners):
        steps = max(1, int(np.abs(end - start).max() / 6))
        boxes += [(x - 3, y - 3, x + 3, y + 3) for x, y in np.linspace(start, end, steps, endpoint=False)]
    return boxes


def _beside(x: float, y: float, size: tuple[float, float], x_side: int, y_side: int) -> _Box:
    """The box of a text of that size, on that side of a point."""
    left = x + _OFFSET * x_side - size[0] * (1 - x_side) / 2
    low = y + _OFFSET * y_side - size[1] * (1 - y_side) / 2
    return left, low, left + size[0], low + size[1]


def _cost(box: _Box, taken: Sequence[_Box], frame: Sequence[float]) -> float:
    """Area covered, and area outside the frame, which counts more."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return sum(_overlap(box, other) for other in taken) + 3 * (area - _overlap(box, frame))


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
