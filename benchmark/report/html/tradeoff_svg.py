"""Geometry of the trade-off plot in the HTML report, which a template writes as SVG.

matplotlib does not draw it: its SVG is about ten times as large, and has neither links nor the colours of the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...analysis.aggregate import Section, Summary
from ...core.config import Definition
from ..formatting import format_number, sanitize, shorten_labels
from ..tradeoff import Axis, Panel, Point, tradeoff
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
_MAX_LABELLED = 24


@dataclass(frozen=True)
class SvgTick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class SvgPoint:
    """A row in a panel; the ranges are the ends of its intervals, `key` is that of its first record."""

    key: str
    component: str
    x: float
    y: float
    x_range: tuple[float, float] | None
    y_range: tuple[float, float] | None
    label: str
    label_x: float
    label_y: float
    anchor: str
    colour: int
    on_front: bool
    text: str


@dataclass(frozen=True)
class SvgPanel:
    """Utility against leakage of all defenses under one attack."""

    attack: str
    component: str
    x_title: str
    y_title: str
    x_ticks: tuple[SvgTick, ...]
    y_ticks: tuple[SvgTick, ...]
    points: tuple[SvgPoint, ...]
    front: str
    chance: float | None
    labelled: bool


def svg_panels(section: Section, utility: Definition, leakage: Definition) -> list[SvgPanel]:
    """One panel for each attack; none if no row has both scores."""
    plot = tradeoff(section, utility, leakage)
    if plot is None:
        return []
    x = Scale(plot.leakage.low, plot.leakage.high, LEFT, RIGHT)
    y = Scale(plot.utility.low, plot.utility.high, BOTTOM, TOP)
    labels = shorten_labels(dict.fromkeys(row.defense for row in section.rows), 26)
    styles = {defense: (label, i % _COLOURS) for i, (defense, label) in enumerate(labels.items())}
    return [
        SvgPanel(
            attack=panel.attack,
            component=panel.points[0].row.records[0].cell.attack.name,
            x_title=plot.leakage.title,
            y_title=plot.utility.title,
            x_ticks=_ticks(plot.leakage, x),
            y_ticks=_ticks(plot.utility, y),
            points=_points(panel, x, y, styles),
            front=" ".join(f"{x(leak)},{y(use)}" for leak, use in panel.front),
            chance=None if panel.chance is None else x(panel.chance),
            labelled=len(panel.points) <= _MAX_LABELLED,
        )
        for panel in plot.panels
    ]


def _ticks(axis: Axis, scale: Scale) -> tuple[SvgTick, ...]:
    return tuple(SvgTick(scale(tick.value), tick.label) for tick in axis.ticks)


def _points(panel: Panel, x: Scale, y: Scale, styles: dict[str, tuple[str, int]]) -> tuple[SvgPoint, ...]:
    points = [_point(point, x, y, *styles[point.row.defense]) for point in panel.points]
    return tuple(_spread_labels(points) if len(points) <= _MAX_LABELLED else points)


def _point(point: Point, x: Scale, y: Scale, label: str, colour: int) -> SvgPoint:
    at, up = x(point.x), y(point.y)
    width = len(label) * _CHARACTER
    on_left = at + 9 + width > RIGHT
    values = [
        f"{sanitize(score.definition.title, 40)} {format_number(score.value, score.definition.unit)}"
        for score in (point.utility, point.leakage)
    ]
    front = ", on the Pareto front" if point.on_front else ""
    return SvgPoint(
        key=point.row.records[0].key,
        component=point.row.records[0].cell.defense.name,
        x=at,
        y=up,
        x_range=_range(point.leakage, x),
        y_range=_range(point.utility, y),
        label=label,
        label_x=max(at - 8, LEFT + width) if on_left else at + 8,
        label_y=up - 6,
        anchor="end" if on_left else "start",
        colour=colour,
        on_front=point.on_front,
        text=f"{sanitize(point.row.defense, 120)}: {', '.join(values)}{front}",
    )


def _range(score: Summary, scale: Scale) -> tuple[float, float] | None:
    if score.interval is None:
        return None
    low, high = (scale(min(max(bound, scale.low), scale.high)) for bound in score.interval)
    return low, high


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
        left = point.label_x - (len(point.label) * _CHARACTER if point.anchor == "end" else 0)
        return left, left + len(point.label) * _CHARACTER

    (a_low, a_high), (b_low, b_high) = ends(a), ends(b)
    return a_low < b_high and b_low < a_high
