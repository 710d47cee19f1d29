"""Properties of batches: the images of an epoch, batches as functions of the step, and augmentation."""

import math
from collections import Counter

import pytest
import torch
from helpers import by_hand
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench.benchmark.core.config import Recipe
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.core.seeds import derive
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.benchmark.training.batches import Batches, augment, batches
from torch.nn import functional


def numbered(count: int, labels=None) -> Images:
    """Images whose two pixels encode their index, so that a batch shows which images it contains."""
    index = torch.arange(count)
    pixels = torch.stack([index % 256, index // 256], dim=1).to(torch.uint8).view(count, 1, 1, 2)
    return Images(pixels, None if labels is None else torch.tensor(labels))


def indices(x: torch.Tensor) -> list[int]:
    low, high = (x * 255).round().long().view(len(x), 2).unbind(1)
    return (low + 256 * high).tolist()


def epoch_of(made: Batches, epoch: int) -> list[list[int]]:
    first = epoch * made.steps_per_epoch
    return [indices(made.at(step)[0]) for step in range(first, first + made.steps_per_epoch)]


@given(count=st.integers(1, 90), size=st.integers(1, 100), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_shuffle_uses_each_image_once_and_drops_the_rest(count, size, seed, epoch):
    made = Batches(numbered(count), size, seed)
    found = epoch_of(made, epoch)
    assert made.steps_per_epoch == max(1, count // size)
    assert Recipe(epochs=3, batch_size=size).steps(count) == 3 * made.steps_per_epoch
    assert Recipe(epochs=3, batch_size=size, max_steps=2).steps(count) == 2
    assert {len(batch) for batch in found} == {min(size, count)}
    flat = [index for batch in found for index in batch]
    assert len(set(flat)) == len(flat)
    assert set(flat) <= set(range(count))


@st.composite
def identities(draw):
    counts = draw(st.lists(st.integers(1, 14), min_size=1, max_size=12))
    labels = [identity for identity, count in enumerate(counts) for _ in range(count)]
    return draw(st.permutations(labels))


@given(labels=identities(), groups=st.integers(1, 5), instances=st.integers(1, 4), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_identity_batches_hold_k_images_of_distinct_identities(labels, groups, instances, seed):
    counts = Counter(labels)
    images = numbered(len(labels), labels)
    usable = sum(count >= instances for count in counts.values())
    if usable == 0:
        with pytest.raises(InvalidConfigurationError, match="use fewer instances"):
            Batches(images, groups * instances, seed, "identity", instances)
        return
    made = Batches(images, groups * instances, seed, "identity", instances)
    found = epoch_of(made, 3)
    for batch in found:
        owners = Counter(labels[index] for index in batch)
        assert set(owners.values()) == {instances}
        assert len(owners) == min(groups, usable)
    used = Counter(index for batch in found for index in batch)
    assert set(used.values()) == {1}
    # No longer epoch exists: T + 1 batches would need more groups than the identities can give.
    more, width = made.steps_per_epoch + 1, min(groups, usable)
    assert sum(min(count // instances, more) for count in counts.values()) < more * width


def test_identity_epoch_of_celeba_has_375_batches():
    # 1000 identities x 27 images give 6 groups of 4 each: 6000 groups / 16 = 375 batches of 64.
    labels = [identity for identity in range(1000) for _ in range(27)]
    made = Batches(numbered(len(labels), labels), 64, 0, "identity", 4)
    assert made.steps_per_epoch == 375
    found = epoch_of(made, 0)
    assert Counter(labels[index] for batch in found for index in batch) == dict.fromkeys(range(1000), 24)


def test_identity_sampler_shuffles_identities_in_every_epoch():
    labels = [identity for identity in range(40) for _ in range(8)]
    made = Batches(numbered(320, labels), 64, 1, "identity", 4)
    together = [{frozenset(labels[index] for index in batch) for batch in epoch_of(made, epoch)} for epoch in range(4)]
    assert len(set.union(*together)) == 4 * made.steps_per_epoch
    assert len({tuple(batch) for epoch in range(4) for batch in epoch_of(made, epoch)}) == 4 * made.steps_per_epoch


def test_identity_sampler_uses_other_images_in_every_epoch():
    """Of an identity's 5 images an epoch uses two pairs: every image at some time, and with every other."""
    labels = [identity for identity in range(6) for _ in range(5)]
    made = Batches(numbered(30, labels), 4, 1, "identity", 2)
    found = [indices(made.at(step)[0]) for step in range(60 * made.steps_per_epoch)]
    pairs = {frozenset(batch[i : i + 2]) for batch in found for i in (0, 2)}
    assert len(pairs) == 6 * 10


def test_identity_sampler_prefers_identities_to_labels():
    images = Images(numbered(16).pixels, torch.zeros(16, dtype=torch.int64), torch.arange(16) // 4)
    batch, _ = Batches(images, 8, 0, "identity", 4).at(0)
    assert len({index // 4 for index in indices(batch)}) == 2


def test_identity_sampler_rejects_images_without_identities_and_labels():
    with pytest.raises(InvalidConfigurationError, match="use sampler 'shuffle'"):
        Batches(numbered(8), 4, 0, "identity")
    with pytest.raises(InvalidConfigurationError, match="at least one image"):
        Batches(numbered(0), 4, 0)


@pytest.mark.parametrize("sampler", ["shuffle", "identity"])
@pytest.mark.parametrize("augmentation", ["none", "flip", "crop_flip"])
def test_a_batch_depends_only_on_its_step(sampler, augmentation):
    pixels = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, torch.arange(60) % 6)

    def make(seed):
        return Batches(images, 16, seed, sampler, 4, augmentation)

    forward = make(7)
    all_in_order = [forward.at(step) for step in range(3 * forward.steps_per_epoch)]
    for step in reversed(range(len(all_in_order))):
        x, y = make(7).at(step)
        assert torch.equal(x, all_in_order[step][0])
        assert torch.equal(y, all_in_order[step][1])
    epochs = [all_in_order[i * forward.steps_per_epoch][0] for i in range(3)]
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])
    assert not torch.equal(make(8).at(0)[0], epochs[0])
    assert torch.equal(images.pixels, pixels)


def test_labels_stay_with_their_images():
    labels = torch.randperm(50, generator=torch.Generator().manual_seed(3))
    made = Batches(Images(numbered(50).pixels, labels), 8, 5)
    for step in range(20):
        x, y = made.at(step)
        assert torch.equal(y, labels[indices(x)])
    assert Batches(numbered(50), 8, 5).at(0)[1] is None


def test_batches_are_floats_between_zero_and_one():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    x, _ = Batches(Images(pixels), 3, 0).at(0)
    assert x.dtype == torch.float32
    assert sorted(x.flatten().tolist()) == [0.0, pytest.approx(0.2), 1.0]


def test_flip_mirrors_half_of_the_images_and_nothing_else():
    pixels = torch.arange(4, dtype=torch.uint8).view(1, 1, 1, 4).expand(2000, 1, 1, 4).contiguous()
    found = augment(pixels, "flip", torch.Generator().manual_seed(0)).view(2000, 4)
    mirrored = (found == pixels.flip(-1).view(2000, 4)).all(1)
    assert ((found == pixels.view(2000, 4)).all(1) ^ mirrored).all()
    # Binomial(2000, 1/2): five standard deviations are 0.056.
    assert abs(mirrored.double().mean() - 0.5) < 0.056


def test_crop_flip_is_a_crop_of_the_padded_image_for_each_sample():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(1, 256, (400, 2, 6, 6), dtype=torch.uint8, generator=generator)
    found = augment(pixels, "crop_flip", torch.Generator().manual_seed(2))
    padded = functional.pad(pixels, (4, 4, 4, 4))
    crops = [(row, column, mirrored) for row in range(9) for column in range(9) for mirrored in (False, True)]
    equal = torch.stack([(found == _cut(padded, *crop)).flatten(1).all(1) for crop in crops])
    assert (equal.sum(0) == 1).all()
    drawn = Counter()
    for match in equal.long().argmax(0).tolist():
        row, column, mirrored = crops[match]
        drawn.update({("row", row), ("column", column), ("mirrored", mirrored)})
    for kind, values, chance in (("row", range(9), 1 / 9), ("column", range(9), 1 / 9), ("mirrored", (0, 1), 1 / 2)):
        bound = 5 * math.sqrt(400 * chance * (1 - chance))
        assert all(abs(drawn[kind, value] - 400 * chance) < bound for value in values)


def _cut(frames, row, column, mirrored):
    part = frames[..., row : row + 6, column : column + 6]
    return part.flip(-1) if mirrored else part


@pytest.mark.parametrize("kind", ["none", "flip", "crop_flip", "cutout"])
@pytest.mark.parametrize("size", [(4, 6), (7, 5)])
def test_augmentation_equals_a_slow_loop(kind, size):
    pixels = torch.randint(1, 256, (30, 2, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    before = pixels.clone()
    found = augment(pixels, kind, torch.Generator().manual_seed(4))
    assert torch.equal(found, by_hand.augmented(before, kind, torch.Generator().manual_seed(4)))
    assert torch.equal(pixels, before)


def test_cutout_is_a_box_of_half_the_sides_at_independent_places():
    found = augment(torch.ones(3000, 1, 8, 6, dtype=torch.uint8), "cutout", torch.Generator().manual_seed(5))[:, 0]
    rows, columns = ((found == 0).any(axis).sum(1) for axis in (2, 1))
    assert torch.equal((found == 0).sum((1, 2)), rows * columns), "each is a box"
    # A box of 4 of 8 rows at a centre of 0 .. 8 has 2, 3, 4, 4, 4, 4, 4, 3, 2 rows inside: 30 / 9.
    assert abs(rows.double().mean() - 30 / 9) < 5 * 0.82 / 3000**0.5
    assert rows.max() == 4 and columns.max() == 3
    assert abs(torch.corrcoef(torch.stack([rows, columns]).double())[0, 1]) < 5 / 3000**0.5


@given(count=st.integers(1, 30), size=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_sequential_batches_are_all_images_in_order(count, size):
    images = numbered(count, list(range(count)))
    found = list(batches(images, size))
    assert [len(x) for x, _ in found[:-1]] == [size] * (len(found) - 1)
    assert [index for x, _ in found for index in indices(x)] == list(range(count))
    assert torch.equal(torch.cat([y for _, y in found]), images.labels)


@given(st.lists(st.one_of(st.integers(), st.text())), st.lists(st.one_of(st.integers(), st.text())))
def test_derived_seeds_differ_where_parts_differ(one, other):
    assert (derive(*one) == derive(*other)) == (one == other)
    assert 0 <= derive(*one) < 2**63


def test_derived_seeds_are_the_same_everywhere():
    # First eight bytes of the SHA-256 of '["epoch", 0, 3]' without the top bit.
    assert derive("epoch", 0, 3) == 5851499420194129851
    with pytest.raises(TypeError, match="integer or a string"):
        derive(1.5)
    with pytest.raises(TypeError, match="integer or a string"):
        derive(True)
