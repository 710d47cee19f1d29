"""The tutorial followed by a new user: a real shell, a virtual environment, packages that pip installs from a wheel.

Slow: it runs what the page prints, with the budget that it prints. test_blocks.py runs its blocks with fewer steps.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
from helpers import blocks as code

LIMIT = 15 * 60
#: The clone that the page installs; a wheel of this checkout stands for it.
CLONE = "~/privbench"
SOURCES = ("attacks", "benchmark", "defenses", "evaluators", "__init__.py", "__main__.py", "py.typed")
FACTS = ("pyproject.toml", "README.md", "LICENSE")
#: From here on the environment sees the packages of this one, as if pip had fetched them. Its own setuptools may be
#: years old, and pip builds by it where it is told not to fetch one.
PREPARE = [
    "if python -c 'import setuptools' 2> /dev/null; then pip uninstall --quiet --yes setuptools; fi",
    "place=$(python -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))')",
    f"echo '{sysconfig.get_path('purelib')}' > $place/outer.pth",
    "printf '#!/bin/sh\\nexec python -m pytest \"$@\"\\n' > .venv/bin/pytest",
    "chmod +x .venv/bin/pytest",
]


def wheel(folder: Path) -> Path:
    """A folder with a wheel of this checkout, built from a copy."""
    for name in (*SOURCES, *FACTS):
        source = code.ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        (folder / "source").mkdir(exist_ok=True)
        copy(source, folder / "source" / name)
    words = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder / "wheels")]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *words, str(folder / "source")], check=True)
    return folder / "wheels"


def script(page: str) -> str:
    """The page as one shell script."""
    found = ["set -e"]
    for block in code.blocks(page, "docs/tutorial.md"):
        if block.title:
            found += [f"cat > {block.title} << 'END_OF_FILE'", block.text.rstrip("\n"), "END_OF_FILE"]
        elif block.language == "bash":
            ends = int(block.mode[-1]) if block.mode.startswith("exit") else 0
            text = block.text.replace(CLONE, "privbench")
            found += [f"( {text} ) || test $? = {ends}" if ends else text.rstrip("\n")]
            found += PREPARE if CLONE in block.text else []
    return "\n".join(found) + "\n"


@pytest.mark.slow
def test_from_an_empty_folder_to_the_board(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    wheels = wheel(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_FIND_LINKS": str(wheels),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
    }
    began = time.monotonic()
    done = subprocess.run(
        ["bash", "-x"],
        input=script((code.ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")),
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.monotonic() - began
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert took < LIMIT
    tutorial = home / "tutorial"
    board = (tutorial / "results" / "report" / "index.html").read_text(encoding="utf-8")
    assert "negative_label_smoothing" in board
    records = [json.loads(path.read_text("utf-8")) for path in (tutorial / "results" / "records").rglob("*.json")]
    owners = {record["cell"]["defense"]["name"]: record["cell"]["defense"]["distribution"] for record in records}
    assert owners == {
        "none": "privbench",
        "negative_label_smoothing": "privbench-negative-label-smoothing",
    }
