"""Accuracy and attack accuracy against scikit-learn, SciPy and a transcription of the published aggregation."""

import statistics as stdlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import ClassReconstructions, Evidence, Predictions
from privbench.benchmark.core.statistics import wilson
from privbench.evaluators._hit_rate import released_spread
from privbench.evaluators._topk import top_k
from privbench.evaluators.accuracy import Accuracy
from privbench.evaluators.attack_acc import AttackAcc
from scipy import stats
from sklearn.metrics import accuracy_score, top_k_accuracy_score


def _protocol(judge_classes=10, group=60, task="classes"):
    return Protocol(
        name="made-up",
        version=1,
        task=task,
        image=(1, 2, 2),
        classes=5,
        judge_classes=judge_classes,
        target_network="none",
        judge_network="none",
        attacked=1,
        group=group,
        draws=1,
    )


def _score(logits, labels=None, group=60, evaluator=None):
    """Attack scores of judge logits `R S K J`; the pixels of an image encode its number, which selects the logits."""
    logits = torch.as_tensor(logits, dtype=torch.float32)
    shape, classes = logits.shape[:3], logits.shape[3]
    number = torch.arange(shape.numel())
    pixels = torch.stack([number % 256, number // 256, number * 0, number * 0], 1)
    pixels = pixels.to(torch.uint8).reshape(*shape, 1, 2, 2)
    flat = logits.reshape(-1, classes)

    def judge(images):
        assert images.dtype == torch.uint8
        assert images.shape[1:] == (1, 2, 2)
        return flat[images[:, 0, 0, 0].long() + 256 * images[:, 0, 0, 1].long()]

    labels = torch.arange(shape[2]) if labels is None else torch.as_tensor(labels)
    evidence = Evidence(
        _protocol(classes, group), {"ClassReconstructions": ClassReconstructions(pixels, labels)}, lambda part: None
    )
    return (evaluator or AttackAcc()).score(evidence, SimpleNamespace(classifier=SimpleNamespace(logits=judge)))


def _random(shape, classes=10, seed=0, pull=1.5):
    logits = torch.randn(*shape, classes, generator=torch.Generator().manual_seed(seed))
    rows = torch.arange(shape[2])
    logits[:, :, rows, rows] += torch.linspace(0, pull, shape[2])
    return logits


def _hits(shape, rule):
    """Logits whose top-1 is the label exactly where `rule(r, s, k)`; the label is last otherwise."""
    logits = torch.arange(10.0).repeat(*shape, 1)
    for r in range(shape[0]):
        for s in range(shape[1]):
            for k in range(shape[2]):
                logits[r, s, k, k] = 99.0 if rule(r, s, k) else -99.0
    return logits


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_top_k_equals_scikit_learn(k):
    generator = torch.Generator().manual_seed(k)
    logits, labels = torch.randn(300, 10, generator=generator), torch.randint(0, 10, (300,), generator=generator)
    expected = top_k_accuracy_score(labels.numpy(), logits.numpy(), k=k, labels=range(10))
    assert top_k(logits, labels, k).mean() == pytest.approx(expected, rel=1e-14)


def test_tied_logits_score_the_expectation_of_a_random_order():
    # label 1: one larger, three equal. Top-1: 0; top-2: one place for three; top-4: sure
    logits, labels = torch.tensor([[9.0, 5, 5, 5, 1]]), torch.tensor([1])
    assert [float(top_k(logits, labels, k)[0]) for k in (1, 2, 3, 4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert top_k(torch.zeros(4, 10), torch.tensor([0, 3, 9, 5]), 5) == pytest.approx(0.5)


def test_attack_acc_equals_scikit_learn():
    logits, shape = _random((3, 4, 6)), (3, 4, 6)
    labels = np.broadcast_to(np.arange(6), shape).ravel()
    flat = logits.reshape(-1, 10).numpy()
    found = _score(logits)
    assert found["attack_acc"].value == pytest.approx(accuracy_score(labels, flat.argmax(1)), rel=1e-14)
    assert found["attack_acc5"].value == pytest.approx(top_k_accuracy_score(labels, flat, k=5, labels=range(10)))
    assert (found["attack_acc"].n, found["attack_acc"].chance, found["attack_acc5"].chance) == (72, 0.1, 0.5)


def test_labels_are_those_of_the_evidence_not_positions():
    logits = torch.zeros(1, 2, 3, 10)
    for place, label in enumerate((7, 2, 9)):
        logits[0, :, place, label] = 1
    logits[0, 1, 2, 0] = 5  # one miss, of label 9
    assert _score(logits, labels=(7, 2, 9))["attack_acc"].per_class == (1, 1, 0.5)


def test_intervals_equal_their_definitions():
    logits = _random((3, 4, 6))
    hits = (logits.argmax(3) == torch.arange(6)).double().numpy()
    found = _score(logits)["attack_acc"]

    def t_interval(values):
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        return max(0, low), min(1, high)

    by_label, by_trial = hits.mean((0, 1)), hits.mean((1, 2))
    low, high = t_interval(by_label)
    assert 6 * hits.mean() < 3
    assert found.interval == pytest.approx((low, max(high, wilson(6 * hits.mean(), 6)[1])))
    assert found.intervals["trials"] == pytest.approx(t_interval(by_trial))
    assert found.spreads["classes"] == pytest.approx(np.std(by_label, ddof=1))
    assert found.spreads["trials"] == pytest.approx(np.std(by_trial, ddof=1))
    assert found.per_class == pytest.approx(by_label)


def test_spread_over_draws_is_the_published_aggregation():
    """BiDO's loops (protocol facts): per batch of identities the stdev of percentages over seeds, then means."""
    hits = (np.random.default_rng(0).random((2, 5, 9)) < 0.4).astype(float)
    trials = []
    for trial in hits:
        batches = []
        for start in (0, 3, 6):
            percentages = [100 * sum(draw[start : start + 3]) / 3 for draw in trial]
            batches.append(stdlib.stdev(percentages))
        trials.append(sum(batches) / len(batches))
    assert 100 * released_spread(hits, 3) == pytest.approx(sum(trials) / 2, rel=1e-13)


def test_spread_over_draws_by_hand():
    # 2 trials, 2 draws, 2 labels in groups of one. Trial 0: label 0 hits in one draw (std 1/sqrt 2), label 1 in both
    # (0); trial 1: nothing varies. Mean of (0.7071, 0, 0, 0) = 0.17678. As one group: (0.35355, 0) -> 0.17678
    found = _score(_hits((2, 2, 2), lambda r, s, k: k == 1 or (r, s) == (0, 0)), group=1)["attack_acc"]
    assert found.spreads["draws"] == pytest.approx(0.1767767)
    # 2 draws of a group of 2 that hit both or none: accuracies 1 and 0, std 0.7071
    found = _score(_hits((1, 2, 2), lambda r, s, k: s == 0), group=2)["attack_acc"]
    assert found.spreads["draws"] == pytest.approx(0.7071068)
    # the same with opposite labels: accuracy 1/2 twice, std 0, yet each label alone has 0.7071
    opposite = _hits((1, 2, 2), lambda r, s, k: s == k)
    assert _score(opposite, group=2)["attack_acc"].spreads["draws"] == 0
    assert _score(opposite, group=1)["attack_acc"].spreads["draws"] == pytest.approx(0.7071068)


def test_one_of_everything_has_a_value_and_no_spread():
    found = _score(_hits((1, 1, 1), lambda r, s, k: True))["attack_acc"]
    assert (found.value, found.n, found.per_class) == (1, 1, (1,))
    assert found.interval is None
    assert set(found.intervals.values()) == {None}
    assert set(found.spreads.values()) == {None}
    assert "no interval over labels" in found.notes[-1]


def test_one_label_keeps_the_interval_over_draws():
    found = _score(_hits((1, 8, 1), lambda r, s, k: s < 4))["attack_acc"]
    low, high = found.intervals["draws"]
    assert found.interval is None
    assert 0 < low < 0.5 < high < 1


def test_one_trial_has_no_spread_over_trials():
    found = _score(_random((1, 6, 5)))["attack_acc"]
    assert found.interval is not None
    assert found.intervals["trials"] is None
    assert found.spreads["trials"] is None
    assert found.spreads["draws"] > 0


def test_one_draw_has_no_spread_over_draws():
    found = _score(_hits((1, 1, 6), lambda r, s, k: k < 3))["attack_acc"]
    assert found.interval is not None
    assert (found.intervals["draws"], found.spreads["draws"]) == (None, None)


@pytest.mark.parametrize("share", [0, 1])
def test_all_or_none_uses_wilson_over_labels(share):
    found = _score(_hits((2, 3, 5), lambda r, s, k: bool(share)))["attack_acc"]
    expected = stats.binomtest(5 * share, 5).proportion_ci(0.95, method="wilson")
    assert found.value == share
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert found.spreads == {"draws": 0, "trials": 0, "classes": 0}


@pytest.mark.parametrize(("labels", "warned"), [(5, True), (20, False)])
def test_few_labels_are_noted(labels, warned):
    found = _score(_random((1, 6, labels), classes=30, pull=9))["attack_acc"]
    assert any("labels in general" in note for note in found.notes) == warned
    assert "Table" in found.notes[0]


@pytest.mark.parametrize(("classes", "defined"), [(2, False), (5, False), (6, True)])
def test_top_five_of_five_is_undefined(classes, defined):
    found = _score(_random((1, 2, 2), classes=classes))
    assert found["attack_acc"].value is not None
    assert (found["attack_acc5"].value is not None) == defined
    assert (found["attack_acc5"].reason is None) == defined
    assert (found["attack_acc"].not_applicable, found["attack_acc5"].not_applicable) == (False, not defined)
    assert defined or found["attack_acc5"].reason == f"top-5 is always reached: the judge has {classes} classes"


def test_logits_that_are_not_finite_are_undefined():
    logits = _random((1, 3, 2))
    logits[0, 1, 0, 4] = float("nan")
    logits[0, 2, 1, 0] = float("inf")
    for score in _score(logits).values():
        assert (score.value, score.reason) == (None, "2 of 6 images have logits that are not finite")


def test_of_five_classes_top_one_is_a_failure_where_logits_are_not_finite_and_top_five_is_not_applicable():
    logits = _random((1, 3, 2), classes=5)
    logits[0, 1, 0, 4] = float("nan")
    found = _score(logits)
    assert (found["attack_acc"].not_applicable, found["attack_acc"].chance) == (False, 0.2)
    assert (found["attack_acc5"].not_applicable, found["attack_acc5"].chance) == (True, 1.0)


def test_nothing_to_score_is_undefined():
    for score in _score(torch.zeros(1, 0, 3, 10)).values():
        assert (score.value, score.reason) == (None, "there are no reconstructions")


def test_there_are_no_settings():
    for wrong in ({"resamples": 2000}, {"repeats": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            AttackAcc(**wrong)


def _accuracy(logits, labels):
    evidence = Evidence(_protocol(), {"Predictions": Predictions(logits, labels)}, lambda part: None)
    return Accuracy().score(evidence, None)["accuracy"]


def test_accuracy_equals_scikit_learn_and_scipy():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (200,), generator=generator)  # class 4 has no test image
    logits = torch.randn(200, 5, generator=generator)
    logits[torch.arange(200), labels] += 2
    found = _accuracy(logits, labels)
    predicted = logits.argmax(1)
    expected = stats.binomtest(int((predicted == labels).sum()), 200).proportion_ci(0.95, method="wilson")
    assert found.value == accuracy_score(labels, predicted)
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert (found.n, found.chance) == (200, 0.2)
    by_class = [accuracy_score(labels[labels == c], predicted[labels == c]) for c in range(4)]
    assert found.per_class[:4] == pytest.approx(by_class)
    assert found.per_class[4] is None


def test_accuracy_of_a_collapsed_target_is_chance():
    assert _accuracy(torch.zeros(7, 5), torch.zeros(7, dtype=torch.int64)).value == pytest.approx(0.2)


def test_accuracy_undefined():
    assert _accuracy(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)).reason == "there are no test images"
    found = _accuracy(torch.full((3, 5), float("nan")), torch.zeros(3, dtype=torch.int64))
    assert (found.value, found.reason) == (None, "3 of 3 images have logits that are not finite")


def test_attributes_are_refused():
    assert AttackAcc().unavailable(_protocol()) is None
    assert "made-up/v1 has attributes" in AttackAcc().unavailable(_protocol(task="attributes"))


def _decisions(n=200, attributes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(n, attributes, generator=generator) < torch.linspace(0.1, 0.8, attributes)
    logits = torch.randn(n, attributes, generator=generator) + truth - 0.5
    return logits, truth


def test_accuracy_of_attributes_is_the_mean_of_scikit_learns():
    logits, truth = _decisions()
    found = _accuracy(logits, truth)
    each = [accuracy_score(truth[:, a], logits[:, a] > 0) for a in range(5)]
    commoner = [max(share, 1 - share) for share in truth.double().mean(0).tolist()]
    assert found.per_class == pytest.approx(each, rel=1e-14)
    assert found.value == pytest.approx(np.mean(each), rel=1e-14)
    assert found.chance == pytest.approx(np.mean(commoner), rel=1e-14)
    assert found.n == 200
    assert Accuracy().unavailable(_protocol(task="attributes")) is None


def test_accuracy_of_attributes_counts_images_not_decisions():
    logits, truth = _decisions(attributes=1)
    one = _accuracy(logits, truth)
    hits = int(((logits > 0) == truth).sum())
    expected = stats.binomtest(hits, 200).proportion_ci(0.95, method="wilson")
    assert one.interval == pytest.approx((expected.low, expected.high), abs=1e-12)
    copies = _accuracy(logits.repeat(1, 40), truth.repeat(1, 40))
    assert copies.interval == pytest.approx(one.interval)
    five, n = _accuracy(*_decisions()), 200 * 5
    free = stats.binomtest(round(five.value * n), n).proportion_ci(0.95, method="wilson")
    assert five.interval == pytest.approx((free.low, free.high), abs=0.01)  # these decisions are independent


def test_accuracy_of_attributes_at_extremes():
    truth = _decisions()[1]
    right = _accuracy(truth.float() - 0.5, truth)
    assert (right.value, right.interval[1]) == (1, 1)
    assert right.interval[0] == pytest.approx(stats.binomtest(200, 200).proportion_ci(0.95, method="wilson").low)
    silent = _accuracy(torch.where(truth.double().mean(0) > 0.5, 1.0, -1.0).expand(200, 5), truth)
    assert silent.value == pytest.approx(silent.chance)
    assert silent.interval[0] < silent.chance
    assert _accuracy(torch.zeros(2, 1), torch.tensor([[False], [True]])).per_class == (0.5,)
    assert _accuracy(torch.zeros(0, 5), torch.zeros(0, 5, dtype=torch.bool)).reason == "there are no test images"
    broken = _accuracy(torch.full((3, 5), float("inf")), truth[:3])
    assert (broken.value, broken.reason) == (None, "3 of 3 images have logits that are not finite")
