"""The component under test: its class, its name, and an instance with the cheapest settings that it accepts."""

import contextlib
import functools
import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from .. import registry
from ..core.canonical import canonical
from ..core.config import Budget
from ..core.paths import data_root
from ..errors import BrokenComponentError
from ..pipeline.cell import Choice, Selection
from ..pipeline.resolve import resolve
from ..registry import Kind

T = TypeVar("T")
#: The cheapest settings that still allow a loop to be interrupted and resumed, for components that have the field.
TINY: Mapping[str, Any] = {"max_steps": 3, "iterations": 3, "batch_size": 8}
_RECIPE: Mapping[str, Any] = {"max_steps": 3, "batch_size": 16}


class ComponentUnderTest:
    """One component, with a cache of what the checks have computed.

    Args:
        kind: of the component.
        given: the class or the registered name.
        settings: values of fields by name.
        data: the data folder.
    """

    def __init__(self, kind: Kind, given: type[Any] | str, settings: Mapping[str, Any], data: Path) -> None:
        self.kind, self.data = kind, data
        self._given, self._settings = given, settings
        self._cache: dict[str, Any] = {}

    @property
    def title(self) -> str:
        """Name of the component in messages."""
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
        path = f"{self._given.__module__}:{self._given.__qualname__}"
        package = path.partition(":")[0].partition(".")[0]
        found = [entry for entry in registry.entries(self.kind) if entry.target.split(".")[0].split(":")[0] == package]
        for entry in sorted(found, key=lambda entry: entry.target != path):
            if entry.target == path or self._is_registered_as(entry.name):
                return registry.find(self.kind, entry.name).name
        raise BrokenComponentError(f"{self.title} is registered under no name: no entry point is {path}")

    def _is_registered_as(self, name: str) -> bool:
        """True if a name whose entry point has another path, such as a re-export, loads the given class."""
        try:
            return registry.load(self.kind, name) is self._given
        except BrokenComponentError:
            return False

    @cached_property
    def cls(self) -> type[Any]:
        """The class.

        Raises:
            UnknownComponentError: nothing registers the name.
            BrokenComponentError: it cannot be imported or has the wrong type.
        """
        return registry.load(self.kind, self.name)

    @cached_property
    def choice(self) -> Choice:
        """The component with the values of the budget `smoke` on the digits, and cheaper ones for fields in `TINY`."""
        fields = self.cls.model_fields
        values = {name: value for name, value in TINY.items() if name in fields}
        if self.kind == "defense":
            values |= {f"recipe.{name}": value for name, value in _RECIPE.items()}
        settings = {f"{self.kind}.{name}": value for name, value in {**values, **self._settings}.items()}
        data = None if self.kind == "dataset" else digits()
        return resolve(self.kind, Selection(self.name), "smoke", settings, data)

    @property
    def component(self) -> Any:
        """The configured component."""
        return self.choice.component

    def cached(self, name: str, compute: Callable[[], T]) -> T:
        """The value of `compute`, computed once for all checks."""
        if name not in self._cache:
            self._cache[name] = compute()
        found: T = self._cache[name]
        return found


def component_under_test(
    kind: Kind, given: type[Any] | str, settings: Mapping[str, Any] | None, data: Path | None
) -> ComponentUnderTest:
    """The same object for the same arguments, so that checks share what they computed.

    Raises:
        UnknownComponentError: nothing registers the name.
    """
    if isinstance(given, str):
        with contextlib.suppress(BrokenComponentError):
            registry.find(kind, given)
    return _component(kind, given, canonical(dict(settings or {})), data_root(data))  # type: ignore[arg-type]


@functools.lru_cache(maxsize=1)
def _component(kind: Kind, given: type[Any] | str, settings: str, data: Path) -> ComponentUnderTest:
    return ComponentUnderTest(kind, given, json.loads(settings), data)


def digits(budget: Budget = "smoke") -> Choice:
    """The data set on which components of other kinds are checked."""
    return resolve("dataset", Selection("digits"), budget, {})
