"""Adversarial reconstruction and the attacks on features, through the whole pipeline."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import command_line
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.resolve import resolve
from privbench.benchmark.training.context import Context
from privbench.defenses import adversarial_reconstruction

pytestmark = pytest.mark.usefixtures("local_targets")
CPU = torch.device("cpu")


def defense(**fields):
    digits = resolve("dataset", Selection("digits"), "smoke", {})
    settings = {f"defense.{name.replace('__', '.')}": value for name, value in fields.items()}
    chosen = resolve("defense", Selection("adversarial_reconstruction"), "smoke", settings, digits)
    return chosen.component, digits.component


def training(public=None, extra=0, **fields):
    """A training on 24 private images; the last `extra` of `public` images have no identity."""
    chosen, digits = defense(recipe__batch_size=8, **fields)
    every = digits.load("public", Path("nowhere"))
    known = every.select(torch.arange(public or len(every)))
    if extra:
        known = replace(known, identities=torch.arange(len(known)).where(torch.arange(len(known)) < public - extra, -1))
    context = Context(digits.protocol, CPU, 0, public=lambda: known)
    images = digits.load("private_train", Path("nowhere")).select(torch.arange(24))
    return adversarial_reconstruction._AdversarialTraining(chosen, images, context)


def test_the_defense_makes_a_trained_decoder_fail():
    """A trained, frozen decoder fails after a few steps with lambda_1, and does not without it."""

    def distances(weight):
        trained = training(lambda_1=weight, adversary_steps=30, adversary_learning_rate=5e-3, max_channels=8)
        first = trained.step(0, torch.Generator())["pixels"].item()
        trained._adversary.step = lambda z, x: {}
        return first, [trained.step(i, torch.Generator())["pixels"].item() for i in range(3, 12)]

    (first, with_it), (_, without) = distances(10.0), distances(0.0)
    assert first < 0.3
    assert with_it[-1] > without[-1] + 0.05


@pytest.mark.parametrize("side", [None, "public", "private"])
def test_the_simulated_adversary_learns_from_public_images_or_on_request_from_private_ones(side):
    trained = training(adversary_steps=2, **({"simulated_on": side} if side else {}))
    seen = []
    trained._adversary.step = lambda z, x: seen.append(x)
    trained.step(0, torch.Generator())
    private, public = (batches.at(0)[0] for batches in (trained.batches, trained._public or trained.batches))
    assert torch.equal(private, public) == (side == "private")
    assert len(seen) == 2
    assert all(torch.equal(x, public) for x in seen)


def test_one_public_image_is_too_few_and_few_are_repeated():
    with pytest.raises(InvalidConfigurationError, match=r"at least 2 public images .*, got 1; use defense"):
        training(public=1)
    trained = training(public=3)
    assert len(trained._public.at(0)[0]) == 3
    trained.step(0, torch.Generator())
    trained.step(5, torch.Generator())
    assert training(public=1, simulated_on="private")._public is None


def test_extra_images_are_learned_by_both_sides():
    trained = training(public=30, extra=6, learns_extra=True, adversary_steps=1)
    traced = []
    trained.network.trace = lambda x, trace=trained.network.trace: traced.append(x) or trace(x)
    trained.step(0, torch.Generator())
    assert torch.equal(traced[0], trained._labelled_batch(0)[0])
    assert len(traced[0]) == 8 + 2  # 6 of 24 images, in batches of 8
    assert trained._public._pixels.shape[0] == 30


def test_without_being_asked_the_defense_does_not_see_extra_images():
    trained = training(public=30, extra=6)
    assert trained._extra is None
    assert trained._public._pixels.shape[0] == 24
    with pytest.raises(InvalidConfigurationError, match=r"expected dataset\.extra to be a folder of images"):
        training(public=30, learns_extra=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a command on one store and return its records."""
    folder = tmp_path_factory.mktemp("reconstruction")

    def call(*words, code=0):
        fixed = ["--store", folder / "store", "--results", folder / "results", "--data", folder, "--json"]
        result = command_line.run("run", "--no-controls", "--budget", "smoke", *words, *fixed)
        assert result.code == code, result.err
        return json.loads(result.out)

    return call


def test_attacks_on_features_end_to_end(run):
    """Both attacks have every score at the last cut layer, and other scores at an early one."""
    found = run("--defense", "adversarial_reconstruction", "--attack", "decoder", "--attack", "feature_regression")
    text = json.dumps(found)
    for name in ("ssim", "psnr", "mse", "lda", "feature_similarity", "mcc"):
        assert f'"{name}"' in text
    early = run("--defense", "adversarial_reconstruction", "--attack", "decoder", "--set", "attack.layer=layer1")
    assert json.dumps(early) != text


def test_a_class_attack_runs_on_the_defense(run):
    found = run("--defense", "adversarial_reconstruction", "--attack", "vmi", "--set", "dataset.draws=2")
    assert '"attack_acc"' in json.dumps(found)
