"""Definitions of scores and numbers of labels, which reports read without importing a component."""

import json

from privbench.benchmark import registry
from privbench.benchmark.core.config import BUILT_IN


def text() -> str:
    """The file `benchmark/records/installed.json`."""
    found: dict[str, dict[str, object]] = {"classes": {}, "scores": {}}
    for entry in registry.entries("dataset"):
        if entry.distribution == BUILT_IN:
            found["classes"][entry.name] = registry.load("dataset", entry.name)().protocol.classes
    for entry in registry.entries("evaluator"):
        if entry.distribution == BUILT_IN:
            for definition in registry.load("evaluator", entry.name).scores:
                found["scores"][definition.name] = definition.model_dump(mode="json")
    return json.dumps(found, indent=1, sort_keys=True) + "\n"
