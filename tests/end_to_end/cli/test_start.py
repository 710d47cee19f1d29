"""Help and listings import neither torch nor a component; the commands of the README exist."""

import re
from pathlib import Path

import pytest
from helpers import command_line

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["list"], ["list", "defenses", "--json"], ["run", "--help"]]
)
def test_nothing_heavy_is_imported(words: list[str]) -> None:
    heavy = re.compile(r"torch$|privbench\.(attacks|defenses|evaluators)\.")
    assert not sorted(filter(heavy.match, command_line.imported_modules(*words)))


def commands() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    return sorted({line.split("#")[0].strip() for line in re.findall(r"^    (privbench .*)$", text, re.MULTILINE)})


def test_there_are_commands() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize("line", commands())
def test_commands_of_the_readme_have_their_options(line: str) -> None:
    words = re.sub(r"\[[^]]*\]", "", line).split()[1:]
    command = [word for word in words[:2] if re.fullmatch(r"[a-z]+", word)]
    command = command[:1] if command[0] not in ("data", "store", "paper") else command
    shown = command_line.output(*command, "--help")
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert option in shown, f"{line}: no {option}"


@pytest.mark.parametrize("group", [[], ["paper"], ["figure"], ["data"], ["weights"], ["zoo"], ["store"]])
def test_first_sentences_of_commands_are_not_cut_off(group: list[str]) -> None:
    listed = command_line.output(*group, "--help").partition("Commands:")[2].splitlines()
    assert len(listed) > 2
    assert not [line for line in listed if line.endswith("...")]


def options_of(command: str) -> set[str]:
    return set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", command_line.output(command, "--help"), re.MULTILINE))


def test_plan_takes_every_option_of_run() -> None:
    assert len(options_of("run")) > 15
    assert options_of("run") == options_of("plan")


def test_options_on_how_to_compute_do_not_change_a_plan(privbench: command_line.Command) -> None:
    words = ["plan", "--defense", "none", "--attack", "gmi", "--budget", "smoke", "--json"]
    options = ["--jobs", 2, "--runner", "ray", "--address", "host:1", "--stage-timeout", 5, "--device", "cuda"]
    code, out, err = privbench(*words, *options)
    assert (code, err) == (0, "")
    assert out == privbench(*words).out
    assert privbench(*words, "--stage-timeout", 0).code == 2
    assert privbench(*words, "--runner", "slurm").code == 2
