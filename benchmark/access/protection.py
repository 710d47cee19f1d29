"""Protection of this process's memory from others of the same user."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator

_GET_DUMPABLE, _SET_DUMPABLE = 3, 4


def hide_memory(hidden: bool = True) -> bool:
    """Let no other process of this user trace this one or read its memory through `/proc`, or allow it again.

    Returns:
        Whether it was hidden before. Other systems than Linux have no such switch; there this does nothing.

    Note:
        The user root, and processes that may trace any other, still can.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        control = ctypes.CDLL(None).prctl
        before = bool(control(_GET_DUMPABLE, 0, 0, 0, 0) == 0)
        control(_SET_DUMPABLE, 0 if hidden else 1, 0, 0, 0)
    except (OSError, AttributeError):
        return False
    return before


@contextlib.contextmanager
def hidden_memory() -> Iterator[None]:
    """Hide this process's memory inside the block; see `hide_memory`."""
    before = hide_memory()
    try:
        yield
    finally:
        hide_memory(before)
