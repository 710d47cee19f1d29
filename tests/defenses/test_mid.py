"""MID: closed form of its KL, shape and noise of the bottleneck, and its position in a network."""

from typing import Any, cast

import pytest
import torch
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.networks.classifiers.network import Network
from privbench.defenses.mid import MID, Bottleneck, insert_bottleneck
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.nn import functional

IMAGE = (1, 8, 8)


def small() -> Network:
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(4))
    feature = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    return Network({"block1": block, "feature": feature, "logits": nn.Linear(10, 5)})


class Small(MID):
    """MID on the small network."""

    def network(self, protocol: Protocol) -> Network:
        return insert_bottleneck(small(), 5, test_noise=self.test_noise)


def protocol() -> Protocol:
    return cast(Protocol, None)


def test_divergence_equals_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(6, 9, generator=generator, dtype=torch.float64)
    scale = torch.rand(6, 9, generator=generator, dtype=torch.float64) * 2 + 1e-3
    standard = Independent(Normal(torch.zeros(9, dtype=torch.float64), 1), 1)
    expected = kl_divergence(Independent(Normal(mean, scale), 1), standard)
    assert torch.allclose(Bottleneck.divergence(mean, scale), expected, rtol=1e-12)
    # k = 1, mu = 2, sigma = 1: KL = mu^2 / 2 = 2; mu = 0, sigma = e: -1/2 (1 + 2 - e^2).
    worked = Bottleneck.divergence(torch.tensor([[2.0], [0.0]]), torch.tensor([[1.0], [torch.e]]))
    assert worked.tolist() == pytest.approx([2.0, (torch.e**2 - 3) / 2])


def test_divergence_gradient_and_extremes() -> None:
    generator = torch.Generator().manual_seed(1)
    mean = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    raw = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, s: Bottleneck.divergence(m, functional.softplus(s - 5)), (mean, raw))
    nothing = functional.softplus(torch.tensor([[-300.0]], requires_grad=True) - 5)
    assert float(nothing.detach()) == 0.0
    assert bool(Bottleneck.divergence(torch.zeros(1, 1), nothing).isfinite().all())


def test_statistics_are_the_halves_of_a_linear_map() -> None:
    torch.manual_seed(0)
    bottleneck = Bottleneck(10)
    feature = torch.randn(4, 10)
    both = feature @ bottleneck.linear.weight.T + bottleneck.linear.bias
    mean, scale = bottleneck.statistics(feature)
    assert bottleneck.size == 5 and mean.shape == scale.shape == (4, 5)
    assert torch.allclose(mean, both[:, :5], atol=1e-6)
    assert torch.allclose(scale, (both[:, 5:] - 5).exp().log1p(), rtol=1e-5)


@torch.no_grad()
def test_noise() -> None:
    torch.manual_seed(0)
    feature = torch.randn(20000, 4)
    for test_noise in (True, False):
        bottleneck = Bottleneck(4, test_noise=test_noise)
        mean, scale = bottleneck.statistics(feature)
        for training in (True, False):
            bottleneck.train(training)
            noise = (bottleneck(feature) - mean) / scale
            if training or test_noise:
                # Standard errors over 40000 draws: 0.005 for the mean, 0.0035 for the standard deviation.
                assert abs(float(noise.mean())) < 0.025 and float(noise.std()) == pytest.approx(1, abs=0.018)
            else:
                assert torch.equal(bottleneck(feature), mean)


def test_insert_bottleneck_keeps_the_backbone() -> None:
    original = small()
    state = {name: value.clone() for name, value in original.state_dict().items()}
    network = insert_bottleneck(original, 5, test_noise=True)
    assert network.layers == ("block1", "feature", "bottleneck")
    kept = [name for name in state if not name.startswith("stages.logits")]
    assert kept and all(torch.equal(network.state_dict()[name], state[name]) for name in kept)
    x = torch.rand(6, *IMAGE)
    shapes = {name: tuple(z.shape[1:]) for name, z in network.latents(x).items()}
    assert shapes == {"block1": (3, 2, 2), "feature": (10,), "bottleneck": (5,)}
    assert network.logits(x).shape == (6, 5)


@pytest.mark.parametrize(
    ("name", "image", "feature", "size"),
    [
        ("mcnn", (1, 32, 32), "layer3", 128),
        ("vgg16_bn", (3, 32, 32), "feature", 256),
        ("vgg16_bn", (3, 64, 64), "feature", 1024),
        ("resnet34", (3, 64, 64), "fc1", 25),
    ],
)
def test_code_has_half_of_the_published_feature(
    name: str, image: tuple[int, int, int], feature: str, size: int
) -> None:
    fields = {"classes": 5, "judge_classes": 10, "attacked": 5, "draws": 1, "judge_network": "scnn"}
    described = Protocol(name="test", version=1, image=image, target_network=name, **fields)
    network = MID().network(described)
    assert network.layers[-2:] == (feature, "bottleneck")
    bottleneck = network.stages["bottleneck"]
    assert isinstance(bottleneck, Bottleneck) and bottleneck.size == size
    ends = network.stages[feature]
    assert isinstance(ends, nn.Sequential) and not isinstance(ends[-1], nn.BatchNorm1d | nn.ReLU)
    with torch.no_grad():
        assert network.eval().logits(torch.rand(1, *image)).shape == (1, 5)


@torch.no_grad()
def test_loss_is_cross_entropy_plus_beta_times_the_mean_divergence() -> None:
    x, y = torch.rand(6, *IMAGE), torch.tensor([0, 1, 2, 3, 4, 0])
    network = Small().network(protocol()).train()
    bottleneck = cast(Bottleneck, network.stages["bottleneck"])
    values = []
    for beta in (0.0, 0.5):
        torch.manual_seed(7)
        values.append(float(Small(beta=beta).loss(network, x, y)))
    torch.manual_seed(7)
    assert values[0] == pytest.approx(float(functional.cross_entropy(network.logits(x), y)), rel=1e-6)
    mean, scale = bottleneck.statistics(network.encode(x, "feature"))
    assert values[1] - values[0] == pytest.approx(0.5 * float(bottleneck.divergence(mean, scale).mean()), rel=1e-4)


def test_penalty_lowers_the_divergence() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(32, *IMAGE, generator=generator), torch.arange(32) % 5
    divergences = []
    for beta in (0.0, 1.0):
        defense = Small(beta=beta)
        network = defense.network(protocol()).train()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        torch.manual_seed(0)
        for _ in range(30):
            optimizer.zero_grad()
            cast(Any, defense.loss(network, x, y)).backward()
            optimizer.step()
        bottleneck = cast(Bottleneck, network.stages["bottleneck"])
        with torch.no_grad():
            statistics = bottleneck.statistics(network.encode(x, "feature"))
            divergences.append(float(bottleneck.divergence(*statistics).mean()))
    assert divergences[1] < 0.5 * divergences[0]
