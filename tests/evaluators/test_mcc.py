"""MCC against scikit-learn, a slow bootstrap and its limits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import Evidence, Predictions
from privbench.evaluators import mcc as module
from privbench.evaluators.mcc import MCC, binary_mcc, class_mcc
from sklearn.metrics import matthews_corrcoef

PROTOCOL = Protocol(
    name="made-up",
    version=1,
    image=(1, 2, 2),
    classes=5,
    judge_classes=5,
    target_network="none",
    judge_network="none",
    attacked=1,
    draws=1,
)


def _score(logits, truth, **fields):
    evidence = Evidence(PROTOCOL, {"Predictions": Predictions(logits, truth)}, lambda part: None)
    return MCC(**fields).score(evidence, None)["mcc"]


def _attributes(n=300, attributes=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(n, attributes, generator=generator) < torch.linspace(0.05, 0.9, attributes)
    return torch.randn(n, attributes, generator=generator) + 1.5 * truth - 0.7, truth


def _classes(n=200, classes=5, seed=0, pull=1.0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += pull
    return logits, labels


@pytest.mark.parametrize("seed", range(4))
def test_attributes_equal_scikit_learn(seed):
    logits, truth = _attributes(seed=seed)
    found = _score(logits, truth)
    expected = [matthews_corrcoef(truth[:, a], logits[:, a] > 0) for a in range(6)]
    assert found.per_class == pytest.approx(expected, rel=1e-12)
    assert found.value == pytest.approx(np.mean(expected), rel=1e-12)
    assert (found.n, found.chance, found.notes) == (300, 0, ())
    assert found.interval[0] < found.value < found.interval[1]


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_classes_equal_scikit_learn(classes):
    logits, labels = _classes(classes=classes)
    found = _score(logits, labels)
    assert found.value == pytest.approx(matthews_corrcoef(labels, logits.argmax(1)), rel=1e-12)
    assert found.interval[0] < found.value < found.interval[1]
    assert found.per_class is None


def test_a_worked_example():
    # TP 3, FN 1, FP 2, TN 4: (3 * 4 - 2 * 1) / sqrt(5 * 4 * 6 * 5) = 10 / sqrt(600)
    truth = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0]).bool()[:, None]
    said = torch.tensor([1, 1, 1, 0, 1, 1, 0, 0, 0, 0]).float()[:, None] - 0.5
    assert _score(said, truth).value == pytest.approx(10 / 600**0.5, rel=1e-15)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_two_classes_are_one_attribute(pairs):
    said, truth = np.array(pairs).T
    counts = np.array([(said & truth).sum(), said.sum(), truth.sum()])
    one = binary_mcc(counts, len(pairs))
    two = class_mcc(said.astype(int)[None], truth.astype(int)[None], 2)
    if truth.all() or not truth.any():
        assert np.isnan([one, two]).all()
    else:
        assert [one[0], two[0]] == pytest.approx([matthews_corrcoef(truth, said)] * 2, abs=1e-12)
        assert class_mcc(1 - said[None], truth[None].astype(int), 2)[0] == pytest.approx(-two[0])


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 5), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_degenerate_classes_equal_scikit_learn(classes, pairs):
    said, truth = np.array(pairs).T % classes
    found = class_mcc(said[None], truth[None], classes)[0]
    if np.ptp(truth) == 0:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(matthews_corrcoef(truth, said), abs=1e-12)


def test_constant_decisions_count_zero_and_constant_labels_are_left_out():
    logits, truth = _attributes()
    logits, truth = logits.clone(), truth.clone()
    logits[:, 1], logits[:, 2], truth[:, 4] = -1, 1, True
    found = _score(logits, truth)
    assert [place for place, value in enumerate(found.per_class) if value is None] == [4]
    kept = [0, 1, 2, 3, 5]
    expected = [matthews_corrcoef(truth[:, a], logits[:, a] > 0) for a in kept]
    assert [found.per_class[place] for place in kept] == pytest.approx(expected)
    assert found.value == pytest.approx(np.mean(expected))
    assert found.notes == (
        "the target gives every image the same answer for 2 of 6 attributes: 0 each",
        "1 of 6 attributes are left out: all labels are equal",
    )
    alone = _score(logits[:, kept], truth[:, kept])
    assert (found.value, found.interval) == (alone.value, alone.interval)
    varied = _score(logits[:, [0, 3, 5]], truth[:, [0, 3, 5]])
    assert found.interval == pytest.approx([end * 3 / 5 for end in varied.interval])


def test_a_target_that_loses_attributes_loses_mcc():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2599, 40, generator=generator) < 0.3
    said = truth ^ (torch.rand(truth.shape, generator=generator) < 0.12)
    whole = _score(said.float() - 0.5, truth)
    kept = truth[:, :1] ^ (torch.rand(2599, 1, generator=generator) < 0.06)
    dead = _score(torch.cat([kept.float() - 0.5, torch.full((2599, 39), -1.0)], 1), truth)
    assert dead.per_class[0] > whole.value > 0.7
    assert dead.value == pytest.approx(dead.per_class[0] / 40)
    assert dead.interval[0] < dead.value < dead.interval[1] < 0.03


def test_constant_targets_count_zero_and_constant_labels_are_undefined():
    logits, truth = _attributes()
    found = _score(torch.full((300, 6), -1.0), truth)
    assert (found.value, found.interval, found.per_class, found.reason) == (0, None, (0,) * 6, None)
    same = _score(torch.zeros(200, 5), _classes()[1])
    notes = ("the target predicts one class for every image, which counts as 0",)
    assert (same.value, same.interval, same.notes[:1]) == (0, None, notes)
    none = _score(logits, torch.ones(300, 6).bool())
    assert (none.value, none.per_class) == (None, (None,) * 6)
    assert none.reason.startswith("the MCC of all 6 attributes is undefined")
    one = _score(_classes()[0], torch.full((200,), 3))
    assert (one.value, one.reason) == (None, "the MCC is undefined: all labels are equal")


@pytest.mark.parametrize("truth", [torch.zeros(0, 5, dtype=torch.bool), torch.zeros(0, dtype=torch.int64)])
def test_no_image_is_none(truth):
    assert _score(torch.zeros(0, 5), truth).reason == "there are no test images"


@pytest.mark.parametrize("truth", [torch.zeros(3, 5, dtype=torch.bool), torch.zeros(3, dtype=torch.int64)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_none(truth, value):
    logits = torch.zeros(3, 5)
    logits[1, 2] = value
    found = _score(logits, truth)
    assert (found.value, found.reason) == (None, "1 of 3 images have logits that are not finite")


def test_perfect_and_worst_targets():
    truth = _attributes()[1]
    for sign in (1, -1):
        found = _score(sign * (truth.float() - 0.5), truth)
        assert (found.value, found.interval) == (sign, None)
        assert found.notes == ("no two resamples differ, so there is no interval",)
    labels = _classes()[1]
    found = _score(torch.eye(5)[labels], labels)
    assert (found.value, found.interval) == (1, None)


def _correlation(said, truth, classes):
    """MCC as Gorodkin defines it: the correlation of one-hot matrices."""
    x, y = (np.eye(classes)[labels.astype(int)] for labels in (said, truth))
    x, y = x - x.mean(0), y - y.mean(0)
    return (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())


def _slow_interval(score, n):
    rows = np.random.Generator(np.random.PCG64(0)).integers(n, size=(100, n))
    return tuple(np.quantile([score(row) for row in rows], [0.025, 0.975]))


@pytest.mark.parametrize("cells", [1, 700, 1 << 22])
def test_interval_equals_a_slow_bootstrap_in_pieces_of_any_size(cells, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", cells)
    logits, truth = _attributes(60, 4)
    logits[:, 3] = -1.0
    said, true = (logits > 0).numpy(), truth.numpy()

    def mean(rows):
        pairs = [(said[rows, a], true[rows, a]) for a in range(4)]
        return np.mean([_correlation(x, y, 2) if np.ptp(x.astype(int)) else 0.0 for x, y in pairs])

    assert _score(logits, truth, resamples=100).interval == pytest.approx(_slow_interval(mean, 60), rel=1e-9)
    logits, labels = _classes(60)
    said, true = logits.argmax(1).numpy(), labels.numpy()
    expected = _slow_interval(lambda rows: _correlation(said[rows], true[rows], 5), 60)
    assert _score(logits, labels, resamples=100).interval == pytest.approx(expected, rel=1e-9)


def test_interval_keeps_the_attributes_of_an_image_together():
    logits, truth = _attributes(attributes=1)
    one, copies = _score(logits, truth), _score(logits.repeat(1, 9), truth.repeat(1, 9))
    assert copies.interval == pytest.approx(one.interval)
    assert _score(logits, truth) == one
    assert _score(logits, truth, seed=1).interval != one.interval


def test_interval_without_association_has_the_width_of_a_correlation():
    generator = torch.Generator().manual_seed(5)
    truth = torch.rand(2000, 1, generator=generator) < 0.4
    low, high = _score(torch.randn(2000, 1, generator=generator), truth).interval
    assert high - low == pytest.approx(2 * 1.96 / 2000**0.5, rel=0.1)
    assert low < 0 < high


def test_resamples_with_constant_decisions_count_zero():
    # Without the last image, which a third of the resamples miss, the target predicts one class for all images.
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    logits = torch.zeros(8, 5)
    logits[:7, 0] = logits[7, 1] = 1.0
    found = _score(logits, labels)
    assert found.value == pytest.approx(matthews_corrcoef(labels, logits.argmax(1)), rel=1e-12)
    assert found.interval[0] == 0
    assert found.interval[1] > found.value


def test_interval_covers_the_expected_score():
    rates, right, wrong = np.linspace(0.05, 0.6, 20), np.full(20, 0.7), np.full(20, 0.1)
    right[:5] = wrong[:5] = 0.0
    said = rates * right + (1 - rates) * wrong
    scale = np.sqrt(said * (1 - said) * rates * (1 - rates))
    expected = np.divide(rates * right - said * rates, scale, out=np.zeros(20), where=scale > 0).mean()
    generator, held = np.random.default_rng(0), 0
    for _ in range(150):
        truth = generator.random((400, 20)) < rates
        answers = generator.random((400, 20)) < np.where(truth, right, wrong)
        low, high = _score(torch.from_numpy(answers).float() - 0.5, torch.from_numpy(truth), resamples=200).interval
        held += low <= expected <= high
    assert 0.9 < held / 150 <= 1  # 95 % within three standard errors of 150 runs
