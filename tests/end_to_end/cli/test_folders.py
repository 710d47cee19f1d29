"""Folders: what the caller names wins over the environment, which wins over the default."""

from __future__ import annotations

from pathlib import Path

import pytest
from privbench.benchmark.core import paths

ROOTS = [
    (paths.data_root, "PRIVBENCH_DATA"),
    (paths.results_root, "PRIVBENCH_RESULTS"),
    (paths.weights_root, "PRIVBENCH_WEIGHTS"),
]


@pytest.mark.parametrize(("root", "variable"), ROOTS)
def test_given_then_environment_then_default(root, variable, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, str(tmp_path / "named"))
    assert root(tmp_path / "given") == tmp_path / "given"
    assert root() == tmp_path / "named"
    monkeypatch.setenv(variable, "")
    default = root()
    monkeypatch.delenv(variable)
    assert root() == default
    assert "named" not in default.parts


@pytest.mark.parametrize(("root", "variable"), ROOTS)
def test_home_is_expanded(root, variable, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(variable, "~/there")
    assert root() == tmp_path / "there"
    assert root(Path("~/here")) == tmp_path / "here"


def test_defaults(monkeypatch):
    for _, variable in ROOTS:
        monkeypatch.delenv(variable, raising=False)
    assert paths.results_root() == Path("results")
    assert "privbench" in paths.data_root().parts
    assert paths.weights_root() == paths.data_root().parent / "weights"
