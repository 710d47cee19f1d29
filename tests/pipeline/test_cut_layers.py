"""A cut layer that the target does not have is refused by the plan, before anything is computed."""

import dataclasses
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers import command_line
from privbench.benchmark import api
from privbench.benchmark.contracts import FeatureAttack
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.pipeline.cell import Cell, Choice, Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import build_plan
from privbench.defenses.mid import MID
from privbench.defenses.none import NoDefense
from torch import nn


class Cut(FeatureAttack):
    """An attack at a cut layer, which is planned and never run."""

    yields: ClassVar[str] = "PairedReconstructions"

    def run(self, view: Any, prior: Any, request: Any, context: Any) -> Any:
        raise AssertionError


class CutDefense(NoDefense):
    """A defense at a cut layer."""

    layer: str | None = None

    @property
    def cut_layer(self) -> str | None:
        return self.layer


def cell(defense: Any, attack: Any) -> Cell:
    """On digits, whose target has the latents layer1, layer2 and layer3."""
    base = Matrix((Selection("digits"),), (Selection("none"),), (Selection("kedmi"),), (), budget="smoke").cells()[0]
    name = type(defense).__name__.lower()
    return dataclasses.replace(
        base, defense=Choice("defense", name, "tests", defense), attack=Choice("attack", "cut", "tests", attack)
    )


@pytest.mark.parametrize(
    ("defense", "attack", "message"),
    [
        (NoDefense(), Cut(layer="conv9"), "expected attack.layer to be one of layer1, layer2, layer3, got 'conv9'; "
         "these are the cut layers of nodefense on digits"),
        (NoDefense(), Cut(layer="logits"), "expected attack.layer to be one of layer1, layer2, layer3, got 'logits'"),
        (NoDefense(), Cut(layer=""), "expected attack.layer to be one of layer1, layer2, layer3, got ''"),
        (MID(), Cut(layer="layer4"), "to be one of layer1, layer2, layer3, bottleneck, got 'layer4'"),
        (CutDefense(layer="fc"), Cut(layer="layer2"), "expected defense.layer to be one of layer1, layer2, layer3, "
         "got 'fc'"),
    ],
)  # fmt: skip
def test_a_layer_that_is_not_there_is_refused(defense: Any, attack: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigurationError) as caught:
        build_plan([cell(defense, attack)], tmp_path)
    assert message in str(caught.value)
    folders = {"data": tmp_path, "store": tmp_path / "store", "results": tmp_path / "results"}
    with pytest.raises(InvalidConfigurationError):
        api.execute([cell(NoDefense(), Cut()), cell(defense, attack)], **folders, device="cpu")
    assert not (tmp_path / "store").exists() or not any((tmp_path / "store").rglob("*"))


@pytest.mark.parametrize(
    ("defense", "attack"),
    [
        (NoDefense(), Cut()),
        (NoDefense(), Cut(layer="layer1")),
        (MID(), Cut(layer="bottleneck")),
        (CutDefense(layer="layer3"), Cut(layer="layer1")),
    ],
)
def test_a_layer_that_is_there_is_planned(defense: Any, attack: Any, tmp_path: Path) -> None:
    assert len(build_plan([cell(defense, attack)], tmp_path).cells) == 1


def test_each_target_is_looked_at_once_and_only_if_a_layer_is_named(tmp_path: Path) -> None:
    seen: list[str] = []

    class Looked(NoDefense):
        def network(self, protocol: Protocol) -> Network:
            network = super().network(protocol)
            seen.append(next(network.parameters()).device.type)
            return network

    build_plan([cell(Looked(), Cut()), cell(NoDefense(), Cut(layer="layer1"))], tmp_path)
    assert seen == []
    cells = [cell(Looked(), Cut(layer=layer)) for layer in ("layer1", "layer2")]
    build_plan([*cells, dataclasses.replace(cells[0], seed=1)], tmp_path)
    assert seen == ["meta"], "no memory is taken for weights"
    build_plan([cell(Looked(recipe={"epochs": 3}), Cut(layer="layer1")), *cells], tmp_path)
    assert len(seen) == 3


@pytest.mark.parametrize("needs", ["a number", "an array"])
def test_a_network_that_needs_real_numbers_is_looked_at_too(needs: str, tmp_path: Path) -> None:
    class Needs(NoDefense):
        def network(self, protocol: Protocol) -> Network:
            linear = nn.Linear(1024, 4)
            if needs == "a number":
                linear.weight.data /= float(linear.weight.abs().max())
            else:
                linear.weight.data = torch.from_numpy(np.linalg.qr(linear.weight.detach().numpy())[1])
            return Network({"flat": nn.Flatten(), "scaled": linear, "logits": nn.Linear(4, 5)})

    before = torch.get_rng_state()
    with pytest.raises(InvalidConfigurationError, match="one of flat, scaled, got 'conv9'"):
        build_plan([cell(Needs(), Cut(layer="conv9"))], tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_published_weights_are_not_asked_for(tmp_path: Path) -> None:
    class Fetches(NoDefense):
        def network(self, protocol: Protocol) -> Network:
            assert not protocol.pretrained
            return super().network(protocol)

    made = cell(Fetches(), Cut(layer="layer1"))
    protocol = made.dataset.component.protocol.model_copy(update={"pretrained": True})

    class Pretrained(type(made.dataset.component)):  # type: ignore[misc]
        @property
        def protocol(self) -> Protocol:
            return protocol

    changed = dataclasses.replace(made.dataset, component=Pretrained())
    assert build_plan([dataclasses.replace(made, dataset=changed)], tmp_path).cells


@pytest.mark.parametrize("network", ["resnet50", "vgg16_bn", "resnet34"])
def test_large_networks_cost_little(network: str, tmp_path: Path) -> None:
    class Large(NoDefense):
        def network(self, protocol: Protocol) -> Network:
            update = {"target_network": network, "image": (3, 64, 64)}
            return super().network(protocol.model_copy(update=update))

    made = cell(Large(), Cut(layer="conv9"))
    began = time.process_time()
    with pytest.raises(InvalidConfigurationError, match=r"attack\.layer to be one of"):
        build_plan([made], tmp_path)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("command", ["plan", "run"])
def test_the_command_line_says_one_sentence_and_exits_with_1(
    command: str, privbench: command_line.Command, tmp_path: Path
) -> None:
    words = ["--defense", "none", "--attack", "decoder", "--budget", "smoke", "--set", "attack.layer=conv9"]
    assert command_line.refusal(command, *words) == (
        "expected attack.layer to be one of layer1, layer2, layer3, got 'conv9'; these are the cut layers "
        "of none on digits"
    )
    assert not any((tmp_path / "store").rglob("*.safetensors"))
