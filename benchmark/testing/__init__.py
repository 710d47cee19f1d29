"""The laws that every component keeps, built in or not, for `privbench check` and for a plugin's own tests.

In a plugin's suite, once the plugin is installed:

    import pytest
    from privbench.benchmark.testing import laws
    from my_package import MyDefense

    @pytest.mark.parametrize("law", laws("defense"), ids=str)
    def test_law(law):
        law(MyDefense)

A law takes the class or its registered name. One that is broken raises `BrokenLawError`, whose message ends in what to
change; one that cannot be tried here, because data or weights are missing, raises `unittest.SkipTest`, which pytest
shows as skipped. `check` tries all laws of a kind and returns the verdicts. The laws run on a few of scikit-learn's
digits, on the CPU, without a network.
"""

from .check import Check, CheckResult, ConformanceError
from .checks import check, checks

#: Former name of `checks`, which published plugins import.
laws = checks

__all__ = ["Check", "CheckResult", "ConformanceError", "check", "checks", "laws"]
