"""Distance to the nearest private images against loops over pairs, in features of a real embedder and at extremes."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import ClassReconstructions, Evidence, Images
from privbench.benchmark.core.statistics import student
from privbench.benchmark.networks.embedders.mobilefacenet import MobileFaceNet
from privbench.benchmark.networks.judges import Judges
from privbench.benchmark.networks.weights import named
from privbench.evaluators import knn_distance
from privbench.evaluators._pairs import unrelated
from privbench.evaluators.knn_distance import KNNDistance


def _protocol(image=(1, 16, 16), **changes):
    fields = {
        "name": "made-up",
        "version": 1,
        "image": image,
        "classes": 5,
        "judge_classes": 5,
        "target_network": "none",
        "judge_network": "none",
        "attacked": 1,
        "draws": 1,
    }
    return Protocol(**(fields | changes))


def _pixels(*shape, image=(1, 16, 16), seed=0):
    return torch.randint(0, 256, (*shape, *image), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def _judges(protocol):
    return Judges(lambda: pytest.fail("the classifier is not asked"), torch.device("cpu"), protocol)


def _score(pixels, labels, private, k=1, judges=None):
    protocol = _protocol(tuple(pixels.shape[3:]))
    items = {"ClassReconstructions": ClassReconstructions(pixels, torch.tensor(labels))}
    evidence = Evidence(protocol, items, {"private_train": private}.__getitem__)
    return KNNDistance(k=k).score(evidence, judges or _judges(protocol))["knn_distance"]


def _slow(pixels, labels, private, k, judges):
    """Loop over reconstructions and private images."""
    trials, draws, count = pixels.shape[:3]
    found = np.zeros((trials, draws, count))
    for r in range(trials):
        for s in range(draws):
            for place in range(count):
                ours = judges.embeddings("hog", pixels[r, s, place][None])[0].double()
                ours = (ours / ours.norm()).tolist()
                distances = []
                for image, label in zip(private.pixels, private.labels.tolist(), strict=True):
                    if label == labels[place]:
                        theirs = judges.embeddings("hog", image[None])[0].double()
                        theirs = (theirs / theirs.norm()).tolist()
                        distances.append(math.sqrt(sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True))))
                nearest = sorted(distances)[:k]
                found[r, s, place] = sum(nearest) / len(nearest)
    return found


@pytest.mark.parametrize(("image", "k"), [((1, 16, 16), 1), ((1, 16, 16), 3), ((3, 16, 17), 2), ((1, 16, 16), 99)])
def test_equals_a_loop_over_pairs(image, k):
    labels, pixels = [4, 0, 2], _pixels(2, 2, 3, image=image)
    private = Images(_pixels(15, image=image, seed=1), torch.arange(15) % 5)
    score, judges = _score(pixels, labels, private, k), _judges(_protocol(image))
    expected = _slow(pixels, labels, private, k, judges)
    assert score.value == pytest.approx(expected.mean(), rel=1e-9)
    assert score.per_class == pytest.approx(expected.mean((0, 1)), rel=1e-9)
    assert score.n == 12
    assert score.interval == pytest.approx(student(expected.mean((0, 1)), (0, 2)), rel=1e-6)
    assert score.intervals["trials"] == pytest.approx(student(expected.mean((1, 2)), (0, 2)), rel=1e-6)
    others = [labels[place] for place in unrelated(np.array(labels))]
    assert not set(zip(others, labels, strict=True)) & {(label, label) for label in labels}
    assert score.chance == pytest.approx(_slow(pixels, others, private, k, judges).mean(), rel=1e-9)


def test_copies_are_at_zero_and_nearer_than_chance():
    private = Images(_pixels(10), torch.arange(10) % 2)
    copies = torch.stack([private.pixels[private.labels == label] for label in (0, 1)], 1)[None]
    score = _score(copies, [0, 1], private)
    assert score.value == 0
    assert score.per_class == (0, 0)
    assert score.chance > 0.5
    assert 0 < _score(copies, [0, 1], private, k=2).value < score.chance
    swapped = _score(copies.flip(2), [0, 1], private)
    assert (swapped.value, swapped.chance) == (pytest.approx(score.chance), 0)


def test_images_with_nothing_in_common_are_at_the_root_of_two():
    flat, edges = torch.full((1, 1, 1, 1, 16, 16), 9, dtype=torch.uint8), _pixels(4)
    score = _score(flat, [0], Images(edges, torch.zeros(4, dtype=torch.int64)))
    assert score.value == pytest.approx(math.sqrt(2))
    assert _score(flat, [0], Images(flat[0, 0], torch.zeros(1, dtype=torch.int64))).value == 0


def test_one_label_has_neither_chance_nor_interval():
    score = _score(_pixels(1, 3, 1), [1], Images(_pixels(4, seed=2), torch.ones(4, dtype=torch.int64)))
    assert (score.chance, score.interval) == (None, None)
    assert "no interval over labels" in score.notes[-1]


def test_labels_without_private_images_are_left_out_and_counted():
    private = Images(_pixels(6, seed=2), torch.tensor([0, 0, 0, 3, 3, 3]))
    score = _score(_pixels(1, 2, 3), [0, 1, 3], private)
    assert score.per_class[1] is None
    assert score.value == pytest.approx((score.per_class[0] + score.per_class[2]) / 2)
    assert "1 of 3 labels have no private image and are left out" in score.notes
    nobody = _score(_pixels(1, 2, 2), [1, 2], private)
    assert (nobody.value, nobody.reason) == (None, "no attacked label has a private image with an embedding")


def test_undefined():
    private = Images(_pixels(4), torch.arange(4) % 2)
    assert _score(_pixels(1, 0, 2), [0, 1], private).reason == "there are no reconstructions"
    broken = SimpleNamespace(embeddings=lambda name, pixels: torch.full((len(pixels), 3), float("nan")))
    assert "embeddings that are not finite" in _score(_pixels(1, 2, 2), [0, 1], private, judges=broken).reason


def test_chunks_do_not_matter(monkeypatch):
    private = Images(_pixels(9, seed=3), torch.arange(9) % 3)
    whole = _score(_pixels(2, 5, 3), [0, 1, 2], private, k=2)
    monkeypatch.setattr(knn_distance, "_CHUNK", 3)
    assert _score(_pixels(2, 5, 3), [0, 1, 2], private, k=2) == whole


def test_inputs_are_unchanged_and_notes_name_the_features():
    pixels, private = _pixels(1, 2, 2), Images(_pixels(5), torch.tensor([0, 0, 0, 1, 1]))
    before = pixels.clone(), private.pixels.clone()
    score = _score(pixels, [0, 1], private, k=2)
    assert torch.equal(pixels, before[0])
    assert torch.equal(private.pixels, before[1])
    assert score.notes[:2] == (
        "features are those of hog, of unit length",
        "each reconstruction is compared with the nearest 2 of 2.5 private images on average",
    )


def test_unavailable_protocols_have_a_reason(monkeypatch):
    assert KNNDistance().unavailable(_protocol()) is None
    assert KNNDistance().unavailable(_protocol((3, 64, 64))) is None
    assert "made-up/v1 has attributes" in KNNDistance().unavailable(_protocol(task="attributes"))
    assert "hog to be at least 16 x 16, got 15 x 16" in KNNDistance().unavailable(_protocol((1, 15, 16)))

    monkeypatch.setenv("PRIVBENCH_WEIGHTS", "/somebody's/folder")
    reason = KNNDistance(embedder="mobilefacenet").unavailable(_protocol((3, 64, 64), face_box=(35, 55, 108, 108)))
    assert reason.startswith("the file of the weights mobilefacenet is missing; run `privbench weights import mobile")
    assert "folder" not in reason
    monkeypatch.setattr(named, "reason", lambda name: None)
    monkeypatch.setattr(MobileFaceNet, "files", dict)
    assert "face_box" in KNNDistance(embedder="mobilefacenet").unavailable(_protocol((3, 64, 64)))


def test_settings_have_ranges():
    for wrong in ({"k": 0}, {"resamples": 2000}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            KNNDistance(**wrong)
