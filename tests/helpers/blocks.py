"""Code blocks of Markdown pages, and a session that runs them as a reader would, in order, in one folder.

A comment `<!-- test: MODE: REASON -->` right before a block selects another mode:

- `plan`: `privbench run` is replaced by `privbench plan`, everything else runs;
- `parse`: the real commands parse the command line, Python is compiled, nothing is executed;
- `skip`: nothing; only for commands that are not part of privbench;
- `exit 1`: it runs, and its last command exits with this code.

A block with a title (```` ```python title="x.py" ````) is written to that file and not executed.
"""

import ast
import contextlib
import functools
import importlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from markdown_it import MarkdownIt
from privbench.benchmark.cli.main import app
from typer.models import CommandInfo

from helpers import command_line

from .installed import refresh_registry

ROOT = Path(__file__).resolve().parents[2]
MODES = ("run", "plan", "parse", "skip", "exit 1", "exit 2")
NEEDS_REASON = ("parse", "skip")
SHELL = ("bash", "console", "sh")
LANGUAGES = (*SHELL, "python", "toml", "json", "yaml", "text")
COMMANDS = ("privbench", "pip", "pytest", "make", "python", "ruff")
_MARKER = re.compile(r"<!-- test: (?P<mode>[a-z]+(?: \d)?)(?:: (?P<reason>.*\S))? -->\s*$", re.DOTALL)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """One code block of a page."""

    page: str
    line: int
    language: str
    title: str | None
    text: str
    mode: str
    reason: str

    @property
    def location(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every Markdown page that a reader sees."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in found if "hooks" not in path.parts]


def blocks(text: str, page: str) -> list[Block]:
    """The blocks of a page in order.

    An indented block has no language; it counts as commands if it begins with one, else as text.
    """
    found = []
    tokens = MarkdownIt().enable("table").parse(text)
    for index, token in enumerate(tokens):
        if token.type not in ("fence", "code_block"):
            continue
        before = tokens[index - 1].content if index and tokens[index - 1].type == "html_block" else ""
        marker = _MARKER.search(before)
        language, _, extra = token.info.strip().partition(" ")
        if token.type == "code_block":
            language = "bash" if token.content.split()[0] in COMMANDS else "text"
        title = _TITLE.search(extra)
        mode, reason = (marker["mode"], marker["reason"] or "") if marker else ("run", "")
        found.append(Block(page, token.map[0] + 1, language, title[1] if title else None, token.content, mode, reason))
    return found


def lines(block: Block) -> list[list[str]]:
    """The commands of a block as words, without comments; in a console, the lines with a prompt."""
    text = block.text.replace("\\\n", " ")
    if block.language == "console":
        text = "\n".join(line[2:] for line in text.splitlines() if line.startswith("$ "))
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def commands(found: typer.Typer) -> Iterator[CommandInfo]:
    """Every command of the program."""
    yield from found.registered_commands
    for group in found.registered_groups:
        yield from commands(group.typer_instance)


def without_effect(function: Callable[..., object]) -> Callable[..., None]:
    """A function with the same parameters that does nothing."""

    @functools.wraps(function)
    def replacement(*args: object, **named: object) -> None:
        pass

    return replacement


class Session:
    """Runs the blocks of one page in one folder; Python blocks share their variables."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.patch = patch
        self.names: dict[str, object] = {"__name__": "__page__"}
        self.output = ""
        self.site = root / ".site"
        patch.chdir(root)
        patch.setenv("COLUMNS", "160")

    def run(self, block: Block) -> None:
        """Run a block according to its language and mode.

        Raises:
            AssertionError: the block does not work as printed.
        """
        assert block.language in LANGUAGES, f"{block.location} has an unknown language, {block.language!r}"
        assert block.mode in MODES, f"{block.location} has the unknown marker {block.mode!r}"
        if block.mode == "skip":
            return
        with self._errors_located(block):
            if block.title and block.mode != "parse":
                path = Path(block.title)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            if block.language in SHELL:
                self._shell(block)
            else:
                getattr(self, f"_{block.language}")(block)

    @contextlib.contextmanager
    def _errors_located(self, block: Block) -> Iterator[None]:
        try:
            yield
        except (Exception, SystemExit) as cause:
            raise AssertionError(f"{block.location}: {type(cause).__name__}: {cause}\n{self.output[-3000:]}") from cause

    def _shell(self, block: Block) -> None:
        commands = lines(block)
        assert commands, "the block has no command"
        for number, words in enumerate(commands, 1):
            code = int(block.mode[-1]) if block.mode.startswith("exit") and number == len(commands) else 0
            self.command(words, block.mode, code)

    def command(self, words: list[str], mode: str = "run", code: int = 0) -> None:
        """Run one command line, which must exit with `code`."""
        operators = {"|", "&&", ">", ";"} & set(words)
        assert not operators, f"{operators} is not supported; write one command per line"
        assert hasattr(self, f"_{words[0]}"), f"{words[0]!r} is not a supported command"
        if mode == "parse" and words[0] != "privbench":
            mode = "run" if words[0] == "make" else mode
            if mode == "parse":
                return
        words = [found for word in words for found in _expanded(word)]
        getattr(self, f"_{words[0]}")(words[1:], mode, code)

    def _privbench(self, words: list[str], mode: str, code: int) -> None:
        if mode == "parse" or (mode == "plan" and words[0] == "run"):
            with pytest.MonkeyPatch.context() as patch:
                for info in commands(app):
                    patch.setattr(info, "callback", without_effect(info.callback))
                self._expect(words, 0)
        if mode == "parse":
            return
        if mode == "plan" and words[0] == "run":
            words = ["plan", *words[1:]]
        self._expect(words, code)

    def _expect(self, words: list[str], code: int) -> None:
        done, out, error = command_line.run(*words)
        self.output = out + error
        assert done == code, f"privbench {shlex.join(words)} exited with {done}"

    def _cd(self, words: list[str], mode: str, code: int) -> None:
        self.patch.chdir(words[0])

    def _mkdir(self, words: list[str], mode: str, code: int) -> None:
        Path(words[-1]).mkdir(parents="-p" in words)

    def _export(self, words: list[str], mode: str, code: int) -> None:
        self.patch.setenv(*words[0].split("=", 1))

    def _cp(self, words: list[str], mode: str, code: int) -> None:
        shutil.copytree(words[-2], words[-1]) if "-r" in words else shutil.copy(*words)

    def _pip(self, words: list[str], mode: str, code: int) -> None:
        """Install a folder of this session; only check the name of privbench and its extras, which are installed."""
        assert words[0] == "install", words
        for word in words[1:]:
            name, _, extra = word.rstrip("]").partition("[")
            if name.startswith("docs/examples/"):
                shutil.copytree(ROOT / name, name)
            if (Path(name) / "pyproject.toml").is_file():
                self.install(Path(name))
            elif not word.startswith("-"):
                assert name in (".", "privbench", "~/privbench"), (
                    f"{word} is neither a folder of the session nor privbench"
                )
                project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
                known = set(project["optional-dependencies"])
                assert not extra or set(extra.split(",")) <= known, f"privbench has no extra {extra}"

    def install(self, *folders: Path) -> None:
        """Install packages with pip, without their dependencies, into a folder on the path."""
        pytest.importorskip("setuptools")
        words = ["--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "install", "--quiet", *words, "--target", str(self.site)]
        command += [str(folder.resolve()) for folder in folders]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.patch.syspath_prepend(str(self.site))
        importlib.invalidate_caches()
        refresh_registry()

    def _pytest(self, words: list[str], mode: str, code: int) -> None:
        environment = os.environ | {"PYTHONPATH": str(self.site), "OMP_NUM_THREADS": "1"}
        environment.pop("PYTEST_XDIST_WORKER", None)
        usual = ["-q", "-W", "error", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", str(self.root)]
        command = [sys.executable, "-m", "pytest", *usual, *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        self.output = done.stdout + done.stderr
        assert done.returncode == code, f"pytest exited with {done.returncode}"

    def _make(self, words: list[str], mode: str, code: int) -> None:
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert words[0] in targets, f"the Makefile has no target {words[0]}"

    def _python(self, block: Block) -> None:
        tree = ast.parse(block.text)
        if block.mode == "run" and not block.title:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(tree, block.location, "exec"), self.names)
            self.output = out.getvalue()

    def _toml(self, block: Block) -> None:
        assert tomllib.loads(block.text)

    def _json(self, block: Block) -> None:
        json.loads(block.text)

    def _yaml(self, block: Block) -> None:
        yaml = pytest.importorskip("yaml")
        assert list(yaml.safe_load_all(block.text))

    def _text(self, block: Block) -> None:
        for line in block.text.splitlines():
            assert line.split(" ")[0] not in COMMANDS, f"{line!r} is a command; set the language of the block to bash"


def _expanded(word: str) -> list[str]:
    """The paths that match a pattern, or the pattern itself if there are none, as in a shell."""
    return (sorted(map(str, Path().glob(word))) if "*" in word else []) or [word]
