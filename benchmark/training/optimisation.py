"""Optimisers, schedules and losses of training."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from ..core.config import Recipe
from ..networks.classifiers.network import Network


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Learning rate of the recipe in `epoch` (from 0)."""
    return recipe.learning_rate * recipe.gamma ** sum(epoch >= milestone for milestone in recipe.milestones)


def make_optimizer(recipe: Recipe, network: nn.Module) -> Optimizer:
    """Make the recipe's optimiser for the parameters that require gradients."""
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
    """Disable gradients of the parameters of `module` inside the block."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step of `optimizer` on `loss`."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def task_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy in nats, for classes `int64 N` or binary attributes `bool N A`."""
    if y.dtype == torch.bool:
        return functional.binary_cross_entropy_with_logits(logits, y.to(logits.dtype))
    return functional.cross_entropy(logits, y)


def cross_entropy(network: Network, x: Tensor, y: Tensor) -> Tensor:
    """Loss of the task on the logits of `x`, in nats."""
    return task_loss(network.logits(x), y)
