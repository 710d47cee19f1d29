"""Each attack end to end on toy sizes: shapes, seeds, resume, inputs of `learn`.

Networks of the size of a linear layer replace the published ones, except in the last test.
"""

from dataclasses import dataclass, field

import pytest
import torch
from helpers.toy_attacks import context, public, replace_networks, view
from privbench.attacks.gmi import GMI
from privbench.attacks.kedmi import KEDMI
from privbench.attacks.vmi import VMI
from privbench.benchmark.core.evidence import Images, Request
from privbench.benchmark.training import monitor
from torch.nn import functional

REQUEST = Request(labels=(2, 0, 1), draws=2, trials=2, group=2)
ATTACKS = {
    "gmi": GMI(latent=4, max_steps=2, n_critic=2, batch_size=3, iterations=2),
    "kedmi": KEDMI(latent=4, max_steps=2, n_critic=2, batch_size=3, iterations=2),
    "vmi-dcgan": VMI(
        generator="dcgan",
        latent=4,
        width=2,
        spectral=True,
        instance_noise=0.1,
        max_steps=2,
        batch_size=3,
        flow_steps=2,
        flow_hidden=3,
        samples=2,
        iterations=2,
    ),
    "vmi-stylegan": VMI(
        latent=4,
        channel_base=64,
        channel_max=4,
        max_steps=2,
        batch_size=4,
        flow_steps=2,
        flow_hidden=3,
        samples=2,
        iterations=2,
    ),
}
#: Other values of fields that only `run` uses.
OTHER_RUN = {
    "gmi": {"iterations": 3, "attack_learning_rate": 0.5},
    "kedmi": {"iterations": 3, "identity_weight": 1.0},
    "vmi-dcgan": {"samples": 3, "kl_weight": 1.0},
    "vmi-stylegan": {"flow_steps": 1, "momentum": 0.5},
}


@dataclass
class Memory:
    """Checkpoint storage in memory that interrupts the loop at the `stop`-th save."""

    kept: dict = field(default_factory=dict)
    stop: int = -1

    def load(self, name):
        return self.kept.get(name)

    def save(self, name, groups, info):
        copied = {key: {k: t.clone() for k, t in group.items()} for key, group in groups.items()}
        self.kept[name] = copied, info
        self.stop -= 1
        if self.stop == 0:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    if "real_networks" not in request.fixturenames:
        replace_networks(monkeypatch)


@pytest.fixture
def real_networks():
    """Keep the published networks."""


@pytest.fixture(scope="module")
def learned():
    return {}


@pytest.fixture
def priors(learned):
    for name in ATTACKS.keys() - learned.keys():
        learned[name] = ATTACKS[name].learn(view(), public(), context())
    return learned


@pytest.fixture(params=ATTACKS)
def name(request):
    return request.param


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k][n], b[k][n]) for k in a for n in a[k])


def test_reconstructions_have_the_requested_shape_and_the_target_is_unchanged(name, priors):
    target = view()
    found = ATTACKS[name].run(target, priors[name], REQUEST, context())
    assert found.pixels.shape == (2, 2, 3, 1, 32, 32)
    assert found.pixels.dtype == torch.uint8 and found.pixels.device.type == "cpu"
    assert found.labels.tolist() == [2, 0, 1]
    assert target.queries["forward"] == target.queries["backward"] > 0
    assert target.unchanged()


def test_the_seed_alone_decides_the_bytes(name, priors):
    runs = []
    for state, seed in ((1, 0), (2, 0), (1, 1)):
        target = view()
        torch.manual_seed(state)
        runs.append(ATTACKS[name].run(target, priors[name], REQUEST, context(seed)).pixels)
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_the_seed_alone_decides_the_prior(name, priors):
    for state, seed in ((7, 0), (7, 1)):
        target = view()
        torch.manual_seed(state)
        assert same(priors[name], ATTACKS[name].learn(target, public(), context(seed))) == (seed == 0)


def test_a_prior_is_a_state_on_the_cpu_without_a_graph(name, priors):
    for state in priors[name].values():
        assert all(value.device.type == "cpu" and not value.requires_grad for value in state.values())
        assert all(torch.isfinite(value).all() for value in state.values())


def test_learning_does_not_depend_on_fields_of_run(name, priors):
    other = ATTACKS[name].model_copy(update=OTHER_RUN[name])
    assert other.config("prior") == ATTACKS[name].config("prior")
    assert other.config("evidence") != ATTACKS[name].config("evidence")
    assert same(priors[name], other.learn(view(), public(), context()))


@pytest.mark.parametrize("stop", [1, 2])
def test_an_interrupted_attack_resumes_to_the_same_bytes(name, priors, stop, monkeypatch):
    monkeypatch.setattr(monitor, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(monitor, "CHECKPOINT_SHARE", float("inf"))
    attack = ATTACKS[name].model_copy(update={"iterations": 3})
    whole = attack.run(view(), priors[name], REQUEST, context()).pixels
    memory = Memory(stop=stop)
    with pytest.raises(KeyboardInterrupt):
        attack.run(view(), priors[name], REQUEST, context(checkpoint=memory))
    assert torch.equal(attack.run(view(), priors[name], REQUEST, context(checkpoint=memory)).pixels, whole)


def test_an_interrupted_prior_resumes_to_the_same_bytes(name, priors, monkeypatch):
    monkeypatch.setattr(monitor, "CHECKPOINT_SECONDS", 0.0)
    memory = Memory(stop=1)
    with pytest.raises(KeyboardInterrupt):
        ATTACKS[name].learn(view(), public(), context(checkpoint=memory))
    assert memory.kept["gan"][1]["done"] == 1
    assert same(ATTACKS[name].learn(view(), public(), context(checkpoint=memory)), priors[name])


class Forbidden:
    """Target that fails on any access."""

    def __getattribute__(self, name):
        raise AssertionError(f"learn used {name} of the target")


def test_a_public_prior_does_not_use_the_target(name, priors):
    if ATTACKS[name].prior == "public":
        assert same(ATTACKS[name].learn(Forbidden(), public(), context()), priors[name])
        assert same(ATTACKS[name].learn(None, public(), context()), priors[name])


def test_kedmi_queries_the_target_with_public_images_only(monkeypatch):
    target, asked = view(), []
    target.network.stages["flat"].register_forward_pre_hook(lambda _, inputs: asked.append(inputs[0].clone()))
    ATTACKS["kedmi"].learn(target, public(), context())
    known = {image.numpy().tobytes() for image in public().pixels}
    seen = [image.mul(255).round().byte().numpy().tobytes() for image in torch.cat(asked)]
    assert len(seen) == 6 and set(seen) <= known


def test_learning_changes_with_the_public_images(name, priors):
    inverted = Images(255 - public().pixels)
    assert not same(ATTACKS[name].learn(view(), inverted, context()), priors[name])


def test_gmi_limits_its_restarts_and_returns_all_of_them(priors):
    attack = ATTACKS["gmi"].model_copy(update={"restarts": 1})
    assert attack.run(view(), priors["gmi"], REQUEST, context()).pixels.shape[:3] == (2, 1, 3)


def test_vmi_moves_its_distribution_to_the_label(priors):
    attack = ATTACKS["vmi-dcgan"].model_copy(update={"iterations": 100, "attack_learning_rate": 0.2, "samples": 8})
    before = ATTACKS["vmi-dcgan"].model_copy(update={"iterations": 1, "attack_learning_rate": 1e-12})
    request, target = Request(labels=(0, 1, 2), draws=20), view()

    def loss(found):
        x = found.pixels.flatten(0, 2).float() / 255
        return functional.cross_entropy(target.logits(x), found.labels.repeat(20)).item()

    runs = [loss(a.run(view(), priors["vmi-dcgan"], request, context())) for a in (before, attack)]
    assert runs[1] < 0.85 * runs[0]


@pytest.mark.parametrize("name", ["gmi", "kedmi"])
def test_the_published_networks_fit(name, real_networks):
    attack = ATTACKS[name].model_copy(update={"max_steps": 1, "n_critic": 1, "batch_size": 2, "iterations": 1})
    request = Request(labels=(1,), draws=1)
    found = attack.run(view(), attack.learn(view(), public(), context()), request, context())
    assert found.pixels.shape == (1, 1, 1, 1, 32, 32)
