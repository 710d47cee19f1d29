"""`privbench weights`: weights of networks, imported by the user or downloaded."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import UnknownComponentError
from .options import Json
from .output import echo, print_json, print_table, styled

app = typer.Typer(help="Import, fetch and list the weights of networks.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Weights, see `privbench weights ls`.")]


@app.command("ls")
def list_weights(as_json: Json = False) -> None:
    """List weights with their networks, state, origin and licence."""
    from ..networks.weights import importing

    rows = [_facts(name, using) for name, using in importing.users().items()]
    if as_json:
        print_json(rows)
        return
    table = []
    for row in rows:
        state = styled(row["state"], "green" if row["state"] == "here" else "yellow")
        uses = ", ".join(use.removesuffix(f" {row['name']}") for use in row["for"])
        table.append((row["name"], uses, state, row["origin"], (row["sha256"] or "")[:12], row["licence"]))
    titles = ("name", "for", "state", "from", "sha256", "licence")
    print_table(titles, table, no_wrap=("name", "state", "sha256"))


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show the state of weights and the tensors of an import."""
    from ..networks.weights import importing

    using = _using(name)
    kind, _, network = using[0]
    facts = _facts(name, using)
    if kind in importing.IMPORTABLE:
        facts |= {"tensors": importing.expected(network)}
    if as_json:
        print_json(facts)
        return
    for key in ("name", "for", "state", "problem", "origin", "url", "imported", "sha256", "licence", "path"):
        value = ", ".join(facts[key]) if key == "for" else facts[key]
        if value:
            echo(f"{key}: {value}")
    for tensor, shape in facts.get("tensors", {}).items():
        echo(f"  {tensor}  {importing.shown(shape)}")


@app.command("import")
def import_weights(
    name: Name,
    file: Annotated[Path, typer.Argument(help="A safetensors file with the names of `weights show`.")],
) -> None:
    """Check weights and copy them into the weights folder."""
    from ..networks.weights import importing

    found = importing.import_weights(name, file.expanduser(), _using(name)[0][2])
    echo(f"{name} is ready: {found.path}, SHA-256 {found.sha256}")


@app.command()
def fetch(name: Name) -> None:
    """Download published weights."""
    from ..networks.weights import named

    _using(name)
    echo(f"fetching {name}", err=True)
    path = named.fetch(name)
    echo(f"{name} is ready: {path}, SHA-256 {named.digest(name)}")


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
