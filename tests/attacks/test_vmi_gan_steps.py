"""Each update of VMI's GANs against slow transcriptions: non-saturating loss, R1, mixed styles, averaged weights."""

import math

import pytest
import torch
from helpers.toy_attacks import (
    CPU,
    Generator,
    Recorder,
    assert_gradients,
    assert_one_moves,
    context,
    gan_source,
    load,
    public,
    replace_networks,
    slopes,
    updates_of,
)  # fmt: skip
from privbench.attacks.networks.dcgan import DCDiscriminator
from privbench.attacks.networks.stylegan import StyleDiscriminator, StyleGenerator
from privbench.attacks.vmi import VMI
from privbench.benchmark.core.seeds import derive
from privbench.benchmark.training.batches import Batches

IMAGE = (1, 32, 32)
RATE, BETAS = 3e-3, (0.3, 0.97)
NOISE = 0.3
LAYERS = 8
R1_WEIGHT, R1_INTERVAL = 5.0, 2


@pytest.fixture(scope="module")
def dcgan():
    """Four steps: 10 images in batches of 3."""
    attack = VMI(generator="dcgan", latent=4, width=2, spectral=True, instance_noise=NOISE, learning_rate=RATE,
                 betas=BETAS, batch_size=3, shown=10)  # fmt: skip
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        replace_networks(patch)
        return recorder, attack.learn(None, public(), recorder)


@pytest.fixture(scope="module")
def stylegan():
    """Six steps of 4 images, R1 in three of them."""
    attack = VMI(latent=4, channel_base=64, channel_max=4, learning_rate=RATE, betas=BETAS, batch_size=4, shown=24,
                 r1_weight=R1_WEIGHT, r1_interval=R1_INTERVAL, style_mixing=0.5, average_images=1)  # fmt: skip
    recorder = Recorder()
    return recorder, attack.learn(None, public(), recorder)


@pytest.fixture(params=["dcgan", "stylegan"])
def learned(request):
    return request.getfixturevalue(request.param)


def real_images(i, size):
    return Batches(public(), size, derive(0, "gan"), device=CPU).at(i)[0]


def discriminator_updates(recorder):
    """The updates on the loss of each step, and those on the penalty that follow some of them."""
    updates = updates_of(recorder, "discriminator")
    first = {update.step: update for update in reversed(updates)}
    return list(first.values()), [update for update in updates if update is not first[update.step]]


def test_each_step_trains_the_discriminator_then_the_generator(dcgan, stylegan):
    order = [(update.step, update.optimizer[:1]) for update in dcgan[0].updates["gan"]]
    assert order == [(i, player) for i in range(4) for player in "dg"]
    order = [(update.step, update.optimizer[:1]) for update in stylegan[0].updates["gan"]]
    assert order == [(i, player) for i in range(6) for player in ("ddg" if i % R1_INTERVAL == 0 else "dg")]


def test_an_update_moves_one_player_by_adam(learned):
    recorder, _ = learned
    assert_one_moves(recorder, ("generator", "discriminator"), RATE, BETAS)


def test_no_gradient_reaches_the_player_that_does_not_move(learned):
    updates = learned[0].updates["gan"]
    first = next(number for number, update in enumerate(updates) if update.optimizer == "generator_optimizer")
    assert all(gradient is None for gradient in updates[0].gradients["generator"].values())
    for name, gradient in updates[first].gradients["discriminator"].items():
        before = updates[first - 1].gradients["discriminator"][name]
        assert gradient is before is None or torch.equal(gradient, before)


def test_the_discriminator_of_the_dcgan_separates_noisy_images(dcgan):
    recorder, _ = dcgan
    for update in updates_of(recorder, "discriminator"):
        draws = gan_source(update.step)
        z = torch.randn(3, 4, generator=draws).double()
        noise = [torch.randn(3, *IMAGE, generator=draws).double() for _ in range(2)]
        fake = load(Generator(IMAGE, 4), update.before["generator"])(z).detach()
        discriminator = load(DCDiscriminator(IMAGE, 2, spectral=True), update.before["discriminator"])
        # The layers take images in [-1, 1], where the published noise is added.
        real_logits = discriminator.layers(2 * real_images(update.step, 3).double() - 1 + NOISE * noise[0])
        fake_logits = discriminator.layers(2 * fake - 1 + NOISE * noise[1])
        loss = -sum(torch.sigmoid(logit).log() for logit in real_logits) / 3
        loss = loss - sum((1 - torch.sigmoid(logit)).log() for logit in fake_logits) / 3
        assert recorder.losses["gan"][update.step] == {
            "discriminator": pytest.approx(loss.item(), rel=1e-4), "generator": pytest.approx(0, abs=10),
        }  # fmt: skip
        assert_gradients(update.gradients["discriminator"], slopes(loss, discriminator), 1e-3)


def test_the_generator_of_the_dcgan_raises_the_logarithm_of_real(dcgan):
    recorder, _ = dcgan
    for update in updates_of(recorder, "generator"):
        draws = gan_source(update.step)
        torch.randn(3, 4, generator=draws), [torch.randn(3, *IMAGE, generator=draws) for _ in range(2)]
        generator = load(Generator(IMAGE, 4), update.before["generator"])
        discriminator = load(DCDiscriminator(IMAGE, 2, spectral=True), update.before["discriminator"])
        fake = generator(torch.randn(3, 4, generator=draws).double())
        logits = discriminator.layers(2 * fake - 1 + NOISE * torch.randn(3, *IMAGE, generator=draws).double())
        loss = -sum(torch.sigmoid(logit).log() for logit in logits) / 3
        assert recorder.losses["gan"][update.step]["generator"] == pytest.approx(loss.item(), rel=1e-4)
        assert_gradients(update.gradients["generator"], slopes(loss, generator), 1e-3)


def styled(generator, draws):
    """Images of 4 latents, in half of the batches with another latent from a random layer on; and that layer."""
    z, other = (torch.randn(4, 4, generator=draws) for _ in range(2))
    mixed = torch.rand((), generator=draws).item() < 0.5
    cut = int(torch.randint(1, LAYERS, (), generator=draws))
    rows = []
    for first, second in zip(z, other, strict=True):
        rows.append(torch.stack([second if mixed and layer >= cut else first for layer in range(LAYERS)]))
    return generator(torch.stack(rows)), cut if mixed else None


def test_the_players_of_the_stylegan_have_the_non_saturating_loss_with_mixed_styles(stylegan):
    recorder, _ = stylegan
    main, cuts = discriminator_updates(recorder)[0], []
    for update in recorder.updates["gan"]:
        draws = gan_source(update.step)
        generator = load(StyleGenerator(IMAGE, 4, 64, 4), update.before["generator"]).float()
        discriminator = load(StyleDiscriminator(IMAGE, 64, 4), update.before["discriminator"]).float()
        # Layers draw their noise from the global generator, which the loop seeds in each step.
        with context().seeded("gan", update.step):
            fake, cut = styled(generator, draws)
            if update.optimizer == "generator_optimizer":
                fake, cut = styled(generator, draws)
        losses, loss = recorder.losses["gan"][update.step], 0.0
        cuts.append(cut)
        if update.optimizer == "generator_optimizer":
            for logit in discriminator(fake):
                loss = loss - torch.sigmoid(logit).log() / 4
            assert losses["generator"] == pytest.approx(loss.item(), rel=1e-4)
            assert_gradients(update.gradients["generator"], slopes(loss, generator), 1e-3)
        elif any(update is other for other in main):
            for real_logit, logit in zip(discriminator(real_images(update.step, 4)), discriminator(fake), strict=True):
                loss = loss - torch.sigmoid(real_logit).log() / 4 - (1 - torch.sigmoid(logit)).log() / 4
            assert losses["discriminator"] == pytest.approx(loss.item(), rel=1e-4)
            assert_gradients(update.gradients["discriminator"], slopes(loss, discriminator), 1e-3)
    assert None in cuts and len(set(cuts)) > 2


def test_r1_is_half_gamma_times_the_square_of_the_slope_in_the_published_range(stylegan):
    recorder, _ = stylegan
    assert ["r1" in losses for losses in recorder.losses["gan"]] == [True, False] * 3
    for update in discriminator_updates(recorder)[1]:
        discriminator = load(StyleDiscriminator(IMAGE, 64, 4), update.before["discriminator"])
        published = (2 * real_images(update.step, 4).double() - 1).requires_grad_(True)
        (slope,) = torch.autograd.grad(discriminator((published + 1) / 2).sum(), published, create_graph=True)
        penalty = sum((image**2).sum() for image in slope) / 4 / 2
        assert recorder.losses["gan"][update.step]["r1"] == pytest.approx(penalty.item(), rel=1e-4)
        names, parameters = zip(*discriminator.named_parameters(), strict=True)
        loss = R1_WEIGHT * R1_INTERVAL * penalty
        expected = dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))
        found = update.gradients["discriminator"]
        # The last bias has no influence on the slope.
        assert expected.pop("output.bias") is found["output.bias"] is None
        assert_gradients({name: found[name] for name in expected}, expected, 1e-3)


def test_the_prior_of_the_stylegan_is_the_average_with_a_half_life_in_images(stylegan):
    recorder, prior = stylegan
    weights = recorder.weights["gan"]
    average = {name: value.double() for name, value in recorder.updates["gan"][0].before["generator"].items()}
    for i, found in enumerate(weights):
        half_life = min(1, 0.05 * 4 * (i + 1))
        keep = 0.5 ** (4 / half_life)
        for name, value in average.items():
            average[name] = keep * value + (1 - keep) * found["generator"][name].double()
            torch.testing.assert_close(found["average"][name].double(), average[name], rtol=1e-6, atol=1e-6)
    assert math.isclose(keep, 1 / 16)
    assert prior.keys() == {"generator"} and prior["generator"].keys() == average.keys()
    assert all(torch.equal(value, weights[-1]["average"][name]) for name, value in prior["generator"].items())
    assert any(not torch.equal(value, weights[-1]["generator"][name]) for name, value in prior["generator"].items())


def test_the_prior_of_the_dcgan_is_the_generator_after_the_last_step(dcgan):
    recorder, prior = dcgan
    last = recorder.weights["gan"][-1]["generator"]
    assert prior.keys() == {"generator"} and prior["generator"].keys() == last.keys()
    assert all(torch.equal(value, last[name]) for name, value in prior["generator"].items())
    assert int(last["layers.1.num_batches_tracked"]) == 8


def test_the_discriminator_sees_as_many_images_as_asked_rounded_up(dcgan):
    recorder, _ = dcgan
    assert len(recorder.losses["gan"]) == recorder.notes["gan_steps"] == 4
