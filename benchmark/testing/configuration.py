"""Laws of every component: it is registered, says what it is, and its configuration is valid."""

from __future__ import annotations

import keyword
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from .. import registry
from ..core.canonical import canonical
from ..core.config import BUDGETS, Configuration, StageKind
from ..errors import BrokenComponentError, PrivbenchError, UnknownComponentError
from ..pipeline.cell import Selection
from ..pipeline.resolve import resolve
from .check import broken, require
from .component import ComponentUnderTest

_STAGES: tuple[StageKind, ...] = typing.get_args(StageKind)


def registered(subject: ComponentUnderTest) -> None:
    """An entry point of one installed package names the class, which imports and is of its kind."""
    group = f"privbench.{subject.kind}s"
    try:
        name, cls = subject.name, subject.cls
    except UnknownComponentError:
        raise
    except BrokenComponentError as cause:
        broken(
            str(cause),
            f'name the class in [project.entry-points."{group}"] of its pyproject.toml as NAME = "module:Class", list '
            "what it imports in dependencies, and install it again (pip install -e .)",
        )
    require(
        name.isidentifier() and name.islower() and not keyword.iskeyword(name),
        f"{subject.title} is registered as {name!r}",
        f"choose a name of lower-case letters, digits and underscores in the entry-point group {group}",
    )
    require(cls.__module__ != "__main__", f"{subject.title} lies in __main__", "move it into a module of its package")


def described(subject: ComponentUnderTest) -> None:
    """The class has a docstring that begins with a sentence, and a version."""
    cls = subject.cls
    own = cls.__dict__.get("__doc__") or ""
    first = own.strip().split("\n")[0]
    require(bool(first), f"{cls.__name__} has no docstring", "add one, its first line a sentence for `privbench list`")
    require(
        first.endswith((".", "!", "?")),
        f"the docstring of {cls.__name__} begins with {first!r}",
        "make its first line a whole sentence that ends in a full stop",
    )
    version = cls.version
    require(
        isinstance(version, int) and not isinstance(version, bool) and version >= 1,
        f"{cls.__name__}.version is {version!r}",
        "make it an integer from 1, raised when a change alters results",
    )


def fields(subject: ComponentUnderTest) -> None:
    """Every field has a description, every number a range, and every stage that a field names exists."""
    for name, info in _fields(subject.cls):
        require(
            bool(info.description),
            f"the field {name} has no description",
            f"declare it as {name.rpartition('.')[2]}: ... = setting(default, 'unit and meaning')",
        )
        kinds = {info.annotation}
        if typing.get_origin(info.annotation) in (typing.Union, types.UnionType):
            kinds |= set(typing.get_args(info.annotation))
        require(
            not kinds & {int, float} or bool(info.metadata),
            f"the field {name} takes any number",
            "give setting() the range that makes sense: ge, gt, le or lt",
        )
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        for stage in typing.cast("list[str]", extra.get("stages", [])):
            require(
                stage in _STAGES, f"the field {name} names the stage {stage!r}", f"choose from {', '.join(_STAGES)}"
            )


def configuration(subject: ComponentUnderTest) -> None:
    """The defaults are valid under every budget and preset, survive JSON and cannot be changed afterwards."""
    cls, name, kind = subject.cls, subject.name, subject.kind
    digits = None if kind == "dataset" else resolve("dataset", Selection("digits"), "full", {})
    for preset in (None, *cls.presets):
        for budget in BUDGETS:
            try:
                made = resolve(kind, Selection(name, preset), budget, {}, digits).component
            except PrivbenchError as cause:
                where = f"under the budget {budget}" + (f" with the preset {preset!r}" if preset else "")
                broken(
                    f"{cls.__name__} is not valid {where}: {cause}",
                    "give every field a default in its range, and presets and budgets values in it",
                )
            _survives(made)
    _frozen(made)


def _survives(made: Any) -> None:
    try:
        again = type(made).model_validate_json(made.model_dump_json())
        canonical(made.config())
    except (ValidationError, ValueError, TypeError) as cause:
        first = str(cause).strip().splitlines()[0]
        broken(f"{type(made).__name__} does not survive JSON: {first}", "use fields of types that JSON can hold")
    require(
        again == made,
        f"{made!r} comes back from JSON as {again!r}",
        "use fields of types that JSON can hold, tuples rather than lists or sets",
    )


def _frozen(made: Any) -> None:
    for name in type(made).model_fields:
        try:
            setattr(made, name, getattr(made, name))
        except ValidationError:
            continue
        broken(
            f"the field {name} of {type(made).__name__} can be changed",
            "leave frozen=True in its model_config: the fields are part of the cache key",
        )


def _fields(cls: type[Configuration], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in cls.model_fields.items():
        yield prefix + name, info
        if isinstance(info.annotation, type) and issubclass(info.annotation, Configuration):
            yield from _fields(info.annotation, f"{prefix}{name}.")


def registered_names(subject: ComponentUnderTest) -> list[str]:
    """The other registered names of the subject's kind whose components load."""
    found = []
    for name in registry.names(subject.kind):
        try:
            if name != subject.name and registry.load(subject.kind, name):
                found.append(name)
        except BrokenComponentError:  # another package's fault
            continue
    return found
