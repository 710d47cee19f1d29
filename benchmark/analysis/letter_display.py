"""Compact letter display: defenses that cannot be told apart share a letter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Booleans = NDArray[np.bool_]
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def groups(apart: Booleans) -> list[tuple[int, ...]]:
    """Compact letter display: numbers of the groups of each of M, such that two share one if and only if not apart.

    Each group is a clique of the graph of pairs that are not apart, grown from the first pair that none covers yet, in
    the given order; groups that others make needless are left out.

    References:
        H.-P. Piepho, "An algorithm for a letter-based representation of all-pairwise comparisons", Journal of
        Computational and Graphical Statistics 13, 2004.

    Args:
        apart: `M M`, symmetric.

    Note:
        Piepho starts from one group and splits it at each pair that is apart, which may need memory exponential in M.
    """
    size = len(apart)
    near = [_bits(~apart[i], i) for i in range(size)]
    left = list(near)
    cliques: list[int] = []
    for i in range(size):
        while left[i]:
            clique = _grown(i, near, left)
            cliques.append(clique)
            _cover(clique, left)
        if not near[i]:
            cliques.append(1 << i)
    needed = _needed([[i for i in range(size) if clique >> i & 1] for clique in cliques], size)
    found: list[list[int]] = [[] for _ in range(size)]
    for g, members in enumerate(needed):
        for i in members:
            found[i].append(g)
    return [tuple(group) for group in found]


def _needed(cliques: Sequence[list[int]], size: int) -> list[list[int]]:
    """Without those whose pairs are all in others, the smallest asked first."""
    covered = np.zeros((size, size), dtype=np.int64)
    for members in cliques:
        covered[np.ix_(members, members)] += 1
    needless = set()
    for g in sorted(range(len(cliques)), key=lambda g: len(cliques[g])):
        pairs = np.ix_(cliques[g], cliques[g])
        if (covered[pairs] > 1).all():
            covered[pairs] -= 1
            needless.add(g)
    return [members for g, members in enumerate(cliques) if g not in needless]


def _bits(row: Booleans, without: int) -> int:
    return sum(1 << int(j) for j in np.flatnonzero(row) if j != without)


def _grown(i: int, near: Sequence[int], left: Sequence[int]) -> int:
    """A maximal clique with i and the first neighbour that it shares no group with yet."""
    clique, open_to = 1 << i, near[i]
    while open_to:
        wanted = open_to & left[i] or open_to
        j = (wanted & -wanted).bit_length() - 1
        clique |= 1 << j
        open_to &= near[j]
    return clique


def _cover(clique: int, left: list[int]) -> None:
    rest = clique
    while rest:
        j = (rest & -rest).bit_length() - 1
        left[j] &= ~clique
        rest &= rest - 1


def texts(groups: Sequence[tuple[int, ...]]) -> list[str]:
    """Letters, or numbers with runs of three or more shortened where the alphabet does not suffice.

    Example:
        >>> texts([(0,), (0, 1), (1,)])
        ['a', 'ab', 'b']
    """
    if max(max(group) for group in groups) < len(_LETTERS):
        return ["".join(_LETTERS[g] for g in group) for group in groups]
    return [", ".join(_runs(group)) for group in groups]


def _runs(numbers: Iterable[int]) -> Iterator[str]:
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    for run in runs:
        yield f"{run[0] + 1}-{run[-1] + 1}" if len(run) > 2 else ", ".join(str(number + 1) for number in run)
