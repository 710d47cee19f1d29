"""Flows against change of variables, integrals and a Gaussian case."""

import math

import pytest
import torch
from privbench.attacks.networks.flows import CouplingFlows, divergence, standard_normal
from privbench.attacks.vmi import clip_gradients


def disturbed(flows, features, affine, steps=3, size=0.3):
    torch.manual_seed(0)
    stack = CouplingFlows(flows, features, steps, 8, affine).double().requires_grad_(False)
    for parameter in stack.parameters():
        parameter.add_(size * torch.randn_like(parameter))
    return stack


def test_gradients_are_clipped_per_flow():
    stack = disturbed(3, 4, affine=False).requires_grad_(True)
    names = [n for n, p in stack.named_parameters() if n != "log_scale"]
    sizes = (0.01, 5.0, 300.0)
    for name in names:
        parameter = stack.get_parameter(name)
        parameter.grad = torch.randn_like(parameter) * torch.tensor(sizes).view(1, 3, 1, 1)
    before = {name: stack.get_parameter(name).grad.clone() for name in names}
    clip_gradients(stack, 2.0)
    for flow in range(3):
        old = torch.cat([before[name][:, flow].flatten() for name in names])
        new = torch.cat([stack.get_parameter(name).grad[:, flow].flatten() for name in names])
        torch.testing.assert_close(new, old * min(1.0, 2.0 / old.norm().item()))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("features", [2, 5])
def test_log_density_is_the_change_of_variables(affine, features):
    stack = disturbed(3, features, affine)
    noise = torch.randn(3, 4, features, dtype=torch.double)
    x, log_q = stack(noise)
    torch.testing.assert_close(stack.log_prob(x), log_q)
    for flow in range(3):
        for n in range(4):
            slope = torch.autograd.functional.jacobian(
                lambda e, flow=flow: stack(e.expand(3, 1, -1))[0][flow, 0], noise[flow, n]
            )
            base = -0.5 * noise[flow, n].square().sum() - 0.5 * features * math.log(2 * math.pi)
            assert log_q[flow, n].item() == pytest.approx((base - torch.linalg.slogdet(slope)[1]).item(), abs=1e-10)


@pytest.mark.parametrize("affine", [False, True])
def test_density_integrates_to_one(affine):
    stack = disturbed(2, 2, affine)
    samples, _ = stack(torch.randn(2, 4000, 2, dtype=torch.double))
    low, high = samples.amin((0, 1)) - 4, samples.amax((0, 1)) + 4
    axes = [torch.linspace(low[i].item(), high[i].item(), 500, dtype=torch.double) for i in range(2)]
    grid = torch.cartesian_prod(*axes).expand(2, -1, -1)
    cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    mass = stack.log_prob(grid).exp().sum(1) * cell
    torch.testing.assert_close(mass, torch.ones(2, dtype=torch.double), rtol=0, atol=2e-3)


def test_divergence_of_a_gaussian_is_the_closed_form():
    features, count = 4, 40_000
    torch.manual_seed(0)
    stack = CouplingFlows(2, features, 1, 4).double().requires_grad_(False)
    stack.shift.copy_(torch.randn_like(stack.shift))
    stack.log_scale.copy_(0.5 * torch.randn_like(stack.log_scale))
    # zuko squashes the logarithm of a scale: a / (1 + |a / log 1e-3|).
    log_scale = stack.log_scale[0, :, 0] / (1 + (stack.log_scale[0, :, 0] / math.log(1e-3)).abs())
    mean = stack.shift[0, :, 0]
    closed = 0.5 * ((2 * log_scale).exp() + mean.square() - 1 - 2 * log_scale).sum(1)
    x, log_q = stack(torch.randn(2, count, features, dtype=torch.double))
    error = (log_q - standard_normal(x)).std(1) / math.sqrt(count)
    assert ((divergence(x, log_q) - closed).abs() < 4 * error).all()
    assert (error < 0.05 * closed).all()


def test_a_fresh_flow_is_the_standard_normal():
    torch.manual_seed(0)
    x, log_q = CouplingFlows(2, 6, 4, 8)(torch.randn(2, 50, 6))
    torch.testing.assert_close(log_q, standard_normal(x))


def test_each_flow_has_its_own_permutation_in_each_step():
    torch.manual_seed(0)
    noise = torch.randn(1, 1, 16)
    x, _ = CouplingFlows(3, 16, 1, 4)(noise.expand(3, -1, -1))
    torch.testing.assert_close(x.sort(-1).values, noise.sort(-1).values.expand(3, -1, -1))
    assert len({tuple(row) for row in x[:, 0].tolist()}) == 3
    order = CouplingFlows(3, 16, 2, 4).order
    assert not torch.equal(order[0], order[1])


def test_flows_of_a_stack_are_independent():
    stack = disturbed(3, 5, False).requires_grad_(True)
    stack(torch.randn(3, 4, 5, dtype=torch.double))[0][1].square().sum().backward()
    for name, parameter in stack.named_parameters():
        if parameter.grad is not None:
            assert parameter.grad[:, [0, 2]].abs().max() == 0, name
    assert stack.weight1.grad[:, 1].abs().max() > 0
