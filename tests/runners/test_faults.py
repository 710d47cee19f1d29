"""A failed stage costs its cells and no others, and the same command recomputes only what failed."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.tiny import FAULTY_CELL
from privbench.benchmark import api
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.core.paths import short_temporary_root
from privbench.benchmark.errors import CorruptArtifactError, StorageError
from privbench.benchmark.pipeline.plan import Plan, Stage
from privbench.benchmark.registry import load
from privbench.benchmark.runners import memory
from privbench.benchmark.runners.attempt import StageResult, find_usable
from privbench.benchmark.runners.outcome import ResultCollector
from privbench.benchmark.runners.scheduler import FinishedStage, Listener, Schedule
from privbench.benchmark.store.store import Store

KILLED = "its process was killed by SIGKILL, as the system does when memory runs out"
MEMORY = "out of memory; use a smaller batch, a device or machine with more memory, or fewer --jobs"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and limits of POSIX systems")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_failures_in_this_process_cost_their_cells_only(run) -> None:
    result = run("correct", "raising", "threading", "diverging", "leaking_tensors")
    assert len(result.records) == 1
    assert result.reasons == {
        "raising": "ZeroDivisionError in faulty_runs.py: no such label; --debug shows where",
        "threading": "KeyError in a thread, in faulty_runs.py: 'label'; --debug shows where",
        "diverging": "attack diverged: loss is inf at step 5 of 6 (no checkpoint was kept); lower the learning rate or "
        "the weight of the regulariser",
        "leaking_tensors": MEMORY,
    }
    causes = result.outcome.causes(result.plan)
    assert [len(cause.cells) for cause in causes] == [1, 1, 1, 1]
    again = run("correct", "raising")
    assert again.outcome.computed == []
    assert [title.split()[0] for title in again.events.begun] == ["evidence"]


def test_a_failed_stage_costs_every_cell_that_needs_it() -> None:
    """One of two targets fails, and a prior that two cells share."""
    reads = {"t1": {}, "t2": {}, "p": {}, "e1": {"target": "t1", "prior": "p"}, "e2": {"target": "t2", "prior": "p"}}
    reads |= {"e3": {"target": "t1"}, "e4": {"target": "t2"}}
    reads |= {f"s{i}": {"target": reads[f"e{i}"]["target"], "evidence": f"e{i}"} for i in (1, 2, 3, 4)}
    stages = {key: Stage("target", key, key, inputs, None) for key, inputs in reads.items()}
    plan = Plan(stages, dict.fromkeys(("s1", "s2", "s3", "s4")))
    executor = ScriptedExecutor({"t1", "p"})
    collector = ResultCollector(plan, SimpleNamespace(find=lambda kind, key: None), dict.fromkeys(stages), None)
    outcome = collector.outcome
    Schedule(list(stages.values()), executor, Listener(), collector).run()
    assert executor.started == ["t1", "t2", "p", "e4", "s4"]
    assert {cause.stage.key: cause.cells for cause in outcome.causes(plan)} == {"t1": ("s1", "s3"), "p": ("s1", "s2")}
    assert outcome.failures["e2"] == "its prior failed"
    assert outcome.computed == ["t2", "e4", "s4"]


class ScriptedExecutor:
    """Executor that fails some stages."""

    retries = 0

    def __init__(self, failing: set[str]) -> None:
        self.failing, self.started, self.stage = failing, [], None

    def is_idle(self) -> bool:
        return self.stage is None

    def memory_shortage(self, stage) -> None:
        return None

    def start(self, stage, progress) -> None:
        self.started.append(stage.key)
        self.stage = stage

    def wait(self):
        stage, self.stage = self.stage, None
        return [FinishedStage(stage, StageResult("bad" if stage.key in self.failing else None, computed=True))]

    def close(self) -> None:
        return


def test_an_interrupted_run_has_written_the_records_of_its_finished_cells(run, tmp_path, monkeypatch) -> None:
    """A cluster ends a job at its time limit, not when its last cell is done."""
    real = ResultCollector.end
    ended = []

    def stopped(self, stage) -> None:
        real(self, stage)
        ended.append(stage.kind)
        if ended.count("scores") == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ResultCollector, "end", stopped)
    with pytest.raises(KeyboardInterrupt):
        run("correct", seeds=(0, 1, 2))
    assert {record.cell.seed for record in load_records(tmp_path / "results")} == {0, 1}
    monkeypatch.undo()
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")}
    again = run("correct", seeds=(0, 1, 2))
    assert [record.cell.seed for record, _ in again.records] == [0, 1, 2]
    assert len(again.outcome.computed) == 3
    assert before.keys() < set((tmp_path / "results").rglob("*.json"))


def test_scores_of_an_evaluator_that_raised_count_as_missing_until_they_are_recomputed(
    run, tmp_path, monkeypatch
) -> None:
    """Finding them deletes nothing; recomputing replaces them under the lock of the stage."""
    with monkeypatch.context() as patch:
        patch.setattr(load("evaluator", "accuracy"), "score", lambda self, evidence, judge: 1 / 0)
        result = run("correct")
    (key,) = result.plan.cells
    stage, store = result.plan.stages[key], Store(tmp_path / "store")
    assert result.outcome.scores[key].info["failed"]
    assert find_usable(store, stage) is None
    assert store.find("scores", key) is not None
    again = run("correct")
    assert again.outcome.computed == [key]
    assert find_usable(store, stage) is not None


def test_damage_between_computing_and_reading_affects_no_other_cell(run, monkeypatch) -> None:
    real, tried = api.write_record, []

    def once(plan, key, artifact, results):
        tried.append(key)
        if len(tried) == 1:
            raise CorruptArtifactError("a bit flipped")
        return real(plan, key, artifact, results)

    monkeypatch.setattr(api, "write_record", once)
    result = run("correct", seeds=(0, 1))
    assert len(result.records) == 2
    assert tried == [tried[0], tried[1], tried[0]]


@linux
def test_a_stage_whose_process_was_killed_is_retried(run, tmp_path) -> None:
    result = run("correct", "once killed", fields={"marks": str(tmp_path)}, jobs=2)
    assert not result.events.failed
    assert result.events.retried == [("evidence digits blank faulty seed 0", KILLED)]
    assert len(result.records) == 2
    again = run("correct", "once killed", fields={"marks": str(tmp_path)})
    assert again.outcome.computed == []


@linux
@pytest.mark.slow
def test_processes_that_die_hang_or_leak_cost_their_cells_only(run, tmp_path) -> None:
    ways = ("correct", "killed", "crashing", "hanging", "leaking", "leaking_tensors", "raising")
    result = run(*ways, fields={"marks": str(tmp_path)}, jobs=2, stage_timeout=40)
    assert [record.cell.attack.fields["how"] for record, _ in result.records] == ["correct"]
    assert result.reasons == {
        "killed": f"{KILLED}; failed 2 times",
        "crashing": "its process ended with code 3; failed 2 times",
        "hanging": "it ran longer than --stage-timeout 40 and was stopped; increase the limit",
        "leaking": MEMORY,
        "leaking_tensors": MEMORY,
        "raising": "ZeroDivisionError in faulty_runs.py: no such label; --debug shows where",
    }
    assert sorted(reason for _, reason in result.events.retried) == ["its process ended with code 3", KILLED]


@linux
def test_one_stage_at_a_time_where_memory_is_scarce(run, tmp_path, monkeypatch) -> None:
    first = run("correct")
    assert first.outcome.computed
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    result = run("correct", seeds=(1, 2), jobs=2)
    assert len(result.records) == 2
    (note,) = result.events.notes
    assert note.startswith("memory is scarce, so fewer than 2 stages run at a time: target digits blank seed")


def test_known_peaks_come_from_the_plan_and_from_the_store(run, tmp_path) -> None:
    result = run("correct", "raising")
    store = Store(tmp_path / "store")
    stages = {stage.kind: stage for stage in result.plan.stages.values()}
    peaks = memory.known_peaks(stages.values(), [], store)
    assert peaks.host(stages["target"]) > 1 << 24
    assert peaks.device(stages["target"]) is None
    assert memory.known_peaks(stages.values(), [], Store(tmp_path / "other")).host(stages["target"]) is None


@pytest.mark.parametrize("command", [["run", "--defense", "none", "--attack", "gmi"], ["paper", "run", "bido-table3"]])
def test_ctrl_c_exits_with_130_and_says_how_to_resume(privbench, monkeypatch, command) -> None:
    def interrupt(*cells, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "execute", interrupt)
    code, _, err = privbench(*command)
    assert code == 130
    assert err.endswith("privbench: interrupted; run the same command again to resume\n")


def test_the_command_line_lists_failures_and_recomputes_only_them(privbench, tmp_path) -> None:
    words = ["run", *FAULTY_CELL]
    words += ["--seed", 0, "--seed", 1, "--set", "attack.how=raising", "--json"]
    code, out, err = privbench(*words)
    assert code == 1
    found = json.loads(out)
    assert found["records"] == []
    assert [(one["stage"], one["cells"]) for one in found["failures"]] == [
        (f"evidence digits blank faulty seed {seed}", [f"digits blank faulty seed {seed}"]) for seed in (0, 1)
    ]
    assert "ZeroDivisionError" in found["failures"][0]["reason"]
    lines = err.splitlines()
    assert "2 cells failed; run the same command again to recompute only the failed stages:" in lines[-4]
    assert lines[-3].strip().startswith("evidence digits blank faulty seed 0: ZeroDivisionError")
    assert lines[-1].startswith("2 of 6 stages computed")
    code, out, err = privbench(*words[:-3], "--set", "attack.how=correct", "--json")
    assert code == 0, err
    assert "4 of 6 stages computed" in err
    assert len(json.loads(out)["records"]) == 2


LONG_TMPDIR = """
import os, sys, tempfile
os.makedirs(tempfile.gettempdir(), exist_ok=True)
from privbench.benchmark.runners import processes
if __name__ == "__main__":
    process = processes._context().Process(target=print, args=("alive",), kwargs={"flush": True})
    process.start()
    process.join()
    sys.exit(process.exitcode)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such sockets")
def test_workers_start_although_the_temporary_folder_has_a_long_path(tmp_path: Path) -> None:
    long = tmp_path / ("a" * 60) / ("b" * 60)
    long.mkdir(parents=True)
    script = tmp_path / "script.py"
    script.write_text(LONG_TMPDIR, "utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"TMPDIR": str(long)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr


def test_a_temporary_folder_without_a_short_alternative_is_named(monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "a" * 90)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match=r"^expected TMPDIR to have at most 71 characters, got /aaa.*shorter"):
        short_temporary_root(32)
    monkeypatch.setattr(tempfile, "tempdir", "/" + "a" * 70)
    assert short_temporary_root(32) is None
