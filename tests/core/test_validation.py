"""The validation part: stratified, deterministic, from any data set, and never all of a label's images."""

from pathlib import Path

import pytest
import torch
from privbench.benchmark import registry
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.core.validation import split_validation

PROTOCOL = Protocol(
    name="toy", version=1, image=(1, 1, 1), classes=3, judge_classes=3, target_network="toy", judge_network="toy",
    attacked=3, draws=2, reference=2,
)  # fmt: skip


def numbered(counts: list[int]) -> Images:
    """Images whose pixel is their position, with so many of each label, in turn."""
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))
    return Images(torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1), labels[order])


def split(images: Images, **changes: object) -> tuple[Images, Images]:
    return split_validation(images, PROTOCOL.model_copy(update=changes))


def test_one_in_ten_of_each_label_rounded_up_is_held_out():
    images = numbered([100, 11, 10])
    train, validation = split(images)
    assert validation.labels.bincount().tolist() == [10, 2, 1]
    both = torch.cat([train.pixels, validation.pixels]).flatten().tolist()
    assert sorted(both) == list(range(121)), "each image is in one part"
    for part in (train, validation):
        positions = part.pixels.flatten().long()
        assert positions.tolist() == sorted(positions.tolist()), "in the order of the data set"
        assert torch.equal(part.labels, images.labels[positions])


def test_the_draw_is_fixed():
    """The same on every machine: positions drawn by SHA-256, as of the first release with this part."""
    _, validation = split(numbered([30, 30, 30]))
    again = split(numbered([30, 30, 30]))[1]
    assert torch.equal(validation.pixels, again.pixels)
    assert validation.pixels.flatten().tolist() == [4, 10, 30, 37, 46, 52, 67, 78, 84]
    other = split(numbered([30, 30, 30]), name="other")[1]
    assert not torch.equal(validation.pixels, other.pixels)


@pytest.mark.parametrize(
    ("changes", "held"),
    [
        ({}, [0, 0, 1, 1, 2]),
        ({"validation": 2}, [0, 0, 1, 3, 6]),
        ({"reference": 5}, [0, 0, 0, 0, 2]),
        ({"sampler": "identity", "instances": 4}, [0, 0, 0, 1, 2]),
        ({"validation": 1}, [0, 0, 1, 3, 10]),
        ({"validation": 0}, [0, 0, 0, 0, 0]),
    ],
)
def test_a_label_keeps_what_training_and_fid_need(changes, held):
    images = numbered([1, 2, 3, 5, 12])
    train, validation = split(images, **changes)
    assert validation.labels.bincount(minlength=5).tolist() == held
    assert (train.labels.bincount(minlength=5) >= 1).all() and len(train) + len(validation) == len(images)


def test_the_images_of_an_attribute_task_count_as_one_label():
    images = Images(
        torch.arange(95, dtype=torch.uint8).view(-1, 1, 1, 1), attributes=torch.arange(190).view(95, 2) > 99
    )
    train, validation = split(images, task="attributes", reference=1)
    assert (len(train), len(validation)) == (85, 10)
    assert torch.equal(validation.attributes, images.attributes[85:])
    assert torch.equal(torch.cat([train.pixels, validation.pixels]), images.pixels), "the last ones are held out"
    storage = {part.pixels.untyped_storage().data_ptr() for part in (images, train, validation)}
    assert len(storage) == 1, "pixels that are mapped from a file are not copied into memory"
    few = Images(images.pixels[:4], attributes=images.attributes[:4])
    assert [len(part) for part in split(few, task="attributes", reference=4)] == [4, 0]


def test_every_data_set_has_the_part_and_load_does_not_change():
    digits = registry.load("dataset", "digits")()
    whole, train, validation = (
        digits.load("private_train", Path()),
        digits.part("private_train", Path()),
        digits.part("private_val", Path()),
    )
    assert (len(whole), len(train), len(validation)) == (718, 643, 75)
    assert validation.labels.bincount().tolist() == [15] * 5
    assert int(train.labels.bincount().min()) >= digits.protocol.reference
    assert torch.equal(digits.part("private_test", Path()).pixels, digits.load("private_test", Path()).pixels)
