"""`privbench data prepare|check NAME`: fetch a data set, or say what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Fetch and verify data sets.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="data set, see `privbench list datasets`")]
Data = Annotated[
    Path | None,
    typer.Option("--data", envvar="PRIVBENCH_DATA", help="data folder; by default the folder for user data"),
]


@app.command()
def prepare(name: Name, data: Data = None) -> None:
    """Download or decode what can be, or say what to put where."""
    dataset, root = _dataset(name), _root(data)
    print(f"preparing {name} in {root}", file=sys.stderr)
    dataset.prepare(root)
    print(f"{name} is ready in {root}")


@app.command()
def check(
    name: Name,
    data: Data = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Verify the files; exits with 1 if anything is missing or damaged."""
    dataset, root = _dataset(name), _root(data)
    problems = dataset.check(root)
    if as_json:
        print(json.dumps({"dataset": name, "root": str(root), "problems": problems}))
    else:
        print("\n".join(problems) or f"{name} is complete in {root}")
    raise typer.Exit(1 if problems else 0)


def _dataset(name: str) -> Any:
    from ..registry import load

    return load("dataset", name)()


def _root(data: Path | None) -> Path:
    from ..core.paths import data_root

    return data_root(data)
