"""The soak itself, at a length that shows that it works; `soak.py` runs as long as one likes."""

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
