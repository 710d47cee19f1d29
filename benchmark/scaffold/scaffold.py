"""A new package with one component: pyproject, module, tests, README, from the templates beside this file."""

from __future__ import annotations

import importlib.util
import keyword
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .. import registry
from ..errors import InvalidConfigurationError, StorageError
from ..registry import Kind

#: Kinds of components that there are templates of.
KINDS: tuple[Kind, ...] = ("defense", "attack", "evaluator", "dataset")
_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def folder_of(name: str) -> Path:
    """Where a package goes by default."""
    return Path(f"privbench-{name.replace('_', '-')}")


def create(kind: str, name: str, folder: Path) -> Path:
    """Write a complete package, or nothing.

    Args:
        kind: `defense`, `attack`, `evaluator` or `dataset`.
        name: that the component is to be registered under.
        folder: of the package; it must not exist, or be empty.

    Returns:
        The folder.

    Raises:
        UnknownComponentError: there is no such kind.
        InvalidConfigurationError: the name is none, or taken.
        StorageError: the folder is in use or cannot be written.
    """
    chosen = registry.singular(kind, KINDS)
    _check_name(chosen, name)
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise StorageError(f"expected {folder} not to exist or to be an empty folder, got one in use; choose another")
    files = _rendered(chosen, name)
    try:
        _write(files, folder)
    except OSError as cause:
        reason = cause.strerror or str(cause)
        raise StorageError(f"package {folder} cannot be written: {reason}; choose another folder") from cause
    return folder


def _check_name(kind: Kind, name: str) -> None:
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name.endswith("_") or "__" in name:
        raise InvalidConfigurationError(
            "expected name to be at most 40 lower-case letters, digits and single underscores, a letter first, got "
            f"{name!r}; choose one such as my_{kind}"
        )
    if name in registry.names(kind):
        owner = next(entry for entry in registry.entries(kind) if entry.name == name)
        raise InvalidConfigurationError(
            f"expected name to be new, got {name!r}, which {owner.distribution} registers; choose another"
        )
    module = _module(name)
    if importlib.util.find_spec(module) is not None:
        raise InvalidConfigurationError(f"expected name to be new, got {name!r}, but {module} is a module; rename it")


def _module(name: str) -> str:
    return f"privbench_{name}"


def _class_name(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


def _rendered(kind: Kind, name: str) -> Mapping[str, str]:
    """The files of the package, by path inside it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from ... import __version__

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    values = {
        "kind": kind,
        "name": name,
        "module": _module(name),
        "distribution": folder_of(name).name,
        "class_name": _class_name(name),
        "privbench": __version__,
        "kinds": KINDS,
    }
    sources = {
        "pyproject.toml": "pyproject.toml.j2",
        "README.md": "README.md.j2",
        f"{_module(name)}.py": f"{kind}.py.j2",
        f"tests/test_{name}.py": f"test_{kind}.py.j2",
    }
    return {path: environment.get_template(source).render(values) for path, source in sources.items()}


def _write(files: Mapping[str, str], folder: Path) -> None:
    """Write beside the folder first, so that it appears whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    parent = folder.resolve().parent
    staged = Path(tempfile.mkdtemp(dir=parent, prefix=".privbench-new-"))
    try:
        for path, text in files.items():
            (staged / path).parent.mkdir(parents=True, exist_ok=True)
            (staged / path).write_text(text, encoding="utf-8")
        staged.chmod(0o755)
        if folder.exists():
            _move(staged, folder)
        else:
            staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _move(staged: Path, folder: Path) -> None:
    """Move into an empty folder, which may be the working folder; take everything back should that fail."""
    moved: list[Path] = []
    try:
        for entry in sorted(staged.iterdir()):
            moved.append(folder / entry.name)
            entry.rename(folder / entry.name)
    except OSError:
        for path in moved:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise
