"""Statements of the built-in data sets and evaluators, for readers of records that import no component.

`make docs-tables` writes `installed.json` from the components, and a test notices when it is out of date.
"""

import json
from functools import cache
from importlib import resources
from typing import Any

from ..core.config import Definition


@cache
def _facts() -> dict[str, Any]:
    file = resources.files(__package__) / "installed.json"
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def classes(dataset: str) -> int | None:
    """Return the number of labels of a built-in data set with its usual fields; `None` for others."""
    found: int | None = _facts().get("classes", {}).get(dataset)
    return found


@cache
def definitions() -> dict[str, Definition]:
    """Return the definitions of the scores of all built-in evaluators, by name of the score."""
    return {name: Definition.model_validate(each) for name, each in _facts().get("scores", {}).items()}
