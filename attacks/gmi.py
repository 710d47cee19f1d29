"""GMI: generative model inversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..benchmark.access.views import View, WhiteBoxView
from ..benchmark.contracts import Attack, Prior
from ..benchmark.core.config import Access, setting
from ..benchmark.core.evidence import ClassReconstructions, Images, Request
from ..benchmark.core.seeds import derive
from ..benchmark.training.batches import Batches
from ..benchmark.training.context import Context
from ..benchmark.training.optimisation import frozen, update
from ._inversion import adam, chunk_size, descend, parts, pixels, restored, weights
from .networks.discriminators import Critic
from .networks.generators import Generator


class GMI(Attack):
    """Search the latent space of a WGAN-GP for images that the target gives the attacked label.

    The GAN is trained once on public images, without the target; with x' = G(z), z ~ N(0, I),

        L_D = mean D(x') - mean D(x) + gradient_weight * mean (||grad D(x_hat)||_2 - 1)^2,   L_G = -mean D(x')

    where x_hat = x + a (x' - x), a ~ U(0, 1) for each image. The attack minimises over z in [-1, 1]^D

        -D(G(z)) + identity_weight * CE(T(G(z)), y)

    with Nesterov momentum, one restart for each draw asked for: v' = momentum v - (attack_learning_rate / n) grad and
    z' = clamp(z - momentum v + (1 + momentum) v', -1, 1), which is PyTorch's form of it. All
    restarts count; none is selected.

    References:
        Zhang, Jia, Pei, Wang, Li, Song. The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural
        Networks. CVPR 2020. https://arxiv.org/abs/1911.07135
        Peng, Liu, Zhang, Lan, Ye, Liu, Han. Bilateral Dependency Optimization: Defending Against Model-inversion
        Attacks. KDD 2022. https://arxiv.org/abs/2206.05483 (its released code sets the defaults).

    Note:
        n is the number of labels in a group of the protocol: the published loss is a mean over the labels that are
        optimised together, so that with plain gradient descent the step of each label is divided by their number. All
        restarts, trials and labels run as one batch here, and each keeps that step.

    Note:
        The discriminator of the attack is the one that was trained. For CelebA the released code of BiDO loads the
        generator's file into it, matches no name and goes on with random weights.

    Note:
        Every label, restart and trial starts from its own z. The released code resets the seed before each group of
        60 labels, so that all groups share their starting points.

    Note:
        The budgets `smoke` and `quick` change the batch, the ratio of steps and the step sizes too, since few steps of
        the published recipe leave noise, and limit the restarts; all that were made count, so that n is smaller.

    Note:
        For CIFAR-10, which GMI was not published on, the preset takes MNIST's attack and CelebA's GAN.
    """

    access: ClassVar[Access] = "white_box"
    yields: ClassVar[str] = "ClassReconstructions"
    prior: ClassVar[Literal["none", "public", "target"]] = "public"
    decreasing_losses: ClassVar[Mapping[str, str]] = {"attack": "identity"}
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "celeba": {},
        "mnist": {"learning_rate": 4e-3, "iterations": 3000, "attack_learning_rate": 1e-2},
        "cifar10": {"iterations": 3000, "attack_learning_rate": 1e-2},
        "original": {"epochs": 280, "iterations": 1500},
        "original-mnist": {"epochs": 100, "iterations": 1500, "attack_learning_rate": 1e-2},
    }

    latent: int = setting(100, "dimension of z", ge=1)
    epochs: int = setting(300, "passes of the GAN over the public images", ge=1, stages=("prior",))
    max_steps: int | None = setting(
        None, "discriminator steps at most; none means no cap", smoke=20, quick=150, ge=1, stages=("prior",)
    )
    batch_size: int = setting(64, "public images per step", smoke=8, quick=16, ge=1, stages=("prior",))
    learning_rate: float = setting(2e-4, "step size of Adam for both networks", quick=1e-3, gt=0, stages=("prior",))
    betas: tuple[float, float] = setting((0.5, 0.999), "decay rates of Adam for both networks", stages=("prior",))
    n_critic: int = setting(5, "discriminator steps per generator step", smoke=1, quick=2, ge=1, stages=("prior",))
    gradient_weight: float = setting(10.0, "factor of the gradient penalty", ge=0, stages=("prior",))
    restarts: int | None = setting(
        None,
        "restarts per label and trial at most, all returned; none means as many as draws are asked for",
        smoke=2,
        quick=4,
        ge=1,
        stages=("evidence",),
    )
    iterations: int = setting(2000, "steps of the attack", smoke=20, quick=100, ge=1, stages=("evidence",))
    attack_learning_rate: float = setting(0.02, "step size for z, divided by n", quick=0.01, gt=0, stages=("evidence",))
    momentum: float = setting(0.9, "Nesterov momentum for z", ge=0, lt=1, stages=("evidence",))
    identity_weight: float = setting(100.0, "factor of the cross-entropy", ge=0, stages=("evidence",))

    def learn(self, view: View | None, public: Images, context: Context) -> Prior:
        """Train generator and discriminator on public images."""
        gan = _GAN(self, public, context)
        steps = self.epochs * gan.batches.steps_per_epoch
        steps = min(steps, self.max_steps or steps)
        context.loop("gan", steps, gan.state, gan.step)
        context.notes["gan_steps"] = steps
        return {"generator": weights(gan.generator), "discriminator": weights(gan.critic)}

    def run(self, view: View, prior: Prior, request: Request, context: Context) -> ClassReconstructions:
        """Optimise one z for each label, restart and trial."""
        assert isinstance(view, WhiteBoxView)
        device, image = context.device, context.protocol.image
        generator = restored(Generator(image, self.latent), prior["generator"], device)
        critic = restored(Critic(image), prior["discriminator"], device)
        labels = torch.tensor(request.labels)
        restarts = min(request.draws, self.restarts or request.draws)
        repeats = request.trials * restarts
        targets = labels.repeat(repeats).to(device)
        start = torch.randn(len(targets), self.latent, generator=context.generator("start"), device=device)
        point = nn.ParameterDict({"z": nn.Parameter(start)})
        optimizer = self._optimizer(point)
        cut = parts(len(labels), request.group, repeats, chunk_size(context), whole=False)

        def step(i: int, source: torch.Generator) -> dict[str, Tensor]:
            z = point["z"]
            optimizer.zero_grad(set_to_none=True)
            losses = descend(
                view, targets, cut, lambda part: generator(z[part]), lambda x, _: -critic(x), self.identity_weight
            )
            optimizer.step()
            z.data.clamp_(-1, 1)
            return losses

        context.loop("attack", self.iterations, {"point": point, "optimizer": optimizer}, step)
        z = point["z"].detach().view(request.trials, restarts, len(labels), -1)
        return ClassReconstructions(pixels(generator, z, chunk_size(context)), labels)

    def _optimizer(self, point: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            point.parameters(), lr=self.attack_learning_rate, momentum=self.momentum, nesterov=self.momentum > 0
        )


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """Mean of (||grad D(x_hat)||_2 - 1)^2 at x_hat = real + mix (fake - real), differentiable in the critic.

    Args:
        critic: D, one number per image, without interaction between the images of a batch.
        real: `N C H W`.
        fake: `N C H W`.
        mix: a in [0, 1], `N`.
    """
    between = (real + mix.view(-1, 1, 1, 1) * (fake - real)).detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (torch.linalg.vector_norm(gradient, dim=(1, 2, 3)) - 1).square().mean()
    return penalty


class _GAN:
    """The two networks, their optimisers and one step of training."""

    def __init__(self, attack: GMI, public: Images, context: Context) -> None:
        self._attack, self._device = attack, context.device
        with context.seeded("initialise"):
            self.generator = Generator(context.protocol.image, attack.latent).to(context.device)
            self.critic = Critic(context.protocol.image).to(context.device)
        self._generator_optimizer = adam(self.generator, attack.learning_rate, attack.betas, context.device)
        self._critic_optimizer = adam(self.critic, attack.learning_rate, attack.betas, context.device)
        self.batches = Batches(public, attack.batch_size, derive(context.seed, "gan"), device=context.device)

    @property
    def state(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """Everything that a step changes."""
        return {
            "generator": self.generator,
            "discriminator": self.critic,
            "generator_optimizer": self._generator_optimizer,
            "discriminator_optimizer": self._critic_optimizer,
        }

    def step(self, i: int, source: torch.Generator) -> dict[str, Tensor]:
        """One step of the discriminator, and each `n_critic`-th time one of the generator."""
        real, _ = self.batches.at(i)
        losses = self._discriminate(real, source)
        if (i + 1) % self._attack.n_critic == 0:
            losses["generator"] = self._generate(len(real), source)
        return losses

    def _noise(self, count: int, source: torch.Generator) -> Tensor:
        return torch.randn(count, self._attack.latent, generator=source, device=self._device)

    def _discriminate(self, real: Tensor, source: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.generator(self._noise(len(real), source))
        mix = torch.rand(len(real), generator=source, device=self._device)
        said_real, said_fake = self.critic(torch.cat((real, fake))).chunk(2)
        distance = said_real.mean() - said_fake.mean()
        penalty = gradient_penalty(self.critic, real, fake, mix)
        update(self._critic_optimizer, self._attack.gradient_weight * penalty - distance)
        return {"distance": distance.detach(), "penalty": penalty.detach()}

    def _generate(self, count: int, source: torch.Generator) -> Tensor:
        with frozen(self.critic):
            loss: Tensor = -self.critic(self.generator(self._noise(count, source))).mean()
            update(self._generator_optimizer, loss)
        return loss.detach()
