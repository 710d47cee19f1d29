"""Plot of utility against leakage, independent of the renderer: axes, points with intervals, Pareto fronts.

Two renderers draw it: `figures.tradeoff_figure` with matplotlib for papers, `html.tradeoff_svg` as a small interactive
SVG for the HTML report.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..analysis.aggregate import Row, Section, Summary
from ..core.config import Definition
from .formatting import sanitize, unit_of

#: Room beyond the outermost intervals, as a share of their range, and the limits of an axis of fractions.
_PADDING = 0.06
_FRACTIONS = (-0.02, 1.02)


@dataclass(frozen=True)
class Tick:
    """A labelled value of an axis."""

    value: float
    label: str


@dataclass(frozen=True)
class Axis:
    """The axis of a score; all panels share it."""

    definition: Definition
    low: float
    high: float
    ticks: tuple[Tick, ...]

    @property
    def title(self) -> str:
        """Title of the score, its unit and the direction that is better."""
        unit = unit_of(self.definition)
        return f"{sanitize(self.definition.title, 40)}{unit and ', ' + unit} ({self.definition.better} is better)"


@dataclass(frozen=True)
class Point:
    """One defense configuration under one attack, aggregated over seeds."""

    row: Row
    leakage: Summary
    utility: Summary
    on_front: bool

    @property
    def x(self) -> float:
        """The leakage."""
        return _value(self.leakage)

    @property
    def y(self) -> float:
        """The utility."""
        return _value(self.utility)

    @property
    def seeds(self) -> list[tuple[float, float]]:
        """Leakage and utility of each seed that has both, if there are at least two."""
        pairs: dict[int, tuple[float, float]] = {}
        for record in self.row.records:
            x, y = (record.scores.get(score.definition.name) for score in (self.leakage, self.utility))
            if x and y and x.value is not None and y.value is not None:
                pairs[record.cell.seed] = (x.value, y.value)
        return list(pairs.values()) if len(pairs) > 1 else []


@dataclass(frozen=True)
class Panel:
    """All defenses under one attack.

    Args:
        attack: its name, with evaluators if only they distinguish panels.
        points: in the order of the section's rows.
        front: corners of the boundary of the region that the Pareto front dominates, as leakage and utility.
        chance: leakage of an attack that guesses; `None` if the points disagree or it is beyond the axis.
    """

    attack: str
    points: tuple[Point, ...]
    front: tuple[tuple[float, float], ...]
    chance: float | None


@dataclass(frozen=True)
class Tradeoff:
    """One panel for each attack, with common axes."""

    leakage: Axis
    utility: Axis
    panels: tuple[Panel, ...]


def tradeoff(section: Section, utility: Definition, leakage: Definition) -> Tradeoff | None:
    """Plot of the rows with both scores but controls, which have no utility; `None` if there is no such row."""
    rows = [row for row in section.rows if has_score(row, utility) and has_score(row, leakage) and not row.is_control]
    if not rows:
        return None
    x, y = (_axis([row.scores[score.name] for row in rows], score) for score in (leakage, utility))
    attacks: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        attacks.setdefault((row.attack, row.evaluators), []).append(row)
    return Tradeoff(x, y, tuple(_panel(members, x, y) for members in attacks.values()))


def has_score(row: Row, definition: Definition) -> bool:
    """Tell whether a row has a value of a score."""
    return row.scores[definition.name].value is not None


def _value(summary: Summary) -> float:
    assert summary.value is not None
    return summary.value


def _panel(rows: Sequence[Row], x: Axis, y: Axis) -> Panel:
    pairs = [(row.scores[x.definition.name], row.scores[y.definition.name]) for row in rows]
    front = pareto([(_gain(utility), _gain(leakage)) for leakage, utility in pairs])
    points = tuple(Point(row, *pair, on_front) for row, pair, on_front in zip(rows, pairs, front, strict=True))
    chances = {leakage.chance for leakage, _ in pairs}
    chance = chances.pop() if len(chances) == 1 else None
    return Panel(
        attack=sanitize(" ".join(part for part in (rows[0].attack, rows[0].evaluators) if part), 60),
        points=points,
        front=_corners(points, x.definition, y.definition),
        chance=chance if chance is not None and x.low <= chance <= x.high else None,
    )


def _gain(summary: Summary) -> float:
    return _value(summary) if summary.definition.better == "higher" else -_value(summary)


def pareto(gains: Sequence[tuple[float, float]]) -> list[bool]:
    """Tell for each pair whether no other pair is at least as large in both values and larger in one.

    Example:
        >>> pareto([(1, 3), (2, 2), (1, 2)])
        [True, True, False]
    """
    front: set[tuple[float, float]] = set()
    best = -math.inf
    for first, second in sorted(set(gains), reverse=True):
        if second > best:
            front.add((first, second))
            best = second
    return [tuple(gain) in front for gain in gains]


def _corners(points: Iterable[Point], leakage: Definition, utility: Definition) -> tuple[tuple[float, float], ...]:
    worse_x = max if leakage.better == "lower" else min
    worse_y = min if utility.better == "higher" else max
    front = sorted(
        ((point.x, point.y) for point in points if point.on_front), key=lambda corner: (corner[0], -corner[1])
    )
    corners = [front[0]]
    for (x1, y1), (x2, y2) in itertools.pairwise(front):
        corners += [(worse_x(x1, x2), worse_y(y1, y2)), (x2, y2)]
    return tuple(corners)


def _axis(scores: Iterable[Summary], definition: Definition) -> Axis:
    values = [bound for score in scores for bound in (_value(score), *(score.interval or ()))]
    low, high = min(values), max(values)
    padding = _PADDING * (high - low) or 0.05 * abs(high) or 0.5
    low, high = low - padding, high + padding
    if definition.unit == "fraction":
        low, high = max(low, _FRACTIONS[0]), min(high, _FRACTIONS[1])
    return Axis(definition, low, high, tuple(_ticks(low, high, definition.unit)))


def _ticks(low: float, high: float, unit: str, count: int = 5) -> Iterator[Tick]:
    """Round values between the bounds, about `count` of them; fractions are labelled in percent."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    factor = 100 if unit == "fraction" else 1
    exponent = math.floor(math.log10(factor * step) + 1e-9)
    decimals = max(0, min(6, -exponent + (factor * step / 10**exponent == 2.5)))
    for i in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield Tick(i * step, f"{factor * i * step:.{decimals}f}")
