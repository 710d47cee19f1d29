"""A shared tier that is unavailable, slow or read-only: retries, then one sentence; no computed result is lost."""

from __future__ import annotations

import errno
import logging
import os
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations
from privbench.benchmark.core.paths import Address
from privbench.benchmark.errors import InvalidConfigurationError, PrivbenchError, StorageError
from privbench.benchmark.store.shared_files import PAUSES, RemoteFiles
from privbench.benchmark.store.store import Store

KEY = "ab" + "0" * 62
OTHER = "ab" + "1" * 62
MANIFEST = f"target/ab/{KEY}.json"
NAMES = ("read", "put", "create", "move", "remove", "sizes", "modified", "top")


class BotoError(Exception):
    """Like the errors of botocore, which derive from no built-in error."""


PASSING = [
    ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
    TimeoutError("timed out"),
    OSError(errno.EIO, os.strerror(errno.EIO)),
    OSError(errno.ESTALE, "Stale file handle"),
    BotoError('Could not connect to the endpoint URL: "http://127.0.0.1:1/"\nsecond line'),
    RuntimeError(),
]
LASTING = [
    PermissionError(errno.EACCES, "Access Denied"),
    PermissionError("Forbidden"),
    OSError(errno.EROFS, "Read-only file system"),
    OSError(errno.ENOSPC, "No space left on device"),
    NotImplementedError("this file system cannot write"),
    type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"),
]


class Faulty:
    """A file system that fails.

    Args:
        files: the sound one.
        error: what it raises.
        fails: says of the number of a request, from 0, and of its name whether it fails.
    """

    def __init__(self, files, error, fails):
        self._files, self._error, self._fails, self.made = files, error, fails, 0

    def __getattr__(self, name):
        real = getattr(self._files, name)
        if name not in NAMES:
            return real

        def call(*arguments):
            self.made += 1
            if self._fails(self.made - 1, name):
                raise self._error
            return real(*arguments)

        return call


def broken(store, error, fails):
    """Make the file system of a store fail; returns it."""
    files = store._remote.files
    files.top()
    files._backend = Faulty(files._backend, error, fails)
    return files._backend


def mended(store):
    store._remote.files._backend = store._remote.files._backend._files


def write(store, key=KEY, content=b"content"):
    return store.write("target", key, tensors={}, info={}, files={"a": content, "b": content * 2})


def one_sentence(error):
    message = str(error)
    assert message.isprintable()
    assert len(message) < 500
    assert "second line" in message or "\n" not in message
    return message


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_temporary_failures_are_retried(machines, error):
    """Every request fails as often as there are retries, then succeeds."""
    store = machines.open()
    files = broken(store, error, lambda number, _: number % (len(PAUSES) + 1) != len(PAUSES))
    with store.lock("target", KEY):
        assert store.find("target", KEY) is None
        write(store)
    assert files.made > 30
    second = machines.open("second")
    broken(second, error, lambda number, _: number % (len(PAUSES) + 1) != len(PAUSES))
    assert second.find("target", KEY).file("a") == b"content"
    assert store.check() == second.check() == []


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_an_unavailable_tier_is_one_sentence_after_the_retries(machines, error):
    store = machines.open()
    files = broken(store, error, lambda *_: True)
    with pytest.raises(StorageError, match=f"cannot read the shared store {machines.url}: ") as caught:
        store.find("target", KEY)
    assert files.made == len(PAUSES) + 1
    assert "run the same command again to continue" in one_sentence(caught.value)
    with pytest.raises(StorageError), store.lock("target", KEY):
        pytest.fail("nothing is computed that cannot be kept")
    assert not store.root.exists()


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_permanent_failures_are_not_retried(machines, error):
    write(machines.open("first"), key=OTHER)
    store = machines.open()
    files = broken(store, error, lambda *_: True)
    with pytest.raises(StorageError, match=f"cannot read the shared store {machines.url}: ") as caught:
        store.find("target", KEY)
    assert files.made == 1
    assert "run the same command again" not in one_sentence(caught.value)


@pytest.mark.parametrize("error", [PASSING[0], LASTING[0]], ids=repr)
def test_unavailable_from_any_request_on(machines, error):
    """The artifact is complete locally or missing; the same command publishes it; other machines see no part of it."""
    for number in range(40):
        store = machines.open(f"machine{number}")
        key = f"{number:064x}"
        broken(store, error, lambda made, _, number=number: made >= number)
        failed = False
        try:
            with store.lock("target", key):
                if store.find("target", key) is None:
                    write(store, key=key)
        except StorageError as caught:
            failed = True
            one_sentence(caught)
        assert Store(Address(str(store.root))).check() == []
        found = machines.open("elsewhere").find("target", key)
        assert found is None or found.file("a") == b"content"
        again = machines.open(f"machine{number}")
        local = again.exists("target", key)
        if again.find("target", key) is None:
            assert not local
            write(again, key=key)
        assert machines.open("elsewhere").find("target", key).file("b") == b"content" * 2
        if not failed:
            break
    assert number > 6
    assert machines.open("elsewhere").check() == []


def test_unavailable_from_any_request_of_a_download_on(machines):
    write(machines.open("first"))
    for number in range(20):
        store = machines.open(f"machine{number}")
        files = broken(store, PASSING[0], lambda made, _, number=number: made >= number)
        try:
            assert store.find("target", KEY).file("a") == b"content"
        except StorageError as caught:
            one_sentence(caught)
            assert not (store.root / "target").exists()
            assert not list((store.root / "tmp").iterdir()) if store.root.exists() else True
        mended(store)
        assert store.find("target", KEY).file("a") == b"content"
        if files.made <= number:
            break
    assert number > 2


def test_a_lost_response_is_not_a_lost_race(machines, caplog):
    """The manifest is created, but the connection ends before the response."""
    store = machines.open()
    files = broken(store, PASSING[0], lambda *_: False)
    create = files._files.create

    def lost(name, data):
        create(name, data)
        if name == MANIFEST:
            raise PASSING[0]

    files._files.create = lost
    with caplog.at_level(logging.WARNING, logger="privbench"):
        made = write(store)
    assert not caplog.records
    assert machines.open("second").find("target", KEY).digest == made.digest


def test_a_read_only_tier(machines, caplog):
    """Cached and published artifacts are used; a computation is refused before it starts."""
    writing = ("put", "create", "move", "remove")
    write(machines.open("first"))
    local = machines.open("second")
    write(local, key=OTHER)
    local.discard("target", OTHER)
    machines.files.remove(f"target/ab/{OTHER}.json")
    store = machines.open("second")
    broken(store, LASTING[0], lambda _, name: name in writing)
    assert store.find("target", KEY).file("a") == b"content"
    assert store.find("target", OTHER) is None
    with (
        pytest.raises(StorageError, match=r"cannot write the shared store .*ccess.* ask for permission"),
        store.lock("target", OTHER),
    ):
        pytest.fail("nothing is computed that cannot be kept")
    with pytest.raises(StorageError, match="cannot write the shared store"):
        write(store, key=OTHER)
    with caplog.at_level(logging.WARNING, logger="privbench"):
        again = machines.open("second")
        broken(again, LASTING[0], lambda _, name: name in writing)
        for _ in range(3):
            assert again.find("target", OTHER).file("a") == b"content"
    assert len(caplog.records) == 1
    assert f"{OTHER[:12]}, and maybe more, is only in {store.root}: cannot write" in caplog.text
    assert machines.open("second").find("target", OTHER) is not None
    assert machines.open("third").find("target", OTHER).file("a") == b"content"


def test_damage_in_a_read_only_tier_counts_as_missing(machines, caplog):
    write(machines.open("first"))
    machines.replace(MANIFEST, b"{}")
    store = machines.open("second")
    broken(store, LASTING[0], lambda _, name: name in ("put", "create", "move", "remove"))
    with caplog.at_level(logging.WARNING, logger="privbench"):
        assert store.find("target", KEY) is None
    assert "is damaged" in caplog.text
    assert "cannot move" in caplog.text


def test_a_failed_artifact_that_cannot_be_discarded_is_still_there(machines):
    write(machines.open())
    store = machines.open()
    broken(store, LASTING[0], lambda _, name: name == "remove")
    with pytest.raises(StorageError, match="cannot remove the shared store"):
        store.discard("target", KEY)
    assert machines.open("second").find("target", KEY) is not None
    assert store.find("target", KEY) is not None


# The local tier


def read_only(monkeypatch):
    real = os.open

    def opened(path, flags, *arguments, **options):
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, flags, *arguments, **options)

    def refused(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", opened)
    for name in ("mkdir", "rename", "replace", "unlink", "link", "rmdir"):
        monkeypatch.setattr(os, name, refused)


def test_a_read_only_local_store(tmp_path, monkeypatch, caplog):
    store = Store(tmp_path / "store")
    write(store)
    (write(store, key=OTHER).path / "a").write_bytes(b"")
    with monkeypatch.context() as patch:
        read_only(patch)
        assert store.find("target", KEY).file("a") == b"content"
        with caplog.at_level(logging.WARNING, logger="privbench"):
            assert store.find("target", OTHER) is None
        assert "is damaged, but cannot be moved: cannot " in caplog.text
        with (
            pytest.raises(StorageError, match=r"read-only file system; choose another folder with --store"),
            store.lock("target", OTHER),
        ):
            pytest.fail("nothing is computed that cannot be kept")
    assert store.find("target", OTHER) is None


def test_a_read_only_cache(in_memory, monkeypatch):
    """Cached artifacts are used; others cannot be downloaded."""
    write(in_memory.open())
    write(in_memory.open("second"), key=OTHER)
    with monkeypatch.context() as patch:
        read_only(patch)
        store = in_memory.open()
        assert store.find("target", KEY).file("a") == b"content"
        with pytest.raises(StorageError, match=r"cannot lock .*read-only file system|cannot write .*read-only file"):
            store.find("target", OTHER)
    assert in_memory.open().find("target", OTHER) is not None


# Packages and protocols


def test_a_protocol_whose_package_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(known_implementations, "absent", {"class": "no_such_package.Files", "err": "Install it"})
    store = Store(Address(str(tmp_path / "cache"), "absent://bucket/path"))
    with pytest.raises(
        InvalidConfigurationError,
        match=r"a store at absent://bucket/path needs no_such_package: pip install no_such_package$",
    ):
        store.find("target", KEY)


def test_an_unknown_protocol(tmp_path):
    store = Store(Address(str(tmp_path / "cache"), "nosuch://bucket/path"))
    with pytest.raises(PrivbenchError, match="a protocol that fsspec knows, got 'nosuch://bucket/path'"):
        store.find("target", KEY)
    assert not store.root.exists()


def test_a_file_system_without_exclusive_creation(tmp_path):
    """Files are written to a temporary name and renamed, as over SFTP; later machines use the published artifact."""

    class Plain(MemoryFileSystem):
        protocol = "plain"
        store: ClassVar = {}
        pseudo_dirs: ClassVar = [""]

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(str(path).replace("plain://", "memory://"))

        def pipe_file(self, path, value, mode="overwrite", **_):
            raise AssertionError("not known to be whole")

        put_file = pipe_file

    fsspec.register_implementation("plain", Plain, clobber=True)
    first, second = (Store(Address(str(tmp_path / name), "plain://bucket")) for name in ("first", "second"))
    assert write(first).digest == write(second, content=b"other").digest
    assert second.find("target", KEY).file("a") == b"content"
    files = RemoteFiles("plain://bucket")
    assert not [name for name in files.sizes() if name.startswith("tmp/")]
    assert first.check() == []
