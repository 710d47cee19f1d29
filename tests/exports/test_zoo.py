"""Exported targets: loaded exactly or refused, and nothing in them is executed."""

import hashlib
import http.server
import json
import os
import pickle
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import privbench
import pytest
import torch
from helpers import zoo_samples as samples
from privbench.benchmark import registry
from privbench.benchmark.errors import (
    CorruptArtifactError,
    IncompatibleRecordError,
    InvalidConfigurationError,
    MissingDataError,
    PrivbenchError,
    StorageError,
    UnknownComponentError,
)
from privbench.benchmark.exports import export as exporting
from privbench.benchmark.exports import load, zoo
from privbench.benchmark.exports import manifest as exported
from privbench.benchmark.exports.manifest import MANIFEST, WEIGHTS
from privbench.benchmark.files import downloads
from privbench.benchmark.files.tensors import pack, unpack
from privbench.benchmark.networks.weights import importing
from privbench.benchmark.pipeline.trained_models import predict
from privbench.benchmark.store.store import Store


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a store, results, the export `exported` and the zoo `zoo`."""
    folder = tmp_path_factory.mktemp("zoo")
    record, _ = samples.trained(folder)
    exporting.export(record, folder / "exported", Store(folder / "store"), folder)
    zoo.add(folder / "exported", folder / "zoo", "tiny")
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of the export, to be damaged."""
    return Path(shutil.copytree(made / "exported", tmp_path / "copy"))


@pytest.fixture
def cages(made: Path, tmp_path: Path) -> Path:
    """A copy of the zoo, to be damaged."""
    return Path(shutil.copytree(made / "zoo", tmp_path / "zoo"))


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PRIVBENCH_ZOO", raising=False)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit a manifest as a forger would."""
    value = json.loads((folder / MANIFEST).read_text("utf-8"))
    edit(value)
    (folder / MANIFEST).write_text(json.dumps(value), "utf-8")


def swap(folder: Path, data: bytes, *, forged: bool = True) -> None:
    """Replace the weights; a forger also updates size and hash."""
    (folder / WEIGHTS).write_bytes(data)
    if forged:
        facts = {"bytes": len(data), "sha256": sha256(data)}
        change(folder, lambda value: value["weights"].update(facts))


def refusal(call: Callable[[], object], kind: type[PrivbenchError] = CorruptArtifactError) -> str:
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    return message


# Export and load.


def test_the_target_is_loaded_bit_by_bit(made: Path) -> None:
    loaded, stored = privbench.load_target(made / "exported"), samples.load(made)
    assert not loaded.training
    assert loaded.state_dict().keys() == stored.state_dict().keys()
    assert all(torch.equal(value, stored.state_dict()[name]) for name, value in loaded.state_dict().items())
    x = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded.logits(x), stored.logits(x))


def test_the_manifest_describes_the_target(made: Path) -> None:
    manifest = exported.read_manifest(made / "exported")
    assert (manifest.protocol_id, manifest.defense.name, manifest.network.name) == ("digits/v2", "none", "mcnn")
    assert manifest.protocol["classes"] == 5
    assert manifest.protocol["image"] == [1, 32, 32]
    assert manifest.n == len(manifest.decisions.said) == 183
    assert manifest.network.layers == ("layer1", "layer2", "layer3")
    assert manifest.defense.fields["recipe"]["max_steps"] == 1
    data = (made / "exported" / WEIGHTS).read_bytes()
    assert (manifest.weights.bytes, manifest.weights.sha256) == (len(data), sha256(data))


def test_the_global_generator_is_left_as_it_was(made: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    privbench.load_target(made / "exported")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_stochastic_target_is_exported(tmp_path: Path) -> None:
    record, _ = samples.trained(tmp_path, "mid")
    exporting.export(record, tmp_path / "out", Store(tmp_path / "store"), tmp_path)
    assert "bottleneck" in privbench.load_target(tmp_path / "out", check_accuracy=True, data=tmp_path).layers


# Addresses of targets.


def test_a_defense_is_still_a_defense(made: Path, monkeypatch) -> None:
    monkeypatch.setenv("PRIVBENCH_ZOO", str(made / "zoo"))
    monkeypatch.chdir(made)
    (made / "none").mkdir(exist_ok=True)
    assert samples.load(made).layers == samples.load(made, check_accuracy=True).layers
    words = {"budget": "smoke", "settings": samples.SETTINGS, "store": made / "store", "data": made}
    assert privbench.load_target(defense="none", **words).layers
    message = refusal(lambda: privbench.load_target("none", store=made / "store", data=made), PrivbenchError)
    assert "privbench run" in message


@pytest.mark.parametrize("spelling", ["./exported", "exported", Path("exported")])
def test_a_folder_by_any_spelling(made: Path, monkeypatch, spelling) -> None:
    monkeypatch.chdir(made)
    assert privbench.load_target(spelling).layers


def test_a_name_in_a_zoo(made: Path, monkeypatch) -> None:
    for place in (made / "zoo", str(made / "zoo"), (made / "zoo").as_uri()):
        assert privbench.load_target("tiny", zoo=place).layers
    monkeypatch.setenv("PRIVBENCH_ZOO", str(made / "zoo"))
    assert privbench.load_target("tiny").layers
    message = refusal(lambda: privbench.load_target("tinny"), UnknownComponentError)
    assert "did you mean 'tiny'" in message


def test_without_a_zoo_a_name_is_that_of_a_defense() -> None:
    assert "unknown defense 'tiny'" in refusal(lambda: privbench.load_target("tiny"), UnknownComponentError)


@pytest.mark.parametrize("words", [{"seed": 0}, {"dataset": "mnist"}, {"budget": "full"}, {"settings": {}}])
def test_options_that_the_manifest_determines_are_refused(made: Path, words) -> None:
    message = refusal(lambda: privbench.load_target(made / "exported", **words), InvalidConfigurationError)
    assert f"expected {next(iter(words))} to be left out" in message


def test_one_source() -> None:
    for words in ({}, {"source": "none", "defense": "none"}, {"defense": "none", "zoo": "x"}):
        refusal(lambda words=words: privbench.load_target(**words), InvalidConfigurationError)


# Files that are not the weights.


class Trap:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("trapped",))


def pth(tmp_path: Path, value: object) -> bytes:
    torch.save(value, tmp_path / "x.pth")
    return (tmp_path / "x.pth").read_bytes()


FILES = {
    "web page": (lambda data, tmp: b"\xef\xbb\xbf\n<!DOCTYPE html><html>404</html>", "got a web page"),
    "pickle": (lambda data, tmp: pickle.dumps(Trap()), "got a pickle, which can run code"),
    "archive of PyTorch": (lambda data, tmp: pth(tmp, {"a": Trap()}), "got a pickle of PyTorch"),
    "huge header": (lambda data, tmp: (2**62).to_bytes(8, "little") + data[8:], "4,611,686,018,427,387,904 bytes"),
    "header past the end": (lambda data, tmp: len(data).to_bytes(8, "little") + data[8:], "header of"),
    "empty header": (lambda data, tmp: bytes(len(data)), "header"),
    "deep header": (lambda data, tmp: header(b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"), "levels deep"),
    "header that is a list": (lambda data, tmp: header(b'{"a":[1]}'), "to have a type and a shape"),
    "unknown type": (lambda data, tmp: header(b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'), "'F4'"),
    "name twice": (lambda data, tmp: header(b'{"a":1,"a":1}'), "a name appears twice"),
    "huge claimed tensor": (
        lambda data, tmp: header(b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,8]}}' + b" " * 8),
        "no tensor",
    ),
    "random bytes": (lambda data, tmp: b"x" * 100, "to be a safetensors file"),
}


def header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("forged", [True, False])
def test_a_file_that_is_not_the_weights(copy: Path, tmp_path: Path, monkeypatch, name: str, forged: bool) -> None:
    monkeypatch.chdir(tmp_path)
    make, needle = FILES[name]
    swap(copy, make((copy / WEIGHTS).read_bytes(), tmp_path), forged=forged)
    message = refusal(lambda: privbench.load_target(copy))
    assert WEIGHTS in message
    if forged or "got a" in needle:
        assert needle in message
    assert not (tmp_path / "trapped").exists()


def test_truncated_longer_and_other_weights(copy: Path) -> None:
    data = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(data[:-1])
    assert f"a truncated file, {len(data) - 1:,} of {len(data):,} bytes" in refusal(lambda: privbench.load_target(copy))
    (copy / WEIGHTS).write_bytes(data + b"\0")
    assert f"a file larger than {len(data):,} bytes" in refusal(lambda: privbench.load_target(copy))
    (copy / WEIGHTS).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert f"instead of {sha256(data)[:16]}..." in refusal(lambda: privbench.load_target(copy))


def test_the_hash_is_compared_before_anything_is_parsed(copy: Path, monkeypatch) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr(load, "layouts", unexpected)
    monkeypatch.setattr(load, "unpack", unexpected)
    data = (copy / WEIGHTS).read_bytes()
    swap(copy, data[:-1] + bytes([data[-1] ^ 1]), forged=False)
    assert "SHA-256" in refusal(lambda: privbench.load_target(copy))


def test_more_bytes_than_the_network_has_are_not_read(copy: Path, monkeypatch) -> None:
    change(copy, lambda value: value["weights"].update(bytes=1 << 32))
    monkeypatch.setattr(exported, "read_weights", None)
    assert "to take at most" in refusal(lambda: privbench.load_target(copy))


def retensor(edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[bytes], bytes]:
    def changed(data: bytes) -> bytes:
        state = unpack(data)
        edit(state)
        return pack(state)

    return changed


BIAS = "stages.logits.bias"
TENSORS = {
    "missing": (lambda state: state.pop(BIAS), f"no tensor '{BIAS}' (float32, 5)"),
    "extra": (lambda state: state.update(extra=torch.zeros(2)), "a tensor 'extra' that the network does not have"),
    "shape": (lambda state: state.update({BIAS: torch.zeros(7)}), "of float32, 7 instead of float32, 5"),
    "dtype": (lambda state: state.update({BIAS: torch.zeros(5).half()}), "of float16, 5 instead of float32, 5"),
    "NaN": (lambda state: state[BIAS].fill_(torch.nan), "to hold finite weights"),
    "renamed": (lambda state: state.update(other=state.pop(BIAS)), f"no tensor '{BIAS}'"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit_the_network(copy: Path, name: str) -> None:
    edit, needle = TENSORS[name]
    swap(copy, retensor(edit)((copy / WEIGHTS).read_bytes()))
    assert needle in refusal(lambda: privbench.load_target(copy))


def test_weights_of_another_target_compute_other_logits(copy: Path) -> None:
    swap(copy, retensor(lambda state: state[BIAS].add_(0.1))((copy / WEIGHTS).read_bytes()))
    assert "does not compute what it did" in refusal(lambda: privbench.load_target(copy))


@pytest.mark.parametrize("file", [MANIFEST, WEIGHTS])
@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_links_folders_and_pipes_are_not_read(copy: Path, tmp_path: Path, file: str, kind: str) -> None:
    outside = (copy / file).rename(tmp_path / "outside")
    if kind == "link":
        (copy / file).symlink_to(outside)
    elif kind == "folder":
        (copy / file).mkdir()
    else:
        os.mkfifo(copy / file)
    message = refusal(lambda: privbench.load_target(copy))
    assert ("symbolic link" if kind == "link" else "regular file") in message


# Manifests.

MANIFESTS = {
    "outside": (lambda m: m["weights"].update(file="../x.safetensors"), "weights.file", "'../x.safetensors'"),
    "absolute": (lambda m: m["weights"].update(file="/etc/passwd"), "weights.file", "'/etc/passwd'"),
    "missing field": (lambda m: m.pop("seed"), "to have seed, found none", ""),
    "extra field": (lambda m: m.update(evil=1), "known fields only, got evil", ""),
    "negative size": (lambda m: m["weights"].update(bytes=-1), "weights.bytes", ""),
    "huge size": (lambda m: m["weights"].update(bytes=10**30), "weights.bytes", ""),
    "no hash": (lambda m: m["weights"].update(sha256="x"), "weights.sha256", ""),
    "accuracy beyond 1": (lambda m: m.update(test_accuracy=1.5), "test_accuracy", "1.5"),
    "another format": (lambda m: m.update(format="x"), "to be the manifest of an exported target", ""),
    "odd field": (lambda m: m["defense"]["fields"].update(nonsense=1), "an invalid configuration", "defense.nonsense"),
    "odd value": (lambda m: m["dataset"]["fields"].update(attacked="x" * 9999), "an invalid configuration", "xxx..."),
    "protocol without classes": (
        lambda m: m["protocol"].pop("classes"),
        "expected classes in the protocol, found none",
        "",
    ),
    "other classes": (lambda m: m["protocol"].update(classes=6), "protocol.classes", "got 6"),
    "other image": (lambda m: m["protocol"].update(image=[1, 9999999, 9999999]), "protocol.image", "9999999"),
    "other network": (lambda m: m["network"].update(name="scnn"), "network.name", "'scnn'"),
    "logits of other classes": (lambda m: m["answers"].update(logits=[[0.0]]), "answers.logits", ""),
    "files of this machine": (lambda m: m["dataset"].update(name="celeba_attributes"), "", ""),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_was_tampered_with(copy: Path, name: str) -> None:
    edit, *needles = MANIFESTS[name]
    change(copy, edit)
    message = refusal(lambda: privbench.load_target(copy))
    assert all(needle in message for needle in needles), message


def test_a_manifest_cannot_name_files_of_this_machine(copy: Path) -> None:
    fields = registry.load("dataset", "celeba_attributes_subset")().model_dump(mode="json") | {"extra": "/etc"}
    change(copy, lambda m: m.update(dataset=m["dataset"] | {"name": "celeba_attributes_subset", "fields": fields}))
    assert "expected dataset.extra to be absent" in refusal(lambda: privbench.load_target(copy))


INCOMPATIBLE = {
    "another protocol version": (lambda m: m["protocol"].update(version=3), "digits/v3", "digits/v2"),
    "newer schema": (lambda m: m.update(schema_version=99), "schema 99", "upgrade privbench"),
    "unknown defense": (
        lambda m: m["defense"].update(name="nls", distribution="privbench-nls"),
        "the defense 'nls' of privbench-nls",
        "found none",
    ),
    "unknown network": (lambda m: m["network"].update(name="vit9"), "the network 'vit9' of privbench 0.1.0", ""),
    "unknown data set": (lambda m: m["dataset"].update(name="nowhere"), "the dataset 'nowhere'", ""),
    "another package": (lambda m: m["defense"].update(distribution="other"), "defense none of other", "privbench"),
    "another version": (lambda m: m["network"].update(version=7), "network mcnn of privbench, version 7", "version 1"),
}


@pytest.mark.parametrize("name", INCOMPATIBLE)
def test_a_target_with_components_that_are_not_installed(copy: Path, name: str) -> None:
    edit, *needles = INCOMPATIBLE[name]
    change(copy, edit)
    message = refusal(lambda: privbench.load_target(copy), IncompatibleRecordError)
    assert all(needle in message for needle in needles), message


JSON = {
    "deep": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested more than 64 levels deep"),
    "deeper than a manifest may be": (b'{"a":' + b"[" * 65 + b"]" * 65 + b"}", "nested more than 64 levels deep"),
    "large": (b'{"a":"' + b"x" * exported.MAX_MANIFEST + b'"}', "larger than 4,194,304 bytes"),
    "web page": (b"  <html></html>", "it is a web page"),
    "NaN": (b'{"a":NaN}', "NaN is not JSON"),
    "infinite": (b'{"a":1e999}', "to be a JSON object: "),
    "long number": (b'{"a":' + b"9" * 5000 + b"}", "to be a JSON object: "),
    "name twice": (b'{"format":"privbench target","format":1}', "appears twice"),
    "half a character": (b'{"a":"\\ud800"}', "to be a JSON object: "),
    "not UTF-8": ('{"a":1}'.encode("utf-16"), "to be a JSON object: "),
    "a list": (b"[]", "to be a JSON object: it is of type list"),
    "empty": (b"", "to be a JSON object: "),
    "other": (b"{}", "the manifest of an exported target"),
}


@pytest.mark.parametrize("name", JSON)
def test_hostile_json_is_refused(copy: Path, cages: Path, name: str) -> None:
    data, needle = JSON[name]
    (copy / MANIFEST).write_bytes(data)
    assert needle in refusal(lambda: privbench.load_target(copy))
    if name not in ("large", "other"):
        (cages / zoo.INDEX).write_bytes(data)
        assert needle in refusal(lambda: zoo.open_zoo(cages))


def test_paths_that_are_not_an_export(tmp_path: Path) -> None:
    for name in ("target.pth", "target.pt", "target.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap()))
        assert "can run code when read" in refusal(lambda n=name: privbench.load_target(tmp_path / n), MissingDataError)
    (tmp_path / "x.safetensors").write_bytes(b"")
    assert "got the file" in refusal(lambda: privbench.load_target(tmp_path / "x.safetensors"), MissingDataError)
    assert "found none" in refusal(lambda: privbench.load_target("./nowhere"), MissingDataError)
    (tmp_path / "empty").mkdir()
    assert "without manifest.json" in refusal(lambda: privbench.load_target(tmp_path / "empty"), MissingDataError)


# Test accuracy.


def test_the_accuracy_is_tested_again(copy: Path) -> None:
    assert privbench.load_target(copy, check_accuracy=True, data=copy).layers
    manifest = exported.read_manifest(copy)
    change(copy, lambda m: m.update(test_accuracy=manifest.test_accuracy + 0.005))
    assert privbench.load_target(copy, check_accuracy=True, data=copy).layers
    change(copy, lambda m: m.update(test_accuracy=manifest.test_accuracy + 0.25))
    assert privbench.load_target(copy).layers
    message = refusal(lambda: privbench.load_target(copy, check_accuracy=True, data=copy))
    assert f"{manifest.test_accuracy:.2%} on 183 images" in message
    assert "a difference of -25.00 points" in message


def test_decisions_on_private_images_are_compared(copy: Path) -> None:
    change(copy, lambda m: m["decisions"].update(said=[(each + 1) % 5 for each in m["decisions"]["said"]]))
    assert "repeats 0.0% of its 183" in refusal(lambda: privbench.load_target(copy, check_accuracy=True, data=copy))
    change(copy, lambda m: m["decisions"].update(said=["01010"]))
    assert "to hold classes" in refusal(lambda: privbench.load_target(copy, check_accuracy=True, data=copy))


def test_decisions_on_attributes(made: Path) -> None:
    manifest = exported.read_manifest(made / "exported")
    said = exported.Decisions.model_validate({"seed": 0, "said": ["01", "10", "11"]})
    assert said.said == ("01", "10", "11")
    manifest = manifest.model_copy(update={"decisions": said})
    protocol = registry.load("dataset", "digits")().protocol.model_copy(update={"task": "attributes", "classes": 2})
    logits = torch.tensor([[-1.0, 1.0], [2.0, -3.0], [0.5, 0.1]])
    load._require_decisions(logits, manifest, protocol, made)
    wrong = [logits.neg(), logits[:2], logits.roll(1, 0)]
    for each in wrong:
        refusal(lambda each=each: load._require_decisions(each, manifest, protocol, made))


@pytest.mark.parametrize("length", [0x80, 0x3C20, 0x3C])
def test_weights_whose_length_looks_like_another_kind_of_file(tmp_path: Path, length: int) -> None:
    text = b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}'
    path = tmp_path / "x.safetensors"
    path.write_bytes(header(text.ljust(length)) + bytes(4))
    assert unpack(path.read_bytes())["a"] == 0
    assert importing.other_kind(path, path.read_bytes()[:512]) is None
    assert importing.other_kind(path, path.read_bytes()[:8]) is not None


def test_another_number_of_test_images(copy: Path) -> None:
    change(copy, lambda m: m.update(n=184))
    message = refusal(lambda: privbench.load_target(copy, check_accuracy=True, data=copy), MissingDataError)
    assert "expected the 184 private test images" in message


# Writing.


def test_an_export_is_replaced_and_nothing_else_is(made: Path, tmp_path: Path) -> None:
    record, _ = samples.trained(made)
    store = Store(made / "store")

    def export(folder: Path) -> None:
        exporting.export(record, folder, store, made)

    for name in ("new", "below/new"):
        export(tmp_path / name)
        export(tmp_path / name)
        assert privbench.load_target(tmp_path / name).layers
    (tmp_path / "empty").mkdir()
    export(tmp_path / "empty")
    (tmp_path / "new" / "notes.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / MANIFEST).write_text("{}")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for name in ("new", "other", "file", "link"):
        refusal(lambda name=name: export(tmp_path / name), InvalidConfigurationError)
    assert (tmp_path / "new" / "notes.txt").read_text() == "mine"
    assert (tmp_path / "other" / MANIFEST).read_text() == "{}"
    assert not list(tmp_path.rglob(".*"))


def test_a_failed_export_keeps_the_earlier_one(made: Path, tmp_path: Path, monkeypatch) -> None:
    record, _ = samples.trained(made)
    exporting.export(record, tmp_path / "out", Store(made / "store"), made)
    before = (tmp_path / "out" / MANIFEST).read_bytes()

    def full(path: Path, data: bytes) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting.atomic, "write_new", full)
    message = refusal(lambda: exporting.export(record, tmp_path / "out", Store(made / "store"), made), StorageError)
    assert "no space left" in message
    assert (tmp_path / "out" / MANIFEST).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_target_that_is_missing_or_of_another_version(made: Path, tmp_path: Path) -> None:
    record, _ = samples.trained(made)
    message = refusal(
        lambda: exporting.export(record, tmp_path / "x", Store(tmp_path / "store"), made), MissingDataError
    )
    assert "make it with `privbench run" in message
    older = record.model_copy(update={"protocol": "digits/v0"})
    message = refusal(
        lambda: exporting.export(older, tmp_path / "x", Store(made / "store"), made), IncompatibleRecordError
    )
    assert "digits/v0" in message
    assert not (tmp_path / "x").exists()


# Zoos.


def test_a_zoo_grows_and_does_not_change_what_it_has(made: Path, tmp_path: Path) -> None:
    name, entry = zoo.add(made / "exported", tmp_path / "zoo")
    assert name.startswith("digits-none-smoke-seed0-")
    assert zoo.add(made / "exported", tmp_path / "zoo") == (name, entry)
    zoo.add(made / "exported", tmp_path / "zoo", "again")
    opened = zoo.open_zoo(tmp_path / "zoo")
    assert sorted(opened.targets) == ["again", name]
    record, _ = samples.trained(made, seed=1)
    exporting.export(record, tmp_path / "other", Store(made / "store"), made)
    message = refusal(lambda: zoo.add(tmp_path / "other", tmp_path / "zoo", "again"), InvalidConfigurationError)
    assert "another target there" in message
    for bad in ("../x", "UPPER", "a/b", "zoo.json", "", ".hidden", "a."):
        refusal(lambda bad=bad: zoo.add(made / "exported", tmp_path / "zoo", bad or " "), InvalidConfigurationError)
    assert zoo.open_zoo(tmp_path / "zoo").targets == opened.targets


def test_a_zoo_is_made_in_a_new_folder_only(made: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "to be a zoo" in refusal(lambda: zoo.add(made / "exported", tmp_path, "x"), InvalidConfigurationError)
    assert "no zoo.json" in refusal(lambda: zoo.open_zoo(tmp_path), MissingDataError)


def test_a_target_that_does_not_load_is_not_added(copy: Path, tmp_path: Path) -> None:
    swap(copy, retensor(lambda state: state[BIAS].add_(0.1))((copy / WEIGHTS).read_bytes()))
    refusal(lambda: zoo.add(copy, tmp_path / "zoo"))
    assert not (tmp_path / "zoo").exists()


def relist(root: Path, **changes: object) -> None:
    index = json.loads((root / zoo.INDEX).read_text("utf-8"))
    index["targets"]["tiny"].update(changes)
    (root / zoo.INDEX).write_text(json.dumps(index), "utf-8")


@pytest.mark.parametrize("folder", ["../copy", "/etc", "a/../../copy", "C:\\x", "a\\..\\b", ".", "", "~", "a//b"])
def test_a_zoo_with_a_folder_outside_by_name(cages: Path, copy: Path, folder: str) -> None:
    relist(cages, folder=folder)
    message = refusal(lambda: privbench.load_target("tiny", zoo=cages))
    assert "targets.tiny.folder" in message
    assert "stays inside the zoo" in message


def test_a_zoo_with_a_folder_outside_by_a_link(cages: Path, copy: Path) -> None:
    (cages / "away").symlink_to(copy, target_is_directory=True)
    relist(cages, folder="away")
    assert "symbolic link out of it" in refusal(lambda: privbench.load_target("tiny", zoo=cages))


def test_hashes_of_a_zoo(cages: Path) -> None:
    manifest = cages / "tiny" / MANIFEST
    before = manifest.read_bytes()
    manifest.write_bytes(before + b" ")
    assert "that its zoo lists" in refusal(lambda: privbench.load_target("tiny", zoo=cages))
    manifest.write_bytes(before)
    relist(cages, test_accuracy=0.999)
    assert "to list test_accuracy" in refusal(lambda: privbench.load_target("tiny", zoo=cages))


def test_a_copy_of_a_zoos_target(made: Path, tmp_path: Path) -> None:
    zoo.fetch(zoo.open_zoo(made / "zoo"), "tiny", tmp_path / "mine")
    assert privbench.load_target(tmp_path / "mine").layers


# Addresses.


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder on 127.0.0.1, counts requests, and can send given responses."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Callable[[Any], None]] = {}
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *words: Any, **more: Any) -> None:
                super().__init__(*words, directory=str(root), **more)

            def do_GET(self) -> None:
                server.asked.append(self.path)
                answer = server.answers.get(self.path)
                answer(self) if answer else super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(cages: Path, monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "PLAIN_HTTP_HOSTS", frozenset({"127.0.0.1"}))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(downloads, "TIMEOUT", 5.0)
    with Server(cages) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def reply(data: bytes, status: int = 200, **headers: str) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def test_an_address_is_fetched_once_and_checked_each_time(server: Server, tmp_path: Path, caplog) -> None:
    for address in (server.url, f"{server.url}/", f"{server.url}/zoo.json"):
        assert privbench.load_target("tiny", zoo=address).layers
    assert server.asked.count("/tiny/target.safetensors") == 1
    (cached,) = (tmp_path / "cache" / "privbench" / "zoo").iterdir()
    (cached / WEIGHTS).write_bytes(b"damaged")
    assert privbench.load_target("tiny", zoo=server.url).layers
    assert server.asked.count("/tiny/target.safetensors") == 2
    assert "fetching it again" in caplog.text
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


ANSWERS = {
    "web page": ("/tiny/target.safetensors", reply(b"<html>quota</html>"), CorruptArtifactError, "got a web page"),
    "truncated": ("/tiny/target.safetensors", reply(b"\x08" + b"\0" * 7 + b"{}"), CorruptArtifactError, "truncated"),
    "endless": ("/tiny/target.safetensors", reply(b"x" * 5_000_000), CorruptArtifactError, "at most"),
    "another manifest": ("/tiny/manifest.json", reply(b"{}"), CorruptArtifactError, "SHA-256"),
    "no index": ("/zoo.json", reply(b"", 404), MissingDataError, "HTTP 404"),
    "index is a page": ("/zoo.json", reply(b"<!doctype html>"), CorruptArtifactError, "it is a web page"),
    "to plain http": ("/zoo.json", reply(b"", 302, Location="http://example.org/"), InvalidConfigurationError, "https"),
    "to a file": ("/zoo.json", reply(b"", 302, Location="file:///etc/passwd"), MissingDataError, "not allowed"),
    "in a circle": ("/zoo.json", reply(b"", 302, Location="/zoo.json"), MissingDataError, "cannot be fetched"),
    "another protocol": ("/zoo.json", lambda handler: handler.wfile.write(b"SSH-2.0\r\n"), MissingDataError, "fetched"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_responses_of_a_server(server: Server, tmp_path: Path, name: str) -> None:
    path, answer, kind, needle = ANSWERS[name]
    server.answers[path] = answer
    assert needle in refusal(lambda: privbench.load_target("tiny", zoo=server.url), kind)
    cache = tmp_path / "cache" / "privbench" / "zoo"
    assert not cache.exists() or not list(cache.iterdir())


def test_a_silent_server_times_out(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    done = threading.Event()
    server.answers["/zoo.json"] = lambda handler: done.wait(10)
    try:
        assert "timed out" in refusal(lambda: zoo.open_zoo(server.url), MissingDataError)
    finally:
        done.set()


def test_a_slow_server_times_out(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(downloads, "_BASE_SECONDS", 0.2)
    monkeypatch.setattr(downloads, "_MIN_RATE", 1e12)

    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            if stop.wait(0.05):
                return

    stop = threading.Event()
    server.answers["/zoo.json"] = drip
    try:
        assert "arrived in time" in refusal(lambda: zoo.open_zoo(server.url), MissingDataError)
    finally:
        stop.set()


def test_addresses_other_than_https() -> None:
    for address in ("http://127.0.0.1/zoo", "ftp://x/zoo", "https://", "https://a b/", "data://x", "http://[::1"):
        assert "https://" in refusal(lambda a=address: zoo.open_zoo(a), InvalidConfigurationError)
    for address in ("https://x/?a=1", "https://x/#a", "https://me:secret@x/", "file://elsewhere/zoo"):
        refusal(lambda a=address: zoo.open_zoo(a), InvalidConfigurationError)


def test_an_unreachable_server(monkeypatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(downloads, "PLAIN_HTTP_HOSTS", frozenset({"127.0.0.1"}))
        monkeypatch.setenv("no_proxy", "*")
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert "cannot be fetched" in refusal(lambda: zoo.open_zoo(address), MissingDataError)


def test_predictions_are_those_of_the_manifest(made: Path) -> None:
    manifest = exported.read_manifest(made / "exported")
    test = registry.load("dataset", "digits")().load("private_test", made)
    logits = predict(
        privbench.load_target(made / "exported"), test.pixels, torch.device("cpu"), manifest.decisions.seed
    )
    assert tuple(logits.argmax(1).tolist()) == manifest.decisions.said
    assert float((logits.argmax(1) == test.labels).double().mean()) == manifest.test_accuracy


def test_the_lock_of_a_zoo_is_held_by_one_and_is_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "_LOCK_SECONDS", 0.0)
    with (
        zoo._locked_index(tmp_path / "zoo"),
        pytest.raises(StorageError, match="another process has been changing"),
        zoo._locked_index(tmp_path / "zoo"),
    ):
        pytest.fail("two have the lock")
    (tmp_path / "victim").write_text("not empty")
    (tmp_path / "zoo" / ".zoo.lock").unlink()
    (tmp_path / "zoo" / ".zoo.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="is a symbolic link"), zoo._locked_index(tmp_path / "zoo"):
        pytest.fail("a link was locked")
    assert (tmp_path / "victim").read_text() == "not empty"
