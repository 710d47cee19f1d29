"""Links and special files in a store: nothing outside is read, changed or removed, and nobody waits for a device."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from helpers import command_line
from helpers.special import SPECIAL
from privbench.benchmark.errors import CorruptArtifactError, PrivbenchError, StorageError
from privbench.benchmark.store.store import Store

#: A reader that waits for a pipe waits for ever.
pytestmark = pytest.mark.timeout(60)

KEY, OTHER = "ab" + "0" * 62, "ab" + "1" * 62
#: What commands do with a store.
ACTIONS: dict[str, Callable[[Store], object]] = {
    "find": lambda store: store.find("target", KEY),
    "write": lambda store: write(store, OTHER),
    "write again": lambda store: write(store, KEY),
    "discard": lambda store: store.discard("target", KEY),
    "save": lambda store: save(store, 2),
    "load": lambda store: store.checkpoint("target", KEY).load("gan"),
    "clear": lambda store: store.checkpoint("target", KEY).clear(),
    "lock": lambda store: lock(store),
    "lease": lambda store: lease(store),
    "ls": lambda store: list(store.entries()),
    "check": lambda store: store.check(),
    "repair": lambda store: store.check(repair=True),
    "gc": lambda store: store.gc(set(), older_than_days=0),
}


#: What is done in turn with one store: what a run does, and maintenance, which may move a link away.
RUN = ("find", "load", "ls", "check", "lock", "lease", "write", "write again", "save", "discard", "clear")
SEQUENCES = (RUN, ("gc", "repair"), ("repair", "gc"))


def write(store: Store, key: str = KEY) -> None:
    with store.lock("target", key):
        store.write("target", key, tensors={"network": {"w": torch.ones(2)}}, info={}, files={"a": b"1234"})


def save(store: Store, step: int = 1) -> None:
    store.checkpoint("target", KEY).save("gan", {"g": {"w": torch.ones(2)}}, {"step": step})


def lock(store: Store) -> None:
    with store.lock("target", KEY):
        pass


def lease(store: Store) -> None:
    with store.lease([KEY]):
        pass


def made(root: Path) -> Store:
    """A store with something in every place, damaged and left over, too."""
    store = Store(root)
    write(store)
    save(store)
    (root / "tmp" / f"target-{KEY}-12345678").write_text("leftover")
    (root / "quarantine" / f"target-{KEY}-20200101").mkdir()
    (root / "quarantine" / f"target-{KEY}-20200101" / "file").write_text("quarantined")
    (root / "locks" / f"target-{KEY}.json").write_text("{}")
    (root / "notes").mkdir()
    (root / "notes" / "ab").mkdir()
    (root / "notes" / "ab" / "file").write_text("not part of a store")
    return store


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@contextlib.contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Fail if names, contents or times below a folder change."""

    def state() -> dict[str, tuple[int, bytes]]:
        return {
            path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
            for path in [folder, *folder.rglob("*")]
        }

    before = state()
    yield
    assert state() == before


PLACES = [
    "locks", f"locks/target-{KEY}.lock", f"locks/target-{KEY}.json", "locks/lease-gate.lock", "tmp",
    f"tmp/target-{KEY}-12345678", "quarantine", f"quarantine/target-{KEY}-20200101", "checkpoints",
    "checkpoints/target", "checkpoints/target/ab", f"checkpoints/target/ab/{KEY}",
    f"checkpoints/target/ab/{KEY}/gan.checkpoint", "target", "target/ab", f"target/ab/{KEY}",
    f"target/ab/{KEY}/manifest.json", f"target/ab/{KEY}/a", "notes", "notes/ab", "format.json",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_no_command_reaches_through_a_link(tmp_path, place):
    """What was in the store is moved outside, and a link to it is put in its place."""
    for number, names in enumerate([*SEQUENCES, RUN]):
        root, outside = tmp_path / f"{number}" / "store", tmp_path / f"{number}" / "outside"
        store = made(root)
        outside.mkdir()
        path, victim = root / place, outside / "victim"
        with contextlib.suppress(FileNotFoundError):
            path.rename(victim)
        if number == len(SEQUENCES):  # a link that leads nowhere
            shutil.rmtree(outside)
            outside.mkdir()
        path.symlink_to(victim)
        with unchanged(outside):
            for name in names:
                try:
                    ACTIONS[name](store)
                except StorageError as refusal:
                    assert "\n" not in str(refusal)


def test_the_root_may_be_a_link(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    (tmp_path / "real").mkdir()
    store = made(tmp_path / "link")
    assert store.find("target", KEY).file("a") == b"1234"
    assert (tmp_path / "real" / "target" / "ab" / KEY / "a").read_bytes() == b"1234"
    assert {entry.state for entry in store.gc(set())} == {"artifact", "quarantined", "leftover", "checkpoint"}


def test_repair_moves_a_link_and_not_what_it_leads_to(tmp_path):
    store = made(tmp_path / "store")
    (store.root / "target").rename(tmp_path / "outside")
    (store.root / "target").symlink_to(tmp_path / "outside")
    reasons = {problem.path: problem.reason for problem in store.check()}
    assert reasons[store.root / "target"] == "it is not part of a store"
    with unchanged(tmp_path / "outside"):
        store.check(repair=True)
        write(store)
    assert not (store.root / "target").is_symlink()
    assert any(path.is_symlink() for path in (store.root / "quarantine").iterdir())
    assert store.check() == []


def test_a_link_is_named_with_what_to_do(tmp_path):
    store = made(tmp_path / "store")
    shutil.rmtree(store.root / "locks")
    (store.root / "locks").symlink_to(tmp_path)
    with pytest.raises(StorageError, match=r"/store/locks is a symbolic link; remove the link, or choose another f"):
        write(store, OTHER)


# The shared tier in a folder


@pytest.mark.parametrize("place", ["target", "target/ab", f"target/ab/{KEY}.json", "blobs", "tmp", "quarantine"])
def test_no_command_reaches_through_a_link_of_the_shared_folder(in_a_folder, tmp_path, place):
    first = in_a_folder.open()
    write(first)
    path, outside = tmp_path / "shared" / place, tmp_path / "outside"
    outside.mkdir()
    with contextlib.suppress(FileNotFoundError):
        path.rename(outside / "victim")
    path.symlink_to(outside / "victim")
    acts: list[Callable[[Store], object]] = [
        lambda store: store.find("target", KEY),
        lambda store: write(store, OTHER),
        lambda store: store.discard("target", KEY),
        lambda store: store.check(repair=True),
        lambda store: store.gc(set(), shared=True),
        lambda store: lease(store),
    ]
    with unchanged(outside):
        for number, act in enumerate(acts):
            with contextlib.suppress(StorageError):
                act(in_a_folder.open(f"machine{number}"))


# Pipes, devices, sockets, and files that do not end

FILES = [place for place in PLACES if place.rpartition("/")[2] in ("gan.checkpoint", "manifest.json", "a")]
FILES += ["format.json", f"locks/target-{KEY}.lock", f"locks/target-{KEY}.json", f"tmp/target-{KEY}-12345678"]


@pytest.mark.parametrize("special", SPECIAL.values(), ids=SPECIAL)
def test_special_files_are_damage_or_one_sentence(tmp_path, special):
    for place in FILES:
        for number, names in enumerate(SEQUENCES[:2]):
            store = made(tmp_path / place.replace("/", "-") / f"{number}")
            (store.root / place).unlink(missing_ok=True)
            special(store.root / place)
            for name in names:
                try:
                    ACTIONS[name](store)
                except (StorageError, CorruptArtifactError) as refusal:
                    assert "\n" not in str(refusal)


@pytest.mark.parametrize("special", SPECIAL.values(), ids=SPECIAL)
def test_gc_does_not_wait_for_a_record(tmp_path, special, caplog):
    store, records = Store(tmp_path / "store"), tmp_path / "results" / "records"
    for key in (KEY, OTHER):
        write(store, key)
    records.mkdir(parents=True)
    (records / "a.json").write_text(f'{{"artifacts": {{"target": {{"key": "{KEY}"}}}}}}')
    special(records / "b.json")
    words = ("store", "gc", "--store", store.root, "--results", tmp_path / "results")
    assert command_line.run(*words).code == 0
    assert [entry.key for entry in store.entries()] == [KEY]
    assert "b.json is not a record" in caplog.text


def test_a_sparse_artifact_is_not_read(tmp_path):
    """Its manifest states another size."""
    store = Store(tmp_path / "store")
    write(store)
    artifact = store.find("target", KEY)
    os.truncate(artifact.path / "network.safetensors", 10 << 30)
    with pytest.raises(CorruptArtifactError, match="does not match its manifest"):
        artifact.tensors("network")
    with pytest.raises(PrivbenchError):
        artifact.tensors("other")
