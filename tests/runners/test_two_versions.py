"""Two versions of privbench, and of a plugin, on one store at the same time."""

import json
from collections import Counter
from pathlib import Path

import privbench
import pytest
from helpers import command_line
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.store.store import open_store

#: Makes a process one of another version of privbench, with another version of the attack `faulty`.
OTHER = """
import privbench
privbench.__version__ = "0.99.0"
import faulty_runs
faulty_runs.Faulty.version = 2
"""
CELLS = ["run", "--no-controls", "--no-sandbox", "--defense", "blank", "--attack", "faulty", "--evaluator", "accuracy"]
VERSIONS = {privbench.__version__: 1, "0.99.0": 2}


@pytest.fixture(params=[False, True], ids=["folder", "url"])
def words(request, tmp_path: Path, monkeypatch) -> list[str]:
    monkeypatch.setenv("PRIVBENCH_CACHE", str(tmp_path / "cache"))
    store = f"file://{tmp_path}/shared" if request.param else str(tmp_path / "store")
    words = [*CELLS, "--seed", "0", "--seed", "1", "--set", "attack.seconds=0.5", "--threads", "1", "--device", "cpu"]
    return [
        *words,
        "--budget",
        "smoke",
        "--data",
        str(tmp_path),
        "--results",
        str(tmp_path / "results"),
        "--json",
        "--store",
        store,
    ]


def test_their_different_artifacts_are_stored_side_by_side(faulty, words: list[str], tmp_path: Path) -> None:
    with command_line.Waiting(*words, prepare=OTHER) as other:
        for again in (False, True):
            other.start()
            for code, out, err in (command_line.run(*words), other.result()):
                assert code == 0, err
                assert "damaged" not in err
                assert len(json.loads(out)["records"]) == 2
                assert ("0 of 6 stages computed" in err) == again, err
    records = load_records(tmp_path / "results")
    assert not records.problems
    found = {(record.environment.privbench, record.cell.attack.version, record.cell.seed) for record in records}
    assert len(records) == len({record.key for record in records}) == 4
    assert {(version, seed) for _, version, seed in found} == {(1, 0), (1, 1), (2, 0), (2, 1)}
    assert all(VERSIONS[name] == version for name, version, _ in found)
    kept = open_store(words[-1])
    assert kept.check() == []
    # They share the targets, one for each seed, because both compute the same ones.
    kinds = Counter(entry.kind for entry in kept.entries())
    assert kinds == {"target": 2, "evidence": 4, "scores": 4}
