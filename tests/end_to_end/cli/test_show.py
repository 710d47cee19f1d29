"""`privbench show` prints the values that a run uses."""

import json

import pytest
from helpers import command_line
from privbench.benchmark import registry
from privbench.benchmark.analysis.row_labels import flat
from privbench.benchmark.core.config import BUDGETS
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.resolve import resolve

COMPONENTS = [(kind, name) for kind in ("dataset", "defense", "attack") for name in registry.names(kind)]


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_fields_under_every_budget(kind: registry.Kind, name: str) -> None:
    shown = json.loads(command_line.output("show", kind, name, "--json"))["fields"]
    required = {row["name"]: 1.0 for row in shown if row["full"] == "required"}
    settings = {f"{kind}.{field}": value for field, value in required.items()}
    for budget in BUDGETS:
        found = flat(resolve(kind, Selection(name), budget, settings).component.model_dump(mode="json"))
        printed = {row["name"]: row[budget] for row in shown}
        assert json.loads(json.dumps({**printed, **required}, default=list)) == found, budget
