"""Verdict on a printed value and ours: when there is one, within which tolerance, and what the interval says.

This module does not import torch.
"""

from typing import Literal

from .table import Published

#: `agrees`: our whole interval is within the tolerance of the printed value; `differs`: all of it is outside.
Verdict = Literal["agrees", "differs", "undecided", "not comparable", "undefined", "no score"]
#: Seeds of the target that a verdict needs.
SEEDS = 3
#: Tolerance in points, or in units of the value, where the table prints no spread. In per cent, it is the largest
#: difference between accuracies of one setting in the file names of BiDO's release, apart from MID (a)
#: (docs/papers.md); the others are chosen.
TOLERANCES = {"per cent": 3.0, "similarity": 0.03, "decibel": 1.0}
#: Tolerance as a share of the printed value, for all other units; chosen.
RELATIVE_TOLERANCE = 0.1


def too_little_effort(budget: str, seeds: int) -> str:
    """Say why records allow no verdict, shortly; empty if they do."""
    if budget != "full":
        return budget
    return "" if seeds >= SEEDS else f"{seeds} seed{'s' * (seeds != 1)}"


def tolerance(unit: str, published: Published) -> float:
    """Return the largest difference to a printed value that counts as agreement: its spread, or else that of the unit.

    A printed spread of 0 says nothing about another training.

    Example:
        >>> tolerance("per cent", Published(value=80, spread=1.5)), tolerance("per cent", Published(value=80))
        (1.5, 3.0)
        >>> tolerance("distance", Published(value=250))
        25.0
    """
    if published.spread:
        return published.spread
    return TOLERANCES.get(unit, RELATIVE_TOLERANCE * abs(published.value))


def verdict(published: float, allowed: float, interval: tuple[float, float] | None) -> Verdict:
    """Judge whether a value agrees with a printed one, up to a tolerance; the interval decides, not the mean.

    Example:
        >>> verdict(80, 3, (78, 82)), verdict(80, 3, (84, 90)), verdict(80, 3, (70, 90)), verdict(80, 3, None)
        ('agrees', 'differs', 'undecided', 'undecided')
    """
    if interval is None:
        return "undecided"
    low, high = published - allowed, published + allowed
    if low <= interval[0] and interval[1] <= high:
        return "agrees"
    return "differs" if interval[1] < low or interval[0] > high else "undecided"
