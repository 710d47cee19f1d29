"""Stages on a Ray cluster: the same records as on one machine, and a message for every failure."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.tiny import FAULTY_CELL
from privbench.benchmark import api
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.runners import ray_machines
from privbench.benchmark.runners.progress import LoopProgress
from privbench.benchmark.runners.ray_cluster import ClusterError
from privbench.benchmark.runners.ray_tasks import ProgressBoard

ray = pytest.importorskip("ray", reason="the extra ray")
pytestmark = pytest.mark.filterwarnings("ignore")
CELL = [*FAULTY_CELL, "--device", "cpu"]


@pytest.fixture(scope="module")
def cluster(faulty):
    """Connect this process to a cluster of two CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        patch.setenv("RAY_worker_niceness", "0")
        try:
            ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
        except (ConnectionError, TimeoutError, RuntimeError, OSError) as cause:
            pytest.skip(f"Ray does not start on this machine: {cause}")
        yield ray
        ray.shutdown()


def matrix() -> Matrix:
    return Matrix((Selection("digits"),), (Selection("none"),), (Selection("kedmi"),), budget="smoke", controls=False)


def execute(folder: Path, **options):
    return api.execute(
        matrix().cells(),
        data=folder,
        store=folder / "store",
        results=folder / "results",
        device="cpu",
        runner="ray",
        **options,
    )


def test_without_ray_the_message_names_the_extra(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"^--runner ray needs ray: pip install 'privbench\[ray\]'$"):
        execute(tmp_path)


def test_addresses_that_cannot_be_used(tmp_path, privbench) -> None:
    with pytest.raises(InvalidConfigurationError, match="expected --address with --runner ray only, got 'a:1'"):
        api.execute([], data=tmp_path, store=tmp_path, results=tmp_path, address="a:1")
    if not ray.is_initialized():
        with pytest.raises(ClusterError, match="expected --address to be HOST:PORT of the cluster"):
            execute(tmp_path, address="ray://somewhere:10001")
    code, _, err = privbench("run", *CELL, "--runner", "slurm")
    assert code == 2
    assert "'slurm' is not one of 'local', 'ray'" in err
    code, _, err = privbench("run", *CELL, "--stage-timeout", "0")
    assert code == 2
    assert "--stage-timeout" in err


def test_a_board_returns_the_latest_progress_once() -> None:
    board = ProgressBoard()
    board.update("a", 1.0, None)
    board.update("a", 2.0, LoopProgress("gan", 10, 3, {}))
    assert board.take() == {"a": (2.0, LoopProgress("gan", 10, 3, {}))}
    assert board.take() == {}


@pytest.mark.slow
def test_the_same_records_as_on_this_machine(cluster, tmp_path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    cells = matrix().cells()
    api.execute(cells, data=here, store=here / "store", results=here / "results", device="cpu", threads=1)
    plan, outcome, _ = execute(there, threads=1)
    assert not outcome.failures
    assert len(outcome.computed) == len(plan.stages)
    found = []
    for folder in (here, there):
        (record,) = load_records(folder / "results")
        found.append(
            {name: value for name, value in json.loads(record.text()).items() if name not in ("costs", "created")}
        )
    assert found[0] == found[1]
    assert execute(there, threads=1)[1].computed == []


@pytest.mark.slow
def test_failures_in_tasks_cost_their_cells_only(cluster, run, tmp_path) -> None:
    (tmp_path / "marks").mkdir()
    ways = ("correct", "once killed", "hanging", "raising", "threading", "diverging", "leaking_tensors")
    result = run(*ways, fields={"marks": str(tmp_path / "marks")}, runner="ray", threads=1, stage_timeout=60)
    assert {record.cell.attack.fields["how"] for record, _ in result.records} == {"correct", "once killed"}
    assert result.reasons == {
        "hanging": "it ran longer than --stage-timeout 60 and was stopped; increase the limit",
        "raising": "ZeroDivisionError in faulty_runs.py: no such label; --debug shows where",
        "threading": "KeyError in a thread, in faulty_runs.py: 'label'; --debug shows where",
        "diverging": "attack diverged: loss is inf at step 5 of 6 (no checkpoint was kept); lower the learning rate or "
        "the weight of the regulariser",
        "leaking_tensors": "out of memory; use a smaller batch, a device or machine with more memory, or fewer --jobs",
    }
    assert result.events.retried == [("evidence digits blank faulty seed 0", "its process died")]


@pytest.mark.slow
def test_a_machine_that_cannot_compute_is_named(cluster, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ray_machines, "creation_time", lambda store: 1)
    with pytest.raises(ClusterError, match=r"^machine .* of the Ray cluster cannot compute: the folder .*store"):
        execute(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(ray_machines, "__version__", "0.0.0")
    with pytest.raises(ClusterError, match=r"cannot compute: privbench is .* there and 0.0.0 here; install"):
        execute(tmp_path)
    with pytest.raises(InvalidConfigurationError, match="expected --threads to be at most 2, the CPUs of the largest"):
        execute(tmp_path, threads=64)


@pytest.mark.slow
def test_ctrl_c_cancels_the_tasks(cluster, tmp_path, enable_ctrl_c) -> None:
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "privbench", "run", *CELL, "--set", "attack.how=hanging", "--runner", "ray"]
    command += [
        "--address",
        address,
        "--store",
        str(tmp_path / "s"),
        "--results",
        str(tmp_path / "r"),
        "--threads",
        "1",
    ]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, preexec_fn=enable_ctrl_c)
    until = time.monotonic() + 120
    while "evidence digits blank" not in (tmp_path / "log").read_text() and time.monotonic() < until:
        time.sleep(0.5)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    text = (tmp_path / "log").read_text()
    assert text.rstrip().endswith("privbench: interrupted; run the same command again to resume")
    assert "Traceback" not in text
    until = time.monotonic() + 30
    while ray.available_resources().get("CPU", 0) < 2 and time.monotonic() < until:
        time.sleep(0.5)
    assert ray.available_resources()["CPU"] == 2
