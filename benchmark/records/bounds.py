"""Bounds of the numbers of a score by its unit, for scores that are computed here and for those that are read."""

import math
from collections.abc import Iterable, Mapping, Sequence

#: Largest absolute value of a number in a score: sums and squares of such numbers stay finite.
MAX_VALUE = 1e15
#: Largest number of observations.
MAX_COUNT = 10**12
_BOUNDS = {"fraction": (0.0, 1.0), "similarity": (-1.0, 1.0), "distance": (0.0, math.inf), "ratio": (0.0, math.inf)}
#: What rounding may add to a bound, as a share of the larger of 1 and the number.
_ROUNDING = 1e-6


def bounds(unit: str) -> tuple[float, float]:
    """Range of scores with a unit."""
    return _BOUNDS.get(unit, (-math.inf, math.inf))


def fault(
    unit: str,
    value: float | None,
    *,
    n: int = 0,
    interval: Sequence[float] | None = None,
    intervals: Mapping[str, Sequence[float] | None] | None = None,
    spreads: Mapping[str, float | None] | None = None,
    chance: float | None = None,
    per_class: Iterable[float | None] | None = None,
) -> str:
    """Find the first number of a score that its unit excludes.

    Args:
        unit: such as `fraction`, whose scores are in [0, 1].
        value: the score.
        n: number of observations.
        interval: the 95 % interval, which contains the value.
        intervals: further intervals by name.
        spreads: standard deviations by name, of which those of released code may exceed the range.
        chance: value for random guessing.
        per_class: values by label.

    Returns:
        What is wrong, as a phrase; empty if nothing is.
    """
    low, high = bounds(unit)
    low, high = max(low, -MAX_VALUE), min(high, MAX_VALUE)
    if not 0 <= n <= MAX_COUNT:
        return f"expected n to be from 0 to {MAX_COUNT:,}, got another number"
    numbers = [("value", value), ("chance", chance)]
    numbers += [(f"per_class[{i}]", each) for i, each in enumerate(per_class or ())]
    pairs = [("interval", interval)] + [(f"intervals.{name:.40}", each) for name, each in (intervals or {}).items()]
    for name, pair in pairs:
        if pair is not None and not _is_at_most(pair[0], pair[1]):
            return f"expected {name} to be a low and a high end, got {pair[0]:.6g} and {pair[1]:.6g}"
        numbers += [(name, each) for each in pair or ()]
    for name, each in numbers:
        if each is not None and not (_is_at_most(low, each) and _is_at_most(each, high)):
            return f"expected {name} of unit {unit} to be from {low:.6g} to {high:.6g}, got {each:.6g}"
    for name, each in (spreads or {}).items():
        if each is not None and not 0 <= each <= MAX_VALUE:
            return f"expected spreads.{name:.40} to be from 0 to {MAX_VALUE:g}, got {each:.6g}"
    low, high = interval or (-math.inf, math.inf)
    if value is not None and not low - slack(value) <= value <= high + slack(value):
        return f"expected interval to contain the value {value:.6g}, got {low:.6g} to {high:.6g}"
    return ""


def slack(number: float) -> float:
    """Return what rounding may add to a bound beside this number."""
    return _ROUNDING * max(1.0, abs(number))


def _is_at_most(small: float, large: float) -> bool:
    """Return whether `small <= large` up to rounding."""
    return small <= large + slack(min(abs(small), abs(large)))
