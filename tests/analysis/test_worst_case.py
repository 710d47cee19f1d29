"""The worst case over attacks: exact splits against enumeration, its bias, and which conclusions it allows."""

import itertools
import math

import numpy as np
import pytest
from privbench.benchmark.analysis import rank_bootstrap, worst_case
from privbench.benchmark.analysis.worst_case import Sample, bracket, draws_of
from privbench.evaluators._hit_rate import hit_rate
from scipy import stats


def sample(costs, draws):
    """Sample of costs `A K` under one seed, or `A S K`."""
    costs = np.asarray(costs, dtype=float)
    costs = costs[:, None] if costs.ndim == 2 else costs
    return Sample("none", costs, tuple(range(costs.shape[1])), np.broadcast_to(draws, costs.shape[:2]))


def over_all_splits(outcomes, read):
    """Average over all splits of the value read of the attack with the best rest; equally good ones share."""
    total = splits = 0
    ways = [list(itertools.combinations(range(len(one)), r)) for one, r in zip(outcomes, read, strict=True)]
    for left_out in itertools.product(*ways):
        rest = [
            sum(h for i, h in enumerate(one) if i not in out) / (len(one) - len(out))
            for one, out in zip(outcomes, left_out, strict=True)
        ]
        found = [sum(one[i] for i in out) / len(out) for one, out in zip(outcomes, left_out, strict=True)]
        best = [value for value, share in zip(found, rest, strict=True) if share == max(rest)]
        total, splits = total + sum(best) / len(best), splits + 1
    return total / splits


@pytest.mark.parametrize(
    ("draws", "read"), [((2, 3), (1, 1)), ((5, 5, 5), (1, 1, 1)), ((8, 4), (2, 1)), ((9,) * 2, (2, 2))]
)
def test_choice_on_draws_is_the_average_over_all_splits(draws, read):
    generator = np.random.default_rng(0)
    hits = [[generator.integers(0, 2, n).tolist() for n in draws] for _ in range(6)]
    hits += [[[1] * n for n in draws], [[0] * n for n in draws]]
    costs = np.array([[sum(one) / len(one) for one in of_identity] for of_identity in hits]).T
    expected = [over_all_splits(of_identity, read) for of_identity in hits]
    found = bracket(sample(costs, np.array(draws)[:, None]))
    assert found.basis == "draws"
    assert found.low[0] == pytest.approx(expected, abs=1e-12)
    assert found.high[0] == pytest.approx(costs.max(0))
    assert (found.low <= found.high + 1e-12).all()


def test_of_scores_that_are_better_when_higher_the_lowest_is_the_worst():
    shares = np.random.default_rng(1).integers(0, 9, (3, 40)) / 8
    lower, higher = bracket(sample(-shares, 8)), bracket(sample(1 - shares, 8))
    assert lower.low == pytest.approx(higher.low - 1)
    assert lower.high == pytest.approx(higher.high - 1)


def test_many_identities_and_draws_are_treated_in_parts(monkeypatch):
    shares = np.random.default_rng(2).integers(0, 21, (2, 50)) / 20
    whole = bracket(sample(shares, 20)).low
    monkeypatch.setattr(worst_case, "_CELLS", 60)
    assert (bracket(sample(shares, 20)).low == whole).all()
    # More draws than MAX_DRAWS: shares to the nearest 1/2000.
    many = np.random.default_rng(3).integers(0, 50_001, (2, 5)) / 50_000
    rounded = bracket(sample(np.round(many * 2000) / 2000, 2000)).low
    assert bracket(sample(many, 50_000)).low == pytest.approx(rounded)


def test_choice_on_seeds_reads_the_attack_that_is_worst_under_the_others():
    costs = np.random.default_rng(4).random((3, 4, 6))
    found = bracket(sample(costs, 0))
    assert found.basis == "seeds"
    for seed, identity in itertools.product(range(4), range(6)):
        others = [math.fsum(costs[a, s, identity] for s in range(4) if s != seed) for a in range(3)]
        assert found.low[seed, identity] == costs[others.index(max(others)), seed, identity]
    assert (found.high == costs.max(0)).all()
    tied = bracket(sample([[[0.5], [0.2]], [[0.5], [0.4]]], 0))
    assert tied.low[:, 0] == pytest.approx([0.5, (0.2 + 0.4) / 2])


def test_one_attack_needs_no_choice_and_one_draw_under_one_seed_allows_none():
    costs = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert bracket(sample(costs[:1], 1)).basis == "single"
    found = rank_bootstrap.estimate([sample(costs, 1), sample(costs * 0, 1)])
    assert found.basis == ("none", "none")
    assert rank_bootstrap.intervals(found, (0, 1)) == [None, None]
    far = rank_bootstrap.estimate([sample(np.tile(costs[:1], (2, 99)), 1), sample(np.zeros((2, 297)), 1)])
    assert not rank_bootstrap.significantly_lower(far).any()


@pytest.mark.parametrize(
    ("per_class", "n", "draws"),
    [
        ([0.2, 0.4, 1.0], 15, 5),
        ([0.2, math.nan, 1.0], 10, 5),
        ([0.0, 1.0], 2, 1),
        ([0.25, 0.3], 20, 0),
        ([0.5, 0.5], 3, 0),
        ([1.2, -0.2], 10, 0),
        ([math.nan], 5, 0),
        ([0.5], 0, 0),
    ],
)
def test_draws_are_known_where_values_are_shares_of_hits(per_class, n, draws):
    assert draws_of(np.array(per_class), n) == draws


def test_draws_of_our_success_rates_are_known():
    hits = np.random.default_rng(5).integers(0, 2, (2, 7, 11)).astype(float)
    score = hit_rate(hits, 0.1, 60)
    assert draws_of(np.array(score.per_class), score.n) == 14


# --- conclusions


def test_chosen_attacks_do_not_raise_the_estimate_and_orders_are_not_reversed():
    # 300 identities, 5 draws. A: three equal attacks; B: one that is better by .05, two that fail. The largest measured
    # share is .15 too high for A; read on the draws that chose it, A seems to leak more than B, with certainty.
    generator = np.random.default_rng(0)
    too_high, errors, held = [], [], 0
    for _ in range(25):
        p = generator.beta(3, 7, 300)
        a = generator.binomial(5, p, (3, 300)) / 5
        b = np.stack([generator.binomial(5, np.minimum(1, p + 0.05)) / 5, np.zeros(300), np.zeros(300)])
        found = rank_bootstrap.estimate([sample(a, 5), sample(b, 5)], resamples=200)
        assert not rank_bootstrap.significantly_lower(found)[1, 0]
        too_high.append(a.max(0).mean() - p.mean())
        errors.append(found.cost[0] - p.mean())
        (low, high), _ = rank_bootstrap.intervals(found, (0, 1))
        held += low <= 0.3 <= high
    assert np.mean(too_high) > 0.14
    # The mean of 25 errors of sd .25 / sqrt(300) has a standard error of .003.
    assert np.mean(errors) == pytest.approx(0, abs=4 * 0.003)
    assert held >= 23  # Of 25; 0.97 or more are expected.


def test_a_wrong_choice_does_not_reverse_an_order():
    # Success of .63, .48 and .48 against three times .60: on five draws the choice is often wrong, so that the estimate
    # of the first is lower than that of the second, by more than its error. The truth is the opposite.
    generator = np.random.default_rng(0)
    reversed_by_choice = 0
    for _ in range(20):
        p = 0.8 * generator.beta(6, 4, 300)
        first = generator.binomial(5, np.stack([p + 0.15, p, p])) / 5
        second = generator.binomial(5, p + 0.12, (3, 300)) / 5
        low = [bracket(sample(costs, 5)).low[0] for costs in (first, second)]
        reversed_by_choice += stats.ttest_rel(*low, alternative="less").pvalue < 0.025
        found = rank_bootstrap.estimate([sample(first, 5), sample(second, 5)], resamples=200)
        assert not rank_bootstrap.significantly_lower(found)[0, 1]
    assert reversed_by_choice > 5


@pytest.mark.parametrize(("identities", "draws", "seeds"), [(20, 5, 1), (60, 20, 1), (20, 5, 3), (20, 0, 3)])
def test_intervals_hold_the_truth_and_equal_defenses_are_not_separated(identities, draws, seeds):
    # Four defenses with the same worst case: equal attacks, one a fifth better, each on its own identities, one alone.
    generator = np.random.default_rng([identities, draws, seeds])
    shares = np.full((4, 3, identities), [[[1.0]], [[0.8]], [[0.2]], [[0.0]]])
    shares[[1, 3], 0] = shares[2, np.arange(identities) % 3, np.arange(identities)] = 1.0
    truth = (1 / (1 + np.exp(1 - generator.normal(0, 1, 400_000)))).mean()
    simulations, held, false = 40, 0, 0
    for _ in range(simulations):
        logits = generator.normal(0, 0.8, identities) + generator.normal(0, 0.6, (4, seeds, identities)) - 1
        rates = (1 / (1 + np.exp(-logits)))[:, None] * shares[:, :, None]
        costs = generator.binomial(draws or 20, rates) / (draws or 20)
        samples = [
            Sample(f"d{i}", each, tuple(range(seeds)), np.full((3, seeds), draws)) for i, each in enumerate(costs)
        ]
        found = rank_bootstrap.estimate(samples, resamples=200)
        held += sum(low <= truth <= high for low, high in rank_bootstrap.intervals(found, (0, 1)))
        false += rank_bootstrap.significantly_lower(found).any()
    # 0.95 minus three standard errors; those of the four intervals of a simulation are not independent.
    assert held / simulations / 4 >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / (2 * simulations))
    assert false / simulations <= 0.05 + 3 * math.sqrt(0.95 * 0.05 / simulations)
