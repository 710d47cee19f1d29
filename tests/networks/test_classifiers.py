"""Classifiers against the published shapes, worked parameter counts and torchvision's own networks."""

import copy
import functools
import math
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torchvision.models
from privbench.benchmark import registry
from privbench.benchmark.errors import InvalidConfigurationError, UnknownComponentError
from privbench.benchmark.networks.classifiers import facenet, resnet34, vgg
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.networks.factory import build_network
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.vgg import cfgs, make_layers

SHAPES = {
    ("mcnn", 1, 32): {"layer1": (64, 14, 14), "layer2": (128, 5, 5), "layer3": (256,)},
    ("scnn", 1, 32): {
        "layer1": (32, 14, 14),
        "layer2": (64, 5, 5),
        "layer3": (128, 1, 1),
        "layer4": (256, 1, 1),
        "layer5": (512,),
    },
    ("lenet5", 1, 32): {"layer1": (6, 14, 14), "layer2": (16, 5, 5), "layer3": (120,), "layer4": (84,)},
    ("lenet5", 1, 28): {"layer1": (6, 12, 12), "layer2": (16, 5, 5), "layer3": (120,), "layer4": (84,)},
    ("lenet5", 3, 64): {"layer1": (6, 30, 30), "layer2": (16, 5, 5), "layer3": (120,), "layer4": (84,)},
    ("vgg16_bn", 3, 64): {
        "block1": (64, 32, 32),
        "block2": (128, 16, 16),
        "block3": (256, 8, 8),
        "block4": (512, 4, 4),
        "feature": (2048,),
    },
    ("vgg16_bn", 3, 32): {
        "block1": (64, 16, 16),
        "block2": (128, 8, 8),
        "block3": (256, 4, 4),
        "block4": (512, 2, 2),
        "feature": (512,),
    },
    ("vgg19_bn", 3, 32): {
        "block1": (64, 16, 16),
        "block2": (128, 8, 8),
        "block3": (256, 4, 4),
        "block4": (512, 2, 2),
        "feature": (512,),
    },
    ("resnet34", 3, 64): {
        "stem": (64, 16, 16),
        "stage1": (64, 16, 16),
        "stage2": (128, 8, 8),
        "stage3": (256, 4, 4),
        "stage4": (512, 2, 2),
        "fc1": (50,),
        "bn2": (50,),
    },
    ("facenet", 3, 64): {"embedding": (512,)},
}


IMAGES = {"mcnn": (1, 32), "scnn": (1, 32), "lenet5": (1, 32), "vgg16_bn": (3, 32), "vgg19_bn": (3, 32)}


@functools.cache
def network(name: str, channels: int, side: int) -> Network:
    """One network of each kind for all tests, which do not change it."""
    torch.manual_seed(0)
    return build_network(name, (channels, side, side), 5).eval()


@functools.cache
def traced(name: str, channels: int, side: int) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Two images with their latents and logits."""
    x = torch.rand(2, channels, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return x, *network(name, channels, side).trace(x)


@pytest.fixture(autouse=True)
def no_gradients(request: pytest.FixtureRequest) -> Iterator[None]:
    with torch.set_grad_enabled("gradients" in request.node.name):
        yield


@pytest.mark.parametrize(("name", "channels", "side"), SHAPES)
def test_latents_have_the_published_shapes(name: str, channels: int, side: int) -> None:
    net = network(name, channels, side)
    _, latents, logits = traced(name, channels, side)
    shapes = {layer: tuple(z.shape[1:]) for layer, z in latents.items()}
    assert list(shapes.items()) == list(SHAPES[name, channels, side].items())
    assert net.layers == tuple(shapes)
    assert logits.shape == (2, 5)


def block(inputs: int, outputs: int, kernel: int) -> int:
    """A convolution with bias and its batch norm: k k c_in c_out + c_out + 2 c_out."""
    return kernel * kernel * inputs * outputs + 3 * outputs


def basic(inputs: int, outputs: int) -> int:
    """Two 3 x 3 convolutions without bias, two norms, and a projection where the width changes."""
    projection = inputs * outputs + 2 * outputs if inputs != outputs else 0
    return 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs + projection


COUNTS = {
    ("mcnn", 1, 32): block(1, 64, 7) + block(64, 128, 5) + block(128, 256, 5) + 256 * 5 + 5,
    ("scnn", 1, 32): block(1, 32, 7) + block(32, 64, 5) + block(64, 128, 5) + block(128, 256, 3) + block(256, 512, 3)
    + 512 * 5 + 5,
    # LeCun 1998 without its table of connections and its trained pools: 156, 2 416, 48 120, 10 164, then 84 K + K.
    ("lenet5", 1, 32): 156 + 2_416 + 48_120 + 10_164 + 84 * 5 + 5,
    # 14 723 136 is torchvision's vgg16_bn.features; then batch norm and classifier on 2 048 features.
    ("vgg16_bn", 3, 64): 14_723_136 + 2 * 2048 + 2048 * 5 + 5,
    ("vgg16_bn", 3, 32): 14_723_136 + 2 * 512 + 512 * 5 + 5,
    ("vgg19_bn", 3, 32): sum(p.numel() for p in make_layers(cfgs["E"], batch_norm=True).parameters())
    + 2 * 512 + 512 * 5 + 5,
    ("resnet34", 3, 64): 49 * 3 * 64 + 2 * 64 + 3 * basic(64, 64) + basic(64, 128) + 3 * basic(128, 128)
    + basic(128, 256) + 5 * basic(256, 256) + basic(256, 512) + 2 * basic(512, 512)
    + 2 * 512 + 512 * 50 + 50 + 2 * 50 + 50 * 5 + 5,
}  # fmt: skip


@pytest.mark.parametrize(("name", "channels", "side"), COUNTS)
def test_parameter_counts(name: str, channels: int, side: int) -> None:
    net = network(name, channels, side)
    assert sum(p.numel() for p in net.parameters()) == COUNTS[name, channels, side]


def stirred(module: nn.Module) -> nn.Module:
    """Give every norm different statistics, scale and shift, so that a wrong copy is noticed."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            for value in (layer.running_mean, layer.bias.data):
                value.normal_(0, 0.2)
            for value in (layer.running_var, layer.weight.data):
                value.uniform_(0.5, 1.5)
    return module.eval()


#: Layers of the published networks, without their last linear layer; `conv p` is padded by p.
LAYERS = {
    "mcnn": "conv 1, norm, leaky, pool, conv 0, norm, leaky, pool, conv 0, norm, leaky",
    "scnn": "conv 1, norm, leaky, pool, conv 0, norm, leaky, pool, conv 0, norm, leaky, conv 1, norm, leaky, "
    "conv 1, norm, leaky",
    "lenet5": "conv 0, relu, pool, conv 0, relu, pool, conv 0, relu, linear, relu",
}


def run_layers(layers: str, x: torch.Tensor, weights: Iterator[nn.Module]) -> torch.Tensor:
    """Run layers one after the other with functions; those with weights take the next ones."""
    for kind, *padding in map(str.split, layers.split(", ")):
        layer = next(weights) if kind in ("conv", "norm", "linear") else None
        if kind == "conv":
            x = functional.conv2d(x, layer.weight, layer.bias, padding=int(padding[0]))
        elif kind == "norm":
            shape = (1, -1, *[1] * (x.dim() - 2))
            mean, deviation = layer.running_mean.view(shape), (layer.running_var + 1e-5).sqrt().view(shape)
            x = (x - mean) / deviation * layer.weight.view(shape) + layer.bias.view(shape)
        elif kind == "linear":
            x = x.flatten(1) @ layer.weight.T + layer.bias
        elif kind == "pool":
            x = functional.max_pool2d(x, 2)
        else:
            x = torch.where(x > 0, x, 0.2 * x if kind == "leaky" else 0.0)
    return x


def with_weights(module: nn.Module) -> Iterator[nn.Module]:
    kinds = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
    return (layer for layer in module.modules() if isinstance(layer, kinds))


@pytest.mark.parametrize("name", LAYERS)
def test_small_networks_equal_their_list_of_layers(name: str) -> None:
    torch.manual_seed(1)
    net = stirred(build_network(name, (1, 32, 32), 5))
    x = 3 * torch.rand(4, 1, 32, 32)
    x[1:] *= torch.arange(3).view(3, 1, 1, 1)
    expected = run_layers(f"{LAYERS[name]}, linear", x, with_weights(net))
    assert expected.std(0).max() > 1e-3
    torch.testing.assert_close(net.logits(x), expected, rtol=1e-4, atol=1e-5)


def test_the_end_of_resnet34_equals_its_list_of_layers() -> None:
    """Average pool, ReLU, norm, linear to 50, which is `fc1`; then ReLU, norm, linear."""
    torch.manual_seed(1)
    rest = {name: network("resnet34", 3, 64).stages[name] for name in ("fc1", "bn2", "logits")}
    net = stirred(Network({"stage4": nn.Identity(), **copy.deepcopy(rest)}))
    maps = torch.randn(6, 512, 2, 2)
    weights = with_weights(net)
    fc1 = run_layers("relu, norm, linear", maps.mean((2, 3)), weights)
    torch.testing.assert_close(net.stages["fc1"](maps), fc1, rtol=1e-4, atol=1e-5)
    expected = run_layers("relu, norm, linear", fc1, weights)
    torch.testing.assert_close(net.head(maps, "stage4"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "configuration"), [("vgg16_bn", "D"), ("vgg19_bn", "E")])
def test_vgg_equals_torchvision(name: str, configuration: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    features = stirred(make_layers(cfgs[configuration], batch_norm=True))
    state = {f"features.{key}": value for key, value in features.state_dict().items()}
    state = {key: value for key, value in state.items() if "num_batches" not in key}
    state["classifier.0.weight"] = torch.zeros(1)
    monkeypatch.setattr(vgg, "imagenet_state", lambda asked: state if asked == name else None)
    net = build_network(name, (3, 32, 32), 5, pretrained=True).eval()
    x = torch.rand(2, 3, 32, 32)
    stages, width = net.backbone()
    z = x
    for stage in stages.values():
        z = stage(z)
    expected = features(x).flatten(1)
    assert expected.abs().max() > 0.01
    assert (z.shape, width) == ((2, 512), 512)
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-6)
    # Batch norm in its initial state in evaluation mode divides by sqrt(1 + eps).
    torch.testing.assert_close(net.features(x), expected / math.sqrt(1 + 1e-5), rtol=0, atol=1e-6)


def test_resnet_equals_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    reference = stirred(torchvision.models.resnet34(weights=None, num_classes=3))
    monkeypatch.setattr(resnet34, "imagenet_state", lambda asked: reference.state_dict())
    net = build_network("resnet34", (3, 64, 64), 5, pretrained=True).eval().double()
    reference.fc = nn.Identity()
    x = torch.rand(1, 3, 64, 64).double()
    expected = reference.double()(2 * x - 1)
    torch.testing.assert_close(net.encode(x, "stage4").mean((2, 3)), expected, rtol=1e-9, atol=1e-9)
    assert list(net.backbone()[0]) == ["stem", "stage1", "stage2", "stage3", "stage4", "fc1"]
    assert net.backbone()[1] == 50


def test_resnet_weights_start_as_published() -> None:
    net = network("resnet34", 3, 64)
    for convolution in (net.stages["stem"].conv1, net.stages["stage4"][2].conv2):
        assert convolution.bias is None
        outputs, _, kernel, _ = convolution.weight.shape
        expected = math.sqrt(2 / (kernel * kernel * outputs))
        # The sample deviation of n normal values scatters by 1 / sqrt(2 n) of itself; five of those.
        assert convolution.weight.std().item() == pytest.approx(
            expected, rel=5 / math.sqrt(2 * convolution.weight.numel())
        )


def test_facenet_resizes_and_scales_as_published() -> None:
    net, (x, latents, _) = network("facenet", 3, 64), traced("facenet", 3, 64)
    larger = nn.functional.interpolate(x[:1], (160, 160), mode="bilinear", align_corners=False)
    expected = net.stages["embedding"].body((255 * larger - 127.5) / 128)
    torch.testing.assert_close(latents["embedding"][:1], expected, rtol=1e-4, atol=1e-5)
    assert expected.norm(dim=1).item() != pytest.approx(1)


@pytest.mark.parametrize(("size", "reduced"), [((80, 120), False), ((160, 160), False), ((480, 160), True)])
def test_facenet_smooths_images_that_it_reduces(size: tuple[int, int], reduced: bool) -> None:
    seen = SimpleNamespace(size=facenet.Embedding.size, body=lambda x: x)
    x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    smooth, plain = (
        functional.interpolate(x, (160, 160), mode="bilinear", align_corners=False, antialias=antialias)
        for antialias in (True, False)
    )
    expected = (255 * (smooth if reduced else plain) - 127.5) / 128
    torch.testing.assert_close(facenet.Embedding.forward(seen, x), expected)
    assert facenet.Embedding.forward(seen, x[:0]).shape == (0, 512)


@pytest.mark.parametrize("name", registry.names("network"))
def test_every_layer_continues_to_the_logits(name: str) -> None:
    shape = IMAGES.get(name, (3, 64))
    net, (x, latents, logits) = network(name, *shape), traced(name, *shape)
    assert torch.isfinite(logits).all()
    for layer in (net.layers[0], *net.layers[-2:]):
        assert torch.equal(net.head(latents[layer], layer), logits)
    for layer in net.layers[:2]:
        assert torch.equal(net.encode(x, layer), latents[layer])


@pytest.mark.parametrize("name", ["mcnn", "scnn", "lenet5", "vgg16_bn", "resnet34"])
def test_the_memory_layout_does_not_change_values(name: str) -> None:
    shape = IMAGES.get(name, (3, 64))
    x, _, logits = traced(name, *shape)
    for stage in network(name, *shape).stages.values():
        x = stage(x)
    torch.testing.assert_close(logits, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mcnn", "scnn", "lenet5", "vgg16_bn", "resnet34"])
def test_backbones_end_in_flat_features(name: str) -> None:
    shape = IMAGES.get(name, (3, 64))
    _, latents, _ = traced(name, *shape)
    stages, width = network(name, *shape).backbone()
    before, last = list(stages)[-2:]
    assert stages[last](latents[before]).shape == (2, width)


def test_the_second_judge_of_digits_is_cheaper_than_the_first() -> None:
    costs = {}
    for name in ("lenet5", "scnn"):
        with FlopCounterMode(display=False) as counter:
            network(name, 1, 32)(traced(name, 1, 32)[0])
        costs[name] = counter.get_total_flops(), sum(p.numel() for p in network(name, 1, 32).parameters())
    assert costs["lenet5"][0] * 15 < costs["scnn"][0]
    assert costs["lenet5"][1] * 15 < costs["scnn"][1]


@pytest.mark.parametrize("name", registry.names("network"))
def test_a_state_can_be_saved_and_loaded(name: str) -> None:
    net = network(name, *IMAGES.get(name, (3, 64)))
    state = net.state_dict()
    assert all(value.is_contiguous() for value in state.values())
    other = copy.deepcopy(net)
    for value in other.state_dict().values():
        value.fill_(7)
    other.load_state_dict(load(save(dict(state))), strict=True)
    restored = other.state_dict()
    assert list(restored) == list(state)
    assert all(torch.equal(restored[key], value) for key, value in state.items())


@pytest.mark.parametrize("name", ["mcnn", "scnn", "lenet5", "vgg16_bn", "resnet34"])
def test_gradients_reach_every_weight(name: str) -> None:
    shape = IMAGES.get(name, (3, 64))
    net = copy.deepcopy(network(name, *shape)).train()
    x = traced(name, *shape)[0].clone().requires_grad_()
    nn.functional.cross_entropy(net(x), torch.tensor([0, 1])).backward()
    frozen = [key for key, p in net.named_parameters() if not p.requires_grad]
    assert frozen == (["stages.feature.norm.bias"] if name.startswith("vgg") else [])
    gradients = [x.grad, *(p.grad for p in net.parameters() if p.requires_grad)]
    assert all(torch.isfinite(g).all() for g in gradients)
    # Batch norm before batch norm leaves some gradients at rounding error, never at none.
    assert all(g.abs().sum() > 0 for g in gradients)


def test_gradients_repeat() -> None:
    def gradients() -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = build_network("mcnn", (1, 32, 32), 5).train()
        nn.functional.cross_entropy(net(torch.rand(4, 1, 32, 32)), torch.arange(4)).backward()
        return [p.grad for p in net.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))


@pytest.mark.parametrize(
    ("name", "image", "pretrained", "message"),
    [
        ("mcnn", (1, 28, 28), False, "at least 1 x 32 x 32 .C x H x W., got 1 x 28 x 28; choose"),
        ("scnn", (0, 32, 32), False, "got 0 x 32 x 32"),
        ("vgg16_bn", (3, 64, 31), False, "vgg16_bn to be at least 1 x 32 x 32"),
        ("resnet34", (3, 16, 16), False, "got 3 x 16 x 16"),
        ("facenet", (1, 64, 64), False, "3 channels, got 1 x 64 x 64"),
        ("mcnn", (1, 32, 32), True, "dataset.pretrained to be false for mcnn"),
        ("scnn", (1, 32, 32), True, "dataset.pretrained to be false for scnn"),
        ("lenet5", (1, 32, 27), False, "lenet5 to be at least 1 x 28 x 28"),
        ("lenet5", (1, 32, 32), True, "dataset.pretrained to be false for lenet5"),
        ("vgg19_bn", (1, 32, 32), True, "3 channels.*dataset.pretrained=false"),
        ("resnet34", (1, 32, 32), True, "3 channels.*dataset.pretrained=false"),
    ],
)
def test_unsupported_images_and_weights_are_rejected(
    name: str, image: tuple[int, int, int], pretrained: bool, message: str
) -> None:
    with pytest.raises(InvalidConfigurationError, match=message):
        build_network(name, image, 5, pretrained=pretrained)


def test_message_for_an_unknown_network() -> None:
    with pytest.raises(UnknownComponentError, match="did you mean 'mcnn'"):
        build_network("mcn", (1, 32, 32), 5)


def test_another_head_needs_flat_features() -> None:
    with pytest.raises(InvalidConfigurationError, match="end in a linear layer, got Sequential"):
        Network({"flat": nn.Flatten(), "logits": nn.Sequential(nn.Linear(4, 3))}).backbone()
