"""Scatter of latents against a slow loop, scikit-learn, a closed form and random identities."""

import numpy as np
import pytest
import torch
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import Encodings, Evidence, Images
from privbench.benchmark.core.statistics import jackknife
from privbench.evaluators import lda as module
from privbench.evaluators.lda import LDA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

PROTOCOL = Protocol(
    name="made-up",
    version=1,
    image=(1, 1, 1),
    classes=5,
    judge_classes=5,
    target_network="none",
    judge_network="none",
    attacked=1,
    draws=1,
)


def _scores(z, identities=None, labels=None, items=None):
    """Scores of latents; the private test images carry the annotations of `items` (all by default)."""
    z = torch.as_tensor(z, dtype=torch.float32)
    given = identities if identities is not None else labels
    n = len(z) if given is None else len(given)
    identities, labels = (None if x is None else torch.as_tensor(x) for x in (identities, labels))
    test = Images(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), labels, identities)
    items = torch.arange(n) if items is None else torch.tensor(items)
    return LDA().score(Evidence(PROTOCOL, {"Encodings": Encodings(z, items)}, lambda part: test), None)


def _values(found):
    return found["lda_within"].value, found["lda_between"].value, found["lda"].value


def _slow(z, groups):
    z, groups = np.asarray(z, dtype=np.float64).reshape(len(z), -1), np.asarray(groups)
    mean, within, between = z.mean(0), 0.0, 0.0
    for group in set(groups.tolist()):
        part = z[groups == group]
        between += len(part) * float(((part.mean(0) - mean) ** 2).sum())
        for row in part:
            within += float(((row - part.mean(0)) ** 2).sum())
    return within / len(z), between / len(z), between / within


def _drawn(n=60, groups=7, shape=(3, 2, 2), apart=1.0, seed=0):
    generator = np.random.default_rng(seed)
    who = np.concatenate([np.arange(groups).repeat(2), generator.integers(groups, size=n - 2 * groups)])
    centres = generator.normal(size=(groups, *shape)) * apart
    return (centres[who] + generator.normal(size=(n, *shape))).astype(np.float32), who * 13 + 2


@pytest.mark.parametrize("cells", [1, 60 * 5, 1 << 22])
def test_equals_a_slow_loop_in_blocks_of_any_size(cells, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", cells)
    z, who = _drawn()
    found = _scores(z, who)
    assert _values(found) == pytest.approx(_slow(z, who), rel=1e-12)
    assert all(score.n == 60 for score in found.values())


def test_equals_scikit_learn():
    z, who = _drawn()
    flat = z.reshape(60, -1).astype(np.float64)
    library = LinearDiscriminantAnalysis(solver="eigen", store_covariance=True).fit(flat, who)
    within, between, _ = _values(_scores(z, who))
    assert within == pytest.approx(np.trace(library.covariance_), rel=1e-10)
    assert within + between == pytest.approx(np.trace(np.cov(flat.T, bias=True)), rel=1e-10)


def test_separable_gaussians_have_their_closed_form():
    # G means at distance r from their centre, n images each with variance s^2 in D dimensions:
    # E S_w = (1 - 1/n) D s^2 and E S_b = r^2 + (1 - 1/G) D s^2 / n
    groups, n, d, r, s = 8, 200, 8, 20.0, 0.5
    centres = np.eye(groups) * r / np.sqrt(1 - 1 / groups)
    z = centres.repeat(n, 0) + s * np.random.default_rng(1).normal(size=(groups * n, d))
    within, between, ratio = _values(_scores(z, np.arange(groups).repeat(n)))
    assert within == pytest.approx((1 - 1 / n) * d * s**2, rel=0.05)
    assert between == pytest.approx(r**2 + (1 - 1 / groups) * d * s**2 / n, rel=0.01)
    assert ratio == pytest.approx(r**2 / ((1 - 1 / n) * d * s**2), rel=0.05)
    # two points of each identity at +-1 around 0 and 10: S_w = 1, S_b = 25
    assert _values(_scores([[-1.0], [1.0], [9.0], [11.0]], [0, 0, 1, 1])) == (1, 25, 25)


def test_intervals_are_the_jackknife_over_identities():
    z, who = _drawn()
    left = np.array([_slow(z[who != group], who[who != group]) for group in np.unique(who)])
    for place, name in enumerate(("lda_within", "lda_between", "lda")):
        found = _scores(z, who)[name]
        assert found.interval == pytest.approx(jackknife(found.value, left[:, place], (0, np.inf)), rel=1e-9)
        assert found.interval[0] < found.value < found.interval[1]


def test_chance_is_the_mean_over_random_identities():
    z, who = _drawn(apart=2.0)
    found, generator = _scores(z, who), np.random.default_rng(2)
    shuffled = np.array([_slow(z, generator.permutation(who)) for _ in range(300)])
    error = 4 * shuffled.std(0) / np.sqrt(300)
    assert found["lda_within"].chance == pytest.approx(shuffled[:, 0].mean(), abs=error[0])
    assert found["lda_between"].chance == pytest.approx(shuffled[:, 1].mean(), abs=error[1])
    assert found["lda"].chance == pytest.approx(6 / 53)
    assert found["lda"].interval[0] > found["lda"].chance


def test_identities_with_one_image_are_left_out_and_counted():
    z, who = _drawn()
    more = np.concatenate([z, 100 + np.zeros((2, 3, 2, 2), np.float32)])
    found = _scores(more, [*who, 1000, 1001])
    assert _values(found) == pytest.approx(_slow(z, who))
    assert found["lda"].n == 60
    assert found["lda"].notes[0] == "2 of 9 identities have one image and are left out"


def test_items_identities_and_labels():
    z, who = _drawn()
    order = np.random.default_rng(3).permutation(60)
    assert _values(_scores(z[order], who, items=order.tolist())) == pytest.approx(_slow(z, who))
    both = _scores(z, who, labels=np.arange(60) % 2)
    assert _values(both) == pytest.approx(_slow(z, who))
    found = _scores(z, labels=who)
    assert _values(found) == pytest.approx(_slow(z, who))
    assert "no identities" in found["lda"].notes[0]


def _reasons(found):
    assert all(score.value is None for score in found.values())
    (reason,) = {score.reason for score in found.values()}
    return reason


def test_too_few_identities_are_undefined():
    z, _ = _drawn()
    found = _scores(z, np.zeros(60, dtype=np.int64))
    assert _reasons(found).endswith("two images each; 1 of 1 identities have two or more images")
    assert _reasons(_scores(z, np.arange(60))).endswith("0 of 60 identities have two or more images")
    assert _reasons(_scores(z)) == "made-up/v1 has neither identities nor labels"
    assert "0 of 0 identities" in _reasons(_scores(z[:0], np.zeros(0, dtype=np.int64)))


def test_two_identities_have_no_interval():
    z, _ = _drawn()
    found = _scores(z, np.arange(60) % 2)
    assert all(score.value is not None and score.interval is None for score in found.values())
    assert found["lda"].notes[-1] == "two identities are too few for an interval"


@pytest.mark.parametrize("value", [0.1, 1e8 + 1])
def test_equal_latents_have_no_score(value):
    found = _scores(np.full((30, 5), value), np.arange(30) % 3)
    assert (found["lda_within"].value, found["lda_between"].value) == (0, 0)
    assert (found["lda"].value, found["lda"].reason) == (
        None,
        "S_w is 0: within each of the identities all latents are equal",
    )
    apart = _scores(np.arange(30)[:, None] % 3 / 7 + np.zeros(5), np.arange(30) % 3)
    assert apart["lda_within"].value == 0
    assert apart["lda_between"].value == pytest.approx(5 * 2 / 3 / 49, rel=1e-6)
    assert apart["lda"].value is None


def test_latents_that_are_not_finite_are_undefined():
    z, who = _drawn()
    z[4, 0, 0, 0], z[9, 2, 1, 1] = np.nan, np.inf
    assert _reasons(_scores(z, who)) == "2 of 60 images have latents that are not finite"


def test_small_differences_far_from_zero_survive():
    z, who = _drawn(shape=(4,))
    far = np.round(z * 64) / 64 + 4096  # exact in float32
    assert _values(_scores(far, who)) == pytest.approx(_slow(far - 4096, who), rel=1e-9)


def test_the_ratio_does_not_depend_on_scale_and_shift():
    z, who = _drawn()
    before, after = _values(_scores(z, who)), _values(_scores(8 * z, who))
    assert after == pytest.approx((64 * before[0], 64 * before[1], before[2]), rel=1e-12)
