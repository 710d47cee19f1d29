"""Atomic writes: the earlier file or folder is kept after any failure, and nothing else is left."""

import errno
import os
from pathlib import Path

import pytest
from privbench.benchmark.errors import MissingDataError, StorageError
from privbench.benchmark.files import atomic


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_file_replaces_the_earlier_one(tmp_path):
    path = tmp_path / "new" / "file"
    for content in (b"one", b"two"):
        atomic.write_file(path, content)
        assert contents(tmp_path) == {"new/file": content}


def test_a_folder_replaces_the_earlier_one(tmp_path):
    folder = tmp_path / "new" / "folder"
    for files in ({"a": b"1", "b/c": b"2"}, {"d": b"3"}):
        atomic.write_folder(folder, files)
        assert contents(folder) == files
        assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("name", ["open", "write", "fsync", "rename", "replace"])
def test_a_failure_keeps_what_was_there(tmp_path, monkeypatch, name):
    atomic.write_file(tmp_path / "file", b"old")
    atomic.write_folder(tmp_path / "folder", {"a": b"old"})
    before = contents(tmp_path)

    real = os.open

    def full(*arguments, **options):
        if name == "open" and not arguments[1] & os.O_CREAT:
            return real(*arguments, **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, full)
        if name != "rename":
            with pytest.raises(OSError, match="No space left"):
                atomic.write_file(tmp_path / "file", b"new")
        if name != "replace":
            with pytest.raises(StorageError, match="no space left on device; free some space, or choose another fold"):
                atomic.write_folder(tmp_path / "folder", {"a": b"new"})
    assert contents(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_an_error_of_the_block_keeps_what_was_there(tmp_path):
    atomic.write_file(tmp_path / "file", b"old")
    atomic.write_folder(tmp_path / "folder", {"a": b"old"})
    before = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt), atomic.replaced_file(tmp_path / "file") as temporary:
        temporary.write_bytes(b"new")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), atomic.replaced_folder(tmp_path / "folder") as temporary:
        (temporary / "a").write_bytes(b"new")
        raise KeyboardInterrupt
    assert contents(tmp_path) == before


def test_an_earlier_folder_is_put_back_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    atomic.write_folder(folder, {"a": b"old"})
    real, renamed = os.rename, []

    def failing(source, target, **options):
        renamed.append(source)
        if len(renamed) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target, **options)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(StorageError, match="check the disk"):
        atomic.write_folder(folder, {"a": b"new"})
    assert len(renamed) == 3
    assert contents(tmp_path) == {"folder/a": b"old"}


def test_a_file_is_synced_before_it_takes_the_place_of_another(tmp_path, monkeypatch):
    """Otherwise a power cut can leave an empty file under the name."""
    path, events = tmp_path / "file", []
    real = os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: events.append(os.fstat(descriptor).st_ino))
    monkeypatch.setattr(os, "replace", lambda *arguments, **options: (events.append("replace"), real(*arguments)))
    with atomic.replaced_file(path) as temporary:
        temporary.write_bytes(b"x")
    assert events == [path.stat().st_ino, "replace", tmp_path.stat().st_ino]


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atomic.write_file(Path("file"), b"x")
    atomic.write_folder(Path("folder"), {"a": b"y"})
    assert contents(tmp_path) == {"file": b"x", "folder/a": b"y"}


def test_only_errors_of_the_system_become_storage_errors(tmp_path):
    with pytest.raises(MissingDataError), atomic.storage_errors(tmp_path):
        raise MissingDataError("the data")
    with pytest.raises(StorageError, match=r"^cannot read /x: permission denied; choose another --output$") as caught:  # noqa: SIM117
        with atomic.storage_errors(Path("/x"), "read", "choose another --output"):
            raise PermissionError(errno.EACCES, "Permission denied")
    assert atomic.is_denied(caught.value)
