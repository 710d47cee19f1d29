"""Generators and discriminators against the published shapes, counts of parameters and slow loops."""

import itertools
import math

import pytest
import torch
from privbench.attacks.networks.dcgan import DCDiscriminator, DCGenerator
from privbench.attacks.networks.discriminators import Critic, LabelDiscriminator
from privbench.attacks.networks.generators import Generator
from privbench.attacks.networks.minibatch import MinibatchDiscrimination
from privbench.benchmark.errors import InvalidConfigurationError
from torch import Tensor, nn

IMAGES = [(1, 32, 32), (3, 32, 32), (1, 64, 64), (3, 64, 64)]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def maps(module: nn.Module, x: Tensor, kind: type[nn.Module]) -> list[tuple[int, ...]]:
    """Shapes after every layer of a kind."""
    shapes: list[tuple[int, ...]] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, y: shapes.append(tuple(y.shape[1:])))
        for layer in module.modules()
        if isinstance(layer, kind)
    ]
    module(x)
    for hook in hooks:
        hook.remove()
    return shapes


@pytest.mark.parametrize("image", IMAGES)
def test_generator(image: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    channels, side, _ = image
    generator = Generator(image)
    z = torch.randn(3, 100)
    x = generator(z)
    assert x.shape == (3, *image)
    assert 0 <= x.min() < x.max() <= 1
    widths = [512, 256, 128, 64] if side == 64 else [256, 128, 64]
    steps = [(width, 8 * 2**i, 8 * 2**i) for i, width in enumerate(widths[1:])]
    assert maps(generator, z, nn.ConvTranspose2d) == [*steps, image]
    linear = 100 * 16 * widths[0] + 2 * 16 * widths[0]
    doubles = sum(25 * a * b + 2 * b for a, b in itertools.pairwise(widths))
    assert count(generator) == linear + doubles + 25 * 64 * channels + channels


@pytest.mark.parametrize("image", IMAGES)
def test_critic(image: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    channels, side, _ = image
    critic = Critic(image)
    x = torch.rand(3, *image)
    scores = critic(x)
    assert scores.shape == (3,)
    widths = [64, 128, 256, 512] if side == 64 else [64, 128, 256]
    sides = [side // 2 ** (i + 1) for i in range(len(widths))]
    assert maps(critic, x, nn.Conv2d) == [*((w, s, s) for w, s in zip(widths, sides, strict=True)), (1, 1, 1)]
    normed = sum(25 * a * b + b + 2 * b for a, b in itertools.pairwise(widths))
    assert count(critic) == 25 * channels * 64 + 64 + normed + 16 * widths[-1] + 1
    assert sum(isinstance(layer, nn.InstanceNorm2d) and layer.affine for layer in critic.modules()) == len(widths) - 1
    # Instance norm treats samples separately: the critic of one image does not depend on the others.
    torch.testing.assert_close(torch.cat([critic(one) for one in x.split(1)]), scores)


def test_critic_has_the_second_derivative_of_the_gradient_penalty() -> None:
    torch.manual_seed(0)
    critic = Critic((1, 32, 32)).double()
    x, direction = torch.rand(1, 1, 32, 32).double().requires_grad_(), torch.randn(1, 1, 32, 32).double()

    def slope() -> Tensor:
        return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0].mul(direction).sum()

    # The slope jumps where a LeakyReLU bends, so the step is small enough to pass no bend.
    weight = critic.layers[2].weight
    (exact,) = torch.autograd.grad(slope(), weight)
    step = torch.randn_like(weight) * 1e-8
    with torch.no_grad():
        weight += step
    up = slope().item()
    with torch.no_grad():
        weight -= 2 * step
    down = slope().item()
    assert (up - down) / 2 == pytest.approx((exact * step).sum().item(), rel=1e-3)


@pytest.mark.parametrize("image", IMAGES)
def test_label_discriminator(image: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    channels, side, _ = image
    discriminator = LabelDiscriminator(image, 5)
    x = torch.rand(4, *image)
    f = discriminator.features(x)
    assert f.shape == (4, 4096)
    assert torch.equal(discriminator(x), discriminator.classify(f))
    assert discriminator(x).shape == (4, 5)
    convolutions = 25 * (channels * 64 + 64 * 128 + 128 * 256) + 3 * (64 + 128 + 256)
    convolutions += 9 * 256 * 256 + 3 * 256 if side == 64 else 0
    assert count(discriminator) == convolutions + 4096 * 64 * 50 + 4160 * 5 + 5
    norms = [layer for layer in discriminator.modules() if isinstance(layer, nn.InstanceNorm2d)]
    assert len(norms) == (4 if side == 64 else 3)
    assert all(norm.affine for norm in norms)


def slow(x: Tensor, weight: Tensor) -> Tensor:
    """Minibatch discrimination as Salimans et al. write it, sample by sample and kernel by kernel."""
    m = torch.einsum("nf,fbc->nbc", x, weight)
    rows = []
    for i in range(len(x)):
        sums = []
        for b in range(weight.shape[1]):
            sums.append(sum(torch.exp(-(m[i, b] - m[n, b]).abs().sum()) for n in range(len(x))) - 1)
        rows.append(torch.stack(sums))
    return torch.cat((x, torch.stack(rows)), dim=1)


@pytest.mark.parametrize("identical", [False, True])
def test_minibatch_discrimination_equals_the_loop(identical: bool) -> None:
    # Multiples of 1/16 make the matrix product exact: rows that coincide before it coincide after it.
    source = torch.Generator().manual_seed(0)
    layer = MinibatchDiscrimination(6, kernels=3, dims=4).double()
    layer.weight.data = torch.randint(-8, 9, (6, 3, 4), generator=source).double() / 16
    x = torch.randint(-16, 17, (5, 6), generator=source).double() / 16
    if identical:
        x[3] = x[1]
        x[4] = x[1]
    x.requires_grad_()
    probe = torch.randn(5, 9, generator=source, dtype=torch.float64)
    results = []
    for y in (layer(x), slow(x, layer.weight)):
        gradients = torch.autograd.grad((y * probe).sum(), (x, layer.weight))
        results.append((y, *gradients))
    for fast, reference in zip(*results, strict=True):
        assert torch.isfinite(fast).all()
        torch.testing.assert_close(fast, reference, rtol=1e-10, atol=1e-12)
    if identical:
        assert (results[0][0][1, 6:] >= 2).all()


def test_minibatch_gradient_of_distinct_samples_is_the_slope() -> None:
    source = torch.Generator().manual_seed(1)
    layer = MinibatchDiscrimination(5, kernels=2, dims=3).double()
    layer.weight.data = 0.3 * torch.randn(5, 2, 3, generator=source, dtype=torch.float64)
    x = torch.randn(5, 5, generator=source, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda value: layer(value, group=2), (x,))


def test_minibatch_weights_start_as_published() -> None:
    torch.manual_seed(0)
    weight = MinibatchDiscrimination(4096).weight.detach()
    assert weight.shape == (4096, 64, 50)
    # Mean and deviation of n = 13 107 200 standard normal values, five standard errors.
    assert abs(weight.mean().item()) < 5 / math.sqrt(weight.numel())
    assert weight.std().item() == pytest.approx(1, abs=5 / math.sqrt(2 * weight.numel()))


@pytest.mark.parametrize("image", IMAGES)
def test_dcgan(image: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    channels, side, _ = image
    generator, discriminator = DCGenerator(image, latent=20, width=4), DCDiscriminator(image, width=4)
    z = torch.randn(3, 20)
    x = generator(z)
    widths = [32, 16, 8, 4] if side == 64 else [16, 8, 4]
    steps = [(width, 4 * 2**i, 4 * 2**i) for i, width in enumerate(widths)]
    assert maps(generator, z, nn.ConvTranspose2d) == [*steps, image]
    assert 0 <= x.min() < x.max() <= 1
    assert maps(discriminator, x, nn.Conv2d) == [*((w, s, s) for w, s, _ in reversed(steps)), (1, 1, 1)]
    assert discriminator(x).shape == (3,)
    pairs = sum(16 * a * b for a, b in itertools.pairwise(widths))
    assert count(generator) == 16 * 20 * widths[0] + pairs + 2 * sum(widths) + 16 * 4 * channels
    assert count(discriminator) == 16 * channels * 4 + pairs + 2 * sum(widths[:-1]) + 16 * widths[0]


def test_spectral_norm_bounds_the_largest_singular_value() -> None:
    torch.manual_seed(0)
    discriminator = DCDiscriminator((1, 32, 32), 4, spectral=True).train()
    for _ in range(30):
        discriminator(torch.rand(2, 1, 32, 32))
    for layer in discriminator.eval().modules():
        if isinstance(layer, nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("kind", [Generator, Critic, DCGenerator, DCDiscriminator])
@pytest.mark.parametrize("image", [(1, 28, 28), (3, 64, 32), (0, 32, 32)])
def test_other_sizes_are_refused(kind: type[nn.Module], image: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidConfigurationError, match="to be 32 x 32 or 64 x 64, got "):
        kind(image)
