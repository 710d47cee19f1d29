"""Output that commands share: JSON, tables, problems and files."""

import codecs
import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer

_ASCII = {"↑": "^", "↓": "v", "…": "..."}


def print_json(value: Any) -> None:
    """Print a value as JSON; other types than those of JSON are printed as text."""
    typer.echo(json.dumps(value, indent=1, default=str))


def print_table(titles: Sequence[str], rows: Iterable[Sequence[Any]], no_wrap: Sequence[str] = ()) -> None:
    """Print a table of strings and rich texts.

    Args:
        titles: of the columns.
        rows: one value for each column.
        no_wrap: titles of columns that stay on one line.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(*(Column(title, no_wrap=title in no_wrap, overflow="fold") for title in titles))
    for row in rows:
        table.add_row(*(Text(value) if isinstance(value, str) else value for value in row))
    Console().print(table)


def styled(text: str, style: str) -> Any:
    """A text with a style, such as `green`, for a cell of a table."""
    from rich.text import Text

    return Text(text, style=style)


def print_problems(problems: Iterable[str]) -> None:
    """Print problems to stderr; indented lines continue the line before."""
    for problem in problems:
        typer.echo(problem if problem.startswith(" ") else f"privbench: {problem}", err=True)


def write_output(path: Path, content: bytes, option: str) -> None:
    """Write a file in place of an earlier one, and print its path.

    Raises:
        StorageError: it cannot be written; the message suggests another value of `option`.
    """
    from ..files.atomic import storage_errors, write_file

    with storage_errors(path, otherwise=f"choose another {option}"):
        write_file(path, content)
    typer.echo(str(path))


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
