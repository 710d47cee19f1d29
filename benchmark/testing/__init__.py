"""Conformance checks of components, built in or not, for `privbench check` and for a plugin's own tests.

In a plugin's test suite, once the plugin is installed:

    import pytest
    from privbench.benchmark.testing import checks
    from my_package import MyDefense

    @pytest.mark.parametrize("check", checks("defense"), ids=str)
    def test_conformance(check):
        check(MyDefense)

A check takes the class or its registered name. If the component fails it, the check raises `ConformanceError`, whose
message ends in what to change. If data or weights are missing, the check raises `unittest.SkipTest`, which pytest
reports as skipped. `check` runs all checks of a kind and returns their results. The checks run on a few of
scikit-learn's digits, on the CPU, without a network connection.
"""

from .check import Check, CheckResult, ConformanceError
from .checks import check, checks

#: Former name of `checks`, which published plugins import.
laws = checks

__all__ = ["Check", "CheckResult", "ConformanceError", "check", "checks", "laws"]
