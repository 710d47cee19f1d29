"""`privbench submit`: records and the evidence behind their scores, as a folder for review."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.text import count
from ..errors import InvalidConfigurationError
from . import options
from .output import echo
from .record_arguments import find_records

if TYPE_CHECKING:
    from ..analysis.record_set import Records
    from ..records.record import Record

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")


def submit(
    record: Annotated[
        list[str], typer.Argument(metavar="RECORD...", help="Records, folders of records, or beginnings of keys.")
    ],
    contact: Annotated[str, typer.Option("--contact", help="Published contact, such as an e-mail address.")],
    paper: Annotated[str, typer.Option("--paper", help="Title or URL of the publication, or its planned title.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the submission. [default: DEFENSE-HASH]")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder to write. [default: results/submissions/NAME]")
    ] = None,
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
    results: options.ResultsFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print submission.json.")] = False,
) -> None:
    """Bundle records and their evidence in a folder for review.

    The folder contains reconstructions, predictions and hashes, but no weights, code or private images. `privbench
    verify FOLDER` checks it on any machine.
    """
    from ..core.paths import data_root, results_root, store_root

    found = _records(record, results_root(results))
    folder = (output or results_root(results) / "submissions" / _name(name, found)).expanduser()
    import torch

    from ..pipeline.session import Session
    from ..store.store import Store
    from ..submissions.bundle import write_submission

    session = Session(Store(store_root(store)), data_root(data), torch.device("cpu"))
    index = write_submission(found, folder, session, contact=contact, paper=paper)
    if as_json:
        echo(index.text(), nl=False)
        return
    size = sum(facts.bytes for facts in index.files.values())
    counts = f"{count(len(index.records), 'record')}, {count(len(index.files), 'file')}, {size:,} bytes"
    echo(f"{counts}\n{folder}")


def _records(arguments: list[str], results: Path) -> Records:
    """The records that the arguments mean, each once, without those in submissions.

    Raises:
        PrivbenchError: there is none.
    """
    from ..analysis.record_set import Records
    from ..errors import MissingDataError
    from ..records.record import read
    from ..records.submission import INDEX

    found: dict[str, tuple[Record, Path]] = {}
    for argument in arguments:
        records = find_records("RECORD", argument, results)
        for record, path in zip(records.items, records.paths, strict=True):
            if not any((folder / INDEX).is_file() for folder in path.parents):
                found[record.key] = read(path), path
    if not found:
        raise MissingDataError(
            f"expected RECORD to be your own records, got submitted ones with {arguments[0]}; give those in records/"
        )
    return Records(tuple(record for record, _ in found.values()), tuple(path for _, path in found.values()))


def _name(name: str | None, records: Records) -> str:
    """The given name; by default, the first defense and a hash of the keys."""
    if name is None:
        keys = hashlib.sha256("".join(sorted(record.key for record in records)).encode()).hexdigest()
        defenses = sorted({record.cell.defense.name for record in records} - {"none"}) or ["none"]
        return f"{defenses[0]}-{keys[:8]}"
    if not _NAME.fullmatch(name):
        raise InvalidConfigurationError(
            f"expected --name to consist of letters, digits, '_', '.', '+' and '-', got {name!r}; choose another"
        )
    return name
