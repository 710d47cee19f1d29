"""GMI: generative model inversion."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..benchmark.access.views import View, WhiteBoxView
from ..benchmark.contracts import Attack, Prior
from ..benchmark.core.config import Protocol, setting
from ..benchmark.core.evidence import ClassReconstructions, Images, Request
from ..benchmark.core.seeds import derive
from ..benchmark.networks.classifiers.requirements import require_square
from ..benchmark.training.batches import Batches
from ..benchmark.training.context import Context
from ..benchmark.training.optimisation import frozen, update
from ._gan import GAN
from ._inversion import accumulate_gradients, chunk_size, cpu_state, generate_images, load_frozen, split_batch
from .networks.discriminators import Critic
from .networks.generators import SIDES, Generator


class GMI(Attack):
    """Optimise GAN latents for the attacked label (GMI).

    The GAN is trained once on public images, without the target; with x' = G(z), z ~ N(0, I),

        L_D = mean D(x') - mean D(x) + gradient_weight * mean (||grad D(x_hat)||_2 - 1)^2,   L_G = -mean D(x')

    where x_hat = x + a (x' - x), a ~ U(0, 1) for each image. The attack minimises over z in [-1, 1]^D

        -D(G(z)) + identity_weight * CE(T(G(z)), y)

    with Nesterov momentum in PyTorch's form, v' = momentum v - (attack_learning_rate / n) grad and
    z' = clamp(z - momentum v + (1 + momentum) v', -1, 1). Each requested draw is one restart. All restarts count; none
    is selected.

    References:
        Zhang, Jia, Pei, Wang, Li, Song. The Secret Revealer: Generative Model-Inversion Attacks Against Deep Neural
        Networks. CVPR 2020. https://arxiv.org/abs/1911.07135
        Peng, Liu, Zhang, Lan, Ye, Liu, Han. Bilateral Dependency Optimization: Defending Against Model-inversion
        Attacks. KDD 2022. https://arxiv.org/abs/2206.05483 (its released code sets the defaults).

    Note:
        n is the number of labels in a group of the protocol. The published loss is a mean over the labels that are
        optimised together, so the step of each label is divided by their number. Here all restarts, trials and labels
        run as one batch, and each keeps that step.

    Note:
        The attack uses the trained discriminator. For CelebA the released code of BiDO loads the generator's file
        into the discriminator, matches no name and continues with random weights.

    Note:
        Every label, restart and trial starts from its own z. The released code resets the seed before each group of
        60 labels, so all groups share their starting points.

    Note:
        The budgets `smoke` and `quick` also change the batch, the ratio of steps and the step sizes, since a few steps
        of the published recipe leave noise. They limit the restarts, so there are fewer draws; all of them count.

    Note:
        GMI was not published on CIFAR-10; the preset combines MNIST's attack with CelebA's GAN.
    """

    access = "white_box"
    prior = "public"
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
        None, "largest number of discriminator steps; none means no cap", smoke=20, quick=150, ge=1, stages=("prior",)
    )
    batch_size: int = setting(64, "public images per step", smoke=8, quick=16, ge=1, stages=("prior",))
    learning_rate: float = setting(2e-4, "step size of Adam for both networks", quick=1e-3, gt=0, stages=("prior",))
    betas: tuple[float, float] = setting((0.5, 0.999), "decay rates of Adam for both networks", stages=("prior",))
    n_critic: int = setting(5, "discriminator steps per generator step", smoke=1, quick=2, ge=1, stages=("prior",))
    gradient_weight: float = setting(10.0, "factor of the gradient penalty", ge=0, stages=("prior",))
    restarts: int | None = setting(
        None,
        "largest number of restarts per label and trial, all returned; none means one per requested draw",
        smoke=2,
        quick=4,
        ge=1,
        stages=("evidence",),
    )
    iterations: int = setting(2000, "steps of the attack", smoke=20, quick=100, ge=1, stages=("evidence",))
    attack_learning_rate: float = setting(0.02, "step size for z, divided by n", quick=0.01, gt=0, stages=("evidence",))
    momentum: float = setting(0.9, "Nesterov momentum for z", ge=0, lt=1, stages=("evidence",))
    identity_weight: float = setting(100.0, "factor of the cross-entropy", ge=0, stages=("evidence",))

    def require(self, protocol: Protocol) -> None:
        """Refuse images for which the published GAN has no layers."""
        require_square("gmi", protocol.image, SIDES)

    def learn(self, view: View | None, public: Images, context: Context) -> Prior:
        """Train the generator and the discriminator on public images."""
        gan = _WassersteinGAN(self, public, context)
        steps = self.epochs * gan.batches.steps_per_epoch
        steps = min(steps, self.max_steps or steps)
        context.loop("gan", steps, gan.state, gan.step)
        context.notes["gan_steps"] = steps
        return {"generator": cpu_state(gan.generator), "discriminator": cpu_state(gan.discriminator)}

    def run(self, view: View, prior: Prior, request: Request, context: Context) -> ClassReconstructions:
        """Optimise one z for each label, restart and trial."""
        assert isinstance(view, WhiteBoxView)
        device, image = context.device, context.protocol.image
        generator = load_frozen(Generator(image, self.latent), prior["generator"], device)
        critic = load_frozen(Critic(image), prior["discriminator"], device)
        labels = torch.tensor(request.labels)
        restarts = min(request.draws, self.restarts or request.draws)
        repeats = request.trials * restarts
        targets = labels.repeat(repeats).to(device)
        start = torch.randn(len(targets), self.latent, generator=context.generator("start"), device=device)
        point = nn.ParameterDict({"z": nn.Parameter(start)})
        optimizer = self._optimizer(point)
        chunks = split_batch(len(labels), request.group, repeats, chunk_size(context), whole=False)

        def step(i: int, source: torch.Generator) -> dict[str, Tensor]:
            z = point["z"]
            optimizer.zero_grad(set_to_none=True)
            losses = accumulate_gradients(
                view, targets, chunks, lambda chunk: generator(z[chunk]), lambda x, _: -critic(x), self.identity_weight
            )
            optimizer.step()
            z.data.clamp_(-1, 1)
            return losses

        context.loop("attack", self.iterations, {"point": point, "optimizer": optimizer}, step)
        z = point["z"].detach().view(request.trials, restarts, len(labels), -1)
        return ClassReconstructions(generate_images(generator, z, chunk_size(context)), labels)

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


class _WassersteinGAN(GAN[Generator, Critic]):
    """The WGAN-GP of an attack."""

    def __init__(self, attack: GMI, public: Images, context: Context) -> None:
        with context.seeded("initialise"):
            generator = Generator(context.protocol.image, attack.latent)
            critic = Critic(context.protocol.image)
        super().__init__(
            generator,
            critic,
            Batches(public, attack.batch_size, derive(context.seed, "gan"), device=context.device),
            latent=attack.latent,
            learning_rate=attack.learning_rate,
            betas=attack.betas,
            device=context.device,
            n_critic=attack.n_critic,
        )
        self._gradient_weight = attack.gradient_weight

    def update_discriminator(self, i: int, real: Tensor, source: torch.Generator) -> dict[str, Tensor]:
        """Raise the distance between the scores of real and generated images, minus the gradient penalty."""
        with torch.no_grad():
            fake = self.generator(self.sample_latents(len(real), source))
        mix = torch.rand(len(real), generator=source, device=real.device)
        real_scores, fake_scores = self.discriminator(torch.cat((real, fake))).chunk(2)
        distance = real_scores.mean() - fake_scores.mean()
        penalty = gradient_penalty(self.discriminator, real, fake, mix)
        update(self.discriminator_optimizer, self._gradient_weight * penalty - distance)
        return {"distance": distance.detach(), "penalty": penalty.detach()}

    def update_generator(self, i: int, real: Tensor, source: torch.Generator) -> Tensor:
        """Raise the scores of generated images."""
        with frozen(self.discriminator):
            fake = self.generator(self.sample_latents(len(real), source))
            loss: Tensor = -self.discriminator(fake).mean()
            update(self.generator_optimizer, loss)
        return loss.detach()
