"""Whole trainings against a transcription: optimisers, schedule, batches, augmentation and modes."""

from typing import Any

import pytest
import torch
from helpers import by_hand
from helpers.loops import PROTOCOL
from privbench.benchmark.core.config import Recipe
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.training.batches import Batches
from privbench.benchmark.training.context import Context
from privbench.benchmark.training.optimisation import cross_entropy
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("double")
CPU, SEED = torch.device("cpu"), 5
#: Three steps an epoch; the rate falls after the first epoch and again after the second.
SCHEDULE = {"learning_rate": 0.05, "batch_size": 8, "epochs": 3, "milestones": (1, 2), "gamma": 0.5}
RECIPES = {
    "sgd": {"momentum": 0.0},
    "momentum": {"momentum": 0.6, "weight_decay": 0.03},
    "nesterov": {"momentum": 0.6, "nesterov": True, "weight_decay": 0.03},
    "nesterov without momentum": {"momentum": 0.0, "nesterov": True},
    "adam": {"optimizer": "adam", "weight_decay": 0.03},
    "capped": {"max_steps": 5},
}


def stages() -> nn.ModuleList:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(6)
    norm.bias.requires_grad_(False)  # as in VGG
    return nn.ModuleList([nn.Sequential(nn.Flatten(), nn.Linear(16, 6), norm, nn.ReLU()), nn.Linear(6, 3)])


def images(count: int = 26) -> Images:
    drawn = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 1, 4, 4), generator=drawn, dtype=torch.uint8)
    attributes = torch.randint(0, 2, (count, 3), generator=drawn).bool()
    return Images(pixels, torch.randint(0, 3, (count,), generator=drawn), attributes=attributes)


def network() -> Network:
    return Network(dict(zip(("hidden", "logits"), stages(), strict=True)))


def context(seed: int = SEED, **changes: object) -> Context:
    return Context(PROTOCOL.model_copy(update=changes), CPU, seed)


def loss(network: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
    return by_hand.task_loss(by_hand.outputs(network, x)[-1], y)


@pytest.mark.parametrize("task", ["classes", "attributes"])
@pytest.mark.parametrize("name", RECIPES)
def test_a_training_equals_its_transcription(name: str, task: str) -> None:
    """The schedule of `fit` is by epoch; the incomplete batch of an epoch is left out; a network is left to be used."""
    recipe, truth = Recipe(**{**SCHEDULE, **RECIPES[name]}), images().truth(task)
    used, found = context(task=task), network().eval()
    used.fit("a loop", found, images(), recipe, cross_entropy)
    expected, losses = by_hand.train(stages(), images().pixels, truth, recipe, loss, seed=SEED, loop="a loop")
    assert [value for _, value in used.curves["a loop"]["loss"]] == pytest.approx(losses, rel=1e-9)
    by_hand.assert_equal(found, expected, 1e-9)
    assert not any(module.training for module in found.modules())
    steps = 5 if name == "capped" else 9
    assert (used.notes["steps"], used.notes["epochs"], len(losses)) == (steps, steps / 3, steps)
    assert "selection" not in used.notes


@pytest.mark.parametrize("kind", ["flip", "crop_flip", "cutout"])
def test_images_are_augmented_as_the_protocol_says_unless_a_training_says_otherwise(kind: Any) -> None:
    recipe = Recipe(**SCHEDULE)
    for protocols, asked in ((kind, None), ("none", kind)):
        found = network()
        context(augmentation=protocols).fit("target", found, images(), recipe, cross_entropy, augmentation=asked)
        expected, _ = by_hand.train(
            stages(), images().pixels, images().labels, recipe, loss, seed=SEED, augmentation=kind
        )
        by_hand.assert_equal(found, expected, 1e-9)


def test_batches_are_those_of_the_seed_the_loop_and_the_protocol() -> None:
    data = Images(images(40).pixels, torch.arange(40) % 4, torch.arange(40) // 5)
    identity = {"sampler": "identity", "instances": 2}
    for protocol, asked, expected in (
        ({}, {}, {}),
        (identity, {}, identity),
        (identity, {"sampler": "shuffle"}, {}),
        ({"instances": 2}, {"sampler": "identity"}, identity),
    ):
        found = context(**protocol).batches("target", data, 8, **asked)
        wanted = Batches(data, 8, by_hand.seed_of(SEED, "target", "batches"), **expected)
        assert found.steps_per_epoch == wanted.steps_per_epoch
        for step in (0, 1, wanted.steps_per_epoch):
            assert all(torch.equal(one, other) for one, other in zip(found.at(step), wanted.at(step), strict=True))
    other = [context(seed).batches(loop, data, 8).at(0)[0] for seed, loop in ((5, "target"), (6, "target"), (5, "gan"))]
    assert not any(torch.equal(other[0], x) for x in other[1:])
