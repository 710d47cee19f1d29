"""Decoders for every network and cut layer, and the discriminator, against their lists of layers."""

import pytest
import torch
from privbench.benchmark.networks.decoders import Decoder, ImageDiscriminator
from privbench.benchmark.networks.factory import build_network
from torch import nn
from torch.nn import functional

SMALL = [
    ("resnet50", (3, 64, 64)),
    ("vgg16_bn", (3, 32, 32)),
    ("vgg16_bn", (3, 64, 64)),
    ("mcnn", (1, 32, 32)),
    ("scnn", (1, 32, 32)),
    ("resnet34", (3, 64, 64)),
]


@pytest.mark.parametrize(("name", "image"), SMALL)
def test_every_cut_layer_has_a_decoder(name, image):
    network = build_network(name, image, 5).eval()
    with torch.no_grad():
        for layer, z in network.latents(torch.rand(2, *image)).items():
            found = Decoder(z.shape[1:], image, max_channels=16).eval()(z)
            assert found.shape == (2, *image), layer
            assert found.min() >= 0
            assert found.max() <= 1


def test_figure_6():
    with torch.device("meta"):
        decoder = Decoder((1000,), (3, 224, 224))
    linear = [(m.in_features, m.out_features) for m in decoder.modules() if isinstance(m, nn.Linear)]
    widths = [
        (m.in_channels, m.out_channels, m.kernel_size) for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)
    ]
    assert linear == [(1000, 2048), (2048, 2048 * 7 * 7)]
    assert widths == [(a, b, (3, 3)) for a, b in ((2048, 1024), (1024, 512), (512, 256), (256, 64), (64, 3))]


@pytest.mark.parametrize(
    ("latent", "first"), [((256, 56, 56), 256), ((512, 28, 28), 512), ((1024, 14, 14), 1024), ((2048, 7, 7), 2048)]
)
def test_the_decoder_starts_with_the_channels_of_the_cut_layer(latent, first):
    with torch.device("meta"):
        decoder = Decoder(latent, (3, 224, 224))
    widths = [m.in_channels for m in decoder.modules() if isinstance(m, nn.ConvTranspose2d)]
    assert widths == [w for w in (2048, 1024, 512, 256, 64) if w <= first]
    with torch.device("meta"):
        wide = Decoder((2048,), (3, 224, 224))
    assert [m.in_features for m in wide.modules() if isinstance(m, nn.Linear)] == [2048]


def test_no_layer_is_wider_than_allowed():
    layers = [m for m in Decoder((6,), (1, 64, 64), max_channels=8).modules() if isinstance(m, nn.ConvTranspose2d)]
    assert [m.in_channels for m in layers] == [8, 8, 8, 8]


def weights_of(module):
    """Layers with weights, in order; norms get statistics, scales and shifts that differ."""
    torch.manual_seed(2)
    found = [m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d)]
    for norm in found:
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.2)
            nn.init.normal_(norm.running_mean, std=0.2)
    return iter(found)


def normalised(x, norm):
    x = (x - norm.running_mean.view(-1, 1, 1)) / (norm.running_var + 1e-5).sqrt().view(-1, 1, 1)
    return x * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)


@pytest.mark.parametrize(
    ("latent", "image", "start", "doublings"),
    [((6,), (1, 32, 32), (4, 4), 3), ((4, 4, 4), (3, 16, 16), (4, 4), 2), ((4, 5, 4), (3, 22, 16), (6, 4), 2)],
)
@torch.no_grad()
def test_a_decoder_equals_its_list_of_layers(latent, image, start, doublings):
    """Two linear layers with ReLU for a flat Z; doublings with norm and ReLU; the last one ends in a sigmoid."""
    decoder = Decoder(latent, image, max_channels=8).eval()
    layers = weights_of(decoder)
    z = torch.randn(3, *latent)
    x = z
    if len(latent) == 1:
        for layer in (next(layers), next(layers)):
            x = (x @ layer.weight.T + layer.bias).clamp_min(0)
        x = x.view(3, -1, *start)
    elif latent[1:] != start:
        x = functional.interpolate(x, start, mode="bilinear")
    for i in range(doublings):
        layer = next(layers)
        x = functional.conv_transpose2d(x, layer.weight, layer.bias, stride=2, padding=1, output_padding=1)
        x = normalised(x, next(layers)).clamp_min(0) if i + 1 < doublings else 1 / (1 + (-x).exp())
    assert next(layers, None) is None
    torch.testing.assert_close(decoder(z), x[:, :, : image[1], : image[2]])


@torch.no_grad()
def test_the_discriminator_equals_its_list_of_layers():
    """Convolutions of stride 2 on images in [-1, 1], norms after all but the first, then the mean of a map."""
    discriminator = ImageDiscriminator((3, 32, 32)).eval()
    layers = weights_of(discriminator)
    images = torch.rand(2, 3, 32, 32)
    x = 2 * images - 1
    for i in range(3):
        layer = next(layers)
        x = functional.conv2d(x, layer.weight, layer.bias, stride=2, padding=1)
        x = normalised(x, next(layers)) if i else x
        x = torch.where(x > 0, x, 0.2 * x)
    layer = next(layers)
    x = functional.conv2d(x, layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(discriminator(images), x.sum((1, 2, 3)) / 16)


@pytest.mark.parametrize("image", [(1, 8, 8), (3, 32, 32), (1, 28, 30), (3, 224, 224)])
def test_discriminator_supports_any_size(image):
    assert ImageDiscriminator(image)(torch.rand(2, *image)).shape == (2,)
