"""The code and the tables of checks in docs/plugins.md are correct."""

import re
import sys
from pathlib import Path

import pytest
from helpers.installed import refresh_registry
from privbench.benchmark import registry
from privbench.benchmark.testing.checks import check, checks

pytestmark = pytest.mark.usefixtures("local_targets")
GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "plugins.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
#: In the order of the guide, a block each.
SHOWN = [
    ("defense", "LabelSmoothing"),
    ("attack", "RandomSearch"),
    ("evaluator", "Brightness"),
    ("dataset", "Stripes"),
    ("network", "SmallMLP"),
    ("dataset", "DigitsByMLP"),
    ("embedder", "Thumbnail"),
    ("perceptual", "Blurs"),
]


def table() -> str:
    """The checks as the guide lists them."""
    lines = []
    for kind in registry.KINDS:
        article = "an" if kind[0] in "aeiou" else "a"
        lines += ["", f"### Checks of {article} {kind}", "", "| check | requirement |", "|---|---|"]
        lines += [f"| `{each}` | {each.about} |" for each in checks(kind)]
    return "\n".join(lines[1:])


def test_the_checks_are_those_of_the_code() -> None:
    assert GUIDE.partition("<!-- checks -->\n")[2].partition("\n<!-- end -->")[0] == table()


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guide")
    (folder / "guide_components.py").write_text("\n\n".join(BLOCKS[: len(SHOWN)]), encoding="utf-8")
    facts = folder / "guide_components-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: guide-components\nVersion: 1.0\n")
    names = {kind: [name for other, name in SHOWN if other == kind] for kind, _ in SHOWN}
    lines = []
    for kind, classes in names.items():
        lines += [f"[privbench.{kind}s]", *(f"{name.lower()} = guide_components:{name}" for name in classes)]
    (facts / "entry_points.txt").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        refresh_registry()
        yield
    sys.modules.pop("guide_components", None)
    refresh_registry()


@pytest.mark.parametrize(("kind", "name"), SHOWN)
def test_components_of_the_guide_pass_the_checks(kind: str, name: str, tmp_path: Path) -> None:
    found = check(kind, name.lower(), data=tmp_path)
    assert {result.check: result.message for result in found if result.state != "passed"} == {}


def test_the_block_for_pytest_runs() -> None:
    scope: dict = {}
    exec(BLOCKS[-1], scope)
    scope["test_conformance"](next(each for each in checks("defense") if each.name == "described"))
