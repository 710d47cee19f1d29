"""Optimisers, schedules and losses of training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from ..core.config import Recipe
from ..networks.classifiers.network import Network
from .state import State as State

if TYPE_CHECKING:
    pass


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The step size in `epoch` (from 0)."""
    return recipe.learning_rate * recipe.gamma ** sum(epoch >= milestone for milestone in recipe.milestones)


def make_optimizer(recipe: Recipe, network: nn.Module) -> Optimizer:
    """The recipe's optimiser over the parameters that want a gradient."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(
        parameters,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=nesterov,
        weight_decay=recipe.weight_decay,
    )


@contextlib.contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the parameters of `module` inside the block."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of `optimizer` down `loss`."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def task_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy in nats: of classes `int64 N`, or of attributes `bool N A`, each a binary decision."""
    if y.dtype == torch.bool:
        return functional.binary_cross_entropy_with_logits(logits, y.to(logits.dtype))
    return functional.cross_entropy(logits, y)


def cross_entropy(network: Network, x: Tensor, y: Tensor) -> Tensor:
    """The task's loss of the logits, in nats."""
    return task_loss(network.logits(x), y)
