"""Create a package with one component: pyproject, module, tests and README from the templates beside this file."""

import importlib.util
import keyword
import re
from collections.abc import Mapping
from pathlib import Path

from .. import registry
from ..errors import InvalidConfigurationError, StorageError
from ..files.atomic import remove, storage_errors, write_file, write_folder
from ..registry import Kind

#: Kinds of components with a template.
KINDS: tuple[Kind, ...] = ("defense", "attack", "evaluator", "dataset")
_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def folder_of(name: str) -> Path:
    """Default folder of a package."""
    return Path(f"privbench-{name.replace('_', '-')}")


def create(kind: str, name: str, folder: Path) -> Path:
    """Write a complete package; write nothing if that fails.

    Args:
        kind: `defense`, `attack`, `evaluator` or `dataset`.
        name: registered name of the component.
        folder: of the package; it must be empty or not exist.

    Returns:
        The folder.

    Raises:
        UnknownComponentError: the kind does not exist.
        InvalidConfigurationError: the name is invalid or in use.
        StorageError: the folder is in use or cannot be written.
    """
    chosen = registry.singular(kind, KINDS)
    _check_name(chosen, name)
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise StorageError(f"expected {folder} not to exist or to be an empty folder, got one in use; choose another")
    content = {path: text.encode() for path, text in _render(chosen, name).items()}
    if not folder.exists():
        write_folder(folder, content)
        return folder
    # An empty folder is filled in place, because it may be the working folder.
    with storage_errors(folder, otherwise="choose another folder"):
        try:
            for path, data in content.items():
                write_file(folder / path, data)
        except BaseException:
            for entry in folder.iterdir():
                remove(entry)
            raise
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


def _render(kind: Kind, name: str) -> Mapping[str, str]:
    """Contents of the files, by path inside the package."""
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
