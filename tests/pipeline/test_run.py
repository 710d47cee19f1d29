"""The main job on tiny settings: once per key, killed and resumed, two at a time, damaged and made again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import torch
from helpers import command_line, tiny
from privbench.benchmark import api
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.core.config import StageKind
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import build_plan
from privbench.benchmark.store.store import Store

SETTINGS = tiny.SETTINGS | {"attack.max_steps": 3, "attack.iterations": 3}
WORDS = ["--no-controls", "--defense", "none", "--defense", "bido_hsic", "--attack", "kedmi", "--budget", "smoke"]


def matrix(**changes: object) -> Matrix:
    values = {
        "datasets": (Selection("digits"),),
        "defenses": (Selection("none"), Selection("bido_hsic")),
        "attacks": (Selection("kedmi"),),
        "budget": "smoke",
        "settings": SETTINGS,
        "controls": False,
    }
    return Matrix(**(values | changes))  # type: ignore[arg-type]


def execute(folder: Path, made: Matrix | None = None, jobs: int = 1):
    return api.execute(
        (made or matrix()).cells(), data=folder, store=folder / "store", results=folder / "results", jobs=jobs
    )


def outcome(folder: Path) -> dict[str, object]:
    """Everything of a run that must not depend on when and how often it was started."""
    found: dict[str, object] = {}
    for record in load_records(folder / "results"):
        facts = json.loads(record.text())
        found[record.key] = {name: facts[name] for name in ("scores", "artifacts", "queries", "cell", "curves")}
    assert found
    return found


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over threads round differently: here and in processes started from here there is one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> Path:
    """An undisturbed run."""
    folder = tmp_path_factory.mktemp("quiet")
    plan, result, records = execute(folder)
    assert not result.failures
    assert len(records) == 2
    assert len(result.computed) == len(plan.stages) == 12
    return folder


def test_shared_stages_are_planned_once_and_nothing_is_computed_twice(quiet: Path) -> None:
    before = outcome(quiet)
    _, result, records = execute(quiet)
    assert result.computed == []
    assert len(records) == 2
    assert outcome(quiet) == before
    assert Store(quiet / "store").check() == []


def test_the_record_of_a_cached_cell_is_not_written_again(quiet: Path) -> None:
    files = sorted((quiet / "results").rglob("*.*"))
    before = [(file.stat().st_mtime_ns, file.read_bytes()) for file in files]
    _, _, records = execute(quiet)
    assert [(file.stat().st_mtime_ns, file.read_bytes()) for file in files] == before
    record, path = records[0]
    path.write_text(path.read_text("utf-8").replace('"created": "2', '"created": "1'), "utf-8")
    (other,) = (file for file in files if file == path.with_suffix(".png"))
    other.unlink()
    execute(quiet)
    assert load_records(path).items[0] == record.model_copy(update={"created": f"1{record.created[1:]}"})
    assert other.is_file(), "a missing picture is drawn again"
    path.write_text("{", "utf-8")
    execute(quiet)
    assert load_records(path).items[0].scores == record.scores, "a damaged record is written again"


def test_a_record_holds_both_judges_and_what_they_verify(quiet: Path) -> None:
    for record in load_records(quiet / "results"):
        first, second = record.judge, record.judge["second_judge"]
        assert (first["network"], second["network"]) == ("scnn", "lenet5")
        assert first["n"] == second["n"] == 364
        assert 0 < second["test_accuracy"] < 1
        assert {"judge", "second_judge", "negatives"} <= set(record.artifacts) & set(record.costs)
        assert record.scores["verified_acc"].value <= record.scores["attack_acc"].value
        assert f"lenet5 (right on {second['test_accuracy']:.1%}" in record.scores["verified_acc"].notes[1]
        assert record.scores["fpr_both"].n == record.scores["fpr_first"].n <= 10
        assert 0 < record.scores["knn_distance"].value < 2


def test_changing_the_evaluators_only_scores_again(quiet: Path) -> None:
    plan, result, _ = execute(quiet, matrix(evaluators=(Selection("attack_acc"),)))
    assert {plan.stages[key].kind for key in result.computed} == {"scores"}


def test_changing_the_attack_keeps_targets_judge_and_prior(quiet: Path) -> None:
    plan, result, _ = execute(
        quiet, matrix(settings=SETTINGS | {"attack.iterations": 2}, defenses=(Selection("none"),))
    )
    assert sorted(plan.stages[key].kind for key in result.computed) == ["evidence", "scores"]


def test_another_seed_shares_the_judges_alone(quiet: Path) -> None:
    plan = build_plan(matrix(seeds=(0, 1)).cells(), quiet)
    kinds = [stage.kind for stage in plan.stages.values()]
    assert kinds.count("judge") == kinds.count("second_judge") == 1
    assert {kinds.count(kind) for kind in ("target", "negatives", "prior", "evidence", "scores")} == {4}


def test_run_takes_text_paths_and_jobs(quiet: Path, monkeypatch) -> None:
    monkeypatch.setattr(api, "build_plan", lambda cells, root: pytest.fail("planned"))
    words = {"data": str(quiet), "store": str(quiet / "store"), "results": str(quiet / "results")}
    for name, value in {"jobs": 0, "threads": True, "runner": "slurm"}.items():
        with pytest.raises(InvalidConfigurationError, match=f"expected {name} to be "):
            api.run("none", "kedmi", **words, **{name: value})
    monkeypatch.undo()
    records = api.run(
        ["none", "bido_hsic"], "kedmi", budget="smoke", settings=SETTINGS, controls=False, jobs=2, threads=1, **words
    )
    assert [record.key for record in records] == [record.key for record, _ in execute(quiet)[2]]


def test_a_record_names_the_command_that_makes_it_again(quiet: Path, tmp_path: Path) -> None:
    record = next(iter(load_records(quiet / "results")))
    words = [*record.command[1:], "--store", str(quiet / "store"), "--results", str(tmp_path), "--json"]
    assert [found["key"] for found in json.loads(command_line.output(*words))["records"]] == [record.key]


def test_a_flipped_byte_in_any_artifact_is_caught_and_made_again(quiet: Path) -> None:
    before = outcome(quiet)
    rng = random.Random(0)
    store = Store(quiet / "store")
    for stage in {stage.kind: stage for stage in build_plan(matrix().cells(), quiet).stages.values()}.values():
        artifact = store.find(stage.kind, stage.key)
        assert artifact is not None
        path = rng.choice(sorted(artifact.path.iterdir()))
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    plan, result, _ = execute(quiet)
    assert not result.failures
    assert {plan.stages[key].kind for key in result.computed} == set(get_args(StageKind))
    assert outcome(quiet) == before
    assert store.check() == []


def test_several_processes_give_the_same_bytes(quiet: Path, tmp_path: Path) -> None:
    _, result, _ = execute(tmp_path, jobs=2)
    assert not result.failures
    assert outcome(tmp_path) == outcome_of_main_cells(quiet)


def outcome_of_main_cells(quiet: Path) -> dict[str, object]:
    wanted = {record.key for record, _ in execute(quiet)[2]}
    return {key: value for key, value in outcome(quiet).items() if key in wanted}


def command(folder: Path) -> list[str]:
    return [
        "run",
        *WORDS,
        *tiny.words(SETTINGS),
        "--store",
        str(folder / "store"),
        "--results",
        str(folder / "results"),
    ]


def test_two_processes_on_one_store_do_each_stage_once(quiet: Path, tmp_path: Path) -> None:
    with command_line.Waiting(*command(tmp_path)) as other:
        other.start()
        both = [command_line.run(*command(tmp_path)), other.result()]
    assert [done.code for done in both] == [0, 0], both
    lines = [line for done in both for line in done.err.splitlines()]
    computed = [int(line.split()[0]) for line in lines if "stages computed in" in line]
    assert len(computed) == 2
    assert sum(computed) == 12
    assert outcome(tmp_path) == outcome_of_main_cells(quiet)
    assert Store(tmp_path / "store").check() == []


def start(folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "privbench", *command(folder)], stderr=log, stdout=log)


@pytest.mark.slow
def test_killed_at_random_moments_ends_as_if_undisturbed(quiet: Path, tmp_path: Path) -> None:
    rng = random.Random(int(os.environ.get("PRIVBENCH_KILL_SEED", "1")))
    kills = 0
    while kills < 20:
        process = start(tmp_path)
        time.sleep(rng.uniform(2.0, 8.0))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        elif process.returncode == 0:
            break
        process.wait()
    assert start(tmp_path).wait() == 0
    assert kills
    assert outcome(tmp_path) == outcome_of_main_cells(quiet)
    assert Store(tmp_path / "store").check() == []
