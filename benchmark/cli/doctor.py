"""`privbench doctor`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from . import options


def doctor(
    data: options.DataFolder = None,
    store: options.StoreFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")] = False,
) -> None:
    """Say what this machine has, and what each missing piece would enable."""
    from ..core.paths import data_root, store_root
    from ..doctor import diagnose

    findings = diagnose(data_root(data), store_root(store))
    if as_json:
        rows: list[dict[str, Any]] = [finding.__dict__ for finding in findings]
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("what", "state", "detail")
    for finding in findings:
        style = "green" if finding.present else "yellow"
        state = Text("yes" if finding.present else "missing", style=style)
        table.add_row(Text(finding.what), state, Text(finding.detail))
    Console().print(table)
