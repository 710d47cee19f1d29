"""Random splits by a hash: independent of generators, library versions and the order of files in a folder."""

import hashlib
import json
from collections.abc import Sequence


def ranked(items: Sequence[str], *seed: int | str) -> list[str]:
    """Sort the items by SHA-256 of (seed, item): a fixed random order, independent of their given order."""
    prefix = hashlib.sha256(json.dumps(seed).encode())

    def rank(item: str) -> bytes:
        state = prefix.copy()
        state.update(item.encode())
        return state.digest()

    return sorted(items, key=rank)


def held_out(items: Sequence[str], count: int, *seed: int | str) -> tuple[list[str], list[str]]:
    """Split distinct items into the rest and `count` drawn ones, each in the order of `items`."""
    drawn = set(ranked(items, *seed)[:count])
    return [item for item in items if item not in drawn], [item for item in items if item in drawn]
