"""Histograms of oriented gradients: scikit-image's numbers, unit length, flat images, gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from privbench.benchmark import registry
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.benchmark.networks.embedders.hog import HOG
from skimage.feature import hog
from torch import Tensor

PROTOCOL = Protocol(
    name="any",
    version=1,
    image=(1, 16, 16),
    classes=2,
    judge_classes=2,
    target_network="mcnn",
    judge_network="mcnn",
    attacked=2,
    draws=1,
)


def embed(x: Tensor) -> Tensor:
    return HOG(pretrained=False).embed(x, PROTOCOL)


def oracle(x: Tensor, **other: Any) -> np.ndarray:
    """Descriptors of scikit-image, divided by their length."""
    settings: dict[str, Any] = {
        "orientations": 9,
        "pixels_per_cell": (x.shape[2] // 8, x.shape[3] // 8),
        "cells_per_block": (2, 2),
        "block_norm": "L2-Hys",
        "channel_axis": 0,
        **other,
    }
    found = np.stack([hog(image, **settings) for image in x.double().numpy()])
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (17, 23), (28, 28), (31, 45), (32, 32), (64, 48)])
def test_parity_with_scikit_image(size: tuple[int, int], channels: int) -> None:
    generator = torch.Generator().manual_seed(channels)
    noise = torch.randint(0, 256, (2, channels, *size), generator=generator).float() / 255
    # Few grey levels: channels often have equal gradients, and many lie on the border between two bins.
    coarse = torch.randint(0, 3, (2, channels, *size), generator=generator).float() / 2
    x = torch.cat([noise, coarse])
    found = embed(x)
    assert found.dtype == torch.float32
    assert np.allclose(found[:, :-1].numpy(), oracle(x), rtol=0, atol=1e-5)
    assert not found[:, -1].any()


def test_parity_fails_for_other_settings() -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = embed(x)[:, :-1].numpy()
    assert np.abs(found - oracle(x, block_norm="L2")).max() > 1e-3
    assert np.abs(found - oracle(x.flip(1)[:, :1])).max() > 1e-3


def test_a_ramp_lies_in_one_direction() -> None:
    """If brightness increases to the right, the angle is 0 and only the first bin is not 0, for every slope.

    Each block has 4 equal entries v among 36: 1 / sqrt(4) = 0.5, cut at 0.2, again 0.5; of 49 blocks each entry is
    0.5 / sqrt(49) = 1 / 14. Only a slope so small that epsilon shows would differ.
    """
    ramp = torch.linspace(0, 1, 32).expand(1, 1, 32, 32)
    for slope in (1.0, 0.3):
        entries = embed(slope * ramp)[0, :-1].reshape(7, 7, 2, 2, 9)
        assert entries[..., 1:].count_nonzero() == 0
        assert torch.allclose(entries[:, 1:-1, ..., 0], torch.tensor(1 / 14), atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_flat_image_is_similar_to_flat_images_only(channels: int) -> None:
    flat = torch.stack([torch.full((channels, 20, 20), level) for level in (0.0, 0.4, 1.0)])
    other = torch.rand(4, channels, 20, 20, generator=torch.Generator().manual_seed(0))
    vectors = embed(torch.cat([flat, other]))
    assert bool(torch.isfinite(vectors).all())
    assert torch.allclose(vectors.norm(dim=1), torch.ones(7))
    assert torch.equal(vectors[:3] @ vectors[:3].T, torch.ones(3, 3))
    assert torch.equal(vectors[:3] @ vectors[3:].T, torch.zeros(3, 4))


def test_nearly_flat_images_have_unit_length() -> None:
    x = torch.full((3, 1, 16, 16), 0.5)
    x[0, 0, 8, 8] += 1 / 255
    x[1, 0, 0, 0] = 0
    x[2, 0, 5, 5] += 1e-7
    vectors = embed(x)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3))
    assert not vectors[:, -1].any()


def test_brightness_does_not_matter() -> None:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(embed(x), embed(0.5 * x + 0.25), atol=1e-4)


def test_an_embedding_is_independent_of_the_batch_and_does_not_change_the_image() -> None:
    x = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    assert torch.equal(embed(x)[1:2], embed(x[1:2]))
    assert torch.equal(x, before)


def test_gradients_are_those_of_finite_differences() -> None:
    x = torch.rand(1, 2, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(embed, x, eps=1e-7, atol=1e-4, fast_mode=True)


def test_a_flat_image_has_a_finite_gradient() -> None:
    x = torch.zeros(1, 3, 16, 16, requires_grad=True)
    embed(x).sum().backward()
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("size", [(15, 32), (32, 15), (8, 8)])
def test_small_images_are_rejected(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidConfigurationError, match=f"at least 16 x 16, got {size[0]} x {size[1]}; choose"):
        embed(torch.zeros(1, 1, *size))


def test_it_is_registered_and_has_no_weights() -> None:
    assert registry.load("embedder", "hog") is HOG
    assert HOG.weights is None
    assert not HOG.faces
    assert not HOG().state_dict()
