"""privbench: how much does a trained image model leak under a named defense and a named attack?

The public names are imported on first use, so that `import privbench` costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Attack": "benchmark.contracts",
    "Dataset": "benchmark.contracts",
    "Defense": "benchmark.contracts",
    "Definition": "benchmark.contracts",
    "Evaluator": "benchmark.contracts",
    "Protocol": "benchmark.contracts",
    "Recipe": "benchmark.contracts",
    "setting": "benchmark.contracts",
    "ClassReconstructions": "benchmark.evidence",
    "Evidence": "benchmark.evidence",
    "Images": "benchmark.evidence",
    "Predictions": "benchmark.evidence",
    "Request": "benchmark.evidence",
    "Score": "benchmark.evidence",
    "PrivbenchError": "benchmark.errors",
    "Network": "benchmark.networks.network",
    "run": "benchmark.api",
    "load_target": "benchmark.api",
    "load_records": "benchmark.records",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
