"""Each update of the decoder adversary of Xiao et al. against a slow transcription of Eqs. 1 to 5."""

import pytest
import torch
from helpers.toy_attacks import Recorder, assert_gradients, assert_one_moves, load, slopes, updates_of
from privbench.benchmark.networks.decoders import Decoder, ImageDiscriminator
from privbench.benchmark.networks.perceptual.perceptual import Perceptual
from privbench.benchmark.training.decoder_adversary import Adversary, pixel_distance

IMAGE, LATENT = (1, 32, 32), (6,)
RATE, BETAS = 3e-3, (0.5, 0.999)
MU_1, MU_2 = 0.7, 3.0


class Halves(Perceptual):
    """Two activations that are linear in the image."""

    def layers(self, x):
        return x[..., ::2], 3 * x[..., 1::2]


def adversary(mu_1=0.0, mu_2=0.0):
    torch.manual_seed(0)
    perceptual = Halves() if mu_2 else None
    return Adversary(LATENT, IMAGE, max_channels=8, learning_rate=RATE, mu_1=mu_1, mu_2=mu_2, perceptual=perceptual,
                     device=torch.device("cpu"))  # fmt: skip


def inputs(i):
    source = torch.Generator().manual_seed(i)
    return torch.randn(4, *LATENT, generator=source), torch.rand(4, *IMAGE, generator=source)


def play(**weights):
    """The record of three steps."""
    recorder, game = Recorder(), adversary(**weights)
    recorder.loop("decoder", 3, game.state, lambda i, _: game.step(*inputs(i)))
    return recorder


@pytest.fixture(scope="module")
def both():
    return play(mu_1=MU_1, mu_2=MU_2)


def networks(update):
    """Decoder and discriminator before an update, and D(x) = sigmoid of the logit."""
    discriminator = load(ImageDiscriminator(IMAGE), update.before["discriminator"])
    return load(Decoder(LATENT, IMAGE, 8), update.before["decoder"]), discriminator


def test_pixel_distance_is_a_mean_over_pixels_on_the_scale_of_tanh():
    a, b = torch.rand(2, 3, 3, 4, 5, dtype=torch.double)
    slow = [
        sum(((2 * p - 1) - (2 * q - 1)) ** 2 for p, q in zip(x, y, strict=True)) / 60
        for x, y in zip(a.flatten(1), b.flatten(1), strict=True)
    ]
    torch.testing.assert_close(pixel_distance(a, b), torch.stack(slow))
    assert pixel_distance(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item() == 4


def test_a_step_trains_the_discriminator_then_the_decoder_by_adam(both):
    assert [(u.step, u.optimizer) for u in both.updates["decoder"]] == [
        (i, f"{player}_optimizer") for i in range(3) for player in ("discriminator", "decoder")
    ]
    assert_one_moves(both, ("discriminator", "decoder"), RATE, BETAS)
    assert all(gradient is None for gradient in both.updates["decoder"][0].gradients["decoder"].values())


def test_the_discriminator_raises_the_logarithm_of_its_right_answers(both):
    for update in updates_of(both, "discriminator"):
        z, x = (value.double() for value in inputs(update.step))
        decoder, discriminator = networks(update)
        reconstruction = decoder(z).detach()
        real, fake = torch.sigmoid(discriminator(x)), torch.sigmoid(discriminator(reconstruction))
        value = sum(p.log() + (1 - q).log() for p, q in zip(real, fake, strict=True)) / 4
        losses = both.losses["decoder"][update.step]
        assert losses["discriminator"] == pytest.approx(-value.item(), rel=1e-4)
        assert_gradients(update.gradients["discriminator"], slopes(-value, discriminator), 1e-3)


def test_the_decoder_minimises_pixels_plus_weighted_adversarial_and_perceptual_losses(both):
    for update in updates_of(both, "decoder"):
        z, x = (value.double() for value in inputs(update.step))
        decoder, discriminator = networks(update)
        reconstruction = decoder(z)
        pixels, perceptual = 0.0, 0.0
        for found, image in zip(reconstruction, x, strict=True):
            pixels = pixels + ((2 * found - 2 * image) ** 2).sum() / 1024 / 4
            left, right = (found - image)[..., ::2], 3 * (found - image)[..., 1::2]
            perceptual = perceptual + ((left**2).sum() / 512 + (right**2).sum() / 512) / 4
        adversarial = sum((1 - torch.sigmoid(logit)).log() for logit in discriminator(reconstruction)) / 4
        losses = both.losses["decoder"][update.step]
        assert losses["pixels"] == pytest.approx(pixels.item(), rel=1e-4)
        assert losses["perceptual"] == pytest.approx(perceptual.item(), rel=1e-4)
        assert losses["adversarial"] == pytest.approx(adversarial.item(), rel=1e-4)
        total = pixels + MU_1 * adversarial + MU_2 * perceptual
        assert_gradients(update.gradients["decoder"], slopes(total, decoder), 1e-3)


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({}, {"pixels"}),
        ({"mu_1": 1e-9}, {"pixels", "discriminator", "adversarial"}),
        ({"mu_2": 1e-9}, {"pixels", "perceptual"}),
    ],
)
def test_parts_of_weight_0_are_left_out(weights, named):
    recorder = play(**weights)
    assert recorder.losses["decoder"][0].keys() == named
    for update in updates_of(recorder, "decoder"):
        z, x = (value.double() for value in inputs(update.step))
        decoder = load(Decoder(LATENT, IMAGE, 8), update.before["decoder"])
        loss = 4 * ((decoder(z) - x) ** 2).mean()
        assert_gradients(update.gradients["decoder"], slopes(loss, decoder), 1e-3)


def test_the_adversary_learns_and_does_not_change_the_latents():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(16, 6, generator=generator, requires_grad=True)
    x = torch.rand(16, 1, 1, 1, generator=generator).expand(-1, 1, 32, 32).contiguous()
    game = adversary()
    losses = [game.step(z.detach(), x)["pixels"].item() for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    assert z.grad is None
