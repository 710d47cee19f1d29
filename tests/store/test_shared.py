"""Two tiers: machines share artifacts, damaged ones are recomputed, and the first published one is used."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading

import pytest
import torch
from privbench.benchmark.core.paths import Address
from privbench.benchmark.errors import CorruptArtifactError, InvalidConfigurationError, StorageError
from privbench.benchmark.pipeline.plan import Plan, Stage
from privbench.benchmark.runners.pending import find_pending
from privbench.benchmark.store import shared_files
from privbench.benchmark.store.manifest import Artifact, seal, unseal
from privbench.benchmark.store.shared import MAX_FILES, Remote
from privbench.benchmark.store.store import Store

KEY = "ab" + "0" * 62
OTHER = "ab" + "1" * 62
MANIFEST = f"target/ab/{KEY}.json"
CONTENT = b"same size 1"
BLOB = hashlib.sha256(CONTENT).hexdigest()
BLOB = f"blobs/{BLOB[:2]}/{BLOB}"


def write(store, key=KEY, value=1.0, **more) -> Artifact:
    tensors = {"network": {"weight": torch.full((2, 3), value)}}
    files = {"a": CONTENT, "b": b"same size 2", "empty": b""}
    return store.write(
        "target", key, tensors=tensors, info={"value": value}, files=files, inputs={"judge": OTHER}, **more
    )


def value(artifact):
    assert artifact.info["value"] == artifact.tensors("network")["weight"][0, 0]
    return artifact.info["value"]


def test_what_one_machine_writes_another_finds(machines):
    written = write(machines.open("first"))
    found = machines.open("second").find("target", KEY)
    assert found.digest == written.digest
    assert found.manifest == written.manifest
    assert (found.path / "manifest.json").read_bytes() == (written.path / "manifest.json").read_bytes()
    assert found.file("a") == CONTENT
    assert found.file("empty") == b""
    assert value(found) == 1.0
    for machine in ("first", "second"):
        store = machines.open(machine)
        assert store.check() == []
        assert not list((store.root / "tmp").iterdir())
    assert machines.open("second").find("target", OTHER) is None


def test_the_layout_of_the_shared_tier(machines):
    written = write(machines.open())
    blobs = [f"blobs/{facts.sha256[:2]}/{facts.sha256}" for facts in written.manifest.files.values()]
    assert machines.names() == sorted(["format.json", MANIFEST, *blobs])
    assert json.loads(machines.read("format.json")) == {"format": 1, "layout": "blobs"}
    assert machines.read(MANIFEST) == (written.path / "manifest.json").read_bytes()
    assert machines.read(BLOB) == CONTENT


def test_reading_creates_nothing(machines):
    store = machines.open()
    assert store.find("target", KEY) is None
    assert not store.root.exists()
    assert machines.names() == []


def test_requests_are_few(machines, requests):
    store = machines.open()
    assert store.find("target", KEY) is None
    assert requests == [("read", "format.json")]
    requests.clear()
    with store.lock("target", KEY):
        assert [what for what, *_ in requests] == ["read", "top", "create", "read", "create", "modified", "remove"]
        requests.clear()
        write(store)
    made = [what for what, *_ in requests]
    assert made == ["read", *["put"] * 4, "create", "read"]
    assert [name for what, name in requests if what != "put"] == [MANIFEST] * 3
    requests.clear()
    with store.lock("target", KEY):
        assert value(store.find("target", KEY)) == 1.0
    assert requests == []
    assert value(machines.open().find("target", KEY)) == 1.0
    assert requests == [("read", "format.json"), ("read", MANIFEST)]
    requests.clear()
    second = machines.open("second")
    for _ in range(3):
        assert value(second.find("target", KEY)) == 1.0
    assert [what for what, *_ in requests] == ["read", "read", *["chunks"] * 4]


def test_large_files_come_in_chunks(machines, monkeypatch):
    write(machines.open())
    for size in (1, 2, 3, len(CONTENT), len(CONTENT) + 1):
        monkeypatch.setattr(shared_files, "CHUNK", size)
        assert machines.open(f"machine {size}").find("target", KEY).file("a") == CONTENT


def test_what_is_only_local_is_published_when_found(machines, requests):
    first = machines.open("first")
    written = write(first)
    machines.files.remove(MANIFEST)
    machines.files.remove(BLOB)
    assert machines.open("second").find("target", KEY) is None
    requests.clear()
    again = machines.open("first")
    assert again.find("target", KEY) == written
    assert [what for what, *_ in requests if what == "create"]
    requests.clear()
    assert again.find("target", KEY) == written
    assert requests == []
    assert value(machines.open("second").find("target", KEY)) == 1.0


def test_the_first_published_artifact_is_used(machines, caplog):
    first, second = machines.open("first"), machines.open("second")
    assert first.find("target", KEY) is second.find("target", KEY) is None
    winner = write(first, value=1.0)
    machines.files.move(MANIFEST, "aside")
    loser_files = RaceOnce(second, machines)
    with caplog.at_level(logging.WARNING, logger="privbench"):
        taken = write(second, value=2.0)
    assert loser_files.raced
    assert value(taken) == 1.0
    assert taken.digest == winner.digest == second.find("target", KEY).digest == first.find("target", KEY).digest
    assert f"another machine published target {KEY[:12]} first" in caplog.text
    assert second.check() == []
    assert not list((second.root / "tmp").iterdir())


class RaceOnce:
    """Creates another machine's manifest just before this machine creates its own."""

    def __init__(self, store, machines):
        self.raced = False
        files, machines_files = store._remote.files, machines.files
        create = files.create

        def racing(name, data):
            if name == MANIFEST and not self.raced:
                self.raced = True
                machines_files.move("aside", MANIFEST)
            return create(name, data)

        files.create = racing


def test_a_different_local_artifact_is_replaced_by_the_published_one(machines, caplog):
    """Both machines computed while the shared tier was unavailable."""
    write(machines.open("second"), value=2.0)
    machines.files.move(MANIFEST, "aside")
    write(machines.open("first"), value=1.0)
    with caplog.at_level(logging.WARNING, logger="privbench"):
        found = machines.open("second").find("target", KEY)
    assert value(found) == 1.0
    assert found.digest == machines.open("first").find("target", KEY).digest
    assert "its result is used" in caplog.text


def test_locked_keys_are_not_changed_by_other_processes(machines):
    second = machines.open("second")
    write(second, value=2.0)
    machines.files.move(MANIFEST, "aside")
    write(machines.open("first"), value=1.0)
    with second.lock("target", KEY):
        found = []
        thread = threading.Thread(target=lambda: found.append(machines.open("second").find("target", KEY)))
        thread.start()
        thread.join()
    assert value(found[0]) == 2.0
    assert value(second.find("target", KEY)) == 2.0
    assert value(machines.open("second").find("target", KEY)) == 1.0


def test_a_download_does_not_wait_for_a_computation(machines):
    """A download takes the lock of the download, not that of the key."""
    write(machines.open("first"))
    second = machines.open("second")
    with second.lock("target", KEY):
        found = []
        thread = threading.Thread(target=lambda: found.append(machines.open("second").find("target", KEY)))
        thread.start()
        thread.join(timeout=30)
        assert value(found[0]) == 1.0
        assert write(second, value=2.0).digest == found[0].digest


def test_discarding_removes_from_both_tiers(machines):
    store = machines.open()
    write(store)
    store.discard("target", KEY)
    assert store.find("target", KEY) is None
    assert MANIFEST not in machines.names()
    assert value(write(store, value=2.0)) == 2.0
    assert value(machines.open("second").find("target", KEY)) == 2.0


def test_discarding_keeps_what_another_machine_published(machines):
    first, second = machines.open("first"), machines.open("second")
    write(first)
    assert second.find("target", KEY) is not None
    first.discard("target", KEY)
    write(first, value=2.0)
    second.discard("target", KEY)
    assert value(second.find("target", KEY)) == 2.0


def test_discarding_what_is_only_shared(machines):
    write(machines.open("first"))
    machines.open("second").discard("target", KEY)
    assert machines.open("second").find("target", KEY) is None


# Damage


def _resealed(change):
    """Make a manifest with a valid checksum and wrong content."""

    def damage(machines):
        facts = unseal(machines.read(MANIFEST))
        change(facts)
        machines.replace(MANIFEST, seal(facts))

    return damage


def _cut(name):
    return lambda machines: machines.replace(name, machines.read(name)[:-1])


def _longer(name):
    return lambda machines: machines.replace(name, machines.read(name) + b"\0")


def _flipped(name):
    return lambda machines: machines.replace(name, bytes([machines.read(name)[0] ^ 1]) + machines.read(name)[1:])


def _swapped(machines):
    other = hashlib.sha256(b"same size 2").hexdigest()
    machines.replace(BLOB, machines.read(f"blobs/{other[:2]}/{other}"))


def _renamed(name):
    return _resealed(lambda facts: facts["files"].update({name: facts["files"].pop("a")}))


DAMAGE = {
    "blob cut": _cut(BLOB),
    "blob emptied": lambda machines: machines.replace(BLOB, b""),
    "blob longer": _longer(BLOB),
    "blob flipped": _flipped(BLOB),
    "blob swapped": _swapped,
    "blob missing": lambda machines: machines.files.remove(BLOB),
    "manifest cut": _cut(MANIFEST),
    "manifest emptied": lambda machines: machines.replace(MANIFEST, b""),
    "manifest longer": _longer(MANIFEST),
    "manifest flipped": _flipped(MANIFEST),
    "manifest of another key": _resealed(lambda facts: facts.update(key=OTHER)),
    "manifest of another kind": _resealed(lambda facts: facts.update(kind="prior")),
    "manifest of a newer format": _resealed(lambda facts: facts.update(format=2)),
    "manifest with more": _resealed(lambda facts: facts.update(more=1)),
    "manifest of a strange time": _resealed(lambda facts: facts.update(created="\x1b[2Jtomorrow")),
    "hash that is a path": _resealed(lambda facts: facts["files"]["a"].update(sha256="../../../../etc/passwd")),
    "hash of something else": _resealed(lambda facts: facts["files"]["a"].update(sha256="0" * 64)),
    "huge size": _resealed(lambda facts: facts["files"]["a"].update(bytes=10**30)),
    "negative size": _resealed(lambda facts: facts["files"]["a"].update(bytes=-1)),
    "name outside": _renamed("../outside"),
    "name absolute": _renamed("/tmp/outside"),
    "name of the manifest": _renamed("manifest.json"),
    "name that clashes": _renamed("B"),
    "name that is hidden": _renamed(".hidden"),
    "many files": _resealed(
        lambda facts: facts["files"].update({f"f{i}": facts["files"]["a"] for i in range(MAX_FILES)})
    ),
    "deep manifest": lambda machines: machines.replace(MANIFEST, b"[" * 100_000),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_detected_and_recomputed(machines, damage, caplog, tmp_path):
    write(machines.open("first"))
    damage(machines)
    before = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    second = machines.open("second")
    with caplog.at_level(logging.WARNING, logger="privbench"):
        assert second.find("target", KEY) is None
    after = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")} - before
    assert all(path.startswith(("machines/second", "shared/quarantine")) for path in after)
    (record,) = caplog.records
    assert f"target {KEY[:12]} of {machines.url} is damaged (" in record.message
    assert record.message.isprintable()
    assert not list((second.root / "tmp").iterdir())
    assert not (second.root / "target" / "ab" / KEY).exists()
    assert len(machines.names("quarantine/")) == 1
    assert MANIFEST not in machines.names()
    assert value(write(second, value=2.0)) == 2.0
    assert value(machines.open("third").find("target", KEY)) == 2.0
    assert value(machines.open("first").find("target", KEY)) == 2.0


def _link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _fifo(path):
    path.unlink()
    os.mkfifo(path)


def _folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [MANIFEST, BLOB], ids=["manifest", "blob"])
@pytest.mark.parametrize("damage", [_link, _fifo, _folder])
def test_links_devices_and_folders_in_a_shared_folder(in_a_folder, name, damage, tmp_path):
    write(in_a_folder.open("first"))
    damage(tmp_path / "shared" / name)
    second = in_a_folder.open("second")
    assert second.find("target", KEY) is None
    assert len(list((tmp_path / "shared" / "quarantine").iterdir())) == 1


def test_damage_of_the_shared_tier_is_replaced_by_an_intact_local_artifact(machines):
    """The damage of the manifest is detected when it is compared with the local one."""
    first = machines.open("first")
    write(first)
    DAMAGE["manifest flipped"](machines)
    assert value(machines.open("first").find("target", KEY)) == 1.0
    assert value(machines.open("second").find("target", KEY)) == 1.0


def test_damage_of_the_local_tier_is_replaced_by_the_shared_one(machines, caplog):
    first = machines.open("first")
    (write(first).path / "a").write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="privbench"):
        assert machines.open("first").find("target", KEY).file("a") == CONTENT
    assert "is damaged" in caplog.text
    assert machines.open("first").check() == []


def test_a_damaged_local_artifact_is_never_published(machines):
    first = machines.open("first")
    (write(first).path / "a").write_bytes(b"same size X")
    machines.files.remove(MANIFEST)
    found = machines.open("first").find("target", KEY, verify=False)
    with pytest.raises(CorruptArtifactError):
        found.file("a")
    assert MANIFEST not in machines.names()
    assert machines.open("first").find("target", KEY) is None


def test_a_manifest_that_was_replaced_is_not_moved(machines, monkeypatch):
    """Another machine found the same damage and repaired it first."""
    write(machines.open("first"))
    sound = machines.read(MANIFEST)
    DAMAGE["manifest flipped"](machines)
    second = machines.open("second")
    download = second._remote.download

    def mended_after(*arguments):
        try:
            download(*arguments)
        finally:
            machines.replace(MANIFEST, sound)

    monkeypatch.setattr(second._remote, "download", mended_after)
    assert second.find("target", KEY) is None
    assert machines.names("quarantine/") == []
    assert value(machines.open("third").find("target", KEY)) == 1.0


def test_a_damaged_manifest_that_cannot_be_moved_is_reported(machines, monkeypatch):
    write(machines.open("first"))
    DAMAGE["manifest flipped"](machines)
    second = machines.open("second")
    monkeypatch.setattr(second._remote.files, "move", lambda name, target: None)
    assert second.find("target", KEY) is None
    with pytest.raises(StorageError, match="is damaged and cannot be replaced; ask someone who can write there"):
        write(second, value=2.0)
    monkeypatch.undo()
    assert value(machines.open("second").find("target", KEY)) == 2.0
    assert value(machines.open("third").find("target", KEY)) == 2.0


@pytest.mark.parametrize(("kind", "key"), [("blobs/x", KEY), ("target", "../../x"), ("TARGET", KEY), ("tmp", KEY)])
def test_invalid_kinds_and_keys_never_reach_the_shared_tier(machines, kind, key, requests):
    with pytest.raises(InvalidConfigurationError, match="expected kind and key"):
        machines.open().find(kind, key)
    assert requests == []


# The format


def test_a_newer_tier_is_not_changed(machines):
    write(machines.open())
    before = machines.names()
    machines.replace("format.json", b'{"format": 2, "layout": "blobs"}')
    for call in (lambda store: store.find("target", KEY), lambda store: store.find("target", OTHER), write):
        with pytest.raises(StorageError, match="has format 2 and this privbench reads up to 1; update privbench"):
            call(machines.open())
    assert machines.names() == before
    machines.replace("format.json", b'{"format": 1, "layout": "blobs"}')
    assert value(machines.open().find("target", KEY)) == 1.0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "1"}', '{"format": true}', "\xff", "[" * 4000])
def test_a_damaged_format_file(machines, text):
    write(machines.open())
    machines.replace("format.json", text.encode("latin-1"))
    with pytest.raises(StorageError, match=r'replace it by a file that contains \{"format": 1, "layout": "blobs"\}'):
        machines.open("second").find("target", KEY)


def test_a_url_that_is_not_a_store_is_not_changed(machines):
    machines.replace("thesis.tex", b"")
    store = machines.open()
    assert store.find("target", KEY) is None
    with pytest.raises(StorageError, match="is not a privbench store"), store.lock("target", KEY):
        pass
    with pytest.raises(StorageError, match="is not a privbench store"):
        write(machines.open())
    assert machines.names() == ["thesis.tex"]


def test_local_and_shared_stores_are_not_confused(in_a_folder, tmp_path):
    write(in_a_folder.open())
    with pytest.raises(StorageError, match=rf"is a shared store; give it as file://{tmp_path}/shared with --store"):
        Store(tmp_path / "shared").find("target", KEY)
    alone = Store(tmp_path / "machines" / "alone")
    write(alone)
    with pytest.raises(StorageError, match="is a store for one machine; give its path"):
        Store(Address(str(tmp_path / "local"), f"file://{alone.root}")).find("target", KEY)


def test_two_versions_on_one_store_use_other_keys(machines):
    """Keys contain the versions of the components and of the key format."""
    old, new = (hashlib.sha256(f"{version}".encode()).hexdigest() for version in (1, 2))
    write(machines.open(), key=old, value=1.0)
    write(machines.open("second"), key=new, value=2.0)
    for machine in ("first", "second", "third"):
        assert [value(machines.open(machine).find("target", key)) for key in (old, new)] == [1.0, 2.0]


def test_a_plan_queries_several_stages_at_a_time(machines, monkeypatch):
    """A request to a bucket takes tens of milliseconds; ten thousand in sequence took minutes."""
    write(machines.open())
    keys = [KEY, *(f"{i:064x}" for i in range(31))]
    met, real = threading.Barrier(8, timeout=10), Remote.manifest

    def manifest(self, kind, key):
        met.wait()
        return real(self, kind, key)

    monkeypatch.setattr(Remote, "manifest", manifest)
    plan = Plan({key: Stage("target", key, key, {}, None) for key in keys}, dict.fromkeys(keys))
    found, todo = find_pending(plan, machines.open("second"))
    assert list(found) == keys
    assert [key for key in keys if found[key] is not None] == [KEY]
    assert [stage.key for stage in todo] == keys[1:]


def test_only_needed_artifacts_are_downloaded(machines):
    """A new machine downloads only the scores of a plan that others have computed."""
    keys = {name: f"{i:064x}" for i, name in enumerate(["target", "prior", "evidence", "scores"])}
    reads = {"target": [], "prior": ["target"], "evidence": ["target", "prior"], "scores": ["target", "evidence"]}
    for name, key in keys.items():
        machines.open().write(name, key, tensors={}, info={})
    stages = {
        key: Stage(name, key, name, {role: keys[role] for role in reads[name]}, None) for name, key in keys.items()
    }
    made = Plan(stages, {keys["scores"]: None})

    def looked(machine):
        store = machines.open(machine)
        todo = [stage.kind for stage in find_pending(made, store)[1]]
        return todo, {name for name, key in keys.items() if store.exists(name, key)}

    assert looked("second") == ([], {"scores"})
    machines.open().discard("scores", keys["scores"])
    assert looked("third") == (["scores"], {"target", "evidence"})
    machines.open().discard("evidence", keys["evidence"])
    assert looked("fourth") == (["evidence", "scores"], {"target", "prior"})
    machines.open().discard("target", keys["target"])
    assert looked("fifth") == (["target", "evidence", "scores"], {"prior"})
    # What is damaged here is made again, and what it reads is looked for.
    store = machines.open("sixth")
    assert store.find("prior", keys["prior"]) is not None
    machines.open().discard("prior", keys["prior"])
    (store.root / "prior" / "00" / keys["prior"] / "manifest.json").write_bytes(b"{}")
    machines.open().write("scores", keys["scores"], tensors={}, info={})
    assert looked("sixth") == (["target", "prior"], {"scores"})


def test_manifests_are_read_without_downloading(machines, requests):
    written = write(machines.open())
    store = machines.open("second")
    requests.clear()
    assert store.manifest("target", KEY) == written.manifest
    assert not any(name == "chunks" for name, *_ in requests)
    assert not store.root.exists()
    assert store.manifest("target", OTHER) is None
    machines.replace(MANIFEST, b"{}")
    assert store.manifest("target", KEY) is None
    assert machines.read(MANIFEST) == b"{}"
    assert machines.open().manifest("target", KEY) == written.manifest
