"""`privbench list` and `privbench show`."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..registry import KINDS, MODULES

if TYPE_CHECKING:
    from ..core.config import Configuration

#: In place of the summary of a name that is registered twice.
_CLASH = "registered more than once and usable by nobody: uninstall one of the packages"
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]


def list_components(
    kind: Annotated[
        str | None, typer.Argument(help=f"{', '.join(f'{each}s' for each in KINDS)}; all by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List what is registered, built in or by plugins; imports none of it."""
    from .. import registry

    kinds = [registry.singular(kind)] if kind else list(KINDS)
    found = [entry for each in kinds for entry in registry.entries(each)]
    times = Counter((entry.kind, entry.name) for entry in found)
    rows = [
        {
            "kind": entry.kind,
            "name": entry.name,
            "from": f"{entry.distribution} {entry.release}",
            "summary": entry.summary() if times[entry.kind, entry.name] == 1 else _CLASH,
        }
        for entry in found
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table("kind", Column("name", no_wrap=True), Column("from", overflow="fold"), "summary")
    for row in rows:
        table.add_row(*(Text(row[column]) for column in ("kind", "name", "from", "summary")))
    Console().print(table)


def show(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.")],
    name: Annotated[str, typer.Argument(help="A name from `privbench list`.")],
    as_json: Json = False,
) -> None:
    """Show a component: what it does, its fields with their values under each budget, its presets."""
    from .. import registry

    chosen = registry.singular(kind)
    component = registry.load(chosen, name)
    facts = {
        "kind": chosen,
        "name": name,
        "version": component.version,
        "about": (component.__doc__ or "").strip(),
        "fields": [] if chosen in MODULES else list(_fields(component)),
        "weights": getattr(component, "weights", None),
        "presets": {key: dict(value) for key, value in getattr(component, "presets", {}).items()},
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=1, default=str))
        return
    _print(facts)


def _fields(component: type[Configuration]) -> Any:
    """Fields in the order of the class, those of nested configurations with dotted names, with their values."""
    from ..analysis.aggregate import flat
    from ..core.config import BUDGETS
    from ..pipeline.resolve import budget_values, defaults

    standard = flat(defaults(component))
    by_budget = {budget: flat(budget_values(component, budget)) for budget in BUDGETS}
    for name, about in _descriptions(component):
        values = {budget: by_budget[budget].get(name, standard.get(name, "required")) for budget in BUDGETS}
        yield {"name": name, "about": about, **values}


def _descriptions(component: type[Configuration], prefix: str = "") -> Any:
    """Names and meanings of the fields."""
    from ..core.config import Configuration

    for field, info in component.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Configuration):
            yield from _descriptions(info.annotation, f"{prefix}{field}.")
        else:
            yield f"{prefix}{field}", info.description or ""


def _print(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    console = Console()
    console.print(Text(f"{facts['kind']} {facts['name']}, version {facts['version']}\n\n{facts['about']}\n"))
    if facts["fields"]:
        table = Table(Column("field", no_wrap=True), "full", "quick", "smoke", "meaning")
        for row in facts["fields"]:
            quick, smoke = (str(row[b]) if row[b] != row["full"] else "" for b in ("quick", "smoke"))
            table.add_row(*(Text(text) for text in (row["name"], str(row["full"]), quick, smoke, row["about"])))
        console.print(table)
    if facts["weights"]:
        console.print(Text(f"weights: {facts['weights']}, see `privbench weights show {facts['weights']}`"))
    for name, values in facts["presets"].items():
        console.print(Text(f"preset {name}: {json.dumps(values, default=str)}"))
