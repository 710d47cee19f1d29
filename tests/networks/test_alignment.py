"""Alignment maps faces to the template of a network; the expected positions are computed here with numpy."""

import cmath

import numpy as np
import pytest
import torch
from helpers.faces import BOX, protocol
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.benchmark.networks.embedders.alignment import (
    ARCFACE,
    ARCFACE_POINTS,
    CELEBA_POINTS,
    DLIB,
    Chip,
    Similarity,
    align,
    fit,
    require_face_box,
    square,
)
from torch.nn import functional

FACENET = square(35, 55, 108, 160)


def blob(point: complex, box, height: int, width: int, spread: float = 2.0) -> torch.Tensor:
    """Draw a bump at a point of CelebA's frame into an image of the box; pixel k covers [k, k + 1) of the box."""
    left, top, wide, high = box
    x = left - 0.5 + (np.arange(width) + 0.5) * wide / width
    y = top - 0.5 + (np.arange(height) + 0.5) * high / height
    bump = np.exp(-((x[None, :] - point.real) ** 2 + (y[:, None] - point.imag) ** 2) / (2 * spread**2))
    return torch.from_numpy(bump).float()[None]


def centre(chip: torch.Tensor) -> complex:
    """Centre of mass of a chip, in its pixels."""
    v, u = np.mgrid[: chip.shape[0], : chip.shape[1]]
    mass = chip.double().numpy()
    return complex((u * mass).sum() / mass.sum(), (v * mass).sum() / mass.sum())


def frame_points() -> np.ndarray:
    """Positions of the template's points in CelebA's frame: numpy's least squares for t = a s + b, inverted."""
    s, t = np.array(CELEBA_POINTS), np.array(ARCFACE_POINTS)
    (a, b), *_ = np.linalg.lstsq(np.stack([s, np.ones(5)], 1), t, rcond=None)
    return (t - b) / a


def on_dlib(z: complex) -> complex:
    return complex((z.real - 55.913) * 1.49138 + 74.0, (z.imag - 51.599) * 1.49138 + 47.14)


TEMPLATES = {
    "arcface": (ARCFACE, list(zip(frame_points(), ARCFACE_POINTS, strict=True))),
    "dlib": (DLIB, list(zip(frame_points(), map(on_dlib, ARCFACE_POINTS), strict=True))),
    # 108 pixels of the frame from 34.5 on become 160 from -0.5 on.
    "facenet": (
        FACENET,
        [(p, ((p - complex(34.5, 54.5)) * 160 / 108) - complex(0.5, 0.5)) for p in CELEBA_POINTS],
    ),
}
IMAGES = {
    "crop of 64": (BOX, 64, 64),
    "crop of 108": (BOX, 108, 108),
    "fine crop": (BOX, 300, 300),
    "whole frame": ((0, 0, 178, 218), 218, 178),
    "whole frame, squeezed": ((0, 0, 178, 218), 96, 96),
    "another box": ((25, 45, 128, 138), 69, 64),
}


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("template", TEMPLATES)
def test_points_land_on_the_template(template: str, image: str) -> None:
    chip, points = TEMPLATES[template]
    box, height, width = IMAGES[image]
    x = torch.stack([blob(source, box, height, width) for source, _ in points])
    found = align(x, box, chip)
    assert found.shape == (5, 3, chip.size, chip.size)
    for one, (_, target) in zip(found, points, strict=True):
        assert abs(centre(one[0]) - target) < 0.25


def test_the_error_of_celebas_mean_points_is_the_least_of_all_similarities() -> None:
    missed = [abs(ARCFACE.transform(p) - q) for p, q in zip(CELEBA_POINTS, ARCFACE_POINTS, strict=True)]
    assert missed == pytest.approx([0.52, 0.59, 2.78, 2.37, 2.41], abs=0.01)
    assert sum(ARCFACE.transform(p) - q for p, q in zip(CELEBA_POINTS, ARCFACE_POINTS, strict=True)) == pytest.approx(0)


def test_fit_recovers_a_similarity() -> None:
    made = Similarity(cmath.rect(1.7, 0.3), -4 + 9j)
    found = fit(CELEBA_POINTS, tuple(map(made, CELEBA_POINTS)))
    assert found.turn == pytest.approx(made.turn)
    assert found.shift == pytest.approx(made.shift)
    assert made.inverse()(made(3 + 4j)) == pytest.approx(3 + 4j)
    assert made.then(made)(1j) == pytest.approx(made(made(1j)))


def test_a_rotated_chip_has_the_right_direction() -> None:
    quarter = Chip(64, Similarity(1j, 63 + 0j))  # (x, y) of the frame goes to (63 - y, x)
    found = align(blob(20 + 40j, (0, 0, 64, 64), 64, 64)[None], (0, 0, 64, 64), quarter)
    assert abs(centre(found[0, 0]) - (23 + 20j)) < 0.05


@pytest.mark.parametrize("size", [64, 100])
def test_the_square_is_an_enlarged_image(size: int) -> None:
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    wanted = functional.interpolate(x, (160, 160), mode="bilinear", align_corners=False)
    torch.testing.assert_close(align(x, BOX, FACENET), wanted, rtol=0, atol=1e-5)


def test_the_border_is_repeated_outside_the_image() -> None:
    x = torch.full((1, 3, 40, 40), 0.25)
    torch.testing.assert_close(align(x, (80, 100, 20, 20), ARCFACE), torch.full((1, 3, 112, 112), 0.25))


def test_a_fine_image_is_reduced_without_aliasing() -> None:
    """Stripes of one pixel, eight to a pixel of the chip, are grey; sampled bilinearly they would be stripes."""
    stripes = (torch.arange(800) % 2).float().expand(1, 1, 800, 800)
    found = align(stripes, BOX, Chip(100, square(35, 55, 108, 100).transform))
    assert (found - 0.5).abs().max() < 0.05


def test_gradients_are_those_of_finite_differences() -> None:
    chip = Chip(5, Similarity(cmath.rect(0.06, 0.1), -3 - 4j))
    x = torch.rand(1, 3, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: align(x, BOX, chip), x)
    assert align(x, BOX, chip).detach().std() > 0.01


def test_grey_faces_are_repeated_and_others_rejected() -> None:
    grey = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(align(grey, BOX, ARCFACE), align(grey.expand(-1, 3, -1, -1), BOX, ARCFACE))
    with pytest.raises(InvalidConfigurationError, match="1 or 3 channels, got 4"):
        align(torch.zeros(1, 4, 32, 32), BOX, ARCFACE)


def test_protocols_without_a_face_box_are_rejected() -> None:
    assert require_face_box("mobilefacenet", protocol(BOX)) == BOX
    with pytest.raises(InvalidConfigurationError, match=r"mobilefacenet to be aligned faces .* synthetic/v1"):
        require_face_box("mobilefacenet", protocol(None))


def test_a_fine_image_of_another_shape_is_reduced_to_the_pixels_of_the_chip() -> None:
    box = (0, 0, 178, 218)
    x = torch.rand(1, 3, 872, 712, generator=torch.Generator().manual_seed(0))
    scale = abs(ARCFACE.transform.turn)
    smaller = functional.interpolate(x, (round(218 * scale), round(178 * scale)), mode="bilinear", antialias=True)
    torch.testing.assert_close(align(x, box, ARCFACE), align(smaller, box, ARCFACE))
