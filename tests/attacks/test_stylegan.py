"""StyleGAN2 against its equations, image by image: per-image weights, one w per layer, noise, deviation of a group."""

import math

import torch
from privbench.attacks.networks.stylegan import StyleDiscriminator, StyleGenerator
from torch.nn import functional

LATENT = 5


def generator(**options):
    """A tiny generator in float64 whose biases and noise matter."""
    torch.manual_seed(0)
    network = StyleGenerator((3, 16, 16), LATENT, channel_base=64, channel_max=6, **options).double()
    network.requires_grad_(False)
    for name, value in network.named_parameters():
        if name.endswith("strength") or (name.endswith("bias") and ".style." not in name):
            value.copy_(torch.randn_like(value))
    return network


def discriminator(group=2):
    torch.manual_seed(0)
    network = StyleDiscriminator((3, 16, 16), channel_base=64, channel_max=6, group=group).double()
    network.requires_grad_(False)
    for name, value in network.named_parameters():
        if name.endswith("bias"):
            value.copy_(torch.randn_like(value))
    return network


def active(x):
    """Leaky ReLU whose output has the variance of its input."""
    return math.sqrt(2) * torch.where(x > 0, x, 0.2 * x)


def enlarged(x):
    """Bilinear, twice as large: each new pixel lies a quarter of a pixel from an old one."""
    return functional.interpolate(x[None], scale_factor=2, mode="bilinear", align_corners=False)[0]


def mapped(network, z):
    """w of one z: normalised, then layers whose weights count a hundredth and are scaled at run time."""
    w = z / (z**2).mean().sqrt()
    for layer in network.mapping:
        w = active(0.01 / math.sqrt(LATENT) * layer.weight @ w + 0.01 * layer.bias)
    return w


def modulated(layer, x, w, demodulate):
    """Convolution of one image with weights of its own."""
    inputs, side = layer.weight.shape[1:3]
    style = layer.style.weight @ w / math.sqrt(LATENT) + layer.style.bias
    weight = layer.weight / math.sqrt(inputs * side**2) * style.view(1, inputs, 1, 1)
    if demodulate:
        weight = torch.stack([kernel / ((kernel**2).sum() + 1e-8).sqrt() for kernel in weight])
    return functional.conv2d(x[None], weight, layer.bias, padding=side // 2)[0]


def synthesised(network, w):
    """One image in [-1, 1] of one w per layer, with the constant noise."""
    layers, x, picture = list(network.convolutions), network.constant[0], None
    for block, colour in enumerate(network.colours):
        # 4 x 4 has one convolution; a later block has two, of which the first enlarges.
        for number in (0,) if block == 0 else (2 * block - 1, 2 * block):
            layer = layers[number]
            if block and number == 2 * block - 1:
                x = enlarged(x)
            x = modulated(layer.convolution, x, w[number], True)
            x = active(x + layer.strength * layer.noise[0])
        # The colours of a block share their w with the first convolution of the next.
        new = modulated(colour, x, w[2 * block + 1], False)
        picture = new if picture is None else enlarged(picture) + new
    return picture


def test_images_are_synthesised_with_one_w_per_layer():
    network = generator().eval()
    assert network.layers == 6
    z = torch.randn(2, 6, LATENT, dtype=torch.double)
    found = network(z)
    for image, row in zip(found, z, strict=True):
        expected = synthesised(network, [mapped(network, value) for value in row])
        torch.testing.assert_close(2 * image - 1, expected, rtol=1e-6, atol=1e-6)
    same = torch.randn(2, LATENT, dtype=torch.double)
    torch.testing.assert_close(network(same), network(same[:, None].expand(-1, 6, -1)))


def test_weights_start_as_published():
    torch.manual_seed(0)
    network = StyleGenerator((3, 16, 16), 64, channel_base=1024, channel_max=64)
    for layer in network.mapping:
        assert abs(layer.weight.std().item() - 100) < 5 and (layer.bias == 0).all()
    for layer in network.convolutions:
        assert layer.strength == 0 and (layer.convolution.style.bias == 1).all()
        assert abs(layer.convolution.weight.std().item() - 1) < 0.05 and (layer.convolution.bias == 0).all()
    assert len(network.mapping) == 2 and len(generator(mapping_layers=3).mapping) == 3


def test_channels_shrink_with_the_resolution_up_to_the_largest():
    network = StyleGenerator((3, 64, 64), 4, channel_base=128, channel_max=10)
    assert network.layers == 10
    assert [colour.weight.shape[1] for colour in network.colours] == [10, 10, 8, 4, 2]
    found = StyleDiscriminator((3, 64, 64), channel_base=128, channel_max=10)
    assert [block.first.weight.shape[1] for block in found.blocks] == [2, 4, 8, 10]


def test_noise_is_constant_in_evaluation_mode_only():
    network = generator().train()
    z = torch.randn(2, LATENT, dtype=torch.double)
    assert not torch.equal(network(z), network(z))
    network.eval()
    assert torch.equal(network(z), network(z))
    # In training each image has noise of its own.
    network.train()
    first, second = network(z[:1].expand(2, -1))
    assert not torch.allclose(first, second)


def convolved(layer, x):
    inputs, side = layer.weight.shape[1:3]
    return functional.conv2d(x, layer.weight / math.sqrt(inputs * side**2), layer.bias, padding=side // 2)


def halved(x):
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def test_the_discriminator_is_residual_and_sees_the_deviation_of_a_group():
    network = discriminator(group=2)
    published = 2 * torch.rand(4, 3, 16, 16, dtype=torch.double) - 1
    x = active(convolved(network.entry, published))
    for block in network.blocks:
        skip = convolved(block.skip, halved(x))
        x = active(convolved(block.first, x))
        x = (active(halved(convolved(block.second, x))) + skip) / math.sqrt(2)
    # Image i is in group i mod 2.
    deviation = torch.stack([((x[i % 2 :: 2].var(0, unbiased=False) + 1e-8) ** 0.5).mean() for i in range(4)])
    x = torch.cat((x, deviation.view(4, 1, 1, 1).expand(-1, -1, 4, 4)), 1)
    x = active(convolved(network.exit, x)).flatten(1)
    x = active(x @ network.hidden.weight.T / math.sqrt(x.shape[1]) + network.hidden.bias)
    logits = x @ network.output.weight[0] / math.sqrt(x.shape[1]) + network.output.bias
    torch.testing.assert_close(network((published + 1) / 2), logits)


def test_images_that_do_not_fill_groups_are_one_group():
    network = discriminator(group=2)
    x = torch.rand(3, 3, 4, 4, dtype=torch.double)
    expected = ((x.var(0, unbiased=False) + 1e-8) ** 0.5).mean()
    torch.testing.assert_close(network._group_deviation(x), expected.expand(3, 1, 4, 4))
