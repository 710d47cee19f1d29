"""`privbench report`."""

from __future__ import annotations

import codecs
import contextlib
import gc
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import InvalidConfigurationError, MissingDataError, StorageError
from . import options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..analysis.record_set import Records

Format = Literal["console", "html", "md", "csv", "latex"]
_PAGES = (".html", ".htm")
_ASCII = {"↑": "^", "↓": "v", "…": "..."}


def report(
    results: Annotated[
        Path | None, typer.Argument(help="Folder of results, or one record. [default: PRIVBENCH_RESULTS or ./results]")
    ] = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="What to make.")] = "console",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write to this file; html: to this folder. [html: report in the results; --single: report.html]",
        ),
    ] = None,
    single: Annotated[bool, typer.Option("--single", help="html: one file in place of a folder.")] = False,
    with_private_images: Annotated[
        bool,
        typer.Option("--with-private-images", help="html: show private images too; reads the data sets."),
    ] = False,
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
) -> None:
    """Show results as tables or as an HTML leaderboard; reads records alone and runs nothing."""
    from ..analysis.record_set import load_records
    from ..core.paths import results_root

    survive_encoding()
    _require_html(form, {"--single": single, "--with-private-images": with_private_images})
    root = results_root(results)
    folder = root.parent if root.is_file() else root
    place = _place(output, folder, single) if form == "html" else output
    with _uncollected():
        records = load_records(root)
        if not records and not records.problems:
            raise MissingDataError(f"expected {root} to have records, found none; make one with `privbench run`")
        if records and form == "html":
            assert place is not None
            private = _private_images(records, data, store) if with_private_images else {}
            _make_html(records, place, single, private)
        elif records:
            _make(records, form, output)
    _complain(records)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection: thousands of records hold no cycles, and looking for some takes a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _require_html(form: Format, given: Mapping[str, bool]) -> None:
    for option, is_given in given.items():
        if is_given and form != "html":
            raise InvalidConfigurationError(f"expected {option} with --format html, got --format {form}")


def _place(output: Path | None, folder: Path, single: bool) -> Path:
    """The file or folder to write, decided before anything is read."""
    from ..report.html.output_folder import check

    if single:
        place = output or folder / "report.html"
        if place.suffix.lower() not in _PAGES:
            raise InvalidConfigurationError(f"expected --output to end in .html with --single, got {place}")
        return place
    place = output or folder / "report"
    if place.suffix.lower() in _PAGES:
        raise InvalidConfigurationError(
            f"expected --output to name a folder, got {place}; add --single for one file, or leave the ending out"
        )
    check(place)
    return place


def _private_images(records: Records, data: Path | None, store: str | None) -> dict[str, bytes | str]:
    from ..core.paths import data_root, store_root
    from ..report.html.private_images import find
    from ..store.store import Store

    found = find(records, Store(store_root(store)), data_root(data))
    shown = sum(isinstance(each, bytes) for each in found.values())
    typer.echo(
        f"privbench: the report holds private images, of {shown} of {len(found)} cells; do not publish it without the "
        "consent of the people in them",
        err=True,
    )
    return found


def _make_html(records: Records, place: Path, single: bool, private: Mapping[str, bytes | str]) -> None:
    from ..report.html import board
    from ..report.html import output_folder as folder

    if single:
        _write(place, board.single(records, private))
        typer.echo(str(place))
    else:
        folder.replace(place, board.folder(records, private))
        typer.echo(str(place / "index.html"))


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


def _make(records: Records, form: Format, output: Path | None) -> None:
    from ..report.tables import latex, tables

    if form == "console" and output is None:
        from rich.console import Console

        Console().print(tables.console(records))
        return
    text = {"console": _printed, "md": tables.markdown, "csv": tables.csv, "latex": latex.latex}[form](records)
    if output is None:
        typer.echo(text, nl=False)
        return
    _write(output, text)
    typer.echo(str(output))


def _printed(records: Records) -> str:
    """The console table as text, 100 characters wide."""
    from rich.console import Console

    from ..report.tables import tables

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
    from ..report.formatting import plain

    for problem in records.problems:
        typer.echo(f"privbench: {plain(problem)}", err=True)
    if records.problems:
        raise typer.Exit(1)
