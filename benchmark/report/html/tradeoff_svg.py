"""Geometry of the trade-off plot in the HTML report, which a template writes as SVG.

matplotlib does not draw it: its SVG is about six times as large, and has neither links nor the colours of the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...analysis.aggregate import Section
from ...core.config import Definition
from ..formatting import format_number, sanitize, shorten_labels
from ..tradeoff import Panel, Point, Tradeoff, tradeoff
from .charts import Scale

WIDTH, HEIGHT = 360, 270
#: Ends of the axes.
LEFT, TOP, RIGHT, BOTTOM = 46, 14, WIDTH - 12, HEIGHT - 42
#: Height of a label, and estimated width of one character.
_LINE = 14
_CHARACTER = 6.6
#: Number of colours of the style sheet.
_COLOURS = 8
#: Most points of a panel with labels and intervals.
MAX_LABELLED = 24


@dataclass(frozen=True)
class SvgPoint:
    """A point of a panel with its label, which ends at `label_x` if `on_left`, and its description."""

    point: Point
    label: str
    label_x: float
    label_y: float
    on_left: bool
    colour: int
    text: str


@dataclass(frozen=True)
class SvgPlot:
    """A plot with the scales of its axes, and for each of its panels the points."""

    tradeoff: Tradeoff
    x: Scale
    y: Scale
    panels: tuple[tuple[Panel, tuple[SvgPoint, ...]], ...]


def svg_plot(section: Section, utility: Definition, leakage: Definition) -> SvgPlot | None:
    """The trade-off plot of a section; `None` if no row has both scores."""
    plot = tradeoff(section, utility, leakage)
    if plot is None:
        return None
    x = Scale(plot.leakage.low, plot.leakage.high, LEFT, RIGHT)
    y = Scale(plot.utility.low, plot.utility.high, BOTTOM, TOP)
    labels = shorten_labels(dict.fromkeys(row.defense for row in section.rows), 26)
    colours = {defense: i % _COLOURS for i, defense in enumerate(labels)}
    panels = []
    for panel in plot.panels:
        points = [_point(each, x, y, labels[each.row.defense], colours[each.row.defense]) for each in panel.points]
        panels.append((panel, tuple(_spread_labels(points) if len(points) <= MAX_LABELLED else points)))
    return SvgPlot(plot, x, y, tuple(panels))


def _point(point: Point, x: Scale, y: Scale, label: str, colour: int) -> SvgPoint:
    at, width = x(point.x), len(label) * _CHARACTER
    on_left = at + 9 + width > RIGHT
    values = [
        f"{sanitize(score.definition.title, 40)} {format_number(score.value, score.definition.unit)}"
        for score in (point.utility, point.leakage)
    ]
    front = ", on the Pareto front" if point.on_front else ""
    return SvgPoint(
        point=point,
        label=label,
        label_x=max(at - 8, LEFT + width) if on_left else at + 8,
        label_y=y(point.y) - 6,
        on_left=on_left,
        colour=colour,
        text=f"{sanitize(point.row.defense, 120)}: {', '.join(values)}{front}",
    )


def _spread_labels(points: Sequence[SvgPoint]) -> list[SvgPoint]:
    """Move labels down until they do not overlap."""
    placed: list[SvgPoint] = []
    for point in sorted(points, key=lambda point: point.label_y):
        y = point.label_y
        while any(abs(other.label_y - y) < _LINE and _overlap(other, point) for other in placed):
            y += 1
        placed.append(replace(point, label_y=round(y, 2)))
    return placed


def _overlap(a: SvgPoint, b: SvgPoint) -> bool:
    def ends(point: SvgPoint) -> tuple[float, float]:
        left = point.label_x - (len(point.label) * _CHARACTER if point.on_left else 0)
        return left, left + len(point.label) * _CHARACTER

    (a_low, a_high), (b_low, b_high) = ends(a), ends(b)
    return a_low < b_high and b_low < a_high
