"""An installed plugin whose components go wrong on demand, and runs of it."""

import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from privbench.benchmark import api, registry
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.cli.main import main
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.runners.scheduler import NullListener


@pytest.fixture(scope="session")
def faulty(tmp_path_factory) -> Iterator[None]:
    """The plugin, importable here and in every process that is started from here."""
    folder = tmp_path_factory.mktemp("faulty")
    facts = folder / "faulty_plugin-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-plugin\nVersion: 1.0\n")
    entries = "[privbench.attacks]\nfaulty = faulty_components:Faulty\n"
    entries += "[privbench.defenses]\nblank = faulty_components:Blank\n"
    (facts / "entry_points.txt").write_text(entries)
    paths = [str(folder), str(Path(__file__).parent)]
    with pytest.MonkeyPatch.context() as patch:
        for path in paths:
            patch.syspath_prepend(path)
        patch.setenv("PYTHONPATH", os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep))
        registry.refresh()
        yield
    registry.refresh()


@pytest.fixture
def hear_ctrl_c() -> Callable[[], None]:
    """For `preexec_fn`: tests in the background of a shell are deaf to Ctrl-C, and what they start is, too."""

    def hear() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return hear


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over threads round differently: here and in processes started from here there is one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


class Heard(NullListener):
    """A listener that remembers."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.repeated: list[tuple[str, str]] = []
        self.failed: dict[str, str] = {}
        self.notes: list[str] = []

    def begin(self, stage, index, total) -> None:
        self.begun.append(stage.title)

    def on_retry(self, stage, reason) -> None:
        self.repeated.append((stage.title, reason))

    def fail(self, stage, reason) -> None:
        self.failed[stage.title] = reason

    def note(self, sentence) -> None:
        self.notes.append(sentence)


@dataclasses.dataclass
class Ran:
    """What came of a run."""

    plan: object
    outcome: object
    records: list
    heard: Heard

    @property
    def reasons(self) -> dict[str, str]:
        """Why stages failed by themselves, by what the attack was told to do."""
        causes = self.outcome.causes(self.plan)
        return {getattr(cause.stage.cell.attack.component, "how", ""): cause.reason for cause in causes}


@pytest.fixture
def run(faulty, tmp_path) -> Callable[..., Ran]:
    """Runs cells of the plugin: one for each way to go wrong, scored by accuracy alone."""

    def go(*ways: str, fields: dict | None = None, seeds=(0,), **options) -> Ran:
        attacks = tuple(Selection("faulty", fields={"how": how, **(fields or {})}) for how in ways)
        matrix = Matrix(
            (Selection("digits"),), (Selection("blank"),), attacks, (Selection("accuracy"),), seeds, "smoke"
        )
        heard = Heard()
        plan, outcome, records = api.execute(
            matrix.cells(),
            data=tmp_path,
            store=tmp_path / "store",
            results=tmp_path / "results",
            listener=heard,
            **{"device": "cpu", **options},
        )
        assert not records or len(load_records(tmp_path / "results")) >= len(records), heard.failed
        return Ran(plan, outcome, records, heard)

    return go


@pytest.fixture
def privbench(faulty, monkeypatch, capsys, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """The command line: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    for name in ("STORE", "RESULTS", "DATA"):
        monkeypatch.setenv(f"PRIVBENCH_{name}", str(tmp_path / name.lower()))

    def go(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["privbench", *map(str, words)])
        try:
            main()
        except SystemExit as ended:
            code = 0 if ended.code is None else ended.code
        else:
            code = 0
        found = capsys.readouterr()
        return code, found.out, found.err

    return go
