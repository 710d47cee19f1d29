"""`privbench zoo`: exported targets by name, in a folder or behind an https address."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List, fill and read zoos of exported targets.", no_args_is_help=True)

Place = Annotated[str, typer.Argument(metavar="ZOO", envvar="PRIVBENCH_ZOO", help="A folder, or an https address.")]


@app.command("list")
def list_targets(
    zoo: Place, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")] = False
) -> None:
    """List the targets of a zoo."""
    from ..exports.zoo import open_zoo

    found = open_zoo(zoo)
    if as_json:
        rows = [{"name": name, **entry.model_dump(mode="json")} for name, entry in sorted(found.targets.items())]
        typer.echo(json.dumps(rows, indent=1))
        return
    if not found.targets:
        typer.echo(f"no targets in {found.place}")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for title in ("name", "protocol", "defense", "network", "budget", "seed", "accuracy", "bytes", "sha256"):
        table.add_column(title, no_wrap=title in ("name", "sha256"))
    for name, entry in sorted(found.targets.items()):
        accuracy = f"{entry.test_accuracy:.2%} of {entry.n}"
        about = (entry.protocol, entry.defense, entry.network, entry.budget, str(entry.seed), accuracy)
        row = (*about, f"{entry.weights.bytes:,}", entry.weights.sha256[:12])
        table.add_row(*(Text(text) for text in (name, *row)))
    Console().print(table)


@app.command()
def add(
    export: Annotated[Path, typer.Argument(metavar="EXPORT", help="Folder that `privbench export` made.")],
    zoo: Annotated[Path, typer.Argument(metavar="ZOO", help="Folder of the zoo, made if there is none.")],
    name: Annotated[str | None, typer.Option("--name", help="Name in the zoo. [default: made of what it is]")] = None,
) -> None:
    """Copy an exported target into a zoo, after loading it."""
    from ..exports import zoo as zoos

    found, entry = zoos.add(export.expanduser(), zoo.expanduser(), name)
    typer.echo(f"{found}: {entry.defense} on {entry.protocol}, SHA-256 {entry.weights.sha256}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `privbench zoo list`.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; an earlier export is replaced.")],
    zoo: Place,
) -> None:
    """Copy a target of a zoo to a folder, verified."""
    from ..exports import zoo as zoos

    manifest = zoos.fetch(zoos.open_zoo(zoo), name, folder.expanduser())
    typer.echo(f"{manifest.title}: SHA-256 {manifest.weights.sha256}\n{folder}")
