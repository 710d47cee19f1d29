"""`privbench check`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..registry import KINDS
from . import options
from .output import echo, print_json, print_table, styled

if TYPE_CHECKING:
    from ..testing.check import CheckResult

_STYLES = {"passed": "green", "failed": "red", "skipped": "yellow"}


def check(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.")],
    name: Annotated[str, typer.Argument(help="A name from `privbench list`.")],
    setting: Annotated[
        list[str], typer.Option("--set", metavar="FIELD=VALUE", help="Set a field, e.g. steps=2; repeat.")
    ] = [],  # noqa: B006
    data: options.DataFolder = None,
    as_json: options.Json = False,
) -> None:
    """Run the conformance checks of a component.

    Each failed check says what to change. The exit code is 0 if no check fails, 1 if one fails, and 2 if nothing
    registers the name.
    """
    from .. import registry
    from ..errors import UnknownComponentError

    try:
        chosen = registry.singular(kind)
        if name not in registry.names(chosen):
            registry.find(chosen, name)
    except UnknownComponentError as error:
        echo(f"privbench: {error}", err=True)
        raise typer.Exit(2) from None
    from ..pipeline.matrix import parse_settings
    from ..testing.checks import check as check_component

    scope = f"{chosen}."
    fields = parse_settings(text if text.startswith(scope) else scope + text for text in setting)
    settings = {path.removeprefix(scope): value for path, value in fields.items()}
    results = check_component(chosen, name, settings=settings, data=data)
    if as_json:
        print_json([result.__dict__ for result in results])
    else:
        _print(results)
    if any(result.state == "failed" for result in results):
        raise typer.Exit(1)


def _print(results: list[CheckResult]) -> None:
    print_table(
        ("check", "result", "requirement, or what to change"),
        [(each.check, styled(each.state, _STYLES[each.state]), each.message or each.about) for each in results],
    )
    counts = {state: sum(each.state == state for each in results) for state in _STYLES}
    echo(", ".join(f"{count} {state}" for state, count in counts.items() if count))
