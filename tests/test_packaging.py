"""What is on disk is listed, and what is listed is installed."""

import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import privbench
import pytest
from privbench.benchmark import registry

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def on_disk() -> set[str]:
    folders = {path.parent for path in ROOT.rglob("__init__.py")}
    inside = {folder.relative_to(ROOT) for folder in folders}
    return {
        ".".join(["privbench", *folder.parts])
        for folder in inside
        if not (folder.parts and (folder.parts[0] in ("tests", "build", "docs") or folder.parts[0].startswith(".")))
    }


def test_every_package_on_disk_is_listed() -> None:
    assert on_disk() == set(PROJECT["tool"]["setuptools"]["packages"])


def test_what_is_listed_is_installed() -> None:
    for kind in registry.KINDS:
        group = f"privbench.{kind}s"
        listed = PROJECT["project"]["entry-points"][group]
        installed = {p.name: p.value for p in entry_points(group=group) if p.dist and p.dist.name == "privbench"}
        assert installed == listed


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_registered_component_loads(kind: registry.Kind) -> None:
    for name in registry.names(kind):
        assert registry.load(kind, name).__doc__


def test_public_names_exist() -> None:
    for name in privbench.__all__:
        assert getattr(privbench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        privbench.nothing  # noqa: B018


def test_version_is_the_same_everywhere() -> None:
    assert PROJECT["project"]["version"] == privbench.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {privbench.__version__}\n" in citation


def test_templates_and_tables_travel_with_the_package() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for package, patterns in data.items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package} has no {pattern}"


def test_no_lock_file_and_no_download_addresses() -> None:
    assert not list(ROOT.glob("*.lock"))
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert not re.search(r"index-url|find-links|git\+", text)
