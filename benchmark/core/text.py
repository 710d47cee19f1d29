"""Wording of numbers in messages, and text that a terminal only shows."""

import re

#: Characters that a terminal obeys, or that change the order of what it shows.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def count(number: int, one: str, many: str = "") -> str:
    """Format a number with its noun.

    Args:
        number: how many.
        one: the singular.
        many: the plural; by default the singular with an s.

    Example:
        >>> count(1, "cell"), count(2000, "cell"), count(3, "identity", "identities")
        ('1 cell', '2,000 cells', '3 identities')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def printable(text: str) -> str:
    r"""Replace control characters (C0, C1, DEL) and those that set the direction of text; tabs and newlines stay.

    Example:
        >>> printable("red \x1b[31m")
        'red �[31m'
    """
    return _OBEYED.sub("\ufffd", text)
