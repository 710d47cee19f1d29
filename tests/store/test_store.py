"""The store: artifacts round-trip, damaged ones are refused, and a failed write leaves nothing."""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from privbench.benchmark.errors import CorruptArtifactError, InvalidConfigurationError, StorageError
from privbench.benchmark.files.tree import Tree
from privbench.benchmark.store.manifest import MAX_DEPTH, Artifact, seal, unseal
from privbench.benchmark.store.store import Store

KEY = "ab" + "0" * 62
OTHER = "ab" + "1" * 62


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def write(store, key=KEY, kind="target", value=1.0, **more) -> Artifact:
    tensors = {"network": {"weight": torch.full((2, 3), value), "bias": torch.zeros(2)}}
    return store.write(kind, key, tensors=tensors, info={"note": "x"}, inputs={"judge": OTHER}, **more)


def flip(path: Path, position: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def below(root: Path) -> set[str]:
    """Files and folders of a store, without empty folders and locks."""
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.parent.name != "locks"}


def test_what_is_written_is_found(store):
    written = write(store, files={"picture.png": b"\x89PNG", "empty": b""})
    found = Store(store.root).find("target", KEY)
    assert found == written
    assert found.info == {"note": "x"}
    assert found.inputs == {"judge": OTHER}
    assert found.groups == ("network",)
    assert found.file("picture.png") == b"\x89PNG"
    assert found.file("empty") == b""
    assert torch.equal(found.tensors("network")["weight"], torch.full((2, 3), 1.0))
    assert found.path == store.root / "target" / "ab" / KEY
    assert store.check() == []


def test_reading_creates_nothing(store):
    assert store.find("target", KEY) is None
    assert list(store.entries()) == []
    assert store.check() == []
    assert store.gc(set()) == []
    assert store.checkpoint("target", KEY).load("gan") is None
    assert not store.root.exists()


def test_json_values_round_trip(store):
    info = {"shape": (1, 2), "curve": [[0, 0.1], [1, 1e-300]], "\ud800": "\ud800 ä\n", "epochs": {3: None}}
    written = store.write("scores", KEY, tensors={}, info=info)
    assert written.info == {
        "shape": [1, 2],
        "curve": [[0, 0.1], [1, 1e-300]],
        "\ud800": "\ud800 ä\n",
        "epochs": {"3": None},
    }
    assert store.find("scores", KEY).info == written.info


def test_equal_results_have_equal_digests(store):
    first = write(store)
    again = store.write("target", OTHER, tensors={"network": first.tensors("network")}, info={"seconds": 3})
    assert again.digest == first.digest
    assert write(store, key="cd" + KEY, value=2.0).digest != first.digest
    assert write(store, key="ce" + KEY, files={"extra": b""}).digest != first.digest
    named = [write(store, key=f"{place}f" + KEY, files={name: b"x"}).digest for place, name in enumerate("ab")]
    assert named[0] != named[1]


def test_a_valid_artifact_is_kept(store):
    first = write(store)
    assert write(store, value=2.0) == first
    assert torch.equal(store.find("target", KEY).tensors("network")["weight"], torch.full((2, 3), 1.0))


def test_a_damaged_artifact_is_replaced(store):
    path = write(store).path
    flip(path / "network.safetensors")
    assert write(store, value=2.0).tensors("network")["weight"][0, 0] == 2
    assert len(list((store.root / "quarantine").iterdir())) == 1
    assert store.check() == []


def _truncate(path):
    file = path / "network.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def _append(path):
    with (path / "network.safetensors").open("ab") as file:
        file.write(b"\0")


def _swap(path):
    (path / "a").rename(path / "c")
    (path / "b").rename(path / "a")
    (path / "c").rename(path / "b")


def _link(path):
    (path / "a").rename(path.parent / "elsewhere")
    (path / "a").symlink_to(path.parent / "elsewhere")


def _foreign_manifest(path):
    manifest = path / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(KEY.encode(), OTHER.encode()))


def _seal_again(path, **values):
    manifest = path / "manifest.json"
    manifest.write_bytes(seal(unseal(manifest.read_bytes()) | values))


def _folder_is_link(path):
    path.rename(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def _folder_is_file(path):
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    path.write_text("")


def _deep_manifest(path):
    (path / "manifest.json").write_text("[" * 100_000)


DAMAGE = {
    "flipped byte": lambda path: flip(path / "a"),
    "truncated": _truncate,
    "longer": _append,
    "swapped": _swap,
    "file missing": lambda path: (path / "b").unlink(),
    "extra file": lambda path: (path / "extra").write_text(""),
    "extra folder": lambda path: (path / "extra").mkdir(),
    "fifo": lambda path: os.mkfifo(path / "extra"),
    "symbolic link": _link,
    "dangling link": lambda path: (path / "extra").symlink_to("nowhere"),
    "manifest missing": lambda path: (path / "manifest.json").unlink(),
    "manifest empty": lambda path: (path / "manifest.json").write_text(""),
    "manifest deep": _deep_manifest,
    "manifest changed": _foreign_manifest,
    "manifest of another": lambda path: _seal_again(path, key=OTHER),
    "manifest of another kind": lambda path: _seal_again(path, kind="prior"),
    "manifest of another format": lambda path: _seal_again(path, format=2),
    "folder is a link": _folder_is_link,
    "folder is a file": _folder_is_file,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_detected_and_quarantined(store, damage, caplog):
    path = write(store, files={"a": b"same size 1", "b": b"same size 2"}).path
    damage(path)
    problems = store.check()
    assert [(problem.path, problem.kind, problem.key) for problem in problems if problem.key == KEY] == [
        (path, "target", KEY)
    ]
    with caplog.at_level(logging.WARNING, logger="privbench"):
        assert store.find("target", KEY) is None
    assert f"target {KEY[:12]} is damaged" in caplog.text
    assert not os.path.lexists(path)
    assert len(list((store.root / "quarantine").iterdir())) == 1
    assert store.find("target", KEY) is None
    assert write(store, value=2.0).tensors("network")["weight"][0, 0] == 2


def test_a_link_is_refused_whatever_its_target(store):
    """Links are refused even if they lead to the same bytes."""
    path = write(store, files={"a": b"1234"}).path
    (path / "a").unlink()
    (path.parent / "b").write_bytes(b"1234")
    (path / "a").symlink_to("../b")
    assert [problem.reason for problem in store.check() if problem.key == KEY] == ["a is not a regular file"]


def test_an_artifact_under_another_key_is_detected(store):
    path = write(store).path
    write(store, key=OTHER, value=2.0).path.rename(path.parent / "swap")
    path.rename(path.parent / OTHER)
    (path.parent / "swap").rename(path)
    assert store.find("target", KEY) is None
    assert store.find("target", OTHER) is None


def test_without_verification_damage_is_detected_when_read(store):
    flip(write(store).path / "network.safetensors")
    found = store.find("target", KEY, verify=False)
    with pytest.raises(CorruptArtifactError, match="does not match its manifest"):
        found.tensors("network")
    assert store.find("target", KEY) is None


def test_reading_a_missing_file(store):
    found = write(store)
    with pytest.raises(CorruptArtifactError, match=r"expected target ab0+ to hold 'nothing.safetensors', got network"):
        found.tensors("nothing")
    (found.path / "network.safetensors").unlink()
    with pytest.raises(CorruptArtifactError, match="was removed while"):
        found.tensors("network")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "../x", "a..b", "/x", ".hidden", "a b", "a\0", "ä"])
def test_invalid_file_names_are_refused(store, name):
    with pytest.raises(InvalidConfigurationError, match="expected each group"):
        store.write("prior", KEY, tensors={name: {}}, info={})
    with pytest.raises(InvalidConfigurationError, match="expected each file"):
        store.write("prior", KEY, tensors={}, info={}, files={name: b""})
    assert not store.root.exists()


@pytest.mark.parametrize("files", [["manifest.json"], ["MANIFEST.json"], ["a", "A"], ["x.safetensors"]])
def test_names_that_clash_are_refused(store, files):
    with pytest.raises(InvalidConfigurationError, match="its own name"):
        store.write("prior", KEY, tensors={}, info={}, files=dict.fromkeys(files, b""))


@pytest.mark.parametrize(
    ("kind", "key"), [("tmp", KEY), ("locks", KEY), ("a/b", KEY), ("", KEY), ("prior", "../ab"), ("prior", "AB" * 32)]
)
def test_invalid_kinds_and_keys_are_refused(store, kind, key):
    for call in (store.find, store.checkpoint):
        with pytest.raises(InvalidConfigurationError, match="expected kind and key"):
            call(kind, key)
    with pytest.raises(InvalidConfigurationError, match="expected kind and key"), store.lock(kind, key):
        pass


def _nested(levels):
    value = 0
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "info",
    [{"x": float("nan")}, {"x": torch.zeros(1)}, {"x": {1, 2}}, {"x": _nested(MAX_DEPTH)}, {"x": _nested(5000)}],
    ids=["nan", "tensor", "set", "deep", "very deep"],
)
def test_values_that_are_not_json_are_refused_and_leave_nothing(store, info):
    with pytest.raises(InvalidConfigurationError, match="stored values"):
        store.write("prior", KEY, tensors={"g": {"x": torch.zeros(1)}}, info=info)
    assert below(store.root) <= {"format.json"}
    assert store.check() == []


@pytest.mark.parametrize(
    "tensor",
    [torch.zeros(2, dtype=torch.complex128), torch.eye(2).to_sparse(), torch.empty(2, device="meta"), 3.0, None],
    ids=["complex128", "sparse", "meta", "number", "none"],
)
def test_tensors_that_safetensors_cannot_hold_are_refused(store, tensor):
    with pytest.raises(InvalidConfigurationError, match="tensor"):
        store.write("prior", KEY, tensors={"g": {"x": tensor}}, info={})
    assert below(store.root) == {"format.json"}


def fail(monkeypatch, name, code, after=0):
    """Make the function `os.name` fail with `code` from call number `after` on."""
    real, calls = getattr(os, name), []

    def failing(*args, **kwargs):
        calls.append(1)
        if len(calls) > after:
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, name, failing)
    return calls


@pytest.mark.parametrize("call", ["write", "fsync", "mkdir", "rename"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_failed_write_is_one_sentence_and_leaves_nothing(store, call, code, monkeypatch):
    write(store, key=OTHER)
    before = below(store.root)
    for after in range(100):
        with monkeypatch.context() as patch:
            calls = fail(patch, call, code, after)
            try:
                write(store, files={"picture.png": b"x"})
            except StorageError as error:
                message = str(error)
                assert str(store.root) in message
                assert os.strerror(code).lower() in message
                assert "\n" not in message
            else:
                assert len(calls) == after
                break
        assert store.check() == []
        if store.find("target", KEY) is None:
            assert below(store.root) == before
        else:  # Whole and in place; only that it outlives a power cut is not sure.
            assert call == "fsync"
            store.gc({OTHER})
    assert after > 0
    assert store.find("target", KEY) is not None


def test_files_are_synced_before_the_rename_and_the_folder_after(store, monkeypatch):
    write(store, key=OTHER)
    events, paths = [], {}
    real = {name: getattr(os, name) for name in ("open", "fsync", "rename")}

    def opened(path, *args, **kwargs):
        descriptor = real["open"](path, *args, **kwargs)
        paths[descriptor] = Path(path).name
        return descriptor

    def synced(descriptor):
        events.append(paths[descriptor])
        real["fsync"](descriptor)

    def renamed(source, target, **folders):
        events.append("rename")
        real["rename"](source, target, **folders)

    for name, function in {"open": opened, "fsync": synced, "rename": renamed}.items():
        monkeypatch.setattr(os, name, function)
    write(store)
    *files, temporary, rename, parent = events
    assert files == ["network.safetensors", "manifest.json"]
    assert temporary.startswith(f"target-{KEY}-")
    assert (rename, parent) == ("rename", "ab")


def test_a_read_only_store(store, monkeypatch):
    written = write(store)
    for name in ("mkdir", "rename", "replace", "write", "unlink"):
        fail(monkeypatch, name, errno.EROFS)
    assert store.find("target", KEY) == written
    assert len(list(store.entries())) == 1
    assert store.check() == []
    assert store.gc(None) == []


def test_a_partial_write_is_continued(store, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:7]))
    written = write(store)
    monkeypatch.undo()
    assert store.find("target", KEY) == written


def test_a_limit_of_the_system_in_the_middle_of_a_file(store):
    """A real failure in the middle of a write: the limit on file size."""
    big = {"g": {"x": torch.zeros(1_000_000)}}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(StorageError, match="file too large; raise the limit"):
            store.write("prior", KEY, tensors=big, info={})
        with pytest.raises(StorageError, match="file too large; raise the limit"):
            store.checkpoint("prior", KEY).save("gan", big, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert below(store.root) == {"format.json"}


def test_a_root_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "store"):
        for call in (
            lambda store: store.find("target", KEY),
            write,
            lambda store: list(store.entries()),
            lambda store: store.check(),
            lambda store: store.gc(set()),
            lambda store: store.checkpoint("target", KEY).save("gan", {}, {}),
        ):
            with pytest.raises(StorageError, match=r"not a directory; choose another folder with --store") as error:
                call(Store(root))
            assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_root_that_is_not_writable(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", lambda *args, **kwargs: _raise(PermissionError(errno.EACCES, "Permission denied")))
        with pytest.raises(StorageError, match="permission denied; choose another folder with --store"):
            write(Store(tmp_path / "store"))
    assert list(tmp_path.iterdir()) == []


def _raise(error):
    raise error


def test_a_store_that_is_not_readable(store, monkeypatch):
    write(store)
    real = os.open

    def refuse(path, *args, **kwargs):
        if str(path).endswith("manifest.json"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match=r"cannot read .*permission denied"):
        store.find("target", KEY)
    monkeypatch.undo()
    assert store.find("target", KEY) is not None


def test_a_prefix_that_is_a_file(store):
    write(store, kind="judge")
    (store.root / "target").mkdir()
    (store.root / "target" / "ab").write_text("")
    with pytest.raises(StorageError, match="not a directory"):
        write(store)
    assert [problem.path for problem in store.check(repair=True)] == [store.root / "target" / "ab"]
    assert write(store) == store.find("target", KEY)
    assert store.check() == []


def test_a_newer_store_is_not_changed(store):
    write(store)
    (store.root / "format.json").write_text(json.dumps({"format": 2}))
    for call in (lambda: store.find("target", KEY), lambda: write(store), store.check, lambda: store.gc(set())):
        with pytest.raises(StorageError, match="has format 2 and this privbench reads up to 1; update privbench"):
            call()
    (store.root / "format.json").write_text(json.dumps({"format": 1}))
    assert store.find("target", KEY) is not None


BAD_FORMATS = ["{", "[]", '{"format": "1"}', '{"format": true}', '{"format": 0}', "\xff", "[" * 9999]


@pytest.mark.parametrize("text", BAD_FORMATS)
def test_a_damaged_format_file(store, text):
    write(store)
    (store.root / "format.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(StorageError, match=r'damaged; replace it by a file that contains \{"format": 1\}'):
        store.find("target", KEY)


def test_an_empty_format_file_is_filled(store):
    """A process died while it made the store."""
    store.root.mkdir()
    (store.root / "format.json").touch()
    assert store.check() == []
    write(store)
    assert json.loads((store.root / "format.json").read_text()) == {"format": 1}


def test_a_store_that_another_process_makes_at_the_same_time(tmp_path, monkeypatch):
    """The other process makes it between the check for the format file and the listing of the folder."""
    children = Tree.children

    def made_before(tree, folder):
        monkeypatch.setattr(Tree, "children", children)
        write(Store(tmp_path / "store"))
        return children(tree, folder)

    store = Store(tmp_path / "store")
    monkeypatch.setattr(Tree, "children", made_before)
    assert store.check() == []
    assert (tmp_path / "store" / "format.json").is_file()


def test_a_folder_that_is_not_a_store_is_not_changed(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    store = Store(tmp_path)
    for call in (lambda: write(store), store.check, lambda: store.check(repair=True), lambda: store.gc(set())):
        with pytest.raises(StorageError, match="is not a privbench store"):
            call()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_listing_does_not_import_torch():
    code = "import sys; import privbench.benchmark.cli.store; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
