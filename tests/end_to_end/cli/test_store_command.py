"""`privbench store ls | check | gc`, as a user sees them."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from helpers import command_line
from privbench.benchmark.store import store as store_module
from privbench.benchmark.store.maintenance import StoreEntry
from privbench.benchmark.store.store import Store

KEYS = {name: character * 64 for name, character in {"kept": "a", "old": "b", "young": "c", "damaged": "d"}.items()}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVBENCH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PRIVBENCH_RESULTS", str(tmp_path / "results"))
    return Store(tmp_path / "store")


@pytest.fixture
def filled(store, monkeypatch):
    for name, key in KEYS.items():
        age = timedelta(days=0 if name == "young" else 10)
        created = (datetime.now(UTC) - age).isoformat(timespec="seconds")
        monkeypatch.setattr(store_module, "_now", lambda created=created: created)
        store.write("target", key, tensors={}, info={}, files={"file": b"x" * 1000}, inputs={"judge": "f" * 64})
    damaged = store.root / "target" / "dd" / KEYS["damaged"] / "file"
    damaged.write_bytes(b"")
    return store


def record(tmp_path, *keys, name="mnist/none/gmi/1.json"):
    path = tmp_path / "results" / "records" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"artifacts": {f"role {i}": {"key": key} for i, key in enumerate(keys)}}))
    return path


def invoke(*words):
    return command_line.run("store", *words)


def keys(store):
    return {entry.key for entry in store.entries()}


def test_ls(filled):
    result = invoke("ls")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].split() == ["kind", "key", "state", "size", "created"]
    assert len(lines) == 6
    assert [line.split()[1] for line in lines[1:5]] == [KEYS[name][:12] for name in ("damaged", "kept", "old", "young")]
    assert [line.split()[2] for line in lines[1:5]] == ["damaged", "artifact", "artifact", "artifact"]
    assert lines[5].startswith("4 artifacts, ")
    assert str(filled.root) in result.out.replace("\n", "")


def test_ls_json(filled):
    found = json.loads(invoke("ls", "--json").out)
    assert {each["key"] for each in found} == set(KEYS.values())
    kept = next(each for each in found if each["key"] == KEYS["kept"])
    assert kept["kind"] == "target"
    assert kept["inputs"] == {"judge": "f" * 64}
    assert kept["bytes"] > 1000
    assert datetime.fromisoformat(kept["created"]).utcoffset() == timedelta(0)


def test_an_empty_store(store):
    for command in ("ls", "check"):
        result = invoke(command)
        assert result.code == 0
        assert "no " in result.out
    assert json.loads(invoke("ls", "--json").out) == []
    assert json.loads(invoke("check", "--json").out) == []
    assert not store.root.exists()


def test_the_option_wins_over_the_environment(filled, tmp_path):
    assert f"no artifacts in {tmp_path / 'other'}" in invoke("ls", "--store", tmp_path / "other").out


def test_check(filled):
    result = invoke("check")
    assert result.code == 1
    assert "file does not match the manifest" in result.out
    assert "1 problem in" in result.out
    (problem,) = json.loads(invoke("check", "--json").out)
    assert (problem["kind"], problem["key"], problem["repaired"]) == ("target", KEYS["damaged"], False)
    repaired = invoke("check", "--repair")
    assert repaired.code == 0
    assert "(repaired)" in repaired.out
    assert invoke("check").code == 0
    assert keys(filled) == set(KEYS.values()) - {KEYS["damaged"]}


def test_check_finds_what_does_not_belong(filled):
    (filled.root / "notes.txt").write_text("")
    (filled.root / "target" / "xyz").mkdir()
    (filled.root / "target" / "aa" / ("b" * 64)).mkdir()
    (filled.root / "locks" / "x").write_text("")
    (filled.root / "tmp" / "x").write_text("")
    (filled.root / "tmp" / f"target-{KEYS['old']}-12345678").mkdir()
    (filled.root / "checkpoints" / "x").write_text("")
    assert len(filled.check()) == 8
    assert len(filled.check(repair=True)) == 8
    assert filled.check() == []
    assert len(list((filled.root / "quarantine").iterdir())) == 6


def test_gc_keeps_what_records_name(filled, tmp_path):
    record(tmp_path, KEYS["kept"], "f" * 64)
    before = keys(filled)
    dry = invoke("gc", "--dry-run")
    assert "would remove 3 items" in dry.out
    assert keys(filled) == before
    result = invoke("gc")
    assert "removed 3 items" in result.out
    assert keys(filled) == {KEYS["kept"]}
    assert filled.check() == []
    assert "removed 0 items" in invoke("gc").out


def test_gc_spares_the_young(filled, tmp_path):
    record(tmp_path, KEYS["kept"])
    found = json.loads(invoke("gc", "--older-than", "5", "--json", "--dry-run").out)
    assert found["dry_run"] is True
    assert {each["key"] for each in found["removed"]} == {KEYS["old"]}
    assert found["bytes"] == sum(each["bytes"] for each in found["removed"]) > 1000
    os.utime(filled.root / "target" / "dd" / KEYS["damaged"], (0, 0))
    for path in (filled.root / "target" / "dd" / KEYS["damaged"]).iterdir():
        os.utime(path, (0, 0))
    invoke("gc", "--older-than", "5")
    assert keys(filled) == {KEYS["kept"], KEYS["young"]}


def test_gc_reads_records_of_all_folders_and_survives_damaged_ones(filled, tmp_path, caplog):
    record(tmp_path, KEYS["kept"])
    record(tmp_path, KEYS["old"], name="cifar10/x.json")
    for i, text in enumerate(["{", "[]", '{"artifacts": 3}', '{"artifacts": {"a": 1}}', "\xff", "{}", "[" * 9999]):
        record(tmp_path, name=f"{i}.json").write_bytes(text.encode("latin-1"))
    invoke("gc")
    assert keys(filled) == {KEYS["kept"], KEYS["old"]}
    assert caplog.text.count("is not a record") == 6


def test_gc_does_not_empty_a_store_by_mistake(filled, tmp_path):
    before = keys(filled)
    for _ in range(2):
        assert "expected --results to be a folder" in command_line.refusal("store", "gc")
        assert keys(filled) == before
        record(tmp_path)
    invoke("gc", "--all")
    assert keys(filled) == set()


def test_gc_of_leftovers(filled):
    filled.write("target", "e" * 64, tensors={}, info={})
    for key in ("e" * 64, "9" * 64):
        folder = filled.root / "checkpoints" / "target" / key[:2] / key
        folder.mkdir(parents=True)
        (folder / "gan.checkpoint").write_text("x")
    (filled.root / "tmp" / f"target-{KEYS['old']}-12345678").mkdir()
    (filled.root / "tmp" / "stray").write_text("")
    assert filled.find("target", KEYS["damaged"]) is None
    artifacts = keys(filled)
    planned = filled.gc(None, dry_run=True)
    assert all(entry.path.exists() for entry in planned)
    removed = filled.gc(None)
    assert removed == planned
    assert sorted((entry.state, entry.key[:1]) for entry in removed) == [
        ("checkpoint", "e"),
        ("leftover", ""),
        ("leftover", "b"),
        ("quarantined", "d"),
    ]
    assert all(not entry.path.exists() for entry in removed)
    assert keys(filled) == artifacts
    assert filled.gc(None) == []
    unfinished = filled.root / "checkpoints" / "target" / "99" / ("9" * 64)
    assert filled.gc(artifacts, older_than_days=1) == []
    for path in (unfinished, unfinished / "gan.checkpoint"):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert filled.gc(artifacts | {"9" * 64}, older_than_days=1) == []
    assert filled.gc(artifacts) == []
    assert [entry.path for entry in filled.gc(artifacts, older_than_days=1)] == [unfinished]
    assert not unfinished.exists()


def test_gc_asks_a_function(filled):
    def keep(entry: StoreEntry) -> bool:
        return entry.inputs == {"judge": "f" * 64} and entry.key != KEYS["young"]

    filled.gc(keep)
    assert keys(filled) == {KEYS["kept"], KEYS["old"]}


def test_a_store_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    for command in (["ls"], ["check"], ["gc", "--all"]):
        assert "not a directory" in command_line.refusal("store", *command, "--store", tmp_path / "file")


def test_usage():
    assert invoke("gc", "--older-than", "-1").code == 2
    assert invoke("gc", "--older-than", "week").code == 2
    for command in ("ls", "check", "gc"):
        assert "--json" in invoke(command, "--help").out
