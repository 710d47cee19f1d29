"""The kept list of mistakes fits the code: `make mutate` can plant each of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mutate
import pytest


@pytest.fixture(scope="module")
def mistakes() -> list[mutate.Mistake]:
    return mutate.read_mistakes()


def test_every_mistake_can_be_planted(mistakes, tmp_path):
    for mistake in mistakes:
        (tmp_path / mistake.file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / mistake.file).write_text((mutate.ROOT / mistake.file).read_text(encoding="utf-8"), encoding="utf-8")
        mistake.plant(tmp_path)


def test_every_mistake_has_a_name_of_its_own_and_tests_that_exist(mistakes):
    names = [mistake.name for mistake in mistakes]
    assert len(names) == len(set(names))
    assert all(mistake.tests for mistake in mistakes)
    files = {test.partition("::")[0] for mistake in mistakes for test in mistake.tests}
    assert [file for file in sorted(files) if not (mutate.ROOT / file).is_file()] == []


#: Prints the verdicts on the mistakes in the first argument; its pytest is not the one that runs this file.
SCRIPT = """
import json, sys
from pathlib import Path
import mutate
mutate.ROOT = Path(sys.argv[2])
tests = ("tests/test_double.py",)
mistakes = [mutate.Mistake("", new, "double.py", "return 2 * x", new, tests) for new in json.loads(sys.argv[1])]
results = mutate.run_mistakes(mistakes[:1], Path(sys.argv[3]) / "hangs", 1, 1, lambda result: None)
results += mutate.run_mistakes(mistakes[1:], Path(sys.argv[3]), 2, 250, lambda result: None)
print(json.dumps({result.mistake.name: result.verdict for result in results}))
"""


def test_a_mistake_is_noticed_only_if_its_tests_fail(tmp_path):
    root, copies = tmp_path / "source", tmp_path / "copies"
    (root / "tests").mkdir(parents=True)
    (root / "double.py").write_text("def double(x):\n    return 2 * x\n")
    (root / "tests" / "test_double.py").write_text(
        "from privbench.double import double\n\n\ndef test_double():\n    assert double(3) == 6\n"
    )
    (root / "pyproject.toml").write_text('[tool.pytest.ini_options]\naddopts = ["--import-mode=importlib", "-q"]\n')
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    verdicts = {
        "while True: pass": "noticed",
        "return 3 * x": "noticed",
        "return x * 2": "survived",
        "import os; os._exit(4)": "undecided: pytest ended with code 4",
    }
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(verdicts)), str(root), str(copies)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(Path(mutate.__file__).parent)}, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == verdicts
    for number in range(2):
        assert (copies / str(number) / "privbench" / "double.py").read_text() == (root / "double.py").read_text()
