"""Intervals and standard deviations against SciPy, the standard library and slow loops."""

import math
import statistics as stdlib

import numpy as np
import pytest
from privbench.benchmark.core.statistics import (
    clustered,
    jackknife,
    percentile,
    rate_over_labels,
    sample_std,
    stratified,
    student,
    wilson,
)
from scipy import stats


@pytest.mark.parametrize("n", [1, 2, 5, 100, 5139])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9942, 1.0])
def test_wilson_equals_scipy(n, share):
    successes = round(n * share)
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    low, high = wilson(successes, n)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= successes / n <= high <= 1


def test_wilson_solves_its_defining_equation():
    # |p - bound| = z sqrt(bound (1 - bound) / n), for an n that is not whole
    for bound in wilson(3.2, 11.7):
        assert abs(3.2 / 11.7 - bound) == pytest.approx(1.959963984540054 * math.sqrt(bound * (1 - bound) / 11.7))


def test_wilson_without_trials_is_none():
    assert wilson(0, 0) is None


@pytest.mark.parametrize("n", [2, 3, 5, 300])
def test_student_equals_scipy(n):
    values = np.random.default_rng(n).normal(3, 2, n)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert student(values) == pytest.approx((expected.low, expected.high), rel=1e-10)


def test_student_is_clipped_to_bounds():
    low, high = student([0.9, 1.0, 1.0], (0, 1))
    assert high == 1
    assert low == pytest.approx(stats.ttest_1samp([0.9, 1.0, 1.0], 0).confidence_interval(0.95).low)


@pytest.mark.parametrize("values", [[], [0.3], [0.1, 0.1, 0.1]])
def test_student_without_variation_is_none(values):
    assert student(values) is None


def test_sample_std_equals_standard_library():
    values = [0.1, 0.4, 0.35, 0.9]
    assert sample_std(values) == pytest.approx(stdlib.stdev(values), rel=1e-14)
    assert sample_std([0.1] * 3) == 0.0
    assert sample_std([0.1]) is None
    assert sample_std([]) is None


def test_stratified_equals_slow_loop():
    values = (np.random.default_rng(0).random((7, 9)) < np.linspace(0, 1, 7)[:, None]).astype(float)
    variance = sum(stdlib.variance(row.tolist()) / 9 for row in values) / 7**2
    p = values.mean()
    expected = wilson(p * (p * (1 - p) / variance), p * (1 - p) / variance)
    assert stratified(values) == pytest.approx(expected, rel=1e-12)


def test_stratified_by_hand():
    # one label, draws 1 0 1 1: p = 3/4, s^2 = 1/4, V = 1/16, effective n = (3/16) / (1/16) = 3
    expected = stats.binomtest(3, 4).proportion_ci(0.95, method="wilson")
    low, high = stratified([[1, 0, 1, 1]])
    assert (low, high) == pytest.approx(wilson(2.25, 3))
    assert low < expected.low
    assert high > expected.high


@pytest.mark.parametrize("values", [[[1.0], [0.0]], [[1, 1], [0, 0]], np.zeros((0, 3)), np.zeros((3, 0))])
def test_stratified_without_variation_is_none(values):
    assert stratified(values) is None


def hits_of(rates: np.ndarray, draws: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(len(rates)).repeat(draws)
    return (generator.random(len(labels)) < rates[labels]).astype(float), labels


@pytest.mark.parametrize("seed", range(4))
def test_rate_over_labels_is_student_of_label_rates_in_the_middle(seed):
    hits, labels = hits_of(np.linspace(0.3, 0.7, 12), 40, np.random.default_rng(seed))
    expected = stats.ttest_1samp(hits.reshape(12, 40).mean(1), 0).confidence_interval(0.95)
    assert rate_over_labels(hits, labels) == pytest.approx((expected.low, expected.high), rel=1e-10)
    order = np.random.default_rng(9).permutation(len(hits))
    assert rate_over_labels(hits[order], labels[order]) == pytest.approx(rate_over_labels(hits, labels))


def test_rate_over_labels_reaches_wilsons_bound_towards_the_middle():
    # 5 labels of 10 draws; one hit: mean .02, far below .4, and .1 labels' worth of hits.
    hits, labels = np.zeros(50), np.arange(5).repeat(10)
    hits[0] = 1
    wide = stats.binomtest(0, 5).proportion_ci(0.95, method="wilson").high
    low, high = rate_over_labels(hits, labels)
    assert (low, high) == (0, wilson(0.1, 5)[1])
    assert high > wide > student(hits.reshape(5, 10).mean(1))[1]
    assert rate_over_labels(1 - hits, labels) == pytest.approx((1 - high, 1), abs=1e-12)


@pytest.mark.parametrize(
    ("labels", "rate", "is_wide"),
    [(5, 0.39, True), (5, 0.41, False), (6, 0.45, False), (20, 0.145, True), (20, 0.155, False), (20, 0.3, False)],
)
def test_a_rate_is_near_zero_below_two_fifths_and_three_labels_worth_of_hits(labels, rate, is_wide):
    hits = rate + 0.01 * np.sin(np.arange(labels))
    hits += rate - hits.mean()
    narrow, wide = student(hits, (0, 1)), wilson(labels * rate, labels)
    low, high = rate_over_labels(hits, np.arange(labels))
    assert (low, high) == pytest.approx((narrow[0], wide[1] if is_wide else narrow[1]))
    assert rate_over_labels(1 - hits, np.arange(labels)) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("hits", "rate"), [([0, 0, 0, 0], 0), ([1, 1, 1, 1], 1), ([0, 1, 1, 0], 0.5)])
def test_rate_over_labels_of_equal_rates_is_wilsons(hits, rate):
    expected = wilson(2 * rate, 2)
    assert rate_over_labels(hits, [7, 7, 3, 3]) == pytest.approx(expected)


def test_rate_over_one_label_is_none():
    assert rate_over_labels([0, 1, 1], [4, 4, 4]) is None
    assert rate_over_labels([], []) is None


@pytest.mark.parametrize(
    ("labels", "draws", "spread", "mean"),
    [(5, 500, 2.5, 0.4), (5, 100, 2.5, 0.05), (5, 100, 0.5, 0.98), (10, 100, 0.5, 0.05), (20, 100, 2.5, 0.02)],
)
def test_rate_over_labels_covers(labels, draws, spread, mean):
    """Rates Beta(m c, (1 - m) c). The bootstrap held .4 in 85 % for 5 labels; 3 errors of 400 runs are 3.3 points."""
    generator, held = np.random.default_rng(1), 0
    for _ in range(400):
        rates = generator.beta(mean * spread, (1 - mean) * spread, labels)
        low, high = rate_over_labels(*hits_of(rates, draws, generator))
        held += low <= mean <= high
    assert held / 400 > 0.917


def test_rate_over_labels_covers_rates_of_negatives_where_wilson_over_them_does_not():
    """False-positive rates of 5 labels with 20 negatives each, of which four in five fool the target."""
    generator, held = np.random.default_rng(2), np.zeros(2)
    for _ in range(300):
        rates, counts = generator.beta(0.25, 2.25, 5), generator.binomial(20, 0.8, 5)
        labels = np.arange(5).repeat(counts)
        hits = (generator.random(len(labels)) < rates[labels]).astype(float)
        found = wilson(hits.sum(), len(hits)), rate_over_labels(hits, labels)
        held += [low <= 0.1 <= high for low, high in found]
    assert held[0] / 300 < 0.7
    assert held[1] / 300 > 0.93


@pytest.mark.parametrize("call", [student, sample_std, lambda x: rate_over_labels(x, x), lambda x: stratified([x, x])])
def test_nan_is_rejected(call):
    with pytest.raises(AssertionError):
        call([0.0, math.nan])


@pytest.mark.parametrize("n", [2, 3, 50])
def test_clustered_of_single_values_is_student(n):
    values = np.random.default_rng(n).normal(3, 2, n)
    assert clustered(values, np.arange(n)[::-1]) == pytest.approx(student(values), rel=1e-12)


def test_clustered_equals_a_slow_loop():
    generator = np.random.default_rng(0)
    values, groups = generator.normal(size=40), generator.integers(7, size=40) * 11
    sums = [sum(v - values.mean() for v, g in zip(values, groups, strict=True) if g == k) for k in set(groups)]
    error = math.sqrt(len(sums) / (len(sums) - 1) * sum(s * s for s in sums)) / 40
    half = stats.t(len(sums) - 1).ppf(0.975) * error
    assert clustered(values, groups) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-10)


def test_clustered_covers_the_mean_of_dependent_values_where_student_does_not():
    generator, held = np.random.default_rng(1), np.zeros(2)
    groups = np.repeat(np.arange(30), 8)
    for _ in range(400):
        values = np.repeat(generator.normal(size=30), 8) + generator.normal(size=240)
        held += [low <= 0 <= high for low, high in (clustered(values, groups), student(values))]
    assert held[0] / 400 == pytest.approx(0.95, abs=0.03)
    assert held[1] / 400 < 0.8


def test_clustered_without_variation_is_none():
    assert clustered([], []) is None
    assert clustered([1.0, 2.0], [5, 5]) is None
    assert clustered([1.0, 1.0], [5, 6]) is None
    assert clustered([0.0, 1.0, 1.0], [1, 2, 3], (0, 0.7))[1] == 0.7


def test_jackknife_of_a_mean_is_student():
    values = np.random.default_rng(3).normal(3, 2, 12)
    left_out = [np.delete(values, place).mean() for place in range(12)]
    assert jackknife(values.mean(), left_out) == pytest.approx(student(values), rel=1e-10)
    assert jackknife(0.0, [1.0, 2.0]) is None
    assert jackknife(0.0, [1.0, 1.0, 1.0]) is None
    assert jackknife(values.mean(), left_out, (3, 3.1)) == (3, 3.1)


def test_percentile_equals_numpy():
    values = np.random.default_rng(4).normal(size=999)
    assert percentile(values) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), rel=1e-14)
    assert percentile([0.3, 0.3]) is None
    assert percentile([0.3]) is None
