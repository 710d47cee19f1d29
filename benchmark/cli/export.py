"""`privbench export`: write a trained target to a folder that can be shared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .output import echo
from .record_arguments import find_records

if TYPE_CHECKING:
    from ..records.record import Record


def export(
    cell: Annotated[
        str,
        typer.Argument(metavar="CELL", help="A record, a folder of records, or the beginning of a key in the results."),
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; an earlier export is replaced.")],
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
    results: options.ResultsFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Write the target of a record as safetensors with a manifest.

    `privbench.load_target(DIR)` loads it on any machine. A key is the key of a record or of its target.
    """
    from ..core.paths import data_root, results_root, store_root

    record = _record(cell, results_root(results))
    from ..exports import export as exporting
    from ..store.store import Store

    manifest = exporting.export(record, folder.expanduser(), Store(store_root(store)), data_root(data))
    if as_json:
        echo(manifest.text(), nl=False)
        return
    echo(
        f"{manifest.title}: accuracy {manifest.test_accuracy:.2%} on {manifest.n} test images, "
        f"{manifest.weights.bytes:,} bytes, SHA-256 {manifest.weights.sha256}\n{folder}"
    )


def _record(cell: str, results: Path) -> Record:
    """A record that CELL means; all records of one target are equivalent.

    Raises:
        PrivbenchError: there is none, or they have several targets.
    """
    from ..exports.export import choose

    found = find_records("CELL", cell, results)
    return choose(dict(zip(found.paths, found.items, strict=True)), cell)
