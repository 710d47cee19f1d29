"""`privbench submit` and `privbench verify`, as a user sees them."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from helpers.command_line import Command

WHO = ("--contact", "author@example.org", "--paper", "A paper")

#: What `verify` says on stderr before it checks the only record.
PROGRESS = "[1/1] digits/v2 none kedmi smoke seed 0\n"


@pytest.fixture
def submitted(privbench: Command, author: Path, tmp_path: Path) -> Path:
    """A submission below a results folder of its own."""
    folder = tmp_path / "results" / "submissions" / "mine"
    code, out, err = privbench("submit", author / "results", *WHO, "--output", folder)
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("1 record, 5 files, ")
    assert out.splitlines()[1] == str(folder)
    return folder


def one_message(err: str, *parts: str) -> None:
    (line,) = err.splitlines()
    assert line.startswith("privbench: ")
    assert "Traceback" not in err
    for part in parts:
        assert part in line


def test_submit_verify_and_report(privbench: Command, submitted: Path, verifier: Path, tmp_path: Path) -> None:
    code, out, err = privbench("verify", submitted, "--store", verifier)
    assert (code, err) == (0, PROGRESS)
    assert out.splitlines() == ["recomputed: digits/v2 none kedmi smoke seed 0", "  scores: 11 equal"]
    assert not (tmp_path / "results" / "verifications").exists()
    code, out, _ = privbench("verify", submitted, "--store", verifier, "--write", "--by", "A verifier")
    assert code == 0
    assert out.splitlines()[-1] == str(tmp_path / "results" / "verifications" / "mine.json")
    code, out, err = privbench("report", tmp_path / "results", "--format", "md")
    assert (code, err) == (0, "")
    assert "| recomputed |" in out
    code, out, _ = privbench("report", tmp_path / "results")
    assert "recomputed by a verifier: none" in out


def test_keys_and_paths_select_the_same_records(privbench: Command, author: Path, tmp_path: Path) -> None:
    (path,) = (author / "results").rglob("*.json")
    said = []
    for index, words in enumerate([(path,), (path.stem[:8],), (author / "results", path)]):
        code, out, _ = privbench("submit", *words, *WHO, "--output", tmp_path / str(index), "--json")
        assert code == 0
        said.append(json.loads(out) | {"created": ""})
    assert said[0] == said[1] == said[2]
    assert said[0]["seeds"] == [0]


def test_a_submission_has_a_name(privbench: Command, author: Path, monkeypatch, tmp_path: Path) -> None:
    results = Path(shutil.copytree(author / "results", tmp_path / "copy"))
    monkeypatch.setenv("PRIVBENCH_RESULTS", str(results))
    code, out, _ = privbench("submit", results, *WHO)
    assert code == 0
    folder = Path(out.splitlines()[-1])
    assert folder.parent == results / "submissions"
    assert folder.name.startswith("none-")
    code, out, err = privbench("submit", results / "records", *WHO)
    assert code == 1
    one_message(err, "expected --output to be a new folder", "choose another --name")
    code, out, _ = privbench("submit", results / "records", *WHO, "--name", "second")
    assert Path(out.splitlines()[-1]) == results / "submissions" / "second"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("nowhere", *WHO), ("expected nowhere to be a results folder or a record",)),
        (("abcdef12", *WHO), ("expected RECORD to be the beginning of a key",)),
        (("RECORDS", "--contact", " ", "--paper", "P"), ("expected --contact to be one line of 1 to 300 characters",)),
        (("RECORDS", "--contact", "C", "--paper", "P" * 301), ("expected --paper to be one line",)),
        (("RECORDS", *WHO, "--name", "../x"), ("expected --name to consist of letters", "'../x'")),
    ],
)
def test_invalid_arguments_of_submit(privbench: Command, author: Path, tmp_path, words: tuple[str, ...], parts) -> None:
    before = sorted(author.rglob("*"))
    code, out, err = privbench("submit", *(author / "results" if word == "RECORDS" else word for word in words))
    assert (code, out) == (1, "")
    one_message(err, *parts)
    assert sorted(author.rglob("*")) == before


def test_submitted_records_are_not_submitted_again(privbench: Command, submitted: Path, author: Path) -> None:
    shutil.copytree(author / "results" / "records", submitted.parents[1] / "records")
    code, out, _ = privbench("submit", submitted.parents[1], *WHO, "--output", submitted.parent / "again")
    assert (code, out.splitlines()[0][:9]) == (0, "1 record,")
    shutil.rmtree(submitted.parents[1] / "records")
    code, _, err = privbench("submit", submitted.parents[1], *WHO, "--output", submitted.parent / "third")
    assert code == 1
    one_message(err, "expected RECORD to be your own records, got submitted ones")


def test_contact_and_paper_are_required(privbench: Command, author: Path) -> None:
    assert privbench("submit", author / "results", "--paper", "P")[0] == 2
    assert privbench("submit", author / "results", "--contact", "C")[0] == 2


def test_a_missing_artifact(privbench: Command, author: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(author / "store", tmp_path / "store"))
    shutil.rmtree(store / "evidence")
    code, _, err = privbench("submit", author / "results", *WHO, "--store", store, "--output", tmp_path / "x")
    assert code == 1
    one_message(err, "is not in the store", "make it with `privbench run --dataset digits")
    assert not (tmp_path / "x").exists()


def test_a_seed_that_one_group_lacks(privbench: Command, author: Path, tmp_path: Path) -> None:
    (path,) = (author / "results").rglob("*.json")
    for name, edit in (("a", {"seed": 3}), ("b", {"budget": "quick"})):
        value = json.loads(path.read_text("utf-8"))
        value["cell"] |= edit
        value["key"] = name * 64
        value["picture"] = None
        (tmp_path / "records").mkdir(exist_ok=True)
        (tmp_path / "records" / f"{name * 64}.json").write_text(json.dumps(value))
    code, _, err = privbench("submit", tmp_path / "records", *WHO, "--output", tmp_path / "x")
    assert code == 1
    one_message(err, "to have the seeds 0, 3 of the other records", "run it with --seed")


def test_a_rejected_submission_has_one_message(privbench: Command, submitted: Path, verifier: Path) -> None:
    (submitted / "extra.json").write_text("{}")
    code, out, err = privbench("verify", submitted, "--store", verifier)
    assert (code, out) == (1, "")
    one_message(err, "and no others, got 'extra.json'; remove it")
    code, out, err = privbench("verify", submitted, "--store", verifier, "--json", "--write", "--by", "Me")
    assert (code, err) == (1, "")
    assert json.loads(out)["problems"][0].startswith("expected ")
    assert not (submitted.parent.parent / "verifications").exists()


def test_a_rejected_record(privbench: Command, submitted: Path, verifier: Path) -> None:
    (path,) = (submitted / "records").rglob("*.json")
    record = json.loads(path.read_text("utf-8"))
    record["scores"]["accuracy"]["n"] += 1
    path.write_text(json.dumps(record), "utf-8")
    data = path.read_bytes()
    index = json.loads((submitted / "submission.json").read_text("utf-8"))
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    index["files"][path.relative_to(submitted).as_posix()] = facts
    (submitted / "submission.json").write_text(json.dumps(index))
    code, out, err = privbench("verify", submitted, "--store", verifier)
    assert code == 1
    assert out == "refused: digits/v2 none kedmi smoke seed 0\n"
    assert err.startswith(PROGRESS)
    one_message(err.removeprefix(PROGRESS), "expected n of accuracy", "as recomputed from its evidence")


def test_write_needs_the_name_of_a_verifier(privbench: Command, submitted: Path) -> None:
    for words in (("--write",), ("--by", "Me"), ("--write", "--by", " ")):
        code, _, err = privbench("verify", submitted, *words)
        assert code == 1
        one_message(err, "expected --write together with --by NAME")


def test_json(privbench: Command, submitted: Path, verifier: Path) -> None:
    code, out, err = privbench("verify", submitted, "--store", verifier, "--json")
    assert (code, err) == (0, PROGRESS)
    found = json.loads(out)
    assert found["problems"] == []
    (record,) = found["records"].values()
    assert record["level"] == "recomputed"
    assert record["scores"]["accuracy"]["outcome"] == "equal"


@pytest.mark.slow
def test_rerun(privbench: Command, submitted: Path, tmp_path: Path) -> None:
    store = tmp_path / "mine"
    code, out, err = privbench("verify", submitted, "--store", store, "--rerun", "--device", "cpu")
    assert (code, err) == (0, PROGRESS)
    assert out.splitlines() == ["re-run: digits/v2 none kedmi smoke seed 0", "  scores: 11 equal"]
    assert (tmp_path / "mine-reruns" / "evidence").exists()
    assert not (store / "evidence").exists()
