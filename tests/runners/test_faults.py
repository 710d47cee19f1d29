"""What goes wrong in one stage costs its cells and no others, and the same command computes only that again."""

import json
import os
import sys

import pytest
from privbench.benchmark import api
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.errors import CorruptArtifactError
from privbench.benchmark.pipeline.plan import Plan, Stage
from privbench.benchmark.runners import memory
from privbench.benchmark.runners.attempt import Report
from privbench.benchmark.runners.scheduler import Done, NullListener, Outcome, ResultCollector, Schedule
from privbench.benchmark.store.store import Store

KILLED = "its process was killed by SIGKILL, as the system does when memory runs out"
MEMORY = "out of memory; use a smaller batch, a device or machine with more, or fewer --jobs"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and limits of POSIX systems")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_failures_in_this_process_cost_their_cells_only(run) -> None:
    ran = run("soundly", "raising", "threading", "diverging", "leaking_tensors")
    assert len(ran.records) == 1
    assert ran.reasons == {
        "raising": "ZeroDivisionError in faulty_components.py: no such label; --debug shows where",
        "threading": "KeyError in a thread, in faulty_components.py: 'label'; --debug shows where",
        "diverging": "attack diverged: loss is inf at step 5 of 6 (no checkpoint was kept); lower the learning rate or "
        "the weight of the regulariser",
        "leaking_tensors": MEMORY,
    }
    causes = ran.outcome.causes(ran.plan)
    assert [len(cause.cells) for cause in causes] == [1, 1, 1, 1]
    again = run("soundly", "raising")
    assert again.outcome.computed == []
    assert [title.split()[0] for title in again.heard.begun] == ["evidence"]


def test_a_failed_stage_costs_every_cell_behind_it() -> None:
    """Two targets, of which one fails, a prior that two cells share and that fails, and what is behind them."""
    reads = {"t1": {}, "t2": {}, "p": {}, "e1": {"target": "t1", "prior": "p"}, "e2": {"target": "t2", "prior": "p"}}
    reads |= {"e3": {"target": "t1"}, "e4": {"target": "t2"}}
    reads |= {f"s{i}": {"target": reads[f"e{i}"]["target"], "evidence": f"e{i}"} for i in (1, 2, 3, 4)}
    stages = {key: Stage("target", key, key, inputs, None) for key, inputs in reads.items()}
    plan = Plan(stages, dict.fromkeys(("s1", "s2", "s3", "s4")))
    executor, outcome = Scripted({"t1", "p"}), Outcome()
    Schedule(list(stages.values()), executor, NullListener(), outcome).run()
    assert executor.started == ["t1", "t2", "p", "e4", "s4"]
    assert {cause.stage.key: cause.cells for cause in outcome.causes(plan)} == {"t1": ("s1", "s3"), "p": ("s1", "s2")}
    assert outcome.failures["e2"] == "its prior failed"
    assert outcome.computed == ["t2", "e4", "s4"]


class Scripted:
    """A executor that fails some stages."""

    retries = 0

    def __init__(self, failing: set[str]) -> None:
        self.failing, self.started, self.stage = failing, [], None

    def idle(self) -> bool:
        return self.stage is None

    def fits(self, stage) -> bool:
        return True

    def start(self, stage, progress) -> None:
        self.started.append(stage.key)
        self.stage = stage

    def wait(self):
        stage, self.stage = self.stage, None
        return [Done(stage, Report("bad" if stage.key in self.failing else None, computed=True))]

    def close(self) -> None:
        return


def test_whoever_stops_a_run_has_the_records_of_what_was_done(run, tmp_path, monkeypatch) -> None:
    """A job on a cluster ends when its time is over, not when its last cell is done."""
    real = ResultCollector.end
    ended = []

    def stopped(self, stage) -> None:
        real(self, stage)
        ended.append(stage.kind)
        if ended.count("scores") == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(ResultCollector, "end", stopped)
    with pytest.raises(KeyboardInterrupt):
        run("soundly", seeds=(0, 1, 2))
    assert [record.cell.seed for record in load_records(tmp_path / "results")] == [0, 1]
    monkeypatch.undo()
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")}
    again = run("soundly", seeds=(0, 1, 2))
    assert [record.cell.seed for record, _ in again.records] == [0, 1, 2]
    assert len(again.outcome.computed) == 3
    assert before.keys() < set((tmp_path / "results").rglob("*.json"))


def test_damage_between_computing_and_reading_costs_no_other_cell(run, monkeypatch) -> None:
    real, tried = api.write_record, []

    def once(plan, key, artifact, results):
        tried.append(key)
        if len(tried) == 1:
            raise CorruptArtifactError("a bit fell over")
        return real(plan, key, artifact, results)

    monkeypatch.setattr(api, "write_record", once)
    ran = run("soundly", seeds=(0, 1))
    assert len(ran.records) == 2
    assert tried == [tried[0], tried[1], tried[0]]


@linux
def test_a_killed_process_costs_nothing_but_time(run, tmp_path) -> None:
    ran = run("soundly", "once killed", fields={"marks": str(tmp_path)}, jobs=2)
    assert not ran.heard.failed
    assert ran.heard.repeated == [("evidence digits blank faulty seed 0", KILLED)]
    assert len(ran.records) == 2
    alone = run("soundly", "once killed", fields={"marks": str(tmp_path)})
    assert alone.outcome.computed == []


@linux
@pytest.mark.slow
def test_processes_that_die_hang_or_leak_cost_their_cells_only(run, tmp_path) -> None:
    ways = ("soundly", "killed", "crashing", "hanging", "leaking", "leaking_tensors", "raising")
    ran = run(*ways, fields={"marks": str(tmp_path)}, jobs=2, stage_timeout=40)
    assert [record.cell.attack.fields["how"] for record, _ in ran.records] == ["soundly"]
    assert ran.reasons == {
        "killed": f"{KILLED}; so it went 2 times",
        "crashing": "its process ended with code 3; so it went 2 times",
        "hanging": "it took longer than --stage-timeout 40 and was stopped; give it more seconds",
        "leaking": MEMORY,
        "leaking_tensors": MEMORY,
        "raising": "ZeroDivisionError in faulty_components.py: no such label; --debug shows where",
    }
    assert sorted(reason for _, reason in ran.heard.repeated) == ["its process ended with code 3", KILLED]


@linux
def test_one_stage_at_a_time_where_memory_is_scarce(run, tmp_path, monkeypatch) -> None:
    first = run("soundly")
    assert first.outcome.computed
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    ran = run("soundly", seeds=(1, 2), jobs=2)
    assert len(ran.records) == 2
    (note,) = ran.heard.notes
    assert note.startswith("memory is scarce, so fewer than 2 stages run at a time: target digits blank seed")


def test_measured_peaks_come_from_the_plan_and_from_the_store(run, tmp_path) -> None:
    ran = run("soundly", "raising")
    store = Store(tmp_path / "store")
    stages = {stage.kind: stage for stage in ran.plan.stages.values()}
    found = memory.measured(stages.values(), [], store)
    assert found.host(stages["target"]) > 1 << 24
    assert found.device(stages["target"]) is None
    assert memory.measured(stages.values(), [], Store(tmp_path / "other")).host(stages["target"]) is None


@pytest.mark.parametrize("command", [["run", "--defense", "none", "--attack", "gmi"], ["paper", "run", "bido-table3"]])
def test_ctrl_c_ends_with_130_and_how_to_go_on(privbench, monkeypatch, command) -> None:
    def interrupt(*cells, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "execute", interrupt)
    code, _, err = privbench(*command)
    assert code == 130
    assert err.endswith("privbench: interrupted; the same command goes on where it stopped\n")


def test_the_command_line_groups_failures_and_computes_only_them_again(privbench, tmp_path) -> None:
    words = ["run", "--defense", "blank", "--attack", "faulty", "--evaluator", "accuracy", "--budget", "smoke"]
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
    assert "2 cells were lost; the same command computes only what failed:" in lines[-4]
    assert lines[-3].strip().startswith("evidence digits blank faulty seed 0: ZeroDivisionError")
    assert lines[-1].startswith("2 of 6 stages computed")
    code, out, err = privbench(*words[:-3], "--set", "attack.how=soundly", "--json")
    assert code == 0, err
    assert "4 of 6 stages computed" in err
    assert len(json.loads(out)["records"]) == 2
