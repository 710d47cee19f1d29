"""The checks of every kind, and a function that runs all of them on a component."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..registry import Kind
from . import attack, dataset, defense, embedder, evaluator, network, perceptual
from .check import Check, CheckResult

_CHECKS: dict[Kind, tuple[Check, ...]] = {
    "dataset": dataset.CHECKS,
    "defense": defense.CHECKS,
    "attack": attack.CHECKS,
    "evaluator": evaluator.CHECKS,
    "network": network.CHECKS,
    "embedder": embedder.CHECKS,
    "perceptual": perceptual.CHECKS,
}


def checks(kind: Kind) -> tuple[Check, ...]:
    """The checks of a kind of component: `dataset`, `defense`, `attack`, `evaluator`, `network`, ..."""
    return _CHECKS[kind]


def check(
    kind: Kind,
    component: type[Any] | str,
    *,
    settings: Mapping[str, Any] | None = None,
    data: Path | None = None,
) -> list[CheckResult]:
    """Run every check of a kind on a component.

    A component that is not registered or cannot be imported fails the first check; the others are then skipped.

    Args:
        kind: of the component.
        component: the class, whose package is installed, or the registered name.
        settings: values of fields by name; the others have those of the budget `smoke`.
        data: the data folder, for data sets; by default `PRIVBENCH_DATA` or the user's data folder.

    Raises:
        UnknownComponentError: nothing registers the name.
    """
    first, *rest = checks(kind)
    results = [first.result(component, settings, data)]
    for each in rest:
        if results[0].state == "failed":
            results.append(CheckResult(each.name, each.about, "skipped", "the component cannot be loaded"))
        else:
            results.append(each.result(component, settings, data))
    return results
