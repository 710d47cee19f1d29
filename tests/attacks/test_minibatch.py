"""Properties of minibatch discrimination over drawn inputs."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench.attacks.networks.minibatch import MinibatchDiscrimination
from torch import Tensor

FEATURES, KERNELS = 4, 3


def drawn(samples: int, seed: int, scale: float) -> tuple[MinibatchDiscrimination, Tensor]:
    source = torch.Generator().manual_seed(seed)
    layer = MinibatchDiscrimination(FEATURES, KERNELS, 2).double()
    layer.weight.data = scale * torch.randn(FEATURES, KERNELS, 2, generator=source, dtype=torch.float64)
    return layer, torch.randn(samples, FEATURES, generator=source, dtype=torch.float64)


cases = given(samples=st.integers(1, 7), seed=st.integers(0, 2**32), scale=st.sampled_from([0.0, 0.01, 1.0, 1e4]))


@cases
@settings(deadline=None, max_examples=30)
def test_closeness_lies_between_0_and_the_other_samples(samples: int, seed: int, scale: float) -> None:
    layer, x = drawn(samples, seed, scale)
    y = layer(x)
    closeness = y[:, FEATURES:]
    assert torch.equal(y[:, :FEATURES], x)
    assert closeness.shape == (samples, KERNELS)
    assert (closeness >= -1e-12).all()
    assert (closeness <= samples - 1 + 1e-12).all()
    if scale == 0.0:
        assert (closeness == samples - 1).all()


@cases
@settings(deadline=None, max_examples=30)
def test_order_of_the_samples_does_not_matter(samples: int, seed: int, scale: float) -> None:
    layer, x = drawn(samples, seed, scale)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(seed + 1))
    torch.testing.assert_close(layer(x[order]), layer(x)[order], rtol=1e-10, atol=1e-12)


@cases
@settings(deadline=None, max_examples=30)
def test_groups_are_independent(samples: int, seed: int, scale: float) -> None:
    layer, x = drawn(samples, seed, scale)
    for group in range(1, samples + 2):
        together = layer(x, group)
        apart = torch.cat([layer(part) for part in x.split(group)])
        torch.testing.assert_close(together, apart, rtol=1e-10, atol=1e-12)


@given(samples=st.integers(2, 6), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_identical_samples_have_finite_gradients(samples: int, seed: int) -> None:
    layer, x = drawn(samples, seed, 1.0)
    # Multiples of 1/16 make the matrix product exact, so that the samples stay identical after it.
    layer.weight.data = (16 * layer.weight.data).round() / 16
    same = ((16 * x[:1]).round() / 16).repeat(samples, 1).requires_grad_()
    layer(same)[:, FEATURES:].sum().backward()
    assert torch.equal(same.grad, torch.zeros_like(same))
    assert torch.equal(layer.weight.grad, torch.zeros_like(layer.weight))
