"""State of a training loop: saving and restoring networks and optimisers, and finding non-finite tensors."""

import copy
import typing
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

#: Modules and optimisers of a loop by name.
State = Mapping[str, nn.Module | Optimizer]
#: Tensors by member of the state and name.
Groups = dict[str, dict[str, Tensor]]


class Checkpoint(typing.Protocol):
    """Storage of the states of a stage's loops; the store implements it."""

    def load(self, name: str) -> tuple[Groups, dict[str, Any]] | None:
        """Return the tensors and the other values saved for loop `name`, or `None`."""

    def save(self, name: str, groups: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]) -> None:
        """Replace the checkpoint of loop `name`."""


def extract(state: State) -> tuple[Groups, dict[str, Any]]:
    """Copy a state to the CPU: its tensors, and the other values of its optimisers."""
    groups: Groups = {}
    numbers: dict[str, Any] = {}
    for key, value in state.items():
        groups[key], numbers[key] = _extract(value)
    return groups, numbers


def restore(state: State, groups: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]) -> bool:
    """Load the result of `extract`; if it does not fit, return `False` and leave the state unchanged."""
    if groups.keys() - state.keys() or numbers.keys() != state.keys():
        return False
    before = {key: copy.deepcopy(value.state_dict()) for key, value in state.items()}
    try:
        for key, value in state.items():
            _restore(value, groups.get(key, {}), numbers[key])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        for key, value in state.items():
            value.load_state_dict(before[key])
        return False
    return True


@torch.no_grad()
def non_finite(groups: Mapping[str, Mapping[str, Tensor]]) -> set[str]:
    """Names, `member.tensor`, of tensors that contain an infinity or NaN."""
    return {
        f"{key}.{name}"
        for key, tensors in groups.items()
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    }


def current_tensors(state: State) -> Groups:
    """Tensors of a state, not copied."""
    return {
        key: value.state_dict()
        if isinstance(value, nn.Module)
        else {
            f"{index}.{name}": entry
            for index, entries in enumerate(value.state.values())
            for name, entry in entries.items()
            if isinstance(entry, Tensor)
        }
        for key, value in state.items()
    }


def _extract(value: nn.Module | Optimizer) -> tuple[dict[str, Tensor], Any]:
    if isinstance(value, nn.Module):
        return {key: tensor.detach().cpu().contiguous() for key, tensor in value.state_dict().items()}, None
    state = value.state_dict()
    tensors, numbers = {}, {}
    for index, entries in state["state"].items():
        for key, entry in entries.items():
            if isinstance(entry, Tensor):
                tensors[f"{index}.{key}"] = entry.detach().cpu().contiguous()
            elif entry is not None:
                numbers[f"{index}.{key}"] = entry
    return tensors, numbers


def _restore(value: nn.Module | Optimizer, tensors: Mapping[str, Tensor], numbers: Any) -> None:
    if isinstance(value, nn.Module):
        value.load_state_dict(dict(tensors), strict=True)
        return
    entries: dict[int, dict[str, Any]] = {}
    for name, entry in {**tensors, **numbers}.items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = entry
    count = sum(len(group["params"]) for group in value.param_groups)
    if any(index >= count for index in entries):
        raise IndexError("the state has more parameters than the optimiser")
    value.load_state_dict({"state": entries, "param_groups": value.state_dict()["param_groups"]})
