"""The example package: pip installs its four components, and they can be listed, run and reported.

The test runs the commands of its README, with budgets of a few steps.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from helpers import blocks as code

PACKAGE = code.ROOT / "docs" / "examples" / "privbench-letters"
NAMES = {"dataset": "letters", "defense": "random_erasing", "attack": "impostors", "evaluator": "diversity"}


@pytest.fixture
def after_readme(empty_session: Any) -> Any:
    for block in code.blocks((PACKAGE / "README.md").read_text(encoding="utf-8"), "README.md of privbench-letters"):
        empty_session.run(block)
    return empty_session


def test_the_components_are_listed_run_and_reported(after_readme: Any) -> None:
    after_readme.command(["privbench", "list", "--json"])
    owners = {(row["kind"], row["name"]): row["from"] for row in json.loads(after_readme.output)}
    assert {owners[kind, name] for kind, name in NAMES.items()} == {"privbench-letters 0.1.0"}
    records = [json.loads(path.read_text("utf-8")) for path in Path("results/records").rglob("*.json")]
    cells = {tuple(record["cell"][kind]["name"] for kind in ("dataset", "defense", "attack")) for record in records}
    assert cells == {
        ("letters", "none", "impostors"),
        ("letters", "random_erasing", "impostors"),
        ("letters", "random_erasing", "kedmi"),
        ("digits", "bido_hsic", "impostors"),
        ("letters", "placebo", "impostors"),
        ("letters", "placebo", "kedmi"),
        ("digits", "placebo", "impostors"),
    }
    assert all(record["scores"]["diversity"]["value"] is not None for record in records)
    page = Path("results/report/index.html").read_text(encoding="utf-8")
    for section, defense in (("letters-v1-quick", "random_erasing"), ("digits-v2-quick", "bido_hsic")):
        (found,) = re.findall(rf'<section class="board[^"]*" id="{section}".*?</section>', page, re.DOTALL)
        assert all(word in found for word in (defense, "impostors", "Diversity"))
    assert "root mean squared difference" in Path("results/report/definitions.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_own_tests_pass(empty_session: Any) -> None:
    empty_session.command(["pip", "install", "docs/examples/privbench-letters"])
    empty_session.command(["pytest", "docs/examples/privbench-letters"])
