"""`privbench zoo`: exported targets by name, in a folder or at an https URL."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Json
from .output import echo, print_json, print_table

app = typer.Typer(help="List, add and fetch exported targets in a zoo.", no_args_is_help=True)

ZooAddress = Annotated[str, typer.Argument(metavar="ZOO", envvar="PRIVBENCH_ZOO", help="A folder, or an https URL.")]


@app.command("list")
def list_targets(zoo: ZooAddress, as_json: Json = False) -> None:
    """List the targets of a zoo."""
    from ..exports.zoo import open_zoo

    found = open_zoo(zoo)
    if as_json:
        rows = [{"name": name, **entry.model_dump(mode="json")} for name, entry in sorted(found.targets.items())]
        print_json(rows)
        return
    if not found.targets:
        echo(f"no targets in {found.address}")
        return
    table = []
    for name, entry in sorted(found.targets.items()):
        accuracy = f"{entry.test_accuracy:.2%} of {entry.n}"
        about = (entry.protocol, entry.defense, entry.network, entry.budget, str(entry.seed), accuracy)
        table.append((name, *about, f"{entry.weights.bytes:,}", entry.weights.sha256[:12]))
    titles = ("name", "protocol", "defense", "network", "budget", "seed", "accuracy", "bytes", "sha256")
    print_table(titles, table, no_wrap=("name", "sha256"))


@app.command()
def add(
    export: Annotated[Path, typer.Argument(metavar="EXPORT", help="Folder that `privbench export` wrote.")],
    zoo: Annotated[Path, typer.Argument(metavar="ZOO", help="Folder of the zoo; created if it does not exist.")],
    name: Annotated[
        str | None, typer.Option("--name", help="Name in the zoo; default: made from its contents.")
    ] = None,
) -> None:
    """Verify an exported target and copy it into a zoo."""
    from ..exports import zoo as zoos

    found, entry = zoos.add(export.expanduser(), zoo.expanduser(), name)
    echo(f"{found}: {entry.defense} on {entry.protocol}, SHA-256 {entry.weights.sha256}")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from `privbench zoo list`.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; an earlier export is replaced.")],
    zoo: ZooAddress,
) -> None:
    """Copy a target of a zoo into a folder and verify it."""
    from ..exports import zoo as zoos

    manifest = zoos.fetch(zoos.open_zoo(zoo), name, folder.expanduser())
    echo(f"{manifest.title}: SHA-256 {manifest.weights.sha256}\n{folder}")
