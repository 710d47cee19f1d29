"""Progress on stderr: one bar for the plan, one for each loop that runs, with the time left."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
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

if TYPE_CHECKING:
    from ..pipeline.plan import Stage


class LoopBar:
    """The bar of the loop that a stage runs, with its losses."""

    def __init__(self, bars: Progress, title: str) -> None:
        self._bars, self._title = bars, title
        self._task: TaskID | None = None
        self._name = ""

    def begin(self, name: str, total: int, done: int) -> None:
        """A loop of `total` steps starts at step `done`."""
        self.end()
        self._name = name
        self._task = self._bars.add_task(f"  {self._title}: {name}", total=total, completed=done)

    def advance(self, done: int, losses: Mapping[str, float]) -> None:
        """`done` steps are over."""
        if self._task is not None:
            shown = " ".join(f"{key} {value:.3g}" for key, value in losses.items())
            self._bars.update(self._task, completed=done, description=f"  {self._title}: {self._name} {shown}")

    def end(self) -> None:
        """The loop is over."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


class Display:
    """Shows stages and loops; on a terminal a live view, elsewhere a line a stage."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
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
        """A stage begins."""
        if self._plan is None:
            self._plan = self._bars.add_task("plan", total=total)
        self._say(f"[{index}/{total}] {stage.title}")

    def watch(self, stage: Stage) -> LoopBar:
        """The bar of a stage."""
        return self._running.setdefault(stage.key, LoopBar(self._bars, stage.title))

    def end(self, stage: Stage, seconds: float) -> None:
        """A stage is done."""
        self._over(stage)
        self._say(f"      done in {seconds:.1f} s: {stage.title}")

    def on_retry(self, stage: Stage, reason: str) -> None:
        """A stage begins again."""
        self._leave(stage)
        self._say(f"      once more: {stage.title}: {reason}")

    def fail(self, stage: Stage, reason: str) -> None:
        """A stage failed."""
        self._over(stage)
        self._say(f"      failed: {stage.title}: {reason}")

    def note(self, sentence: str) -> None:
        """Something that the user should know of the run."""
        self._say(f"note: {sentence}")

    def _over(self, stage: Stage) -> None:
        self._leave(stage)
        if self._plan is not None:
            self._bars.advance(self._plan)

    def _leave(self, stage: Stage) -> None:
        bar = self._running.pop(stage.key, None)
        if bar is not None:
            bar.end()

    def _say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)
