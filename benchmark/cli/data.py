"""`privbench data prepare|check NAME`: prepare a data set, or list its missing files."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import Json
from .output import echo, print_json

app = typer.Typer(help="Prepare and check data sets.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Data set, see `privbench list datasets`.")]
Data = Annotated[
    Path | None,
    typer.Option("--data", envvar="PRIVBENCH_DATA", help="Folder of the data sets; default: the folder for user data."),
]


@app.command()
def prepare(name: Name, data: Data = None) -> None:
    """Download or decode a data set, or print which files to put where."""
    dataset, root = _dataset(name), _root(data)
    echo(f"preparing {name} in {root}", err=True)
    dataset.prepare(root)
    echo(f"{name} is ready in {root}")


@app.command()
def check(
    name: Name,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Verify the files of a data set.

    The exit code is 1 if a file is missing or damaged.
    """
    dataset, root = _dataset(name), _root(data)
    problems = dataset.check(root)
    if as_json:
        print_json({"dataset": name, "root": str(root), "problems": problems})
    else:
        echo("\n".join(problems) or f"{name} is complete in {root}")
    raise typer.Exit(1 if problems else 0)


def _dataset(name: str) -> Any:
    from ..registry import load

    return load("dataset", name)()


def _root(data: Path | None) -> Path:
    from ..core.paths import data_root

    return data_root(data)
