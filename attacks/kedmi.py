"""KED-MI: knowledge-enriched distributional model inversion."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

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
from .networks.discriminators import LabelDiscriminator
from .networks.generators import SIDES, Generator


class KEDMI(Attack):
    """Fit one Gaussian of GAN latents per label (KED-MI).

    The GAN is trained once per target T, on public images with T's soft labels. Its discriminator D has k logits l and
    an implicit fake logit 0, so log p(real) = lse(l) - softplus(lse(l)) with lse the log-sum-exp:

        L_D = mean CE(softmax T(x), softmax D(x))
              + 1/2 mean[softplus(lse D(x_u)) - lse D(x_u) + softplus(lse D(G(z)))]
        L_G = mean_f |mean f(x_u') - mean f(G(z))| + entropy_weight * sum H(softmax D(G(z)))

    x, x_u, x_u' are three shuffles of the public set and f is D's feature before minibatch discrimination. The attack
    minimises over (mu, logvar) of each label y, with one z = mu + exp(logvar / 2) eps per iteration,

        -log p(real | G(z)) + identity_weight * CE(T(G(z)), y)

    and returns `draws` fresh samples of the Gaussian; none is selected.

    References:
        Chen, Kahla, Jia, Qi. Knowledge-Enriched Distributional Model Inversion Attacks. ICCV 2021.
        https://arxiv.org/abs/2010.04092
        Peng, Liu, Zhang, Lan, Ye, Liu, Han. Bilateral Dependency Optimization: Defending Against Model-inversion
        Attacks. KDD 2022. https://arxiv.org/abs/2206.05483 (its released code sets the defaults).

    Note:
        The target stays in evaluation mode while the GAN is trained. The released code leaves it in training mode, so
        the labels depend on batch statistics, and public images change the statistics of the target that is then
        attacked.

    Note:
        The target's labels carry no gradient. The released code computes that gradient and never applies it.

    Note:
        Latents are not clamped. The released code clamps a local variable after each step, which changes nothing.

    Note:
        All trials and labels are optimised as one batch. Minibatch discrimination sees the same groups of labels as
        in the released code, and each group keeps its published loss (a mean over the group). Adam does not depend on
        this scale, up to its eps.

    Note:
        The budgets `smoke` and `quick` also change the batch, the ratio of steps and the step sizes: a few steps of
        the published recipe leave noise, while these show the class.

    Note:
        Random numbers are seeded; the released code sets no seed.
    """

    access = "white_box"
    prior = "target"
    decreasing_losses: ClassVar[Mapping[str, str]] = {"attack": "identity"}
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "mnist": {},
        "cifar10": {},
        "celeba": {},
        "original": {"epochs": 120, "iterations": 2400, "initial_logvar": 1.0},
        "digits@quick": {"max_steps": 90},
        "mnist@quick": {"max_steps": 300},
        "celeba@quick": {"max_steps": 50, "iterations": 40},
    }

    latent: int = setting(100, "dimension of z", ge=1)
    epochs: int = setting(100, "passes of the GAN over the public images", ge=1, stages=("prior",))
    max_steps: int | None = setting(
        None, "largest number of discriminator steps; none means no cap", smoke=20, quick=120, ge=1, stages=("prior",)
    )
    batch_size: int = setting(
        64, "public images per step, from each of the three shuffles", smoke=8, quick=16, ge=2, stages=("prior",)
    )
    learning_rate: float = setting(2e-4, "step size of Adam for both networks", gt=0, stages=("prior",))
    betas: tuple[float, float] = setting((0.5, 0.999), "decay rates of Adam for both networks", stages=("prior",))
    n_critic: int = setting(5, "discriminator steps per generator step", smoke=1, quick=1, ge=1, stages=("prior",))
    entropy_weight: float = setting(
        1e-4, "factor of the entropy, summed over the batch, in the generator's loss", ge=0, stages=("prior",)
    )
    iterations: int = setting(5000, "steps of the attack", smoke=20, quick=80, ge=1, stages=("evidence",))
    attack_learning_rate: float = setting(
        0.02, "step size of Adam for mu and logvar", smoke=0.1, quick=0.05, gt=0, stages=("evidence",)
    )
    identity_weight: float = setting(100.0, "factor of the cross-entropy", ge=0, stages=("evidence",))
    initial_logvar: float = setting(
        0.0, "log-variance before the first step; mu starts at 0", stages=("evidence",), ge=-50, le=50
    )

    def require(self, protocol: Protocol) -> None:
        """Refuse images for which the published GAN has no layers."""
        require_square("kedmi", protocol.image, SIDES)

    def learn(self, view: View | None, public: Images, context: Context) -> Prior:
        """Train the generator and the discriminator on public images and the target's soft labels."""
        assert isinstance(view, WhiteBoxView)
        gan = _LabelledGAN(self, view, public, context)
        steps = self.epochs * gan.batches.steps_per_epoch
        steps = min(steps, self.max_steps or steps)
        context.loop("gan", steps, gan.state, gan.step)
        context.notes["gan_steps"] = steps
        return {"generator": cpu_state(gan.generator), "discriminator": cpu_state(gan.discriminator)}

    def run(self, view: View, prior: Prior, request: Request, context: Context) -> ClassReconstructions:
        """Fit one Gaussian per label and trial, then draw samples from it."""
        assert isinstance(view, WhiteBoxView)
        device, image = context.device, context.protocol.image
        generator = load_frozen(Generator(image, self.latent), prior["generator"], device)
        discriminator = LabelDiscriminator(image, context.protocol.classes)
        discriminator = load_frozen(discriminator, prior["discriminator"], device)
        labels = torch.tensor(request.labels)
        targets = labels.repeat(request.trials).to(device)
        shape = (len(targets), self.latent)
        gaussian = nn.ParameterDict(
            {
                "mean": nn.Parameter(torch.zeros(shape, device=device)),
                "logvar": nn.Parameter(torch.full(shape, self.initial_logvar, device=device)),
            }
        )
        optimizer = torch.optim.Adam(gaussian.parameters(), lr=self.attack_learning_rate)
        chunks = split_batch(len(labels), request.group, request.trials, chunk_size(context), whole=True)

        def step(i: int, source: torch.Generator) -> dict[str, Tensor]:
            noise = torch.randn(shape, generator=source, device=device)

            def images(chunk: slice) -> Tensor:
                x: Tensor = generator(_sample(gaussian, noise[chunk], chunk))
                return x

            optimizer.zero_grad(set_to_none=True)
            losses = accumulate_gradients(
                view, targets, chunks, images, lambda x, group: fakeness(discriminator(x, group)), self.identity_weight
            )
            optimizer.step()
            return losses

        context.loop("attack", self.iterations, {"gaussian": gaussian, "optimizer": optimizer}, step)
        source = context.generator("draws")
        noise = torch.randn(request.draws, *shape, generator=source, device=device)
        with torch.no_grad():
            z = _sample(gaussian, noise, slice(None))
        z = z.view(request.draws, request.trials, len(labels), -1).transpose(0, 1)
        return ClassReconstructions(generate_images(generator, z, chunk_size(context)), labels)


def fakeness(logits: Tensor) -> Tensor:
    """-log p(real) = softplus(lse) - lse of each row of logits `N k`, where the fake class has the logit 0."""
    return functional.softplus(-logits.logsumexp(1))


def discriminator_loss(labelled: Tensor, unlabelled: Tensor, fake: Tensor, target: Tensor) -> Tensor:
    """L_D from D's logits of x, x_u and G(z) and the target's logits of x, all `N k`."""
    supervised = functional.cross_entropy(labelled, target.softmax(1))
    lse = fake.logsumexp(1)
    return supervised + 0.5 * (fakeness(unlabelled).mean() + functional.softplus(lse).mean())


def generator_loss(real: Tensor, fake: Tensor, logits: Tensor, entropy_weight: float) -> Tensor:
    """L_G from D's features of x_u' and G(z), `N F`, and D's logits of G(z), `N k`."""
    entropy = -(logits.softmax(1) * logits.log_softmax(1)).sum()
    return (real.mean(0) - fake.mean(0)).abs().mean() + entropy_weight * entropy


def _sample(gaussian: nn.ParameterDict, noise: Tensor, rows: slice) -> Tensor:
    mean, logvar = gaussian["mean"][rows], gaussian["logvar"][rows]
    z: Tensor = mean + (logvar / 2).exp() * noise
    return z


class _LabelledGAN(GAN[Generator, LabelDiscriminator]):
    """The GAN of an attack, with the target's soft labels; `batches` holds x, two more shuffles hold x_u and x_u'."""

    def __init__(self, attack: KEDMI, view: WhiteBoxView, public: Images, context: Context) -> None:
        with context.seeded("initialise"):
            generator = Generator(context.protocol.image, attack.latent)
            discriminator = LabelDiscriminator(context.protocol.image, context.protocol.classes)
        labelled, self._unlabelled, self._matched = (
            Batches(public, attack.batch_size, derive(context.seed, "gan", shuffle), device=context.device)
            for shuffle in ("labelled", "unlabelled", "matched")
        )
        super().__init__(
            generator,
            discriminator,
            labelled,
            latent=attack.latent,
            learning_rate=attack.learning_rate,
            betas=attack.betas,
            device=context.device,
            n_critic=attack.n_critic,
        )
        self._view, self._entropy_weight = view, attack.entropy_weight

    def update_discriminator(self, i: int, real: Tensor, source: torch.Generator) -> dict[str, Tensor]:
        """Train the discriminator to predict the target's labels and to separate public from generated images."""
        unlabelled = self._unlabelled.at(i)[0]
        with torch.no_grad():
            target = self._view.logits(real)
            fake = self.generator(self.sample_latents(len(real), source))
        x = torch.cat((real, unlabelled, fake))
        logits, unlabelled_logits, fake_logits = self.discriminator(x, group=len(real)).chunk(3)
        loss = discriminator_loss(logits, unlabelled_logits, fake_logits, target)
        update(self.discriminator_optimizer, loss)
        return {"discriminator": loss.detach()}

    def update_generator(self, i: int, real: Tensor, source: torch.Generator) -> Tensor:
        """Match the mean feature of public images, and lower the entropy of the labels."""
        with frozen(self.discriminator):
            with torch.no_grad():
                matched = self.discriminator.features(self._matched.at(i)[0])
            fake = self.discriminator.features(self.generator(self.sample_latents(len(matched), source)))
            loss = generator_loss(matched, fake, self.discriminator.classify(fake), self._entropy_weight)
            update(self.generator_optimizer, loss)
        return loss.detach()
