"""Leases: `gc` keeps what live runs use, and nothing for runs that were killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from helpers import command_line, tiny
from helpers.killed import ENVIRONMENT
from privbench.benchmark.errors import StorageError
from privbench.benchmark.pipeline import stages
from privbench.benchmark.store import leases
from privbench.benchmark.store.store import Store

USED, UNUSED = "ab" + "0" * 62, "ab" + "1" * 62

HOLDING = """
    import sys, time
    from pathlib import Path
    from privbench.benchmark.store.store import Store

    with Store(Path(sys.argv[1])).lease(sys.argv[2:]):
        print("held", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    for key in (USED, UNUSED):
        store.write("target", key, tensors={}, info={}, files={"a": b"x"})
    return store


def keys(store):
    return {entry.key for entry in store.entries()}


def test_gc_keeps_what_a_live_process_uses_and_not_what_a_dead_one_used(store):
    command = [sys.executable, "-c", textwrap.dedent(HOLDING), str(store.root), USED]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **ENVIRONMENT})
    assert process.stdout.readline() == "held\n"
    checkpoint = store.root / "checkpoints" / "prior" / USED[:2] / USED
    checkpoint.mkdir(parents=True)
    os.utime(checkpoint, (0, 0))
    assert {entry.key for entry in store.gc(set(), dry_run=True)} == {UNUSED}
    assert {entry.key for entry in store.gc(set(), older_than_days=0)} == {UNUSED}
    assert keys(store) == {USED}
    assert checkpoint.exists()
    process.kill()
    process.communicate()
    assert {(entry.key, entry.state) for entry in store.gc(set(), older_than_days=1)} == {
        ("000", "leftover"),
        (USED, "checkpoint"),
    }
    assert {entry.key for entry in store.gc(set())} == {USED}


def test_leases_of_one_process_do_not_end_one_another(store):
    with store.lease([USED]):
        with store.lease([UNUSED]):
            assert store.gc(set()) == []
        assert {entry.key for entry in store.gc(set())} == {UNUSED}
    assert {entry.key for entry in store.gc(set())} == {USED}


def test_leases_of_one_thread_may_end_in_any_order(store):
    first, second = store.lease([UNUSED]), store.lease([USED])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert {entry.key for entry in store.gc(set())} == {UNUSED}
    second.__exit__(None, None, None)
    assert {entry.key for entry in store.gc(set())} == {USED}


def test_dead_leases_do_not_accumulate(store):
    for slot in ("000", "001", "017"):
        (store.root / "tmp" / f"lease-{slot}-12345678").write_text("[]")
    for _ in range(3):
        with store.lease([USED]):
            assert len(list((store.root / "tmp").iterdir())) == 1
    assert store.check() == []
    assert len(list((store.root / "locks").glob("lease-*.lock"))) == 4


def test_a_damaged_lease_of_a_live_run_stops_gc(store):
    with store.lease([USED]):
        (path,) = (store.root / "tmp").iterdir()
        for content in ("", "{}", "[1]", "[" * 100):
            path.write_text(content)
            with pytest.raises(StorageError, match=r"in use by a run.* is damaged; try again when the run has ended"):
                store.gc(set())
    assert keys(store) == {USED, UNUSED}


def test_a_run_that_starts_during_gc_finds_what_is_left(store, monkeypatch):
    """Its lease waits until `gc` is done, and no artifact that it found afterwards is removed."""
    started, found = threading.Event(), []

    def run():
        started.set()
        with Store(store.root).lease([USED]):
            found.append(store.find("target", USED))

    thread = threading.Thread(target=run)
    with store.in_use() as used:
        thread.start()
        started.wait()
        time.sleep(0.2)
        assert (used, found) == (set(), [])
        store.gc(set())
    thread.join()
    assert found == [None]


@pytest.mark.parametrize("when", ["before the leases are read", "after"])
def test_a_run_that_ends_during_gc_has_written_its_records(store, tmp_path, monkeypatch, when):
    """Records are read after the leases: what ends in between is in both, and never in neither."""
    records = tmp_path / "results" / "records"
    records.mkdir(parents=True)
    (records / "a.json").write_text(json.dumps({"artifacts": {"target": {"key": UNUSED}}}))
    lease = store.lease([USED])
    lease.__enter__()
    real = leases._keys

    def end():
        if len(list(records.iterdir())) == 1:
            (records / "b.json").write_text(json.dumps({"artifacts": {"target": {"key": USED}}}))
            lease.__exit__(None, None, None)

    def read(layout):
        if when != "after":
            end()
        found = real(layout)
        end()
        return found

    monkeypatch.setattr(leases, "_keys", read)
    assert command_line.run("store", "gc", "--store", store.root, "--results", tmp_path / "results").code == 0
    assert keys(store) == {USED, UNUSED}


def test_a_store_that_cannot_be_written_needs_no_lease(store, monkeypatch):
    real = os.open

    def refuse(path, flags, *arguments, **options):
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with store.lease([USED]):
        assert store.find("target", USED) is not None


def test_a_run_survives_gc_with_another_results_folder(in_a_folder, tmp_path, monkeypatch, requests):
    """`gc` runs before each stage; the run needs what the stages before have made."""
    monkeypatch.setenv("PRIVBENCH_STORE", in_a_folder.url)
    monkeypatch.setenv("PRIVBENCH_CACHE", str(tmp_path / "cache"))
    cell = ["run", "--no-controls", "--defense", "none", "--attack", "gmi", "--evaluator", "accuracy"]
    cell += ["--budget", "smoke", "--device", "cpu", *tiny.words(), "--results", tmp_path / "results"]
    other = tmp_path / "other" / "records"
    other.mkdir(parents=True)
    (other / "a.json").write_text(json.dumps({"artifacts": {"target": {"key": UNUSED}}}))
    gc = ["store", "gc", "--results", tmp_path / "other"]
    stages_before = []

    def gc_first(stage, session, *, compute=stages.run):
        stages_before.append(stage.kind)
        assert "removed 0 items" in command_line.output(*gc)
        return compute(stage, session)

    monkeypatch.setattr("privbench.benchmark.runners.attempt.run", gc_first)
    assert command_line.run(*cell).code == 0
    assert len(stages_before) == 4
    assert len([what for what in requests if what[0] == "create" and what[1].startswith("tmp/lease-")]) == 1
    assert in_a_folder.names("tmp/") == []
    assert "removed 4 items" in command_line.output(*gc)


def test_gc_keeps_what_all_its_results_folders_reference(store, tmp_path):
    for name, key in (("one", USED), ("two", UNUSED)):
        folder = tmp_path / name / "records"
        folder.mkdir(parents=True)
        (folder / "a.json").write_text(json.dumps({"artifacts": {"target": {"key": key}}}))
    words = ["store", "gc", "--store", store.root, "--results", tmp_path / "one"]
    assert "expected --results" in command_line.refusal(*words, "--results", tmp_path / "three")
    assert command_line.run(*words, "--results", tmp_path / "two").code == 0
    assert keys(store) == {USED, UNUSED}
    assert command_line.run(*words).code == 0
    assert keys(store) == {USED}


# The shared tier


@pytest.fixture
def ages(ages):
    """Targets of the shared tier are 30 days old."""
    ages["target/"] = 30.0
    return ages


def published(machines):
    return {name.rpartition("/")[2].removesuffix(".json") for name in machines.names("target/")}


def test_gc_of_another_machine_keeps_what_is_leased(machines, ages):
    first, second = machines.open(), machines.open("second")
    for key in (USED, UNUSED):
        first.write("target", key, tensors={}, info={}, files={"a": key.encode()})
    with first.lease([USED]):
        (name,) = machines.names("tmp/lease-")
        second.gc(set(), shared=True)
        assert published(machines) == {USED}
        ages["tmp/lease-"] = 6.9  # older than other leftovers may be
        second.gc(set(), shared=True)
        assert (published(machines), machines.names("tmp/lease-")) == ({USED}, [name])
        ages["tmp/lease-"] = 7.1
        second.gc(set(), shared=True)
        assert (published(machines), machines.names("tmp/lease-")) == (set(), [])


def test_a_lease_of_the_shared_tier_is_renewed_and_ends_with_the_run(machines, monkeypatch, requests):
    first = machines.open()
    with first.lease([USED]) as renew:
        assert machines.names() == []  # there is no tier yet
        first.write("target", USED, tensors={}, info={}, files={"a": b"x"})
        renew()
        (name,) = machines.names("tmp/lease-")
        renew()
        assert machines.names("tmp/lease-") == [name]
        now = time.monotonic() + 3601
        monkeypatch.setattr(leases.time, "monotonic", lambda: now)
        renew()
        (later,) = machines.names("tmp/lease-")
        assert later != name
    assert machines.names("tmp/") == []
    assert first.check() == []


def test_a_lease_for_this_machine_alone_asks_nothing_of_the_tier(machines, requests):
    with machines.open().lease([USED], shared=False):
        pass
    assert requests == []
