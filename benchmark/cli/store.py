"""`privbench store`: list, check and clean the artifact store."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.table import Table

from ..core.paths import results_root
from ..core.text import count
from ..errors import InvalidConfigurationError, PrivbenchError
from .options import Json, StoreFolder
from .output import console, echo, print_json

if TYPE_CHECKING:
    from ..store.maintenance import StoreEntry
    from ..store.store import Store

log = logging.getLogger("privbench")
app = typer.Typer(no_args_is_help=True, help="List, check and clean the artifact store.")


@app.command("ls")
def list_artifacts(store: StoreFolder = None, as_json: Json = False) -> None:
    """List the artifacts."""
    opened = _open(store)
    found = [*opened.entries(), *opened.shared_entries()]
    found.sort(key=lambda entry: (entry.kind, entry.created or "", entry.key, entry.tier))
    if as_json:
        print_json([_facts(entry) for entry in found])
    elif not found:
        echo(f"no artifacts in {_location(opened)}")
    else:
        _print(found, f"{count(len(found), 'artifact')}, {_total(found)} in {_location(opened)}")


@app.command()
def check(
    store: StoreFolder = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Move damaged and unknown files to quarantine; remove leftovers.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compare every file with its checksum.

    The exit code is 1 if there is a problem.
    """
    opened = _open(store)
    problems = opened.check(repair=repair)
    if as_json:
        print_json([vars(each) for each in problems])
    else:
        for each in problems:
            path = f"{opened.address.remote}/{each.path.as_posix()}" if each.tier == "shared" else each.path
            echo(f"{path}: {each.reason}{' (repaired)' if each.repaired else ''}")
        echo(f"{count(len(problems), 'problem') if problems else 'no problems'} in {_location(opened)}")
    if not all(each.repaired for each in problems):
        raise typer.Exit(1)


@app.command()
def gc(
    store: StoreFolder = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--results", help="Folder of records; repeat for each that uses the store. Default: PRIVBENCH_RESULTS."
        ),
    ] = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Keep artifacts and checkpoints younger than this.")
    ] = None,
    shared: Annotated[
        bool,
        typer.Option(
            "--shared", help="Also remove artifacts of the shared tier, which records of others may reference."
        ),
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also remove artifacts that records reference.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove artifacts that no record references.

    Artifacts of the records in --results are kept, and those that a run uses now. The quarantine and leftovers of
    interrupted runs are removed too.
    """
    folders = [results_root(each) for each in results] if results else [results_root()]
    opened = _open(store)
    if shared and opened.address.remote is None:
        raise InvalidConfigurationError(
            f"expected --store to be a URL with --shared, got {str(opened.root)!r}; give the URL or omit --shared"
        )
    with opened.in_use(dry_run=dry_run) as used:
        keep = used if everything else used | _referenced(folders)
        removed = opened.gc(keep, older_than_days=older_than, dry_run=dry_run, shared=shared)
    if as_json:
        facts = {
            "dry_run": dry_run,
            "bytes": sum(entry.bytes for entry in removed),
            "removed": [_facts(entry) for entry in removed],
        }
        print_json(facts)
        return
    verb = "would remove" if dry_run else "removed"
    done = f"{verb} {count(len(removed), 'item')}, {_total(removed)}, from {_location(opened)}"
    if removed:
        _print(removed, done)
    else:
        echo(done)


def _referenced(folders: Iterable[Path]) -> set[str]:
    """Keys of the artifacts that the records below some folders reference.

    Raises:
        InvalidConfigurationError: one has none; otherwise a wrong folder would empty the store.
    """
    keys: set[str] = set()
    for results in folders:
        found = {key for path in sorted((results / "records").rglob("*.json")) for key in _keys(path)}
        if not found:
            raise InvalidConfigurationError(
                f"expected --results to be a folder of records that reference artifacts, got {str(results)!r}; give "
                f"another folder, or remove all artifacts with --all"
            )
        keys |= found
    return keys


def _keys(path: Path) -> Iterator[str]:
    """Keys that one record references; a damaged record is skipped with a warning."""
    from ..files.documents import parse_json
    from ..files.untrusted import read_bounded
    from ..records.record import MAX_BYTES

    try:
        data = read_bounded(path, MAX_BYTES, follow_links=True)
        artifacts = parse_json(data, str(path), MAX_BYTES).get("artifacts", {})
        yield from [str(each["key"]) for each in artifacts.values() if each is not None]
    except (PrivbenchError, AttributeError, TypeError, KeyError) as cause:
        reason = f"{type(cause).__name__}: {cause}"
        log.warning("%s is not a record (%s); artifacts only it references will be deleted", path, reason)


def _open(address: str | None) -> Store:
    from ..store.store import open_store

    return open_store(address)


def _location(store: Store) -> str:
    return f"{store.address.remote} and its local tier {store.root}" if store.address.remote else str(store.root)


def _facts(entry: StoreEntry) -> dict[str, Any]:
    return vars(entry) | {"inputs": dict(entry.inputs)}


def _total(entries: list[StoreEntry]) -> str:
    return decimal(sum(entry.bytes for entry in entries))


def _print(entries: list[StoreEntry], caption: str) -> None:
    table = Table(box=None, pad_edge=False)
    tiers = {"tier"} if any(entry.tier == "shared" for entry in entries) else set()
    for title in ("kind", "key", "state", *tiers, "size", "created"):
        table.add_column(title, justify="right" if title == "size" else "left", no_wrap=True)
    for entry in entries:
        tier = [entry.tier] if tiers else []
        table.add_row(entry.kind, entry.key[:12], entry.state, *tier, decimal(entry.bytes), entry.created or "")
    console(highlight=False).print(table)
    echo(caption)
