"""Mistakes get a message that names what is wrong and the right exit code, and leave nothing behind."""

import json
from pathlib import Path

import pytest

RUN = ("run", "--defense", "none", "--attack", "kedmi")


MISTAKES = {
    "unknown defense": ((*RUN[:2], "bido_hsik", *RUN[3:]), 1, ["bido_hsik", "did you mean 'bido_hsic'"]),
    "unknown attack": ((*RUN[:4], "ked-mi"), 1, ["ked-mi", "kedmi"]),
    "unknown data set": ((*RUN, "--dataset", "mnst"), 1, ["mnst", "did you mean 'mnist'"]),
    "unknown evaluator": ((*RUN, "--evaluator", "fidd"), 1, ["fidd", "fid"]),
    "unknown preset": (("run", "--defense", "bido_hsic:celeba-z", "--attack", "kedmi"), 1, ["celeba-z"]),
    "unknown budget": ((*RUN, "--budget", "quik"), 1, ["budget", "smoke, quick, full", "quik"]),
    "unknown field": ((*RUN, "--set", "attack.iteratons=5"), 1, ["attack.iteratons", "attack.iterations"]),
    "unknown scope": ((*RUN, "--set", "atack.iterations=5"), 1, ["atack", "attack"]),
    "value out of range": ((*RUN, "--set", "attack.iterations=0"), 1, ["attack.iterations", "greater than", "0"]),
    "value of another type": ((*RUN, "--set", "attack.iterations=many"), 1, ["attack.iterations", "integer", "many"]),
    "nested unknown": ((*RUN, "--set", "defense.recipe.epoch=5"), 1, ["defense.recipe.epoch", "epochs"]),
    "infinite value": ((*RUN, "--set", "defense.recipe.learning_rate=Infinity"), 1, ["learning_rate"]),
    "setting without value": ((*RUN, "--set", "attack.iterations"), 1, ["--set", "SCOPE.FIELD=VALUE"]),
    "deep value": ((*RUN, "--set", "attack.iterations=" + "[" * 3000), 1, ["attack.iterations", "fewer levels"]),
    "long path": ((*RUN, "--set", "attack" + ".a" * 5000 + "=1"), 1, ["at most 64 parts, got 5001"]),
    "long integer": ((*RUN, "--set", "attack.iterations=" + "9" * 5000), 1, ["attack.iterations", "fewer digits"]),
    "negative seed": ((*RUN, "--seed", "-1"), 1, ["seed", "-1"]),
    "seed of another type": ((*RUN, "--seed", "one"), 2, ["--seed", "integer"]),
    "unknown device": ((*RUN, "--device", "gpu"), 1, ["device", "gpu"]),
    "device of no number": ((*RUN, "--device", "cuda:²"), 1, ["cuda:²"]),
    "absent device": ((*RUN, "--device", "cuda:77"), 1, ["cuda:77"]),
    "no jobs": ((*RUN, "--jobs", "0"), 2, ["--jobs"]),
    "no attack": (("run", "--defense", "none"), 2, ["--attack"]),
    "missing matrix": (("run", "nowhere.toml"), 1, ["nowhere.toml"]),
    "missing data": ((*RUN, "--dataset", "mnist"), 1, ["mnist"]),
    "unknown command": (("rum",), 2, ["rum"]),
    "unknown kind": (("list", "defences"), 1, ["defences", "defenses"]),
    "unknown component": (("show", "defense", "nothing"), 1, ["nothing"]),
    "check of an unknown data set": (("data", "check", "nothing"), 1, ["nothing"]),
    "check of an absent data set": (("data", "check", "celeba"), 1, ["img_align_celeba"]),
    "report of nothing": (("report", "nowhere"), 1, ["nowhere"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(privbench, tmp_path: Path, name: str) -> None:
    words, expected, needles = MISTAKES[name]
    code, out, err = privbench(*words)
    said = err + out
    assert code == expected, said
    assert "Traceback" not in said
    for needle in needles:
        assert needle in said, said
    if expected == 1 and words[0] == "run":
        assert len([line for line in err.splitlines() if line.startswith("privbench: ")]) >= 1, err
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list((tmp_path / "results").rglob("*.json")) if (tmp_path / "results").exists() else True


def test_store_below_a_file_is_refused(privbench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    code, _, err = privbench(*RUN, "--budget", "smoke", "--store", str(tmp_path / "file" / "store"))
    assert code == 1
    assert "file" in err
    assert "Traceback" not in err


def test_a_record_of_a_newer_schema_is_named(privbench, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "records" / "digits-v1" / "none" / "kedmi"
    folder.mkdir(parents=True)
    (folder / f"{'0' * 64}.json").write_text(json.dumps({"schema_version": 99}))
    code, _, err = privbench("report", str(tmp_path / "results"))
    assert code == 1
    assert "99" in err
    assert "Traceback" not in err


def test_help_and_version(privbench) -> None:
    code, out, _ = privbench("--help")
    assert code == 0
    assert "run" in out
    assert "report" in out
    assert privbench("--version")[1].strip().count(".") == 2
    assert privbench()[0] == 2


def test_results_below_a_file_are_refused_before_anything_is_computed(privbench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    code, _, err = privbench(*RUN, "--results", str(tmp_path / "file" / "results"))
    assert code == 1
    assert "choose another" in err
    assert not (tmp_path / "store").exists()
