"""Examples in docstrings run and give what they show."""

import doctest
import importlib
import pkgutil

import privbench.attacks
import privbench.benchmark
import privbench.defenses
import privbench.evaluators
import pytest

PACKAGES = (privbench.attacks, privbench.benchmark, privbench.defenses, privbench.evaluators)
NAMES = sorted(
    module.name for package in PACKAGES for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)


@pytest.mark.parametrize("name", NAMES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in NAMES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 10
