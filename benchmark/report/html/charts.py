"""Geometry of the small charts in the HTML report: intervals in table cells, bars per class, curves.

Lengths are in user units of an SVG of known size, which a template writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from markupsafe import Markup

from ...records.record import Interval
from ..formatting import format_number

#: Size of the box of bars; the height of the longest bar, and the room for labels below.
BARS = (360, 104)
_BAR, _BELOW = 70, 20
#: Most bars with numbers.
_MAX_NUMBERED = 20
#: Size of the box of a curve.
CURVE = (480, 144)
#: A longer curve is reduced to the smallest and the largest value of each of half as many spans.
_MAX_POINTS = 140


@dataclass(frozen=True)
class Scale:
    """A linear map from values to user units."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Position of a value, which is first moved into the range of the scale."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


@dataclass(frozen=True)
class Strip:
    """A value with its interval on the common scale of a column, in percent of the width."""

    at: float
    low: float | None
    high: float | None


def strips(scores: Sequence[tuple[float | None, Interval | None]], unit: str) -> list[Strip | None]:
    """One strip for each score; fractions on [0, 1], others between the smallest and the largest bound of all.

    Args:
        scores: value and interval of each.
        unit: of all scores.
    """
    values = [bound for value, interval in scores if value is not None for bound in (value, *(interval or ()))]
    if not values:
        return [None] * len(scores)
    low, high = (0.0, 1.0) if unit == "fraction" else (min(values), max(values))
    scale = Scale(low, high if high > low else low + 1, 2, 98)

    def position(value: float | None) -> float | None:
        return None if value is None else round(scale(value), 1)

    found: list[Strip | None] = []
    for value, interval in scores:
        at, (low, high) = position(value), interval or (None, None)
        found.append(None if at is None else Strip(at, position(low), position(high)))
    return found


@dataclass(frozen=True)
class Bar:
    """The value of one label; its numbers are centred at `middle`, that of the value is at the height `top`."""

    x: float
    width: float
    y: float
    height: float
    middle: float
    top: float
    label: int
    value: str


def bars(values: Sequence[float | None], unit: str) -> list[Bar]:
    """Bars from zero for the values of classes, fractions on [0, 1]; missing and negative values have no height."""
    present = [value for value in values if value is not None]
    top = 1.0 if unit == "fraction" else max([*present, 0.0]) or 1.0
    width, step = BARS[0], BARS[0] / max(1, len(values))
    found = []
    for i, value in enumerate(values):
        height = 0.0 if value is None else round(min(max(value / top, 0.0), 1.0) * _BAR, 1)
        x, y = round(i * step + 0.1 * step, 2), round(BARS[1] - _BELOW - height, 1)
        middle = round((i + 0.5) * width / len(values), 1)
        found.append(Bar(x, round(0.8 * step, 2), y, height, middle, round(y - 4, 1), i, format_number(value, unit)))
    return found


def bar_elements(found: Sequence[Bar]) -> Markup:
    """Bars as elements of an SVG; they contain only numbers, so nothing is escaped."""
    shapes = (f'<rect x="{bar.x}" width="{bar.width}" y="{bar.y}" height="{bar.height}"' for bar in found)
    if len(found) > _MAX_NUMBERED:
        titled = zip(shapes, found, strict=True)
        return Markup("".join(f"{shape}><title>label {bar.label}: {bar.value}</title></rect>" for shape, bar in titled))
    numbers = (
        f'<text x="{bar.middle}" y="{BARS[1] - 5}">{bar.label}</text>'
        f'<text class="value" x="{bar.middle}" y="{bar.top}">{bar.value}</text>'
        for bar in found
    )
    return Markup("".join(f"{shape}/>{text}" for shape, text in zip(shapes, numbers, strict=True)))


def describe_bars(found: Sequence[Bar]) -> str:
    """Text for readers who cannot see the bars; only their number if there are many."""
    if len(found) > _MAX_NUMBERED:
        return f"{len(found)} labels"
    return "; ".join(f"label {bar.label}: {bar.value}" for bar in found)


@dataclass(frozen=True)
class Curve:
    """A polyline in a box of size `CURVE`, with the labels of its axes."""

    line: str
    steps: tuple[int, int]
    low: str
    high: str
    first: str
    last: str


@lru_cache(1024)
def curve(points: tuple[tuple[int, float | None], ...]) -> Curve | None:
    """The polyline of a series of steps and values; `None` unless there are values at two steps."""
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
    drawn = _thin_out(known) if len(known) > _MAX_POINTS else known
    positions = ((round(1 + (step - first) * across), round(height - 2 - (value - low) * up)) for step, value in drawn)
    line = " ".join(f"{x},{y}" for x, y in positions)
    ends = (f"{value:.4g}" for value in (low, high, values[0], values[-1]))
    return Curve(line, (first, last), *ends)


def _thin_out(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Keep both ends, and of each of equal spans the points with the smallest and the largest value."""
    spans = _MAX_POINTS // 2
    kept = {0, len(points) - 1}
    for span in range(spans):
        inside = range(span * len(points) // spans, (span + 1) * len(points) // spans)
        kept |= {min(inside, key=lambda i: points[i][1]), max(inside, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]
