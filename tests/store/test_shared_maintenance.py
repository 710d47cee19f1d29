"""`store ls | check | gc` on two tiers: new blobs of other writers are kept, and clocks may be wrong."""

from __future__ import annotations

import hashlib
import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest
from helpers import command_line
from privbench.benchmark.errors import StorageError
from privbench.benchmark.store import shared_maintenance
from privbench.benchmark.store import store as store_module
from privbench.benchmark.store.manifest import seal, unseal
from privbench.benchmark.store.shared_files import RemoteFiles
from privbench.benchmark.store.store import Store

KEYS = {name: character * 64 for name, character in {"kept": "a", "old": "b", "young": "c"}.items()}
DAY = 86400


def blob(content):
    sha256 = hashlib.sha256(content).hexdigest()
    return f"blobs/{sha256[:2]}/{sha256}"


def manifest(name):
    return f"target/{KEYS[name][:2]}/{KEYS[name]}.json"


def content(name):
    return f"of {name} ".encode() * 100


@pytest.fixture
def filled(machines, monkeypatch):
    """Three artifacts, each with its own file and a file that all share."""
    for name, key in KEYS.items():
        age = timedelta(days=0 if name == "young" else 10)
        created = (datetime.now(UTC) - age).isoformat(timespec="seconds")
        monkeypatch.setattr(store_module, "_now", lambda created=created: created)
        machines.open().write("target", key, tensors={}, info={}, files={"own": content(name), "common": b"common"})
    return machines


def invoke(machines, *words, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("PRIVBENCH_CACHE", str(machines._folder / "cache"))
        return command_line.run("store", *words, "--store", machines.url)


def test_ls_of_both_tiers(filled, monkeypatch):
    result = invoke(filled, "ls", monkeypatch=monkeypatch)
    lines = result.out.splitlines()
    assert lines[0].split() == ["kind", "key", "state", "tier", "size", "created"]
    assert [line.split()[3] for line in lines[1:4]] == ["shared"] * 3
    assert "3 artifacts, " in result.out
    assert f"{filled.url} and its local tier" in result.out.replace("\n", "")
    rows = json.loads(invoke(filled, "ls", "--json", monkeypatch=monkeypatch).out)
    kept = next(row for row in rows if row["key"] == KEYS["kept"])
    size = len(filled.read(manifest("kept"))) + len(content("kept")) + len(b"common")
    assert (kept["tier"], kept["bytes"], kept["path"]) == ("shared", size, manifest("kept"))
    assert [entry.tier for entry in filled.open().entries()] == ["local"] * 3


def test_an_empty_tier(machines, monkeypatch):
    for command in (["ls"], ["check"], ["gc", "--all"]):
        assert invoke(machines, *command, monkeypatch=monkeypatch).code == 0
    assert machines.names() == []


def test_a_check_reads_every_blob_once(filled, requests):
    assert filled.open("second").check() == []
    assert len([what for what, *_ in requests if what == "chunks"]) == 4


def test_check_finds_damage_of_the_shared_tier(filled, monkeypatch):
    filled.replace(blob(content("old")), b"x" * len(content("old")))
    filled.replace(manifest("young"), b"")
    for stray in ("notes.txt", "target/xx/yy.json", f"target/aa/{KEYS['old']}.json", "blobs/aa/short", "blobs/x"):
        filled.replace(stray, b"")
    result = invoke(filled, "check", monkeypatch=monkeypatch)
    assert result.code == 1
    assert "7 problems in" in result.out
    lines = {line.split(": ")[0]: line for line in result.out.splitlines()}
    assert "does not match the manifest" in lines[f"{filled.url}/{manifest('old')}"]
    assert "its manifest is damaged" in lines[f"{filled.url}/{manifest('young')}"]
    assert "not part of a store" in lines[f"{filled.url}/notes.txt"]
    found = json.loads(invoke(filled, "check", "--json", monkeypatch=monkeypatch).out)
    assert {problem["tier"] for problem in found} == {"shared"}
    assert invoke(filled, "check", "--repair", monkeypatch=monkeypatch).code == 0
    assert invoke(filled, "check", monkeypatch=monkeypatch).code == 0
    assert len(filled.names("quarantine/")) == 7
    second = filled.open("second")
    assert [second.find("target", key) is None for key in KEYS.values()] == [False, True, True]


def test_a_damaged_blob_damages_every_artifact_that_lists_it(filled):
    filled.replace(blob(b"common"), b"nommoc")
    assert {problem.key for problem in filled.open("second").check()} == set(KEYS.values())


def test_check_keeps_what_is_repaired_while_it_runs(filled, monkeypatch):
    sound = filled.read(manifest("old"))
    filled.replace(manifest("old"), sound[:-1])
    real = shared_maintenance._damage

    def mended_after(*arguments):
        try:
            return real(*arguments)
        finally:
            filled.replace(manifest("old"), sound)

    monkeypatch.setattr(shared_maintenance, "_damage", mended_after)
    assert filled.open("second").check(repair=True) == []
    assert filled.names("quarantine/") == []


def test_gc_removes_published_artifacts_only_on_request(filled, ages):
    ages |= {"blobs/": 9, "target/": 9}
    store = filled.open()
    before = filled.names()
    removed = store.gc({KEYS["kept"]})
    assert {entry.tier for entry in removed} == {"local"}
    assert filled.names() == before
    assert filled.open().find("target", KEYS["old"]) is not None


def test_gc_of_the_shared_tier(filled, ages):
    ages |= {"blobs/": 9, "target/": 9}
    second = filled.open("second")
    before = filled.names()
    dry = second.gc({KEYS["kept"]}, dry_run=True, shared=True)
    assert filled.names() == before
    removed = second.gc({KEYS["kept"]}, shared=True)
    assert removed == dry
    gone = [manifest("old"), manifest("young"), blob(content("old")), blob(content("young"))]
    assert sorted(entry.path.as_posix() for entry in removed) == sorted(gone)
    assert set(before) - set(filled.names()) == set(gone)
    assert second.check() == []
    assert second.gc({KEYS["kept"]}, shared=True) == []
    assert second.find("target", KEYS["kept"]).file("common") == b"common"


def test_gc_keeps_young_artifacts_of_the_shared_tier(filled, ages):
    ages |= {"blobs/": 9, "target/": 9}
    removed = filled.open("second").gc(set(), older_than_days=5, shared=True)
    assert {entry.key for entry in removed} == {KEYS["kept"], KEYS["old"], ""}
    assert manifest("young") in filled.names()
    assert blob(b"common") in filled.names()


def test_gc_keeps_blobs_that_a_writer_is_about_to_publish(filled, ages):
    """Blobs are written before their manifest, and existing blobs are written again."""
    second = filled.open("second")
    second._remote.files.create = lambda name, data: (_ for _ in ()).throw(KeyboardInterrupt)
    second._remote._is_writable = True
    with pytest.raises(KeyboardInterrupt):
        second.write("prior", "d" * 64, tensors={}, info={}, files={"new": b"unnamed"})
    assert blob(b"unnamed") in filled.names()
    filled.replace("tmp/unfinished", b"")
    filled.replace("quarantine/target-abc-1.json", b"")
    third = filled.open("third")
    assert third.gc(None, shared=True) == []
    ages |= {"blobs/": 0.9, "tmp/unfinished": 0.9, "quarantine/": 0.9}
    assert third.gc(None, shared=True) == []
    ages |= {"blobs/": 1.1, "tmp/unfinished": 1.1, "quarantine/": 1.1}
    assert [(entry.state, entry.path.as_posix()) for entry in third.gc(None)] == [
        ("leftover", blob(b"unnamed")),
        ("quarantined", "quarantine/target-abc-1.json"),
        ("leftover", "tmp/unfinished"),
    ]
    assert third.check() == []


def test_gc_keeps_what_is_published_while_it_runs(filled, ages, monkeypatch):
    """The manifest is published between the listing and the removal; ages are read just before the removal."""
    ages |= {"blobs/": 9}
    filled.replace(blob(b"returns"), b"returns")
    real = shared_maintenance._unlisted

    def published_before(sizes, named):
        del ages["blobs/"]
        filled.open().write("prior", "d" * 64, tensors={}, info={}, files={"new": b"returns"})
        return real(sizes, named)

    monkeypatch.setattr(shared_maintenance, "_unlisted", published_before)
    assert filled.open("second").gc(None) == []
    assert filled.open("third").find("prior", "d" * 64).file("new") == b"returns"


def test_gc_stops_where_manifests_cannot_be_read(filled, ages, monkeypatch):
    """Blobs of a manifest that cannot be read are kept."""
    ages |= {"blobs/": 9, "target/": 9}
    before = filled.names()
    real = RemoteFiles.read

    def read(self, name, limit):
        if name == manifest("old"):
            raise StorageError("cannot read")
        return real(self, name, limit)

    monkeypatch.setattr(RemoteFiles, "read", read)
    with pytest.raises(StorageError):
        filled.open("second").gc(set(), shared=True)
    monkeypatch.setattr(RemoteFiles, "read", real)
    assert filled.names() == before


def test_gc_from_the_command_line(filled, ages, monkeypatch, tmp_path):
    ages |= {"blobs/": 9, "target/": 9}
    (tmp_path / "results" / "records").mkdir(parents=True)
    (tmp_path / "results" / "records" / "a.json").write_text(json.dumps({"artifacts": {"x": {"key": KEYS["kept"]}}}))
    arguments = ["gc", "--results", tmp_path / "results"]
    assert "removed 0 items" in invoke(filled, *arguments, monkeypatch=monkeypatch).out
    result = invoke(filled, *arguments, "--shared", monkeypatch=monkeypatch)
    assert "removed 4 items" in result.out
    assert [each.key for each in filled.open("third").shared_entries()] == [KEYS["kept"]]
    message = command_line.refusal("store", "gc", "--all", "--shared", "--store", tmp_path / "s")
    assert "expected --store to be a URL with --shared" in message


# Clocks


TIMES = {
    "future": "2999-01-01T00:00:00+00:00",
    "past": "0001-01-01T00:00:00+00:00",
    "no date": "2026-99-99T99:99:99+00:00",
}


@pytest.mark.parametrize("created", TIMES.values(), ids=TIMES)
def test_wrong_times_in_manifests_break_nothing(filled, created, ages, monkeypatch):
    ages |= {"blobs/": 9, "target/": 9}
    store = filled.open()
    for path in store.root.glob("target/*/*/manifest.json"):
        path.write_bytes(seal(unseal(path.read_bytes()) | {"created": created}))
    for key in KEYS.values():
        name = f"target/{key[:2]}/{key}.json"
        filled.replace(name, (store.root / "target" / key[:2] / key / "manifest.json").read_bytes())
    assert {entry.created for entry in (*store.entries(), *store.shared_entries())} == {created}
    assert store.check() == []
    assert invoke(filled, "ls", monkeypatch=monkeypatch).code == 0
    removed = store.gc(set(), older_than_days=1, shared=True)
    gone = {entry.tier for entry in removed if entry.state == "artifact"}
    assert (
        gone
        == {"future": set(), "past": {"local", "shared"}, "no date": {"shared"}}[
            next(name for name, time in TIMES.items() if time == created)
        ]
    )


@pytest.mark.parametrize("days", [-20000, -400, 400, 20000])
def test_a_wrong_local_clock_does_not_remove_new_blobs(filled, days, monkeypatch):
    """The local clock is wrong; ages of blobs depend only on the clock of the tier."""
    filled.replace(blob(b"unnamed"), b"unnamed")
    now = time.time() + days * DAY
    monkeypatch.setattr(time, "time", lambda: now)
    assert filled.open("second").gc(None, shared=True) == []
    assert len(filled.open("second").shared_entries()) == 3


def test_files_with_future_times_break_nothing(in_a_folder, tmp_path):
    store = in_a_folder.open()
    store.write("target", KEYS["old"], tensors={}, info={}, files={"own": b"x"})
    in_a_folder.replace(blob(b"unnamed"), b"unnamed")
    for path in [*(tmp_path / "shared").rglob("*"), *store.root.rglob("*")]:
        os.utime(path, (4e9, 4e9))
    again = in_a_folder.open()
    assert again.find("target", KEYS["old"]) is not None
    assert len(list(again.entries())) == len(again.shared_entries()) == 1
    assert again.check() == []
    assert again.gc(None, older_than_days=1, shared=True) == []
    for path in (tmp_path / "shared").rglob("*"):
        os.utime(path, (-1e9, -1e9))
    assert [entry.path.as_posix() for entry in again.gc(None)] == [blob(b"unnamed")]


def test_a_tier_that_keeps_no_times_keeps_all(filled, monkeypatch, caplog):
    filled.replace(blob(b"unnamed"), b"unnamed")
    monkeypatch.setattr(RemoteFiles, "modified", lambda self, name: None)
    assert filled.open("second").gc(set(), shared=True) == []
    assert "keeps no times" in caplog.text


def test_times_of_the_local_tier(tmp_path, monkeypatch):
    """The same with one tier."""
    store = Store(tmp_path / "store")
    for name, created in zip(KEYS, TIMES.values(), strict=True):
        monkeypatch.setattr(store_module, "_now", lambda created=created: created)
        store.write("target", KEYS[name], tensors={}, info={})
    assert {entry.created for entry in store.entries()} == set(TIMES.values())
    assert store.check() == []
    assert {entry.key for entry in store.gc(set(), older_than_days=1)} == {KEYS["old"]}
    assert {entry.key for entry in store.gc(set())} == {KEYS["kept"], KEYS["young"]}
