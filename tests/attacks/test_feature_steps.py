"""The attacks on features: each update against a transcription, and estimates in the order of the latents."""

import pytest
import torch
from helpers.toy_attacks import (
    CPU,
    PROTOCOL,
    Recorder,
    assert_adam,
    assert_gradients,
    context,
    load,
    public,
    slopes,
)
from privbench.attacks import decoder, feature_regression
from privbench.attacks.decoder import DecoderAttack
from privbench.attacks.feature_regression import FeatureRegression
from privbench.benchmark.access.views import FeaturesView
from privbench.benchmark.core.evidence import Request
from privbench.benchmark.core.seeds import derive
from privbench.benchmark.networks.decoders import Decoder
from privbench.benchmark.networks.embedders.embedder import Embedder
from privbench.benchmark.networks.perceptual.perceptual import Perceptual
from privbench.benchmark.training.batches import Batches
from privbench.benchmark.training.context import Context
from torch import nn
from torch.nn import functional

#: Settings of both attacks: two epochs of two batches, up to three steps.
CHANGED = {"batch_size": 3, "epochs": 2, "max_steps": 3, "learning_rate": 4e-3}
#: Latents: maps that are higher than wide, or flat.
SHAPES = {"maps": (1, 8, 3), "flat": (24,)}


class Features(FeaturesView):
    """Latents that are means of pixels, weighted so that no two are alike."""

    def __init__(self, shape):
        super().__init__("features", PROTOCOL, None, None)
        self.shape = shape

    def features(self, x):
        means = functional.avg_pool2d(x, (4, 10)) * torch.linspace(-1, 2, 24, dtype=x.dtype).view(1, 8, 3)
        return means.reshape(len(x), *self.shape)


class Directions(Embedder):
    """The direction of the means of four columns."""

    def embed(self, x, protocol):
        assert protocol is PROTOCOL
        return functional.normalize(functional.avg_pool2d(x, (32, 8)).flatten(1))


class Half(Perceptual):
    """The left half of an image."""

    def layers(self, x):
        return (x[..., :16],)


@pytest.fixture
def embedders(monkeypatch):
    monkeypatch.setattr(feature_regression, "build_embedder", lambda name: Directions())


def batch(i, name):
    return Batches(public(), 3, derive(0, name), device=CPU).at(i)[0]


def observed(shape, count=5):
    """A request for private latents, in an order of their own."""
    source = torch.Generator().manual_seed(1)
    items = torch.tensor([7, 2, 9, 0, 4])[:count]
    return Request((), 0, encodings=torch.randn(count, *shape, generator=source), items=items)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_decoder_learns_to_invert_the_latents_of_public_images(shape):
    recorder, attack = Recorder(), DecoderAttack(max_channels=8, **CHANGED)
    prior = attack.learn(Features(shape), public(), recorder)
    updates = recorder.updates["decoder"]
    assert [update.step for update in updates] == [0, 1, 2] and recorder.notes["decoder_steps"] == 3
    for update in updates:
        x = batch(update.step, "decoder").double()
        module = load(Decoder(shape, PROTOCOL.image, 8), update.before["decoder"])
        decoded = module(Features(shape).features(x))
        loss = sum(((2 * y - 2 * image) ** 2).sum() / 1024 for y, image in zip(decoded, x, strict=True)) / 3
        assert recorder.losses["decoder"][update.step] == {"pixels": pytest.approx(loss.item(), rel=1e-4)}
        assert_gradients(update.gradients["decoder"], slopes(loss, module), 1e-3)
    assert_adam(updates, "decoder", 4e-3, (0.5, 0.999))
    assert prior.keys() == {"decoder"} and prior["decoder"].keys() == updates[-1].after["decoder"].keys()
    assert all(torch.equal(value, updates[-1].after["decoder"][name]) for name, value in prior["decoder"].items())


BOTH = pytest.mark.parametrize(
    "attack", [DecoderAttack(max_channels=8, **CHANGED), FeatureRegression(hidden=6, **CHANGED)]
)


@BOTH
def test_epochs_are_passes_over_the_public_images(attack, embedders):
    recorder = Recorder()
    attack.model_copy(update={"max_steps": None}).learn(Features((24,)), public(), recorder)
    assert [len(losses) for losses in recorder.losses.values()] == [4]


@BOTH
def test_the_seed_alone_decides_the_prior(attack, embedders):
    found = []
    for state, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(state)
        prior = attack.learn(Features((24,)), public(), Context(PROTOCOL, CPU, seed))
        found.append(torch.cat([value.double().flatten() for values in prior.values() for value in values.values()]))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_weights_of_the_decoder_reach_their_losses(monkeypatch):
    monkeypatch.setattr(decoder, "build_perceptual", lambda name: Half())
    for weights, named in (
        ({"mu_1": 2.0}, {"pixels", "discriminator", "adversarial"}),
        ({"mu_2": 2.0}, {"pixels", "perceptual"}),
    ):
        recorder = Recorder()
        DecoderAttack(max_channels=8, **CHANGED, **weights).learn(Features((24,)), public(), recorder)
        assert recorder.losses["decoder"][0].keys() == named


def test_images_are_decoded_in_the_order_of_the_latents_without_batch_statistics():
    shape = SHAPES["maps"]
    attack = DecoderAttack(max_channels=8, **CHANGED)
    prior = attack.learn(Features(shape), public(), context())
    request = observed(shape)
    found = attack.run(Features(shape), prior, request, context())
    module = load(Decoder(shape, PROTOCOL.image, 8), prior["decoder"]).eval()
    for z, pixels in zip(request.encodings, found.pixels, strict=True):
        assert (pixels - module(z[None].double())[0].mul(255)).abs().max() < 0.51
    assert found.pixels.dtype == torch.uint8 and torch.equal(found.items, request.items)


def regressor(latent, weights):
    """M of one latent; a map is first averaged to at most 4 x 4, here 3 x 3."""
    weight1, bias1, weight2, bias2 = (value.double() for value in weights.values())
    z = latent.double()
    if z.ndim == 3:
        rows = [(0, 3), (2, 6), (5, 8)]
        z = torch.stack([z[0, first:last].mean(0) for first, last in rows]).flatten()
    hidden = weight1 @ z + bias1
    return weight2 @ torch.where(hidden > 0, hidden, 0.0) + bias2


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_regression_minimises_the_squared_distance_of_features(shape, embedders):
    recorder, attack = Recorder(), FeatureRegression(hidden=6, **CHANGED)
    prior = attack.learn(Features(shape), public(), recorder)
    updates = recorder.updates["regression"]
    assert [update.step for update in updates] == [0, 1, 2]
    for update in updates:
        weights = {name: nn.Parameter(value.double()) for name, value in update.before["regressor"].items()}
        x = batch(update.step, "regression")
        loss = 0.0
        for latent, feature in zip(Features(shape).features(x), Directions().embed(x, PROTOCOL).double(), strict=True):
            loss = loss + ((regressor(latent, weights) - feature) ** 2).sum() / 3
        assert recorder.losses["regression"][update.step] == {"distance": pytest.approx(loss.item(), rel=1e-4)}
        loss.backward()
        assert_gradients(update.gradients["regressor"], {name: value.grad for name, value in weights.items()})
    assert_adam(updates, "regressor", 4e-3, (0.9, 0.999))

    request = observed(shape)
    found = attack.run(Features(shape), prior, request, context())
    expected = torch.stack([regressor(latent, updates[-1].after["regressor"]) for latent in request.encodings])
    torch.testing.assert_close(found.features.double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(found.items, request.items)
