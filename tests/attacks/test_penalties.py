"""Penalties of the GANs against finite differences, and the prior of large logits."""

import pytest
import torch
from privbench.attacks import gmi, kedmi
from privbench.attacks._vmi_gan import r1
from torch import nn


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def test_fakeness_is_minus_the_logarithm_of_z_over_z_plus_one():
    logits = torch.tensor([[0.3, -1.2, 2.0], [-4.0, -5.0, -6.0]], dtype=torch.double)
    z = logits.exp().sum(1)
    torch.testing.assert_close(kedmi.fakeness(logits), -(z / (z + 1)).log())
    assert torch.isfinite(kedmi.fakeness(torch.full((1, 3), 500.0))).all()


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
