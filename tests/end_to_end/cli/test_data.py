"""`privbench data prepare|check`: output, exit codes, messages."""

import json
import subprocess
import sys

import pytest
from helpers import command_line


@pytest.fixture
def data(monkeypatch):
    """Run `privbench data ...`."""
    monkeypatch.delenv("PRIVBENCH_DATA", raising=False)
    return lambda *words: command_line.run("data", *words)


def test_embedded_data_set_is_complete(data, tmp_path):
    result = data("check", "digits", "--data", str(tmp_path))
    assert (result.code, result.out) == (0, f"digits is complete in {tmp_path}\n")
    result = data("prepare", "digits", "--data", str(tmp_path))
    assert (result.code, result.out) == (0, f"digits is ready in {tmp_path}\n")
    assert result.err == f"preparing digits in {tmp_path}\n"


def test_each_problem_is_a_line_and_the_exit_code_is_one(data, tmp_path):
    result = data("check", "mnist", "--data", str(tmp_path))
    assert result.code == 1
    assert result.err == ""
    lines = result.out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(
        f"{tmp_path}/MNIST/raw/train-images-idx3-ubyte is missing: run `privbench data prepare mnist`"
    )


@pytest.mark.parametrize(("name", "code", "count"), [("digits", 0, 0), ("cifar10", 1, 6), ("celeba", 1, 2)])
def test_json(data, tmp_path, name, code, count):
    result = data("check", name, "--data", str(tmp_path), "--json")
    assert result.code == code
    found = json.loads(result.out)
    assert (found["dataset"], found["root"], len(found["problems"])) == (name, str(tmp_path), count)


def test_folder_comes_from_the_environment_unless_given(data, tmp_path, monkeypatch):
    monkeypatch.setenv("PRIVBENCH_DATA", str(tmp_path / "named"))
    assert json.loads(data("check", "digits", "--json").out)["root"] == str(tmp_path / "named")
    assert json.loads(data("check", "digits", "--json", "--data", tmp_path).out)["root"] == str(tmp_path)
    monkeypatch.setenv("PRIVBENCH_DATA", "")
    assert json.loads(data("check", "digits", "--json").out)["root"].endswith("data")


def test_errors_are_one_sentence(tmp_path):
    assert "did you mean 'mnist'" in command_line.refusal("data", "check", "mnits")
    code, _, err = command_line.run("data", "prepare", "celeba", "--data", tmp_path)
    assert code == 1
    assert err.splitlines()[-1].startswith("privbench: ")


def test_importing_the_command_is_light():
    code = "import sys, privbench.benchmark.cli.data; print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
