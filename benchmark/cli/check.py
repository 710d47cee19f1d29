"""`privbench check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..registry import KINDS
from . import options

if TYPE_CHECKING:
    from ..testing.check import CheckResult

_STYLES = {"holds": "green", "broken": "red", "not tried": "yellow"}


def check(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.")],
    name: Annotated[str, typer.Argument(help="A name from `privbench list`.")],
    setting: Annotated[
        list[str], typer.Option("--set", metavar="FIELD=VALUE", help="Set a field, e.g. steps=2; repeat.")
    ] = [],  # noqa: B006
    data: options.DataFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")] = False,
) -> None:
    """Try the laws that every component keeps, and say of each broken one what to change.

    Exit code 0 if none is broken, 1 if one is, 2 if nothing registers the name.
    """
    from .. import registry
    from ..errors import UnknownComponentError

    try:
        chosen = registry.singular(kind)
        if name not in registry.names(chosen):
            registry.find(chosen, name)
    except UnknownComponentError as error:
        typer.echo(f"privbench: {error}", err=True)
        raise typer.Exit(2) from None
    verdicts = _verdicts(chosen, name, setting, data)
    if as_json:
        typer.echo(json.dumps([verdict.__dict__ for verdict in verdicts], indent=1))
    else:
        _print(verdicts)
    if any(verdict.state == "broken" for verdict in verdicts):
        raise typer.Exit(1)


def _verdicts(kind: Any, name: str, settings: list[str], data: Path | None) -> list[CheckResult]:
    from ..pipeline.matrix import parse_settings
    from ..testing.checks import check as check_laws

    scope = f"{kind}."
    fields = parse_settings(text if text.startswith(scope) else scope + text for text in settings)
    return check_laws(
        kind, name, settings={path.removeprefix(scope): value for path, value in fields.items()}, data=data
    )


def _print(verdicts: list[CheckResult]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("law", "verdict", "what it says, or what to change")
    for verdict in verdicts:
        state = Text(verdict.state, style=_STYLES[verdict.state])
        table.add_row(Text(verdict.law), state, Text(verdict.message or verdict.about))
    Console().print(table)
    counts = {state: sum(verdict.state == state for verdict in verdicts) for state in _STYLES}
    typer.echo(", ".join(f"{count} {state}" for state, count in counts.items() if count))
