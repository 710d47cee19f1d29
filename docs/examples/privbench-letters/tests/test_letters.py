"""Conformance checks of the components, and tests of what they compute."""

from pathlib import Path

import pytest
import torch
from privbench import Images
from privbench.benchmark.testing import checks
from privbench_letters.diversity import Diversity, apart
from privbench_letters.impostors import Impostors
from privbench_letters.letters import Letters
from privbench_letters.random_erasing import RandomErasing, erased

COMPONENTS = {"dataset": Letters, "defense": RandomErasing, "attack": Impostors, "evaluator": Diversity}


@pytest.mark.parametrize(("kind", "check"), [(kind, check) for kind in COMPONENTS for check in checks(kind)], ids=str)
def test_conformance(kind, check):
    """Run each check on the component of its kind."""
    check(COMPONENTS[kind])


def test_sizes():
    """There are 100 images of each letter; 20 of each private letter are for testing."""
    sizes = {part: len(Letters().load(part, Path())) for part in ("private_train", "private_test", "public")}
    assert sizes == {"private_train": 400, "private_test": 100, "public": 1000}


def test_at_most_the_area_is_erased_and_by_the_mean():
    """Half of the images are black, half white: hidden pixels become grey."""
    torch.manual_seed(0)
    x = torch.ones(200, 1, 32, 32)
    x[:100] = 0
    hidden = (erased(x, 0.25) == 0.5).double().mean((1, 2, 3))
    assert 0 < hidden.mean() < 0.25
    assert hidden.max() < 0.25 + 2 * 17 / 32**2
    assert torch.equal(erased(x, 0), x)


def test_impostors_have_the_highest_scores():
    """The target classifies bright images as 0 and dark ones as 1."""

    class View:
        def scores(self, x):
            return torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], 1)

    class Context:
        device = torch.device("cpu")

        def generator(self, *name):
            return torch.Generator().manual_seed(0)

    class Request:
        labels, draws, trials = (0, 1), 1, 1

    grey = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1) * 80
    prior = Impostors().learn(None, Images(torch.cat([grey, grey])), None)
    found = Impostors().run(View(), prior, Request(), Context()).pixels.flatten()
    assert found[0] > found[1]


def test_distance_by_hand():
    """Two of the three pairs of images with values 0, 0 and 1 differ, by 1 everywhere."""
    pixels = torch.tensor([0, 0, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    assert float(apart(pixels)) == pytest.approx(2 / 3)
