"""`privbench weights`: the weights of embedders and perceptual networks, brought by the user or fetched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UnknownComponentError

app = typer.Typer(help="Import, fetch and list the weights of networks that judge images.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="weights, see `privbench weights ls`")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("ls")
def list_weights(as_json: Json = False) -> None:
    """List weights by name: what uses them, whether they are here, where they come from, their terms."""
    from ..networks.weights import importing

    rows = [_facts(name, using) for name, using in importing.users().items()]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for title in ("name", "for", "state", "from", "sha256", "licence"):
        table.add_column(title, no_wrap=title in ("name", "state", "sha256"))
    for row in rows:
        state = Text(row["state"], style="green" if row["state"] == "here" else "yellow")
        uses = ", ".join(use.removesuffix(f" {row['name']}") for use in row["for"])
        cells = [Text(cell) for cell in (row["name"], uses, row["origin"], (row["sha256"] or "")[:12], row["licence"])]
        table.add_row(*cells[:2], state, *cells[2:])
    Console().print(table)


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show one set of weights: its state, and the names and shapes that the network expects."""
    from ..networks.weights import importing

    using = _using(name)
    facts = _facts(name, using) | {"tensors": importing.expected(using[0][2])}
    if as_json:
        typer.echo(json.dumps(facts, indent=1))
        return
    for key in ("name", "for", "state", "problem", "origin", "url", "imported", "sha256", "licence", "path"):
        value = ", ".join(facts[key]) if key == "for" else facts[key]
        if value:
            typer.echo(f"{key}: {value}")
    for tensor, shape in facts["tensors"].items():
        typer.echo(f"  {tensor}  {importing.shown(shape)}")


@app.command("import")
def import_weights(
    name: Name, file: Annotated[Path, typer.Argument(help="safetensors, with the names of `privbench weights show`")]
) -> None:
    """Check weights against their network and keep them in the weights folder."""
    from ..networks.weights import importing

    found = importing.import_weights(name, file.expanduser(), _using(name)[0][2])
    typer.echo(f"{name} is ready: {found.path}, SHA-256 {found.sha256}")


@app.command()
def fetch(name: Name) -> None:
    """Download published weights."""
    from ..networks.weights import named

    _using(name)
    print(f"fetching {name}", file=sys.stderr)
    path = named.fetch(name)
    typer.echo(f"{name} is ready: {path}, SHA-256 {named.digest(name)}")


def _using(name: str) -> list[Any]:
    from ..networks.weights import importing

    known = importing.users()
    if name not in known:
        raise UnknownComponentError("weights", name, known)
    return list(known[name])


def _facts(name: str, using: list[Any]) -> dict[str, Any]:
    from ..errors import MissingDataError
    from ..networks.weights import named

    problem, about, source = named.problem(name), named.ABOUT.get(name), named.published(name)
    try:
        path, manifest = named.path_of(name), None if source else named.manifest(name)
    except MissingDataError:
        path, manifest = None, None
    origin = about.origin if about else ""
    if manifest:
        origin = f"{manifest.source}, {manifest.imported[:10]}"
    return {
        "name": name,
        "for": [f"{kind} {network}" for kind, network, _ in using],
        "state": "here" if problem is None else "damaged" if path else "missing",
        "problem": problem,
        "origin": origin,
        "url": source.url if source else None,
        "imported": manifest.imported if manifest else None,
        "sha256": named.digest(name) if problem is None else None,
        "licence": about.licence if about else "",
        "path": str(path) if path else None,
    }
