"""Links, paths and generated tables of the documentation are correct."""

import importlib
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import blocks
from helpers.links import anchors, github_slug, links, site_slug
from privbench.benchmark import registry

ROOT = blocks.ROOT
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in blocks.pages()}
#: Pages that are read in the repository only.
OTHERS = ("CHANGELOG.md", "CONTRIBUTING.md", "results/README.md")
PAGES |= {name: (ROOT / name).read_text(encoding="utf-8") for name in OTHERS}


@pytest.fixture(scope="module")
def hooks() -> Iterator[dict[str, ModuleType]]:
    """The modules in docs/hooks that do not need mkdocs."""
    names = [path.stem for path in (ROOT / "docs" / "hooks").glob("*.py") if path.stem != "generated_pages"]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs" / "hooks"))
        yield {name: importlib.import_module(name) for name in names}
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def site(hooks: Any) -> dict[str, str]:
    """The pages of the site by their path in docs, with the links that the hooks write."""
    pages = dict(hooks["component_pages"].pages()) | {"example.md": hooks["example_page"].page()}
    pages |= {
        name.removeprefix("docs/"): text
        for name, text in PAGES.items()
        if name.startswith("docs/") and not name.startswith(("docs/examples/", "docs/hooks/"))
    }
    return {name: hooks["site_links"].for_site(text, name) for name, text in pages.items()}


def test_no_page_holds_an_unresolved_merge() -> None:
    marked = [page for page, text in PAGES.items() if re.search(r"^(<<<<<<< |=======$|>>>>>>> )", text, re.MULTILINE)]
    assert marked == []


@pytest.mark.parametrize("page", PAGES)
def test_links_work_in_the_repository(page: str) -> None:
    for link in links(PAGES[page]):
        path, _, anchor = link.partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
        assert (ROOT / target).exists(), f"{page} links to {link}, which does not exist"
        if anchor:
            text = (ROOT / target).read_text(encoding="utf-8")
            assert anchor in anchors(text, github_slug), f"{page} links to {link}, but there is no such heading"


def test_links_work_on_the_site(site: dict[str, str]) -> None:
    for page, text in site.items():
        for link in links(text):
            path, _, anchor = link.partition("#")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
            assert target in site or (ROOT / "docs" / target).is_file(), f"{page} links to {link}, not on the site"
            assert not target.startswith(("examples/", "hooks/")), f"{page} links to {link}, which the site leaves out"
            if anchor:
                assert anchor in anchors(site[target], site_slug), f"{page}: there is no heading for {link}"


def test_a_broken_link_is_found() -> None:
    text = "# A *b* `c_d`, e - f\n\n[x](x.md#y) ![z](z.png) [w](https://w.org)\n\n| a |\n|---|\n| [t](t.md) |"
    assert list(links(text)) == ["x.md#y", "z.png", "t.md"]
    assert anchors(text, github_slug) == {"a-b-c_d-e---f"}
    assert anchors(text, site_slug) == {"a-b-c_d-e-f"}


@pytest.mark.parametrize("page", PAGES)
def test_paths_of_the_source_exist(page: str) -> None:
    folders = "tests|benchmark|attacks|defenses|evaluators|docs"
    for path in re.findall(rf"(?<![\w./-])(?:(?:{folders})/[\w./-]*\w|test_\w+\.py)", PAGES[page]):
        placeholder = re.search(r"\b[A-Z]+\b", path)
        assert placeholder or (ROOT / path).exists(), f"{page} names {path}, which does not exist"


@pytest.mark.parametrize("page", PAGES)
def test_modules_of_the_package_exist(page: str) -> None:
    for name in re.findall(r"\bprivbench\.benchmark(?:\.\w+)+", PAGES[page]):
        parts = name.split(".")
        while parts and not (
            ROOT.joinpath(*parts[1:]).is_dir() or ROOT.joinpath(*parts[1:]).with_suffix(".py").exists()
        ):
            parts.pop()
        module = importlib.import_module(".".join(parts))
        rest = name.split(".")[len(parts) :]
        assert len(rest) < 2, f"{page} names {name}, which does not exist"
        assert all(hasattr(module, each) for each in rest), f"{page} names {name}, which does not exist"


def test_generated_tables_are_up_to_date(hooks: Any) -> None:
    for path, text in hooks["write_tables"].written():
        assert path.read_text(encoding="utf-8") == text, f"run `make docs-tables`: {path.name} is out of date"


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_every_data_set_has_a_section(name: str) -> None:
    if registry.find("dataset", name).distribution == "privbench":
        assert f"\n## {name}\n" in PAGES["docs/protocols.md"]


def test_the_readme_begins_with_purpose_commands_and_result() -> None:
    """A reader sees who the project is for, how to set it up, and one result, in this order."""
    text = PAGES["README.md"]
    places = [text.index(part) for part in ("privbench is for", "make demo", "make test", "## A real result")]
    assert places == sorted(places)
    assert Path(ROOT / "results" / "records").is_dir()
