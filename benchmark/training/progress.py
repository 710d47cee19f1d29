"""Progress of training loops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from .state import State as State

if TYPE_CHECKING:
    pass


class Progress(Protocol):
    """What a loop reports to; the command line draws it."""

    def begin(self, name: str, total: int, done: int) -> None:
        """A loop of `total` steps starts at step `done`."""

    def advance(self, done: int, losses: Mapping[str, float]) -> None:
        """`done` steps are over."""

    def end(self) -> None:
        """The loop is over."""


class NullProgress:
    """Reports to nobody."""

    def begin(self, name: str, total: int, done: int) -> None:
        """Ignore."""

    def advance(self, done: int, losses: Mapping[str, float]) -> None:
        """Ignore."""

    def end(self) -> None:
        """Ignore."""
