"""The soak itself, at a length that shows that it works; `soak.py` runs as long as one likes."""

import importlib.util
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("soak", Path(__file__).with_name("soak.py"))
assert _spec is not None and _spec.loader is not None
soak = importlib.util.module_from_spec(_spec)
sys.modules["soak"] = soak
_spec.loader.exec_module(soak)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("shared", [False, True], ids=["one machine", "two machines"])
def test_nothing_is_lost_in_twenty_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = soak.soak(tmp_path, 20.0, 1, 2, shared=shared)
    assert not done.faults
    assert done.events["runs killed"] > 10
    assert any(event.startswith("files damaged") for event in done.events)
