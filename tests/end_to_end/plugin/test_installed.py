"""Packages that `privbench new` writes, really installed by pip: tested, found, checked, run and reported."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import command_line
from helpers.installed import refresh_registry
from privbench.benchmark.scaffold import scaffold

NAMES = {"defense": "calm", "attack": "stroll", "evaluator": "roughness", "dataset": "late_digits"}


class Session:
    """Runs commands in this process, in folders of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def package(self, kind: str) -> Path:
        return self.root / scaffold.folder_of(NAMES[kind])

    def call(self, *words: str) -> command_line.Result:
        """Exit code, stdout and stderr."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.root)
            patch.setenv("COLUMNS", "250")
            for name in ("STORE", "RESULTS", "DATA", "CACHE"):
                patch.setenv(f"PRIVBENCH_{name}", str(self.root / name.lower()))
            return command_line.run(*words)


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Iterator[Session]:
    """The four packages, written by `privbench new`, installed by pip into a folder that is on the path."""
    pytest.importorskip("setuptools")
    made = Session(tmp_path_factory.mktemp("plugins"))
    for kind, name in NAMES.items():
        code, _, err = made.call("new", kind, name)
        assert code == 0, err
    site = made.root / "site"
    words = ["--no-deps", "--no-build-isolation", "--no-index", "--no-compile", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *words, "--target", str(site)]
    subprocess.run([*command, *(str(made.package(kind)) for kind in NAMES)], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        refresh_registry()
        yield made
    for name in NAMES.values():
        sys.modules.pop(f"privbench_{name}", None)
    refresh_registry()


def test_their_own_tests_pass_unchanged(session: Session) -> None:
    environment = os.environ | {"PYTHONPATH": str(session.root / "site"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    words = ["-q", "-W", "error", "-p", "no:cacheprovider", "--import-mode=importlib", "--rootdir", str(session.root)]
    folders = [str(session.package(kind) / "tests") for kind in NAMES]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *folders],
        cwd=session.root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_they_are_listed(session: Session) -> None:
    rows = json.loads(session.call("list", "--json")[1])
    found = {(row["kind"], row["name"]): row for row in rows}
    for kind, name in NAMES.items():
        assert found[kind, name]["from"] == f"{scaffold.folder_of(name)} 0.1.0"
        assert found[kind, name]["summary"].endswith(".")


@pytest.mark.parametrize("kind", NAMES)
def test_they_are_checked(session: Session, kind: str) -> None:
    code, out, err = session.call("check", kind, NAMES[kind], "--json")
    assert code == 0, out + err
    assert {row["state"] for row in json.loads(out)} == {"passed"}


def test_they_run_against_the_built_in_and_are_reported(session: Session) -> None:
    usual = ["--no-controls", "--budget", "smoke", "--evaluator", "accuracy", "--evaluator", "roughness"]
    for setting in ("dataset.draws=2", "gmi.max_steps=3", "gmi.iterations=3", "defense.recipe.max_steps=3"):
        usual += ["--set", setting]
    code, _, err = session.call(
        *("run", *usual, "--defense", "none", "--defense", "calm", "--attack", "stroll", "--attack", "gmi")
    )
    assert code == 0, err
    code, _, err = session.call(*("run", *usual), "--dataset", "late_digits", "--defense", "none", "--attack", "gmi")
    assert code == 0, err
    code, text, err = session.call("report", str(session.root / "results"), "--format", "md")
    assert code == 0, err
    for word in ("digits/v2", "late_digits/v1", "calm", "stroll", "gmi", "roughness"):
        assert word in text
    records = [json.loads(path.read_text("utf-8")) for path in (session.root / "results").rglob("*.json")]
    assert len(records) == 5
    for record in records:
        assert record["scores"]["roughness"]["value"] is not None
        cell = record["cell"]
        owners = {cell[kind]["name"]: cell[kind]["distribution"] for kind in ("dataset", "defense", "attack")}
        assert all(
            owner == ("privbench" if name not in NAMES.values() else str(scaffold.folder_of(name)))
            for name, owner in owners.items()
        )


def test_a_failed_check_is_shown_with_its_fix(session: Session) -> None:
    code, out, err = session.call("check", "defense", "calm", "--set", "weight=-1")
    assert code == 1, out + err
    assert "defense.weight" in out
    assert "failed" in out.splitlines()[-1]


@pytest.mark.parametrize(("words", "needle"), [(("defense", "clam"), "'calm'"), (("defence", "calm"), "'defenses'")])
def test_an_unknown_component_exits_with_two(session: Session, words: tuple[str, str], needle: str) -> None:
    code, _, err = session.call("check", *words)
    assert code == 2
    assert f"did you mean {needle}?" in err
