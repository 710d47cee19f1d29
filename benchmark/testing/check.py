"""A law: a name, one sentence, and a function that raises where a component breaks it."""

from __future__ import annotations

import traceback
import unittest
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import ValidationError

from ..errors import MissingDataError, PrivbenchError
from ..registry import Kind
from .component import ComponentUnderTest, subject_of

State = Literal["holds", "broken", "not tried"]
#: Characters of another library's message that are repeated.
_LONGEST = 300


class ConformanceError(PrivbenchError, AssertionError):
    """A law that a component breaks; the message says what happened and what to change."""


@dataclass(frozen=True)
class CheckResult:
    """What became of one law.

    Args:
        law: its name.
        about: what it says.
        state: `holds`, `broken`, or `not tried` where something it needs is missing.
        message: what to change, or what is missing; empty where it holds.
    """

    law: str
    about: str
    state: State
    message: str = ""


@dataclass(frozen=True)
class Check:
    """One law of one kind of component; call it with a class or a registered name.

    Args:
        kind: of the components that keep it.
        name: short, unique among the kind's laws.
        about: what it says, one sentence.
        hold: raises where it is broken.
    """

    kind: Kind
    name: str
    about: str
    hold: Callable[[ComponentUnderTest], None]

    def __str__(self) -> str:
        return self.name

    def __call__(
        self, component: type[Any] | str, *, settings: Mapping[str, Any] | None = None, data: Path | None = None
    ) -> None:
        """Try the law.

        Args:
            component: the class, whose package is installed, or the registered name.
            settings: values of fields by name, such as `{"steps": 2}`; the others have those of the budget `smoke`.
            data: the data folder, for data sets; by default `PRIVBENCH_DATA` or the user's data folder.

        Raises:
            UnknownComponentError: nothing registers the name.
            BrokenLawError: the component breaks the law.
            unittest.SkipTest: the law cannot be tried here; says why.
        """
        subject = subject_of(self.kind, component, settings, data)
        try:
            self.hold(subject)
        except (ConformanceError, unittest.SkipTest):
            raise
        except MissingDataError as cause:
            raise unittest.SkipTest(str(cause)) from cause
        except PrivbenchError as cause:
            broken(f"{subject.title} refuses what it has to take: {cause}", "correct its fields or what it asks for")
        except Exception as cause:
            message = f"{subject.title} raises {sentence(cause)}{_place(cause)}; {self._change}"
            raise ConformanceError(message) from cause

    @property
    def _change(self) -> str:
        return f"correct it, or raise a PrivbenchError that names the cause (law: {self.about.rstrip('.')})"

    def verdict(self, component: type[Any] | str, settings: Mapping[str, Any] | None, data: Path | None) -> CheckResult:
        """What becomes of the law; arguments as for a call."""
        try:
            self(component, settings=settings, data=data)
        except ConformanceError as cause:
            return CheckResult(self.name, self.about, "broken", str(cause))
        except unittest.SkipTest as cause:
            return CheckResult(self.name, self.about, "not tried", str(cause))
        return CheckResult(self.name, self.about, "holds")


def made(kind: Kind, *functions: Callable[[ComponentUnderTest], None]) -> tuple[Check, ...]:
    """Laws from functions: the name is the function's, the sentence the first line of its docstring."""
    return tuple(
        Check(kind, function.__name__, (function.__doc__ or "").strip().splitlines()[0], function)
        for function in functions
    )


def broken(happened: str, change: str) -> NoReturn:
    """Say that a law is broken: what happened, and what to change.

    Raises:
        BrokenLawError: always.
    """
    raise ConformanceError(f"{happened}; {change}") from None


def require(holds: bool, happened: str, change: str) -> None:
    """Say that a law is broken unless it holds.

    Raises:
        BrokenLawError: it does not hold.
    """
    if not holds:
        broken(happened, change)


def sentence(cause: BaseException) -> str:
    """An error in one line, of those of pydantic the first one."""
    text = str(cause)
    if isinstance(cause, ValidationError):
        problem = cause.errors(include_url=False)[0]
        text = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    text = " ".join(text.split())
    return f"{type(cause).__name__}: {text[:_LONGEST]}" if text else type(cause).__name__


def _place(cause: BaseException) -> str:
    """The last line outside privbench and torch that an error came through, which is the author's."""
    ours = Path(__file__).parents[2]
    for frame in reversed(traceback.extract_tb(cause.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and "site-packages" not in path.parts and ours not in path.parents:
            return f" (line {frame.lineno} of {path.name}, in {frame.name})"
    return ""
