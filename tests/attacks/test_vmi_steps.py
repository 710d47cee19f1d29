"""VMI's inversion against a loop over trials, labels and layers: loss of one flow at a time, SGD by hand, draws."""

import math

import pytest
import torch
from helpers.toy_attacks import (
    PROTOCOL,
    Recorder,
    assert_gradients,
    context,
    load,
    replace_networks,
    view,
)  # fmt: skip
from privbench.attacks import _inversion, vmi
from privbench.attacks._inversion import cpu_state
from privbench.attacks.vmi import VMI
from privbench.benchmark.core.evidence import Request
from privbench.benchmark.core.seeds import derive
from torch import nn

IMAGE, LATENT = (1, 32, 32), 8
SHARED = 2
REQUEST = Request(labels=(2, 0), draws=3, trials=2)
AT_ONCE = 3
LAYERS = {"dcgan": 1, "stylegan": 8}
FLOWS = {"latent": LATENT, "flow_steps": 2, "flow_hidden": 5, "samples": 3, "iterations": 2}
ATTACKS = {
    "dcgan": VMI(generator="dcgan", attack_learning_rate=0.2, momentum=0.6, kl_weight=0.5, identity_weight=3.0,
                 affine=True, max_gradient=4.0, **FLOWS),
    "stylegan": VMI(channel_base=64, channel_max=4, attack_learning_rate=0.05, kl_weight=20.0, **FLOWS),
}  # fmt: skip


class Flow(nn.Module):
    """One flow out of a stack, without zuko and batches of products."""

    def __init__(self, stack, number, affine):
        super().__init__()
        self.affine = affine
        for name, value in stack.items():
            part = value[:, number].detach().clone()
            if name == "order":
                self.order = part
            else:
                setattr(self, name, nn.Parameter(part.double()))

    def forward(self, noise):
        """Samples `N D` of noise `N D`, and log q(x) `N`."""
        x, volume, half = noise, torch.zeros(len(noise), dtype=torch.double), LATENT // 2
        for step in range(len(self.order)):
            scale = squashed(self.log_scale[step, 0])
            x = (x * scale.exp() + self.shift[step, 0])[:, self.order[step]]
            volume = volume + scale.sum()
            kept, moved = x[:, :half], x[:, half:]
            hidden = elu(kept @ self.weight1[step] + self.bias1[step])
            hidden = elu(hidden @ self.weight2[step] + self.bias2[step])
            change = hidden @ self.weight3[step] + self.bias3[step]
            if self.affine:
                scales = squashed(change[:, half:])
                moved, volume = moved * scales.exp(), volume + scales.sum(1)
            x = torch.cat((kept, moved + (change[:, :half] if self.affine else change)), 1)
        return x, normal(noise) - volume


def squashed(scale):
    """zuko's logarithm of a scale, which stays between log 1e-3 and -log 1e-3."""
    return scale / (1 + (scale / math.log(1e-3)).abs())


def elu(x):
    return torch.where(x > 0, x, x.exp() - 1)


def normal(x):
    return torch.stack([-(x[:, d] ** 2 + math.log(2 * math.pi)) / 2 for d in range(x.shape[1])]).sum(0)


@pytest.fixture(scope="module", params=ATTACKS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def run(kind):
    """Recorder, result, generator in evaluation mode, of two batches of flows: three, then the last one."""
    attack, recorder = ATTACKS[kind], Recorder()
    with pytest.MonkeyPatch.context() as patch:
        replace_networks(patch)
        torch.manual_seed(3)
        generator = attack._build_generator(recorder)
        # A generator whose batch statistics differ from the stored ones, and a StyleGAN2 that leaves [0, 1].
        generator(torch.randn(16, LATENT))
        if kind == "stylegan":
            generator.colours[-1].bias.data += 0.5
        patch.setitem(_inversion.IMAGES_AT_ONCE, "cpu", 3)
        limit = AT_ONCE * attack._count_weights(LAYERS[kind]) + 1
        patch.setitem(vmi.WEIGHTS_AT_ONCE, "cpu", limit)
        found = attack.run(view(), {"generator": cpu_state(generator)}, REQUEST, recorder)
    return recorder, found, load(generator, generator.state_dict()).eval()


def each():
    """Number of the batch, position in it, trial, position of the label."""
    for position in range(4):
        yield *divmod(position, AT_ONCE), *divmod(position, 2)


def flows_of(weights, attack, k):
    """The flows of the layers of the k-th of the labels that are trained together."""
    layers = LAYERS[attack.generator]
    return [Flow(weights["flows"], k * layers + layer, attack.affine) for layer in range(layers)]


def with_shared_quarter(noise):
    """Noise `L N D` whose first quarter is that of the first layer."""
    return torch.stack([torch.cat((noise[0, :, :SHARED], layer[:, SHARED:]), 1) for layer in noise]).double()


def images(kind, generator, latents):
    """Images of the latents `N D` of each layer."""
    return generator(latents[0] if kind == "dcgan" else torch.stack(latents, 1)).clamp(0, 1)


def sizes(number):
    return (AT_ONCE, 4 - AT_ONCE)[number]


def test_three_flows_at_a_time_have_two_steps(run):
    recorder, _, _ = run
    assert list(recorder.updates) == ["attack 0", "attack 1"]
    assert all([update.step for update in updates] == [0, 1] for updates in recorder.updates.values())


def test_each_flow_gets_the_gradient_of_its_own_label_and_divergence(kind, run):
    recorder, _, generator = run
    attack, layers = ATTACKS[kind], LAYERS[kind]
    target = view().network.double()
    clipped, parts = [], {}
    for number, k, _, label in each():
        for update in recorder.updates[f"attack {number}"]:
            draws = torch.Generator().manual_seed(derive(0, f"attack {number}", "generator", update.step))
            noise = torch.randn(sizes(number), layers, 3, LATENT, generator=draws)[k]
            flows = flows_of(update.before, attack, k)
            samples = [flow(layer) for flow, layer in zip(flows, with_shared_quarter(noise), strict=True)]
            identity = 0.0
            for row in target(images(kind, generator, [x for x, _ in samples])):
                identity = identity - (row[REQUEST.labels[label]] - row.logsumexp(0)) / 3
            divergence = sum((log_q - normal(x)).sum() / 3 for x, log_q in samples) / layers
            parts.setdefault((number, update.step), []).append(torch.stack((identity, divergence)).detach())
            loss = attack.identity_weight * identity + attack.kl_weight * divergence
            loss.backward()
            for layer, flow in enumerate(flows):
                expected = {name: parameter.grad for name, parameter in flow.named_parameters()}
                norm = sum((gradient**2).sum() for gradient in expected.values()) ** 0.5
                clipped.append(norm.item() > (attack.max_gradient or math.inf))
                factor = attack.max_gradient / norm if clipped[-1] else 1.0
                found = {n: g[:, k * layers + layer] for n, g in update.gradients["flows"].items()}
                assert_gradients(found, {n: factor * g for n, g in expected.items()}, 1e-3)
    assert set(clipped) == ({True, False} if attack.max_gradient else {False})
    for (number, step), values in parts.items():
        identity, divergence = (sum(values) / len(values)).tolist()
        losses = recorder.losses[f"attack {number}"][step]
        assert losses["identity"] == pytest.approx(identity, rel=1e-3)
        assert losses["kl"] == pytest.approx(divergence, rel=1e-3, abs=1e-5)


def test_flows_move_by_momentum(kind, run):
    recorder, _, _ = run
    attack = ATTACKS[kind]
    for updates in recorder.updates.values():
        velocity = {}
        for update in updates:
            for name, gradient in update.gradients["flows"].items():
                velocity[name] = attack.momentum * velocity.get(name, 0) + gradient
                expected = update.before["flows"][name] - attack.attack_learning_rate * velocity[name]
                torch.testing.assert_close(update.after["flows"][name], expected, rtol=1e-5, atol=1e-7)


def test_flows_that_are_trained_apart_differ(monkeypatch):
    replace_networks(monkeypatch)
    monkeypatch.setitem(vmi.WEIGHTS_AT_ONCE, "cpu", 1)
    attack, recorder = ATTACKS["dcgan"].model_copy(update={"iterations": 1}), Recorder()
    attack.run(view(), {"generator": cpu_state(attack._build_generator(recorder))}, REQUEST, recorder)
    starts = [updates[0].before["flows"]["weight1"] for updates in recorder.updates.values()]
    assert len(starts) == 4
    assert all(not torch.equal(a, b) for i, a in enumerate(starts) for b in starts[:i])


def test_the_result_holds_fresh_draws_of_each_label_and_trial_in_its_place(kind, run):
    recorder, found, generator = run
    attack, layers = ATTACKS[kind], LAYERS[kind]
    assert found.pixels.shape == (2, 3, 2, *PROTOCOL.image) and found.labels.tolist() == [2, 0]
    for number, k, trial, label in each():
        noise = torch.randn(sizes(number), layers, 3, LATENT, generator=context().generator("draws", number))[k]
        flows = flows_of(recorder.updates[f"attack {number}"][-1].after, attack, k)
        latents = [flow(layer)[0] for flow, layer in zip(flows, with_shared_quarter(noise), strict=True)]
        expected = images(kind, generator, latents).mul(255)
        assert (found.pixels[trial, :, label] - expected).abs().max() < 0.51
    assert found.pixels.float().std(1).mean() > 1
