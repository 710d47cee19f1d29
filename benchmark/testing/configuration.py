"""Checks of every component: it is registered and described, and its configuration is valid."""

import keyword
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from .. import registry
from ..core.canonical import canonical
from ..core.config import BUDGETS, Configuration
from ..errors import BrokenComponentError, PrivbenchError, UnknownComponentError
from ..pipeline.cell import Selection
from ..pipeline.resolve import resolve
from .check import fail, require
from .component import ComponentUnderTest, digits


def registered(subject: ComponentUnderTest) -> None:
    """An entry point of one installed package names the class, which can be imported and has the right kind."""
    group = f"privbench.{subject.kind}s"
    try:
        name, cls = subject.name, subject.cls
    except UnknownComponentError:
        raise
    except BrokenComponentError as cause:
        fail(
            str(cause),
            f'name the class in [project.entry-points."{group}"] of its pyproject.toml as NAME = "module:Class", list '
            "its imports in dependencies, and install it again (pip install -e .)",
        )
    require(
        name.isidentifier() and name.islower() and not keyword.iskeyword(name),
        f"{subject.title} is registered as {name!r}",
        f"choose a name of lower-case letters, digits and underscores in the entry-point group {group}",
    )
    require(cls.__module__ != "__main__", f"{subject.title} is defined in __main__", "move it into its package")


def described(subject: ComponentUnderTest) -> None:
    """The class has a version and a docstring that begins with a sentence."""
    cls = subject.cls
    own = cls.__dict__.get("__doc__") or ""
    first = own.strip().split("\n")[0]
    require(bool(first), f"{cls.__name__} has no docstring", "add one, its first line a sentence for `privbench list`")
    require(
        first.endswith((".", "!", "?")),
        f"the docstring of {cls.__name__} begins with {first!r}",
        "make its first line a complete sentence that ends in a full stop",
    )
    version = cls.version
    require(
        isinstance(version, int) and not isinstance(version, bool) and version >= 1,
        f"{cls.__name__}.version is {version!r}",
        "make it an integer from 1, and raise it when a change alters results",
    )


def fields(subject: ComponentUnderTest) -> None:
    """Every field has a description, and every number a range."""
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
            f"the field {name} accepts any number",
            "give setting() a range: ge, gt, le or lt",
        )


def configuration(subject: ComponentUnderTest) -> None:
    """The defaults are valid under every budget and preset, survive JSON, and cannot be changed afterwards."""
    cls, name, kind = subject.cls, subject.name, subject.kind
    data = None if kind == "dataset" else digits("full")
    for preset in (None, *cls.presets):
        for budget in BUDGETS:
            try:
                made = resolve(kind, Selection(name, preset), budget, {}, data).component
            except PrivbenchError as cause:
                where = f"under the budget {budget}" + (f" with the preset {preset!r}" if preset else "")
                fail(
                    f"{cls.__name__} is not valid {where}: {cause}",
                    "give every field a default in its range, and use only values in its range in presets and budgets",
                )
            _require_json_round_trip(made)
    _require_frozen(made)


def _require_json_round_trip(made: Any) -> None:
    try:
        again = type(made).model_validate_json(made.model_dump_json())
        canonical(made.config())
    except (ValidationError, ValueError, TypeError) as cause:
        first = str(cause).strip().splitlines()[0]
        fail(f"{type(made).__name__} does not survive JSON: {first}", "use only field types that JSON can represent")
    require(
        again == made,
        f"{made!r} is read back from JSON as {again!r}",
        "use only field types that JSON can represent, and tuples rather than lists or sets",
    )


def _require_frozen(made: Any) -> None:
    for name in type(made).model_fields:
        try:
            setattr(made, name, getattr(made, name))
        except ValidationError:
            continue
        fail(
            f"the field {name} of {type(made).__name__} can be changed",
            "keep frozen=True in its model_config: the fields are part of the cache key",
        )


def _fields(cls: type[Configuration], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, info in cls.model_fields.items():
        yield prefix + name, info
        if isinstance(info.annotation, type) and issubclass(info.annotation, Configuration):
            yield from _fields(info.annotation, f"{prefix}{name}.")


def registered_names(subject: ComponentUnderTest) -> list[str]:
    """The other registered names of the same kind whose components load."""
    found = []
    for name in registry.names(subject.kind):
        try:
            if name != subject.name and registry.load(subject.kind, name):
                found.append(name)
        except BrokenComponentError:  # an error in another package
            continue
    return found
