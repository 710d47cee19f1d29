"""The registry of components, read lazily from entry points: listing imports no component.

Built-ins and plugins register alike, in the entry-point groups `privbench.datasets`, `.defenses`, `.attacks`,
`.evaluators`, `.networks`, `.embedders` and `.perceptuals`. A broken component raises an error that names it when it is
loaded; all others keep working.
"""

import ast
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal, get_args

from .errors import BrokenComponentError, UnknownComponentError

Kind = Literal["dataset", "defense", "attack", "evaluator", "network", "embedder", "perceptual"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: Kinds whose members are modules of torch, not configurations.
MODULES: tuple[Kind, ...] = ("network", "embedder", "perceptual")


@dataclass(frozen=True)
class RegisteredComponent:
    """A registered name and its origin; the component is not imported."""

    kind: Kind
    name: str
    target: str
    distribution: str
    release: str

    def summary(self) -> str:
        """Return the first sentence of the component's docstring from its source; empty if it cannot be read.

        If the file is missing or is not Python, the problem is returned instead. Looking for it may run code of the
        package.
        """
        module, _, attribute = self.target.partition(":")
        try:
            spec = importlib.util.find_spec(module)
            if spec is None:
                return f"does not import: there is no module {module!r}"
            tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8") if spec.origin else "")
        except OSError:
            return ""
        except Exception as cause:  # a plugin's fault must not take the listing along
            return f"does not import: {type(cause).__name__}: {cause}"
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == attribute:
                return (ast.get_docstring(node) or "").split("\n")[0]
        return ""


def _group(kind: Kind) -> str:
    return f"privbench.{kind}s"


def _entry(kind: Kind, point: EntryPoint) -> RegisteredComponent:
    distribution = point.dist
    name, release = (distribution.name, distribution.version) if distribution else ("unknown", "0")
    return RegisteredComponent(kind, point.name, point.value, name, release)


@cache
def _points(kind: Kind) -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=_group(kind)))


@cache
def entries(kind: Kind) -> tuple[RegisteredComponent, ...]:
    """Return all registered components of a kind by name; a name registered twice appears twice."""
    found = {_entry(kind, point) for point in _points(kind)}
    return tuple(sorted(found, key=lambda entry: (entry.name, entry.distribution)))


def names(kind: Kind) -> list[str]:
    """Return the registered names of a kind, sorted."""
    return sorted({point.name for point in _points(kind)})


def find(kind: Kind, name: str) -> RegisteredComponent:
    """Find the component of that name.

    Raises:
        UnknownComponentError: nothing registers the name.
        BrokenComponentError: two packages register it.
    """
    found = [entry for entry in entries(kind) if entry.name == name]
    if not found:
        raise UnknownComponentError(kind, name, names(kind))
    if len(found) > 1:
        owners = " and ".join(f"{entry.distribution} ({entry.target})" for entry in found)
        raise BrokenComponentError(f"{kind} {name!r} is registered by {owners}; uninstall one of them")
    return found[0]


def load(kind: Kind, name: str) -> type[Any]:
    """Import a component's class.

    Raises:
        UnknownComponentError: nothing registers the name.
        BrokenComponentError: it does not import, is of the wrong type, or two packages register it.
    """
    entry = find(kind, name)
    point = next(point for point in _points(kind) if point.name == name)
    try:
        component = point.load()
    except Exception as cause:
        reason = f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
        raise BrokenComponentError(f"{kind} {name!r} ({entry.target}) does not import: {reason}") from cause
    if not isinstance(component, type) or getattr(component, "kind", None) != kind:
        base = kind.capitalize()
        raise BrokenComponentError(f"expected {kind} {name!r} ({entry.target}) to be a subclass of {base}")
    missing = sorted(getattr(component, "__abstractmethods__", ()))
    if missing:
        raise BrokenComponentError(f"{kind} {name!r} ({entry.target}) does not define {', '.join(missing)}")
    return component


def singular(word: str, kinds: Iterable[Kind] = KINDS) -> Kind:
    """Return the kind named by `word`, singular or plural.

    Raises:
        UnknownComponentError: it names none.
    """
    for kind in kinds:
        if word in (kind, f"{kind}s"):
            return kind
    raise UnknownComponentError("kind of component", word, [f"{kind}s" for kind in kinds])
