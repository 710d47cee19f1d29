"""`privbench export`: a trained target as a folder that can be passed on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from ..records.record import Record


def export(
    cell: Annotated[
        str,
        typer.Argument(metavar="CELL", help="A record, a folder of them, or the beginning of a key in the results."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; an earlier export is replaced.")],
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
    results: options.ResultsFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest.")] = False,
) -> None:
    """Write the target behind a record as safetensors with a manifest.

    `privbench.load_target(DIR)` loads it, here or elsewhere. A key is that of a record or of its target.
    """
    from ..core.paths import data_root, results_root, store_root

    record = _record(cell, results_root(results))
    from ..exports import export as exporting
    from ..store.store import Store

    manifest = exporting.export(record, folder.expanduser(), Store(store_root(store)), data_root(data))
    if as_json:
        typer.echo(manifest.text(), nl=False)
        return
    typer.echo(
        f"{manifest.title}: {manifest.test_accuracy:.2%} right of {manifest.n} test images, "
        f"{manifest.weights.bytes:,} bytes, SHA-256 {manifest.weights.sha256}\n{folder}"
    )


def _record(cell: str, results: Path) -> Record:
    """The record that CELL means; several of one target are one.

    Raises:
        PrivbenchError: there is none, or they are of several targets.
    """
    from ..exports.export import choose

    found = options.records_of("CELL", cell, results)
    return choose(dict(zip(found.paths, found.items, strict=True)), cell)
