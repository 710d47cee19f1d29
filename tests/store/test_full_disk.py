"""A full disk during every kind of write: one message, no partial files, and a retry succeeds."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from privbench.benchmark.core.paths import Address
from privbench.benchmark.errors import StorageError
from privbench.benchmark.records import record
from privbench.benchmark.store.store import Store

KEY = "ab" + "0" * 62
CONTENT = b"content " * 20


class Disk:
    """A disk that is full at the call number `number` that needs space, or from it on.

    Args:
        number: from 0.
        lasting: it stays full.
    """

    def __init__(self, patch: pytest.MonkeyPatch, number: int, lasting: bool) -> None:
        self.calls, self._number, self._lasting = 0, number, lasting
        for name in ("write", "fsync", "mkdir", "rename", "replace", "link", "open"):
            patch.setattr(os, name, self._limited(getattr(os, name), needs=_creates if name == "open" else _always))

    def _is_full(self) -> bool:
        self.calls += 1
        return self.calls - 1 == self._number or (self._lasting and self.calls > self._number)

    def _limited(self, real: Callable, needs: Callable) -> Callable:
        def call(*arguments, **options):
            if needs(*arguments) and self._is_full():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *arguments[:1])
            return real(*arguments, **options)

        return call


def _creates(path, flags, *_):
    return bool(flags & os.O_CREAT)


def _always(*_):
    return True


def write(store, content=CONTENT):
    tensors = {"network": {"weight": torch.zeros(3)}}
    return store.write("target", KEY, tensors=tensors, info={}, files={"picture.png": content})


def each_moment(monkeypatch, prepare, act, look):
    """Run an action with a disk that is full at each of its writes in turn, then once more with enough space."""
    for lasting in (False, True):
        for number in range(200):
            thing = prepare()
            with monkeypatch.context() as patch:
                disk = Disk(patch, number, lasting)
                try:
                    act(thing)
                except StorageError as error:
                    assert "\n" not in str(error)
                    assert "no space left on device" in str(error).lower()
                    failed = True
                else:
                    failed = False
            look(thing)
            act(thing)
            look(thing)
            if disk.calls <= number:
                assert not failed
                break
        assert number > 2


def counter():
    """Iterate over unused names."""
    return iter(range(10_000))


def whole_or_none(store):
    found = store.find("target", KEY)
    if found is not None:
        assert found.file("picture.png") == CONTENT
        assert torch.equal(found.tensors("network")["weight"], torch.zeros(3))
    assert store.check() == []
    return found


def test_a_real_disk(mount_disk):
    """A real disk with one more free page each time, until the action succeeds."""
    small_disk = mount_disk("256k")
    failed = 0
    for pages in range(40):
        store, filler = Store(small_disk / f"store{pages}"), small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        os.truncate(filler, max(0, filler.stat().st_size - 4096 * pages))
        try:
            write(store)
            store.checkpoint("target", KEY).save("gan", {"network": {"weight": torch.zeros(3000)}}, {"step": 1})
            done = True
        except StorageError as error:
            assert "no space left on device; free some space, or choose another folder" in str(error)
            done = False
            failed += 1
        filler.unlink()
        whole_or_none(store)
        write(store)
        whole_or_none(store)
        shutil.rmtree(store.root)
        if done:
            break
    assert failed > 3


def test_an_artifact(monkeypatch, tmp_path):
    names = counter()
    each_moment(monkeypatch, lambda: Store(tmp_path / f"store{next(names)}"), write, whole_or_none)


def test_an_artifact_of_two_tiers(tmp_path, monkeypatch):
    """The shared tier is on the full disk; the same command publishes what is complete locally."""
    names = counter()

    def prepare():
        name = next(names)
        return Address(str(tmp_path / f"local{name}"), f"file://{tmp_path}/shared{name}")

    def look(address):
        elsewhere = Store(Address(address.root + "elsewhere", address.remote))
        whole_or_none(elsewhere)
        local = Store(Address(address.root))
        assert local.check() == []

    def act(address):
        store = Store(address)
        if store.find("target", KEY) is None:
            write(store)

    each_moment(monkeypatch, prepare, act, look)


def test_what_is_computed_is_published_by_the_same_command(in_a_folder, monkeypatch):
    """The disk of the shared tier is full from the first blob on."""
    store = in_a_folder.open()
    with store.lock("target", KEY), monkeypatch.context() as patch:
        patch.setattr(os, "link", _full)
        with pytest.raises(StorageError, match=r"cannot write the shared store file://.*: No space left on device"):
            write(store)
    assert in_a_folder.open("second").find("target", KEY) is None
    assert in_a_folder.open().find("target", KEY).file("picture.png") == CONTENT
    assert in_a_folder.open("second").find("target", KEY).file("picture.png") == CONTENT


def _full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_download(in_memory, monkeypatch):
    write(in_memory.open())
    names = counter()
    each_moment(
        monkeypatch,
        lambda: in_memory.open(f"machine{next(names)}"),
        lambda store: store.find("target", KEY),
        whole_or_none,
    )


def test_downloading_what_another_machine_published(in_memory, monkeypatch):
    """The local artifact or the one that replaces it exists, complete."""
    manifest = f"target/ab/{KEY}.json"
    write(in_memory.open())
    names = counter()

    def prepare():
        in_memory.files.move(manifest, "aside")
        store = in_memory.open(f"machine{next(names)}")
        write(store, b"other")
        in_memory.files.move("aside", manifest)
        return in_memory.open(f"machine{store.root.name.removeprefix('machine')}")

    def look(store):
        assert in_memory.open(store.root.name).find("target", KEY).file("picture.png") == CONTENT
        assert store.check() == []

    each_moment(monkeypatch, prepare, lambda store: store.find("target", KEY), look)


def test_quarantining_damage(tmp_path, monkeypatch):
    names = counter()

    def prepare():
        store = Store(tmp_path / f"store{next(names)}")
        (write(store).path / "picture.png").write_bytes(b"")
        return store

    each_moment(monkeypatch, prepare, lambda store: store.find("target", KEY), lambda store: store.find("target", KEY))


def test_a_checkpoint(tmp_path, monkeypatch):
    """The earlier checkpoint is kept."""
    names = counter()

    def prepare():
        checkpoint = Store(tmp_path / f"store{next(names)}").checkpoint("target", KEY)
        checkpoint.save("gan", {"network": {"weight": torch.zeros(3)}}, {"step": 1})
        return checkpoint

    def act(checkpoint):
        checkpoint.save("gan", {"network": {"weight": torch.ones(3)}}, {"step": 2})

    def look(checkpoint):
        tensors, info = checkpoint.load("gan")
        assert torch.equal(tensors["network"]["weight"], torch.full((3,), info["step"] - 1.0))

    each_moment(monkeypatch, prepare, act, look)


def test_a_first_checkpoint(tmp_path, monkeypatch):
    """The checkpoint is the first file of a store, whose format file is written, too."""
    names = counter()

    def look(store):
        assert store.check() == []
        found = store.checkpoint("target", KEY).load("gan")
        assert found is None or found[1] == {"step": 1}

    def act(store):
        store.checkpoint("target", KEY).save("gan", {"network": {"weight": torch.zeros(3)}}, {"step": 1})

    each_moment(monkeypatch, lambda: Store(tmp_path / f"store{next(names)}"), act, look)


def test_a_lock(tmp_path, monkeypatch):
    names = counter()

    def act(store):
        with store.lock("target", KEY):
            pass

    each_moment(monkeypatch, lambda: Store(tmp_path / f"store{next(names)}"), act, lambda store: store.check() == [])


def test_a_lease(tmp_path, monkeypatch):
    names = counter()

    def act(store):
        with store.lease([KEY]):
            pass

    def look(store):
        assert store.check() == []

    each_moment(monkeypatch, lambda: Store(tmp_path / f"store{next(names)}"), act, look)


def test_a_record_and_its_picture(tmp_path, monkeypatch):
    names = counter()
    samples = sorted((Path(__file__).parents[2] / "results" / "records").rglob("*.json"))
    if not samples:
        pytest.skip("there are no records in results")
    sample = record.read(next(path for path in samples if record.read(path).picture))

    def look(results):
        paths = [path for path in results.rglob("*") if path.is_file()]
        assert not [path for path in paths if path.suffix not in {".json", ".png"}]
        for path in paths:
            if path.suffix == ".json":
                assert record.read(path) == sample
                assert path.with_suffix(".png").read_bytes() == CONTENT

    each_moment(
        monkeypatch,
        lambda: tmp_path / f"results{next(names)}",
        lambda results: record.save(sample, results, CONTENT),
        look,
    )
