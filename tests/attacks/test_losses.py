"""Losses and gradients of the attacks against slow loops, finite differences and the published update rules."""

import math

import pytest
import torch
from privbench.attacks import _inversion, gmi, kedmi
from privbench.attacks._vmi_gan import r1
from privbench.attacks.networks.discriminators import LabelDiscriminator
from privbench.benchmark.access.views import WhiteBoxView
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.networks.classifiers.network import Network
from torch import nn

PROTOCOL = Protocol(
    name="toy",
    version=1,
    image=(1, 4, 4),
    classes=3,
    judge_classes=3,
    target_network="mcnn",
    judge_network="scnn",
    attacked=3,
    draws=2,
)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def test_fakeness_is_minus_the_logarithm_of_z_over_z_plus_one():
    logits = torch.tensor([[0.3, -1.2, 2.0], [-4.0, -5.0, -6.0]], dtype=torch.double)
    z = logits.exp().sum(1)
    torch.testing.assert_close(kedmi.fakeness(logits), -(z / (z + 1)).log())
    assert torch.isfinite(kedmi.fakeness(torch.full((1, 3), 500.0))).all()


def test_discriminator_loss_equals_a_loop_over_images(rng):
    labelled, unlabelled, fake, target = torch.randn(4, 5, 3, generator=rng, dtype=torch.double)
    supervised, real, generated = 0.0, 0.0, 0.0
    for i in range(5):
        p = [math.exp(v) / sum(math.exp(u) for u in target[i]) for v in target[i]]
        q = [math.exp(v) / sum(math.exp(u) for u in labelled[i]) for v in labelled[i]]
        supervised -= sum(a * math.log(b) for a, b in zip(p, q, strict=True)) / 5
        lse = math.log(sum(math.exp(v) for v in unlabelled[i]))
        real += (math.log1p(math.exp(lse)) - lse) / 5
        generated += math.log1p(sum(math.exp(v) for v in fake[i])) / 5
    loss = kedmi.discriminator_loss(labelled, unlabelled, fake, target)
    assert loss.item() == pytest.approx(supervised + 0.5 * (real + generated), rel=1e-12)


def test_generator_loss_averages_features_and_sums_entropy(rng):
    real, fake = torch.randn(2, 4, 6, generator=rng, dtype=torch.double)
    logits = torch.randn(4, 3, generator=rng, dtype=torch.double)
    matching = sum(abs((real[:, f].sum() - fake[:, f].sum()).item() / 4) for f in range(6)) / 6
    entropy = 0.0
    for row in logits:
        p = [math.exp(v) / sum(math.exp(u) for u in row) for v in row]
        entropy -= sum(a * math.log(a) for a in p)
    loss = kedmi.generator_loss(real, fake, logits, 0.1)
    assert loss.item() == pytest.approx(matching + 0.1 * entropy, rel=1e-12)


def test_one_grouped_batch_equals_separate_batches(rng):
    torch.manual_seed(0)
    discriminator = LabelDiscriminator((1, 32, 32), 3).eval()
    x = torch.rand(4, 1, 32, 32, generator=rng)
    # Untrained kernels are so far apart that every closeness is 0; smaller ones make the groups matter.
    discriminator.minibatch.weight.data.mul_(1e-3)
    apart = torch.cat([discriminator(x[:2]), discriminator(x[2:])])
    torch.testing.assert_close(discriminator(x, group=2), apart, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(discriminator(x), apart, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("labels", "group", "repeats", "sizes"),
    [(5, 60, 2, [5, 5]), (300, 60, 1, [60] * 5), (7, 3, 2, [3, 3, 1, 3, 3, 1]), (1, 1, 3, [1, 1, 1])],
)
def test_chunks_cover_the_batch_once_with_the_published_groups(labels, group, repeats, sizes):
    chunks = _inversion.split_batch(labels, group, repeats, 64, whole=True)
    starts = [part.start for part, _ in chunks]
    stops = [part.stop for part, _ in chunks]
    assert starts == [0, *stops[:-1]] and stops[-1] == labels * repeats
    found = [size for part, size in chunks for _ in range((part.stop - part.start) // size)]
    assert found == sizes
    assert all(part.stop - part.start <= max(64, size) for part, size in chunks)


@pytest.mark.parametrize("chunk_size", [1, 4, 64])
def test_accumulate_gradients_gives_each_group_the_gradient_of_its_own_mean(chunk_size):
    torch.manual_seed(0)
    target = Network({"flat": nn.Flatten(), "logits": nn.Linear(16, 3)}).double().requires_grad_(False)
    view = WhiteBoxView(target.eval(), PROTOCOL)
    make = nn.Sequential(nn.Linear(6, 16), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4))).double().requires_grad_(False)
    labels, group, repeats = torch.tensor([0, 1, 2, 1, 0]), 2, 3
    z = torch.randn(15, 6, dtype=torch.double, requires_grad=True)

    def prior(x, size):
        groups = x.view(-1, size, 16)
        return (groups - groups.mean(1, keepdim=True)).square().sum(2).flatten()

    expected = torch.zeros_like(z)
    for repeat in range(repeats):
        for first, last in ((0, 2), (2, 4), (4, 5)):
            rows = slice(5 * repeat + first, 5 * repeat + last)
            leaf = z[rows].detach().requires_grad_(True)
            x = make(leaf)
            loss = prior(x, last - first).mean() + 7 * nn.functional.cross_entropy(
                target(x), labels[first:last], reduction="mean"
            )
            loss.backward()
            expected[rows] = leaf.grad

    chunks = _inversion.split_batch(5, group, repeats, chunk_size, whole=True)
    losses = _inversion.accumulate_gradients(
        view, labels.repeat(repeats), chunks, lambda part: make(z[part]), prior, 7.0
    )
    torch.testing.assert_close(z.grad, expected)
    whole = nn.functional.cross_entropy(target(make(z)), labels.repeat(repeats))
    assert losses["identity"].item() == pytest.approx(whole.item(), rel=1e-5)


def critic():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 1), nn.Flatten(0)).double()


def difference(function, x, step=1e-5):
    """Central differences of a scalar function in every coordinate of `x`."""
    result = torch.zeros_like(x)
    for i in range(x.numel()):
        up, down = x.clone(), x.clone()
        up.view(-1)[i] += step
        down.view(-1)[i] -= step
        result.view(-1)[i] = (function(up) - function(down)) / (2 * step)
    return result


def test_gradient_penalty_equals_finite_differences(rng):
    net = critic()
    real, fake = torch.rand(2, 3, 1, 4, 4, generator=rng, dtype=torch.double)
    mix = torch.rand(3, generator=rng, dtype=torch.double)
    total = 0.0
    for i in range(3):
        between = real[i] + mix[i] * (fake[i] - real[i])
        with torch.no_grad():
            slope = difference(lambda x: net(x[None]).squeeze(), between)
        total += (slope.norm().item() - 1) ** 2 / 3
    assert gmi.gradient_penalty(net, real, fake, mix).item() == pytest.approx(total, rel=1e-7)


def test_gradient_penalty_reaches_the_weights_of_the_critic(rng):
    net = critic()
    real, fake = torch.rand(2, 3, 1, 4, 4, generator=rng, dtype=torch.double)
    mix = torch.rand(3, generator=rng, dtype=torch.double)
    gmi.gradient_penalty(net, real, fake, mix).backward()
    weight = net[0].weight

    def value(w):
        weight.data.copy_(w)
        return gmi.gradient_penalty(net, real, fake, mix).detach()

    torch.testing.assert_close(weight.grad, difference(value, weight.detach().clone()), rtol=1e-6, atol=1e-9)


def test_r1_equals_finite_differences(rng):
    net = critic()
    real = torch.rand(2, 1, 4, 4, generator=rng, dtype=torch.double)
    with torch.no_grad():
        slopes = [difference(lambda x: net(x[None]).squeeze(), image).square().sum() for image in real]
    assert r1(net, real).item() == pytest.approx((sum(slopes) / 2).item(), rel=1e-7)


def test_optimizer_of_gmi_is_the_published_nesterov_update():
    attack = gmi.GMI(attack_learning_rate=0.05)
    point = nn.ParameterDict({"z": nn.Parameter(torch.tensor([0.8, -0.5], dtype=torch.double))})
    optimizer = attack._optimizer(point)
    z, v = point["z"].detach().clone(), torch.zeros(2, dtype=torch.double)
    clamped = 0
    for _ in range(30):
        optimizer.zero_grad()
        (point["z"] - torch.tensor([3.0, 0.2])).square().sum().backward()
        optimizer.step()
        point["z"].data.clamp_(-1, 1)
        previous = v.clone()
        v = 0.9 * v - 0.05 * 2 * (z - torch.tensor([3.0, 0.2]))
        free = z - 0.9 * previous + 1.9 * v
        z = free.clamp(-1, 1)
        clamped += int((free != z).any())
        torch.testing.assert_close(point["z"].detach(), z)
    assert clamped > 0
