"""`privbench export`: a trained target as a folder that can be passed on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from ..record import Record


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
    from ..folders import data_root, results_root, store_root

    record = _record(cell, results_root(results))
    from .. import exporting
    from ..store import Store

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
    from ..errors import IncompatibleRecordError, MissingDataError
    from ..exporting import choose
    from ..records import load_records

    path = Path(cell).expanduser()
    is_path = path.exists() or not re.fullmatch("[0-9a-f]{4,64}", cell)
    records = load_records(path if is_path else results)
    found = dict(zip(records.paths, records.items, strict=True))
    if not is_path:
        found = {file: record for file, record in found.items() if _has(record, cell)}
    if not found:
        if is_path and records.problems:
            raise IncompatibleRecordError(records.problems[0])
        where = f"a record in {path}" if is_path else f"the beginning of a key in {results}"
        raise MissingDataError(f"expected CELL to be {where}, got {cell!r}; run the cell first with `privbench run`")
    return choose(found, cell)


def _has(record: Record, key: str) -> bool:
    target = record.artifacts.get("target")
    return record.key.startswith(key) or (target is not None and target.key.startswith(key))
