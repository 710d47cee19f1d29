"""`privbench report`."""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import MissingDataError, StorageError

if TYPE_CHECKING:
    from ..records import Records

Format = Literal["console", "html", "md", "csv", "latex"]
_ASCII = {"↑": "^", "↓": "v", "…": "..."}


def report(
    results: Annotated[
        Path | None, typer.Argument(help="Folder of results, or one record. [default: PRIVBENCH_RESULTS or ./results]")
    ] = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="What to make.")] = "console",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file. [html: report/index.html in the results]")
    ] = None,
) -> None:
    """Show results as tables or as one self-contained HTML page; reads records alone and runs nothing."""
    from ..folders import results_root
    from ..records import load_records

    survive_encoding()
    root = results_root(results)
    records = load_records(root)
    if not records and not records.problems:
        raise MissingDataError(f"expected {root} to have records, found none; make one with `privbench run`")
    if records:
        _make(records, form, output, root)
    _complain(records)


def survive_encoding() -> None:
    """Print what the terminal's encoding lacks in its nearest form, rather than fail."""

    def nearest(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        text = error.object[error.start : error.end]
        return "".join(_ASCII.get(character, "?") for character in text), error.end

    codecs.register_error("privbench.nearest", nearest)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="privbench.nearest")


def _make(records: Records, form: Format, output: Path | None, root: Path) -> None:
    from ..report import tables

    if form == "console" and output is None:
        from rich.console import Console

        Console().print(tables.console(records))
        return
    if form == "html":
        from ..report.page import html

        folder = root if root.is_dir() else root.parent
        output = output or folder / "report" / "index.html"
        text = html(records)
    else:
        text = {"console": _printed, "md": tables.markdown, "csv": tables.csv, "latex": tables.latex}[form](records)
    if output is None:
        typer.echo(text, nl=False)
        return
    _write(output, text)
    typer.echo(str(output))


def _printed(records: Records) -> str:
    """The console table as text, 100 characters wide."""
    from rich.console import Console

    from ..report import tables

    file = io.StringIO()
    Console(file=file, width=100).print(tables.console(records))
    return file.getvalue()


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(path)
    except OSError as cause:
        reason = cause.strerror or str(cause)
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {reason}; choose another --output") from cause


def _complain(records: Records) -> None:
    from ..report.wording import plain

    for problem in records.problems:
        typer.echo(f"privbench: {plain(problem)}", err=True)
    if records.problems:
        raise typer.Exit(1)
