"""Help and listings start without torch and without importing a component; README's commands exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CODE = """
import sys
sys.argv = ["privbench", *{words!r}]
from privbench.benchmark.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
component = re.compile(r"torch$|privbench\\.(attacks|defenses|evaluators)\\.")
heavy = sorted(filter(component.match, sys.modules))
assert not heavy, heavy
"""


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["list"], ["list", "defenses", "--json"], ["run", "--help"]]
)
def test_nothing_heavy_is_imported(words: list[str]) -> None:
    code = "import re\n" + CODE.format(words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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
    done = subprocess.run(
        [sys.executable, "-m", "privbench", *command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for option in (word.split("=")[0] for word in words if word.startswith("--")):
        assert option in done.stdout, f"{line}: no {option}"
