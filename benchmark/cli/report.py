"""`privbench report`: tables and HTML leaderboards of records."""

from __future__ import annotations

import contextlib
import gc
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import InvalidConfigurationError, MissingDataError
from . import options
from .output import console, echo, print_problems, survive_encoding, write_output
from .record_arguments import exit_if_unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..analysis.record_set import Records

Format = Literal["console", "html", "md", "csv", "latex"]
_PAGES = (".html", ".htm")


def report(
    results: Annotated[
        Path | None, typer.Argument(help="Folder of results, or one record. [default: PRIVBENCH_RESULTS or ./results]")
    ] = None,
    form: Annotated[Format, typer.Option("--format", "-f", help="Format of the report.")] = "console",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; html: folder to write. [html: report in the results; --single: report.html]",
        ),
    ] = None,
    single: Annotated[bool, typer.Option("--single", help="html: write one file instead of a folder.")] = False,
    with_private_images: Annotated[
        bool,
        typer.Option("--with-private-images", help="html: also show private images; reads the data sets."),
    ] = False,
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
) -> None:
    """Show records as tables or as an HTML leaderboard."""
    from ..analysis.record_set import load_records
    from ..core.paths import results_root
    from ..report.formatting import sanitize

    survive_encoding()
    _require_html(form, {"--single": single, "--with-private-images": with_private_images})
    root = results_root(results)
    folder = root.parent if root.is_file() else root
    path = _html_path(output, folder, single) if form == "html" else output
    with _without_garbage_collection():
        records = load_records(root)
        if not records and not records.problems:
            raise MissingDataError(f"expected {root} to contain records, found none; make one with `privbench run`")
        if records and form == "html":
            assert path is not None
            private = _private_images(records, data, store) if with_private_images else {}
            _write_html(records, path, single, private)
        elif records:
            _write_table(records, form, output)
    print_problems(map(sanitize, records.left_out))
    exit_if_unreadable(records.problems)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Disable garbage collection: records have no cycles, and searching for some takes a tenth of the time."""
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


def _html_path(output: Path | None, folder: Path, single: bool) -> Path:
    """The file or folder to write, checked before anything is read."""
    from ..report.html.output_folder import require_replaceable

    if single:
        path = output or folder / "report.html"
        if path.suffix.lower() not in _PAGES:
            raise InvalidConfigurationError(f"expected --output to end in .html with --single, got {path}")
        return path
    path = output or folder / "report"
    if path.suffix.lower() in _PAGES:
        raise InvalidConfigurationError(
            f"expected --output to name a folder, got {path}; add --single for one file, or remove the ending"
        )
    require_replaceable(path)
    return path


def _private_images(records: Records, data: Path | None, store: str | None) -> dict[str, bytes | str]:
    from ..core.paths import data_root, store_root
    from ..report.html.private_images import private_pictures
    from ..store.store import Store

    found = private_pictures(records, Store(store_root(store)), data_root(data))
    shown = sum(isinstance(each, bytes) for each in found.values())
    echo(
        f"privbench: the report contains private images of {shown} of {len(found)} cells; do not publish it without "
        "the consent of the people in them",
        err=True,
    )
    return found


def _write_html(records: Records, path: Path, single: bool, private: Mapping[str, bytes | str]) -> None:
    from ..report.html.output_folder import write_report
    from ..report.html.pages import render_folder, render_single_page

    if single:
        write_output(path, render_single_page(records, private).encode(), "--output")
    else:
        write_report(path, render_folder(records, private))
        echo(str(path / "index.html"))


def _write_table(records: Records, form: Format, output: Path | None) -> None:
    from ..report.tables import latex, tables

    if form == "console" and output is None:
        console().print(tables.console(records))
        return
    text = {"console": _console_text, "md": tables.markdown, "csv": tables.csv, "latex": latex.latex}[form](records)
    if output is None:
        echo(text, nl=False)
        return
    write_output(output, text.encode(), "--output")


def _console_text(records: Records) -> str:
    """The console table as text, 100 characters wide."""
    from ..report.tables import tables

    file = io.StringIO()
    console(file=file, width=100).print(tables.console(records))
    return file.getvalue()
