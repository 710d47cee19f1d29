"""`privbench new` writes a whole package or nothing, and refuses names and folders in use."""

import ast
import tomllib
from pathlib import Path

import pytest
from helpers import command_line
from privbench.benchmark.errors import InvalidConfigurationError, StorageError, UnknownComponentError
from privbench.benchmark.scaffold import scaffold


@pytest.mark.parametrize("kind", scaffold.KINDS)
def test_a_package_is_complete(kind: str, tmp_path: Path) -> None:
    folder = scaffold.create(kind, "blue_fox", tmp_path / "deep" / "package")
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {"pyproject.toml", "README.md", "privbench_blue_fox.py", "tests/test_blue_fox.py"}
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["name"] == "privbench-blue-fox"
    assert project["project"]["dependencies"][0].startswith("privbench>=")
    assert project["project"]["entry-points"] == {f"privbench.{kind}s": {"blue_fox": "privbench_blue_fox:BlueFox"}}
    tree = ast.parse((folder / "privbench_blue_fox.py").read_text("utf-8"))
    (component,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    assert component.name == "BlueFox"
    assert f"privbench check {kind} blue_fox" in (folder / "README.md").read_text("utf-8")
    assert not [
        path for path in folder.rglob("*") if "{{" in path.name or (path.is_file() and "{{" in path.read_text())
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["package"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Big",
        "two words",
        "9lives",
        "über",
        "a-b",
        "class",
        "../up",
        "x" * 41,
        "tail_",
        "a__b",
        "a.b",
        "new\n",
        "_a",
    ],
)
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigurationError, match=r"lower-case letters.*choose one such as my_attack"):
        scaffold.create("attack", name, tmp_path / "package")
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken_is_refused(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(InvalidConfigurationError, match="got 'gmi', which privbench registers"):
        scaffold.create("attack", "gmi", tmp_path / "package")
    scaffold.create("defense", "gmi", tmp_path / "package")
    monkeypatch.syspath_prepend(str(tmp_path / "package"))
    with pytest.raises(InvalidConfigurationError, match="privbench_gmi is a module"):
        scaffold.create("evaluator", "gmi", tmp_path / "other")


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownComponentError, match="did you mean 'defenses'"):
        scaffold.create("defence", "blue_fox", tmp_path / "package")


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("package", "file", "link"):
        with pytest.raises(StorageError, match=f"{name} not to exist or to be an empty folder"):
            scaffold.create("defense", "blue_fox", tmp_path / name)
    with pytest.raises(StorageError, match="choose another folder"):
        scaffold.create("defense", "blue_fox", tmp_path / "file" / "package")
    assert {path.name for path in tmp_path.rglob("*")} == {"package", "notes.txt", "file", "link"}


def test_the_working_folder_can_be_filled(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    scaffold.create("defense", "blue_fox", Path())
    assert (Path.cwd() / "privbench_blue_fox.py").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("exists", [False, True])
def test_nothing_is_left_half_written(tmp_path: Path, monkeypatch, exists: bool) -> None:
    package = tmp_path / "package"
    if exists:
        package.mkdir()
    real, calls = Path.replace, []

    def replace(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return real(self, target)

    def rename(self, target):
        calls.append(target)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StorageError, match="no space left on device; free some space, or choose another folder"):
        scaffold.create("defense", "blue_fox", package)
    assert calls
    assert [path.name for path in tmp_path.rglob("*")] == (["package"] if exists else [])


def test_the_command(privbench: command_line.Command) -> None:
    code, out, err = privbench("new", "defense", "blue_fox")
    assert code == 0
    assert "privbench-blue-fox/privbench_blue_fox.py" in out.splitlines()
    assert "privbench check defense blue_fox" in err
    assert "in use; choose another" in command_line.refusal("new", "defense", "blue_fox")
