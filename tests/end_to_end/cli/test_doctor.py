"""`privbench doctor` lists what is installed, and writes nothing."""

import importlib.metadata
import json

import pytest
import torch
from helpers import command_line
from privbench.benchmark import registry
from privbench.benchmark.store.store import open_store


@pytest.fixture
def doctor(tmp_path, monkeypatch):
    """Findings by name."""
    for name in ("CACHE", "DATA", "WEIGHTS"):
        monkeypatch.setenv(f"PRIVBENCH_{name}", str(tmp_path / name.lower()))
    monkeypatch.delenv("PRIVBENCH_STORE", raising=False)

    def findings(*words):
        found = json.loads(command_line.output("doctor", "--json", *words))
        return {finding["what"]: finding for finding in found}

    return findings


def test_it_checks_everything_and_writes_nothing(doctor, tmp_path):
    found = doctor()
    assert {"CPU", "CUDA", "MPS", "Ray", "data folder", "store folder"} <= found.keys()
    assert {f"data set {name}" for name in registry.names("dataset")} <= found.keys()
    assert found["data set digits"]["present"]
    assert not found["data set mnist"]["present"]
    assert "privbench data prepare mnist" in found["data set mnist"]["detail"]
    assert str(tmp_path / "cache" / "store") in found["store folder"]["detail"]
    assert "shared store" not in found
    assert list(tmp_path.iterdir()) == []


def test_a_web_page_in_place_of_weights_is_named(doctor, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    page = tmp_path / "checkpoints" / "vgg16_bn-6c64b313.pth"
    page.write_bytes(b"<!DOCTYPE html><title>Quota exceeded</title>")
    found = doctor()
    assert found["weights vgg16_bn"] == {
        "what": "weights vgg16_bn",
        "present": False,
        "detail": f"would enable the pretrained network vgg16_bn: {page} is a web page, not weights; run `privbench "
        "weights fetch vgg16_bn`, or replace it by https://download.pytorch.org/models/vgg16_bn-6c64b313.pth",
    }
    assert found["weights inception_fid"]["detail"].startswith("would enable the evaluator fid_inception: expected")
    embedder = "would enable the embedder facenet_vggface2 and the pretrained network facenet: expected"
    assert found["weights facenet_vggface2"]["detail"].startswith(embedder)


def test_missing_ray_is_listed_with_what_it_would_enable(doctor, monkeypatch):
    def version(name):
        if name == "ray":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert doctor()["Ray"]["detail"] == "would enable --runner ray; pip install 'privbench[ray]'"


def test_both_tiers_of_a_shared_store(doctor, tmp_path):
    url = f"file://{tmp_path}/shared"
    found = doctor("--store", url)
    assert found["shared store"] == {
        "what": "shared store",
        "present": True,
        "detail": f"{url}, which the first run creates",
    }
    assert str(tmp_path / "cache" / "stores") in found["store folder"]["detail"]
    assert list(tmp_path.iterdir()) == []
    open_store(url).write("target", "a" * 64, tensors={}, info={})
    assert doctor("--store", url)["shared store"]["detail"] == url
    (tmp_path / "shared" / "format.json").write_text("{")
    found = doctor("--store", url)["shared store"]
    assert not found["present"]
    assert "format.json is damaged" in found["detail"]


def test_the_table(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert "data set digits" in command_line.output("doctor", "--data", tmp_path)
