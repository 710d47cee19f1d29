"""A machine of a Ray cluster is lost, or its head: the stages that are recomputed, and the messages."""

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
from helpers.tiny import FAULTY_CELL
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.runners import ray_cluster
from privbench.benchmark.runners.ray_cluster import ClusterError, Head
from privbench.benchmark.store.store import Store

CELLS = ["run", *FAULTY_CELL]


class Library:
    """The part of the Ray library that `Head` uses, with a head that listens here."""

    def __init__(self, port: int) -> None:
        self.context = SimpleNamespace(gcs_address=f"127.0.0.1:{port}", get_node_id=lambda: "here")
        self.alive = {"here": True, "there": False}
        self.exceptions = SimpleNamespace(RayError=RuntimeError)

    def get_runtime_context(self):
        return self.context

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
    """A clock that only the test advances."""
    now = [100.0]
    monkeypatch.setattr(ray_cluster, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_head_that_does_not_answer_is_lost_after_a_while(listening, clock) -> None:
    head = Head(Library(listening.getsockname()[1]))
    clock[0] += 10
    assert head.check()
    port = listening.getsockname()[1]
    listening.close()
    for _ in range(4):
        clock[0] += 10
        assert not head.check()
    with socket.create_server(("127.0.0.1", port), reuse_port=False):
        clock[0] += 10
        assert head.check()
    clock[0] += 40
    assert not head.check()
    assert not head.is_lost
    clock[0] += 10
    with pytest.raises(ClusterError) as raised:
        head.check()
    assert str(raised.value) == (
        f"the head of the Ray cluster, 127.0.0.1:{port}, is lost; start the cluster again, then run the "
        "same command again to resume"
    )
    assert head.is_lost


def test_the_head_is_not_checked_all_the_time(listening, clock, monkeypatch) -> None:
    head = Head(Library(listening.getsockname()[1]))
    monkeypatch.setattr(ray_cluster.socket, "create_connection", lambda *where, **how: pytest.fail("checked again"))
    clock[0] += 1
    assert head.check()


def test_a_cluster_that_has_lost_this_machine(listening, clock) -> None:
    library = Library(listening.getsockname()[1])
    head = Head(library)
    library.alive.clear()
    clock[0] += 10
    assert head.check()
    library.alive["here"] = False
    clock[0] += 10
    with pytest.raises(
        ClusterError, match=r"^the Ray cluster has lost this machine; start Ray on it again, then run the"
    ):
        head.check()


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:many", "head:70000", "10.0.0.1:0"])
def test_malformed_addresses(address: str) -> None:
    with pytest.raises(ClusterError, match=rf"^expected --address to be HOST:PORT of the cluster, .* got '{address}'$"):
        ray_cluster._require_head(address)


def test_a_port_of_thousands_of_digits() -> None:
    with pytest.raises(ClusterError, match="to be HOST:PORT of the cluster"):
        ray_cluster._require_head("head:" + "9" * 5000)


def test_a_missing_head_is_reported_immediately(listening) -> None:
    """Ray itself waits minutes for one without a message."""
    address = f"127.0.0.1:{listening.getsockname()[1]}"
    ray_cluster._require_head(address)
    listening.close()
    with pytest.raises(
        ClusterError, match=f"^no Ray cluster can be reached at {address}: .*; check `ray status` there"
    ):
        ray_cluster._require_head(address)


def test_the_file_of_a_cluster_that_has_ended_is_ignored(listening, tmp_path: Path, monkeypatch) -> None:
    """A machine that was switched off still has the file."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert not ray_cluster._is_stale()
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    for text in (b"", b"nowhere", b"\xff"):
        file.write_bytes(text)
        assert not ray_cluster._is_stale()
    file.write_text(f"127.0.0.1:{listening.getsockname()[1]}\n")
    assert not ray_cluster._is_stale()
    listening.close()
    assert ray_cluster._is_stale()


def test_auto_requires_a_running_cluster(monkeypatch) -> None:
    """Only a missing address starts a new cluster on this machine."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_cluster, "_import_ray", lambda: SimpleNamespace(is_initialized=lambda: False))
    monkeypatch.setattr(ray_cluster, "_is_stale", lambda: True)
    with pytest.raises(ClusterError, match=r"^no Ray cluster can be reached at this machine: the last one has ended"):
        ray_cluster.connected("auto").__enter__()


def test_messages_of_ray_are_kept_out_of_the_output() -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), ray_cluster._ray_output_hidden():
        print('{"records":', end="")
        ray = threading.Thread(target=lambda: print("(raylet) a node is dead"), name="ray_listen_error_messages")
        ray.start()
        ray.join()
        print(" []}", flush=True)
        assert not sys.stdout.isatty()
    assert out.getvalue() == '{"records": []}\n'
    with contextlib.redirect_stdout(None), ray_cluster._ray_output_hidden():
        print("discarded")


@pytest.fixture
def nodes(faulty, monkeypatch):
    """Start clusters of two nodes with one CPU each; they end with the test."""
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
    """`privbench run` of two cells on a cluster, whose attacks fail in a given way."""

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
    def stderr(self) -> str:
        return (self.folder / "err").read_text()

    def wait_until_both_attacks_run(self) -> None:
        until = time.monotonic() + 180
        while sum(path.name.isdigit() for path in self.folder.iterdir()) < 2:
            assert self.process.poll() is None and time.monotonic() < until, self.stderr
            time.sleep(0.5)

    def end(self) -> int:
        try:
            return self.process.wait(300)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_stages_of_a_lost_machine_are_computed_on_another(nodes, tmp_path: Path) -> None:
    cluster, other = nodes()
    command = Command(tmp_path, cluster.address, "correct", 20)
    command.wait_until_both_attacks_run()
    cluster.remove_node(other, allow_graceful=False)
    assert command.end() == 0, command.stderr
    assert len(json.loads((tmp_path / "out").read_text())["records"]) == 2
    assert command.stderr.count("retrying: evidence digits blank faulty seed ") == 1
    assert ": its machine was lost\n" in command.stderr
    assert "raylet" not in command.stderr
    runs = sorted(len(path.read_text().split()) for path in tmp_path.iterdir() if path.name.isdigit())
    assert runs == [1, 2]
    assert Store(tmp_path / "store").check() == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ["head process", "head machine"])
def test_a_lost_head_ends_the_run_with_a_message(nodes, tmp_path: Path, what: str) -> None:
    cluster, _ = nodes()
    address = cluster.address
    command = Command(tmp_path, address, "once hanging")
    command.wait_until_both_attacks_run()
    if what == "head process":
        cluster.head_node.kill_gcs_server()
    else:
        cluster.head_node.kill_all_processes(check_alive=False, allow_graceful=False)
    assert command.end() == 1
    last = command.stderr.rstrip().splitlines()[-1]
    assert last == (
        f"privbench: the head of the Ray cluster, {address}, is lost; start the cluster again, then run the "
        "same command again to resume"
    )
    assert "Traceback" not in command.stderr
    assert (tmp_path / "out").read_text() == ""
    cluster.shutdown()
    again = Command(tmp_path, nodes()[0].address, "once hanging")
    assert again.end() == 0, again.stderr
    assert len(load_records(tmp_path / "results")) == 2
    assert Store(tmp_path / "store").check() == []
