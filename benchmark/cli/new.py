"""`privbench new`: write a new package."""

from pathlib import Path
from typing import Annotated

import typer

from ..scaffold.scaffold import KINDS
from .output import echo


def new(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.")],
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and underscores, such as my_defense.")],
    into: Annotated[
        Path | None, typer.Option("--into", metavar="DIR", help="Folder of the package; default: privbench-NAME.")
    ] = None,
) -> None:
    """Write an installable package with a new component.

    The package contains a small working component, its tests and a README. The folder must be empty or not exist.
    """
    from ..scaffold import scaffold

    folder = scaffold.create(kind, name, into or scaffold.folder_of(name))
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        echo(str(path))
    echo(f"next: pip install -e '{folder}[test]', privbench check {kind} {name}, {folder}/README.md", err=True)
