"""Compute 64 cells on a two-node Ray cluster while a random worker is killed every ten seconds.

`pytest -m slow -s tests/runners/test_ray_kills.py` prints the figures. `PRIVBENCH_KILL_SEED` seeds the choice of
workers, `PRIVBENCH_KILL_SECONDS` is the time between two kills.
"""

import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.store.store import Store

pytest.importorskip("ray", reason="the extra ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds workers in /proc"),
    pytest.mark.filterwarnings("ignore"),
]
MATRIX = """
datasets = ["digits"]
defenses = ["none", "bido_hsic", "bido_coco", "mid"]
attacks = ["gmi", "kedmi"]
seeds = [0, 1, 2, 3, 4, 5, 6, 7]
budget = "smoke"
controls = false
"""
MARK = "PRIVBENCH_TEST_CLUSTER"


class Killer(threading.Thread):
    """Kills random Ray workers of the marked cluster, but no agents, which are part of a node."""

    def __init__(self, mark: str) -> None:
        super().__init__(daemon=True)
        self.mark = f"{MARK}={mark}".encode()
        self.random = random.Random(int(os.environ.get("PRIVBENCH_KILL_SEED", "1")))
        self.seconds = float(os.environ.get("PRIVBENCH_KILL_SECONDS", "10"))
        self.killed: list[str] = []
        self.stopped = threading.Event()

    def workers(self) -> dict[int, str]:
        """Names of the running tasks or actors, or `IDLE`, by process number; titles of processes are `ray::NAME`."""
        found = {}
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    title = (folder / "cmdline").read_bytes().partition(b"\0")[0].decode().strip()
                    if not title.startswith("ray::") or title.endswith("Agent"):
                        continue
                    if self.mark in (folder / "environ").read_bytes():
                        found[int(folder.name)] = title.removeprefix("ray::")
                except OSError:
                    continue
        return found

    def run(self) -> None:
        while not self.stopped.wait(self.seconds):
            workers = self.workers()
            if workers:
                pid = self.random.choice(sorted(workers))
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.killed.append(workers[pid])


@pytest.fixture
def cluster(monkeypatch):
    """Start two nodes of one CPU each; yield the address and the mark of their processes."""
    mark = secrets.token_hex(8)
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.add_node(num_cpus=1)
    yield nodes.address, mark
    nodes.shutdown()


def run(folder: Path, *words: str) -> tuple[float, str]:
    folder.mkdir(exist_ok=True)
    matrix = folder / "matrix.toml"
    matrix.write_text(MATRIX)
    command = [sys.executable, "-m", "privbench", "run", str(matrix), "--threads", "1", "--device", "cpu", "--json"]
    command += ["--store", str(folder / "store"), "--results", str(folder / "results"), "--data", str(folder), *words]
    began = time.monotonic()
    with (folder / "log").open("w") as log, (folder / "out").open("w") as out:
        done = subprocess.run(command, stdout=out, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    text = (folder / "log").read_text()
    assert done.returncode == 0, text[-3000:]
    return time.monotonic() - began, text


def reproducible(folder: Path) -> dict[str, object]:
    """The fields of the records that must not depend on where and how often stages were computed."""
    found = {}
    for record in load_records(folder / "results"):
        values = json.loads(record.text())
        found[record.key] = {
            name: values[name] for name in ("scores", "artifacts", "queries", "cell", "curves", "flags", "judge")
        }
    return found


def test_sixty_four_cells_while_workers_are_killed(tmp_path, cluster) -> None:
    address, mark = cluster
    killer = Killer(mark)
    killer.start()
    seconds, log = run(tmp_path / "ray", "--runner", "ray", "--address", address)
    killer.stopped.set()
    killer.join()
    quiet, _ = run(tmp_path / "quiet")
    lost = Counter(re.findall(r"^ +retrying: (.*?): its ", log, re.MULTILINE))
    begun = Counter(re.findall(r"^\[\d+/\d+\] (.*)$", log, re.MULTILINE))
    board = sum(title.startswith("ProgressBoard") for title in killer.killed)
    print(
        f"\n{len(begun)} stages, {seconds:.0f} s with {len(killer.killed)} kills ({sum(lost.values())} of stages, "
        f"{board} of the board), {quiet:.0f} s in one quiet process"
    )
    assert len(reproducible(tmp_path / "ray")) == 64
    assert reproducible(tmp_path / "ray") == reproducible(tmp_path / "quiet")
    # A worker that has just received a stage is still called IDLE.
    killed = Counter(title if title in begun else "IDLE" for title in killer.killed)
    assert (lost - killed).total() <= killed["IDLE"], (lost, killed)
    assert begun == Counter({title: 1 + lost[title] for title in begun})
    assert f"{len(begun)} of {len(begun)} stages computed" in log
    assert Store(tmp_path / "ray" / "store").check() == []
