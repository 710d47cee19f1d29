"""Output of all commands: texts, JSON, tables, problems, log lines and files.

Names in it may come from files that anybody wrote. What would control the terminal is replaced here, in one place.
"""

from __future__ import annotations

import codecs
import io
import json
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..core.text import printable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleRenderable

_ASCII = {"↑": "^", "↓": "v", "…": "..."}


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text and a newline, to stdout or stderr."""
    typer.echo(printable(text), err=err, nl=nl)


def console(**options: Any) -> Console:
    """Return a console for tables and progress, which uses its own control characters and replaces those of texts.

    Args:
        options: of `rich.console.Console`.
    """
    from rich import console as rich

    class _Shown:
        """A renderable whose texts are printable."""

        def __init__(self, content: ConsoleRenderable) -> None:
            self._content = content

        def __rich_console__(self, made: Console, given: rich.ConsoleOptions) -> rich.RenderResult:
            for segment in made.render(self._content, given):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    class _Hook(rich.RenderHook):
        def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
            return [_Shown(each) for each in renderables]

    found = rich.Console(**options)
    found.push_render_hook(_Hook())
    return found


class LogFormatter(logging.Formatter):
    """Formats a message as one line, and the traceback of `--debug` below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message and the traceback, without characters that control a terminal."""
        message = record.getMessage().replace("\n", " ")
        details = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return printable(message + details)


def print_json(value: Any) -> None:
    """Print a value as JSON; other types than those of JSON are printed as text."""
    echo(json.dumps(value, indent=1, default=str))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[Any]], no_wrap: Sequence[str] = ()) -> None:
    """Print a table of strings and rich texts.

    Args:
        titles: of the columns.
        rows: one value for each column.
        no_wrap: titles of columns that stay on one line.
    """
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(title, no_wrap=title in no_wrap, overflow="fold") for title in titles))
    for row in rows:
        table.add_row(*(Text(value) if isinstance(value, str) else value for value in row))
    console().print(table)


def styled(text: str, style: str) -> Any:
    """A text with a style, such as `green`, for a cell of a table."""
    from rich.text import Text

    return Text(text, style=style)


def print_problems(problems: Iterable[str]) -> None:
    """Print problems to stderr; indented lines continue the line before."""
    for problem in problems:
        echo(problem if problem.startswith(" ") else f"privbench: {problem}", err=True)


def write_output(path: Path, content: bytes, option: str) -> None:
    """Write a file in place of an earlier one, and print its path.

    Raises:
        StorageError: it cannot be written; the message suggests another value of `option`.
    """
    from ..files.atomic import storage_errors, write_file

    with storage_errors(path, otherwise=f"choose another {option}"):
        write_file(path, content)
    echo(str(path))


def survive_encoding() -> None:
    """Replace characters that the terminal's encoding lacks by similar ones, instead of failing."""

    def nearest(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        text = error.object[error.start : error.end]
        return "".join(_ASCII.get(character, "?") for character in text), error.end

    codecs.register_error("privbench.nearest", nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="privbench.nearest")
