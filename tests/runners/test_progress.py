"""Progress of stages that run elsewhere: few messages, one bar for each stage, nothing left behind."""

import io
from types import SimpleNamespace

import pytest
from privbench.benchmark.cli.progress import Display
from privbench.benchmark.runners import worker
from privbench.benchmark.runners.worker import Looping, ThrottledProgress
from rich.console import Console


class Heard:
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
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: next(clock) / 10))
    said = []
    telling = ThrottledProgress(said.append, seconds=1.0)
    telling.begin("gan", 40, 5)
    for step in range(6, 41):
        telling.advance(step, {"loss": step / 10})
    telling.end()
    assert len(said) == 5
    heard, loops = Heard(), set()
    for message in said:
        message.tell(heard, loops)
    assert heard.calls[0] == ("begin", "gan", 40, 5)
    assert heard.calls[-1] == ("end",)
    assert not loops


def test_a_loop_whose_beginning_or_end_was_not_heard() -> None:
    heard, loops = Heard(), set()
    Looping("gan", 0, 0, {}).tell(heard, loops)
    assert heard.calls == []
    Looping("gan", 10, 3, {}).tell(heard, loops)
    Looping("attack", 10, 1, {}).tell(heard, loops)
    assert [call[0] for call in heard.calls] == ["begin", "advance", "end", "begin", "advance"]
    assert loops == {"attack"}


@pytest.fixture
def display(monkeypatch):
    found = Display()
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    found._console = console
    found._bars.live.console = console
    return found


def test_each_stage_that_runs_has_a_bar(display) -> None:
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
    assert "once more: target digits none seed 0: its process died" in text
