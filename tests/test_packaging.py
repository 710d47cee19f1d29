"""The lists in pyproject.toml agree with the disk and with the installation; tools and workflows are pinned."""

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


def test_every_listed_component_is_installed() -> None:
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


def test_package_data_exists() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for package, patterns in data.items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package} has no {pattern}"


def test_there_is_no_lock_file_and_no_index_url() -> None:
    assert not list(ROOT.glob("*.lock"))
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert not re.search(r"index-url|find-links|git\+", text)


def test_dev_contains_what_the_other_extras_need() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    listed = {re.split(r"[;\s]", requirement)[0] for requirement in extras["dev"]}
    for name in ("docs", "ray", "s3"):
        assert set(extras[name]) <= listed, f"add the requirements of {name} to dev"


def test_hooks_run_the_tools_of_the_virtual_environment() -> None:
    """The versions of pre-commit are then those of the dev extra."""
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"^  - repo: (.*)$", text, re.MULTILINE) == ["local"]
    entries = re.findall(r"^ +entry: (.*)$", text, re.MULTILINE)
    assert len(entries) == 3
    assert all(entry.startswith(".venv/bin/") for entry in entries)


def test_actions_are_pinned_by_commit() -> None:
    workflows = list((ROOT / ".github" / "workflows").glob("*.yml"))
    assert {"ci.yml", "submissions.yml"} <= {path.name for path in workflows}
    for path in workflows:
        for line in re.findall(r"uses: (.*)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", line), f"{path.name}: {line}"


def test_the_workflow_tests_every_supported_python() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    supported = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert supported == re.findall(r'"(3\.\d+)"', text.partition("matrix:")[2].partition("]")[0])
