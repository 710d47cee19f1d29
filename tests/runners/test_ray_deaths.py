"""A machine of a Ray cluster is lost, its head is lost: what is computed again, and what is said."""

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.runners import ray_cluster
from privbench.benchmark.runners.ray_cluster import ClusterError, Head
from privbench.benchmark.store.store import Store

CELLS = ["run", "--defense", "blank", "--attack", "faulty", "--evaluator", "accuracy", "--budget", "smoke"]


class Library:
    """What `Head` asks of Ray, with a head that listens here."""

    def __init__(self, port: int) -> None:
        self.facts = SimpleNamespace(gcs_address=f"127.0.0.1:{port}", get_node_id=lambda: "here")
        self.alive = {"here": True, "there": False}
        self.exceptions = SimpleNamespace(RayError=RuntimeError)

    def get_runtime_context(self):
        return self.facts

    def nodes(self):
        if not self.alive:
            raise RuntimeError
        return [{"NodeID": node, "Alive": alive} for node, alive in self.alive.items()]


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def clock(monkeypatch):
    """The time, which goes on by hand."""
    now = [100.0]
    monkeypatch.setattr(ray_cluster, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_head_may_be_away_for_a_while_and_then_is_lost(listening, clock) -> None:
    head = Head(Library(listening.getsockname()[1]))
    clock[0] += 10
    assert head.answers()
    port = listening.getsockname()[1]
    listening.close()
    for _ in range(4):
        clock[0] += 10
        assert not head.answers()
    with socket.create_server(("127.0.0.1", port), reuse_port=False):
        clock[0] += 10
        assert head.answers()
    clock[0] += 40
    assert not head.answers()
    assert not head.is_lost
    clock[0] += 10
    with pytest.raises(ClusterError) as raised:
        head.answers()
    assert str(raised.value) == (
        f"the head of the Ray cluster, 127.0.0.1:{port}, is lost; start the cluster again, and the same command goes "
        "on where it stopped"
    )
    assert head.is_lost


def test_it_is_not_asked_all_the_time(listening, clock, monkeypatch) -> None:
    head = Head(Library(listening.getsockname()[1]))
    monkeypatch.setattr(ray_cluster.socket, "create_connection", lambda *where, **how: pytest.fail("asked again"))
    clock[0] += 1
    assert head.answers()


def test_a_cluster_that_has_lost_this_machine(listening, clock) -> None:
    library = Library(listening.getsockname()[1])
    head = Head(library)
    library.alive.clear()
    clock[0] += 10
    assert head.answers()
    library.alive["here"] = False
    clock[0] += 10
    with pytest.raises(ClusterError, match=r"^the Ray cluster has lost this machine; start Ray again on it, and the"):
        head.answers()


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:many", "head:70000", "10.0.0.1:0"])
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(ClusterError, match=rf"^expected --address to be HOST:PORT of the cluster, .* got '{address}'$"):
        ray_cluster._require_head(address)


def test_a_head_that_is_not_there_is_said_at_once(listening) -> None:
    """Ray looks for one for minutes, and says nothing."""
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    ray_cluster._require_head(address)
    listening.close()
    with pytest.raises(
        ClusterError, match=f"^no Ray cluster can be reached at {address}: .*; look at `ray status` there"
    ):
        ray_cluster._require_head(address)


def test_what_ray_has_noted_of_a_cluster_that_is_gone(listening, tmp_path: Path, monkeypatch) -> None:
    """As a machine has it that was switched off."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert not ray_cluster._is_stale()
    noted = tmp_path / "ray" / "ray_current_cluster"
    noted.parent.mkdir()
    for text in (b"", b"nowhere", b"\xff"):
        noted.write_bytes(text)
        assert not ray_cluster._is_stale()
    noted.write_text(f"127.0.0.1:{listening.getsockname()[1]}\n")
    assert not ray_cluster._is_stale()
    listening.close()
    assert ray_cluster._is_stale()


def test_auto_wants_a_cluster_that_runs(monkeypatch) -> None:
    """And never makes a new one of this machine alone, as no address does."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_cluster, "_library", lambda: SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.setattr(ray_cluster, "_is_stale", lambda: True)
    with pytest.raises(ClusterError, match=r"^no Ray cluster can be reached at this machine: the last one is gone"):
        ray_cluster.connected("auto").__enter__()


def test_what_ray_prints_does_not_stand_in_the_output() -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), ray_cluster._unprinted():
        print('{"records":', end="")
        ray = threading.Thread(target=lambda: print("(raylet) a node is dead"), name="ray_listen_error_messages")
        ray.start()
        ray.join()
        print(" []}", flush=True)
        assert not sys.stdout.isatty()
    assert out.getvalue() == '{"records": []}\n'
    with contextlib.redirect_stdout(None), ray_cluster._unprinted():
        print("into nothing")


@pytest.fixture
def nodes(faulty, monkeypatch):
    """Starts clusters of two nodes with one CPU each, and ends them."""
    pytest.importorskip("ray", reason="the extra ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    started = []

    def start():
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        started.append(cluster)
        return cluster, cluster.add_node(num_cpus=1)

    yield start
    for cluster in started:
        cluster.shutdown()


class Command:
    """`privbench run` of two cells on a cluster, whose attacks go wrong in this way, if at all."""

    def __init__(self, folder: Path, address: str, how: str, seconds: int = 1) -> None:
        self.folder = folder
        words = [*CELLS, "--seed", "0", "--seed", "1", "--set", f"attack.how={how}", "--threads", "1"]
        words += ["--set", f"attack.seconds={seconds}", "--set", f"attack.marks={folder}", "--device", "cpu"]
        words += ["--runner", "ray", "--address", address, "--json"]
        words += ["--store", f"{folder}/store", "--data", str(folder), "--results", f"{folder}/results"]
        with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
            command = [sys.executable, "-m", "privbench", *words]
            self.process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)

    @property
    def said(self) -> str:
        return (self.folder / "err").read_text()

    def until_both_attacks_run(self) -> None:
        until = time.monotonic() + 180
        while sum(path.name.isdigit() for path in self.folder.iterdir()) < 2:
            assert self.process.poll() is None and time.monotonic() < until, self.said
            time.sleep(0.5)

    def end(self) -> int:
        try:
            return self.process.wait(300)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_stages_of_a_lost_machine_are_computed_elsewhere(nodes, tmp_path: Path) -> None:
    cluster, other = nodes()
    command = Command(tmp_path, cluster.address, "soundly", 20)
    command.until_both_attacks_run()
    cluster.remove_node(other, allow_graceful=False)
    assert command.end() == 0, command.said
    assert len(json.loads((tmp_path / "out").read_text())["records"]) == 2
    assert command.said.count("once more: evidence digits blank faulty seed ") == 1
    assert ": its machine was lost\n" in command.said
    assert "raylet" not in command.said
    runs = sorted(len(path.read_text().split()) for path in tmp_path.iterdir() if path.name.isdigit())
    assert runs == [1, 2]
    assert Store(tmp_path / "store").check() == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ["head process", "head machine"])
def test_a_lost_head_ends_the_run_with_a_sentence(nodes, tmp_path: Path, what: str) -> None:
    cluster, _ = nodes()
    address = cluster.address
    command = Command(tmp_path, address, "once hanging")
    command.until_both_attacks_run()
    if what == "head process":
        cluster.head_node.kill_gcs_server()
    else:
        cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    assert command.end() == 1
    last = command.said.rstrip().splitlines()[-1]
    assert last == (
        f"privbench: the head of the Ray cluster, {address}, is lost; start the cluster again, and the same "
        "command goes on where it stopped"
    )
    assert "Traceback" not in command.said
    assert (tmp_path / "out").read_text() == ""
    cluster.shutdown()
    again = Command(tmp_path, nodes()[0].address, "once hanging")
    assert again.end() == 0, again.said
    assert len(load_records(tmp_path / "results")) == 2
    assert Store(tmp_path / "store").check() == []
