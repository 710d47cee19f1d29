"""Perceptual distance: VGG-16 equals torchvision's, properties of a distance, and a frozen network."""

from collections.abc import Callable, Iterator, Mapping

import pytest
import torch
from privbench.benchmark.errors import InvalidConfigurationError, MissingDataError
from privbench.benchmark.networks.perceptual.efficientnet_lite0 import EfficientNetLite0
from privbench.benchmark.networks.perceptual.perceptual import VGG16, Perceptual
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import vgg16
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms.functional import gaussian_blur, normalize

Reader = Callable[[Mapping[str, Tensor]], None]


class Tiny(Perceptual):
    """Two smooth layers, whose activations are divided by 1/2 and 3."""

    smallest, scales = 4, (0.5, 3.0)

    def __init__(self) -> None:
        super().__init__(pretrained=False)
        self.first = nn.Conv2d(3, 2, 3, dtype=torch.float64)
        self.second = nn.Conv2d(2, 3, 2, stride=2, dtype=torch.float64)
        self.norm = nn.BatchNorm2d(3, dtype=torch.float64)
        self.freeze()

    def layers(self, x: Tensor) -> tuple[Tensor, ...]:
        first = torch.tanh(self.first(x))
        return first, torch.tanh(self.norm(self.second(first)))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def tiny() -> Tiny:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tiny()


@pytest.fixture(scope="module", params=[VGG16, EfficientNetLite0])
def network(request: pytest.FixtureRequest) -> Iterator[Perceptual]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield request.param(pretrained=False)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Reader of published weights that returns a given state dict."""

    def put(state: Mapping[str, Tensor]) -> None:
        monkeypatch.setattr("privbench.benchmark.networks.perceptual.perceptual.read", lambda name: dict(state))

    return put


def torchvision_state() -> dict[str, Tensor]:
    """Random weights with the names and shapes of torchvision's VGG-16, and a stub of its classifier."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in vgg16(weights=None).state_dict().items()}
    draw = torch.Generator().manual_seed(1)
    kept = {name: shape for name, shape in shapes.items() if name.startswith("features.")}
    state = {
        name: torch.randn(shape, generator=draw) / max(shape[1:].numel(), 9) ** 0.5 for name, shape in kept.items()
    }
    return {**state, "classifier.0.weight": torch.zeros(1)}


def test_vgg_equals_torchvisions(published: Reader, generator: torch.Generator) -> None:
    state = torchvision_state()
    published(state)
    x = torch.rand(1, 3, 40, 33, generator=generator)
    oracle = make_layers(cfgs["D"], batch_norm=False)
    oracle.load_state_dict({k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")})
    oracle.requires_grad_(False)
    z = normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    # Positions of relu1_2, relu2_2, relu3_3, relu4_3, relu5_3.
    expected = [oracle[: position + 1](z) for position in (3, 8, 15, 22, 29)]
    found = VGG16().activations(x)
    assert [part.shape[1] for part in found] == [64, 128, 256, 512, 512]
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("fault", ["missing", "unexpected", "shape"])
def test_other_weights_are_rejected(published: Reader, fault: str) -> None:
    state = torchvision_state()
    weight = state.pop("features.28.bias")
    if fault != "missing":
        state["features.28.bias"] = weight if fault == "unexpected" else weight[:5]
    if fault == "unexpected":
        state["features.30.bias"] = weight
    published(state)
    with pytest.raises(MissingDataError, match=r"the weights vgg16 to fit the network.*features\.(28|30)\.bias"):
        VGG16()


def test_distance_equals_a_slow_loop(tiny: Tiny, generator: torch.Generator) -> None:
    a, b = torch.rand(2, 3, 3, 7, 6, dtype=torch.float64, generator=generator)
    expected = []
    for i in range(3):
        total = 0.0
        for p, q, scale in zip(tiny.layers(a[i : i + 1]), tiny.layers(b[i : i + 1]), (0.5, 3), strict=True):
            squares = [((float(u) - float(v)) / scale) ** 2 for u, v in zip(p.flatten(), q.flatten(), strict=True)]
            total += sum(squares) / len(squares)
        expected.append(total)
    assert tiny.distance(a, b).tolist() == pytest.approx(expected, rel=1e-12)


def test_gradients_are_those_of_finite_differences(tiny: Tiny, generator: torch.Generator) -> None:
    a, b = torch.rand(2, 2, 1, 3, 5, dtype=torch.float64, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(tiny.distance, (a, b))


def test_it_is_a_distance(network: Perceptual, generator: torch.Generator) -> None:
    a, b = torch.rand(2, 2, 3, 32, 32, generator=generator)
    there = network.distance(a, b)
    assert torch.equal(network.distance(a, a), torch.zeros(2))
    assert torch.equal(network(b, a), there)
    assert bool((there > 0).all())
    assert there[1:].allclose(network.distance(a[1:], b[1:]), rtol=1e-4)


def test_it_grows_with_blur(network: Perceptual, generator: torch.Generator) -> None:
    x = torch.rand(1, 3, 32, 32, generator=generator)
    growing = torch.stack([network.distance(x, gaussian_blur(x, [9, 9], [s, s])) for s in (0.4, 0.6, 1.0, 2.0)])
    assert bool((growing.diff(dim=0) > 0).all())


def test_the_network_is_frozen_and_images_have_gradients(network: Perceptual) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    a = torch.full((2, 1, 32, 32), 0.5, requires_grad=True)
    parent = nn.Sequential(network).train()
    network.distance(a, torch.linspace(0, 1, 1024).reshape(1, 1, 32, 32).expand(2, -1, -1, -1)).sum().backward()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in parent.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert a.grad is not None
    assert 0 < float(a.grad.abs().max()) < float("inf")


def test_grey_is_repeated(network: Perceptual, generator: torch.Generator) -> None:
    grey = torch.rand(1, 1, 32, 32, generator=generator)
    for one, three in zip(network.activations(grey), network.activations(grey.repeat(1, 3, 1, 1)), strict=True):
        assert torch.equal(one, three)


@pytest.mark.parametrize(
    ("size", "seen"), [((2, 2), (4, 4)), ((2, 3), (4, 6)), ((3, 5), (4, 7)), ((4, 4), (4, 4)), ((9, 5), (9, 5))]
)
def test_only_small_images_are_enlarged(tiny: Tiny, size: tuple[int, int], seen: tuple[int, int]) -> None:
    x = torch.rand(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    same = x if size == seen else functional.interpolate(x, seen, mode="bilinear")
    expected = tiny.layers(same)
    assert all(torch.allclose(p, q, rtol=1e-12) for p, q in zip(tiny.activations(x), expected, strict=True))


def test_the_smallest_image_reaches_every_layer(network: Perceptual) -> None:
    last = network.activations(torch.zeros(1, 3, 8, 8))[-1]
    assert last.shape[-2:] == (2, 2)
    assert bool(torch.isfinite(last).all())


def test_two_channels_are_rejected(tiny: Tiny) -> None:
    with pytest.raises(InvalidConfigurationError, match="expected images for Tiny to have 1 or 3 channels, got 2; "):
        tiny.activations(torch.zeros(1, 2, 8, 8, dtype=torch.float64))
