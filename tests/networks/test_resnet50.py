"""ResNet-50 against torchvision's own forward pass, at every cut layer of Table 3."""

import functools

import pytest
import torch
import torchvision.models
from privbench.benchmark.errors import InvalidConfigurationError, MissingDataError
from privbench.benchmark.networks.classifiers import resnet34
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.networks.factory import build_network
from privbench.defenses.mid import insert_bottleneck
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

SHAPES = {
    "conv1": (256, 16, 16),
    "conv2": (512, 8, 8),
    "conv3": (1024, 4, 4),
    "conv4": (2048, 2, 2),
    "avgpool": (2048,),
    "fc": (1000,),
}
#: Where torchvision computes what a cut layer of ours is.
THEIRS = {"layer1": "conv1", "layer2": "conv2", "layer3": "conv3", "layer4": "conv4", "flatten": "avgpool", "fc": "fc"}


@functools.cache
def reference() -> nn.Module:
    """torchvision's network with different statistics, scale and shift in every norm, to notice a wrong copy."""
    torch.manual_seed(1)
    net = torchvision.models.resnet50(weights=None)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for value in (layer.running_mean, layer.bias.data):
                value.normal_(0, 0.2)
            for value in (layer.running_var, layer.weight.data):
                value.uniform_(0.5, 1.5)
    return net.eval()


@functools.cache
def network() -> Network:
    """Our network with those weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resnet34, "imagenet_state", lambda name: reference().state_dict() if name == "resnet50" else {})
        return build_network("resnet50", (3, 64, 64), 40, pretrained=True).eval()


@functools.cache
def traced() -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Two images with our latents and logits."""
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return x, *network().trace(x)


@torch.no_grad()
def test_every_latent_equals_torchvisions() -> None:
    x, latents, _ = traced()
    theirs = create_feature_extractor(reference(), THEIRS)(2 * x - 1)
    assert list(latents) == list(theirs) == list(SHAPES)
    for layer, z in latents.items():
        assert z.shape == (2, *SHAPES[layer])
        assert float(z.std(0).max()) > 1e-3, f"{layer} hardly depends on the image, so it would agree by accident"
        torch.testing.assert_close(z, theirs[layer], rtol=1e-4, atol=1e-4 * float(theirs[layer].abs().max()))
    assert float(latents["fc"].min()) < 0, "no ReLU after fc"


@pytest.mark.parametrize("layer", SHAPES)
@torch.no_grad()
def test_the_head_continues_the_encoding_at_every_cut(layer: str) -> None:
    net, (x, latents, logits) = network(), traced()
    z = net.encode(x, layer)
    torch.testing.assert_close(z, latents[layer], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(net.head(z, layer), logits, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(net.head(z + 1, layer), logits, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_head_is_an_mlp_of_two_layers() -> None:
    net, (_, latents, logits) = network(), traced()
    first, _, second = net.stages["logits"]
    assert [tuple(layer.weight.shape) for layer in (first, second)] == [(512, 1000), (40, 512)]
    hidden = (latents["fc"] @ first.weight.T + first.bias).clamp_min(0)
    torch.testing.assert_close(logits, hidden @ second.weight.T + second.bias, rtol=1e-5, atol=1e-5)
    # 25 557 032 is torchvision's resnet50.
    assert sum(p.numel() for p in net.parameters()) == 25_557_032 + 1000 * 512 + 512 + 512 * 40 + 40


@torch.no_grad()
def test_grey_and_odd_images() -> None:
    latents, logits = build_network("resnet50", (1, 32, 47), 3).eval().trace(torch.rand(1, 1, 32, 47))
    assert [latents["avgpool"].shape, latents["fc"].shape, logits.shape] == [(1, 2048), (1, 1000), (1, 3)]
    assert latents["conv4"].shape == (1, 2048, 1, 2)


def test_shapes_for_images_of_imagenets_size() -> None:
    with torch.device("meta"):
        latents = build_network("resnet50", (3, 224, 224), 3).latents(torch.empty(2, 3, 224, 224))
    sides = {layer: tuple(z.shape[2:]) for layer, z in latents.items() if z.dim() == 4}
    assert sides == {"conv1": (56, 56), "conv2": (28, 28), "conv3": (14, 14), "conv4": (7, 7)}


@torch.no_grad()
def test_a_bottleneck_follows_fc() -> None:
    made = insert_bottleneck(network(), 40, test_noise=False).eval()
    assert made.layers == (*SHAPES, "bottleneck")
    assert made.stages["bottleneck"].size == 500
    latents, logits = made.trace(traced()[0])
    torch.testing.assert_close(latents["fc"], traced()[1]["fc"])
    assert logits.shape == (2, 40)


@pytest.mark.parametrize(
    ("image", "pretrained", "message"),
    [
        ((3, 31, 64), False, "resnet50 to be at least 1 x 32 x 32 .C x H x W., got 3 x 31 x 64"),
        ((1, 32, 32), True, "resnet50 to have 3 channels, got 1 x 32 x 32.*dataset.pretrained=false"),
    ],
)
def test_unsupported_images_are_rejected(image: tuple[int, int, int], pretrained: bool, message: str) -> None:
    with pytest.raises(InvalidConfigurationError, match=message):
        build_network("resnet50", image, 5, pretrained=pretrained)


def test_weights_of_another_network_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    state = {key: value for key, value in reference().state_dict().items() if key != "fc.bias"}
    monkeypatch.setattr(resnet34, "imagenet_state", lambda name: state)
    with pytest.raises(
        MissingDataError, match=r"ImageNet weights of resnet50 to fit the network, got another fc\.bias"
    ):
        build_network("resnet50", (3, 32, 32), 5, pretrained=True)
