"""Verified accuracy, agreement and false-positive rates against loops over images, and at extremes."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import ClassReconstructions, Evidence, Negatives
from privbench.benchmark.core.statistics import rate_over_labels
from privbench.benchmark.errors import UnsupportedCellError
from privbench.benchmark.networks.judges import Judges
from privbench.evaluators.attack_acc import AttackAcc
from privbench.evaluators.verified_acc import VerifiedAcc
from scipy import stats

CLASSES = 10


def _protocol(**changes):
    fields = {
        "name": "made-up",
        "version": 1,
        "image": (1, 2, 2),
        "classes": 5,
        "judge_classes": CLASSES,
        "target_network": "none",
        "judge_network": "none",
        "second_judge_network": "none",
        "attacked": 1,
        "draws": 1,
    }
    return Protocol(**(fields | changes))


def _numbered(count, begin=0):
    """Images whose pixels encode their number."""
    number = torch.arange(begin, begin + count)
    pixels = torch.stack([number % 256, number // 256, number * 0, number * 0], 1)
    return pixels.to(torch.uint8).reshape(-1, 1, 2, 2)


def _judge(logits, name, accuracy):
    """Judge with the logits of each image's number."""

    def answer(images):
        assert images.dtype == torch.uint8
        return logits[images[:, 0, 0, 0].long() + 256 * images[:, 0, 0, 1].long()]

    return SimpleNamespace(logits=answer, name=name, test_accuracy=accuracy)


def _score(first, second, shape, labels=None, wanted=(), fooled=(), evaluator=None):
    """Scores of judges' logits `N C`: the first R S K rows are of reconstructions, the others of negatives."""
    count, more = int(np.prod(shape)), len(wanted)
    assert len(first) == len(second) == count + more
    found = ClassReconstructions(
        _numbered(count).reshape(*shape, 1, 2, 2),
        torch.arange(shape[2]) if labels is None else torch.tensor(labels),
    )
    negatives = Negatives(
        _numbered(more, count), torch.tensor(wanted, dtype=torch.int64), torch.tensor(fooled, dtype=torch.bool)
    )
    items = {"ClassReconstructions": found, "Negatives": negatives}
    judges = SimpleNamespace(classifier=_judge(first, "one", 0.98), second=_judge(second, "two", 0.955))
    evidence = Evidence(_protocol(), items, lambda part: pytest.fail("no private image is asked for"))
    return (evaluator or VerifiedAcc()).score(evidence, judges)


def _logits(count, labels, seed, pull=1.5):
    """Random logits, those of the label raised by up to `pull`."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, CLASSES, generator=generator)
    logits[torch.arange(count), torch.as_tensor(labels)] += pull * torch.rand(count, generator=generator)
    return logits


def _case(shape=(2, 6, 5), labels=(7, 2, 9, 0, 4), negatives=40, seed=0):
    count = int(np.prod(shape))
    of_images = [labels[k] for _, _, k in itertools.product(*map(range, shape))]
    wanted = [labels[i % len(labels)] for i in range(negatives)]
    fooled = [i % 3 > 0 for i in range(negatives)]
    first, second = (_logits(count + negatives, of_images + wanted, seed + i) for i in (1, 2))
    return first, second, shape, labels, wanted, fooled


def _slow_top(logits):
    """Class of each row, by comparing one logit after the other."""
    found = []
    for row in logits.tolist():
        best = 0
        for j, value in enumerate(row):
            if value > row[best]:
                best = j
        found.append(best)
    return found


def test_every_number_equals_a_loop_over_images():
    first, second, shape, labels, wanted, fooled = case = _case()
    scores = _score(*case)
    a, b = _slow_top(first), _slow_top(second)
    verified, agreed, by_label, i = 0, 0, {label: [] for label in labels}, 0
    for _ in range(shape[0]):
        for _ in range(shape[1]):
            for label in labels:
                hit = a[i] == label and b[i] == label
                verified += hit
                agreed += a[i] == b[i]
                by_label[label].append(hit)
                i += 1
    assert scores["verified_acc"].value == pytest.approx(verified / i, rel=1e-14)
    assert scores["judge_agreement"].value == pytest.approx(agreed / i, rel=1e-14)
    assert scores["verified_acc"].per_class == pytest.approx([np.mean(by_label[label]) for label in labels])
    assert 0 < verified < agreed < i
    taken = {"fpr_first": [], "fpr_second": [], "fpr_both": []}
    n, groups = sum(fooled), [label for label, did in zip(wanted, fooled, strict=True) if did]
    for j, (label, did) in enumerate(zip(wanted, fooled, strict=True)):
        if did:
            taken["fpr_first"].append(a[i + j] == label)
            taken["fpr_second"].append(b[i + j] == label)
            taken["fpr_both"].append(a[i + j] == b[i + j] == label)
    for name, hits in taken.items():
        assert scores[name].value == pytest.approx(sum(hits) / n, rel=1e-14)
        assert scores[name].interval == pytest.approx(rate_over_labels(hits, groups))
        assert scores[name].n == n
    assert 0 < sum(taken["fpr_both"]) < min(sum(taken["fpr_first"]), sum(taken["fpr_second"]))
    assert all(score.chance == 0.1 for score in scores.values())
    assert scores["verified_acc"].n == scores["judge_agreement"].n == 60


def test_intervals_are_those_of_attack_accuracy():
    first, second, shape, labels, *_ = case = _case()
    score = _score(*case)["verified_acc"]
    tops = np.array(_slow_top(first)[:60]), np.array(_slow_top(second)[:60])
    hits = ((tops[0] == tops[1]) & (tops[0] == np.tile(labels, 12))).astype(float).reshape(shape)
    assert score.interval == pytest.approx(rate_over_labels(hits.ravel(), np.tile(labels, 12)))
    assert score.spreads["trials"] == pytest.approx(np.std(hits.mean((1, 2)), ddof=1))


def test_equal_judges_verify_the_hits_of_one_judge():
    first, _, shape, labels, wanted, fooled = _case()
    scores = _score(first, first, shape, labels, wanted, fooled)
    found = ClassReconstructions(_numbered(60).reshape(*shape, 1, 2, 2), torch.tensor(labels))
    evidence = Evidence(_protocol(), {"ClassReconstructions": found}, lambda part: None)
    alone = AttackAcc().score(evidence, SimpleNamespace(classifier=_judge(first, "one", 1.0)))["attack_acc"]
    verified = scores["verified_acc"]
    assert (verified.value, verified.interval, verified.per_class) == (alone.value, alone.interval, alone.per_class)
    assert scores["judge_agreement"].value == 1
    assert scores["fpr_both"] == scores["fpr_first"] == scores["fpr_second"]


def test_verified_is_within_the_bounds_of_an_intersection():
    first, second, shape, labels, wanted, fooled = _case(seed=9)
    both, one, two = (
        _score(a, b, shape, labels, wanted, fooled) for a, b in ((first, second), (first,) * 2, (second,) * 2)
    )
    for name in ("verified_acc", "fpr_both"):
        assert max(0, one[name].value + two[name].value - 1) <= both[name].value
        assert both[name].value <= min(one[name].value, two[name].value)
    assert both["verified_acc"].value <= both["judge_agreement"].value
    assert (both["fpr_first"], both["fpr_second"]) == (one["fpr_both"], two["fpr_both"])


def test_tied_logits_score_the_expectation_of_a_random_order():
    # first judge: labels 0 and 1 tie; second: all ten tie. verified 1/2 1/10, same class 2 (1/2 1/10)
    first = torch.zeros(2, CLASSES)
    first[:, :2] = 1
    scores = _score(first, torch.zeros(2, CLASSES), (1, 1, 1), wanted=[0], fooled=[True])
    assert scores["verified_acc"].value == pytest.approx(0.05)
    assert scores["judge_agreement"].value == pytest.approx(0.1)
    assert [scores[f"fpr_{name}"].value for name in ("first", "second", "both")] == pytest.approx([0.5, 0.1, 0.05])


def test_notes_name_the_judges_and_the_rate():
    scores = _score(*_case())
    verified, rate = scores["verified_acc"], scores["fpr_both"]
    assert verified.notes[0] == (
        f"verified {verified.value:.1%}; both judges classify {rate.value:.1%} of 26 calibrated negatives as the label"
    )
    named = (
        "the first judge is one (right on 98.0% of its test images), the second two (right on 95.5% of its test images)"
    )
    assert verified.notes[1] == scores["judge_agreement"].notes[0] == named
    assert rate.notes == ("26 of 40 public images that were pushed towards a label fooled the target",)


@pytest.mark.parametrize(
    ("negatives", "reason"), [(0, "there are no calibrated negatives"), (7, "none of 7 calibrated negatives fooled")]
)
def test_without_a_negative_that_fools_the_target_only_the_rates_are_undefined(negatives, reason):
    first, second = (_logits(10 + negatives, [0] * (10 + negatives), seed) for seed in (1, 2))
    scores = _score(first, second, (1, 5, 2), wanted=[0] * negatives, fooled=[False] * negatives)
    for name in ("fpr_first", "fpr_second", "fpr_both"):
        assert scores[name].value is None
        assert scores[name].reason.startswith(reason)
    assert scores["verified_acc"].value is not None
    assert f"is unknown: {reason}" in scores["verified_acc"].notes[0]


def test_without_reconstructions_only_the_rates_are_defined():
    first, second = (_logits(4, [0] * 4, seed) for seed in (1, 2))
    scores = _score(first, second, (1, 0, 2), wanted=[0] * 4, fooled=[True] * 4)
    assert {scores[name].reason for name in ("verified_acc", "judge_agreement")} == {"there are no reconstructions"}
    assert scores["fpr_both"].n == 4


def test_one_label_has_no_interval_over_labels():
    score = _score(*(_logits(8, [0] * 8, seed) for seed in (1, 2)), (1, 8, 1))["verified_acc"]
    assert score.interval is None
    assert "no interval over labels" in score.notes[-1]


@pytest.mark.parametrize("share", [0, 1])
def test_all_or_none_uses_wilson_over_labels(share):
    logits = torch.zeros(20, CLASSES)
    logits[torch.arange(20), torch.arange(20) % 5 if share else 9] = 1
    scores = _score(logits, logits, (2, 2, 5), wanted=(), fooled=())
    expected = stats.binomtest(5 * share, 5).proportion_ci(0.95, method="wilson")
    assert scores["verified_acc"].value == share
    assert scores["verified_acc"].interval == pytest.approx((expected.low, expected.high))
    assert scores["judge_agreement"].value == 1


@pytest.mark.parametrize("which", [0, 1])
def test_logits_that_are_not_finite_are_undefined_and_name_the_judge(which):
    case = list(_case())
    case[which][3, 4] = float("nan")
    case[which][61, 2] = float("inf")  # a negative that fooled the target
    scores = _score(*case)
    name = ("first", "second")[which]
    assert scores["verified_acc"].reason == f"1 of 60 images have logits that are not finite ({name} judge)"
    assert scores["fpr_both"].reason == f"1 of 26 images have logits that are not finite ({name} judge)"
    assert {score.value for score in scores.values()} == {None}


def test_protocols_without_classes_or_second_judge_are_refused():
    assert VerifiedAcc().unavailable(_protocol()) is None
    assert "made-up/v1 has attributes" in VerifiedAcc().unavailable(_protocol(task="attributes"))
    lonely = VerifiedAcc().unavailable(_protocol(second_judge_network=None))
    assert lonely == "verified accuracy needs a second judge and made-up/v1 names no network for one"


def test_an_undeclared_second_judge_is_refused():
    judges = Judges(lambda: None, torch.device("cpu"), _protocol())
    with pytest.raises(UnsupportedCellError, match="name 'second' in its attribute judges"):
        _ = judges.second
    made = []
    judges = Judges(lambda: None, torch.device("cpu"), _protocol(), lambda: made.append(1) or "it")
    assert (judges.second, judges.second, made) == ("it", "it", [1])


def test_settings_have_ranges():
    for wrong in ({"resamples": 2000}, {"judges": 3}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            VerifiedAcc(**wrong)
