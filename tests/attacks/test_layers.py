"""Generators and discriminators of GMI, KED-MI and the DCGAN against the published layers, written out by hand."""

import pytest
import torch
from privbench.attacks.networks.dcgan import DCDiscriminator, DCGenerator
from privbench.attacks.networks.discriminators import Critic, LabelDiscriminator
from privbench.attacks.networks.generators import Generator
from torch.nn import functional

IMAGES = [(1, 32, 32), (3, 64, 64)]


def built(kind, *arguments, **options):
    """A network in float64 with random norms, and its weights in the order of its layers."""
    torch.manual_seed(0)
    module = kind(*arguments, **options).double().requires_grad_(False)
    for name, value in module.state_dict().items():
        if "running" in name or value.ndim == 1:
            value.copy_(torch.rand_like(value) + 0.5)
    weights = [value for name, value in module.state_dict().items() if "num_batches" not in name]
    return module, iter(weights)


def leaky(x):
    return torch.where(x > 0, x, 0.2 * x)


def relu(x):
    return torch.where(x > 0, x, 0.0)


def column(value):
    return value.view(-1, 1, 1)


def normalised(x, weights, dims):
    """Batch norm with the moments of the batch (over 0, 2, 3) or of each image (over 2, 3)."""
    mean, variance = x.mean(dims, keepdim=True), x.var(dims, unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * column(next(weights)) + column(next(weights))


def stored(x, weights):
    """Batch norm with the stored moments, of `N C H W`."""
    scale, shift, mean, variance = (column(next(weights)) for _ in range(4))
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


@pytest.mark.parametrize("image", IMAGES)
def test_generator(image):
    generator, weights = built(Generator, image, 6)
    z, top = torch.randn(3, 6, dtype=torch.double), 8 * image[1]
    x = (z @ next(weights).T).view(3, 16 * top, 1, 1)
    x = relu(stored(x, weights)).view(3, top, 4, 4)
    while x.shape[1] > 64:
        x = functional.conv_transpose2d(x, next(weights), stride=2, padding=2, output_padding=1)
        x = relu(stored(x, weights))
    x = functional.conv_transpose2d(x, next(weights), next(weights), stride=2, padding=2, output_padding=1)
    assert not list(weights)
    torch.testing.assert_close(generator.eval()(z), 1 / (1 + (-x).exp()))


@pytest.mark.parametrize("image", IMAGES)
def test_critic(image):
    critic, weights = built(Critic, image)
    images = torch.rand(2, *image, dtype=torch.double)
    x = leaky(functional.conv2d(images, next(weights), next(weights), stride=2, padding=2))
    while x.shape[-1] > 4:
        x = functional.conv2d(x, next(weights), next(weights), stride=2, padding=2)
        x = leaky(normalised(x, weights, (2, 3)))
    scores = (x * next(weights)).sum((1, 2, 3)) + next(weights)
    assert not list(weights)
    for mode in (True, False):
        torch.testing.assert_close(critic.train(mode)(images), scores)


@pytest.mark.parametrize("image", IMAGES)
def test_label_discriminator(image):
    discriminator, weights = built(LabelDiscriminator, image, 5)
    discriminator.minibatch.weight *= 1e-3
    images = torch.rand(4, *image, dtype=torch.double)
    x = images
    for padding in (2, 2, 2, 1)[: 4 if image[1] == 64 else 3]:
        x = functional.conv2d(x, next(weights), next(weights), stride=2, padding=padding)
        x = leaky(normalised(x, weights, (2, 3)))
    f = x.flatten(1)
    kernels = torch.einsum("nf,fbc->nbc", f, next(weights))
    rows = []
    for pair in (kernels[:2], kernels[2:]):
        # The closeness to the other image of the pair; the one to itself is left out.
        rows += [(-(pair[0] - pair[1]).abs().sum(1)).exp()] * 2
    closeness = torch.stack(rows)
    assert closeness.max() > 0.01
    logits = torch.cat((f, closeness), 1) @ next(weights).T + next(weights)
    assert not list(weights)
    for mode in (True, False):
        discriminator.train(mode)
        torch.testing.assert_close(discriminator.features(images), f)
        torch.testing.assert_close(discriminator(images, group=2), logits)
        torch.testing.assert_close(discriminator.classify(f, 2), logits)


@pytest.mark.parametrize("image", IMAGES)
def test_generator_of_the_dcgan(image):
    generator, weights = built(DCGenerator, image, 6, 2)
    z = torch.randn(3, 6, dtype=torch.double)
    x = functional.conv_transpose2d(z.view(3, 6, 1, 1), next(weights))
    x = relu(stored(x, weights))
    while x.shape[-1] < image[1] // 2:
        x = functional.conv_transpose2d(x, next(weights), stride=2, padding=1)
        x = relu(stored(x, weights))
    x = functional.conv_transpose2d(x, next(weights), stride=2, padding=1)
    assert not list(weights) and x.shape[1:] == image
    published = (x.exp() - (-x).exp()) / (x.exp() + (-x).exp())
    torch.testing.assert_close(2 * generator.eval()(z) - 1, published)


@pytest.mark.parametrize("image", IMAGES)
def test_discriminator_of_the_dcgan(image):
    discriminator, weights = built(DCDiscriminator, image, 2)
    published = 2 * torch.rand(3, *image, dtype=torch.double) - 1
    x = leaky(functional.conv2d(published, next(weights), stride=2, padding=1))
    while x.shape[-1] > 4:
        x = functional.conv2d(x, next(weights), stride=2, padding=1)
        x = leaky(normalised(x, weights, (0, 2, 3)))
        next(weights), next(weights)
    logits = (x * next(weights)).sum((1, 2, 3))
    assert not list(weights)
    torch.testing.assert_close(discriminator.train()((published + 1) / 2), logits)


def test_spectral_norm_divides_each_convolution():
    torch.manual_seed(0)
    discriminator = DCDiscriminator((1, 32, 32), 2, spectral=True)
    normed = [name for name, _ in discriminator.named_parameters() if name.endswith("parametrizations.weight.original")]
    assert len(normed) == 4
