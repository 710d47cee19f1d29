"""Two versions of privbench, and of a plugin, on one store at the same time."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from privbench.benchmark.analysis.record_set import load_records
from privbench.benchmark.store.store import open_store

#: Command line of another version of privbench, with another version of the attack `faulty`.
PROGRAM = """
import sys
import privbench
privbench.__version__, version, *words = sys.argv[1:]
import faulty_components
faulty_components.Faulty.version = int(version)
from privbench.benchmark.cli.main import main
sys.argv = ["privbench", *words]
main()
"""
CELLS = [
    "run",
    "--no-controls",
    "--defense",
    "blank",
    "--attack",
    "faulty",
    "--evaluator",
    "accuracy",
    "--budget",
    "smoke",
]


@pytest.mark.parametrize("shared", [False, True], ids=["folder", "url"])
def test_their_different_artifacts_are_stored_side_by_side(faulty, tmp_path: Path, monkeypatch, shared: bool) -> None:
    monkeypatch.setenv("PRIVBENCH_CACHE", str(tmp_path / "cache"))
    store = f"file://{tmp_path}/shared" if shared else str(tmp_path / "store")
    words = [*CELLS, "--seed", "0", "--seed", "1", "--set", "attack.seconds=0.5", "--threads", "1", "--device", "cpu"]
    words += ["--store", store, "--data", str(tmp_path), "--results", str(tmp_path / "results"), "--json"]

    def start(privbench: str, attack: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PROGRAM, privbench, str(attack), *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    versions = {"0.1.0": 1, "0.2.0": 2}
    for attempt in range(2):
        running = {name: start(name, version) for name, version in versions.items()}
        for name, process in running.items():
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            assert "damaged" not in err
            assert len(json.loads(out)["records"]) == 2, name
            assert ("0 of 6 stages computed" in err) == (attempt == 1), err
    records = load_records(tmp_path / "results")
    assert not records.problems
    found = {(record.environment.privbench, record.cell.attack.version, record.cell.seed) for record in records}
    assert len(records) == len({record.key for record in records}) == 4
    assert {(version, seed) for _, version, seed in found} == {(1, 0), (1, 1), (2, 0), (2, 1)}
    assert all(versions[name] == version for name, version, _ in found)
    kept = open_store(store)
    assert kept.check() == []
    # They share the targets, one for each seed, because both compute the same ones.
    kinds = Counter(entry.kind for entry in kept.entries())
    assert kinds == {"target": 2, "evidence": 4, "scores": 4}
