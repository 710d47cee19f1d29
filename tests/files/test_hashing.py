"""Hashes of files and folders: what counts, and that no hash outlives its content."""

import os
import time
from pathlib import Path

import privbench
import pytest
from privbench import hash_file, hash_folder
from privbench.benchmark.errors import MissingDataError
from privbench.benchmark.files import hashing


def tree(folder: Path, **contents: str) -> Path:
    for name, content in contents.items():
        path = folder / name.replace("__", "/").replace("_png", ".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.fixture
def old_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as old, so that its hash is remembered."""
    monkeypatch.setattr(hashing.time, "time", lambda: time.time_ns() / 1e9 + 60)


def test_the_names_are_public() -> None:
    assert {"hash_file", "hash_folder"} <= set(privbench.__all__)


def test_a_file_has_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert hash_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hash_file(str(path)) == hash_file(path)


def test_a_folder_counts_names_and_contents_and_not_its_place(tmp_path: Path) -> None:
    one, two = tree(tmp_path / "1", a="x", b__c="y"), tree(tmp_path / "2", b__c="y", a="x")
    (two / "empty").mkdir()
    assert hash_folder(one) == hash_folder(two)
    others = [
        tree(tmp_path / "3", a="x", b__c="z"),
        tree(tmp_path / "4", a="y", b__c="x"),
        tree(tmp_path / "5", a="x", b__d="y"),
        tree(tmp_path / "6", a="x", c="y"),
        tree(tmp_path / "7", a="x", b__c="y", b___d="hidden"),
        tree(tmp_path / "8", a="xy", b__c=""),
    ]
    assert len({hash_folder(folder) for folder in (one, *others)}) == 7


def test_suffixes_choose_the_files_that_count(tmp_path: Path) -> None:
    folder = tree(tmp_path, a_png="x")
    before = hash_folder(folder, (".PNG",))
    (folder / ".DS_Store").write_text("x")
    assert hash_folder(folder, (".png", ".jpg")) == before != hash_folder(folder)
    with pytest.raises(MissingDataError, match=r"hold files that end in \.gif or \.bmp, found none; put them there"):
        hash_folder(folder, (".gif", ".bmp"))


def test_links_stand_for_what_they_point_to(tmp_path: Path) -> None:
    original = tree(tmp_path / "original", a="x", b__c="y")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "a").symlink_to(original / "a")
    (linked / "b").symlink_to(original / "b")
    assert hash_folder(linked) == hash_folder(original)
    (original / "b" / "c").write_text("z")
    assert hash_folder(linked) == hash_folder(original)
    (original / "up").symlink_to(original)
    with pytest.raises(MissingDataError, match="a link to a folder above it"):
        hash_folder(original)
    (original / "up").unlink()
    (original / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(MissingDataError, match="broken link"):
        hash_folder(original)


def test_pipes_do_not_count_and_do_not_block(tmp_path: Path) -> None:
    folder = tree(tmp_path, a="x")
    before = hash_folder(folder)
    os.mkfifo(folder / "pipe")
    assert hash_folder(folder) == before
    with pytest.raises(MissingDataError, match="to be a file, got something else"):
        hash_file(folder / "pipe")


@pytest.mark.parametrize("function", [hash_file, hash_folder])
def test_what_is_missing_is_named(tmp_path: Path, function) -> None:
    with pytest.raises(MissingDataError, match=r"nothing is missing: put it there"):
        function(tmp_path / "nothing")
    with pytest.raises(MissingDataError, match="found none"):
        hash_folder(tmp_path)


@pytest.mark.usefixtures("old_files")
def test_a_hash_is_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls = tree(tmp_path, a="x") / "a", []
    real = hashing.hashlib.file_digest
    monkeypatch.setattr(hashing.hashlib, "file_digest", lambda *args: calls.append(args) or real(*args))
    assert hash_file(path) == hash_file(path)
    assert len(calls) == 1
    path.write_text("y")
    assert hash_file(path) == hash_file(path)
    assert len(calls) == 2


@pytest.mark.usefixtures("old_files")
@pytest.mark.parametrize("replace", [False, True])
def test_equal_size_and_modification_time_do_not_hide_a_change(tmp_path: Path, replace: bool) -> None:
    path = tree(tmp_path, a="x") / "a"
    before, facts = hash_file(path), path.stat()
    time.sleep(0.02)  # longer than a tick of the clock of Linux's file systems
    other = tmp_path / "other" if replace else path
    other.write_text("y")
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other.replace(path)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (facts.st_size, facts.st_mtime_ns)
    assert hash_file(path) != before


def test_a_change_within_a_tick_of_the_clock_is_noticed(tmp_path: Path) -> None:
    """A file that has just been written is hashed each time."""
    path, found = tmp_path / "a", set()
    for i in range(50):
        path.write_text(f"{i:02}")
        os.utime(path, (0, 0))  # as a program leaves it that restores the time of the original
        found.add(hash_file(path))
    assert len(found) == 50


@pytest.mark.usefixtures("old_files")
def test_a_crc_is_that_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"123456789")
    assert len(hash_file(path)) == 64, "what is remembered of a file is remembered by method"
    assert hashing.crc_file(path) == "9-cbf43926"


def test_a_file_that_was_written_just_now_is_not_remembered_whatever_its_modification_time(tmp_path: Path) -> None:
    path = tmp_path / "new"
    path.write_bytes(b"new")
    os.utime(path, (1, 1))
    hashing._known.clear()
    privbench.hash_file(path)
    assert not hashing._known
