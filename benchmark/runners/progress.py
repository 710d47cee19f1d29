"""Progress of stages that run in other processes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..pipeline.plan import Stage
from ..training.progress import Progress


@dataclass(frozen=True)
class LoopProgress:
    """Message about a training loop; `total` is 0 when the loop ends."""

    name: str
    total: int
    done: int
    losses: Mapping[str, float]


class ThrottledProgress:
    """Sends progress as messages, with a minimum time between them.

    Args:
        send: sends a message.
        seconds: minimum time between two messages of a loop, except for its first and last.
    """

    def __init__(self, send: Callable[[LoopProgress], None], seconds: float = 0.25) -> None:
        self._send, self._seconds = send, seconds
        self._name, self._total, self._sent = "", 0, 0.0

    def begin(self, name: str, total: int, done: int) -> None:
        """A loop of `total` steps starts at step `done`."""
        self._name, self._total, self._sent = name, total, time.monotonic()
        self._send(LoopProgress(name, total, done, {}))

    def advance(self, done: int, losses: Mapping[str, float]) -> None:
        """`done` steps are over."""
        now = time.monotonic()
        if now - self._sent >= self._seconds:
            self._sent = now
            self._send(LoopProgress(self._name, self._total, done, dict(losses)))

    def end(self) -> None:
        """The loop is over."""
        self._send(LoopProgress(self._name, 0, 0, {}))


@dataclass
class RunningStage:
    """A stage that another process computes.

    Args:
        stage: the stage.
        progress: receives its progress.
        started: `time.monotonic()` when it started to compute; `None` before.
        timed_out: it exceeded the time limit and was stopped.
    """

    stage: Stage
    progress: Progress
    started: float | None = None
    timed_out: bool = False
    _loop: str | None = None

    def exceeds(self, seconds: float | None) -> bool:
        """Return whether the stage has computed for longer than so many seconds."""
        return seconds is not None and self.started is not None and time.monotonic() - self.started > seconds

    def show(self, message: LoopProgress) -> None:
        """Pass a message on to `progress`; earlier messages may have been lost."""
        if not message.total:
            if message.name == self._loop:
                self.end_loop()
            return
        if message.name != self._loop:
            self.end_loop()
            self._loop = message.name
            self.progress.begin(message.name, message.total, message.done)
        self.progress.advance(message.done, message.losses)

    def end_loop(self) -> None:
        """End the loop that is shown, if any."""
        if self._loop is not None:
            self._loop = None
            self.progress.end()
