"""Toy networks and images for attacks, a context that remembers every update of a loop, and optimisers by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from privbench.attacks import gmi, kedmi, vmi
from privbench.attacks.networks.minibatch import MinibatchDiscrimination
from privbench.benchmark.access.views import WhiteBoxView
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.core.seeds import derive
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.training.context import Context
from torch import Tensor, nn

from helpers.by_hand import Adam

CPU = torch.device("cpu")
PROTOCOL = Protocol(
    name="toy", version=1, image=(1, 32, 32), classes=3, judge_classes=3, target_network="mcnn", judge_network="scnn",
    attacked=3, draws=2,
)  # fmt: skip
#: Weights of modules by module and name.
Weights = dict[str, dict[str, Tensor]]


def context(seed: int = 0, checkpoint: Any = None) -> Context:
    return Context(PROTOCOL, CPU, seed, checkpoint)


def public(count: int = 7) -> Images:
    return Images(torch.randint(0, 256, (count, 1, 32, 32), generator=torch.Generator().manual_seed(5)).byte())


def view() -> WhiteBoxView:
    """A linear target."""
    torch.manual_seed(0)
    network = Network({"flat": nn.Flatten(), "logits": nn.Linear(1024, 3)})
    return WhiteBoxView(network.eval().requires_grad_(False), PROTOCOL)


class Generator(nn.Module):
    """Replacement of every generator but StyleGAN2; a difference of batch statistics changes its images."""

    def __init__(self, image: Any, latent: int, width: int = 0) -> None:
        super().__init__()
        self.latent = latent
        self.layers = nn.Sequential(nn.Linear(latent, 1024, bias=False), nn.BatchNorm1d(1024), nn.Sigmoid())

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z).unflatten(1, (1, 32, 32))


class Critic(nn.Sequential):
    """Replacement of GMI's discriminator."""

    def __init__(self, image: Any) -> None:
        super().__init__(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))


class LabelDiscriminator(nn.Module):
    """Replacement of KED-MI's discriminator, with the real minibatch discrimination."""

    def __init__(self, image: Any, classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(64, 8), nn.Tanh())
        self.minibatch = MinibatchDiscrimination(8, 3, 2)
        self.output = nn.Linear(11, classes)

    def classify(self, f: Tensor, group: int | None = None) -> Tensor:
        return self.output(self.minibatch(f, group))

    def forward(self, x: Tensor, group: int | None = None) -> Tensor:
        return self.classify(self.features(x), group)


def replace_networks(patch: pytest.MonkeyPatch) -> None:
    """Let attacks build the networks above in place of the published ones."""
    patch.setattr(gmi, "Generator", Generator)
    patch.setattr(gmi, "Critic", Critic)
    patch.setattr(kedmi, "Generator", Generator)
    patch.setattr(kedmi, "LabelDiscriminator", LabelDiscriminator)
    patch.setattr(vmi, "DCGenerator", Generator)


@dataclass
class Update:
    """One step of an optimiser.

    `before` holds all weights where the computation of its loss began; `gradients` and `after` are those of all
    modules of the loop when the optimiser stepped, and when it had stepped.
    """

    step: int
    optimizer: str
    before: Weights
    gradients: dict[str, dict[str, Tensor | None]]
    after: Weights


class Recorder(Context):
    """Context that remembers each update of its loops, and the losses and weights after each step, by loop."""

    def __init__(self, seed: int = 0, protocol: Protocol = PROTOCOL) -> None:
        super().__init__(protocol, CPU, seed)
        self.updates: dict[str, list[Update]] = {}
        self.losses: dict[str, list[dict[str, float]]] = {}
        self.weights: dict[str, list[Weights]] = {}

    def loop(self, name: str, steps: int, state: Any, step: Any) -> None:
        modules = {key: value for key, value in state.items() if isinstance(value, nn.Module)}
        optimizers = {key: value for key, value in state.items() if isinstance(value, torch.optim.Optimizer)}
        updates = self.updates.setdefault(name, [])
        losses = self.losses.setdefault(name, [])
        found = self.weights.setdefault(name, [])
        now: dict[str, Any] = {}

        def weights() -> Weights:
            return {key: {n: t.detach().clone() for n, t in m.state_dict().items()} for key, m in modules.items()}

        def begin(key: str) -> None:
            gradients = {
                member: {n: None if p.grad is None else p.grad.clone() for n, p in module.named_parameters()}
                for member, module in modules.items()
            }
            updates.append(Update(now["step"], key, now["weights"], gradients, {}))

        def end() -> None:
            updates[-1].after = now["weights"] = weights()

        for key, optimizer in optimizers.items():
            optimizer.register_step_pre_hook(lambda *_, key=key: begin(key))
            optimizer.register_step_post_hook(lambda *_: end())

        def recorded(i: int, source: torch.Generator) -> Mapping[str, Tensor]:
            now.update(step=i, weights=weights())
            values = step(i, source)
            losses.append({key: float(value) for key, value in values.items()})
            found.append(weights())
            return values

        super().loop(name, steps, state, recorded)


def load(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Load weights into a module of a transcription, in float64 and in training mode."""
    module.load_state_dict(dict(state))
    return module.double().train()


def slopes(loss: Tensor, module: nn.Module) -> dict[str, Tensor]:
    """Gradients of a loss in the parameters of a module, by name."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def assert_gradients(
    found: Mapping[str, Tensor | None], expected: Mapping[str, Tensor], tolerance: float = 1e-4
) -> None:
    """Compare gradients; the tolerance is a share of the largest of each parameter, and the rounding of a 0."""
    assert found.keys() == expected.keys()
    assert any(value.abs().max() > 1e-4 for value in expected.values())
    for name, value in expected.items():
        gradient, largest = found[name], value.abs().max().item()
        assert gradient is not None, name
        atol = tolerance * largest + 1e-6
        torch.testing.assert_close(gradient.double(), value.double(), rtol=0, atol=atol, msg=name)


def assert_adam(updates: list[Update], module: str, learning_rate: float, betas: tuple[float, float]) -> None:
    """Compare weights with Adam by hand on the gradients of the updates.

    A parameter without gradient stays where it is, and its step does not count.
    """
    optimizers: dict[str, Adam] = {}
    for update in updates:
        for name, gradient in update.gradients[module].items():
            before, after = (weights[module][name].double() for weights in (update.before, update.after))
            expected = before.clone()
            if gradient is not None:
                optimizers.setdefault(name, Adam(betas)).step([expected], [gradient.double()], learning_rate)
            moved = (after - before, expected - before)
            torch.testing.assert_close(*moved, rtol=1e-3, atol=2e-3 * learning_rate, msg=name)
    assert optimizers


def gan_source(i: int) -> torch.Generator:
    """The random numbers of step `i` of the loop `gan` under seed 0."""
    return torch.Generator().manual_seed(derive(0, "gan", "generator", i))


def updates_of(recorder: Recorder, player: str) -> list[Update]:
    """The updates of one player's optimiser, in order."""
    found = [update for updates in recorder.updates.values() for update in updates]
    return [update for update in found if update.optimizer == f"{player}_optimizer"]


def assert_one_moves(
    recorder: Recorder, players: tuple[str, str], learning_rate: float, betas: tuple[float, float]
) -> None:
    """Check that each update moves its own player by Adam and leaves the other as it was."""
    for player, other in (players, players[::-1]):
        updates = updates_of(recorder, player)
        assert_adam(updates, player, learning_rate, betas)
        for update in updates:
            for name in update.gradients[other]:
                assert torch.equal(update.after[other][name], update.before[other][name])
