"""An installed plugin whose components fail on demand, and runs of it."""

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers.command_line import Command
from helpers.installed import refresh_registry
from privbench.benchmark import api
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.runners.scheduler import Listener


@pytest.fixture(scope="session")
def faulty(tmp_path_factory) -> Iterator[None]:
    """Install the plugin for this process and for every process that it starts."""
    folder = tmp_path_factory.mktemp("faulty")
    metadata = folder / "faulty_plugin-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-plugin\nVersion: 1.0\n")
    entries = "[privbench.attacks]\nfaulty = faulty_runs:Faulty\n"
    entries += "[privbench.defenses]\nblank = faulty_runs:Blank\n"
    (metadata / "entry_points.txt").write_text(entries)
    paths = [str(folder), str(Path(__file__).parent)]
    with pytest.MonkeyPatch.context() as patch:
        for path in paths:
            patch.syspath_prepend(path)
        patch.setenv("PYTHONPATH", os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep))
        refresh_registry()
        yield
    refresh_registry()


@pytest.fixture
def enable_ctrl_c() -> Callable[[], None]:
    """For `preexec_fn`: processes in the background of a shell, and those that they start, ignore Ctrl-C."""

    def enable() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return enable


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread, here and in the processes started from here: sums over threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


class RecordingListener(Listener):
    """Records all events."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.retried: list[tuple[str, str]] = []
        self.failed: dict[str, str] = {}
        self.notes: list[str] = []

    def begin(self, stage, index, total) -> None:
        self.begun.append(stage.title)

    def on_retry(self, stage, reason) -> None:
        self.retried.append((stage.title, reason))

    def fail(self, stage, reason) -> None:
        self.failed[stage.title] = reason

    def note(self, message) -> None:
        self.notes.append(message)


@dataclasses.dataclass
class RunResult:
    """Result of a run."""

    plan: object
    outcome: object
    records: list
    events: RecordingListener

    @property
    def reasons(self) -> dict[str, str]:
        """The reasons of the stages that failed themselves, by the attack's field `how`."""
        causes = self.outcome.causes(self.plan)
        return {getattr(cause.stage.cell.attack.component, "how", ""): cause.reason for cause in causes}


@pytest.fixture
def run(faulty, tmp_path) -> Callable[..., RunResult]:
    """Run cells of the plugin: one for each way to fail, scored by accuracy alone."""

    def go(*ways: str, fields: dict | None = None, seeds=(0,), **options) -> RunResult:
        attacks = tuple(Selection("faulty", fields={"how": how, **(fields or {})}) for how in ways)
        matrix = Matrix(
            (Selection("digits"),),
            (Selection("blank"),),
            attacks,
            (Selection("accuracy"),),
            seeds,
            "smoke",
            controls=False,
            sandbox=False,
        )
        events = RecordingListener()
        plan, outcome, records = api.execute(
            matrix.cells(),
            data=tmp_path,
            store=tmp_path / "store",
            results=tmp_path / "results",
            listener=events,
            **{"device": "cpu", **options},
        )
        assert not records or len(load_records(tmp_path / "results")) >= len(records), events.failed
        return RunResult(plan, outcome, records, events)

    return go


@pytest.fixture
def privbench(faulty, privbench: Command) -> Command:
    """The command line with the plugin."""
    return privbench
