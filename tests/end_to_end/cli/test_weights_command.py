"""`privbench weights` as a user sees it."""

import json
from pathlib import Path

import pytest
import torch
from helpers import command_line
from helpers.command_line import Command
from privbench.benchmark import registry
from privbench.benchmark.networks.embedders.mobilefacenet import MobileFaceNet
from safetensors.torch import save_file


@pytest.fixture
def privbench(privbench: Command, monkeypatch, tmp_path) -> Command:
    """The command line without downloaded weights."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "torch" / "hub"))
    return privbench


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_file(MobileFaceNet(pretrained=False).state_dict(), path)
    return path


def rows(privbench: Command) -> dict[str, dict]:
    code, out, _ = privbench("weights", "ls", "--json")
    assert code == 0
    return {row["name"]: row for row in json.loads(out)}


def test_import_then_ls_then_damage(privbench: Command, file: Path, tmp_path: Path) -> None:
    before = rows(privbench)
    assert {row["state"] for row in before.values()} == {"missing"}
    assert before["mobilefacenet"]["for"] == ["embedder mobilefacenet"]
    assert before["vgg16"]["url"].endswith("vgg16-397923af.pth")
    assert all(row["licence"] and row["problem"] for row in before.values())

    code, out, err = privbench("weights", "import", "mobilefacenet", str(file))
    assert (code, err) == (0, "")
    row = rows(privbench)["mobilefacenet"]
    assert (row["state"], row["problem"]) == ("here", None)
    assert row["origin"] == f"mine.safetensors, {row['imported'][:10]}"
    assert out == f"mobilefacenet is ready: {row['path']}, SHA-256 {row['sha256']}\n"

    code, table, _ = privbench("weights", "ls")
    assert code == 0
    assert row["sha256"][:12] in table
    assert "here" in table

    Path(row["path"]).write_bytes(b"damaged")
    row = rows(privbench)["mobilefacenet"]
    assert (row["state"], row["sha256"]) == ("damaged", None)
    code, out, _ = privbench("weights", "show", "mobilefacenet")
    assert code == 0
    assert "does not match its manifest" in out


def test_show_lists_what_a_file_must_hold(privbench: Command) -> None:
    code, out, _ = privbench("weights", "show", "mobilefacenet", "--json")
    assert code == 0
    wanted = {key: list(value.shape) for key, value in MobileFaceNet(pretrained=False).state_dict().items()}
    assert json.loads(out)["tensors"] == wanted
    assert "  stem.conv.weight  64 x 3 x 3 x 3\n" in privbench("weights", "show", "mobilefacenet")[1]


MISTAKES = {
    "unknown weights": (("import", "mobilfacenet", "FILE"), ["weights 'mobilfacenet'", "did you mean 'mobilefacenet'"]),
    "published": (("import", "vgg16", "FILE"), ["privbench weights fetch vgg16"]),
    "brought": (("fetch", "dlib_resnet"), ["privbench weights import dlib_resnet FILE"]),
    "of another network": (("import", "dlib_resnet", "FILE"), ["'conv1.weight'", "privbench weights show dlib_resnet"]),
    "missing file": (("import", "mobilefacenet", "nowhere"), ["nowhere", "no such file"]),
    "without weights": (("show", "hog"), ["weights 'hog'", "known:"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(privbench: Command, file: Path, tmp_path: Path, name: str) -> None:
    words, needles = MISTAKES[name]
    code, out, err = privbench("weights", *(str(file) if word == "FILE" else word for word in words))
    assert (code, out) == (1, "")
    (sentence,) = [line for line in err.splitlines() if not line.startswith("fetching ")]
    assert sentence.startswith("privbench: ")
    for needle in needles:
        assert needle in sentence
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("kind", [kind for kind in registry.MODULES if kind != "network"])
def test_networks_that_judge_are_listed_and_shown(privbench: Command, kind: str) -> None:
    code, out, _ = privbench("list", f"{kind}s", "--json")
    assert code == 0
    listed = [row["name"] for row in json.loads(out)]
    assert listed == registry.names(kind)
    assert all(row["summary"] for row in json.loads(out))
    for name in listed:
        code, out, _ = privbench("show", kind, name, "--json")
        assert code == 0
        assert json.loads(out)["weights"] == registry.load(kind, name).weights
        assert privbench("show", kind, name)[0] == 0


@pytest.mark.parametrize("words", [["weights", "--help"], ["weights", "import", "--help"], ["list", "embedders"]])
def test_help_and_listing_do_not_import_torch(words: list[str]) -> None:
    assert "torch" not in command_line.imported_modules(*words)
