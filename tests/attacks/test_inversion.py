"""What the inversions share: chunks of a batch, gradients of groups, frozen priors, 256 levels."""

import pytest
import torch
from helpers.toy_attacks import CPU, PROTOCOL, context, view
from privbench.attacks import _inversion
from privbench.attacks._inversion import (
    accumulate_gradients,
    chunk_size,
    cpu_state,
    generate_images,
    load_frozen,
    map_latents,
    quantise,
    split_batch,
)  # fmt: skip
from privbench.benchmark.training.context import Context
from torch import nn


@pytest.mark.parametrize(
    ("labels", "group", "repeats", "sizes"),
    [(5, 60, 2, [5, 5]), (300, 60, 1, [60] * 5), (7, 3, 2, [3, 3, 1, 3, 3, 1]), (1, 1, 3, [1, 1, 1])],
)
def test_chunks_cover_the_batch_once_with_the_published_groups(labels, group, repeats, sizes):
    chunks = split_batch(labels, group, repeats, 64, whole=True)
    starts = [part.start for part, _ in chunks]
    stops = [part.stop for part, _ in chunks]
    assert starts == [0, *stops[:-1]] and stops[-1] == labels * repeats
    found = [size for part, size in chunks for _ in range((part.stop - part.start) // size)]
    assert found == sizes
    assert all(part.stop - part.start <= max(64, size) for part, size in chunks)


@pytest.mark.parametrize(
    ("limit", "whole", "expected"),
    [
        (7, True, [(0, 6, 3), (6, 9, 3), (9, 10, 1)]),
        (7, False, [(0, 6, 3), (6, 9, 3), (9, 10, 1)]),
        (2, True, [(0, 3, 3), (3, 6, 3), (6, 9, 3), (9, 10, 1)]),
        (2, False, [(0, 2, 3), (2, 4, 3), (4, 6, 3), (6, 8, 3), (8, 9, 3), (9, 10, 1)]),
    ],
)
def test_a_chunk_has_whole_groups_unless_they_are_too_large_and_may_be_split(limit, whole, expected):
    chunks = split_batch(10, 3, 1, limit, whole=whole)
    assert [(part.start, part.stop, size) for part, size in chunks] == expected


@pytest.mark.parametrize("limit", [1, 4, 64])
def test_accumulate_gradients_gives_each_group_the_gradient_of_its_own_mean(limit):
    torch.manual_seed(0)
    target = view()
    target.network.double()
    make = nn.Sequential(nn.Linear(6, 1024), nn.Sigmoid(), nn.Unflatten(1, (1, 32, 32))).double().requires_grad_(False)
    labels, group, repeats = torch.tensor([0, 1, 2, 1, 0]), 2, 3
    z = torch.randn(15, 6, dtype=torch.double, requires_grad=True)

    def prior(x, size):
        groups = x.view(-1, size, 1024)
        return (groups - groups.mean(1, keepdim=True)).square().sum(2).flatten()

    expected = torch.zeros_like(z)
    for repeat in range(repeats):
        for first, last in ((0, 2), (2, 4), (4, 5)):
            rows = slice(5 * repeat + first, 5 * repeat + last)
            leaf = z[rows].detach().requires_grad_(True)
            x = make(leaf)
            loss = prior(x, last - first).mean() + 7 * nn.functional.cross_entropy(
                target.logits(x), labels[first:last], reduction="mean"
            )
            loss.backward()
            expected[rows] = leaf.grad

    chunks = split_batch(5, group, repeats, limit, whole=True)
    losses = accumulate_gradients(target, labels.repeat(repeats), chunks, lambda part: make(z[part]), prior, 7.0)
    torch.testing.assert_close(z.grad, expected)
    whole = nn.functional.cross_entropy(target.logits(make(z)), labels.repeat(repeats))
    assert losses["identity"].item() == pytest.approx(whole.item(), rel=1e-5)


def test_levels_are_the_nearest_of_256():
    x = torch.tensor([-0.5, 0.0, 0.0019, 0.0020, 0.5, 0.9979, 0.9981, 0.999, 1.0, 1.7])
    found = quantise(x)
    assert found.dtype == torch.uint8 and found.tolist() == [0, 0, 0, 1, 128, 254, 255, 255, 255, 255]
    levels = torch.arange(256)
    assert torch.equal(quantise(levels / 255), levels.byte())


def test_images_keep_the_places_of_their_latents():
    z = torch.arange(24.0).view(2, 3, 4) / 255
    found = generate_images(lambda part: part.view(-1, 1, 2, 2), z, 4)
    assert torch.equal(found, torch.arange(24).byte().view(2, 3, 1, 2, 2))


def test_fewer_latents_and_images_go_through_the_networks_after_memory_ran_out():
    asked = []
    for halvings in (0, 3):
        environment = Context(PROTOCOL, CPU, 0, batch_halvings=halvings)
        found = map_latents(lambda z: asked.append(len(z)) or 2 * z, torch.arange(300.0), environment)
        assert torch.equal(found, 2 * torch.arange(300.0))
        assert chunk_size(environment) == _inversion.IMAGES_AT_ONCE["cpu"] >> halvings
    assert asked == [256, 44] + 9 * [32] + [12]


def test_a_prior_is_a_copy_and_is_loaded_frozen_and_whole():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = cpu_state(module)
    module[0].weight.data += 1
    loaded = load_frozen(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), state, context().device)
    torch.testing.assert_close(loaded[0].weight, module[0].weight - 1)
    assert not any(part.training for part in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    with pytest.raises(RuntimeError, match="Missing key"):
        load_frozen(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)), state, context().device)
