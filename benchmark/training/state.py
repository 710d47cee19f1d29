"""What a training loop keeps of networks and optimisers: out of them, into them again, and whether it is sound."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

State = Mapping[str, nn.Module | Optimizer]
Groups = dict[str, dict[str, Tensor]]


class Checkpoint(Protocol):
    """Storage of the states of a stage's loops; the store implements it."""

    def load(self, name: str) -> tuple[Groups, dict[str, Any]] | None:
        """Return the tensors and facts saved for loop `name`, or `None`."""

    def save(self, name: str, groups: Mapping[str, Mapping[str, Tensor]], info: Mapping[str, Any]) -> None:
        """Replace what is saved for loop `name`."""


def extracted(state: State) -> tuple[Groups, dict[str, Any]]:
    """Tensors on the CPU by member and name, and what optimisers hold besides tensors."""
    groups: Groups = {}
    facts: dict[str, Any] = {}
    for key, value in state.items():
        groups[key], facts[key] = _extract(value)
    return groups, facts


def restore(state: State, groups: Mapping[str, Mapping[str, Tensor]], facts: Mapping[str, Any]) -> bool:
    """Put back what `extracted` took; if that is of other members, nothing is changed and it returns `False`."""
    if groups.keys() - state.keys() or facts.keys() != state.keys():
        return False
    before = {key: copy.deepcopy(value.state_dict()) for key, value in state.items()}
    try:
        for key, value in state.items():
            _restore(value, groups.get(key, {}), facts[key])
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        for key, value in state.items():
            value.load_state_dict(before[key])
        return False
    return True


@torch.no_grad()
def unsound(groups: Mapping[str, Mapping[str, Tensor]]) -> set[str]:
    """Names, `member.tensor`, of tensors that hold an infinity or what is no number."""
    return {
        f"{key}.{name}"
        for key, tensors in groups.items()
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    }


def live(state: State) -> dict[str, dict[str, Tensor]]:
    """The tensors themselves, where they are."""
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


def _restore(value: nn.Module | Optimizer, tensors: Mapping[str, Tensor], facts: Any) -> None:
    if isinstance(value, nn.Module):
        value.load_state_dict(dict(tensors), strict=True)
        return
    entries: dict[int, dict[str, Any]] = {}
    for name, entry in {**tensors, **facts}.items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = entry
    count = sum(len(group["params"]) for group in value.param_groups)
    if any(index >= count for index in entries):
        raise IndexError("state of parameters that the optimiser does not have")
    value.load_state_dict({"state": entries, "param_groups": value.state_dict()["param_groups"]})
