"""Plants the mistakes of `mistakes/*.toml` one at a time and prints which of them no test notices: `make mutate`.

A mistake replaces a piece of text that occurs once in its file. It is noticed if the tests that it names fail, or do
not end within `--limit` seconds. Each mistake is planted in a copy of the repository, in a process of its own, which
starts with torch already imported. First every list of tests runs once without a mistake, and has to pass.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import os
import py_compile
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[3]
LISTS = Path(__file__).parent / "mistakes"
BEGIN, END = "<!-- mistakes: begin -->", "<!-- mistakes: end -->"
#: Share of the mistakes that the tests have to notice.
NOTICED = 0.95
#: Packages that tests import and mistakes do not change; a new process does not import them again.
PRELOADED = (
    "torch", "torch._dynamo", "torchvision", "scipy.stats", "scipy.linalg", "sklearn.metrics", "pandas", "pydantic",
    "safetensors.torch", "PIL.Image", "typer", "rich.console", "rich.progress", "pytest",
)  # fmt: skip


@dataclass(frozen=True)
class Mistake:
    """A change of one file and the tests that should notice it."""

    area: str
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def plant(self, root: Path) -> str:
        """Change the file below `root` and return its former text.

        Raises:
            ValueError: the text is not in the file exactly once, or what results is not Python.
        """
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        if (count := text.count(self.old)) != 1 or self.old == self.new:
            raise ValueError(f"mistake {self.name}: `old` occurs {count} times in {self.file}, not once")
        changed = text.replace(self.old, self.new)
        try:
            compile(changed, self.file, "exec")
        except SyntaxError as error:
            raise ValueError(f"mistake {self.name}: {self.file} is not Python afterwards: {error}") from None
        path.write_text(changed, encoding="utf-8")
        return text


@dataclass(frozen=True)
class Result:
    """What the tests said: `noticed`, `survived`, or why they said nothing."""

    mistake: Mistake
    verdict: str
    seconds: float
    log: str

    @property
    def decided(self) -> bool:
        return self.verdict in ("noticed", "survived")


def read_mistakes() -> list[Mistake]:
    """All mistakes, by area (the name of their file) and in the order of the file."""
    return [
        Mistake(path.stem, entry["name"], entry["file"], entry["old"], entry["new"], tuple(entry["tests"]))
        for path in sorted(LISTS.glob("*.toml"))
        for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mistake"]
    ]


def copy_repository(root: Path) -> None:
    """Copy the files that git knows or would add, and compile them so that a change of the source is always seen."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    checked = py_compile.PycInvalidationMode.CHECKED_HASH
    compileall.compile_dir(root, quiet=2, invalidation_mode=checked)


def start_tests(root: Path, tests: Sequence[str], log: Path) -> int:
    """Run the tests below `root` in a child of this process and return its number."""
    child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(root)
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(root.parent))
        os.environ["PYTHONPATH"] = str(root.parent)
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        import pytest

        status = int(pytest.main(["-x", "-p", "no:cacheprovider", "-p", "no:cov", *tests]))
    except BaseException as error:  # the child must never return into the loop of its parent
        print(f"{type(error).__name__}: {error}", flush=True)
        status = 3
    sys.stdout.flush()
    os._exit(status)


def run_mistakes(
    mistakes: Iterable[Mistake], folder: Path, jobs: int, limit: float, show: Callable[[Result], None]
) -> list[Result]:
    """Plant each mistake in one of `jobs` copies of the repository and run its tests there.

    An empty `file` plants nothing. Results come in the order in which the tests end.
    """
    free = [folder / str(number) / "privbench" for number in range(jobs)]
    for root in free:
        copy_repository(root)
    waiting = iter(mistakes)
    running: dict[int, tuple[Mistake, Path, str, float]] = {}
    results: list[Result] = []

    def finish(child: int, verdict: str) -> None:
        mistake, root, before, began = running.pop(child)
        if mistake.file:
            (root / mistake.file).write_text(before, encoding="utf-8")
        free.append(root)
        log = (root.parent / "log").read_text(encoding="utf-8", errors="replace")
        results.append(Result(mistake, verdict, time.monotonic() - began, log))
        show(results[-1])

    while True:
        while free and (mistake := next(waiting, None)):
            root = free.pop()
            before = mistake.plant(root) if mistake.file else ""
            child = start_tests(root, mistake.tests, root.parent / "log")
            running[child] = mistake, root, before, time.monotonic()
        if not running:
            return results
        for child in list(running):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                finish(child, {0: "survived", 1: "noticed"}.get(code, f"undecided: pytest ended with code {code}"))
            elif time.monotonic() - running[child][3] > limit:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                finish(child, "noticed")
        time.sleep(0.02)


def without_mistake(mistakes: Sequence[Mistake]) -> Iterator[Mistake]:
    """Each list of tests once, with nothing planted."""
    for tests in sorted({mistake.tests for mistake in mistakes}):
        yield Mistake("", " ".join(tests), "", "", "", tests)


def markdown(results: Sequence[Result]) -> str:
    """A table of the areas, and the survivors by name."""
    lines = ["| area | planted | noticed | survived |", "|---|---:|---:|---:|"]
    rows = [
        (area, [r for r in results if r.mistake.area == area]) for area in sorted({r.mistake.area for r in results})
    ]
    for area, found in [*rows, ("all", list(results))]:
        noticed = sum(result.verdict == "noticed" for result in found)
        lines.append(f"| {area} | {len(found)} | {noticed} | {len(found) - noticed} |")
    survivors = sorted(f"`{result.mistake.name}`" for result in results if result.verdict != "noticed")
    lines += ["", f"Survivors: {', '.join(survivors) or 'none'}."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="areas or mistakes; default: all")
    parser.add_argument("--jobs", type=int, default=2, help="mistakes at the same time")
    parser.add_argument("--limit", type=float, default=300, help="seconds for the tests of a mistake")
    parser.add_argument("--folder", type=Path, help="folder for the copies; default: a temporary one")
    parser.add_argument("--show", action="store_true", help="print the tests' output for survivors")
    parser.add_argument("--write", type=Path, help="Markdown file whose part between the two marks is replaced")
    chosen = parser.parse_args()
    mistakes = read_mistakes()
    if chosen.only:
        unknown = set(chosen.only) - {m.name for m in mistakes} - {m.area for m in mistakes}
        if unknown:
            parser.error(f"no area or mistake is called {', '.join(sorted(unknown))}")
        mistakes = [m for m in mistakes if {m.area, m.name} & set(chosen.only)]
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in PRELOADED:
        importlib.import_module(name)

    def show(result: Result) -> None:
        name = f"{result.mistake.area}: {result.mistake.name}" if result.mistake.area else result.mistake.name
        print(f"{result.verdict:<9} {result.seconds:5.1f} s  {name}", flush=True)
        if not result.decided or (chosen.show and result.verdict == "survived"):
            print(result.log, flush=True)

    with tempfile.TemporaryDirectory(prefix="mistakes-", dir=chosen.folder) as folder:
        print("Tests without a mistake:", flush=True)
        sound = {
            result.mistake.tests: result.verdict == "survived"
            for result in run_mistakes(
                without_mistake(mistakes), Path(folder) / "sound", chosen.jobs, chosen.limit,
                lambda result: show(replace(result, verdict="passed" if result.verdict == "survived" else "failed")),
            )
        }  # fmt: skip
        if failing := [" ".join(tests) for tests, passed in sound.items() if not passed]:
            sys.exit(f"These tests fail without a mistake: {', '.join(failing)}.")
        print("Mistakes:", flush=True)
        results = run_mistakes(mistakes, Path(folder) / "planted", chosen.jobs, chosen.limit, show)
    table = markdown(results)
    print(f"\n{table}")
    if chosen.write:
        text = chosen.write.read_text(encoding="utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        chosen.write.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
    if undecided := [result.mistake.name for result in results if not result.decided]:
        sys.exit(f"Nothing is known about these mistakes: {', '.join(undecided)}.")
    share = sum(result.verdict == "noticed" for result in results) / len(results)
    if share < NOTICED:
        sys.exit(f"The tests noticed {share:.0%} of the mistakes; at least {NOTICED:.0%} are required.")


if __name__ == "__main__":
    main()
