"""Bounds of the values that a user gives for fields, checked before anything reads them."""

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidConfigurationError
from ..files.documents import MAX_DEPTH, depth
from ..files.untrusted import shown

#: Integers of fields have 64 bits.
_BITS = 63


def check_given(path: str, value: Any) -> None:
    """Refuse what no field can be: deeply nested values, paths of many parts, integers beyond 64 bits.

    Args:
        path: such as `attack.iterations`, for messages.
        value: from JSON, TOML or Python.

    Raises:
        InvalidConfigurationError: names the path and the fault.
    """
    name = shown(path)
    if path.count(".") >= MAX_DEPTH:
        raise InvalidConfigurationError(f"expected {name} to have at most {MAX_DEPTH} parts, got {path.count('.') + 1}")
    if depth(value) > MAX_DEPTH:
        raise InvalidConfigurationError(f"expected {name} to be nested at most {MAX_DEPTH} levels deep, got more")
    longest = _longest_integer(value)
    if longest > _BITS:
        raise InvalidConfigurationError(
            f"expected {name} to have integers from -2**63 to 2**63 - 1, got one of {longest + 1:,} bits"
        )


def _longest_integer(value: Any) -> int:
    """Return the bits, without sign, of the longest integer in a value that is not deeply nested."""
    if isinstance(value, Mapping):
        return max((_longest_integer(each) for pair in value.items() for each in pair), default=0)
    if isinstance(value, list | tuple):
        return max(map(_longest_integer, value), default=0)
    return (value if value >= 0 else ~value).bit_length() if isinstance(value, int) else 0
