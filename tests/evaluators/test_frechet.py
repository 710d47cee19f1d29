"""The Frechet distance against pytorch-fid, closed forms and 50-digit arithmetic; its network against pytorch-fid's."""

import io
import warnings

import numpy as np
import pytest
import torch
from privbench.benchmark.errors import MissingDataError
from privbench.benchmark.networks.weights.published import Published
from privbench.evaluators import _inception
from privbench.evaluators._frechet import Moments, frechet_distance
from privbench.evaluators.fid_bido import stretch


def _sample(n, d, seed, scale=1.0, shift=0.0):
    generator = np.random.default_rng(seed)
    return generator.normal(size=(n, d)) @ generator.normal(size=(d, d)) * scale / np.sqrt(d) + shift


def _distance(x, y):
    distance = frechet_distance(Moments.of(x), Moments.of(y))
    assert distance.reason is None
    return distance.value


def _pytorch_fid(x, y):
    from pytorch_fid.fid_score import calculate_frechet_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return calculate_frechet_distance(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))


@pytest.mark.parametrize("d", [2, 16, 64, 128])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (3.0, 0.5), (0.01, 0.0)])
def test_equals_pytorch_fid(d, scale, shift):
    x, y = _sample(4 * d + 10, d, 0), _sample(3 * d + 10, d, 1, scale, shift)
    assert _distance(x, y) == pytest.approx(_pytorch_fid(x, y), rel=1e-6)


def test_equals_pytorch_fid_where_only_one_set_has_full_rank():
    x, y = _sample(200, 48, 0), _sample(20, 48, 1)
    assert _distance(x, y) == pytest.approx(_pytorch_fid(x, y), rel=1e-6)


@pytest.mark.parametrize(("n", "m", "d"), [(2, 2, 5), (3, 4, 6), (4, 4, 4), (3, 9, 7)])
def test_rank_deficient_equals_fifty_digits(n, m, d):
    """`Tr (S1 S2)^(1/2)` as the sum of square roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), in mpmath."""
    mpmath = pytest.importorskip("mpmath")
    x, y = _sample(n, d, 0), _sample(m, d, 1)
    with mpmath.workdps(50):

        def fit(rows):
            matrix = mpmath.matrix(rows.tolist())
            mean = [mpmath.fsum(matrix[i, j] for i in range(len(rows))) / len(rows) for j in range(d)]
            centred = mpmath.matrix(len(rows), d)
            for i in range(len(rows)):
                for j in range(d):
                    centred[i, j] = matrix[i, j] - mean[j]
            return mpmath.matrix(mean), centred.T * centred / (len(rows) - 1)

        (m1, s1), (m2, s2) = fit(x), fit(y)
        values, vectors = mpmath.eigsy(s1)
        root = vectors * mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values]) * vectors.T
        eigenvalues = mpmath.eigsy(root * s2 * root, eigvals_only=True)
        trace = mpmath.fsum(mpmath.sqrt(v) for v in eigenvalues if v > 0)
        total = sum(s1[i, i] + s2[i, i] for i in range(d)) - 2 * trace + mpmath.fsum((m1 - m2).apply(lambda v: v * v))
        expected = float(total)
    assert _distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_rank_one_has_a_closed_form():
    # two points each: S = u u^T / 2 with u their difference, Tr (S1 S2)^(1/2) = |u . v| / 2
    x, y = np.array([[0.0, 0, 0], [2, 0, 0]]), np.array([[1.0, 1, 0], [1, 1, 4]])
    # means (1,0,0), (1,1,2): 5; traces 2 + 8; u . v = 0
    assert _distance(x, y) == pytest.approx(15, rel=1e-14)
    # v = (4,0,0) instead: means (1,0,0), (3,1,0): 5; traces 2 + 8; |u . v| / 2 = 4
    assert _distance(x, np.array([[1.0, 1, 0], [5, 1, 0]])) == pytest.approx(5 + 10 - 8, rel=1e-14)


def test_diagonal_has_a_closed_form():
    # rows +-a_j e_j: covariance diag(2 a_j^2 / (2 d - 1)); the distance is sum_j (sqrt s_j - sqrt t_j)^2
    a, b = np.array([1.0, 2.0, 1e-6, 5.0]), np.array([3.0, 2.0, 1e3, 0.0])
    x, y = (np.concatenate([np.diag(v), -np.diag(v)]) for v in (a, b))
    assert _distance(x, y) == pytest.approx(2 / 7 * np.square(a - b).sum(), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(100, 10), (10, 100), (2, 3), (500, 512)])
def test_identical_sets_are_at_zero(n, d):
    x = _sample(n, d, 0)
    assert 0 <= _distance(x, x.copy()) <= 1e-12 * np.square(x - x.mean(0)).sum()


def test_is_symmetric():
    x, y = _sample(30, 50, 0), _sample(80, 50, 1, 2.0, 1.0)
    assert _distance(x, y) == pytest.approx(_distance(y, x), rel=1e-13)


def test_one_feature_has_a_closed_form():
    x, y = _sample(11, 1, 0), _sample(30, 1, 1, 2.0, 1.0)
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert _distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_shift_adds_its_square():
    x = _sample(40, 8, 0)
    assert _distance(x, x + 3.0) == pytest.approx(8 * 9, rel=1e-12)


@pytest.mark.parametrize("pieces", [1, 7, 100])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_streamed_moments_equal_numpy(pieces, offset):
    x = _sample(200, 6, 0) + offset
    parts = np.array_split(x, pieces)
    streamed = Moments.of(parts[0])
    for part in parts[1:]:
        streamed = streamed.update(part)
    assert streamed.n == 200
    assert streamed.mean == pytest.approx(x.mean(0), rel=1e-14)
    assert streamed.covariance() == pytest.approx(np.cov(x, rowvar=False), rel=1e-9, abs=1e-9)
    assert len(streamed.factor) <= 12


def test_merge_equals_one_pass_and_an_empty_update_has_no_effect():
    x, y = _sample(9, 4, 0), _sample(50, 4, 1, shift=2.0)
    both, whole = Moments.of(x).merge(Moments.of(y)), Moments.of(np.concatenate([x, y]))
    assert both.covariance() == pytest.approx(whole.covariance(), rel=1e-12)
    assert both.update(x[:0]) is both


@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1), (1, 1)])
def test_one_image_is_undefined(n, m):
    value, reason = frechet_distance(Moments.of(_sample(n, 3, 0)), Moments.of(_sample(m, 3, 1)))
    assert value is None
    assert f"got {n} private and {m} reconstructed" in reason


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features_that_are_not_finite_are_undefined(bad):
    x, y = _sample(9, 3, 0), _sample(9, 3, 1)
    y[4, 1] = bad
    with np.errstate(invalid="ignore"):
        value, reason = frechet_distance(Moments.of(x), Moments.of(y))
    assert (value, reason) == (None, "some features are not finite")


def test_features_that_overflow_are_undefined():
    value, reason = frechet_distance(Moments.of(_sample(9, 3, 0) * 1e200), Moments.of(_sample(9, 3, 1) * 1e200))
    assert value is None
    assert "too large" in reason


def test_a_failed_decomposition_is_undefined(monkeypatch):
    def fail(*args, **options):
        raise np.linalg.LinAlgError("SVD did not converge")

    moments = Moments.of(_sample(9, 3, 0))
    monkeypatch.setattr(np.linalg, "svd", fail)
    value, reason = frechet_distance(moments, moments)
    assert value is None
    assert "did not converge" in reason


@pytest.mark.parametrize(("n", "m", "known"), [(50, 50, 45), (200, 200, 11.6), (1000, 1000, 2.2), (1000, 5000, 1.3)])
def test_bias_at_small_n_agrees_with_the_docstring(n, m, known):
    generator = np.random.default_rng(n)
    values = [_distance(generator.normal(size=(n, 64)), generator.normal(size=(m, 64))) for _ in range(6)]
    assert np.mean(values) == pytest.approx(known, rel=0.05)


def test_stretch_equals_torchvision_on_disk():
    from PIL import Image
    from torchvision.utils import save_image

    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(40, 190, (6, 3, 8, 8), generator=generator, dtype=torch.uint8)
    pixels[1] = 77  # a constant image
    pixels[2, :, 0, 0] = torch.tensor([0, 255, 9], dtype=torch.uint8)
    pixels[3] = 100 + (pixels[3] > 100).to(torch.uint8)  # two neighbouring values
    found = stretch(pixels.float().div(255)).mul(255).round().to(torch.uint8)
    for index, image in enumerate(pixels):
        file = io.BytesIO()
        save_image(image.float().div(255), file, format="png", normalize=True)
        expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        assert torch.equal(found[index], expected), index


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of the right shape: the published ones are 91 MiB and may be absent."""
    torch.manual_seed(0)
    network = _inception.build()
    for name, value in network.state_dict().items():
        if name.endswith("conv.weight"):
            torch.nn.init.kaiming_normal_(value)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1)
    path = tmp_path_factory.mktemp("hub") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


def test_inception_equals_pytorch_fid(weights, monkeypatch):
    from pytorch_fid import inception

    monkeypatch.setattr(_inception.named, "read", lambda name: torch.load(weights, weights_only=True))
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *a, **k: torch.load(weights, weights_only=True))
    reference = inception.InceptionV3([3]).eval()
    pixels = torch.randint(0, 256, (1, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    with torch.inference_mode():
        expected = reference(pixels.float().div(255))[0].flatten(1).double().numpy()
    found = _inception.features(_inception.load(), pixels)
    assert found.shape == (1, 2048)
    assert expected.std() > 0.01
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_inception_repeats_one_channel_and_keeps_the_order_of_the_images():
    grey = torch.randint(0, 256, (35, 1, 4, 4), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)

    def corner(x):
        assert x.shape[1:] == (3, 299, 299)
        return x[:, :, 0, 0]

    expected = (grey[:, 0, 0, 0].double() / 127.5 - 1).numpy()
    found = _inception.features(corner, grey)
    assert found == pytest.approx(np.repeat(expected[:, None], 3, 1), abs=1e-6)


def test_inception_refuses_another_file(weights, monkeypatch):
    monkeypatch.setattr(Published, "find", lambda source: weights)
    with pytest.raises(MissingDataError, match=r"SHA-256 that starts with \w{8}, not 6726825d; run `privbench weights"):
        _inception.load()
