"""Progress on stderr: one bar for the plan and one for each running loop, with the remaining time."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ..core.text import printable
from ..runners.scheduler import Listener
from .output import console

if TYPE_CHECKING:
    from ..pipeline.plan import Stage


class LoopBar:
    """Progress bar of the current loop of a stage, with its losses."""

    def __init__(self, bars: Progress, title: str) -> None:
        self._bars, self._title = bars, title
        self._task: TaskID | None = None
        self._name = ""

    def begin(self, name: str, total: int, done: int) -> None:
        """Start a bar for a loop of `total` steps that is at step `done`."""
        self.end()
        self._name = name
        self._task = self._bars.add_task(printable(f"  {self._title}: {name}"), total=total, completed=done)

    def advance(self, done: int, losses: Mapping[str, float]) -> None:
        """Show that `done` steps are finished."""
        if self._task is not None:
            shown = " ".join(f"{key} {value:.3g}" for key, value in losses.items())
            self._bars.update(
                self._task, completed=done, description=printable(f"  {self._title}: {self._name} {shown}")
            )

    def end(self) -> None:
        """Remove the bar."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


class Display(Listener):
    """Shows stages and loops: live bars on a terminal, otherwise one line per stage."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._plan: TaskID | None = None
        self._running: dict[str, LoopBar] = {}

    def __enter__(self) -> Display:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, stage: Stage, index: int, total: int) -> None:
        """Show that a stage begins."""
        if self._plan is None:
            self._plan = self._bars.add_task("plan", total=total)
        self._print(f"[{index}/{total}] {stage.title}")

    def watch(self, stage: Stage) -> LoopBar:
        """Return the progress bar of a stage."""
        return self._running.setdefault(stage.key, LoopBar(self._bars, stage.title))

    def end(self, stage: Stage, seconds: float) -> None:
        """Show that a stage is finished."""
        self._finish(stage)
        self._print(f"      done in {seconds:.1f} s: {stage.title}")

    def on_retry(self, stage: Stage, reason: str) -> None:
        """Show that a stage is retried."""
        self._remove_bar(stage)
        self._print(f"      retrying: {stage.title}: {reason}")

    def fail(self, stage: Stage, reason: str) -> None:
        """Show that a stage failed."""
        self._finish(stage)
        self._print(f"      failed: {stage.title}: {reason}")

    def note(self, message: str) -> None:
        """Show a message about the run."""
        self._print(f"note: {message}")

    def _finish(self, stage: Stage) -> None:
        self._remove_bar(stage)
        if self._plan is not None:
            self._bars.advance(self._plan)

    def _remove_bar(self, stage: Stage) -> None:
        bar = self._running.pop(stage.key, None)
        if bar is not None:
            bar.end()

    def _print(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)
