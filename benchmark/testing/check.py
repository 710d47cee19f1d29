"""One conformance check: a name, one sentence, and a function that raises if a component fails it."""

import traceback
import unittest
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import ValidationError

from ..errors import MissingDataError, PrivbenchError
from ..registry import Kind
from .component import ComponentUnderTest, component_under_test

State = Literal["passed", "failed", "skipped"]
#: Longest quotation of another library's message, in characters.
_LONGEST = 300


class ConformanceError(PrivbenchError, AssertionError):
    """A component fails a check; the message says what happened and what to change."""


@dataclass(frozen=True)
class CheckResult:
    """Result of one check on one component.

    Args:
        check: name of the check.
        about: the requirement that it tests, one sentence.
        state: `passed`, `failed`, or `skipped` if something that the check needs is missing.
        message: what to change, or what is missing; empty if the check passed.
    """

    check: str
    about: str
    state: State
    message: str = ""


@dataclass(frozen=True)
class Check:
    """One check for components of one kind; call it with a class or a registered name.

    Args:
        kind: of the components.
        name: short, unique among the checks of the kind.
        about: the requirement that it tests, one sentence.
        function: raises if a component does not meet the requirement.
    """

    kind: Kind
    name: str
    about: str
    function: Callable[[ComponentUnderTest], None]

    def __str__(self) -> str:
        return self.name

    def __call__(
        self, component: type[Any] | str, *, settings: Mapping[str, Any] | None = None, data: Path | None = None
    ) -> None:
        """Run the check.

        Args:
            component: the class, whose package is installed, or the registered name.
            settings: values of fields by name, such as `{"steps": 2}`; the others have those of the budget `smoke`.
            data: the data folder, for data sets; by default `PRIVBENCH_DATA` or the user's data folder.

        Raises:
            UnknownComponentError: nothing registers the name.
            ConformanceError: the component fails the check.
            unittest.SkipTest: data or weights are missing; the message names them.
        """
        subject = component_under_test(self.kind, component, settings, data)
        try:
            self.function(subject)
        except (ConformanceError, unittest.SkipTest):
            raise
        except MissingDataError as cause:
            raise unittest.SkipTest(str(cause)) from cause
        except PrivbenchError as cause:
            fail(f"{subject.title} rejects valid input: {cause}", "correct its fields or its requirements")
        except Exception as cause:
            fix = f"correct it, or raise a PrivbenchError that names the cause (check: {self.about.rstrip('.')})"
            message = f"{subject.title} raises {error_message(cause)}{_author_line(cause)}; {fix}"
            raise ConformanceError(message) from cause

    def result(self, component: type[Any] | str, settings: Mapping[str, Any] | None, data: Path | None) -> CheckResult:
        """Run the check and return its result; arguments as for a call."""
        try:
            self(component, settings=settings, data=data)
        except ConformanceError as cause:
            return CheckResult(self.name, self.about, "failed", str(cause))
        except unittest.SkipTest as cause:
            return CheckResult(self.name, self.about, "skipped", str(cause))
        return CheckResult(self.name, self.about, "passed")


def checks_from(kind: Kind, *functions: Callable[[ComponentUnderTest], None]) -> tuple[Check, ...]:
    """Checks from functions: the name is the function's, the sentence the first line of its docstring."""
    return tuple(
        Check(kind, function.__name__, (function.__doc__ or "").strip().splitlines()[0], function)
        for function in functions
    )


def fail(problem: str, fix: str) -> NoReturn:
    """Fail the check with what happened and what to change.

    Raises:
        ConformanceError: always.
    """
    raise ConformanceError(f"{problem}; {fix}") from None


def require(condition: bool, problem: str, fix: str) -> None:
    """Fail the check unless `condition` is true.

    Raises:
        ConformanceError: it is false.
    """
    if not condition:
        fail(problem, fix)


def error_message(cause: BaseException) -> str:
    """Type and message of an error in one line; of a pydantic error, only the first problem."""
    text = str(cause)
    if isinstance(cause, ValidationError):
        problem = cause.errors(include_url=False)[0]
        text = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    text = " ".join(text.split())
    return f"{type(cause).__name__}: {text[:_LONGEST]}" if text else type(cause).__name__


def _author_line(cause: BaseException) -> str:
    """The innermost line of the traceback outside privbench and installed packages, which is the author's."""
    ours = Path(__file__).parents[2]
    for frame in reversed(traceback.extract_tb(cause.__traceback__)):
        path = Path(frame.filename)
        if path.is_file() and "site-packages" not in path.parts and ours not in path.parents:
            return f" (line {frame.lineno} of {path.name}, in {frame.name})"
    return ""
