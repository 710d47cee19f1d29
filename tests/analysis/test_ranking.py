"""Rankings against slow, simple computations: worst case, bootstrap, rank sets, group letters, coverage."""

import copy
import itertools
import math
import statistics
import zlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import samples
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench.benchmark.analysis import letter_display, rank_bootstrap, suites
from privbench.benchmark.analysis.ranking import ONE_SEED, rankings
from privbench.benchmark.analysis.record_set import Records
from privbench.benchmark.analysis.worst_case import Sample
from privbench.benchmark.core.ranking_rules import RankingRules
from scipy import stats

make_record, make_score = samples.make_record, samples.make_score


def together(*records) -> Records:
    return Records(records, tuple(Path(f"{record.key}.json") for record in records))


def cell(defense, attack, per_class, seed=0, score="attack_acc", value=None, **more):
    known = [v for v in per_class or () if v is not None]
    value = statistics.fmean(known) if value is None and known else value
    found = make_score(score, value, None if value is not None else "it failed", n=1000, per_class=per_class, **more)
    return make_record(defense, attack, seed, scores={score: found, "accuracy": make_score("accuracy", 0.95)})


def three_seeds(records):
    """The records, those with one seed of their defense and attack as three equal seeds."""
    seeds = Counter((r.cell.defense.name, r.cell.defense.version, r.cell.attack.name) for r in records)
    for record in records:
        yield record
        if seeds[record.cell.defense.name, record.cell.defense.version, record.cell.attack.name] == 1:
            for seed in (1, 2):
                cell_of = record.cell.model_copy(update={"seed": seed})
                yield record.model_copy(update={"cell": cell_of, "key": samples.key_of(record.key, seed)})


def ranked(*records, score="attack_acc", suite=None, repeat=True):
    """The ranking over a suite of all attacks of the records; a single seed stands for three equal ones."""
    attacks = suite or tuple(sorted({record.cell.attack.name for record in records}))
    rules = RankingRules(attacks={"ClassReconstructions": attacks})
    (section,) = together(*(three_seeds(records) if repeat else records)).sections()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(suites.RULES, "digits", rules)
        return next(ranking for ranking in rankings(section) if ranking.score.name == score)


def by_name(ranking):
    return {standing.defense: standing for standing in ranking.standings}


def sample(name, values, draws=0):
    """Costs by attack, seed and identity."""
    costs = np.array(values, dtype=float)
    return Sample(name, costs, tuple(range(costs.shape[1])), np.full(costs.shape[:2], draws))


def drawn_samples(seed, defenses, attacks, seeds, identities):
    generator = np.random.default_rng(seed)
    base = generator.beta(1, 1.5, size=(1, 1, 1, identities))
    own = generator.normal(0, 0.15, size=(defenses, attacks, seeds, identities))
    return [sample(f"d{i}", np.round(40 * np.clip(base[0] + own[i], 0, 1)) / 40, 40) for i in range(defenses)]


# --- the worst case


def slow_worst(attacks, worse=max):
    """Per seed and identity the worst over attacks, then the mean; where every value is there."""
    found = []
    for k in range(len(attacks[0][0])):
        values = [[by_seed[s][k] for by_seed in attacks] for s in range(len(attacks[0]))]
        if not any(value is None or math.isnan(value) for of_seed in values for value in of_seed):
            found.append(math.fsum(map(worse, values)) / len(values))
    return math.fsum(found) / len(found), len(found)


def test_worst_case_is_per_identity_and_not_of_means():
    # gmi finds the first identity and kedmi the second: each attack alone means 0.5, the worst case is 1.
    one = ranked(cell("none", "gmi", [1.0, 0.0]), cell("none", "kedmi", [0.0, 1.0]))
    (standing,) = one.standings
    assert (standing.worst.value, standing.worst.n, standing.worst.basis) == (1.0, 2, "identity")
    assert one.attacks == ("gmi", "kedmi")
    assert max(row.scores["attack_acc"].value for row in standing.rows) == 0.5
    assert (standing.rank, standing.rank_interval, standing.group) == (1, (1, 1), "a")


@settings(max_examples=40, deadline=None)
@given(data=st.data(), better=st.sampled_from(["lower", "higher"]))
def test_worst_case_equals_plain_loops(data, better):
    attacks, identities = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    seeds = data.draw(st.integers(1, 3)) if attacks == 1 else 1
    values = st.none() | st.floats(0, 1)
    drawn = [
        [[0.5, *data.draw(st.lists(values, min_size=identities - 1, max_size=identities - 1))] for _ in range(seeds)]
        for _ in range(attacks)
    ]
    records = [
        cell("none", f"a{a}", per_class, seed) for a in range(attacks) for seed, per_class in enumerate(drawn[a])
    ]
    for record in records:
        record.scores["attack_acc"].definition.__dict__.update(better=better, unit="similarity")
    (standing,) = ranked(*records).standings
    expected, n = slow_worst(drawn, max if better == "lower" else min)
    assert standing.worst.value == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert standing.worst.n == n


# --- the bootstrap


def slow_bootstrap(found, draws_of, resamples):
    """The largest costs on every resample, with the identities and seeds that were drawn, by loops."""
    identities = found[0].costs.shape[2]
    counted = draws_of(identities, resamples, 0)
    result = []
    for one in found:
        drawn = draws_of(len(one.seeds), resamples, 0, zlib.crc32(one.name.encode()), *one.seeds)
        row = []
        for b in range(resamples):
            chosen = [
                max(costs[s][k] for costs in one.costs)
                for k in range(identities)
                for _ in range(int(counted[b][k]))
                for s in range(len(one.seeds))
                for _ in range(int(drawn[b][s]))
            ]
            row.append(sum(chosen) / len(chosen))
        result.append(row)
    return np.array(result)


@pytest.mark.parametrize(("attacks", "seeds", "identities"), [(1, 1, 6), (3, 1, 9), (2, 3, 5), (2, 2, 1)])
def test_bootstrap_equals_loops_over_the_same_draws(attacks, seeds, identities):
    found = drawn_samples(1, 3, attacks, seeds, identities)
    estimate = rank_bootstrap.estimate(found, resamples=40)
    expected = slow_bootstrap(found, rank_bootstrap.draw_counts, 40)
    assert estimate.resampled[1] == pytest.approx(expected, rel=1e-12)
    for one, ceiling in zip(found, estimate.ceiling, strict=True):
        assert ceiling == pytest.approx(slow_worst(one.costs.tolist())[0], rel=1e-12)
    assert (estimate.cost <= estimate.ceiling).all()


def test_draws_are_one_fewer_than_units_and_uniform():
    counts = rank_bootstrap.draw_counts(5, 4000, 3)
    assert set(counts.sum(1)) == {4.0}
    # Each mean of 4000 counts has standard deviation sqrt(4 * 0.2 * 0.8 / 4000) = 0.0126.
    assert counts.mean(0) == pytest.approx(np.full(5, 0.8), abs=5 * 0.0126)
    assert (rank_bootstrap.draw_counts(1, 3, 0) == 1).all()


def test_interval_of_one_attack_and_seed_agrees_with_student_and_scipy():
    values = np.random.default_rng(2).beta(1, 1.5, 40)
    estimate = rank_bootstrap.estimate([sample("none", [[values]])], resamples=20_000)
    ((low, high),) = rank_bootstrap.intervals(estimate, (0, 1))
    # Wilson's interval with the variance that Student's has.
    half = stats.t.ppf(0.975, 39) * stats.sem(values)
    e, p = half**2 / (values.mean() * (1 - values.mean())), values.mean()
    ends = [(p + e / 2 + sign * math.sqrt(half**2 + e**2 / 4)) / (1 + e) for sign in (-1, 1)]
    # The bootstrap's standard deviation of 20,000 resamples is known to 1 / sqrt(2 * 20,000) = 0.5 %.
    assert (low, high) == pytest.approx(ends, abs=4 * 0.005 * half)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3))
    scale = math.sqrt(40 / 39)
    assert estimate.resampled[0].std(ddof=1) == pytest.approx(theirs.standard_error * scale, rel=0.02)
    ours = np.quantile(estimate.resampled[0] - values.mean(), [0.025, 0.975])
    expected = (np.array(theirs.confidence_interval) - values.mean()) * scale
    assert ours == pytest.approx(expected, abs=0.03 * half)


def test_variance_over_seeds_is_that_of_their_mean():
    # One identity, so that seeds alone vary: the mean of 3 seeds has variance s^2 / 3.
    values = [[0.1], [0.4], [0.9]]
    estimate = rank_bootstrap.estimate([sample("none", [values])], resamples=20_000)
    expected = statistics.variance([0.1, 0.4, 0.9]) / 3
    assert estimate.resampled[0].var(ddof=1) == pytest.approx(expected, rel=0.03)
    assert estimate.seed_variance[0, 0] == pytest.approx(estimate.resampled[0].var(ddof=1))
    ((low, high),) = rank_bootstrap.intervals(estimate, (-math.inf, math.inf))
    half = stats.t.ppf(0.975, 2) * math.sqrt(expected)
    assert (high - low) / 2 == pytest.approx(half, rel=0.02)


# --- rank sets


def slow_significantly_lower(estimate):
    """Return whether costs are significantly lower, pair by pair, with the variance over seeds as estimated."""
    _, size, resamples = estimate.resampled.shape
    costs, ceilings = estimate.resampled
    several = estimate.has_seeds
    pooled = []
    for known in estimate.seed_variance:
        mean = statistics.fmean(known[several]) if several.any() else 0.0
        pooled.append([max(v, mean) if s else 0.0 for v, s in zip(known, several, strict=True)])
    pooled_freedom = sum(f for f, s in zip(estimate.seed_dof, several, strict=True) if s)
    deviation = {}
    for i, j in itertools.permutations(range(size), 2):
        differences = [ceilings[i][b] - costs[j][b] for b in range(resamples)]
        more = pooled[1][i] - estimate.seed_variance[1][i] + pooled[0][j] - estimate.seed_variance[0][j]
        deviation[i, j] = math.sqrt(statistics.variance(differences) + more)
    largest = []
    for b in range(resamples):
        shifts = []
        for (i, j), s in deviation.items():
            if s > 1e-9:
                shifts.append((estimate.ceiling[i] - estimate.cost[j] - (ceilings[i][b] - costs[j][b])) / s)
        largest.append(max(shifts, default=0.0))
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([size])))
    ranges = [(max(z) - min(z)) / math.sqrt(2) for z in generator.standard_normal((4 * resamples, size)).tolist()]
    critical = max(np.quantile(largest, 0.95), np.quantile(ranges, 0.95))
    lower = [[False] * size for _ in range(size)]
    for (i, j), s in deviation.items():
        distance = estimate.cost[j] - estimate.ceiling[i]
        fewer = min(estimate.dof[i], estimate.dof[j])
        if s <= 1e-9:
            needed = 0.05 / (size * (size - 1) / 2)
            unlikely = 2.0 ** (1 - min(estimate.identities[i], estimate.identities[j])) <= needed
            lower[i][j] = bool(distance > 1e-9 and unlikely)
        elif distance > 0:
            of_seeds = pooled[1][i] + pooled[0][j]
            below = max(s * s - of_seeds, 0) ** 2 / fewer + (of_seeds**2 / pooled_freedom if of_seeds else 0)
            freedom = min(s**4 / below, fewer + (pooled_freedom if of_seeds else 0))
            lower[i][j] = bool(stats.t.sf(distance / s, freedom) < stats.norm.sf(critical))
    return np.array(lower)


@pytest.mark.parametrize(("attacks", "seeds", "identities"), [(1, 1, 8), (2, 1, 30), (2, 3, 30), (1, 2, 6)])
def test_significant_differences_equal_a_naive_loop(attacks, seeds, identities):
    found = drawn_samples(4, 6, attacks, seeds, identities)
    shifted = [replace(one, costs=np.minimum(1.0, one.costs + 0.125 * i)) for i, one in enumerate(found)]
    shifted[2] = replace(shifted[2], costs=shifted[1].costs)
    estimate = rank_bootstrap.estimate(shifted, resamples=150)
    lower = rank_bootstrap.significantly_lower(estimate)
    expected = slow_significantly_lower(estimate)
    assert (lower == expected).all()
    assert identities < 30 or (expected.any() and not (expected | expected.T).all(where=~np.eye(6, dtype=bool)))
    for i, (rank, low, high) in enumerate(rank_bootstrap.rank_sets(estimate.cost, lower)):
        assert rank == 1 + sum(cost < estimate.cost[i] - 1e-12 for cost in estimate.cost)
        assert low == 1 + sum(expected[j][i] for j in range(6))
        assert high == 6 - sum(expected[i][j] for j in range(6))
        assert low <= rank <= high


def test_the_order_of_rows_does_not_change_the_estimate():
    found = drawn_samples(5, 6, 2, 2, 12)
    forward, backward = (rank_bootstrap.estimate(one) for one in (found, found[::-1]))
    assert (forward.resampled == backward.resampled[:, ::-1]).all()
    lower = rank_bootstrap.significantly_lower(forward)
    assert (lower == rank_bootstrap.significantly_lower(backward)[::-1, ::-1]).all()


def _coverage(seed, simulations, defenses, seeds, identities, spacing, noise):
    """Shares of simulations whose rank sets contain all true ranks, and of intervals with the true cost; one attack."""
    generator = np.random.default_rng(seed)
    level = np.linspace(0, spacing, defenses)
    truth = 0.45 + level
    true_ranks = [1 + sum(other < own - 1e-12 for other in level) for own in level]
    held, inside = 0, 0
    for _ in range(simulations):
        shared = generator.normal(0.45, 0.12, (1, 1, 1, identities))
        own = generator.normal(0, 0.1, (defenses, 1, 1, identities))
        over_seeds = generator.normal(0, noise, (defenses, 1, seeds, 1))
        values = shared + own + over_seeds + level[:, None, None, None]
        found = [sample(f"d{i}", values[i]) for i in range(defenses)]
        estimate = rank_bootstrap.estimate(found, resamples=300)
        sets = rank_bootstrap.rank_sets(estimate.cost, rank_bootstrap.significantly_lower(estimate))
        held += all(low <= rank <= high for rank, (_, low, high) in zip(true_ranks, sets, strict=True))
        spreads = rank_bootstrap.intervals(estimate, (-9, 9))
        inside += sum(low <= value <= high for value, (low, high) in zip(truth, spreads, strict=True))
    return held / simulations, inside / simulations / defenses


@pytest.mark.parametrize(
    ("defenses", "seeds", "identities", "noise"),
    [(5, 1, 5, 0.0), (5, 1, 60, 0.0), (12, 1, 10, 0.0), (5, 2, 30, 0.05), (5, 3, 10, 0.05)],
)
def test_rank_sets_contain_the_true_ranks_of_equal_defenses(defenses, seeds, identities, noise):
    # Equal defenses are the hardest case: every separation is false. 0.95 minus three standard errors of 120
    # simulations, sqrt(0.95 * 0.05 / 120) = 0.020.
    held, inside = _coverage(6, 120, defenses, seeds, identities, 0.0, noise)
    assert held >= 0.95 - 3 * 0.02
    assert inside >= 0.93 - 3 * 0.02


def test_rank_sets_contain_the_true_ranks_of_different_defenses():
    held, inside = _coverage(7, 120, 6, 1, 40, 0.3, 0.0)
    assert held >= 0.95 - 3 * 0.02
    assert inside >= 0.93 - 3 * 0.02


# --- group letters


@settings(max_examples=80, deadline=None)
@given(data=st.data(), size=st.integers(1, 10))
def test_two_defenses_share_a_letter_if_and_only_if_they_are_not_distinct(data, size):
    pairs = list(itertools.combinations(range(size), 2))
    drawn = data.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs)))
    distinct = np.zeros((size, size), dtype=bool)
    for (i, j), value in zip(pairs, drawn, strict=True):
        distinct[i, j] = distinct[j, i] = value
    groups = letter_display.assign_groups(distinct)
    assert all(groups)
    for i, j in pairs:
        assert bool(set(groups[i]) & set(groups[j])) == (not distinct[i, j])
    used = sorted({g for group in groups for g in group})
    assert used == list(range(len(used)))
    for g in used:
        members = [i for i in range(size) if g in groups[i]]
        elsewhere = [set(group) - {g} for group in groups]
        pairs = itertools.combinations_with_replacement(members, 2)
        assert not all(elsewhere[i] & elsewhere[j] for i, j in pairs), "a redundant group"


def test_letters_of_overlapping_intervals_are_consecutive():
    # Items are not distinct if their positions differ by at most two: a, ab, abc, bc, c.
    distinct = np.abs(np.subtract.outer(range(5), range(5))) > 2
    assert letter_display.assign_groups(distinct) == [(0,), (0, 1), (0, 1, 2), (1, 2), (2,)]


# --- rankings


def many(defense, level, attack="kedmi", identities=40, seed=0, spread=0.05):
    values = np.clip(level + np.random.default_rng(zlib.crc32(defense.encode())).normal(0, spread, identities), 0, 1)
    return cell(defense, attack, values.tolist(), seed)


def test_best_defense_is_first_for_both_directions_of_a_score():
    lower = ranked(many("none", 0.8), many("mid", 0.2), many("bido_hsic", 0.21))
    assert [s.defense for s in lower.standings][-1] == "none"
    assert [s.rank for s in lower.standings] == [1, 2, 3]
    assert by_name(lower)["none"].rank_interval == (3, 3)
    assert [s.rank_interval for s in lower.standings][:2] == [(1, 2), (1, 2)]
    assert [s.group for s in lower.standings] == ["a", "a", "b"]
    records = [many("none", 0.8), many("mid", 0.2)]
    for record in records:
        record.scores["attack_acc"].definition.__dict__["better"] = "higher"
    higher = ranked(*records)
    assert [s.defense for s in higher.standings] == ["none", "mid"]
    for standing in higher.standings:
        low, high = standing.worst.interval
        assert low < standing.worst.value < high


def test_identical_defenses_are_tied_and_not_separable():
    values = np.random.default_rng(0).random(30).tolist()
    found = ranked(*(cell(name, "kedmi", values) for name in ("none", "mid", "bido_hsic")))
    assert {(s.rank, s.rank_interval, s.group) for s in found.standings} == {(1, (1, 3), "a")}
    assert [s.defense for s in found.standings] == ["bido_hsic", "mid", "none"]


def test_constant_values_have_no_interval_and_are_separated_by_a_sign_test():
    for identities, distinct in ((6, True), (5, False)):  # 2^-5 = 0.031, 2^-4 = 0.0625
        found = ranked(cell("none", "kedmi", [1.0] * identities), cell("mid", "kedmi", [0.0] * identities))
        assert [s.worst.interval for s in found.standings] == [None, None]
        assert [s.defense for s in found.standings] == ["mid", "none"]
        assert [s.group for s in found.standings] == (["a", "b"] if distinct else ["a", "a"])
    shifted = np.random.default_rng(0).random(30) / 2
    found = ranked(cell("none", "kedmi", (shifted + 0.1).tolist()), cell("mid", "kedmi", shifted.tolist()))
    assert [s.group for s in found.standings] == ["a", "b"]


def test_a_sign_test_is_for_all_pairs_of_defenses_together():
    for identities, groups in ((6, ["a", "a", "a"]), (7, ["a", "b", "c"])):  # 2^-5 and 2^-6, against 0.05 / 3 = 0.0167
        made = [cell(name, "kedmi", [rate] * identities) for name, rate in (("none", 0.9), ("mid", 0.5), ("x", 0.1))]
        assert [s.group for s in ranked(*made).standings] == groups


def test_one_identity_gives_no_interval_and_separates_nothing():
    found = ranked(cell("none", "kedmi", [1.0]), cell("mid", "kedmi", [0.0]))
    assert [(s.worst.interval, s.rank_interval, s.group) for s in found.standings] == [(None, (1, 2), "a")] * 2


def test_identities_without_a_value_under_an_attack_are_left_out_with_a_note():
    found = ranked(
        cell("none", "gmi", [0.9, None, 0.1]),
        cell("none", "kedmi", [0.2, 0.9, 0.3]),
        cell("mid", "gmi", [0.5, 0.5, 0.5]),
        cell("mid", "kedmi", [0.4, 0.4, 0.4]),
    )
    assert by_name(found)["none"].worst.value == pytest.approx((0.9 + 0.3) / 2)
    assert [by_name(found)[name].worst.n for name in ("none", "mid")] == [2, 3]
    assert any("left out of that defense's worst case" in note for note in found.notes)
    nothing = ranked(cell("none", "gmi", [None, 0.1]), cell("none", "kedmi", [0.2, None]))
    assert nothing.standings[0].worst.reason == "no identity has a value under every attack and seed"


def test_a_defense_that_lacks_an_attack_is_listed_without_a_rank():
    failed = make_record("vib", "gmi", scores={"attack_acc": make_score("attack_acc", None, "it diverged")})
    found = ranked(
        *(many(name, 0.5, attack) for name in ("none", "mid") for attack in ("gmi", "kedmi")),
        many("bido_hsic", 0.1),
        many("vib", 0.1),
        failed,
        many("mid", 0.9, "vmi"),
        suite=("gmi", "kedmi"),
    )
    assert found.attacks == ("gmi", "kedmi")
    assert [s.rank is None for s in found.standings] == [False, False, True, True]
    lacking = by_name(found)["bido_hsic"]
    assert (lacking.missing, lacking.worst.reason, lacking.group) == (("gmi",), "gmi was not run", "")
    assert len(lacking.rows) == 1
    assert by_name(found)["vib"].worst.reason == "gmi: it diverged"
    assert found.further == ("vmi",)


SPREAD = (-0.02, 0.0, 0.02)


def test_without_values_by_identity_one_attack_is_ranked_by_the_score_and_several_are_not():
    def record(name, value, attack="kedmi", seed=0):
        score = make_score("attack_acc", value, per_class=None)
        scores = {"attack_acc": score, "accuracy": make_score("accuracy", 0.95)}
        return make_record(name, attack, seed, scores=scores)

    over_seeds = [
        record(name, v + d, seed=i) for name, v in (("none", 0.8), ("mid", 0.2)) for i, d in enumerate(SPREAD)
    ]
    alone = ranked(*over_seeds, record("x", 0.1))
    assert [(s.defense, s.worst.basis, s.group) for s in alone.standings] == [
        ("x", "score", "ab"),
        ("mid", "score", "a"),
        ("none", "score", "b"),
    ]
    assert by_name(alone)["mid"].worst.value == pytest.approx(0.2)
    # Standard deviation 0.02 over three seeds, t = 4.303: 0.0497.
    assert by_name(alone)["mid"].worst.interval == pytest.approx((0.2 - 0.0497, 0.2 + 0.0497), abs=1e-4)
    assert by_name(alone)["mid"].worst.covers == "3 trainings"
    assert by_name(alone)["x"].rank_interval == (1, 3), "its error is unknown"
    several = ranked(*(record(name, 0.5, attack) for name in ("none", "mid") for attack in ("gmi", "kedmi")))
    assert all(s.rank is None and s.worst.value is None for s in several.standings)
    assert "no values by identity under gmi, kedmi" in several.standings[0].worst.reason


def test_scores_without_identities_are_compared_by_the_error_of_their_mean():
    # Deviations .02 over 12 trainings: the error of a difference is .02 * sqrt(2 / 12) = .0082, t(22) = 2.07.
    def record(name, level, seed):
        score = make_score("attack_acc", level + 0.02 * (-1) ** seed, per_class=None)
        return make_record(name, seed=seed, scores={"attack_acc": score, "accuracy": make_score("accuracy", 0.95)})

    for distance, groups in ((0.03, ["a", "b"]), (0.01, ["a", "a"])):
        made = [record(name, 0.3 + (name == "none") * distance, seed) for name in ("none", "mid") for seed in range(12)]
        assert [s.group for s in ranked(*made).standings] == groups


def test_two_scores_with_intervals_are_distinct_if_a_z_test_says_so():
    # Standard errors 0.05: the 5 % point of the difference is 1.96 * 0.05 * sqrt(2) = 0.139.
    for distance, distinct in ((0.125, False), (0.155, True)):
        estimate = rank_bootstrap.estimate_from_errors(
            np.array([0.3, 0.3 + distance]), np.full(2, 0.05), np.full(2, np.inf)
        )
        assert rank_bootstrap.significantly_lower(estimate)[0, 1] == distinct


def test_notes_mention_few_seeds_and_identities():
    one = ranked(many("none", 0.8), many("mid", 0.2), repeat=False)
    assert ONE_SEED in one.notes
    assert not any("identities" in note for note in one.notes)
    mixed = ranked(many("none", 0.8), many("none", 0.7, seed=1), many("mid", 0.2), repeat=False)
    assert any(note.startswith("1 of 2 defenses with one seed") for note in mixed.notes)
    two = ranked(*(many(name, 0.5, identities=5, seed=seed) for name in ("none", "mid") for seed in (0, 1)))
    assert ONE_SEED not in two.notes
    assert not any("seed" in note for note in two.notes)
    assert any(note.startswith("only 5 identities") for note in two.notes)


def test_notes_mention_few_draws_under_several_attacks():
    def attacked(attack, n, seed=0, rates=(0.25, 0.75)):
        score = make_score("attack_acc", statistics.fmean(rates), n=n, per_class=list(rates))
        return make_record("none", attack, seed, scores={"attack_acc": score})

    def notes(*records):
        return [note for note in ranked(*records, repeat=False).notes if "draw" in note]

    (note,) = notes(attacked("gmi", 96), attacked("kedmi", 400))
    assert note.startswith("48 draws of each identity under gmi")
    assert not notes(attacked("gmi", 104), attacked("kedmi", 400))
    assert not notes(attacked("gmi", 8))
    unknown = (attacked("gmi", 98), attacked("kedmi", 400))  # A quarter of 49 draws is no number of hits.
    (note,) = notes(*unknown)
    assert note.startswith("none: one seed and no second draw")
    assert ranked(*unknown, repeat=False).standings[0].worst.interval is None
    (note,) = notes(*unknown, attacked("gmi", 98, 1, (0.3, 0.6)), attacked("kedmi", 400, 1, (0.5, 0.7)))
    assert note.startswith("none: attacks are chosen on other seeds")


def test_only_seeds_under_which_every_attack_was_run_count():
    one = [cell("none", "gmi", [0.2, 0.4]), cell("none", "kedmi", [0.0, 0.2]), cell("none", "kedmi", [0.9, 1.0], 1)]
    assert ranked(*one, repeat=False).standings[0].worst.value == pytest.approx(0.3, abs=1e-6)
    (apart,) = ranked(cell("none", "gmi", [0.2]), cell("none", "kedmi", [0.9], 1), repeat=False).standings
    assert apart.worst.reason == "no seed was run under every attack"


def test_versions_and_budgets_never_share_a_ranking():
    changed = {"dataset": samples.choice("digits", judge={"epochs": 9})}
    sources = (
        {"protocol": "digits/v1", "leak": 0.2},
        {"protocol": "digits/v2", "leak": 0.9},
        {"protocol": "digits/v1", "budget": "full", "leak": 0.5},
        {"protocol": "digits/v1", "cell": changed},
    )
    records = (
        make_record("none", attack, seed, **source)
        for source in map(copy.deepcopy, sources)
        for attack in ("gmi", "kedmi")
        for seed in range(3)
    )
    boards = [rankings(section)[0] for section in together(*records).sections()]
    assert [len(ranking.standings) for ranking in boards] == [1, 1, 1, 1]
    assert {s.rank for ranking in boards for s in ranking.standings} == {1}


def test_evaluators_of_other_versions_do_not_share_a_ranking():
    def record(name, version):
        evaluators = [samples.choice("accuracy"), samples.choice("attack_acc", version), samples.choice("fid")]
        return make_record(name, cell={"evaluators": evaluators})

    found = ranked(record("none", 2), record("mid", 2), record("old", 1), record("older", 1), record("oldest", 1))
    assert {s.defense for s in found.standings if s.rank} == {"mid", "none"}
    assert {s.defense for s in found.standings if s.rank is None} == {"old", "older", "oldest"}
    assert any("several evaluators or versions" in note for note in found.notes)


def test_the_primary_score_is_first_and_standings_have_the_utility():
    (section,) = together(make_record("none"), make_record("mid", accuracy=0.5)).sections()
    found = rankings(section)
    assert [ranking.score.name for ranking in found] == ["attack_acc", "attack_acc5"]
    assert by_name(found[0])["mid"].utility.definition.name == "accuracy"
    assert by_name(found[0])["mid"].utility.value == pytest.approx(0.5, abs=0.02)


def test_more_groups_than_letters_are_numbered():
    names = ["none", *(f"d{i:02}" for i in range(1, 30))]
    records = [cell(name, "kedmi", [i / 40 + 1e-5 * k for k in range(30)]) for i, name in enumerate(names)]
    groups = [s.group for s in ranked(*records).standings]
    assert groups == [str(i + 1) for i in range(30)]


def test_a_leaderboard_frame_has_every_standing():
    pairs = [("none", 0.8), ("mid", 0.2)]
    made = [many(name, level, attack) for name, level in pairs for attack in ("gmi", "kedmi")]
    records = together(*three_seeds(made), make_record("vib", "gmi", protocol="mnist/v1"))
    frame = records.leaderboard()
    rows = frame[frame["score"] == "attack_acc"]
    assert list(rows["defense"]) == ["mid", "none", "vib"]
    assert list(rows["rank"])[:2] == [1, 2]
    assert list(zip(rows["rank_low"], rows["rank_high"], strict=True))[:2] == [(1, 1), (2, 2)]
    assert rows["rank"].isna().tolist() == rows["worst"].isna().tolist() == [False, False, True]
    ranked_rows = rows[:2]
    assert ((ranked_rows["low"] < ranked_rows["worst"]) & (ranked_rows["worst"] < ranked_rows["high"])).all()
    assert list(rows["reason"])[2] == "kedmi was not run"
    assert rows["reason"].isna().tolist() == [True, True, False]
    assert list(rows["covers"]) == ["3 trainings x 40 identities"] * 2 + [""]
    assert list(rows["attacks"]) == ["gmi, kedmi"] * 3
    assert set(rows["suite"]) == {1}
    assert (rows["best_known"] <= 1).all()
    assert set(rows["best_known_attack"]) <= {"gmi", "kedmi"}
    assert list(rows["utility_distance"])[:2] == [0.0, 0.0]
    assert list(Records().leaderboard().columns) == list(frame.columns)
