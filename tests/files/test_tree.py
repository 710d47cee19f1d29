"""The tree: nothing below its root is reached through a link, with descriptors of folders and without."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.special import SPECIAL
from privbench.benchmark.errors import CorruptArtifactError, StorageError
from privbench.benchmark.files import tree as tree_module
from privbench.benchmark.files.locks import lock
from privbench.benchmark.files.tree import Tree


@pytest.fixture(params=[True, False], ids=["descriptors", "paths"])
def tree(request, tmp_path, monkeypatch) -> Tree:
    """A tree with `a/b/file`, `link` to a folder outside that has `file`, and `a/link` to that file."""
    monkeypatch.setattr(tree_module, "_RELATIVE", request.param)
    (tmp_path / "root" / "a" / "b").mkdir(parents=True)
    (tmp_path / "root" / "a" / "b" / "file").write_bytes(b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"outside")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "a" / "link").symlink_to(tmp_path / "outside" / "file")
    return Tree(tmp_path / "root")


def test_files_are_read_written_and_removed(tree: Tree) -> None:
    root = tree.root
    file = root / "a" / "b" / "file"
    assert tree.read(file, 6) == b"inside"
    with pytest.raises(CorruptArtifactError, match="file is larger than 5 bytes"):
        tree.read(file, 5)
    assert tree.sha256(file) == "106b086224a4d945eae25f7be3805a931a873270326dd868b0e41f71ee9fff72"
    tree.make_folder(root / "c" / "d")
    tree.write_new(root / "c" / "d" / "new", [b"1", b"2"])
    with pytest.raises(FileExistsError):
        tree.write_new(root / "c" / "d" / "new", [b"3"])
    tree.write_file(root / "e" / "file", b"first")
    tree.write_file(root / "e" / "file", b"second")
    assert [path.name for path in tree.children(root / "e")] == ["file"]
    assert tree.read(root / "e" / "file", 10) == b"second"
    tree.rename(root / "c", root / "e" / "c")
    tree.link(root / "e" / "file", root / "e" / "twin")
    assert sorted(path.relative_to(root).as_posix() for path, _ in tree.files(root)) == [
        "a/b/file", "a/link", "e/c/d/new", "e/file", "e/twin", "link",
    ]  # fmt: skip
    assert tree.size(root / "e") == 2 + 6 + 6
    tree.remove(root / "e")
    tree.remove(root / "e")
    assert not tree.exists(root / "e")
    assert tree.children(root / "e") == []


def refused(root: Path) -> dict[str, Callable[[Tree], object]]:
    """What must not go through a link."""
    file, beside = root / "link" / "file", root / "a" / "b" / "new"
    return {
        "read": lambda tree: tree.read(file, 10),
        "read a link": lambda tree: tree.read(root / "a" / "link", 10),
        "hash": lambda tree: tree.sha256(file),
        "list": lambda tree: tree.children(root / "link"),
        "status": lambda tree: tree.status(file),
        "exists": lambda tree: tree.exists(file),
        "write": lambda tree: tree.write_new(root / "link" / "new", [b"x"]),
        "overwrite": lambda tree: os.close(tree.descriptor(root / "a" / "link", os.O_WRONLY | os.O_TRUNC)),
        "replace": lambda tree: tree.write_file(file, b"x"),
        "make": lambda tree: tree.make_folder(root / "link" / "new"),
        "make new": lambda tree: tree.new_folder(root / "link" / "new"),
        "rename from": lambda tree: tree.rename(file, beside),
        "rename to": lambda tree: tree.rename(root / "a" / "b" / "file", root / "link" / "new"),
        "link": lambda tree: tree.link(root / "a" / "b" / "file", root / "link" / "new"),
        "remove": lambda tree: tree.remove(file),
        "sync": lambda tree: tree.sync_folder(root / "link"),
        "lock": lambda tree: lock(tree, root / "a" / "link"),
    }


def test_links_are_refused(tree: Tree) -> None:
    outside = tree.root.parent / "outside"
    for name, act in refused(tree.root).items():
        with pytest.raises((OSError, CorruptArtifactError)) as refusal:
            act(tree)
        cause = refusal.value.__cause__ if isinstance(refusal.value, CorruptArtifactError) else refusal.value
        assert isinstance(cause, OSError), name
        assert cause.errno == errno.ELOOP, name
        assert [path.name for path in outside.iterdir()] == ["file"], name
        assert (outside / "file").read_bytes() == b"outside", name


def test_only_regular_files_are_opened(tree: Tree) -> None:
    for kind in ("pipe", "socket", "folder"):
        path = tree.root / "a" / kind
        SPECIAL[kind](path)
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            with pytest.raises(OSError, match=r"not a regular file|No such device|Is a directory"):
                tree.descriptor(path, flags)
        with pytest.raises(CorruptArtifactError, match=f"{kind} is not a regular file"):
            tree.read(path, 10)


def test_a_link_itself_can_be_moved_and_removed(tree: Tree) -> None:
    root = tree.root
    assert not tree.is_folder(root / "link")
    assert tree.exists(root / "link")
    tree.rename(root / "link", root / "moved")
    tree.remove(root / "moved")
    tree.write_file(root / "a" / "link", b"a file now")
    tree.remove(root / "a")
    assert tree.children(root) == []
    assert (root.parent / "outside" / "file").read_bytes() == b"outside"


def test_the_root_and_what_is_above_it_may_be_links(tree: Tree) -> None:
    (tree.root.parent / "alias").symlink_to(tree.root.parent)
    (tree.root.parent / "alias2").symlink_to(tree.root)
    for root in (tree.root.parent / "alias" / "root", tree.root.parent / "alias2"):
        assert Tree(root).read(root / "a" / "b" / "file", 6) == b"inside"
        assert Tree(root).status(root).st_ino == tree.root.stat().st_ino


def test_a_lock_is_held_by_one_descriptor(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tree.root / "a" / "lock"
    held = lock(tree, path)
    assert held is not None
    assert lock(tree, path) is None
    os.close(held)
    again = lock(tree, path)
    assert again is not None
    os.close(again)
    fcntl = pytest.importorskip("fcntl")
    for number in (errno.ENOSYS, errno.ENOLCK, errno.EIO):

        def failing(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", failing)
        kind = OSError if number == errno.EIO else StorageError
        with pytest.raises(kind, match="error" if kind is OSError else "its file system has no locks; choose another"):
            lock(tree, path)


def test_what_vanishes_while_it_is_removed(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process removes the same folder."""
    real, calls = tree_module.shutil.rmtree, []

    def racing(name: str, *, dir_fd: int | None) -> None:
        calls.append(name)
        if len(calls) == 2:
            real(name, dir_fd=dir_fd)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

    monkeypatch.setattr(tree_module.shutil, "rmtree", racing)
    tree.remove(tree.root / "a" / "b")
    assert len(calls) == 2
    assert not tree.exists(tree.root / "a" / "b")
