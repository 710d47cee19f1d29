"""Compact letter display: defenses that are not distinguishable share a letter."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Booleans = NDArray[np.bool_]
_ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def assign_groups(distinct: Booleans) -> list[tuple[int, ...]]:
    """Assign groups to M items, such that two items share a group if and only if they are not distinct.

    Each group is a clique in the graph of pairs that are not distinct. Cliques grow from the first pair that no clique
    covers yet, in the given order; redundant cliques are removed.

    References:
        H.-P. Piepho, "An algorithm for a letter-based representation of all-pairwise comparisons", Journal of
        Computational and Graphical Statistics 13, 2004.

    Args:
        distinct: `M M`, symmetric.

    Returns:
        The numbers of the groups of each item.

    Note:
        Piepho starts from one group and splits it at each distinct pair, which may need memory exponential in M.
    """
    size = len(distinct)
    neighbours = [_bitmask(~distinct[i]) & ~(1 << i) for i in range(size)]
    uncovered = list(neighbours)
    cliques: list[int] = []
    for i in range(size):
        while uncovered[i]:
            clique = _grow_clique(i, neighbours, uncovered)
            cliques.append(clique)
            for j in _members(clique):
                uncovered[j] &= ~clique
        if not neighbours[i]:
            cliques.append(1 << i)
    groups: list[list[int]] = [[] for _ in range(size)]
    for number, members in enumerate(_remove_redundant([_members(clique) for clique in cliques], size)):
        for i in members:
            groups[i].append(number)
    return [tuple(group) for group in groups]


def _remove_redundant(cliques: Sequence[list[int]], size: int) -> list[list[int]]:
    """Remove cliques whose pairs other cliques all cover, the smallest first."""
    covered = np.zeros((size, size), dtype=np.int64)
    for members in cliques:
        covered[np.ix_(members, members)] += 1
    redundant = set()
    for number in sorted(range(len(cliques)), key=lambda number: len(cliques[number])):
        pairs = np.ix_(cliques[number], cliques[number])
        if (covered[pairs] > 1).all():
            covered[pairs] -= 1
            redundant.add(number)
    return [members for number, members in enumerate(cliques) if number not in redundant]


def _bitmask(row: Booleans) -> int:
    return sum(1 << int(j) for j in np.flatnonzero(row))


def _members(clique: int) -> list[int]:
    members = []
    while clique:
        members.append((clique & -clique).bit_length() - 1)
        clique &= clique - 1
    return members


def _grow_clique(i: int, neighbours: Sequence[int], uncovered: Sequence[int]) -> int:
    """A maximal clique with i and its first neighbour that no common clique covers yet."""
    clique, candidates = 1 << i, neighbours[i]
    while candidates:
        preferred = candidates & uncovered[i] or candidates
        j = (preferred & -preferred).bit_length() - 1
        clique |= 1 << j
        candidates &= neighbours[j]
    return clique


def format_groups(groups: Sequence[tuple[int, ...]]) -> list[str]:
    """Format groups as letters, or as numbers with shortened runs if there are more groups than letters.

    Example:
        >>> format_groups([(0,), (0, 1), (1,)])
        ['a', 'ab', 'b']
    """
    if max(max(group) for group in groups) < len(_ALPHABET):
        return ["".join(_ALPHABET[number] for number in group) for group in groups]
    return [", ".join(_runs(group)) for group in groups]


def _runs(numbers: Iterable[int]) -> Iterator[str]:
    """Numbers counted from 1, with runs of three or more as a range."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    for run in runs:
        yield f"{run[0] + 1}-{run[-1] + 1}" if len(run) > 2 else ", ".join(str(number + 1) for number in run)
