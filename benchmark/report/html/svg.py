"""Geometry of the board's drawings: utility against leakage, intervals in table cells, bars per class, curves.

Everything is in user units of an SVG whose size is given; the template draws it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import Markup

from ...analysis.aggregate import Row, Section, Summary
from ...core.config import Definition
from ...records.record import Interval
from ..formatting import number, plain, shorten_labels, unit_of

#: Value, interval and chance of a score.
Measured = tuple[float | None, Interval | None, float | None]
WIDTH, HEIGHT = 360, 270
LEFT, TOP = 46, 14
_RIGHT, _BOTTOM = 12, 42
#: Ends of the axes.
RIGHT, BOTTOM = WIDTH - _RIGHT, HEIGHT - _BOTTOM
#: Height of a label line.
_LINE = 14
#: Estimated width of a character of a label.
_CHARACTER = 6.6
#: Number of colours of the style sheet.
COLOURS = 8
#: In a panel with more points none has a label or whiskers.
LABELLED = 24
#: Size of the box of bars; the height of the longest, and what is left for labels under them.
BARS = (360, 104)
_BAR, _UNDER = 70, 20
#: More bars than these have no numbers.
NUMBERED = 20
#: Size of a curve's box.
CURVE = (480, 144)
#: A longer curve is drawn by the least and the largest value of each of half as many spans.
_DRAWN = 140


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """A row in a panel; `x_range` and `y_range` are the ends of its intervals, `key` is of its first record."""

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
    best: bool
    text: str


@dataclass(frozen=True)
class Panel:
    """Utility against leakage of all defenses under one attack."""

    attack: str
    component: str
    x_title: str
    y_title: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[Point, ...]
    front: str
    chance: float | None
    summary: str
    labelled: bool


@dataclass(frozen=True)
class Scale:
    """A linear map from values to user units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where `value` is drawn."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 2)


def panels(section: Section, utility: Definition, leakage: Definition) -> list[Panel]:
    """One panel per attack, with common axes; rows without both scores are left out."""
    drawn = [row for row in section.rows if _both(row, utility, leakage)]
    if not drawn:
        return []
    x, x_ticks = _axis([row.scores[leakage.name] for row in drawn], leakage.unit, LEFT, RIGHT)
    y, y_ticks = _axis([row.scores[utility.name] for row in drawn], utility.unit, BOTTOM, TOP)
    names = shorten_labels(dict.fromkeys(row.defense for row in section.rows), 26)
    looks = {defense: (name, i % COLOURS) for i, (defense, name) in enumerate(names.items())}
    found = []
    for attack in dict.fromkeys((row.attack, row.evaluators) for row in drawn):
        rows = [row for row in drawn if (row.attack, row.evaluators) == attack]
        best = pareto([(_gain(row, utility), _gain(row, leakage)) for row in rows])
        points = [
            _point(row, utility, leakage, x, y, looks[row.defense], chosen)
            for row, chosen in zip(rows, best, strict=True)
        ]
        chances = {row.scores[leakage.name].chance for row in rows}
        chance = chances.pop() if len(chances) == 1 else None
        found.append(
            Panel(
                attack=plain(" ".join(part for part in attack if part), 60),
                component=rows[0].records[0].cell.attack.name,
                x_title=_axis_title(leakage),
                y_title=_axis_title(utility),
                x_ticks=x_ticks,
                y_ticks=y_ticks,
                points=tuple(_spread_labels(points) if len(points) <= LABELLED else points),
                front=_steps(points, utility, leakage),
                chance=x(chance) if chance is not None and x.low <= chance <= x.high else None,
                summary="; ".join(point.text for point in points[:LABELLED]),
                labelled=len(points) <= LABELLED,
            )
        )
    return found


def pareto(gains: Sequence[tuple[float, float]]) -> list[bool]:
    """Which pairs are not dominated: no other is at least as large in both and larger in one.

    Example:
        >>> pareto([(1, 3), (2, 2), (1, 2)])
        [True, True, False]
    """
    front: set[tuple[float, float]] = set()
    reached = -math.inf
    for first, second in sorted(set(gains), reverse=True):
        if second > reached:
            front.add((first, second))
            reached = second
    return [tuple(gain) in front for gain in gains]


def _both(row: Row, *definitions: Definition) -> bool:
    return all(row.scores[definition.name].value is not None for definition in definitions)


def _gain(row: Row, definition: Definition) -> float:
    value = row.scores[definition.name].value
    assert value is not None
    return value if definition.better == "higher" else -value


def _axis_title(definition: Definition) -> str:
    unit = unit_of(definition)
    return f"{plain(definition.title, 40)}{', ' + unit if unit else ''} ({definition.better} is better)"


def _axis(scores: Iterable[Summary], unit: str, start: float, end: float) -> tuple[Scale, tuple[Tick, ...]]:
    values = [bound for score in scores if score.value is not None for bound in (score.value, *(score.interval or ()))]
    low, high = min(values), max(values)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    low, high = low - pad, high + pad
    if unit == "fraction":
        low, high = max(low, -0.02), min(high, 1.02)
    scale = Scale(low, high, start, end)
    return scale, tuple(Tick(scale(value), _tick(value, unit, step)) for value, step in _nice(low, high))


def _nice(low: float, high: float, count: int = 5) -> list[tuple[float, float]]:
    """Round values between the bounds, about as many as `count`, each with their step."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step)
    return [(i * step, step) for i in range(first, math.floor(high / step) + 1)]


def _tick(value: float, unit: str, step: float) -> str:
    if unit == "fraction":
        value, step = 100 * value, 100 * step
    decimals = max(0, min(6, -math.floor(math.log10(step) + 1e-9) + (step / 10 ** math.floor(math.log10(step)) == 2.5)))
    return f"{value:.{decimals}f}"


def _point(
    row: Row, utility: Definition, leakage: Definition, x: Scale, y: Scale, look: tuple[str, int], best: bool
) -> Point:
    across, up = row.scores[leakage.name], row.scores[utility.name]
    assert across.value is not None
    assert up.value is not None
    label, colour = look
    at = x(across.value)
    left = at + 9 + len(label) * _CHARACTER > RIGHT
    words = [f"{plain(d.title, 40)} {number(s.value, d.unit)}" for d, s in ((utility, up), (leakage, across))]
    return Point(
        key=row.records[0].key,
        component=row.records[0].cell.defense.name,
        x=at,
        y=y(up.value),
        x_range=_ends(across, x),
        y_range=_ends(up, y),
        label=label,
        label_x=at - 8 if left else at + 8,
        label_y=y(up.value) - 6,
        anchor="end" if left else "start",
        colour=colour,
        best=best,
        text=f"{plain(row.defense, 120)}: {', '.join(words)}{', on the front' if best else ''}",
    )


def _ends(score: Summary, scale: Scale) -> tuple[float, float] | None:
    if score.interval is None:
        return None
    low, high = (min(max(bound, scale.low), scale.high) for bound in score.interval)
    return scale(low), scale(high)


def _spread_labels(points: Sequence[Point]) -> list[Point]:
    """Move labels down until none overlaps one above it."""
    placed: list[Point] = []
    for point in sorted(points, key=lambda p: p.label_y):
        y = point.label_y
        while any(abs(other.label_y - y) < _LINE and _overlap(other, point) for other in placed):
            y += 1
        placed.append(Point(**{**point.__dict__, "label_y": round(y, 2)}))
    return placed


def _overlap(a: Point, b: Point) -> bool:
    def ends(p: Point) -> tuple[float, float]:
        width = len(p.label) * _CHARACTER
        return (p.label_x - width, p.label_x) if p.anchor == "end" else (p.label_x, p.label_x + width)

    (a_low, a_high), (b_low, b_high) = ends(a), ends(b)
    return a_low < b_high and b_low < a_high


def _steps(points: Sequence[Point], utility: Definition, leakage: Definition) -> str:
    """The boundary of what the front dominates, as the points of a polyline."""
    worse_x = max if leakage.better == "lower" else min
    worse_y = max if utility.better == "higher" else min  # the axis of an SVG points down
    front = sorted((point.x, point.y) for point in points if point.best)
    corners = [front[0]]
    for (x1, y1), (x2, y2) in itertools.pairwise(front):
        corners += [(worse_x(x1, x2), worse_y(y1, y2)), (x2, y2)]
    return " ".join(f"{x},{y}" for x, y in corners)


@dataclass(frozen=True)
class Strip:
    """A value with its interval on the common scale of a column; in percent of the width."""

    at: float
    low: float | None
    high: float | None
    chance: float | None


def strips(scores: Sequence[Measured], unit: str) -> list[Strip | None]:
    """One strip per score; fractions on [0, 1], others from the least to the largest bound of them all.

    Args:
        scores: value, interval and chance of each.
        unit: of them all.
    """
    values = [bound for value, interval, _ in scores if value is not None for bound in (value, *(interval or ()))]
    if not values:
        return [None] * len(scores)
    low, high = (0.0, 1.0) if unit == "fraction" else (min(values), max(values))
    scale = Scale(low, high if high > low else low + 1, 2, 98)

    def place(value: float | None) -> float | None:
        return None if value is None else round(scale(min(max(value, scale.low), scale.high)), 1)

    found: list[Strip | None] = []
    for value, interval, chance in scores:
        at, ends = place(value), interval or (None, None)
        found.append(None if at is None else Strip(at, place(ends[0]), place(ends[1]), place(chance)))
    return found


@dataclass(frozen=True)
class Bar:
    """The value of one label; `middle` and `top` are where its numbers are written, if they are."""

    x: float
    width: float
    y: float
    height: float
    middle: float
    top: float
    label: int
    value: str


def bars(values: Sequence[float | None], unit: str) -> list[Bar]:
    """Bars of per-class values from zero; fractions on [0, 1]; missing and negative ones are flat."""
    present = [value for value in values if value is not None]
    top = 1.0 if unit == "fraction" else max([*present, 0.0]) or 1.0
    width, step = BARS[0], BARS[0] / max(1, len(values))
    found = []
    for i, value in enumerate(values):
        height = 0.0 if value is None else round(min(max(value / top, 0.0), 1.0) * _BAR, 1)
        x, y = round(i * step + 0.1 * step, 2), round(BARS[1] - _UNDER - height, 1)
        middle = round((i + 0.5) * width / len(values), 1)
        found.append(Bar(x, round(0.8 * step, 2), y, height, middle, round(y - 4, 1), i, number(value, unit)))
    return found


def marks(found: Sequence[Bar]) -> Markup:
    """Bars as elements of an SVG; nothing in them but numbers, and so no need to escape each."""
    shapes = (f'<rect x="{bar.x}" width="{bar.width}" y="{bar.y}" height="{bar.height}"' for bar in found)
    if len(found) > NUMBERED:
        titled = zip(shapes, found, strict=True)
        return Markup("".join(f"{shape}><title>label {bar.label}: {bar.value}</title></rect>" for shape, bar in titled))
    numbers = (
        f'<text x="{bar.middle}" y="{BARS[1] - 5}">{bar.label}</text>'
        f'<text class="value" x="{bar.middle}" y="{bar.top}">{bar.value}</text>'
        for bar in found
    )
    return Markup("".join(f"{shape}/>{text}" for shape, text in zip(shapes, numbers, strict=True)))


def in_words(found: Sequence[Bar]) -> str:
    """Bars for those who cannot see them; of many only how many."""
    if len(found) > NUMBERED:
        return f"{len(found)} labels"
    return "; ".join(f"label {bar.label}: {bar.value}" for bar in found)


@dataclass(frozen=True)
class Curve:
    """A polyline in a box of size `CURVE`, with what its axes say."""

    line: str
    steps: tuple[int, int]
    low: str
    high: str
    first: str
    last: str


@lru_cache(1024)
def curve(points: tuple[tuple[int, float | None], ...]) -> Curve | None:
    """A series of steps and values, ready to be drawn; `None` below two values at two steps."""
    known = [(step, value) for step, value in points if value is not None]
    if len(known) < 2:
        return None
    steps, values = [step for step, _ in known], [value for _, value in known]
    first, last = min(steps), max(steps)
    if first == last:
        return None
    low, high = min(values), max(values)
    width, height = CURVE
    across, up = (width - 2) / (last - first), (height - 4) / ((high - low) or 1)
    drawn = _thinned(known) if len(known) > _DRAWN else known
    places = ((round(1 + (step - first) * across), round(height - 2 - (value - low) * up)) for step, value in drawn)
    line = " ".join(f"{x},{y}" for x, y in places)
    ends = (f"{value:.4g}" for value in (low, high, values[0], values[-1]))
    return Curve(line, (first, last), *ends)


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Of each of equal spans the points with the least and the largest value, in order, and both ends."""
    spans = _DRAWN // 2
    kept = {0, len(points) - 1}
    for span in range(spans):
        inside = range(span * len(points) // spans, (span + 1) * len(points) // spans)
        kept |= {min(inside, key=lambda i: points[i][1]), max(inside, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]
