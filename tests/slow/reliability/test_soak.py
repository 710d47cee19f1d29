"""The soaks, at a length that shows that they work; `soak.py` and `kills.py` run as long as one likes."""

import subprocess
import sys
from pathlib import Path

import pytest
import soak


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shared", [False, True], ids=["one machine", "two machines"])
def test_nothing_is_lost_in_twenty_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = soak.soak(tmp_path, 20.0, 1, 2, shared=shared)
    assert not done.faults
    assert done.events["runs killed"] > 10
    assert any(event.startswith("files damaged") for event in done.events)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_nothing_is_lost_by_a_hundred_kills(tmp_path: Path) -> None:
    """In a process of its own, which forks."""
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), "--kills", "100", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no fault" in done.stdout
