"""Published orders of rows, and whether our means repeat them.

A published table says of each two rows of a column which value is higher. That can be checked at any effort, where the
values themselves cannot be compared. This module does not import torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True)
class Measured:
    """A printed value of a row, and ours.

    Args:
        label: of the row.
        published: the printed value.
        ours: our mean over seeds.
        interval: 95 % interval of `ours`.
    """

    label: str
    published: float
    ours: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Pair:
    """Two rows, of which the table prints a higher value for the first.

    Args:
        higher: label of the row with the higher printed value.
        lower: label of the other row.
        ours: our means of both.
        is_reproduced: whether our mean of `higher` is the higher one.
        is_separated: whether our intervals do not overlap, in either order.
    """

    higher: str
    lower: str
    ours: tuple[float, float]
    is_reproduced: bool
    is_separated: bool


@dataclass(frozen=True)
class Order:
    """The pairs of rows of one column under one attack.

    Args:
        column: title of the column.
        decimals: of its printed values.
        attack: of our records.
        protocol: of our records.
        budget: of our records.
        pairs: two rows each, with different printed values.
    """

    column: str
    decimals: int
    attack: str
    protocol: str
    budget: str
    pairs: tuple[Pair, ...]

    def summary(self) -> str:
        """Say in one sentence how many orders our means reproduce, and how many of those the intervals separate."""
        kept = [pair for pair in self.pairs if pair.is_reproduced]
        sure = sum(pair.is_separated for pair in kept)
        reversed_ = sum(pair.is_separated for pair in self.pairs if not pair.is_reproduced)
        text = f"{len(kept)} of {len(self.pairs)} published orders reproduced, {sure} of them with separate intervals"
        return text + (f"; {reversed_} reversed with separate intervals" if reversed_ else "")

    def exceptions(self) -> tuple[str, ...]:
        """Describe the published orders that our means do not reproduce."""
        return tuple(
            f"{pair.higher} > {pair.lower} (ours {pair.ours[0]:.{self.decimals}f} and {pair.ours[1]:.{self.decimals}f}"
            f"{', intervals separate' if pair.is_separated else ''})"
            for pair in self.pairs
            if not pair.is_reproduced
        )


def pairs(rows: Iterable[Measured]) -> tuple[Pair, ...]:
    """Compare each two rows whose printed values differ.

    Example:
        >>> found = pairs([Measured("a", 80, 70, (65, 75)), Measured("b", 60, 50, (40, 60))])
        >>> [(pair.higher, pair.is_reproduced, pair.is_separated) for pair in found]
        [('a', True, True)]
    """
    found = []
    for one, two in combinations(rows, 2):
        if one.label == two.label or one.published == two.published:
            continue
        high, low = (one, two) if one.published > two.published else (two, one)
        found.append(Pair(high.label, low.label, (high.ours, low.ours), high.ours > low.ours, _apart(high, low)))
    return tuple(found)


def _apart(one: Measured, two: Measured) -> bool:
    """Return whether two intervals have no point in common."""
    if one.interval is None or two.interval is None:
        return False
    return one.interval[0] > two.interval[1] or two.interval[0] > one.interval[1]
