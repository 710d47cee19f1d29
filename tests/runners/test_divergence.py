"""Values that are not finite are never stored, never resumed from and never scored."""

import itertools
import re
import time

import pytest
import torch
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.errors import DivergedError
from privbench.benchmark.store.store import Store
from privbench.benchmark.training import monitor
from privbench.benchmark.training.context import Context
from privbench.benchmark.training.optimisation import update
from torch import nn

KEY = "ab" * 32
PROTOCOL = Protocol(
    name="x", version=1, image=(1, 8, 8), classes=2, judge_classes=2, target_network="a", judge_network="b",
    attacked=2, draws=1,
)  # fmt: skip


class Loop:
    """A loop whose weights become `poison` at one step; its loss stays finite unless `loss` is given."""

    def __init__(self, folder, name="target", poison=float("nan"), at=5, steps=8, loss=None) -> None:
        self.store, self.name, self.poison, self.at, self.steps, self.loss = (
            Store(folder),
            name,
            poison,
            at,
            steps,
            loss,
        )
        self.seen = []

    def context(self) -> Context:
        return Context(PROTOCOL, torch.device("cpu"), 0, self.store.checkpoint("target", KEY))

    def run(self, context=None):
        module = nn.Linear(2, 1)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.1)

        def step(i, generator):
            self.seen.append(i)
            value = module(torch.ones(1, 2)).sum()
            update(optimizer, value)
            if i == self.at:
                module.weight.data[0, 0] = self.poison
            return {"loss": torch.tensor(self.loss if i == self.at and self.loss is not None else 0.5)}

        with self.store.lock("target", KEY):
            (context or self.context()).loop(self.name, self.steps, {"network": module, "optimizer": optimizer}, step)
        return module


@pytest.fixture
def checkpoint_every_step(monkeypatch):
    monkeypatch.setattr(monitor, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(monitor, "CHECKPOINT_SHARE", float("inf"))
    clock = itertools.count(0.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))


@pytest.mark.parametrize("name", ["target", "gan", "attack 0"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_not_stored(tmp_path, checkpoint_every_step, name, poison) -> None:
    loop = Loop(tmp_path, name, poison)
    message = (
        f"{name} diverged: network.weight is not finite at step 6 of 8 (the last good checkpoint is at step 5); "
        "lower the learning rate or the weight of the regulariser"
    )
    with pytest.raises(DivergedError, match=f"^{re.escape(message)}$"):
        loop.run()
    groups, info = loop.store.checkpoint("target", KEY).load(name)
    assert info["done"] == 5
    assert all(bool(tensor.isfinite().all()) for tensors in groups.values() for tensor in tensors.values())
    again = Loop(tmp_path, name, at=-1)
    again.run()
    assert again.seen == [5, 6, 7]


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite(tmp_path, checkpoint_every_step, loss) -> None:
    with pytest.raises(DivergedError, match=rf"loss is {loss} at step 6 of 8 \(the last good checkpoint is at step 5"):
        Loop(tmp_path, poison=1.0, loss=loss).run()


def test_weights_are_checked_when_the_loop_ends(tmp_path) -> None:
    with pytest.raises(DivergedError, match=r"network.weight is not finite at step 8 of 8 \(no checkpoint was kept\)"):
        Loop(tmp_path, at=7).run()


def test_a_checkpoint_that_is_not_finite_is_not_resumed(tmp_path, caplog) -> None:
    loop = Loop(tmp_path, at=-1)
    module = nn.Linear(2, 1)
    module.weight.data.fill_(float("nan"))
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    with loop.store.lock("target", KEY):
        loop.context().save("target", 4, {"network": module, "optimizer": optimizer})
    loop.run()
    assert loop.seen == list(range(8))
    assert "checkpoint of loop target has network.weight, which is not finite; restarting the loop" in caplog.text


def test_values_that_are_infinite_from_the_start_are_allowed(tmp_path, checkpoint_every_step) -> None:
    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 1)
            self.register_buffer("mask", torch.tensor([0.0, float("-inf")]))

    context = Loop(tmp_path).context()
    with Store(tmp_path).lock("target", KEY):
        context.loop("target", 4, {"network": Masked()}, lambda i, generator: {"loss": torch.tensor(0.0)})
        context.loop("target", 4, {"network": Masked()}, lambda i, generator: {"loss": torch.tensor(0.0)})


def test_no_cell_is_scored(run) -> None:
    result = run("diverging")
    assert result.records == []
    assert result.reasons["diverging"].startswith("attack diverged: loss is inf at step 5 of 6")
