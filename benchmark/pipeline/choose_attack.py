"""Choose an attack that the harness does not import: its own process finds, configures and describes it."""

import json
from collections.abc import Mapping
from typing import Any

from .. import registry
from ..core.config import Budget
from ..errors import InvalidConfigurationError
from ..isolation.declared import make_attack
from ..isolation.process import describe
from .cell import Choice, Selection


def choose_attack(selection: Selection, budget: Budget, settings: Mapping[str, Any], dataset: Choice | None) -> Choice:
    """Find an attack and give its fields their values, in its own process; see `pipeline.resolve`.

    Raises:
        PrivbenchError: as `resolve`.
    """
    job = {
        "preset": selection.preset,
        "changes": dict(selection.fields or {}),
        "where": selection.where,
        "settings": dict(settings),
    }
    return _described(selection.name, budget, dataset, job)


def configured_attack(name: str, fields: Mapping[str, Any], budget: Budget, dataset: Choice | None) -> Choice:
    """Return an attack with these values of its fields, described by its own process.

    Raises:
        PrivbenchError: a value is not valid, or the attack does not import.
    """
    return _described(name, budget, dataset, {"fields": dict(fields)})


def _described(name: str, budget: Budget, dataset: Choice | None, values: Mapping[str, Any]) -> Choice:
    facts = None
    if dataset is not None:
        protocol = dataset.component.protocol.model_dump(mode="json")
        facts = {"name": dataset.name, "family": type(dataset.component).family, "protocol": protocol}
    try:
        job = json.dumps({"do": "describe", "name": name, "budget": budget, "dataset": facts, **values})
    except (TypeError, ValueError) as cause:
        raise InvalidConfigurationError(f"expected the fields of attack {name} to be JSON values: {cause}") from None
    return Choice("attack", name, registry.find("attack", name).distribution, make_attack(describe(name, job)))
