"""Broken plugins are named by what asks for them, and harm nothing else."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.installed import refresh_registry

RUN = ("run", "--no-controls", "--budget", "smoke", "--set", "dataset.draws=1", "--set", "gmi.max_steps=2")
RUN += ("--set", "gmi.iterations=2")
#: Module, its source, and of each name what is said when it is asked for.
MODULES = {
    "bad_raises": "raise RuntimeError('no licence')",
    "bad_missing": "import a_package_that_is_not_there",
    "bad_syntax": "def",
    "bad_type": "class Thing:\n    pass\nnumber = 3",
    "bad_abstract": "from privbench import Defense\nclass Abstract(Defense):\n    '''Half done.'''",
    "bad_clash": "from privbench.defenses.mid import MID",
}
ENTRIES = {
    "defenses": {
        "raises": "bad_raises:X",
        "missing": "bad_missing:X",
        "syntax": "bad_syntax:X",
        "absent": "bad_absent:X",
        "inside": "bad_package.part:X",
        "nothing": "bad_type:Nothing",
        "class": "bad_type:Thing",
        "number": "bad_type:number",
        "abstract": "bad_abstract:Abstract",
        "mid": "bad_clash:MID",
    },
    "evaluators": {"raises": "bad_raises:X"},
}
SAID = {
    "raises": "RuntimeError: no licence",
    "missing": "No module named 'a_package_that_is_not_there'",
    "syntax": "SyntaxError",
    "absent": "No module named 'bad_absent'",
    "inside": "RuntimeError: no licence",
    "nothing": "no attribute 'Nothing'",
    "class": "to be a subclass of Defense",
    "number": "to be a subclass of Defense",
    "abstract": "does not define loss",
    "mid": "is registered by bad-plugins (bad_clash:MID) and privbench (privbench.defenses.mid:MID); uninstall one",
}


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("bad")
    for name, source in MODULES.items():
        (folder / f"{name}.py").write_text(source)
    (folder / "bad_package").mkdir()
    (folder / "bad_package" / "__init__.py").write_text(MODULES["bad_raises"])
    facts = folder / "bad_plugins-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-plugins\nVersion: 1.0\n")
    groups = [
        "\n".join([f"[privbench.{group}]", *(f"{name} = {target}" for name, target in names.items())])
        for group, names in ENTRIES.items()
    ]
    (facts / "entry_points.txt").write_text("\n".join(groups))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        refresh_registry()
        yield
    for name in [name for name in sys.modules if name.startswith("bad_")]:
        del sys.modules[name]
    refresh_registry()


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("command", ["run", "show", "check"])
def test_the_culprit_is_named(privbench, command: str, name: str, tmp_path: Path) -> None:
    words = (*RUN, "--defense", name, "--attack", "gmi") if command == "run" else (command, "defense", name)
    code, out, err = privbench(*words)
    assert code == 1
    assert f"defense {name!r}" in out + err or f"'{name}'" in out + err
    assert SAID[name] in " ".join((out + err).replace("│", " ").split())
    assert "Traceback" not in out + err
    assert not (tmp_path / "store").exists()


def test_all_are_listed_and_what_can_be_seen_is_said(privbench) -> None:
    code, out, _ = privbench("list", "defenses", "--json")
    assert code == 0
    rows = json.loads(out)
    found = {row["name"]: row["summary"] for row in rows if row["from"] == "bad-plugins 1.0"}
    assert set(found) == set(ENTRIES["defenses"])
    assert found["absent"] == "does not import: there is no module 'bad_absent'"
    assert found["inside"] == "does not import: RuntimeError: no licence"
    assert found["syntax"].startswith("does not import: SyntaxError")
    assert [row["summary"].partition(":")[0] for row in rows if row["name"] == "mid"] == [
        "registered more than once and therefore unusable"
    ] * 2
    assert next(row["summary"] for row in rows if row["name"] == "bido_hsic").startswith("Bilateral")
    assert privbench("list")[0] == 0


def test_everything_else_works(privbench, tmp_path: Path) -> None:
    code, _, err = privbench(*RUN, "--defense", "none", "--attack", "gmi")
    assert code == 0, err
    (path,) = (tmp_path / "results").rglob("*.json")
    record = json.loads(path.read_text("utf-8"))
    assert record["scores"]["attack_acc"]["value"] is not None
    assert "RuntimeError: no licence" in record["not_run"]["raises"]["reason"]
    assert privbench("report", str(tmp_path / "results"))[0] == 0


def test_the_cells_of_others_are_not_run_beside_a_broken_one(privbench, tmp_path: Path) -> None:
    """A matrix is resolved before anything is computed, so that a typo is seen at once."""
    code, _, err = privbench(*RUN, "--defense", "none", "--defense", "raises", "--attack", "gmi")
    assert code == 1
    assert "no licence" in err
    assert not (tmp_path / "store").exists()
