"""Face and feature similarity against scikit-learn's cosines, with a synthetic embedder."""

import statistics as stdlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import (
    ClassReconstructions,
    Evidence,
    FeatureEstimates,
    Images,
    PairedReconstructions,
)
from privbench.benchmark.core.statistics import clustered, student
from privbench.benchmark.errors import InvalidConfigurationError, MissingDataError
from privbench.benchmark.networks.embedders.facenet_vggface2 import FaceNetVGGFace2
from privbench.benchmark.networks.embedders.hog import HOG
from privbench.benchmark.networks.weights import named
from privbench.benchmark.networks.weights.published import Published
from privbench.evaluators._pairs import unrelated
from privbench.evaluators.face_similarity import FaceSimilarity
from privbench.evaluators.feature_similarity import FeatureSimilarity
from sklearn.metrics.pairwise import cosine_similarity

D = 6


def _protocol(face_box=(35, 55, 108, 108), task="classes"):
    return Protocol(
        name="made-up",
        version=1,
        task=task,
        image=(1, 3, 3),
        classes=5,
        judge_classes=5,
        target_network="none",
        judge_network="none",
        face_box=face_box,
        attacked=2,
        draws=1,
    )


WEIGHTS = torch.randn(9, D, generator=torch.Generator().manual_seed(7))


def _embed(name, pixels):
    assert name in ("made-by-hand", "facenet_vggface2")
    assert pixels.dtype == torch.uint8
    return torch.nn.functional.normalize(pixels.flatten(1).float().div(255).sub(0.5) @ WEIGHTS, dim=1)


JUDGES = SimpleNamespace(embeddings=_embed)
NAN = SimpleNamespace(embeddings=lambda name, pixels: torch.full((len(pixels), D), float("nan")))


def _pixels(*shape, seed=0):
    return torch.randint(0, 256, (*shape, 1, 3, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def _evidence(found, test=None, train=None, attack=None, protocol=None):
    parts = {"private_test": test, "private_train": train}
    return Evidence(protocol or _protocol(), {type(found).__name__: found}, parts.__getitem__, attack or {})


def _face(found, judges=JUDGES, **parts):
    return FaceSimilarity().score(_evidence(found, **parts), judges)["face_similarity"]


def _cosines(x, y):
    return cosine_similarity(x.double(), y.double())


def _paired(n=12):
    original = _pixels(n)
    noise = torch.randint(-60, 60, original.shape, generator=torch.Generator().manual_seed(3))
    rebuilt = (original.int() + noise).clamp(0, 255).to(torch.uint8)
    return PairedReconstructions(rebuilt, torch.arange(n)), original


def test_paired_equals_scikit_learn():
    found, original = _paired()
    who = torch.arange(12) % 4
    cosines = _cosines(_embed("made-by-hand", found.pixels), _embed("made-by-hand", original))
    score = _face(found, test=Images(original, identities=who), protocol=_protocol(task="attributes"))
    assert score.value == pytest.approx(np.diag(cosines).mean(), rel=1e-6)
    assert score.interval == pytest.approx(clustered(np.diag(cosines), who), rel=1e-5)
    assert score.chance == pytest.approx(cosines[np.arange(12), unrelated(who.numpy())].mean(), rel=1e-5)
    assert score.chance < score.value
    assert score.n == 12
    assert score.notes[0] == "faces are compared by facenet_vggface2; the paper's network is OpenFace, layer 3"


def test_paired_labels_are_people_on_faces():
    found, original = _paired()
    labels = torch.arange(12) % 4
    score = _face(found, test=Images(original, labels))
    each = np.diag(_cosines(_embed("made-by-hand", found.pixels), _embed("made-by-hand", original)))
    assert score.interval == pytest.approx(clustered(each, labels), rel=1e-5)
    assert score.per_class[:4] == pytest.approx([each[labels == k].mean() for k in range(4)], rel=1e-5)
    assert score.per_class[4] is None


def test_identical_and_opposite_faces():
    original = _pixels(5)
    same = _face(PairedReconstructions(original, torch.arange(5)), test=Images(original))
    assert same.value == pytest.approx(1, abs=1e-12)
    opposite = _face(PairedReconstructions(255 - original, torch.arange(5)), test=Images(original))
    assert opposite.value == pytest.approx(-1, abs=1e-9)


def test_class_reconstructions_are_compared_with_the_nearest_private_image():
    train, labels = _pixels(20, seed=1), torch.arange(20) % 5
    found = ClassReconstructions(_pixels(2, 3, 3, seed=2), torch.tensor([4, 0, 2]))
    cosines = _cosines(_embed("made-by-hand", found.pixels.flatten(0, 2)), _embed("made-by-hand", train))
    cosines = cosines.reshape(2, 3, 3, 20)
    other = unrelated(found.labels.numpy())
    values, chance = np.zeros((2, 3, 3)), np.zeros((2, 3, 3))
    for r, s, k in np.ndindex(2, 3, 3):
        values[r, s, k] = cosines[r, s, k, labels == found.labels[k]].max()
        chance[r, s, k] = cosines[r, s, k, labels == found.labels[other[k]]].max()
    score = _face(found, train=Images(train, labels))
    assert score.value == pytest.approx(values.mean(), rel=1e-6)
    assert score.chance == pytest.approx(chance.mean(), rel=1e-5)
    assert score.n == 18
    assert score.per_class == pytest.approx(values.mean((0, 1)), rel=1e-5)
    assert score.interval == pytest.approx(student(values.mean((0, 1)), (-1, 1)), rel=1e-4)
    assert score.intervals["trials"] == pytest.approx(student(values.mean((1, 2)), (-1, 1)), rel=1e-4)
    assert score.spreads["classes"] == pytest.approx(stdlib.stdev(values.mean((0, 1))), rel=1e-4)
    assert score.spreads["trials"] == pytest.approx(stdlib.stdev(values.mean((1, 2))), rel=1e-4)
    assert score.notes[1].startswith("each reconstruction is compared with the nearest 1 of 4.0 private images")


def test_a_recovered_private_image_scores_one():
    train = Images(_pixels(6, seed=1), torch.arange(6) % 2)
    found = ClassReconstructions(train.pixels[[4, 1]][None, None], torch.tensor([0, 1]))
    score = _face(found, train=train)
    assert score.value == pytest.approx(1, abs=1e-12)
    assert score.chance < 1


def test_labels_without_private_images_are_left_out_and_counted():
    train = Images(_pixels(6, seed=1), torch.arange(6) % 2)
    found = ClassReconstructions(_pixels(1, 4, 3, seed=2), torch.tensor([0, 3, 1]))
    score = _face(found, train=train)
    assert score.per_class[1] is None
    assert score.value == pytest.approx(np.mean([score.per_class[0], score.per_class[2]]))
    assert score.n == 8
    assert score.notes[-1] == "1 of 3 labels have no private image and are left out"
    nobody = ClassReconstructions(_pixels(1, 4, 2, seed=2), torch.tensor([3, 4]))
    none = _face(nobody, train=train)
    assert (none.value, none.per_class) == (None, (None, None))
    assert none.reason == "no attacked label has a private image with an embedding"


def test_one_attacked_label_has_no_interval():
    score = _face(
        ClassReconstructions(_pixels(1, 4, 1), torch.tensor([0])), train=Images(_pixels(6, seed=1), torch.arange(6) % 2)
    )
    assert (score.interval, score.chance) == (None, None)
    assert score.notes[-1] == "one label was compared, so there is no interval over labels"


def test_nothing_and_not_finite_are_undefined():
    train = Images(_pixels(6, seed=1), torch.arange(6) % 2)
    classes = ClassReconstructions(_pixels(1, 4, 2), torch.tensor([0, 1]))
    assert _face(classes, NAN, train=train).reason == "8 of 8 images have embeddings that are not finite"
    empty = ClassReconstructions(_pixels(1, 0, 2), torch.tensor([0, 1]))
    assert _face(empty, NAN, train=train).reason == "there are no reconstructions"
    paired, original = _paired()
    assert _face(paired, NAN, test=Images(original)).reason == "12 of 12 images have embeddings that are not finite"
    nothing = PairedReconstructions(_pixels(0), torch.arange(0))
    assert _face(nothing, NAN, test=Images(original)).reason == "there are no reconstructions"


def test_protocols_without_faces_are_refused(monkeypatch):
    monkeypatch.setattr(named, "problem", lambda name: None)
    monkeypatch.setattr(named, "reason", lambda name: None)
    monkeypatch.setattr(FaceNetVGGFace2, "files", dict)
    reason = FaceSimilarity().unavailable(_protocol(face_box=None))
    assert reason == "face similarity needs aligned faces and made-up/v1 has none"
    assert FaceSimilarity().unavailable(_protocol()) is None


def test_missing_weights_are_named_and_weights_are_in_the_key(monkeypatch):
    monkeypatch.setattr(Published, "find", lambda source: None)
    assert FaceSimilarity().unavailable(_protocol()) == (
        "the file of the weights facenet_vggface2 is missing; run `privbench weights fetch facenet_vggface2`"
    )

    def missing():
        raise MissingDataError("expected a file in /root/somewhere, found nothing")

    monkeypatch.setattr(HOG, "files", missing)
    assert FaceSimilarity(embedder="hog").unavailable(_protocol()) == (
        "a file of the embedder hog is missing or damaged; run `privbench check embedder hog`"
    )
    monkeypatch.undo()
    evaluator = FaceSimilarity(embedder="hog")
    assert evaluator.networks() == evaluator.networks("scores") == (("embedder", "hog"),)
    assert evaluator.networks("target") == ()


def _feature(found, test, judges=JUDGES, attack=None):
    attack = {"embedder": "made-by-hand"} if attack is None else attack
    return FeatureSimilarity().score(_evidence(found, test=test, attack=attack), judges)["feature_similarity"]


def test_features_equal_scikit_learn():
    pixels, labels = _pixels(20), torch.arange(20) % 5
    items = torch.tensor([3, 17, 5, 8, 11, 2])
    true = _embed("made-by-hand", pixels[items])
    estimates = true * 3 + torch.randn(6, D, generator=torch.Generator().manual_seed(1))
    cosines = _cosines(estimates, true)
    score = _feature(FeatureEstimates(estimates, items), Images(pixels, labels))
    assert score.value == pytest.approx(np.diag(cosines).mean(), rel=1e-6)
    assert score.chance == pytest.approx(cosines[np.arange(6), unrelated(labels[items].numpy())].mean(), rel=1e-5)
    assert score.n == 6
    assert score.notes[0] == "the features are those of made-by-hand; the paper's are those of OpenFace"


def test_estimates_without_direction_are_left_out_and_counted():
    images = Images(_pixels(6))
    estimates = _embed("made-by-hand", images.pixels) * 2
    estimates[2] = 0
    score = _feature(FeatureEstimates(estimates, torch.arange(6)), images)
    assert score.value == pytest.approx(1)
    assert (score.n, score.notes[-1]) == (5, "1 of 6 images are undefined and left out")
    none = _feature(FeatureEstimates(estimates * 0, torch.arange(6)), images)
    assert (none.value, none.reason) == (None, "the measure is undefined for every image")


def test_estimates_that_are_not_finite_or_absent_are_undefined():
    images, estimates = Images(_pixels(6)), torch.ones(6, D)
    estimates[1, 2] = float("inf")
    score = _feature(FeatureEstimates(estimates, torch.arange(6)), images)
    assert (score.value, score.reason) == (None, "1 of 6 images have estimates that are not finite")
    nothing = _feature(FeatureEstimates(torch.zeros(0, D), torch.arange(0)), images)
    assert (nothing.value, nothing.reason) == (None, "there are no estimates")


def test_errors_of_an_attack_are_named():
    images = Images(_pixels(6))
    with pytest.raises(
        InvalidConfigurationError, match="expected estimates to be 6 x 6 like the features of 'made-by-hand'"
    ):
        _feature(FeatureEstimates(torch.ones(6, D + 1), torch.arange(6)), images)
    with pytest.raises(InvalidConfigurationError, match="field 'embedder', got None"):
        _feature(FeatureEstimates(torch.ones(6, D), torch.arange(6)), images, attack={"layer": None})
