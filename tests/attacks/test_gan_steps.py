"""Each update of the GANs of GMI and KED-MI against slow transcriptions of the papers: losses, gradients, weights."""

import math
from itertools import pairwise

import pytest
import torch
from helpers.toy_attacks import (
    CPU,
    Critic,
    Generator,
    LabelDiscriminator,
    Recorder,
    assert_gradients,
    assert_one_moves,
    gan_source,
    load,
    public,
    replace_networks,
    slopes,
    updates_of,
    view,
)  # fmt: skip
from privbench.attacks.gmi import GMI
from privbench.attacks.kedmi import KEDMI
from privbench.benchmark.core.seeds import derive
from privbench.benchmark.training.batches import Batches

IMAGE = (1, 32, 32)
RATE, BETAS = 3e-3, (0.6, 0.97)
CHANGED = {"latent": 4, "batch_size": 3, "n_critic": 2, "learning_rate": RATE, "betas": BETAS, "max_steps": 4}


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        replace_networks(patch)
        yield


@pytest.fixture(scope="module")
def gmi(patched):
    recorder = Recorder()
    return recorder, GMI(gradient_weight=7.0, **CHANGED).learn(None, public(), recorder)


@pytest.fixture(scope="module")
def kedmi(patched):
    recorder = Recorder()
    return recorder, KEDMI(entropy_weight=0.3, **CHANGED).learn(view(), public(), recorder)


@pytest.fixture(params=["gmi", "kedmi"])
def learned(request):
    return request.getfixturevalue(request.param)


def shuffled(i, *name):
    return Batches(public(), 3, derive(0, "gan", *name), device=CPU).at(i)[0].double()


def test_every_second_step_trains_the_generator_after_the_discriminator(learned):
    found = [(update.step, update.optimizer.removesuffix("_optimizer")) for update in learned[0].updates["gan"]]
    assert found == [(0, "discriminator"), (1, "discriminator"), (1, "generator"), (2, "discriminator"),
                     (3, "discriminator"), (3, "generator")]  # fmt: skip
    assert ["generator" in losses for losses in learned[0].losses["gan"]] == [False, True, False, True]


def test_an_update_moves_one_player_by_adam(learned):
    recorder, _ = learned
    assert_one_moves(recorder, ("generator", "discriminator"), RATE, BETAS)


def test_no_gradient_reaches_the_player_that_does_not_move(learned):
    first, second, third = learned[0].updates["gan"][:3]
    assert all(gradient is None for update in (first, second) for gradient in update.gradients["generator"].values())
    for name, gradient in second.gradients["discriminator"].items():
        assert torch.equal(gradient, third.gradients["discriminator"][name])


def test_the_prior_is_the_state_after_the_last_step(learned):
    recorder, prior = learned
    assert prior.keys() == {"generator", "discriminator"}
    for player, state in prior.items():
        assert state.keys() == recorder.weights["gan"][-1][player].keys()
        assert all(torch.equal(state[name], value) for name, value in recorder.weights["gan"][-1][player].items())
    # The generator's batch norm saw one batch in each update of either player.
    assert int(prior["generator"]["layers.1.num_batches_tracked"]) == 6


@pytest.mark.parametrize(("epochs", "cap", "steps"), [(2, None, 4), (2, 3, 3), (1, 9, 2)])
@pytest.mark.parametrize("kind", [GMI, KEDMI])
def test_epochs_are_passes_over_the_public_images_up_to_a_cap(patched, kind, epochs, cap, steps):
    recorder = Recorder()
    kind(**{**CHANGED, "epochs": epochs, "max_steps": cap}).learn(view(), public(), recorder)
    assert len(recorder.losses["gan"]) == recorder.notes["gan_steps"] == steps


def test_the_critic_of_gmi_minimises_the_wasserstein_loss_with_gradient_penalty(gmi):
    recorder, _ = gmi
    for update in updates_of(recorder, "discriminator"):
        draws = gan_source(update.step)
        z, mix = torch.randn(3, 4, generator=draws).double(), torch.rand(3, generator=draws).double()
        fake = load(Generator(IMAGE, 4), update.before["generator"])(z).detach()
        critic = load(Critic(IMAGE), update.before["discriminator"])
        distance, penalty = 0.0, 0.0
        for x, generated, a in zip(shuffled(update.step), fake, mix, strict=True):
            between = (x + a * (generated - x)).requires_grad_(True)
            (slope,) = torch.autograd.grad(critic(between[None]).sum(), between, create_graph=True)
            penalty = penalty + ((slope**2).sum() ** 0.5 - 1) ** 2 / 3
            distance = distance + (critic(x[None]) - critic(generated[None])).squeeze() / 3
        losses = recorder.losses["gan"][update.step]
        assert losses["distance"] == pytest.approx(distance.item(), rel=1e-4, abs=1e-6)
        assert losses["penalty"] == pytest.approx(penalty.item(), rel=1e-4)
        assert_gradients(update.gradients["discriminator"], slopes(7 * penalty - distance, critic))


def test_the_generator_of_gmi_raises_the_scores_of_its_images(gmi):
    recorder, _ = gmi
    for update in updates_of(recorder, "generator"):
        draws = gan_source(update.step)
        torch.randn(3, 4, generator=draws), torch.rand(3, generator=draws)
        generator = load(Generator(IMAGE, 4), update.before["generator"])
        critic = load(Critic(IMAGE), update.before["discriminator"])
        images = generator(torch.randn(3, 4, generator=draws).double())
        loss = -sum(critic(x[None]).squeeze() for x in images) / 3
        assert recorder.losses["gan"][update.step]["generator"] == pytest.approx(loss.item(), rel=1e-4)
        assert_gradients(update.gradients["generator"], slopes(loss, generator))


def log_sum_exp(row):
    return torch.stack([value.exp() for value in row]).sum().log()


def test_the_discriminator_of_kedmi_learns_soft_labels_and_separates_public_from_generated(kedmi):
    recorder, _ = kedmi
    target = view().network.double()
    for update in updates_of(recorder, "discriminator"):
        z = torch.randn(3, 4, generator=gan_source(update.step)).double()
        fake = load(Generator(IMAGE, 4), update.before["generator"])(z).detach()
        discriminator = load(LabelDiscriminator(IMAGE, 3), update.before["discriminator"])
        labelled, unlabelled = shuffled(update.step, "labelled"), shuffled(update.step, "unlabelled")
        loss = 0.0
        # Minibatch discrimination compares the images of one batch.
        for answer, wanted in zip(discriminator(labelled), target(labelled), strict=True):
            for k in range(3):
                p = wanted[k].exp() / sum(value.exp() for value in wanted)
                loss = loss - p * (answer[k] - log_sum_exp(answer)) / 3
        for row in discriminator(unlabelled):
            # -log p(real), p(real) = Z / (Z + 1)
            total = sum(value.exp() for value in row)
            loss = loss - 0.5 * (total / (total + 1)).log() / 3
        for row in discriminator(fake):
            # -log p(fake), p(fake) = 1 / (Z + 1)
            loss = loss + 0.5 * (1 + sum(value.exp() for value in row)).log() / 3
        assert recorder.losses["gan"][update.step]["discriminator"] == pytest.approx(loss.item(), rel=1e-4)
        assert_gradients(update.gradients["discriminator"], slopes(loss, discriminator))


def test_the_generator_of_kedmi_matches_mean_features_and_lowers_the_entropy(kedmi):
    recorder, _ = kedmi
    for update in updates_of(recorder, "generator"):
        draws = gan_source(update.step)
        torch.randn(3, 4, generator=draws)
        generator = load(Generator(IMAGE, 4), update.before["generator"])
        discriminator = load(LabelDiscriminator(IMAGE, 3), update.before["discriminator"])
        images = generator(torch.randn(3, 4, generator=draws).double())
        real, fake = discriminator.features(shuffled(update.step, "matched")), discriminator.features(images)
        matching = sum((sum(real[:, f]) / 3 - sum(fake[:, f]) / 3).abs() for f in range(8)) / 8
        entropy = 0.0
        for row in discriminator(images):
            for value in row:
                log_p = value - log_sum_exp(row)
                entropy = entropy - log_p.exp() * log_p
        assert 0 < entropy < 3 * math.log(3)
        loss = matching + 0.3 * entropy
        assert recorder.losses["gan"][update.step]["generator"] == pytest.approx(loss.item(), rel=1e-4)
        assert_gradients(update.gradients["generator"], slopes(loss, generator))


def test_the_three_shuffles_of_kedmi_differ():
    orders = [shuffled(0, name) for name in ("labelled", "unlabelled", "matched")]
    assert all(not torch.equal(a, b) for a, b in pairwise([*orders, orders[0]]))
