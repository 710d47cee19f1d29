"""The inversions of GMI and KED-MI against loops over trials and groups of labels: losses, gradients, steps, draws."""

import pytest
import torch
from helpers.toy_attacks import (
    PROTOCOL,
    Critic,
    Generator,
    LabelDiscriminator,
    Recorder,
    assert_adam,
    assert_gradients,
    context,
    load,
    replace_networks,
    view,
)  # fmt: skip
from privbench.attacks import _inversion
from privbench.attacks._inversion import cpu_state
from privbench.attacks.gmi import GMI
from privbench.attacks.kedmi import KEDMI
from privbench.benchmark.core.evidence import Request
from privbench.benchmark.core.seeds import derive

IMAGE = (1, 32, 32)
LABELS = (2, 0, 1, 1, 0)
#: Positions of the labels that are optimised together.
GROUPS = ([0, 1], [2, 3], [4])
REQUEST = Request(labels=LABELS, draws=3, trials=2, group=2)
ATTACKS = {
    "gmi": GMI(latent=4, iterations=3, attack_learning_rate=0.05, momentum=0.7, identity_weight=30.0, restarts=2),
    "gmi-plain": GMI(latent=4, iterations=3, attack_learning_rate=0.05, momentum=0.0, identity_weight=30.0),
    "kedmi": KEDMI(latent=4, iterations=3, attack_learning_rate=0.05, identity_weight=2.0, initial_logvar=0.8),
}


#: Several groups at once, or one image, or one group that has to stay whole.
GMI_RUNS = pytest.mark.parametrize("run", [("gmi", 64), ("gmi", 1), ("gmi-plain", 64)], indirect=True)
KEDMI_RUNS = pytest.mark.parametrize("run", [("kedmi", 64), ("kedmi", 1)], indirect=True)


def networks(kind):
    """A generator whose batch statistics differ from the stored ones, and a discriminator that compares images."""
    torch.manual_seed(3)
    generator = Generator(IMAGE, 4)
    generator(torch.randn(16, 4))
    discriminator = Critic(IMAGE) if kind.startswith("gmi") else LabelDiscriminator(IMAGE, 3)
    return generator, discriminator


@pytest.fixture(scope="module")
def run(request):
    """Attack, recorder, result, generator and discriminator."""
    kind, limit = request.param
    recorder = Recorder()
    generator, discriminator = networks(kind)
    prior = {"generator": cpu_state(generator), "discriminator": cpu_state(discriminator)}
    with pytest.MonkeyPatch.context() as patch:
        replace_networks(patch)
        patch.setitem(_inversion.IMAGES_AT_ONCE, "cpu", limit)
        found = ATTACKS[kind].run(view(), prior, REQUEST, recorder)
    frozen = [load(module, module.state_dict()).eval() for module in (generator, discriminator)]
    return ATTACKS[kind], recorder, found, *frozen


def cross_entropy(row, label):
    return -(row[label].exp() / sum(value.exp() for value in row)).log()


@GMI_RUNS
def test_gmi_descends_by_nesterov_momentum_within_the_box(run):
    attack, recorder, found, generator, critic = run
    target = view().network.double()
    restarts = attack.restarts or REQUEST.draws
    assert found.pixels.shape == (2, restarts, 5, *PROTOCOL.image) and found.labels.tolist() == list(LABELS)
    start = torch.randn(10 * restarts, 4, generator=context().generator("start"))
    start = start.view(2 * restarts, 5, 4).double()
    z, v = start.clone(), torch.zeros_like(start)
    for i in range(3):
        priors, identities = [], []
        for repeat in range(2 * restarts):
            for group in GROUPS:
                point = z[repeat, group].clone().requires_grad_(True)
                prior, identity = 0.0, 0.0
                for latent, position in zip(point, group, strict=True):
                    x = generator(latent[None])
                    prior = prior - critic(x).squeeze() / len(group)
                    identity = identity + cross_entropy(target(x)[0], LABELS[position]) / len(group)
                (gradient,) = torch.autograd.grad(prior + attack.identity_weight * identity, point)
                priors.append(len(group) * prior.item())
                identities.append(len(group) * identity.item())
                before = v[repeat, group]
                after = attack.momentum * before - attack.attack_learning_rate * gradient
                moved = z[repeat, group] - attack.momentum * before + (1 + attack.momentum) * after
                v[repeat, group], z[repeat, group] = after, moved.clamp(-1, 1)
        losses = recorder.losses["attack"][i]
        assert losses["prior"] == pytest.approx(sum(priors) / len(start.flatten(0, 1)), rel=1e-4)
        assert losses["identity"] == pytest.approx(sum(identities) / len(start.flatten(0, 1)), rel=1e-4)
        reached = recorder.weights["attack"][i]["point"]["z"].view_as(z)
        torch.testing.assert_close(reached.double(), z, rtol=0, atol=1e-5)
    inside = z.abs() < 1
    assert inside.any() and not inside.all() and not torch.allclose(z[inside], start[inside], atol=0.1)
    for trial in range(2):
        for restart in range(restarts):
            expected = generator(z[restarts * trial + restart]).mul(255)
            assert (found.pixels[trial, restart] - expected).abs().max() < 0.51


def gaussian_of(weights, trial, group):
    """Mean and log-variance of some labels of a trial, differentiable."""
    parts = [weights["gaussian"][name].view(2, 5, 4)[trial, group].double() for name in ("mean", "logvar")]
    return [part.requires_grad_(True) for part in parts]


@KEDMI_RUNS
def test_kedmi_fits_a_gaussian_to_each_label_and_trial(run):
    attack, recorder, _, generator, discriminator = run
    target = view().network.double()
    updates = recorder.updates["attack"]
    start = updates[0].before["gaussian"]
    assert (start["mean"] == 0).all() and torch.allclose(start["logvar"], torch.tensor(0.8))
    for update, losses in zip(updates, recorder.losses["attack"], strict=True):
        draws = torch.Generator().manual_seed(derive(0, "attack", "generator", update.step))
        noise = torch.randn(10, 4, generator=draws).view(2, 5, 4).double()
        priors, identities = 0.0, 0.0
        expected = {name: torch.zeros(2, 5, 4, dtype=torch.double) for name in ("mean", "logvar")}
        for trial in range(2):
            for group in GROUPS:
                mean, logvar = gaussian_of(update.before, trial, group)
                x = generator(mean + (logvar.exp() ** 0.5) * noise[trial, group])
                prior, identity = 0.0, 0.0
                # Minibatch discrimination compares the images of a group.
                for row, answer, position in zip(discriminator(x), target(x), group, strict=True):
                    total = sum(value.exp() for value in row)
                    prior = prior - (total / (total + 1)).log() / len(group)
                    identity = identity + cross_entropy(answer, LABELS[position]) / len(group)
                slopes = torch.autograd.grad(prior + attack.identity_weight * identity, (mean, logvar))
                expected["mean"][trial, group], expected["logvar"][trial, group] = slopes
                priors, identities = priors + len(group) * prior.item(), identities + len(group) * identity.item()
        assert losses["prior"] == pytest.approx(priors / 10, rel=1e-4)
        assert losses["identity"] == pytest.approx(identities / 10, rel=1e-4)
        found = {name: value.view(2, 5, 4) for name, value in update.gradients["gaussian"].items()}
        assert_gradients(found, expected)
    assert_adam(updates, "gaussian", attack.attack_learning_rate, (0.9, 0.999))


@KEDMI_RUNS
def test_kedmi_returns_fresh_draws_of_the_last_gaussians_in_their_places(run):
    _, recorder, found, generator, _ = run
    noise = torch.randn(3, 10, 4, generator=context().generator("draws")).view(3, 2, 5, 4).double()
    assert found.pixels.shape == (2, 3, 5, *PROTOCOL.image) and found.labels.tolist() == list(LABELS)
    for trial in range(2):
        mean, logvar = gaussian_of(recorder.weights["attack"][-1], trial, list(range(5)))
        for draw in range(3):
            expected = generator(mean + (logvar.exp() ** 0.5) * noise[draw, trial]).mul(255)
            assert (found.pixels[trial, draw] - expected).abs().max() < 0.51
