"""`privbench list` and `privbench show`."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..registry import KINDS, MODULES
from .options import Json
from .output import echo, print_json, print_table

if TYPE_CHECKING:
    from ..core.config import Configuration

#: Summary of a name that is registered twice.
_CLASH = "registered more than once and therefore unusable: uninstall one of the packages"


def list_components(
    kind: Annotated[
        str | None, typer.Argument(help=f"{', '.join(f'{each}s' for each in KINDS)}; all by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List components, built in and from plugins.

    No component is imported.
    """
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
        print_json(rows)
        return
    print_table(("kind", "name", "from", "summary"), [tuple(row.values()) for row in rows], no_wrap=("name",))


def show(
    kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.")],
    name: Annotated[str, typer.Argument(help="A name from `privbench list`.")],
    as_json: Json = False,
) -> None:
    """Show a component with its fields and presets."""
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
        print_json(facts)
        return
    _print(facts)


def _fields(component: type[Configuration]) -> Any:
    """Fields with their values, in the order of the class; fields of nested configurations have dotted names."""
    from ..analysis.row_labels import flat
    from ..core.config import BUDGETS
    from ..pipeline.resolve import budget_values, defaults

    standard = flat(defaults(component))
    by_budget = {budget: flat(budget_values(component, budget)) for budget in BUDGETS}
    for name, about in _descriptions(component):
        values = {budget: by_budget[budget].get(name, standard.get(name, "required")) for budget in BUDGETS}
        yield {"name": name, "about": about, **values}


def _descriptions(component: type[Configuration], prefix: str = "") -> Any:
    """Names and descriptions of the fields."""
    from ..core.config import Configuration

    for field, info in component.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Configuration):
            yield from _descriptions(info.annotation, f"{prefix}{field}.")
        else:
            yield f"{prefix}{field}", info.description or ""


def _print(facts: dict[str, Any]) -> None:
    echo(f"{facts['kind']} {facts['name']}, version {facts['version']}\n\n{facts['about']}\n")
    if facts["fields"]:
        rows = []
        for row in facts["fields"]:
            quick, smoke = (str(row[budget]) if row[budget] != row["full"] else "" for budget in ("quick", "smoke"))
            rows.append((row["name"], str(row["full"]), quick, smoke, row["about"]))
        print_table(("field", "full", "quick", "smoke", "meaning"), rows, no_wrap=("field",))
    if facts["weights"]:
        echo(f"weights: {facts['weights']}, see `privbench weights show {facts['weights']}`")
    for name, values in facts["presets"].items():
        echo(f"preset {name}: {json.dumps(values, default=str)}")
