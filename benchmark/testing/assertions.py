"""Assertions that the checks of several kinds share."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..core.config import Task
from .check import fail, require
from .component import ComponentUnderTest


def task_of(subject: ComponentUnderTest) -> Task:
    """The task on which a defense or attack is checked.

    Raises:
        ConformanceError: the component declares no task, or one that does not exist.
    """
    tasks = subject.cls.tasks
    require(
        bool(tasks) and tasks <= {"classes", "attributes"},
        f"{subject.cls.__name__}.tasks is {set(tasks)}",
        'make it frozenset({"classes"}), frozenset({"attributes"}) or both',
    )
    return "classes" if "classes" in tasks else "attributes"


def first_difference(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that differs or is in one group only; `None` if the groups are equal."""
    names = dict.fromkeys([*first, *second])
    return next(
        (n for n in names if n not in first or n not in second or not torch.equal(first[n], second[n])),
        None,
    )


def require_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor], problem: str, fix: str) -> None:
    """Fail unless two groups hold the same tensors, bit for bit."""
    name = first_difference(first, second)
    require(name is None, f"{problem}, first in {name}", fix)


def require_close(first: Tensor, second: Tensor, problem: str, fix: str) -> None:
    """Fail unless two tensors have the same shape and differ by rounding only."""
    same = first.shape == second.shape and torch.allclose(first, second, rtol=1e-4, atol=1e-5)
    require(same, problem, fix)


def require_strict_loading(network: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Fail if the network loads weights of which one is missing, or one too many."""
    first = next(iter(weights), None)
    fewer = {name: value for name, value in weights.items() if name != first}
    for what, given in (("one weight missing", fewer), ("an unexpected weight", {**weights, "x": torch.zeros(1)})):
        if first is None and given is fewer:
            continue
        try:
            network.load_state_dict(dict(given), strict=True)
        except RuntimeError:
            continue
        fail(f"the network loads a state with {what}", "do not override load_state_dict or its hooks")


def require_gradient(function: Callable[[Tensor], Tensor], images: Tensor) -> None:
    """Fail unless `function(images).sum()` has a finite gradient at the images that is not zero."""
    x = images.clone().requires_grad_()
    output = function(x).sum()
    found = torch.autograd.grad(output, x, allow_unused=True)[0] if output.requires_grad else None
    require(
        found is not None and bool(found.isfinite().all()) and float(found.abs().sum()) > 0,
        "its output has no finite gradient with respect to the image",
        "remove detach, rounding and no_grad",
    )


def require_input_unchanged(function: Callable[[Tensor], object], images: Tensor) -> None:
    """Fail if `function` changes the images that it is given."""
    before = images.clone()
    with torch.inference_mode():
        function(images)
    require(torch.equal(images, before), "it changes its input", "do not use in-place operations on the input")
