"""Dependence measures against slow loops written from their formulas, and closed forms."""

import math

import pytest
import torch
from privbench.benchmark import registry
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.resolve import resolve
from privbench.defenses import _hsic_coco
from privbench.defenses.bido_coco import BiDOCOCO
from privbench.defenses.bido_hsic import BiDOHSIC
from torch import Tensor

MEASURES = {
    "normalized": _hsic_coco.HSIC_NORMALIZED,
    "biased": _hsic_coco.HSIC_BIASED,
    "frobenius": _hsic_coco.COCO_FROBENIUS,
    "spectral": _hsic_coco.COCO_SPECTRAL,
}


def gaussian_kernel(z: Tensor, sigma: float = 5.0) -> Tensor:
    return 1 + _hsic_coco.gaussian_kernel_minus_one(z, sigma)


def slow_gaussian(z: Tensor, sigma: float = 5.0) -> list[list[float]]:
    rows = z.flatten(1).tolist()
    bandwidth = sigma * math.sqrt(len(rows[0]))
    return [
        [math.exp(-sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / (2 * bandwidth**2)) for b in rows]
        for a in rows
    ]


def slow_labels(y: Tensor, classes: int) -> list[list[float]]:
    codes = [[float(label == k) for k in range(classes)] for label in y.tolist()]
    return [[sum(p * q for p, q in zip(a, b, strict=True)) for b in codes] for a in codes]


def slow_attributes(y: Tensor) -> list[list[float]]:
    return [[float(sum(p and q for p, q in zip(a, b, strict=True))) for b in y.tolist()] for a in y.tolist()]


def multiply(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
    m = range(len(a))
    return [[sum(a[i][k] * b[k][j] for k in m) for j in m] for i in m]


def centring(m: int) -> list[list[float]]:
    return [[float(i == j) - 1 / m for j in range(m)] for i in range(m)]


def inverse(a: list[list[float]]) -> list[list[float]]:
    """Gauss-Jordan with partial pivoting."""
    m = len(a)
    rows = [[*row, *(float(i == j) for j in range(m))] for i, row in enumerate(a)]
    for i in range(m):
        pivot = max(range(i, m), key=lambda r: abs(rows[r][i]))
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for r in range(m):
            if r != i:
                factor = rows[r][i]
                rows[r] = [value - factor * other for value, other in zip(rows[r], rows[i], strict=True)]
    return [row[m:] for row in rows]


def slow_normalized(k: list[list[float]], l: list[list[float]]) -> float:  # noqa: E741
    """trace(R_K R_L) with the released one-sided centring K~ = K H and R = K~ (K~ + eps m I)^-1, eps = 1e-5."""
    m, ratios = len(k), []
    for kernel in (k, l):
        centred = multiply(kernel, centring(m))
        ridged = [[centred[i][j] + (1e-5 * m if i == j else 0.0) for j in range(m)] for i in range(m)]
        ratios.append(multiply(centred, inverse(ridged)))
    product = multiply(*ratios)
    return sum(product[i][i] for i in range(m))


def slow_biased(k: list[list[float]], l: list[list[float]]) -> float:  # noqa: E741
    m = len(k)
    product = multiply(multiply(multiply(k, centring(m)), l), centring(m))
    return sum(product[i][i] for i in range(m)) / (m - 1) ** 2


def slow_product(k: list[list[float]], l: list[list[float]]) -> list[list[float]]:  # noqa: E741
    h = centring(len(k))
    return multiply(multiply(multiply(h, k), h), multiply(multiply(h, l), h))


def slow_frobenius(k: list[list[float]], l: list[list[float]]) -> float:  # noqa: E741
    product = slow_product(k, l)
    return math.sqrt(math.sqrt(sum(value**2 for row in product for value in row))) / len(k)


def slow_spectral(k: list[list[float]], l: list[list[float]]) -> float:  # noqa: E741
    """The largest singular value by power iteration on P'P."""
    product = slow_product(k, l)
    squared = multiply([list(column) for column in zip(*product, strict=True)], product)
    vector = [1.0 + 0.1 * i * (-1) ** i for i in range(len(k))]
    norm = 0.0
    for _ in range(4000):
        image = [sum(a * v for a, v in zip(row, vector, strict=True)) for row in squared]
        norm = math.sqrt(sum(value**2 for value in image))
        vector = [value / norm for value in image]
    return math.sqrt(math.sqrt(norm)) / len(k)


SLOW = {"normalized": slow_normalized, "biased": slow_biased, "frobenius": slow_frobenius, "spectral": slow_spectral}


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(10, 1, 4, 4, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1, 2, 3, 3, 0, 1])
    hidden = torch.randn(10, 3, 2, 2, generator=generator, dtype=torch.float64).relu() * 4
    feature = torch.randn(10, 5, generator=generator, dtype=torch.float64) * 8 + y[:, None]
    return x.to(dtype), y, [hidden.to(dtype), feature.to(dtype)]


@pytest.mark.parametrize("name", MEASURES)
def test_measures_equal_a_slow_loop(name: str) -> None:
    x, y, latents = batch()
    expected = 0.0
    for z in latents:
        k, l = slow_gaussian(z), slow_labels(y, 4)  # noqa: E741
        expected += 0.7 * SLOW[name](slow_gaussian(x), k) - 1.3 * SLOW[name](k, l)
        single = MEASURES[name](gaussian_kernel(z), _hsic_coco.label_kernel(y))
        assert float(single) == pytest.approx(SLOW[name](k, l), rel=1e-8, abs=1e-12)
    total = _hsic_coco.regulariser(MEASURES[name], x, y, latents, lambda_x=0.7, lambda_y=1.3)
    assert total.dtype == torch.float64
    assert float(total) == pytest.approx(expected, rel=1e-8)


def attributes() -> Tensor:
    """Ten images: one attribute that all have, one that none has, and seven that differ; two rows are equal."""
    drawn = torch.rand(10, 7, generator=torch.Generator().manual_seed(4)) < 0.4
    drawn[3] = drawn[8]
    return torch.cat((torch.ones(10, 1, dtype=torch.bool), torch.zeros(10, 1, dtype=torch.bool), drawn), 1)


@pytest.mark.parametrize("name", MEASURES)
def test_measures_of_attributes_equal_a_slow_loop(name: str) -> None:
    x, _, latents = batch()
    y, expected = attributes(), 0.0
    assert _hsic_coco.label_kernel(y).tolist() == slow_attributes(y)
    for z in latents:
        k, l = slow_gaussian(z), slow_attributes(y)  # noqa: E741
        expected += 0.7 * SLOW[name](slow_gaussian(x), k) - 1.3 * SLOW[name](k, l)
    total = _hsic_coco.regulariser(MEASURES[name], x, y, latents, lambda_x=0.7, lambda_y=1.3)
    assert float(total) == pytest.approx(expected, rel=1e-8)


def test_one_attribute_per_class_is_a_class() -> None:
    _, y, _ = batch()
    one_hot = torch.nn.functional.one_hot(y).bool()
    assert torch.equal(_hsic_coco.label_kernel(one_hot), _hsic_coco.label_kernel(y))
    assert _hsic_coco.label_kernel(one_hot).dtype == torch.float64


@pytest.mark.parametrize("name", MEASURES)
def test_which_value_of_an_attribute_is_called_1_does_not_matter(name: str) -> None:
    x, _, latents = batch()
    y = attributes()
    renamed = y ^ torch.tensor([True, True, False, True, False, True, False, False, True])
    values = [
        _hsic_coco.regulariser(MEASURES[name], x, labels, latents, lambda_x=0.0, lambda_y=1.0)
        for labels in (y, renamed)
    ]
    assert float(values[0]) < 0
    assert float(values[1]) == pytest.approx(float(values[0]), rel=1e-8)


@pytest.mark.parametrize("name", MEASURES)
def test_attributes_that_all_images_share_have_no_dependence(name: str) -> None:
    x, _, latents = batch()
    z = latents[0].clone().requires_grad_()
    shared = attributes()[:, :2]
    value = _hsic_coco.regulariser(MEASURES[name], x, shared, [z], lambda_x=0.0, lambda_y=1.0)
    value.backward()
    assert float(value.detach()) == pytest.approx(0, abs=1e-9)
    assert z.grad is not None and float(z.grad.abs().max()) < 1e-9


def test_normalized_hsic_is_at_most_the_number_of_attributes() -> None:
    # A latent that separates all images: R of Z is near the identity off the mean, R of Y of rank A.
    y = torch.tensor([[i >> bit & 1 for bit in range(3)] for i in range(8)]).bool().repeat(4, 1)
    z = separated(torch.arange(32))
    value = float(_hsic_coco.HSIC_NORMALIZED(gaussian_kernel(z), _hsic_coco.label_kernel(y)))
    # Each attribute has eigenvalue m / 4 = 8 of Y's centred kernel; Z's are all 1. eps m = 32e-5.
    assert value == pytest.approx(3 * (8 / (8 + 32e-5)) * (1 / (1 + 32e-5)), rel=1e-6)


def test_gaussian_kernel_has_bandwidth_sigma_root_d() -> None:
    # d = 4, distance 10, sigma 5: exp(-100 / (2 * 25 * 4)) = exp(-1/2).
    z = torch.tensor([[0.0, 0.0, 0.0, 0.0], [5.0, 5.0, 5.0, 5.0]], dtype=torch.float64)
    kernel = gaussian_kernel(z, 5.0)
    assert torch.allclose(kernel, torch.tensor([[1, math.exp(-0.5)], [math.exp(-0.5), 1]], dtype=torch.float64))
    assert float(gaussian_kernel(z, 2.5)[0, 1]) == pytest.approx(math.exp(-2))


def test_one_sided_centring_gives_the_symmetric_value_and_gradient() -> None:
    x, y, latents = batch()

    def one_sided(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
        m = len(k)
        h = torch.eye(m, dtype=k.dtype) - 1 / m
        ratios = [c @ torch.linalg.inv(c + 1e-5 * m * torch.eye(m, dtype=k.dtype)) for c in (k @ h, l @ h)]
        return torch.trace(ratios[0] @ ratios[1])

    for other in (gaussian_kernel(x), _hsic_coco.label_kernel(y)):
        results = []
        for measure in (one_sided, _hsic_coco.HSIC_NORMALIZED):
            z = (0.1 * latents[0]).requires_grad_()
            value = measure(other, gaussian_kernel(z))
            results.append((value.detach(), *torch.autograd.grad(value, z)))
        assert torch.allclose(results[0][0], results[1][0], rtol=1e-8, atol=0)
        assert float((results[0][1] - results[1][1]).norm() / results[0][1].norm()) < 1e-8


def separated(y: Tensor) -> Tensor:
    """One point for each class, far from the others."""
    return 1000.0 * torch.nn.functional.one_hot(y).double()


@pytest.mark.parametrize(("classes", "images"), [(16, 4), (5, 12)])
def test_normalized_hsic_counts_the_classes(classes: int, images: int) -> None:
    # R of K~ with eigenvalue n (images per class) is n / (n + eps m), on classes - 1 directions, for Z and for Y.
    y = torch.arange(classes).repeat_interleave(images)
    value = _hsic_coco.HSIC_NORMALIZED(gaussian_kernel(separated(y)), _hsic_coco.label_kernel(y))
    assert float(value) == pytest.approx((classes - 1) * (images / (images + 1e-5 * len(y))) ** 2, rel=1e-8)
    assert float(value) == pytest.approx(classes - 1, abs=0.01)


def test_coco_of_labels_with_themselves() -> None:
    # 16 identities x 4 images: K~ has eigenvalue 4, 15 times, and m = 64.
    # Frobenius: sqrt(16 sqrt(15)) / 64; spectral: sqrt(16) / 64.
    kernel = _hsic_coco.label_kernel(torch.arange(16).repeat_interleave(4))
    frobenius = float(_hsic_coco.COCO_FROBENIUS(kernel, kernel))
    assert frobenius == pytest.approx(math.sqrt(16 * math.sqrt(15)) / 64, rel=1e-8)
    assert frobenius == pytest.approx(0.123, abs=5e-4)
    assert float(_hsic_coco.COCO_SPECTRAL(kernel, kernel)) == pytest.approx(0.0625, rel=1e-8)


@pytest.mark.parametrize("name", MEASURES)
def test_gradients(name: str) -> None:
    x, y, latents = batch()
    x, y, latents = x[:6], y[:6], [z[:6] for z in latents]

    def total(*latents: Tensor) -> Tensor:
        return _hsic_coco.regulariser(MEASURES[name], x, y, latents, lambda_x=0.7, lambda_y=1.3)

    inputs = tuple(z.clone().requires_grad_() for z in latents)
    assert torch.autograd.gradcheck(total, inputs, eps=1e-5, atol=1e-6, rtol=1e-4)
    for weights in ({"lambda_x": 1.0, "lambda_y": 0.0}, {"lambda_x": 0.0, "lambda_y": 1.0}):
        single = lambda z, w=weights: _hsic_coco.regulariser(MEASURES[name], x, y, [z], **w)  # noqa: E731
        assert torch.autograd.gradcheck(single, inputs[1:], eps=1e-5, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", MEASURES)
def test_single_precision_is_near_double(name: str) -> None:
    """The Gram matrices are float32; inputs as in training, where the kernels lie within [0.98, 1]."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(64, 3, 16, 16, generator=generator)
    y = torch.arange(64) % 16
    z = torch.randn(64, 32, 8, 8, generator=generator).relu() + 0.3 * x.flatten(1)[:, :1, None, None]
    results = []
    for dtype in (torch.float32, torch.float64):
        latent = z.to(dtype).requires_grad_()
        value = _hsic_coco.regulariser(MEASURES[name], x.to(dtype), y, [latent], lambda_x=0.1, lambda_y=1.0)
        assert value.dtype == dtype
        results.append((value.detach().double(), torch.autograd.grad(value, latent)[0].double()))
    (value, gradient), (exact, exact_gradient) = results
    assert float((value - exact).abs() / exact.abs()) < 1e-5
    assert float((gradient - exact_gradient).norm() / exact_gradient.norm()) < 1e-4


@pytest.mark.parametrize("name", MEASURES)
def test_a_disabled_term_is_not_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, latents = batch()
    seen: list[int] = []
    original = _hsic_coco.centre
    monkeypatch.setattr(_hsic_coco, "centre", lambda kernels: seen.append(len(kernels)) or original(kernels))
    whole = _hsic_coco.regulariser(MEASURES[name], x, y, latents, lambda_x=0.5, lambda_y=2.0)
    only_x = _hsic_coco.regulariser(MEASURES[name], x, y, latents, lambda_x=0.5, lambda_y=0.0)
    only_y = _hsic_coco.regulariser(MEASURES[name], x, y, latents, lambda_x=0.0, lambda_y=2.0)
    assert float(_hsic_coco.regulariser(MEASURES[name], x, y, latents, lambda_x=0.0, lambda_y=0.0)) == 0
    assert seen == [4, 3, 3]
    assert float(only_x) > 0 > float(only_y)
    assert torch.allclose(whole, only_x + only_y)


@pytest.mark.parametrize("name", MEASURES)
def test_a_constant_latent_has_a_finite_gradient(name: str) -> None:
    x, y, _ = batch(torch.float32)
    z = torch.full((10, 6), 0.3, requires_grad=True)
    _hsic_coco.regulariser(MEASURES[name], x, y, [z], lambda_x=1.0, lambda_y=1.0).backward()
    assert z.grad is not None and bool(z.grad.isfinite().all())


@pytest.mark.parametrize("name", ["bido_hsic", "bido_coco"])
def test_images_are_in_minus_1_to_1_for_vmi_and_in_0_to_1_elsewhere(name: str) -> None:
    x, y, _ = batch(torch.float32)

    class Latents(torch.nn.Module):
        layers = ("z", "logits")

        def trace(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
            z = images.flatten(1).tanh()
            return {"z": z}, z[:, :4]

    network = Latents()
    for preset, low, width in (("vmi", -1, 2), ("celeba_vmi", -1, 2), ("mnist", 0, 1), ("celeba-c", 0, 1)):
        defense = resolve("defense", Selection(name, preset), "full", {}).component
        latents, logits = network.trace(x)
        penalty = _hsic_coco.regulariser(
            defense.measure(),
            width * x + low,
            y,
            list(latents.values()),
            lambda_x=defense.lambda_x,
            lambda_y=defense.lambda_y,
        )
        expected = torch.nn.functional.cross_entropy(logits, y) + penalty
        assert defense.loss(network, x, y).item() == pytest.approx(expected.item(), rel=1e-5)
        assert defense.x_scale == width


@pytest.mark.parametrize("name", ["none", "mid", "bido_hsic", "bido_coco"])
def test_presets_resolve_and_leave_the_length_to_the_budget(name: str) -> None:
    for preset in registry.load("defense", name).presets:
        if "@" in preset:
            continue
        full, quick = (resolve("defense", Selection(name, preset), b, {}).component for b in ("full", "quick"))
        assert (full.recipe.max_steps, quick.recipe.max_steps) == (None, 150)
        assert full.recipe.model_copy(update={"max_steps": 150}) == quick.recipe


def test_a_batch_of_one_is_refused() -> None:
    with pytest.raises(InvalidConfigurationError, match=r"expected defense\.recipe to be .* batch_size of at least 2"):
        resolve("defense", Selection("bido_hsic"), "quick", {"defense.recipe.batch_size": 1})


def test_estimator_and_norm_choose_the_measure() -> None:
    assert BiDOHSIC().measure() is _hsic_coco.HSIC_NORMALIZED
    assert BiDOHSIC(estimator="biased").measure() is _hsic_coco.HSIC_BIASED
    assert BiDOCOCO().measure() is _hsic_coco.COCO_FROBENIUS
    assert BiDOCOCO(norm="spectral").measure() is _hsic_coco.COCO_SPECTRAL
