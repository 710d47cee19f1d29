"""The laws of every kind, and a check of all of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..registry import Kind
from . import attack, dataset, defense, embedder, evaluator, network, perceptual
from .check import Check, CheckResult

_LAWS: dict[Kind, tuple[Check, ...]] = {
    "dataset": dataset.LAWS,
    "defense": defense.LAWS,
    "attack": attack.LAWS,
    "evaluator": evaluator.LAWS,
    "network": network.LAWS,
    "embedder": embedder.LAWS,
    "perceptual": perceptual.LAWS,
}


def checks(kind: Kind) -> tuple[Check, ...]:
    """The laws of a kind of component: `dataset`, `defense`, `attack`, `evaluator`, `network`, ..."""
    return _LAWS[kind]


def check(
    kind: Kind,
    component: type[Any] | str,
    *,
    settings: Mapping[str, Any] | None = None,
    data: Path | None = None,
) -> list[CheckResult]:
    """Try every law of a kind on a component.

    A component that is not registered or does not import breaks the first law; the others are then not tried.

    Args:
        kind: of the component.
        component: the class, whose package is installed, or the registered name.
        settings: values of fields by name; the others have those of the budget `smoke`.
        data: the data folder, for data sets; by default `PRIVBENCH_DATA` or the user's data folder.

    Raises:
        UnknownComponentError: nothing registers the name.
    """
    first, *rest = checks(kind)
    verdicts = [first.verdict(component, settings, data)]
    for law in rest:
        if verdicts[0].state == "broken":
            verdicts.append(CheckResult(law.name, law.about, "not tried", "the component cannot be loaded"))
        else:
            verdicts.append(law.verdict(component, settings, data))
    return verdicts
