"""Progress of training loops."""

import typing
from collections.abc import Mapping


class Progress(typing.Protocol):
    """Receiver of a loop's progress; the command line displays it."""

    def begin(self, name: str, total: int, done: int) -> None:
        """Report that a loop of `total` steps starts at step `done`."""

    def advance(self, done: int, losses: Mapping[str, float]) -> None:
        """Report that `done` steps are finished."""

    def end(self) -> None:
        """Report that the loop has finished."""


class NullProgress:
    """Progress that is not displayed."""

    def begin(self, name: str, total: int, done: int) -> None:
        """Ignore the start."""

    def advance(self, done: int, losses: Mapping[str, float]) -> None:
        """Ignore the steps."""

    def end(self) -> None:
        """Ignore the end."""
