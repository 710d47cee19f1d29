"""The pages that are generated from the code when the site is built."""

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers import blocks as code
from privbench.benchmark import registry
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.registry import KINDS, MODULES

HOOKS = code.ROOT / "docs" / "hooks"
MODULE_NAMES = ("docstrings", "component_pages", "metric_pages", "example_page")
BUILT_IN = [
    (kind, entry.name) for kind in KINDS for entry in registry.entries(kind) if entry.distribution == "privbench"
]


@pytest.fixture(scope="module")
def hooks() -> Iterator[dict[str, ModuleType]]:
    """The modules behind the hook, imported as mkdocs imports them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HOOKS))
        yield {name: importlib.import_module(name) for name in MODULE_NAMES}
        for name in MODULE_NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def pages(hooks: dict[str, ModuleType]) -> dict[str, str]:
    generated = dict(hooks["component_pages"].pages())
    return generated | {"metrics.md": hooks["metric_pages"].page(), "example.md": hooks["example_page"].page()}


@pytest.mark.parametrize(("kind", "name"), BUILT_IN)
def test_a_page_contains_the_output_of_show(kind: registry.Kind, name: str, pages: Any, hooks: Any) -> None:
    page = pages[f"components/{kind}s/{name}.md"]
    shown = hooks["component_pages"].shown(kind, name)
    assert page.startswith(f"# {name}\n")
    assert shown["about"].split("\n")[0].split("http")[0] in page
    fields = page.partition("## Fields")[2].partition("\n## ")[0]
    for field in shown["fields"]:
        (line,) = (line for line in fields.splitlines() if line.startswith(f"| `{field['name']}` | "))
        assert field["about"].replace("|", "\\|") in line
        for budget in ("full", "quick", "smoke"):
            assert field[budget] == "" or f"`{json.dumps(field[budget])}`" in line
    presets = page.partition("## Presets")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(.*?)` \| ", presets, re.MULTILINE) == list(shown["presets"])
    index = pages[f"components/{kind}s/index.md"]
    assert f"[`{name}`]({name}.md)" in index


def test_ranges_and_stages_are_shown(pages: Any) -> None:
    page = pages["components/attacks/vmi.md"]
    assert "| `style_mixing` | float, >= 0, <= 1 | `0.9` |" in page
    (line,) = (line for line in page.splitlines() if line.startswith("| `generator` "))
    assert "one of `dcgan`, `stylegan`" in line
    (line,) = (line for line in page.splitlines() if line.startswith("| `iterations` "))
    assert line.endswith("| evidence |")
    (line,) = (line for line in pages["components/datasets/digits.md"].splitlines() if "`judge.epochs`" in line)
    assert line.endswith("| judge |")


def test_a_preset_shows_its_differences(pages: Any) -> None:
    lines = pages["components/defenses/bido_hsic.md"].splitlines()
    (line,) = (line for line in lines if line.startswith("| `mnist` | "))
    assert line == "| `mnist` | `lambda_x` `2.0`, `lambda_y` `20.0` |"
    (line,) = (line for line in lines if line.startswith("| `mnist-published` | "))
    assert line == (
        "| `mnist-published` | `lambda_x` `2.0`, `lambda_y` `20.0`, `recipe.learning_rate` `0.1`, "
        "`recipe.epochs` `20` |"
    )
    assert "| `celeba` | nothing |" in lines


@pytest.mark.parametrize("name", [name for kind, name in BUILT_IN if kind == "dataset"])
def test_a_data_set_shows_its_whole_protocol(name: str, pages: Any) -> None:
    section = pages[f"components/datasets/{name}.md"].partition("## Protocol")[2].partition("\n## ")[0]
    for field in Protocol.model_fields:
        assert f"| `{field}` | " in section


def test_the_metrics_contain_every_definition(pages: Any) -> None:
    for kind, name in BUILT_IN:
        for each in registry.load("evaluator", name).scores if kind == "evaluator" else ():
            entry = pages["metrics.md"].partition(f"\n### {each.name}\n")[2].partition("\n### ")[0]
            assert each.formula[1:] in entry
            assert f"| for a defender | {each.better} is better |" in entry
            assert f"| range | {each.range} |" in entry
            assert f"[`{name}`](../evaluators/{name}.py)" in entry
            assert f"(../../metrics.md#{each.name})" in pages[f"components/evaluators/{name}.md"]


def test_rows_have_as_many_cells_as_the_heading(pages: Any) -> None:
    for path, page in pages.items():
        for table in re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE):
            counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
            assert len(counts) == 1, f"{path}: {table[:300]}"


def test_blocks_of_generated_pages_run(pages: Any, empty_session: Any) -> None:
    for path, page in pages.items():
        for block in code.blocks(page, path) if path != "example.md" else ():
            empty_session.run(block)


def test_the_example_shows_every_file(pages: Any, hooks: Any) -> None:
    package = code.ROOT / "docs" / "examples" / "privbench-letters"
    titles = {block.title for block in code.blocks(pages["example.md"], "example.md") if block.title}
    files = {str(path.relative_to(package.parent)) for path in package.rglob("*.py") if "build" not in path.parts}
    assert titles == files | {"privbench-letters/pyproject.toml"}


def test_plugins_of_this_machine_have_no_page(hooks: Any, monkeypatch: Any) -> None:
    entries = registry.entries("defense")
    other = registry.RegisteredComponent("defense", "other", "other:Other", "privbench-other", "1.0")
    monkeypatch.setattr(registry, "entries", lambda kind: (*entries, other) if kind == "defense" else ())
    assert "other" not in [entry.name for entry in hooks["component_pages"].built_in("defense")]


def test_formulas_lists_and_addresses(hooks: Any) -> None:
    prose = hooks["docstrings"].prose
    assert prose("see https://a.org/x, or\nhttps://b.org.") == "see <https://a.org/x>, or\n<https://b.org>."
    assert prose("so\n\n    a = b\n\n    c\n\nthen") == "so\n\n```text\na = b\n\nc\n```\n\nthen"
    assert prose("1. one\n    more") == "1. one\n    more"
    assert prose(r"with $a \to b$ in it") == r"with `a \to b` in it"
    found = hooks["docstrings"].parts("One.\n\n    Two.\n\n    Note:\n        a\n        b\n\n    Note:\n        c")
    assert found == ("One.", "Two.", [("Note", "a\nb"), ("Note", "c")])


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/]+\.md", (code.ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    docs = code.ROOT / "docs"
    there = {str(path.relative_to(docs)) for path in docs.rglob("*.md") if not {"examples", "hooks"} & set(path.parts)}
    assert listed == there | {"example.md"}


def test_networks_and_embedders_have_no_fields(pages: Any) -> None:
    for kind, name in BUILT_IN:
        if kind in MODULES:
            assert "## Fields" not in pages[f"components/{kind}s/{name}.md"]


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=code.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "components" / "attacks" / "kedmi" / "index.html").is_file()
    assert not (tmp_path / "site" / "hooks").exists()
