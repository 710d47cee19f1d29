"""The component on trial: its class, its name, and an instance with the cheapest settings that it understands."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from .. import registry
from ..core.canonical import canonical
from ..core.paths import data_root
from ..errors import BrokenComponentError
from ..pipeline.cell import Choice, Selection
from ..pipeline.resolve import resolve
from ..registry import Kind

T = TypeVar("T")
#: The cheapest settings under which a loop can still be interrupted and go on, for components that have the field.
TINY: Mapping[str, Any] = {"max_steps": 3, "iterations": 3, "batch_size": 8}
_RECIPE: Mapping[str, Any] = {"max_steps": 3, "batch_size": 16}


class ComponentUnderTest:
    """One component with what the laws have computed of it so far.

    Args:
        kind: of the component.
        given: the class or the registered name.
        settings: values of fields by name.
        data: the data folder.
    """

    def __init__(self, kind: Kind, given: type[Any] | str, settings: Mapping[str, Any], data: Path) -> None:
        self.kind, self.data = kind, data
        self._given, self._settings = given, settings
        self._made: dict[str, Any] = {}

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"{self.kind} {self._given!r}" if isinstance(self._given, str) else self._given.__name__

    @cached_property
    def name(self) -> str:
        """The registered name.

        Raises:
            UnknownComponentError: nothing registers the name.
            BrokenComponentError: no entry point names the class, or two packages register the name.
        """
        if isinstance(self._given, str):
            return registry.find(self.kind, self._given).name
        place = f"{self._given.__module__}:{self._given.__qualname__}"
        package = place.partition(":")[0].partition(".")[0]
        found = [entry for entry in registry.entries(self.kind) if entry.target.split(".")[0].split(":")[0] == package]
        for entry in sorted(found, key=lambda entry: entry.target != place):
            if entry.target == place or self._stands_for(entry.name):
                return registry.find(self.kind, entry.name).name
        raise BrokenComponentError(f"{self.title} is registered under no name: no entry point is {place}")

    def _stands_for(self, name: str) -> bool:
        """Whether a name that points elsewhere, at a re-export say, is that of the given class."""
        try:
            return registry.load(self.kind, name) is self._given
        except BrokenComponentError:
            return False

    @cached_property
    def cls(self) -> type[Any]:
        """The class.

        Raises:
            UnknownComponentError: nothing registers the name.
            BrokenComponentError: it does not import or has the wrong type.
        """
        return registry.load(self.kind, self.name)

    @cached_property
    def choice(self) -> Choice:
        """The component with the values of the budget `smoke` on the digits, cheaper ones where it has usual fields."""
        fields = self.cls.model_fields
        values = {name: value for name, value in TINY.items() if name in fields}
        if self.kind == "defense":
            values |= {f"recipe.{name}": value for name, value in _RECIPE.items()}
        settings = {f"{self.kind}.{name}": value for name, value in {**values, **self._settings}.items()}
        return resolve(self.kind, Selection(self.name), "smoke", settings, self._digits)

    @property
    def component(self) -> Any:
        """The configured component."""
        return self.choice.component

    @property
    def _digits(self) -> Choice | None:
        return None if self.kind == "dataset" else resolve("dataset", Selection("digits"), "smoke", {})

    def once(self, what: str, make: Callable[[], T]) -> T:
        """What `make` gives, made when first asked for."""
        if what not in self._made:
            self._made[what] = make()
        found: T = self._made[what]
        return found


def subject_of(
    kind: Kind, given: type[Any] | str, settings: Mapping[str, Any] | None, data: Path | None
) -> ComponentUnderTest:
    """The subject of a law: the same as before for the same arguments, so that laws share what they computed.

    Raises:
        UnknownComponentError: nothing registers the name.
    """
    if isinstance(given, str):
        _known(kind, given)
    return _subject(kind, given, canonical(dict(settings or {})), data_root(data))  # type: ignore[arg-type]


def _known(kind: Kind, name: str) -> None:
    try:
        registry.find(kind, name)
    except BrokenComponentError:
        return


@functools.lru_cache(maxsize=1)
def _subject(kind: Kind, given: type[Any] | str, settings: str, data: Path) -> ComponentUnderTest:
    return ComponentUnderTest(kind, given, json.loads(settings), data)
