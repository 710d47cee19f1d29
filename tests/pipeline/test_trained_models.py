"""Targets and judges out of the store: strictly, and only if they still say what they said."""

from pathlib import Path

import pytest
import torch
from privbench.benchmark.errors import CorruptArtifactError
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.networks.factory import build_network
from privbench.benchmark.pipeline.cell import Cell, Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.trained_models import CHUNK, load_strictly, load_target, predict, state
from privbench.benchmark.store.manifest import Artifact
from privbench.benchmark.store.store import Store
from torch import nn

CPU = torch.device("cpu")
IMAGE = (1, 32, 32)


def cell() -> Cell:
    return Matrix((Selection("digits"),), (Selection("none"),), (Selection("kedmi"),), budget="smoke").cells()[0]


@pytest.fixture
def images():
    loaded = cell().dataset.component.load("private_test", Path("nowhere"))
    return loaded.select(torch.arange(20))


def stored(folder: Path, network, logits: torch.Tensor) -> Artifact:
    tensors = {"network": state(network), "predictions": {"logits": logits, "labels": torch.zeros(len(logits))}}
    info = {"prediction_seed": 3, "test_accuracy": 1.0, "n": 1}
    return Store(folder).write("target", "a" * 64, tensors=tensors, info=info)


@pytest.mark.parametrize(("name", "classes", "image"), [("scnn", 5, IMAGE), ("mcnn", 7, IMAGE)])
def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, name: str, classes: int, image) -> None:
    artifact = stored(tmp_path, build_network(name, image, classes), torch.zeros(1, 5))
    with pytest.raises(CorruptArtifactError, match="are not those of") as caught:
        load_strictly(build_network("mcnn", IMAGE, 5), artifact, "target of none")
    assert "\n" not in str(caught.value)


def test_a_target_that_repeats_its_predictions_is_loaded(tmp_path: Path, images) -> None:
    network = build_network("mcnn", IMAGE, 5)
    logits = predict(network, images.pixels, CPU, 3)
    loaded = load_target(stored(tmp_path, network, logits), cell(), images, CPU)
    assert torch.equal(predict(loaded, images.pixels, CPU, 3), logits)


def test_predictions_are_those_of_the_mode_for_evaluation_with_noise_of_their_own_in_each_chunk() -> None:
    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.randn_like(x)

    pixels = torch.zeros(2 * CHUNK, *IMAGE, dtype=torch.uint8)
    network = Network({"flat": nn.Sequential(nn.Flatten(), Noise()), "logits": nn.Linear(1024, 2)})
    with torch.random.fork_rng():
        first = predict(network, pixels, CPU, 3)
        torch.rand(1)
        assert torch.equal(predict(network, pixels, CPU, 3), first)
        assert not torch.equal(predict(network, pixels, CPU, 4), first)
    assert not torch.equal(first[:CHUNK], first[CHUNK:])
    network = Network({"flat": nn.Sequential(nn.Flatten(), nn.Dropout()), "logits": nn.Linear(1024, 2)})
    ones = pixels[:9] + 255
    assert torch.equal(predict(network.train(), ones, CPU, 3), network.eval().logits(ones.float().div(255)))


def test_a_target_that_says_something_else_is_refused(tmp_path: Path, images) -> None:
    network = build_network("mcnn", IMAGE, 5)
    logits = predict(network, images.pixels, CPU, 3).roll(1, dims=1)
    with pytest.raises(CorruptArtifactError, match=r"repeats 0\.0% of its stored predictions"):
        load_target(stored(tmp_path, network, logits), cell(), images, CPU)
