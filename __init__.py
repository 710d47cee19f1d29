"""privbench: how much does a trained image model leak under a named defense and a named attack?

The public names are imported on first use, so that `import privbench` costs nothing.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Attack": "benchmark.contracts",
    "FeatureAttack": "benchmark.contracts",
    "Dataset": "benchmark.contracts",
    "Defense": "benchmark.contracts",
    "Definition": "benchmark.core.config",
    "Evaluator": "benchmark.contracts",
    "Protocol": "benchmark.core.config",
    "RankingRules": "benchmark.core.ranking_rules",
    "Recipe": "benchmark.core.config",
    "setting": "benchmark.core.config",
    "ClassReconstructions": "benchmark.core.evidence",
    "Evidence": "benchmark.core.evidence",
    "Images": "benchmark.core.evidence",
    "Predictions": "benchmark.core.evidence",
    "Request": "benchmark.core.evidence",
    "Score": "benchmark.core.evidence",
    "Context": "benchmark.training.context",
    "Judges": "benchmark.networks.judges",
    "WhiteBoxView": "benchmark.access.views",
    "ScoresView": "benchmark.access.views",
    "LabelsView": "benchmark.access.views",
    "FeaturesView": "benchmark.access.views",
    "PrivbenchError": "benchmark.errors",
    "hash_file": "benchmark.files.hashing",
    "hash_folder": "benchmark.files.hashing",
    "Network": "benchmark.networks.classifiers.network",
    "run": "benchmark.api",
    "load_target": "benchmark.api",
    "load_records": "benchmark.analysis.record_set",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
