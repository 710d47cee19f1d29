"""Sessions for code blocks: folders, budgets of a few steps, a store that pages share."""

import contextlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers import blocks as code
from helpers import targets
from helpers.installed import refresh_registry
from privbench.benchmark.pipeline import resolve

#: Upper limits for the budgets `quick` and `smoke` in these tests.
LIMITS = {"max_steps": 2, "iterations": 2, "draws": 2, "trials": 1, "negatives": 2, "observed": 8}


@contextlib.contextmanager
def _session(root: Path, shared: Path) -> Iterator[Any]:
    """Run commands in `root`, with budgets of a few steps and a store in `shared`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resolve, "budget_values", _limited(resolve.budget_values))
        patch.setattr(resolve, "_of_dataset", _of_dataset(resolve._of_dataset))
        targets.keep_here(patch)
        patch.setenv("PRIVBENCH_SANDBOX", "0")  # a process of an attack would not have these budgets
        for name in ("STORE", "CACHE", "WEIGHTS", "DATA"):
            patch.setenv(f"PRIVBENCH_{name}", str(shared / name.lower()))
        for name in ("RESULTS", "ZOO"):
            patch.delenv(f"PRIVBENCH_{name}", raising=False)
        made = code.Session(root, patch)
        yield made
        for name, module in list(sys.modules.items()):
            if str(made.site) in (getattr(module, "__file__", None) or ""):
                del sys.modules[name]
    refresh_registry()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """A store that the pages share, with the records of a first run."""
    folder = tmp_path_factory.mktemp("shared")
    with _session(folder, folder) as session:
        session.command(["privbench", "run", "--defense", "none", "--defense", "bido_hsic", "--attack", "kedmi"])
    return folder


@pytest.fixture
def empty_session(tmp_path: Path) -> Iterator[Any]:
    """An empty folder with its own store."""
    with _session(tmp_path, tmp_path / "shared") as session:
        yield session


@pytest.fixture
def session(tmp_path: Path, shared: Path) -> Iterator[Any]:
    """A folder with the records of the first run in `results`."""
    shutil.copytree(shared / "results", tmp_path / "results")
    with _session(tmp_path, shared) as session:
        yield session


def _limited(real: Any) -> Any:
    def budget_values(cls: type, budget: str) -> Mapping[str, Any]:
        values = real(cls, "smoke" if budget == "quick" else budget)
        return values if budget == "full" else _cut(values)

    return budget_values


def _cut(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _cut(value) if isinstance(value, dict) else min(value, LIMITS[name]) if name in LIMITS else value
        for name, value in values.items()
    }


def _of_dataset(real: Any) -> Any:
    return lambda cls, dataset, suffix="": {} if suffix == "@quick" else real(cls, dataset, suffix)
