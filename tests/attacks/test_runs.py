"""Each attack end to end on toy sizes: shapes, published updates as slow loops, seeds, resume, inputs of `learn`.

Networks of the size of a linear layer replace the published ones, except in the last test.
"""

import math
from dataclasses import dataclass, field

import pytest
import torch
from privbench.attacks import gmi, kedmi, vmi
from privbench.attacks._inversion import quantise
from privbench.attacks.gmi import GMI
from privbench.attacks.kedmi import KEDMI
from privbench.attacks.networks.flows import standard_normal
from privbench.attacks.networks.minibatch import MinibatchDiscrimination
from privbench.attacks.networks.stylegan import StyleGenerator
from privbench.attacks.vmi import VMI
from privbench.benchmark.access.views import WhiteBoxView
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import Images, Request
from privbench.benchmark.core.seeds import derive
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.training import monitor
from privbench.benchmark.training.context import Context
from torch import nn
from torch.nn import functional

PROTOCOL = Protocol(
    name="toy",
    version=1,
    image=(1, 32, 32),
    classes=3,
    judge_classes=3,
    target_network="mcnn",
    judge_network="scnn",
    attacked=3,
    draws=2,
)
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


def context(seed=0, checkpoint=None):
    return Context(PROTOCOL, torch.device("cpu"), seed, checkpoint)


def public(count=7):
    return Images(torch.randint(0, 256, (count, 1, 32, 32), generator=torch.Generator().manual_seed(5)).byte())


def view():
    torch.manual_seed(0)
    network = Network({"flat": nn.Flatten(), "logits": nn.Linear(1024, 3)})
    return WhiteBoxView(network.eval().requires_grad_(False), PROTOCOL)


class Generator(nn.Module):
    """Replacement of every generator but StyleGAN2."""

    def __init__(self, image, latent, width=0):
        super().__init__()
        self.latent = latent
        self.layers = nn.Sequential(nn.Linear(latent, 1024), nn.BatchNorm1d(1024), nn.Sigmoid())

    def forward(self, z):
        return self.layers(z).unflatten(1, (1, 32, 32))


class Critic(nn.Sequential):
    """Replacement of GMI's discriminator."""

    def __init__(self, image):
        super().__init__(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))


class LabelDiscriminator(nn.Module):
    """Replacement of KED-MI's discriminator, with the real minibatch discrimination."""

    def __init__(self, image, classes):
        super().__init__()
        self.features = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64, 8), nn.Tanh())
        self.minibatch = MinibatchDiscrimination(8, 3, 2)
        self.output = nn.Linear(11, classes)

    def classify(self, f, group=None):
        return self.output(self.minibatch(f, group))

    def forward(self, x, group=None):
        return self.classify(self.features(x), group)


@pytest.fixture(autouse=True)
def small(request, monkeypatch):
    if "real_networks" not in request.fixturenames:
        monkeypatch.setattr(gmi, "Generator", Generator)
        monkeypatch.setattr(gmi, "Critic", Critic)
        monkeypatch.setattr(kedmi, "Generator", Generator)
        monkeypatch.setattr(kedmi, "LabelDiscriminator", LabelDiscriminator)
        monkeypatch.setattr(vmi, "DCGenerator", Generator)


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


def test_the_seed_decides_the_bytes(name, priors):
    runs = [ATTACKS[name].run(view(), priors[name], REQUEST, context(seed)).pixels for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


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


def load(module, state):
    module.load_state_dict(state)
    return module.eval().requires_grad_(False)


def close(found, expected):
    assert (found.int() - expected.int()).abs().max() <= 1
    assert found.float().std() > 0


def test_gmi_equals_the_published_loop_over_groups(priors):
    attack = ATTACKS["gmi"].model_copy(update={"iterations": 4})
    target = view()
    generator = load(Generator((1, 32, 32), 4), priors["gmi"]["generator"])
    critic = load(Critic((1, 32, 32)), priors["gmi"]["discriminator"])
    start = torch.randn(12, 4, generator=context().generator("start")).view(4, 3, 4)
    images = torch.zeros(4, 3, 1, 32, 32, dtype=torch.uint8)
    for restart in range(4):
        for labels in ((0, 1), (2,)):
            y = torch.tensor([REQUEST.labels[i] for i in labels])
            z, v = start[restart, list(labels)].clone(), torch.zeros(len(labels), 4)
            for _ in range(4):
                z.requires_grad_(True)
                x = generator(z)
                loss = -critic(x).mean() + 100 * functional.cross_entropy(target.logits(x), y)
                (gradient,) = torch.autograd.grad(loss, z)
                previous, v = v, 0.9 * v - 0.02 * gradient
                z = (z.detach() - 0.9 * previous + 1.9 * v).clamp(-1, 1)
            images[restart, list(labels)] = quantise(generator(z))
    found = attack.run(view(), priors["gmi"], REQUEST, context()).pixels
    close(found, images.view(2, 2, 3, 1, 32, 32))


def test_kedmi_equals_the_published_loop_over_groups(priors):
    attack = ATTACKS["kedmi"].model_copy(update={"iterations": 3})
    target = view()
    generator = load(Generator((1, 32, 32), 4), priors["kedmi"]["generator"])
    discriminator = load(LabelDiscriminator((1, 32, 32), 3), priors["kedmi"]["discriminator"])
    steps = [torch.Generator().manual_seed(derive(0, "attack", "generator", i)) for i in range(3)]
    noise = [torch.randn(6, 4, generator=source).view(2, 3, 4) for source in steps]
    fresh = torch.randn(2, 6, 4, generator=context().generator("draws")).view(2, 2, 3, 4)
    images = torch.zeros(2, 2, 3, 1, 32, 32, dtype=torch.uint8)
    for trial in range(2):
        for labels in ([0, 1], [2]):
            y = torch.tensor([REQUEST.labels[i] for i in labels])
            mean = torch.zeros(len(labels), 4, requires_grad=True)
            logvar = torch.zeros(len(labels), 4, requires_grad=True)
            optimizer = torch.optim.Adam([mean, logvar], lr=0.02)
            for i in range(3):
                x = generator(mean + torch.exp(logvar / 2) * noise[i][trial, labels])
                lse = torch.logsumexp(discriminator(x), 1)
                prior = functional.softplus(lse).mean() - lse.mean()
                loss = prior + 100 * functional.cross_entropy(target.logits(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                for draw in range(2):
                    z = mean + torch.exp(logvar / 2) * fresh[draw, trial, labels]
                    images[trial, draw, labels] = quantise(generator(z))
    close(attack.run(view(), priors["kedmi"], REQUEST, context()).pixels, images)


def test_vmi_moves_its_distribution_to_the_label(priors):
    attack = ATTACKS["vmi-dcgan"].model_copy(update={"iterations": 100, "attack_learning_rate": 0.2, "samples": 8})
    before = ATTACKS["vmi-dcgan"].model_copy(update={"iterations": 1, "attack_learning_rate": 1e-12})
    request, target = Request(labels=(0, 1, 2), draws=20), view()

    def loss(found):
        x = found.pixels.flatten(0, 2).float() / 255
        return functional.cross_entropy(target.logits(x), found.labels.repeat(20)).item()

    runs = [loss(a.run(view(), priors["vmi-dcgan"], request, context())) for a in (before, attack)]
    assert runs[1] < 0.85 * runs[0]


def slow_flow(flow, noise):
    """One flow of a stack, without zuko: samples `N D` of noise `N D`, and log q(x)."""
    x, volume = noise, noise.new_zeros(len(noise))
    half = (x.shape[1] + 1) // 2
    for step in range(len(flow["order"])):
        raw = flow["log_scale"][step, 0]
        log_scale = raw / (1 + (raw / math.log(1e-3)).abs())
        x = (x * log_scale.exp() + flow["shift"][step, 0])[:, flow["order"][step]]
        volume = volume + log_scale.sum()
        hidden = functional.elu(x[:, :half] @ flow["weight1"][step] + flow["bias1"][step])
        hidden = functional.elu(hidden @ flow["weight2"][step] + flow["bias2"][step])
        x = torch.cat((x[:, :half], x[:, half:] + hidden @ flow["weight3"][step] + flow["bias3"][step]), 1)
    return x, standard_normal(noise) - volume


def test_vmi_equals_a_loop_over_labels_and_layers_with_a_shared_quarter_of_the_noise(priors):
    attack, target = ATTACKS["vmi-stylegan"], view()
    generator = load(StyleGenerator((1, 32, 32), 4, 64, 4), priors["vmi-stylegan"]["generator"])
    layers, labels = generator.layers, torch.tensor([2, 0])
    posterior = vmi._Posterior(attack, target, generator, layers, labels, 0, context())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in posterior._flows.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    start = {name: value.detach().clone() for name, value in posterior._flows.state_dict().items()}
    for i in range(2):
        posterior.step(i, torch.Generator().manual_seed(i))
    for k, label in enumerate(labels):
        flows = [{name: value[:, k * layers + l].clone() for name, value in start.items()} for l in range(layers)]  # noqa: E741
        weights = [value.requires_grad_() for flow in flows for name, value in flow.items() if name != "order"]
        optimizer = torch.optim.SGD(weights, lr=1e-4, momentum=0.9)
        for i in range(2):
            noise = torch.randn(2, layers, 2, 4, generator=torch.Generator().manual_seed(i))[k]
            noise = torch.cat((noise[:1, :, :1].expand(layers, -1, -1), noise[:, :, 1:]), 2)
            found = [slow_flow(flow, layer) for flow, layer in zip(flows, noise, strict=True)]
            x = generator(torch.stack([z for z, _ in found], 1)).clamp(0, 1)
            kl = sum((log_q - standard_normal(z)).mean() for z, log_q in found) / layers
            loss = functional.cross_entropy(target.logits(x), label.expand(2)) + 1e-3 * kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for l, flow in enumerate(flows):  # noqa: E741
            for name, value in flow.items():
                moved = posterior._flows.state_dict()[name][:, k * layers + l]
                torch.testing.assert_close(moved, value.detach(), rtol=1e-5, atol=1e-7)
                assert name == "order" or not torch.equal(moved, start[name][:, k * layers + l])


@pytest.mark.parametrize("name", ["gmi", "kedmi"])
def test_the_published_networks_fit(name, real_networks):
    attack = ATTACKS[name].model_copy(update={"max_steps": 1, "n_critic": 1, "batch_size": 2, "iterations": 1})
    request = Request(labels=(1,), draws=1)
    found = attack.run(view(), attack.learn(view(), public(), context()), request, context())
    assert found.pixels.shape == (1, 1, 1, 1, 32, 32)
