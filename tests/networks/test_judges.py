"""Judges: their answers equal those of the network in evaluation mode, and each role has its own."""

import pytest
import torch
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.errors import UnsupportedCellError
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.networks.embedders.embedder import Embedder
from privbench.benchmark.networks.factory import build_embedder, build_perceptual
from privbench.benchmark.networks.judges import Judge, Judges, accuracy, embed
from privbench.benchmark.networks.perceptual.perceptual import Perceptual
from torch import Tensor, nn

CPU = torch.device("cpu")
PROTOCOL = Protocol(
    name="toy", version=1, image=(1, 4, 4), classes=3, judge_classes=3, target_network="toy", judge_network="toy",
    attacked=3, draws=2,
)  # fmt: skip


def network() -> Network:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
    stages = {"map": first, "flat": nn.Sequential(nn.Flatten(), nn.Linear(16, 5)), "logits": nn.Linear(5, 3)}
    made = Network(stages)
    made(torch.rand(20, 1, 4, 4))  # in training mode, so that the statistics are not those of the start
    return made


def pixels(count: int = 11) -> Tensor:
    return torch.randint(0, 256, (count, 1, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_a_judge_answers_in_evaluation_mode_without_gradients_in_chunks() -> None:
    judge, made = Judge(network().train(), CPU, chunk=4), network().eval()
    x = pixels() / 255
    with torch.no_grad():
        features = made.stages["flat"](made.stages["map"](x))
        logits = made.stages["logits"](features)
        mirrored = made.stages["flat"](made.stages["map"](x.flip(-1)))
    for found, expected in (
        (judge.logits(pixels()), logits),
        (judge.features(pixels()), features),
        (judge.features(pixels(), lambda x: x.flip(-1)), mirrored),
    ):
        assert not found.requires_grad
        torch.testing.assert_close(found, expected)


def test_features_are_the_last_latent_in_one_row_an_image() -> None:
    torch.manual_seed(0)
    made = Network({"flat": nn.Flatten(), "map": nn.Unflatten(1, (4, 2, 2)), "logits": nn.Flatten()})
    assert torch.equal(Judge(made, CPU).features(pixels()), pixels().flatten(1) / 255)


def test_each_role_has_its_own_judge_which_is_made_once() -> None:
    first, second = Judge(network(), CPU, name="first"), Judge(network(), CPU, name="second")
    made: list[str] = []
    judges = Judges(lambda: made.append("first") or first, CPU, PROTOCOL, lambda: made.append("second") or second)
    assert made == []
    assert [judges.classifier, judges.second, judges.classifier, judges.second] == [first, second] * 2
    assert made == ["first", "second"]
    with pytest.raises(UnsupportedCellError, match=r"expected a second judge on toy/v1, got none"):
        _ = Judges(lambda: first, CPU, PROTOCOL).second


class Rows(Embedder):
    """The images themselves, times a factor, of unit length."""

    faces, weights, factor = False, None, 1.0

    def __init__(self, *, pretrained: bool = True) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(self.factor if pretrained else 0.0))

    def embed(self, x: Tensor, protocol: Protocol) -> Tensor:
        assert protocol is PROTOCOL and not self.training and not torch.is_grad_enabled()
        return nn.functional.normalize(x.flatten(1) + self.scale)


class Shifted(Rows):
    """The same with another factor."""

    factor = 5.0


def test_embeddings_are_those_of_the_named_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"rows": Rows, "shifted": Shifted}
    monkeypatch.setattr("privbench.benchmark.networks.factory.load", lambda kind, name: found[name])
    judges, images = Judges(lambda: Judge(network(), CPU), CPU, PROTOCOL), pixels(70)
    for name, shift in (("rows", 1), ("shifted", 5), ("rows", 1)):
        expected = nn.functional.normalize(images.flatten(1).float() / 255 + shift)
        torch.testing.assert_close(judges.embeddings(name, images), expected)
        torch.testing.assert_close(embed(build_embedder(name), images, PROTOCOL), expected)
    assert float(build_embedder("rows", pretrained=False).scale) == 0


class Dull(Perceptual):
    """A perceptual network that its author forgot to freeze."""

    def __init__(self) -> None:
        super().__init__(pretrained=False)
        self.norm = nn.BatchNorm2d(3)

    def layers(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.norm(x),)


def test_networks_that_only_compare_are_frozen_and_in_evaluation_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("privbench.benchmark.networks.factory.load", lambda kind, name: Rows if name == "r" else Dull)
    for made in (build_embedder("r"), build_perceptual("d")):
        assert not any(module.training for module in made.modules())
        assert not any(parameter.requires_grad for parameter in made.parameters())


def test_accuracy_of_classes_and_attributes() -> None:
    logits = torch.tensor([[0.3, 0.1], [-2.0, -1.0], [0.2, 0.4], [5.0, 6.0]])
    assert accuracy(logits, torch.tensor([0, 1, 0, 1])) == 0.75
    # An attribute is decided by the sign: 1 1, 0 0, 1 1, 1 1.
    truth = torch.tensor([[True, True], [False, True], [True, False], [True, True]])
    assert accuracy(logits, truth) == 6 / 8
