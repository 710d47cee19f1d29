"""`privbench export` and `privbench zoo` as a user sees them."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import command_line
from helpers import zoo_samples as samples
from helpers.command_line import Command


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    samples.trained(folder)
    return folder


@pytest.fixture
def privbench(privbench: Command, trained: Path, monkeypatch) -> Command:
    """The command line with the store and the results of the trained target."""
    monkeypatch.setenv("PRIVBENCH_STORE", str(trained / "store"))
    monkeypatch.setenv("PRIVBENCH_RESULTS", str(trained / "results"))
    return privbench


def record(trained: Path) -> Path:
    (found,) = (trained / "results").rglob("*.json")
    return found


def test_a_record_a_folder_and_a_key_mean_the_same_target(privbench: Command, trained: Path) -> None:
    path = record(trained)
    target = json.loads(path.read_text("utf-8"))["artifacts"]["target"]["key"]
    said = set()
    for cell in (str(path), str(trained / "results"), path.stem[:8], path.stem, target[:8]):
        code, out, err = privbench("export", cell, "out", "--json")
        assert (code, err) == (0, ""), err
        said.add(json.loads(out)["weights"]["sha256"])
    assert len(said) == 1
    assert sorted(file.name for file in Path("out").iterdir()) == ["manifest.json", "target.safetensors"]
    code, out, _ = privbench("export", path.stem[:8], "out")
    assert code == 0
    assert out.startswith("target none on digits/v2, seed 0: ")
    assert out.endswith("\nout\n")


def test_a_zoo_from_export_to_fetch(privbench: Command, trained: Path, monkeypatch) -> None:
    assert privbench("export", str(record(trained)), "out")[0] == 0
    code, out, err = privbench("zoo", "add", "out", "zoo", "--name", "tiny")
    assert (code, err) == (0, "")
    assert out.startswith("tiny: none on digits/v2, SHA-256 ")
    code, out, _ = privbench("zoo", "list", "zoo", "--json")
    (row,) = json.loads(out)
    assert (row["name"], row["defense"], row["n"]) == ("tiny", "none", 183)
    monkeypatch.setenv("PRIVBENCH_ZOO", "zoo")
    code, out, _ = privbench("zoo", "list")
    assert code == 0
    assert "tiny" in out
    assert row["weights"]["sha256"][:12] in out
    code, out, _ = privbench("zoo", "fetch", "tiny", "mine")
    assert code == 0
    assert out.endswith("\nmine\n")
    assert (Path("mine") / "target.safetensors").read_bytes() == (Path("out") / "target.safetensors").read_bytes()


MISTAKES = {
    "no such key": (("export", "abcdef", "x"), 1, ["the beginning of a key", "'abcdef'", "privbench run"]),
    "no such record": (("export", "nowhere.json", "x"), 1, ["nowhere.json"]),
    "not a record": (("export", "notes.json", "x"), 1, ["notes.json"]),
    "something in the way": (("export", "RECORD", "full"), 1, ["a new folder or an earlier export", "notes.txt"]),
    "another store": (("export", "RECORD", "x", "--store", "empty"), 1, ["is not in the store", "privbench run"]),
    "no folder": (("export", "RECORD"), 2, ["DIR"]),
    "no zoo": (("zoo", "list", "full"), 1, ["no zoo.json"]),
    "no zoo given": (("zoo", "list"), 2, ["ZOO"]),
    "plain http": (("zoo", "list", "http://127.0.0.1:1/"), 1, ["https://"]),
    "no export": (("zoo", "add", "full", "zoo"), 1, ["without manifest.json"]),
    "a pickle": (("zoo", "add", "target.pth", "zoo"), 1, ["can run code when read"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(privbench: Command, trained: Path, tmp_path: Path, name: str) -> None:
    words, expected, needles = MISTAKES[name]
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "target.pth").write_bytes(b"\x80\x02")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    code, out, err = privbench(*(str(record(trained)) if word == "RECORD" else word for word in words))
    assert (code, out) == (expected, ""), err
    assert "Traceback" not in err
    assert all(needle in err for needle in needles), err
    if expected == 1:
        assert err.startswith("privbench: ")
        assert err.count("\n") == 1
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "zoo").exists()


def test_records_of_several_targets(privbench: Command, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "results", tmp_path / "results")
    path = next((tmp_path / "results").rglob("*.json"))
    value = json.loads(path.read_text("utf-8"))
    value |= {"key": "a" * 64, "artifacts": {"target": {"key": "b" * 64, "digest": "c" * 64}}}
    path.with_name("a" * 64 + ".json").write_text(json.dumps(value), "utf-8")
    code, _, err = privbench("export", "results", "x")
    assert code == 1
    assert "expected CELL to mean one target, got 2" in err
    assert privbench("export", "bbbb", "x", "--results", "results")[0] == 1


@pytest.mark.parametrize("words", [["--help"], ["export", "--help"], ["zoo", "--help"], ["zoo", "add", "--help"]])
def test_help_does_not_import_torch(words: list[str]) -> None:
    assert "torch" not in command_line.imported_modules(*words)


def test_listing_a_zoo_does_not_import_torch(tmp_path: Path) -> None:
    (tmp_path / "zoo.json").write_text('{"format": "privbench zoo", "schema_version": 1, "targets": {}}')
    assert "torch" not in command_line.imported_modules("zoo", "list", tmp_path)
