"""SSIM, PSNR and MSE against scikit-image, torchmetrics and slow loops; properties of the shared pairing."""

import math
import statistics as stdlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import Evidence, Images, PairedReconstructions
from privbench.benchmark.core.statistics import clustered, student
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.evaluators import _pairs
from privbench.evaluators._pairs import unrelated
from privbench.evaluators.mse import MSE
from privbench.evaluators.psnr import PSNR
from privbench.evaluators.ssim import SSIM, structural_similarity
from skimage import metrics
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

EVALUATORS = {"ssim": SSIM(), "psnr": PSNR(), "mse": MSE()}


def _protocol(image=(3, 14, 12), task="classes", face_box=None):
    return Protocol(
        name="made-up",
        version=1,
        task=task,
        image=image,
        classes=4,
        judge_classes=4,
        target_network="none",
        judge_network="none",
        face_box=face_box,
        attacked=2,
        draws=1,
    )


def _pixels(n, shape=(3, 14, 12), seed=0):
    return torch.randint(0, 256, (n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def _near(pixels, noise=40, seed=9):
    change = torch.randint(-noise, noise + 1, pixels.shape, generator=torch.Generator().manual_seed(seed))
    return (pixels.int() + change).clamp(0, 255).to(torch.uint8)


def _scores(rebuilt, test, items=None, protocol=None):
    """All three scores; `test` holds the private test images, of which `items` were rebuilt (all by default)."""
    items = torch.arange(len(test)) if items is None else torch.tensor(items, dtype=torch.int64)
    evidence = Evidence(
        protocol or _protocol(tuple(test.pixels.shape[1:])),
        {"PairedReconstructions": PairedReconstructions(rebuilt, items)},
        {"private_test": test}.__getitem__,
    )
    return {name: evaluator.score(evidence, None)[name] for name, evaluator in EVALUATORS.items()}


def _library(name, x, y):
    """scikit-image's value of one pair of `uint8 C H W`, on values in [0, 1]."""
    x, y = x.numpy() / 255, y.numpy() / 255
    if name == "ssim":
        return metrics.structural_similarity(
            x, y, channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    if name == "psnr":
        return metrics.peak_signal_noise_ratio(x, y, data_range=1)
    return metrics.mean_squared_error(x, y)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 14, 12), (3, 11, 30), (1, 11, 11)])
@pytest.mark.parametrize("name", EVALUATORS)
def test_each_equals_scikit_image(name, shape):
    original = _pixels(7, shape)
    rebuilt = _near(original)
    expected = [_library(name, x, y) for x, y in zip(rebuilt, original, strict=True)]
    found = _scores(rebuilt, Images(original))[name]
    assert found.value == pytest.approx(np.mean(expected), rel=1e-12)
    assert found.interval == pytest.approx(student(expected), rel=1e-9)
    assert found.spreads == {"images": pytest.approx(stdlib.stdev(expected), rel=1e-9)}
    assert (found.n, found.per_class, found.intervals) == (7, None, {})


def test_psnr_equals_torchmetrics_to_single_precision():
    original = _pixels(5)
    rebuilt = _near(original)
    x, y = rebuilt.double() / 255, original.double() / 255
    expected = peak_signal_noise_ratio(x, y, data_range=1.0, reduction="elementwise_mean", dim=(1, 2, 3))
    assert _scores(rebuilt, Images(original))["psnr"].value == pytest.approx(float(expected), rel=1e-6)


def test_ssim_is_torchmetrics_map_inside_the_border():
    original = _pixels(5)
    x, y = _near(original).double() / 255, original.double() / 255
    _, full = structural_similarity_index_measure(
        x, y, gaussian_kernel=True, sigma=1.5, data_range=1.0, reduction="none", return_full_image=True
    )
    expected = full[..., 5:-5, 5:-5].mean((1, 2, 3))
    assert structural_similarity(x, y) == pytest.approx(expected.numpy(), rel=1e-10)


def test_worked_example():
    # one value of 4 differs by 51 levels, 0.2: MSE 0.04 / 4 = 0.01, PSNR 20 dB
    original = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    rebuilt = original.clone()
    rebuilt[:, 0, 0, 1] = 51
    protocol = _protocol((1, 2, 2))
    evidence = Evidence(
        protocol,
        {"PairedReconstructions": PairedReconstructions(rebuilt, torch.arange(2))},
        lambda part: Images(original),
    )
    assert MSE().score(evidence, None)["mse"].value == pytest.approx(0.01)
    found = PSNR().score(evidence, None)["psnr"]
    assert found.value == pytest.approx(20)
    assert found.interval is None
    assert found.notes == ("the PSNR of the mean squared error is 20.000 dB",)


def test_the_range_is_that_of_the_format():
    # two flat images: SSIM = (2 m_x m_y + c1) / (m_x^2 + m_y^2 + c1) with c1 = 0.0001
    x = torch.full((1, 1, 12, 12), 0.25, dtype=torch.float64)
    expected = (2 * 0.25 * 0.5 + 1e-4) / (0.25**2 + 0.5**2 + 1e-4)
    assert structural_similarity(x, 2 * x)[0] == pytest.approx(expected)


def test_identical_images():
    found = _scores(_pixels(6), Images(_pixels(6)))
    assert (found["ssim"].value, found["mse"].value) == (pytest.approx(1, abs=1e-12), 0)
    assert found["mse"].interval is None
    assert (found["psnr"].value, found["psnr"].n) == (None, 6)
    assert found["psnr"].reason == "all 6 reconstructions are identical to their originals, so the PSNR is infinite"


def test_some_identical_images_are_counted_and_never_lower_the_psnr():
    original = _pixels(6, (1, 11, 11))
    rebuilt = _near(original)
    before = _scores(rebuilt, Images(original))["psnr"]
    rebuilt[2] = original[2]
    rebuilt[2, 0, 0, 0] = int(original[2, 0, 0, 0]) ^ 1
    nearly = _scores(rebuilt, Images(original))["psnr"]
    rebuilt[2] = original[2]
    found = _scores(rebuilt, Images(original))["psnr"]
    assert before.value < nearly.value == pytest.approx(found.value)
    # one of 121 values one level off: 10 log10(255^2 * 121) = 68.96 dB
    assert found.notes[1] == "1 of 6 reconstructions are identical to their originals and count as 69.0 dB each"


def test_items_name_the_originals():
    test, items = _pixels(20), [11, 3, 3, 19]
    rebuilt = _near(test[items])
    expected = [_library("ssim", x, y) for x, y in zip(rebuilt, test[items], strict=True)]
    assert _scores(rebuilt, Images(test), items)["ssim"].value == pytest.approx(np.mean(expected))


def test_chance_is_the_score_with_images_of_other_classes():
    original, labels = _pixels(12), torch.tensor([0, 0, 1, 1, 1, 3] * 2)
    found = _scores(_near(original), Images(original, labels))
    partner = unrelated(labels.numpy())
    assert (labels[partner] != labels).all()
    for name, score in found.items():
        expected = [_library(name, x, y) for x, y in zip(_near(original), original[partner], strict=True)]
        assert score.chance == pytest.approx(np.mean(expected))
    assert found["ssim"].chance < found["ssim"].value
    assert found["psnr"].chance < found["psnr"].value
    assert found["mse"].chance > found["mse"].value


def test_classes_have_values_intervals_and_spreads():
    original, labels = _pixels(10), torch.tensor([0, 0, 1, 1, 1, 3, 3, 0, 1, 3])
    rebuilt = _near(original)
    each = np.array([_library("mse", x, y) for x, y in zip(rebuilt, original, strict=True)])
    found = _scores(rebuilt, Images(original, labels))["mse"]
    means = [each[labels == label].mean() for label in (0, 1, 3)]
    assert found.per_class == (pytest.approx(means[0]), pytest.approx(means[1]), None, pytest.approx(means[2]))
    assert found.interval == pytest.approx(student(each))
    assert found.intervals == {"classes": pytest.approx(clustered(each, labels), rel=1e-9)}
    assert found.spreads["classes"] == pytest.approx(stdlib.stdev(means))


def test_people_are_the_units_where_they_are_known():
    original, who = _pixels(10), torch.tensor([5, 5, 8, 8, 2, 2, 2, 8, 5, 5])
    rebuilt = _near(original)
    each = np.array([_library("mse", x, y) for x, y in zip(rebuilt, original, strict=True)])
    attributes = _scores(rebuilt, Images(original, identities=who), protocol=_protocol(task="attributes"))["mse"]
    assert attributes.interval == pytest.approx(clustered(each, who), rel=1e-9)
    assert attributes.notes == ("the interval is over the 3 people in the images",)
    assert (attributes.per_class, attributes.intervals) == (None, {})
    faces = _protocol(face_box=(0, 0, 9, 9))
    labelled = _scores(rebuilt, Images(original, who % 4), protocol=faces)["mse"]
    assert labelled.interval == labelled.intervals["classes"] == pytest.approx(clustered(each, who % 4), rel=1e-9)


def test_an_undefined_image_counts_for_no_person_and_no_class():
    nan = math.nan
    values = np.array([nan, 0.1, 0.2, 0.4, nan, 0.8, 0.9, 0.3])
    labels, who = torch.tensor([0, 0, 1, 1, 2, 2, 3, 0]), torch.tensor([5, 6, 6, 5, 7, 7, 5, 6])
    defined = ~np.isnan(values)
    x, images = values[defined], Images(_pixels(8), labels, who)
    # Faces have labels, and identities where the data knows them: those are the people.
    for protocol in (_protocol(), _protocol(face_box=(0, 0, 9, 9))):
        found = _pairs.score_images(values, images, protocol, (0, 1), None)
        assert (found.value, found.n, found.spreads["images"]) == (x.mean(), 6, pytest.approx(x.std(ddof=1)))
        assert found.interval == pytest.approx(clustered(x, who.numpy()[defined], (0, 1)))
        assert found.intervals["classes"] == pytest.approx(clustered(x, labels.numpy()[defined], (0, 1)))
        assert found.per_class == pytest.approx((0.2, 0.3, 0.8, 0.9))
        assert "2 of 8 images are undefined and left out" in found.notes
    lost = _pairs.score_images(
        np.array([0.1, nan, 0.2]), Images(_pixels(3), torch.tensor([0, 1, 2])), _protocol(), (0, 1), None
    )
    assert lost.per_class == (0.1, None, 0.2, None)


def test_one_person_gives_neither_interval_nor_chance():
    one = Images(_pixels(5), identities=torch.zeros(5, dtype=torch.int64))
    for score in _scores(_near(one.pixels), one).values():
        assert score.value is not None
        assert (score.interval, score.chance) == (None, None)


def test_one_image():
    for score in _scores(_near(_pixels(1)), Images(_pixels(1), torch.tensor([2]))).values():
        assert score.value is not None
        assert (score.interval, score.chance, score.n) == (None, None, 1)
        assert score.per_class[2] == score.value


def test_no_image_is_undefined():
    for score in _scores(_pixels(0), Images(_pixels(4)), []).values():
        assert (score.value, score.reason) == (None, "there are no reconstructions")


def test_reconstructions_of_another_shape_are_refused():
    with pytest.raises(InvalidConfigurationError, match="expected reconstructions to be 4 x 3 x 14 x 12 like the"):
        _scores(_pixels(4, (3, 12, 14)), Images(_pixels(4)))


def test_images_smaller_than_the_window_are_refused():
    reason = SSIM().unavailable(_protocol((1, 12, 10)))
    assert reason == "SSIM needs images of at least 11 x 11 pixels and made-up/v1 has 12 x 10"
    assert SSIM().unavailable(_protocol((1, 11, 11))) is None


def test_chunks_do_not_matter_and_the_evidence_is_unchanged(monkeypatch):
    original, rebuilt = _pixels(9), _near(_pixels(9))
    kept = original.clone(), rebuilt.clone()
    whole = _scores(rebuilt, Images(original))
    assert _scores(rebuilt, Images(original)) == whole
    monkeypatch.setattr(_pairs, "_CHUNK", 2)
    for name, score in _scores(rebuilt, Images(original)).items():
        assert score.value == pytest.approx(whole[name].value, rel=1e-14)
    assert torch.equal(original, kept[0])
    assert torch.equal(rebuilt, kept[1])


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 5), min_size=0, max_size=30))
def test_unrelated_is_of_another_group(groups):
    groups = np.array(groups, dtype=np.int64)
    found = unrelated(groups)
    if len(set(groups.tolist())) < 2:
        assert found is None
    else:
        assert (groups[found] != groups).all()
        assert np.array_equal(found, unrelated(groups))


def test_unrelated_takes_all_others_equally_often():
    groups = np.repeat([0, 1, 2], [3000, 1000, 2000])
    taken = groups[unrelated(groups)[:3000]]  # those of group 0 take 1 and 2 in the ratio 1 : 2
    assert (taken == 2).mean() == pytest.approx(2 / 3, abs=3 * math.sqrt(2 / 9 / 3000))
