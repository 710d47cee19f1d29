"""Adversarial reconstruction and the attacks on features, through the whole pipeline."""

import json
from pathlib import Path

import pytest
import torch
from helpers import command_line
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.resolve import resolve
from privbench.benchmark.training.context import Context
from privbench.defenses import adversarial_reconstruction

CPU = torch.device("cpu")


def defense(**fields):
    digits = resolve("dataset", Selection("digits"), "smoke", {})
    settings = {f"defense.{name.replace('__', '.')}": value for name, value in fields.items()}
    chosen = resolve("defense", Selection("adversarial_reconstruction"), "smoke", settings, digits)
    return chosen.component, digits.component


def training(**fields):
    chosen, digits = defense(recipe__batch_size=8, **fields)
    context = Context(digits.protocol, CPU, 0, public=lambda: digits.load("public", Path("nowhere")))
    images = digits.load("private_train", Path("nowhere")).select(torch.arange(24))
    return adversarial_reconstruction._AdversarialTraining(chosen, images, context)


def weights(module):
    return {name: value.clone() for name, value in module.named_parameters()}


def changed(module, before):
    return {name for name, value in module.named_parameters() if not torch.equal(value, before[name])}


def test_each_side_updates_its_own_weights_only(monkeypatch):
    trained = training(layer="layer2")
    network, decoder = trained.network, trained._adversary.decoder
    seen = []
    step = trained._adversary.step

    def adversary_step(z, x):
        before = weights(network)
        losses = step(z, x)
        assert not changed(network, before)
        assert not z.requires_grad
        seen.append(weights(decoder))
        return losses

    monkeypatch.setattr(trained._adversary, "step", adversary_step)
    start, before = weights(decoder), weights(network)
    trained.step(0, torch.Generator())
    assert changed(network, before)
    assert len(seen) == 3
    assert all(not torch.equal(start[name], seen[0][name]) for name in start if name.endswith("weight"))
    assert not changed(decoder, seen[-1])
    assert all(p.requires_grad for p in decoder.parameters())


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


def test_the_simulated_adversary_can_learn_from_public_images():
    trained = training(simulated_on="public", adversary_steps=2)
    seen = []
    trained._adversary.step = lambda z, x: seen.append(x)
    trained.step(0, torch.Generator())
    public = trained._public.at(0)[0]
    assert len(seen) == 2
    assert all(torch.equal(x, public) for x in seen)
    assert trained.network.training


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Run a command on one store and return its records."""
    folder = tmp_path_factory.mktemp("reconstruction")

    def call(*words, code=0):
        fixed = ["--store", folder / "store", "--results", folder / "results", "--data", folder, "--json"]
        result = command_line.run("run", "--budget", "smoke", *words, *fixed)
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
