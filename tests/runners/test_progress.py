"""Progress of stages that other processes compute: few messages, one bar per stage, no bar left at the end."""

import io
from types import SimpleNamespace

import pytest
from privbench.benchmark.cli.progress import Display
from privbench.benchmark.runners import progress
from privbench.benchmark.runners.progress import LoopProgress, RunningStage, ThrottledProgress
from rich.console import Console


class RecordingProgress:
    def __init__(self) -> None:
        self.calls = []

    def begin(self, name, total, done) -> None:
        self.calls.append(("begin", name, total, done))

    def advance(self, done, losses) -> None:
        self.calls.append(("advance", done, losses))

    def end(self) -> None:
        self.calls.append(("end",))


def test_messages_are_few_and_arrive_in_order(monkeypatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock) / 10))
    messages = []
    throttled = ThrottledProgress(messages.append, seconds=1.0)
    throttled.begin("gan", 40, 5)
    for step in range(6, 41):
        throttled.advance(step, {"loss": step / 10})
    throttled.end()
    assert len(messages) == 5
    shown = RecordingProgress()
    running = RunningStage(None, shown)
    for message in messages:
        running.show(message)
    assert shown.calls[0] == ("begin", "gan", 40, 5)
    assert [call[0] for call in shown.calls].count("end") == 1
    assert shown.calls[-1] == ("end",)


def test_lost_messages_about_the_beginning_or_end_of_a_loop() -> None:
    shown = RecordingProgress()
    running = RunningStage(None, shown)
    running.show(LoopProgress("gan", 0, 0, {}))
    assert shown.calls == []
    running.show(LoopProgress("gan", 10, 3, {}))
    running.show(LoopProgress("attack", 10, 1, {}))
    assert [call[0] for call in shown.calls] == ["begin", "advance", "end", "begin", "advance"]
    running.end_loop()
    running.end_loop()
    assert [call[0] for call in shown.calls].count("end") == 2


def test_the_time_limit_begins_when_the_stage_starts_to_compute(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    running = RunningStage(None, RecordingProgress())
    assert not running.exceeds(0.0)
    running.started = 90.0
    assert running.exceeds(9.0)
    assert not running.exceeds(10.0)
    assert not running.exceeds(None)


@pytest.fixture
def display(monkeypatch):
    display = Display()
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    display._console = console
    display._bars.live.console = console
    return display


def test_each_running_stage_has_a_bar(display) -> None:
    stages = [SimpleNamespace(key=str(i), title=f"target digits none seed {i}") for i in range(3)]
    for index, stage in enumerate(stages, 1):
        display.begin(stage, index, 3)
        bar = display.watch(stage)
        bar.begin("target", 100, 0)
        bar.advance(10 * index, {"loss": 0.5})
    shown = [task.description for task in display._bars.tasks]
    assert shown[1:] == [f"  target digits none seed {i}: target loss 0.5" for i in range(3)]
    display.on_retry(stages[0], "its process died")
    display.end(stages[1], 1.0)
    display.fail(stages[2], "bad")
    assert [task.description for task in display._bars.tasks] == ["plan"]
    (plan,) = display._bars.tasks
    assert (plan.completed, plan.total) == (2, 3)
    display.begin(stages[0], 1, 3)
    display.watch(stages[0]).begin("target", 100, 40)
    assert len(display._bars.tasks) == 2
    text = display._console.file.getvalue()
    assert "retrying: target digits none seed 0: its process died" in text
