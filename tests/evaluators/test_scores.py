"""Properties of the scores over drawn evidence, and the Frechet evaluators on synthetic evidence."""

import dataclasses
import json
import math
import re
import statistics as stdlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import ClassReconstructions, Evidence, Images, Score
from privbench.benchmark.core.statistics import rate_over_labels, stratified, student, wilson
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.networks.judges import Judge, Judges
from privbench.benchmark.networks.weights.published import Published
from privbench.evaluators import _inception
from privbench.evaluators._frechet import Moments, frechet_distance
from privbench.evaluators.attack_acc import AttackAcc
from privbench.evaluators.fid import FID
from privbench.evaluators.fid_bido import FIDBiDO, stretch
from privbench.evaluators.fid_inception import FIDInception
from privbench.evaluators.fid_vmi import FIDVMI
from torch import nn

FEATURES = 4


def _protocol(reference=3, task="classes"):
    return Protocol(
        name="made-up",
        version=1,
        task=task,
        image=(1, 3, 3),
        classes=8,
        judge_classes=8,
        target_network="none",
        judge_network="none",
        attacked=2,
        draws=1,
        reference=reference,
    )


def _judges():
    generator = torch.Generator().manual_seed(0)
    linear, head = nn.Linear(9, FEATURES), nn.Linear(FEATURES, 8)
    for layer in (linear, head):
        for parameter in layer.parameters():
            nn.init.normal_(parameter, generator=generator)
    network = Network({"features": nn.Sequential(nn.Flatten(), linear), "logits": head})
    return Judges(lambda: Judge(network, torch.device("cpu"), chunk=5), torch.device("cpu"), _protocol())


def _pixels(*shape, seed=0, low=0, high=256):
    return torch.randint(low, high, (*shape, 1, 3, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def _evidence(fake, labels=None, train=None, test=None, reference=3):
    labels = torch.arange(fake.shape[2]) if labels is None else torch.tensor(labels)
    parts = {
        "private_train": Images(_pixels(40, seed=1), torch.arange(40) % 8) if train is None else train,
        "private_test": Images(_pixels(16, seed=2), torch.arange(16) % 8) if test is None else test,
    }
    items = {"ClassReconstructions": ClassReconstructions(fake, labels)}
    return Evidence(_protocol(reference), items, parts.__getitem__)


def _slow_frechet(x, y):
    """numpy's own mean and covariance; the root by eigenvalues of the product."""
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    roots = np.sqrt(np.clip(np.linalg.eigvals(s @ t).real, 0, None))
    return float(np.square(x.mean(0) - y.mean(0)).sum() + np.trace(s) + np.trace(t) - 2 * roots.sum())


grids = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 8), st.integers(0, 2**31))


@settings(deadline=None, max_examples=40)
@given(grids)
def test_attack_scores_are_complete_and_in_range(grid):
    trials, draws, labels, seed = grid
    found = AttackAcc().score(_evidence(_pixels(trials, draws, labels, seed=seed)), _judges())
    for score in found.values():
        assert 0 <= score.value <= 1
        assert score.n == trials * draws * labels
        assert np.mean(score.per_class) == pytest.approx(score.value)
        assert set(score.intervals) == {"draws", "trials"}
        assert set(score.spreads) == {"classes", "draws", "trials"}
        for bounds in (score.interval, *score.intervals.values()):
            assert bounds is None or 0 <= bounds[0] <= bounds[1] <= 1
        for spread in score.spreads.values():
            assert spread is None or (spread >= 0 and math.isfinite(spread))
    assert found["attack_acc"].value <= found["attack_acc5"].value


@settings(deadline=None, max_examples=20)
@given(grids, st.randoms(use_true_random=False))
def test_attack_scores_follow_a_reordering_of_labels(grid, random):
    trials, draws, labels, seed = grid
    order = random.sample(range(labels), labels)
    fake = _pixels(trials, draws, labels, seed=seed)
    before = AttackAcc().score(_evidence(fake), _judges())["attack_acc"]
    after = AttackAcc().score(_evidence(fake[:, :, order], order), _judges())["attack_acc"]
    assert after.value == pytest.approx(before.value, abs=1e-15)
    assert after.per_class == tuple(before.per_class[place] for place in order)
    assert after.interval == (before.interval and pytest.approx(before.interval))
    for name, bounds in before.intervals.items():
        assert after.intervals[name] == (bounds and pytest.approx(bounds))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 50), st.integers(1, 50))
def test_wilson_is_symmetric(successes, n):
    successes = min(successes, n)
    low, high = wilson(successes, n)
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)
    assert low < high


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=1, max_size=9))
def test_intervals_contain_the_mean_and_are_symmetric(values):
    values = np.array(values, dtype=float)

    def over_labels(values):
        return rate_over_labels(values.ravel(), np.arange(len(values)).repeat(4))

    for interval in (student(values.mean(1)), stratified(values), over_labels(values)):
        assert interval is None or interval[0] <= values.mean() <= interval[1]
    for rule in (stratified, over_labels):
        bounds, mirrored = rule(values), rule(1 - values)
        assert mirrored == (bounds and pytest.approx((1 - bounds[1], 1 - bounds[0]), abs=1e-9))


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 8), st.integers(0, 2**31), st.floats(0.01, 100))
def test_properties_of_the_frechet_distance(n, m, d, seed, scale):
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(n, d)), generator.normal(size=(m, d)) * 2 + 1
    rotation = np.linalg.qr(generator.normal(size=(d, d)))[0]

    def distance(a, b):
        return frechet_distance(Moments.of(a), Moments.of(b)).value

    value = distance(x, y)
    assert value >= np.square(x.mean(0) - y.mean(0)).sum() * (1 - 1e-12)
    assert distance(y, x) == pytest.approx(value)
    assert distance(x[::-1], y) == pytest.approx(value)
    assert distance(x * scale, y * scale) == pytest.approx(value * scale**2)
    assert distance(x @ rotation + 7, y @ rotation + 7) == pytest.approx(value)


def test_fid_equals_a_slow_computation_per_trial():
    fake = _pixels(3, 6, 4, seed=5, low=60)
    evidence, judges = _evidence(fake, labels=(6, 1, 0, 3)), _judges()
    train = evidence.private("private_train")
    real = torch.cat([train.pixels[train.labels == label][:3] for label in (6, 1, 0, 3)])
    features = judges.classifier.features
    expected = [
        _slow_frechet(features(real).double().numpy(), features(trial.reshape(-1, 1, 3, 3)).double().numpy())
        for trial in fake
    ]
    found = FID().score(evidence, judges)["fid_judge"]
    assert found.value == pytest.approx(np.mean(expected), rel=1e-6)
    assert found.n == 72
    assert found.spreads == {"trials": pytest.approx(stdlib.stdev(expected), rel=1e-5)}
    assert found.interval == pytest.approx(student(expected), rel=1e-5)
    assert found.notes == ("each distance compares 12 private images with 24 reconstructions in 4 features",)


def test_fid_of_the_private_images_themselves_is_zero():
    pixels = _pixels(1, 3, 2)[0]
    train = Images(pixels.transpose(0, 1).reshape(6, 1, 3, 3), torch.tensor([0, 0, 0, 1, 1, 1]))
    found = FID().score(_evidence(pixels[None], train=train), _judges())["fid_judge"]
    assert found.value == pytest.approx(0, abs=1e-10)


def test_fid_of_one_trial_has_no_interval():
    found = FID().score(_evidence(_pixels(1, 6, 4)), _judges())["fid_judge"]
    assert found.value > 0
    assert (found.interval, found.intervals, found.spreads) == (None, {"trials": None}, {"trials": None})


def test_fid_flags_covariances_without_full_rank():
    found = FID().score(_evidence(_pixels(1, 2, 2), reference=4), _judges())["fid_judge"]
    assert found.notes[1] == "rank-deficient covariance: n = 4 <= d = 4"
    assert found.flags == {
        "fid_rank_deficient": "8 private images and 4 reconstructions in 4 features: a covariance needs more than 4 "
        "images, so the value is mostly bias"
    }


@pytest.mark.parametrize("evaluator", [FID(), FIDBiDO()])
def test_fid_is_flagged_where_either_side_is_small(evaluator):
    def flags(draws, reference):
        (found,) = evaluator.score(_evidence(_pixels(1, draws, 2), reference=reference), _judges()).values()
        return list(found.flags)

    assert flags(3, 3) == []
    assert flags(3, 2) == flags(2, 3) == ["fid_rank_deficient"]


def test_fid_as_vmi_is_flagged_by_the_images_of_one_label():
    def flags(draws, reference):
        score = FIDVMI(reference=reference).score(_evidence(_pixels(1, draws, 2)), _judges())["fid_vmi"]
        return list(score.flags)

    assert flags(5, 5) == []
    assert flags(4, 5) == flags(5, 4) == ["fid_rank_deficient"]


@pytest.mark.parametrize("flags", [{"": "no name"}, {"doubt": ""}, {"doubt": None}])
def test_a_flag_is_a_name_with_a_sentence(flags):
    with pytest.raises(ValueError, match="a flag of a score is a name with a sentence"):
        Score(1.0, flags=flags)


def test_numbers_of_numpy_and_pytorch_become_numbers():
    score = Score(
        np.float32(0.25),
        n=np.int64(3),
        interval=torch.tensor([0.0, 0.5]),
        intervals={"draws": (np.float64(0.1), 1), "none": None},
        spreads={"draws": torch.tensor(0.5)},
        chance=np.float16(0.5),
        per_class=np.array([0.5, 0.25], dtype=np.float32),
    )
    assert json.loads(json.dumps(dataclasses.asdict(score))) == {
        "value": 0.25,
        "n": 3,
        "interval": [0.0, 0.5],
        "intervals": {"draws": [0.1, 1], "none": None},
        "spreads": {"draws": 0.5},
        "chance": 0.5,
        "per_class": [0.5, 0.25],
        "reason": None,
        "notes": [],
        "flags": {},
        "not_applicable": False,
    }


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"value": [0.1, 0.2]}, "value"),
        ({"value": "0.1"}, "value"),
        ({"value": 0.1, "chance": np.array([1.0])}, "chance"),
        ({"value": 0.1, "interval": 0.5}, "interval"),
        ({"value": 0.1, "interval": (0.5, None)}, "interval"),
        ({"value": 0.1, "per_class": 0.5}, "per_class"),
        ({"value": 0.1, "per_class": [[0.5]]}, "per_class[0]"),
        ({"value": 0.1, "spreads": {"draws": {}}}, "spreads['draws']"),
    ],
)
def test_a_field_that_is_no_number_is_named(fields, name):
    with pytest.raises(TypeError, match=rf"^expected {re.escape(name)} of a score to be a"):
        Score(**fields)


@pytest.mark.parametrize("evaluator", [FID(), FIDBiDO()])
def test_one_image_is_undefined_and_never_zero(evaluator):
    (found,) = evaluator.score(_evidence(_pixels(2, 1, 1)), _judges()).values()
    assert found.value is None
    assert found.reason == "a covariance needs 2 images or more, got 3 private and 1 reconstructed"


@pytest.mark.parametrize("evaluator", [FID(), FIDBiDO(), FIDVMI()])
def test_no_reconstruction_is_undefined(evaluator):
    (found,) = evaluator.score(_evidence(_pixels(1, 0, 2)), _judges()).values()
    assert found.value is None
    assert "no reconstructions" in found.reason


@pytest.mark.parametrize("evaluator", [FID(), FIDBiDO(), FIDVMI()])
def test_labels_without_private_images_are_undefined(evaluator):
    nobody = Images(_pixels(5), torch.full((5,), 7))
    (found,) = evaluator.score(_evidence(_pixels(1, 3, 2), train=nobody, test=nobody), _judges()).values()
    assert found.value is None
    assert "no private images" in found.reason


@pytest.mark.parametrize("evaluator", [FID(), FIDBiDO(), FIDVMI()])
def test_features_that_are_not_finite_are_undefined(evaluator):
    broken = SimpleNamespace(features=lambda x, transform=None: torch.full((len(x), 4), float("nan")))
    (found,) = evaluator.score(_evidence(_pixels(1, 3, 2)), SimpleNamespace(classifier=broken)).values()
    assert found.value is None
    assert "not finite" in found.reason


def test_labels_with_fewer_private_images_are_noted():
    found = FID().score(_evidence(_pixels(1, 3, 2), reference=6), _judges())["fid_judge"]
    assert found.notes[0].startswith("each distance compares 10 private images")
    assert found.notes[-1] == "2 of 2 labels have fewer than 6 private images; all of those are used"


def test_fid_as_bido_stretches_both_sides_and_doubles_the_list():
    fake, judges = _pixels(3, 6, 4, seed=5, low=60, high=120), _judges()
    evidence = _evidence(fake)
    found = FIDBiDO().score(evidence, judges)["fid_bido"]
    train = evidence.private("private_train")

    def restretch(pixels):
        return stretch(pixels.float().div(255)).mul(255).round().to(torch.uint8)

    stretched = _evidence(
        restretch(fake.reshape(-1, 1, 3, 3)).reshape(fake.shape), train=Images(restretch(train.pixels), train.labels)
    )
    plain = FID().score(stretched, judges)["fid_judge"]
    assert found.value == pytest.approx(plain.value, rel=1e-6)
    assert found.value != pytest.approx(FID().score(evidence, judges)["fid_judge"].value, rel=0.01)
    assert found.spreads["trials"] == pytest.approx(plain.spreads["trials"], rel=1e-5)
    # each trial twice: sqrt(2 SS / (2 R - 1)) against sqrt(SS / (R - 1)), for R = 3 sqrt(4 / 5)
    assert found.spreads["trials_as_released"] == pytest.approx(found.spreads["trials"] * math.sqrt(4 / 5))


def test_spread_of_the_doubled_list_of_five_trials_is_0_943_of_the_correct_one():
    found = FIDBiDO().score(_evidence(_pixels(5, 3, 2)), _judges())["fid_bido"]
    assert found.spreads["trials_as_released"] / found.spreads["trials"] == pytest.approx(0.943, abs=5e-4)
    alone = FIDBiDO().score(_evidence(_pixels(1, 3, 2)), _judges())["fid_bido"]
    assert alone.spreads == {"trials": None, "trials_as_released": None}


def _unit(features):
    return (features / features.norm(dim=1, keepdim=True)).double().numpy()


def test_fid_as_vmi_equals_a_slow_computation_per_label():
    fake, judges = _pixels(2, 7, 3, seed=5), _judges()
    evidence = _evidence(fake, labels=(5, 0, 2))
    train, test = evidence.private("private_train"), evidence.private("private_test")
    features, rows = judges.classifier.features, []
    for place, label in enumerate((5, 0, 2)):
        real = _unit(features(torch.cat([part.pixels[part.labels == label] for part in (train, test)])))
        rows.append([_slow_frechet(real, _unit(features(fake[trial, :, place]))) for trial in range(2)])
    rows = np.array(rows)
    found = FIDVMI().score(evidence, judges)["fid_vmi"]
    assert found.per_class == pytest.approx(rows.mean(1), rel=1e-5)
    assert found.value == pytest.approx(rows.mean(), rel=1e-5)
    assert found.interval == pytest.approx(student(rows.mean(1), (0, 4)), rel=1e-4)
    assert found.spreads["classes"] == pytest.approx(stdlib.stdev(rows.mean(1)), rel=1e-4)
    assert found.spreads["trials"] == pytest.approx(stdlib.stdev(rows.mean(0)), rel=1e-4)
    assert found.notes[0] == "each distance compares 7 private images with 7 reconstructions in 4 features"


def test_fid_as_vmi_limits_both_sides():
    fake = _pixels(1, 6, 2, seed=5)
    cut = FIDVMI(reference=4, draws=3).score(_evidence(fake), _judges())["fid_vmi"]
    same = FIDVMI(reference=4).score(_evidence(fake[:, :3]), _judges())["fid_vmi"]
    assert cut == same
    assert cut.n == 6
    assert cut.value != FIDVMI().score(_evidence(fake), _judges())["fid_vmi"].value
    for wrong in ({"reference": 1}, {"draws": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            FIDVMI(**wrong)


def test_fid_as_vmi_uses_training_images_first():
    fake, empty = _pixels(1, 6, 2, seed=5), Images(_pixels(0), torch.zeros(0, dtype=torch.int64))
    five = FIDVMI(reference=5).score(_evidence(fake), _judges())["fid_vmi"]  # as many as each label has to train on
    assert five == FIDVMI(reference=5).score(_evidence(fake, test=empty), _judges())["fid_vmi"]


def test_fid_as_vmi_counts_undefined_labels():
    train = Images(_pixels(12), torch.tensor([0, 1, 2] * 4))
    empty = Images(_pixels(0), torch.zeros(0, dtype=torch.int64))
    found = FIDVMI().score(_evidence(_pixels(1, 3, 4), train=train, test=empty), _judges())["fid_vmi"]
    assert found.per_class[3] is None
    assert found.value == pytest.approx(np.mean(found.per_class[:3]))
    assert found.notes[-1] == "1 of 4 labels are undefined and left out: there are no private images of the label"
    single = FIDVMI().score(_evidence(_pixels(1, 1, 2)), _judges())["fid_vmi"]
    assert (single.value, single.per_class) == (None, (None, None))
    assert "got 7 private and 1 reconstructed" in single.reason


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 6), st.integers(0, 2**31))
def test_fid_as_vmi_is_bounded_by_four(draws, seed):
    found = FIDVMI().score(_evidence(_pixels(1, draws, 2, seed=seed)), _judges())["fid_vmi"]
    assert 0 <= found.value <= 4


def test_evaluators_do_not_change_the_evidence():
    fake = _pixels(2, 4, 3)
    evidence, kept = _evidence(fake), fake.clone()
    before = evidence.private("private_train").pixels.clone()
    for evaluator in (AttackAcc(), FID(), FIDBiDO(), FIDVMI()):
        first, second = (evaluator.score(evidence, _judges()) for _ in range(2))
        assert first == second
        assert set(first) == {definition.name for definition in evaluator.scores}
    assert torch.equal(fake, kept)
    assert torch.equal(evidence.private("private_train").pixels, before)


@pytest.mark.parametrize("evaluator", [FID(), FIDBiDO(), FIDVMI(), FIDInception()])
def test_attributes_are_refused(evaluator):
    assert "made-up/v1 has attributes" in evaluator.unavailable(_protocol(task="attributes"))


def test_inception_names_missing_weights(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    reason = FIDInception().unavailable(_protocol())
    path = tmp_path / "checkpoints" / "pt_inception-2015-12-05-6726825d.pth"
    assert reason == "the file of the weights inception_fid is missing; run `privbench weights fetch inception_fid`"
    path.parent.mkdir()
    path.write_bytes(b"<html>sign in</html>")
    reason = FIDInception().unavailable(_protocol())
    assert reason.startswith("the file of the weights inception_fid is a web page, not weights; run `privbench")
    monkeypatch.setattr(Published, "digest", None)
    torch.save({"weight": torch.zeros(1)}, path)
    assert FIDInception().unavailable(_protocol()) is None


def test_inception_scores_with_its_own_features(monkeypatch):
    def features(network, pixels):
        return network(pixels.double().flatten(1)).numpy()

    monkeypatch.setattr(_inception, "load", lambda: lambda x: x[:, :3] / 255)
    monkeypatch.setattr(_inception, "features", features)
    fake = _pixels(1, 5, 2, seed=4)
    evidence = _evidence(fake)
    found = FIDInception().score(evidence, None)["fid_inception"]
    train = evidence.private("private_train")
    real = torch.cat([train.pixels[train.labels == label][:3] for label in (0, 1)])
    x, y = ((part.reshape(-1, 9)[:, :3].double() / 255).numpy() for part in (real, fake))
    assert found.value == pytest.approx(_slow_frechet(x, y), rel=1e-9)
