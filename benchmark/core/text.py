"""Wording of numbers in messages."""


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
