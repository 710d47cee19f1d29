"""Properties of the kernels, the dependence measures and the regulariser, over drawn batches."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench.defenses import _hsic_coco
from torch import Tensor

HSIC = {"normalized": _hsic_coco.HSIC_NORMALIZED, "biased": _hsic_coco.HSIC_BIASED}
COCO = {"frobenius": _hsic_coco.COCO_FROBENIUS, "spectral": _hsic_coco.COCO_SPECTRAL}
MEASURES = {**HSIC, **COCO}
measures = pytest.mark.parametrize("name", MEASURES)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Images, labels and a latent of 2 to 24 samples, of scales from nearly constant to well separated."""
    m = draw(st.integers(2, 24))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.rand(m, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, draw(st.integers(1, 6)), (m,), generator=generator)
    scale = draw(st.sampled_from([1e-3, 0.1, 1.0, 30.0]))
    offset = draw(st.sampled_from([0.0, 2.0]))
    z = scale * torch.randn(m, draw(st.integers(1, 8)), generator=generator, dtype=torch.float64) + offset
    return x, y, z


def gaussian_kernel(z: Tensor, sigma: float = 5.0) -> Tensor:
    return 1 + _hsic_coco.gaussian_kernel_minus_one(z, sigma)


def kernels(batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    x, y, z = batch
    return gaussian_kernel(x), _hsic_coco.label_kernel(y), gaussian_kernel(z)


@measures
@settings(max_examples=25, deadline=None)
@given(batch=batches())
def test_not_negative_and_symmetric(name: str, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    k_x, k_y, k_z = kernels(batch)
    for a, b in ((k_x, k_z), (k_z, k_y)):
        value = float(MEASURES[name](a, b))
        assert value >= -1e-9
        assert float(MEASURES[name](b, a)) == pytest.approx(value, rel=1e-6, abs=1e-9)


@measures
@settings(max_examples=25, deadline=None)
@given(batch=batches(), seed=st.integers(0, 2**31))
def test_order_of_the_batch_does_not_matter(name: str, batch: tuple[Tensor, Tensor, Tensor], seed: int) -> None:
    x, y, z = batch
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    weights = {"lambda_x": 0.5, "lambda_y": 2.0}
    value = _hsic_coco.regulariser(MEASURES[name], x, y, [z], **weights)
    permuted = _hsic_coco.regulariser(MEASURES[name], x[order], y[order], [z[order]], **weights)
    assert float(permuted) == pytest.approx(float(value), rel=1e-6, abs=1e-8)


@measures
@settings(max_examples=25, deadline=None)
@given(batch=batches())
def test_constants_and_label_names_do_not_matter(name: str, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    _, y, z = batch
    k_z = gaussian_kernel(z)
    constant = _hsic_coco.label_kernel(torch.zeros_like(y))
    assert float(MEASURES[name](k_z, constant)) == pytest.approx(0, abs=1e-7)
    renamed = _hsic_coco.label_kernel(17 - 3 * y)
    assert torch.equal(renamed, _hsic_coco.label_kernel(y))


@settings(max_examples=25, deadline=None)
@given(batch=batches())
def test_bounds(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    """Normalized HSIC is at most the rank, which for Y is one less than the classes; spectral <= Frobenius."""
    y = batch[1]
    k_x, k_y, k_z = kernels(batch)
    assert float(HSIC["normalized"](k_x, k_z)) <= len(y) - 1
    assert float(HSIC["normalized"](k_z, k_y)) <= len(y.unique()) - 1 + 1e-9
    spectral, frobenius = (float(COCO[name](k_z, k_y)) for name in ("spectral", "frobenius"))
    assert spectral <= frobenius * (1 + 1e-9)
    assert frobenius <= spectral * len(y) ** 0.25 * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(batch=batches(), scale=st.floats(0.1, 10), shift=st.floats(-3, 3))
def test_kernel(batch: tuple[Tensor, Tensor, Tensor], scale: float, shift: float) -> None:
    _, _, z = batch
    kernel = gaussian_kernel(z)
    assert torch.equal(kernel.diagonal(), torch.ones(len(z), dtype=torch.float64))
    assert bool((kernel >= 0).all()) and bool((kernel <= 1).all())
    moved = gaussian_kernel(scale * (z + shift), sigma=5 * scale)
    assert torch.allclose(moved, kernel, rtol=0, atol=1e-9)
    repeated = gaussian_kernel(torch.cat([z, z], 1))
    assert torch.allclose(repeated, kernel, rtol=0, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(batch=batches())
def test_centred_kernels_sum_to_zero(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    centred = _hsic_coco.centre(torch.stack(kernels(batch)))
    assert torch.allclose(centred.sum(-1), torch.zeros(()).double(), atol=1e-10)
    assert torch.allclose(centred.sum(-2), torch.zeros(()).double(), atol=1e-10)
    assert float(torch.linalg.eigvalsh(centred).min()) > -1e-9


@measures
@settings(max_examples=10, deadline=None)
@given(batch=batches())
def test_layers_add_up_and_shapes_do_not_matter(name: str, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    x, y, z = batch
    weights = {"lambda_x": 0.5, "lambda_y": 2.0}
    first = float(_hsic_coco.regulariser(MEASURES[name], x, y, [z], **weights))
    second = float(_hsic_coco.regulariser(MEASURES[name], x, y, [z.tanh()], **weights))
    both = float(_hsic_coco.regulariser(MEASURES[name], x, y, [z.tanh()[:, :, None, None], z], **weights))
    assert both == pytest.approx(first + second, rel=1e-7, abs=1e-9)


@measures
def test_more_dependent_latents_score_higher(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(40) % 5
    signal = torch.nn.functional.one_hot(y).double()
    signal = (signal - signal.mean(0)) / signal.std()
    noise = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    mixed = [0.3 * (share**0.5 * signal + (1 - share) ** 0.5 * noise) for share in (0.0, 0.5, 0.9)]
    values = [float(MEASURES[name](gaussian_kernel(z), _hsic_coco.label_kernel(y))) for z in mixed]
    assert values == sorted(values)
    assert values[2] > 1.2 * values[0]


@measures
def test_autocast_does_not_change_the_regulariser(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, z = torch.rand(16, 8, generator=generator), torch.randn(16, 30, generator=generator)
    y = torch.arange(16) % 4
    weights = {"lambda_x": 0.5, "lambda_y": 2.0}
    plain = _hsic_coco.regulariser(MEASURES[name], x, y, [z], **weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = _hsic_coco.regulariser(MEASURES[name], x, y, [z], **weights)
    assert torch.equal(plain, mixed) and plain.dtype == torch.float32
    assert _hsic_coco.squared_distances(z.bfloat16()).dtype == torch.float64
