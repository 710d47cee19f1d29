"""What it costs to schedule a stage: 1,000 stages that do nothing, one after the other, in two processes, on Ray.

`python tests/slow/performance/bench_runners.py [--stages N] [RUNNER ...]` prints what a worker takes for each stage:
`own_ms` under the stage's lock, most of it to bring the artifact to the disk, and `overhead_ms` besides, which is
everything else from the call to its return: starting processes, looking what is in the store, handing stages out,
verifying what came back. `look_ms` is the part of `own_ms` for the lock and a look whether another process was faster.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.runners import local, ray
from privbench.benchmark.runners.attempt import find_usable
from privbench.benchmark.runners.ray_cluster import Cluster
from privbench.benchmark.runners.scheduler import Listener
from privbench.benchmark.store.store import Store

HERE = str(Path(__file__).resolve().parent)
CPU = torch.device("cpu")
WORKERS = {"serial": 1, "jobs 2": 2, "ray": 2}


class Heard(Listener):
    """Adds up how long stages took."""

    seconds = 0.0

    def end(self, stage, seconds) -> None:
        self.seconds += seconds


def measure(runner: str, count: int) -> dict[str, float]:
    """Seconds of wall clock, and milliseconds of a worker for each stage."""
    import trivial_stages

    made = trivial_stages.plan(count)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder, "store"))
        heard = Heard()
        began = time.perf_counter()
        if runner == "ray":
            outcome = ray.execute(made, store, Path(folder), "cpu", Cluster(threads=1), heard)
        else:
            outcome = local.execute(made, Session(store, Path(folder), CPU), heard, WORKERS[runner], threads=1)
        wall = time.perf_counter() - began
        assert len(outcome.computed) == len(outcome.scores) == count
        others = list(trivial_stages.plan(count + 100).stages.values())[count:]
        began = time.perf_counter()
        for stage in others:
            with store.lock(stage.kind, stage.key):
                find_usable(store, stage)
        look = (time.perf_counter() - began) / 100
    overhead = (wall * WORKERS[runner] - heard.seconds) / count
    figures = {"overhead_ms": 1e3 * overhead, "own_ms": 1e3 * heard.seconds / count, "look_ms": 1e3 * look}
    return {"wall_s": round(wall, 1)} | {name: round(value, 1) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, default=1000)
    parser.add_argument("runners", nargs="*", default=list(WORKERS))
    arguments = parser.parse_args()
    if "ray" in arguments.runners:
        import ray as library

        options = {"num_cpus": WORKERS["ray"], "include_dashboard": False, "log_to_driver": False}
        library.init("local", logging_level="CRITICAL", **options)
    print(json.dumps({runner: measure(runner, arguments.stages) for runner in arguments.runners}, indent=1))


if __name__ == "__main__":
    sys.path.insert(0, HERE)
    os.environ["PYTHONPATH"] = os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # as the other runners' processes
    main()
