"""Published weights: found, verified and fetched; each fault has its own message."""

import hashlib
import io
import re
import urllib.error
from pathlib import Path

import pytest
import torch
from privbench.benchmark.errors import MissingDataError
from privbench.benchmark.networks.classifiers import facenet
from privbench.benchmark.networks.factory import build_network
from privbench.benchmark.networks.weights import published as pretrained
from privbench.benchmark.networks.weights.published import Published, imagenet, imagenet_state, transfer, vggface2
from torch import nn

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def contents(value: object, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def published(data: bytes) -> Published:
    return Published("net", "the weights", f"https://example.org/net-{hashlib.sha256(data).hexdigest()[:8]}.pth")


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(pretrained.urllib.request, "urlopen", unreachable)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_in_place_is_read(hub: Path, legacy: bool) -> None:
    data = contents(WEIGHTS, legacy=legacy)
    source = published(data)
    source.path.write_bytes(data)
    assert source.problem() is None
    state = source.load()
    assert list(state) == list(WEIGHTS)
    assert all(torch.equal(state[key], WEIGHTS[key]) for key in WEIGHTS)


def test_names_and_hashes_are_torchvisions(hub: Path) -> None:
    assert imagenet("vgg16_bn").path == hub / "vgg16_bn-6c64b313.pth"
    assert imagenet("vgg16_bn").digest == "6c64b313"
    assert imagenet("vgg19_bn").file == "vgg19_bn-c79401a0.pth"
    assert imagenet("resnet50").digest == "0676ba61"
    assert vggface2().digest is None


def test_missing_weights_say_where_to_put_them(hub: Path) -> None:
    with pytest.raises(MissingDataError) as caught:
        imagenet_state("vgg16_bn")
    assert (
        str(caught.value)
        == imagenet("vgg16_bn").problem()
        == (
            f"expected the ImageNet weights of vgg16_bn at {hub / 'vgg16_bn-6c64b313.pth'}, found nothing; run "
            "`privbench weights fetch vgg16_bn`, or put https://download.pytorch.org/models/vgg16_bn-6c64b313.pth there"
        )
    )
    with pytest.raises(MissingDataError, match=r"cannot be fetched \(no route\); put the file there, or try again"):
        imagenet("vgg16_bn").fetch()
    with pytest.raises(MissingDataError, match="vgg19_bn-c79401a0"):
        build_network("vgg19_bn", (3, 32, 32), 10, pretrained=True)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            b"\n<!DOCTYPE html><html>",
            "is a web page, not weights; run `privbench weights fetch net`, or replace it by https://example.org/net-",
        ),
        (b"", "is an empty file, not weights; run"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "is a Git LFS pointer, which only names the"),
        (contents(WEIGHTS)[:-20], "has a SHA-256 that starts with"),
    ],
)
def test_damage_is_named(hub: Path, written: bytes, message: str) -> None:
    source = published(contents(WEIGHTS))
    source.path.write_bytes(written)
    assert message in (source.problem() or "")
    with pytest.raises(MissingDataError, match=re.escape(message)):
        source.load()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_file_without_a_published_hash_is_named_before_it_is_used(hub: Path, legacy: bool) -> None:
    data = contents({"weight": torch.zeros(100)}, legacy=legacy)
    vggface2().path.write_bytes(data)
    assert vggface2().problem() is None
    vggface2().path.write_bytes(data[: len(data) // 2])
    assert vggface2().fault() == "is truncated, damaged or contains more than weights"


@pytest.mark.parametrize("prefixes", [["module."], ["_orig_mod."], ["module.", "_orig_mod."]])
def test_the_prefix_of_a_wrapper_is_left_out(hub: Path, prefixes: list[str]) -> None:
    prefix = "".join(prefixes)
    data = contents({prefix + name: value for name, value in WEIGHTS.items()})
    source = published(data)
    source.path.write_bytes(data)
    assert list(source.load()) == list(WEIGHTS)
    assert list(pretrained.unwrapped({"module.a": torch.ones(1), "b": torch.ones(1)})) == ["module.a", "b"]


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("code in a file of weights was run",))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": Trap()}, "contains more than weights"),
        ([torch.zeros(1)], "does not contain named weights"),
        ({"a": 3}, "does not contain named weights"),
    ],
)
def test_only_tensors_are_read(hub: Path, value: object, message: str) -> None:
    data = contents(value)
    source = published(data)
    source.path.write_bytes(data)
    with pytest.raises(MissingDataError, match=message):
        source.load()


def test_garbage_without_a_published_hash_is_named(hub: Path) -> None:
    vggface2().path.write_bytes(b"garbage")
    with pytest.raises(MissingDataError, match="truncated, damaged or contains more than weights"):
        vggface2().load()


def test_weights_are_fetched_once_and_whole(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = contents(WEIGHTS)
    source, calls = published(data), []

    def answer(url: str, timeout: float) -> io.BytesIO:
        calls.append((url, timeout))
        return io.BytesIO(data)

    monkeypatch.setattr(pretrained.urllib.request, "urlopen", answer)
    with pytest.raises(MissingDataError, match="found nothing"):
        source.load()
    assert source.fetch() == source.path
    assert list(source.load()) == list(WEIGHTS)
    assert calls == [(source.url, pretrained.TIMEOUT)]
    assert [path.name for path in hub.iterdir()] == [source.file]


@pytest.mark.parametrize("answer", [b"<html>sign in</html>", b"truncated"])
def test_a_wrong_answer_is_not_kept(hub: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setattr(pretrained.urllib.request, "urlopen", lambda *_, **__: io.BytesIO(answer))
    with pytest.raises(MissingDataError, match="got something else; put the file at"):
        published(contents(WEIGHTS)).fetch()
    assert list(hub.iterdir()) == []


def test_the_cache_of_facenet_pytorch_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    body = facenet.Embedding().body
    with torch.no_grad():
        body.last_bn.bias.normal_()
    state = {**body.state_dict(), "logits.weight": torch.zeros(2, 512), "logits.bias": torch.zeros(2)}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / vggface2().file).write_bytes(contents(state))
    net = build_network("facenet", (3, 64, 64), 5, pretrained=True)
    copied = net.stages["embedding"].body.state_dict()
    assert all(torch.equal(copied[key], value) for key, value in body.state_dict().items())


@pytest.mark.parametrize(
    ("state", "odd"),
    [
        ({"weight": torch.zeros(2, 3)}, "bias"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "scale": torch.zeros(2)}, "scale"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)}, "weight"),
    ],
)
def test_names_and_shapes_must_match(state: dict[str, torch.Tensor], odd: str) -> None:
    with pytest.raises(MissingDataError, match=f"the file to fit the network, got another {odd}"):
        transfer(nn.Linear(3, 2), state, "the file")
