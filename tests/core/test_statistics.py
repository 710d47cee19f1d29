"""Intervals and standard deviations against SciPy, the standard library and slow loops."""

import math
import statistics as stdlib

import numpy as np
import pytest
from privbench.benchmark.core.statistics import (
    clustered,
    jackknife,
    percentile,
    sample_std,
    stratified,
    student,
    two_level,
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


def test_stratified_is_narrower_than_two_level_when_labels_differ():
    values = (np.random.default_rng(1).random((30, 50)) < np.repeat([0.1, 0.9], 15)[:, None]).astype(float)
    inner, outer = stratified(values), two_level(values)
    assert outer[0] < inner[0] < values.mean() < inner[1] < outer[1]


@pytest.mark.parametrize("values", [[[1.0], [0.0]], [[1, 1], [0, 0]], np.zeros((0, 3)), np.zeros((3, 0))])
def test_stratified_without_variation_is_none(values):
    assert stratified(values) is None


def test_two_level_equals_slow_loop():
    """A bootstrap written as two loops, with another generator: equal up to its own resampling error."""
    values = (np.random.default_rng(2).random((12, 8)) < np.linspace(0.1, 0.9, 12)[:, None]).astype(float)
    generator, means = np.random.default_rng(99), []
    for _ in range(1000):
        rows = [values[label] for label in generator.choice(12, 12)]
        means.append(np.mean([generator.choice(row, 8).mean() for row in rows]))
    # standard error of a 2.5 % quantile of 1000 normal draws: sqrt(.025 * .975 / 1000) / phi(1.96) = 0.085 sd
    tolerance = 4 * 0.085 * math.sqrt(2) * float(np.std(means))
    assert two_level(values, 1000, 0) == pytest.approx(np.percentile(means, [2.5, 97.5]), abs=tolerance)


def test_two_level_variance_has_both_levels():
    # Var of a resampled mean = [population variance of label means + (mean within variance) / n] / K
    values = np.random.default_rng(3).normal(np.arange(40)[:, None] / 10, 2.0, (40, 6))
    expected = math.sqrt((values.mean(1).var() + values.var(1).mean() / 6) / 40)
    low, high = two_level(values, 20_000, 1)
    assert (high - low) / (2 * 1.96) == pytest.approx(expected, rel=0.03)


def test_two_level_repeats_and_depends_on_the_seed():
    values = np.random.default_rng(4).random((20, 5))
    assert two_level(values, seed=5) == two_level(values.copy(), seed=5)
    assert two_level(values, seed=5) != two_level(values, seed=6)


def test_two_level_in_chunks_has_all_resamples(monkeypatch):
    values = np.random.default_rng(5).random((20, 5))
    module = "privbench.benchmark.core.statistics._CELLS"
    whole = two_level(values, 2000)
    monkeypatch.setattr(module, 700)  # 7 resamples at a time, which does not divide 2000
    assert two_level(values, 2000) == pytest.approx(whole, abs=0.02)
    monkeypatch.setattr(module, 1)  # fewer cells than one resample needs
    assert two_level(values, 300) == pytest.approx(whole, abs=0.03)


@pytest.mark.parametrize("values", [[[0, 1, 1]], [[1, 1], [1, 1]], np.zeros((3, 0)), np.zeros((0, 3))])
def test_two_level_without_variation_is_none(values):
    assert two_level(values) is None


def test_two_level_with_one_draw_resamples_labels():
    low, high = two_level([[0], [1], [1], [0], [1], [0], [1], [1]])
    assert 0 <= low < 5 / 8 < high <= 1


def test_two_level_covers_the_expected_rate():
    """60 labels with Beta(1/2, 2) rates, 5 draws: 95 % of intervals hold 0.2 (120 runs: 4 sigma is 8 points)."""
    generator, held = np.random.default_rng(6), 0
    for seed in range(120):
        rates = generator.beta(0.5, 2, (60, 1))
        low, high = two_level(generator.random((60, 5)) < rates, 300, seed)
        held += low <= 0.2 <= high
    assert held / 120 > 0.87


@pytest.mark.parametrize("call", [student, sample_std, lambda x: two_level([x, x]), lambda x: stratified([x, x])])
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
