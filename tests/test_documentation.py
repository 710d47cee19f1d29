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


@pytest.mark.parametrize(
    ("name", "column"), [("digits", 0), ("mnist", 1), ("cifar10", 2), ("celeba", 3), ("celeba_vmi", 4)]
)
def test_steps_of_the_judge(name: str, column: int) -> None:
    found = resolve("dataset", Selection(name), "quick", {}).component.judge.max_steps
    assert row("", "steps at most, quick / smoke")[column].split("/")[0].split(",")[0].strip() == str(found)


@pytest.mark.parametrize(
    ("name", "column"), [("digits", 0), ("mnist", 1), ("cifar10", 2), ("celeba", 3), ("celeba_vmi", 4)]
)
def test_second_judges(name: str, column: int) -> None:
    quick, full = (resolve("dataset", Selection(name), budget, {}).component for budget in ("quick", "full"))

    def said(start: str) -> str:
        return row("| second judge |", start)[column]

    assert said("steps, quick / smoke").split("/")[0].split(",")[0].strip() == str(quick.second_judge.max_steps)
    assert float(said("step size")) == full.second_judge.learning_rate
    assert said("epochs") == str(full.second_judge.epochs)
    milestones = " and ".join(map(str, full.second_judge.milestones))
    assert said("step size times") == f"{full.second_judge.gamma} after {milestones}"


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "celeba", "celeba_subset", "celeba_vmi"])
def test_second_judges_and_negatives_at_a_glance(name: str) -> None:
    column = ["digits", "mnist", "cifar10", "celeba", "celeba_subset", "celeba_vmi"].index(name)
    found = [resolve("dataset", Selection(name), budget, {}).component for budget in ("full", "quick", "smoke")]
    networks = [found[0].protocol.target_network, found[0].protocol.judge_network]
    assert row("Tasks of classes", "second judge network")[column] == f"`{found[0].protocol.second_judge_network}`"
    assert row("Tasks of classes", "judge network")[column] == f"`{networks[1]}`"
    assert found[0].protocol.second_judge_network not in networks
    said = row("Tasks of classes", "calibrated negatives per label")[column]
    assert said == " / ".join(str(each.negatives) for each in found)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("digits", 0),
        ("mnist", 1),
        ("cifar10", 2),
        ("celeba", 3),
        ("celeba_subset", 4),
        ("celeba_vmi", 5),
        ("celeba_attributes", 6),
        ("celeba_attributes_subset", 7),
    ],
)
def test_steps_of_the_target(name: str, column: int) -> None:
    dataset = resolve("dataset", Selection(name), "quick", {})
    found = resolve("defense", Selection("bido_hsic"), "quick", {}, dataset).component.recipe.max_steps
    assert row("", "quick, at most")[column].split("(")[0].split(",")[0].strip() == str(found)


@pytest.mark.parametrize("name", ["celeba_attributes", "celeba_attributes_subset"])
def test_attribute_tasks(name: str) -> None:
    column = ["celeba_attributes", "celeba_attributes_subset"].index(name)
    protocols = [
        resolve("dataset", Selection(name), budget, {}).component.protocol for budget in ("full", "quick", "smoke")
    ]

    def said(start: str) -> list[str]:
        return row("Tasks of attributes", start)[column].split(" / ")

    assert said("protocol") == [f"`{protocols[0].id}`"]
    assert said("observed encodings at most") == [str(protocol.observed) for protocol in protocols]
    images = [" x ".join(map(str, protocol.image)) for protocol in protocols]
    assert said("image") == (images if len(set(images)) > 1 else images[:1])
    assert said("attributes") == [str(protocols[0].classes)]
    assert said("target network") == [f"`{protocols[0].target_network}`"]
    assert said("augmentation of the target") == [protocols[0].augmentation]


def test_vmi_at_a_glance() -> None:
    protocols = [
        resolve("dataset", Selection("celeba_vmi"), budget, {}).component.protocol
        for budget in ("full", "quick", "smoke")
    ]

    def said(start: str) -> str:
        return row("Tasks of classes", start)[-1]

    def three(field: str) -> str:
        return " / ".join(str(getattr(protocol, field)) for protocol in protocols)

    assert said("protocol") == f"`{protocols[0].id}`"
    assert said("attacked labels") == f"first {three('attacked')}"
    assert said("draws per label and trial") == three("draws")
    assert said("reconstructions per trial") == " / ".join(str(p.attacked * p.draws) for p in protocols)
    assert said("FID's private images in all") == " / ".join(str(p.attacked * p.reference) for p in protocols)
    assert said("target network") == f"`{protocols[0].target_network}`"
    assert said("augmentation of the target") == protocols[0].augmentation
