"""Numbers that docs/protocols.md gives for the budget `quick` are those of the code."""

from pathlib import Path

import pytest
from privbench.benchmark.spec import Selection, resolve

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "protocols.md").read_text(encoding="utf-8")


def row(heading: str, start: str) -> list[str]:
    """The cells of the first table row below `heading` that begins with `start`."""
    section = TEXT[TEXT.index(heading) :]
    line = next(line for line in section.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.mark.parametrize(("name", "column"), [("digits", 0), ("mnist", 1), ("cifar10", 2), ("celeba", 3)])
def test_steps_of_the_judge(name: str, column: int) -> None:
    found = resolve("dataset", Selection(name), "quick", {}).component.judge.max_steps
    assert row("", "steps at most, quick / smoke")[column].split("/")[0].split(",")[0].strip() == str(found)


@pytest.mark.parametrize(
    ("name", "column"), [("digits", 0), ("mnist", 1), ("cifar10", 2), ("celeba", 3), ("celeba_subset", 4)]
)
def test_steps_of_the_target(name: str, column: int) -> None:
    dataset = resolve("dataset", Selection(name), "quick", {})
    found = resolve("defense", Selection("bido_hsic"), "quick", {}, dataset).component.recipe.max_steps
    assert row("", "quick, at most")[column].split("(")[0].split(",")[0].strip() == str(found)
