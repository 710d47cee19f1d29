"""The placebo: what is permuted, what stays, and that its target knows nothing about labels."""

import pytest
import torch
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.training.context import Context
from privbench.defenses.placebo import Placebo, permute_annotations

CLASSES = 4


def images(count: int = 240, seed: int = 0) -> Images:
    """Images whose label is the quadrant that is bright, with identities and attributes that say the same."""
    labels = torch.arange(count) % CLASSES
    pixels = torch.randint(0, 60, (count, 1, 32, 32), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    for i, label in enumerate(labels.tolist()):
        row, column = divmod(label, 2)
        pixels[i, :, 16 * row : 16 * (row + 1), 16 * column : 16 * (column + 1)] += 150
    return Images(pixels, labels, labels + 100, torch.nn.functional.one_hot(labels, CLASSES).bool())


def context(seed: int = 0) -> Context:
    protocol = Protocol(
        name="quadrants",
        version=1,
        image=(1, 32, 32),
        classes=CLASSES,
        judge_classes=CLASSES,
        target_network="mcnn",
        judge_network="scnn",
        attacked=CLASSES,
        draws=1,
    )
    return Context(protocol, torch.device("cpu"), seed)


def test_all_annotations_move_together_and_labels_keep_their_frequencies() -> None:
    before = images()
    after = permute_annotations(before, 3)
    assert torch.equal(after.pixels, before.pixels)
    assert after.labels is not None and before.labels is not None
    assert torch.equal(after.labels.bincount(), before.labels.bincount())
    assert after.identities is not None and torch.equal(after.identities, after.labels + 100)
    assert after.attributes is not None and torch.equal(after.attributes.long().argmax(1), after.labels)


@pytest.mark.parametrize("counts", [[60, 60, 60, 60], [7, 40, 23, 90], [1, 2, 3, 300]])
def test_every_label_gets_the_true_labels_in_proportion(counts: list[int]) -> None:
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    for seed in range(5):
        after = permute_annotations(Images(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), labels), seed).labels
        assert after is not None and torch.equal(after.bincount(), labels.bincount())
        table = torch.zeros(4, 4).index_put_((labels, after), torch.ones(len(labels)), accumulate=True)
        expected = labels.bincount().outer(labels.bincount()) / len(labels)
        assert (table - expected).abs().max() < 2


def test_missing_annotations_stay_missing_and_the_seed_decides() -> None:
    labelled = Images(images().pixels, images().labels)
    first, again, other = (permute_annotations(labelled, seed).labels for seed in (1, 1, 2))
    assert first is not None and again is not None and other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert permute_annotations(labelled, 1).identities is None


def test_the_target_does_not_know_the_labels() -> None:
    private, test = images(), images(seed=1)
    assert test.labels is not None
    placebo = Placebo(recipe={"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 24, "max_steps": 30})
    network = placebo.train(private, context())
    logits = network.logits(test.pixels.float() / 255)
    accuracy = (logits.argmax(1) == test.labels).float().mean()
    assert accuracy < 0.5, "the same training without the permutation gives 1.0"


def test_the_same_training_with_the_labels_knows_them() -> None:
    private, test = images(), images(seed=1)
    assert test.labels is not None

    class Honest(Placebo):
        def train(self, private, context):
            return super(Placebo, self).train(private, context)

    honest = Honest(recipe={"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 24, "max_steps": 30})
    logits = honest.train(private, context()).logits(test.pixels.float() / 255)
    assert (logits.argmax(1) == test.labels).float().mean() > 0.95
