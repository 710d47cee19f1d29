"""The command line for tests: in this process, in a process of its own, and what it imports."""

import contextlib
import io
import json
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
from privbench.benchmark.cli.main import main


class Result(NamedTuple):
    """Exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


def run(*words: object) -> Result:
    """Run `privbench WORDS` in this process."""
    code, out, err = 0, io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["privbench", *map(str, words)])
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
    return Result(code, out.getvalue(), err.getvalue())


def output(*words: object) -> str:
    """Standard output of a command that must succeed."""
    result = run(*words)
    assert result.code == 0, result.err
    return result.out


def refusal(*words: object) -> str:
    """The message of a command that must fail with exit code 1, one line and no output."""
    code, out, err = run(*words)
    assert (code, out) == (1, ""), err
    assert err.startswith("privbench: ")
    assert err.count("\n") == 1, err
    return err.removeprefix("privbench: ").rstrip("\n")


class Waiting:
    """A command in a process of its own, which has imported everything and runs it as often as it is told.

    Args:
        words: of the command.
        prepare: statements that the process executes first.
    """

    _PROGRAM = """
import contextlib, io, json, sys
from privbench.benchmark.cli.main import main
sys.argv = ["privbench", *sys.argv[1:]]
print("ready", flush=True)
for line in sys.stdin:
    code, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""

    def __init__(self, *words: object, prepare: str = "") -> None:
        command = [sys.executable, "-c", prepare + self._PROGRAM, *map(str, words)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout and self._process.stdout.readline() == "ready\n"

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def start(self) -> None:
        """Start the command."""
        assert self._process.stdin
        self._process.stdin.write("run\n")
        self._process.stdin.flush()

    def result(self) -> Result:
        """The result of the command that was started last."""
        assert self._process.stdout
        return Result(*json.loads(self._process.stdout.readline()))


def imported_modules(*words: object) -> set[str]:
    """Modules that a command, which must succeed, imports in a new process."""
    program = (
        f"import sys; sys.argv = ['privbench', *{[str(word) for word in words]!r}]\n"
        "from privbench.benchmark.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())
