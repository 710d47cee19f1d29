"""Scheduling costs at most 50 ms per stage, measured with 1,000 stages that compute nothing."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[1] / "slow" / "performance" / "bench_runners.py"


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["serial", "jobs 2", "ray"])
def test_a_stage_costs_at_most_fifty_milliseconds(runner: str) -> None:
    if runner == "ray" and importlib.util.find_spec("ray") is None:
        pytest.skip("the extra ray")
    command = [sys.executable, str(BENCH), "--stages", "1000", runner]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)[runner]
    assert found["overhead_ms"] + found["look_ms"] <= 50, found
