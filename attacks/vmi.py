"""VMI: variational model inversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..benchmark.access.views import View, WhiteBoxView
from ..benchmark.contracts import Attack, Prior
from ..benchmark.core.config import Access, setting
from ..benchmark.core.evidence import ClassReconstructions, Images, Request
from ..benchmark.core.seeds import derive
from ..benchmark.training.batches import Batches
from ..benchmark.training.context import Context
from ._gan import AdversarialPair, Design, Schedule
from ._inversion import chunk_size, descend, parts, pixels, restored, weights
from .networks.flows import CouplingFlows, divergence
from .networks.stylegan import StyleGenerator

#: Weights of flows that are trained at once, by kind of device; gradient and momentum take as much again, each.
WEIGHTS_AT_ONCE = {"cpu": 5e7, "cuda": 1e9}


class VMI(Attack):
    """Fit, for each label, a distribution over the latents of a GAN to the target's posterior.

    The GAN is trained on public images, without the target. The attack minimises over flows q, one per label,

        E_{z ~ q} CE(T(G(z)), y) + kl_weight KL(q || N(0, I))

    with `samples` draws of q per iteration for both terms, by SGD with momentum. For a StyleGAN2, q is one flow per
    layer of the synthesis; all are fed the same noise, each gives the z whose w its layer gets, and the KL is their
    mean. The result is `draws` fresh samples after the last iteration; none is selected.

    References:
        Wang, Fu, Li, Khisti, Zemel, Makhzani. Variational Model Inversion Attacks. NeurIPS 2021.
        https://arxiv.org/abs/2201.10787
        Peng, Liu, Zhang, Lan, Ye, Liu, Han. Bilateral Dependency Optimization: Defending Against Model-inversion
        Attacks. KDD 2022. https://arxiv.org/abs/2206.05483 (its released code sets the defaults).

    Note:
        The distribution after the last iteration is evaluated. BiDO's released code reports the iteration with the
        highest accuracy of the evaluation model, which lets the judge choose.

    Note:
        The flows of all labels, trials and layers run as one batch of matrix products in float32, as many at a time
        as memory takes; the released code runs them one after the other in float64. Each flow has its own weights and
        the losses are summed over labels, so that SGD moves each as it would alone.

    Note:
        A flow has `flow_steps` steps over all dimensions. The published Glow halves its dimensions after 10 and 20 of
        its 30 steps and draws the halved ones from learned Gaussians; its networks also normalise their hidden layers
        by data. A step here starts as a permutation, so that q starts as N(0, I), where Glow starts near it.

    Note:
        The StyleGAN2 is trained without adaptive augmentation, path-length regularisation and the correction of
        Adam's constants for the interval of R1, which the public images are enough for.

    Note:
        How long the DCGANs were trained is not published; they see as many images as the StyleGAN2.

    Note:
        The budgets `smoke` and `quick` make the flows and the StyleGAN2 smaller and the step sizes larger: the
        published ones hardly move a distribution in so few iterations. They also cut gradients, without which such
        steps diverge on targets with large logits, as BiDO-COCO's.

    Note:
        For CIFAR-10 the preset takes the defaults of VMI's DCGAN script; the one for MNIST is from BiDO's code.
    """

    access: ClassVar[Access] = "white_box"
    yields: ClassVar[str] = "ClassReconstructions"
    prior: ClassVar[Literal["none", "public", "target"]] = "public"
    decreasing_losses: ClassVar[Mapping[str, str]] = {"attack *": "identity"}
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "celeba": {},
        "mnist": {
            "generator": "dcgan",
            "latent": 50,
            "width": 10,
            "spectral": True,
            "instance_noise": 0.1,
            "learning_rate": 2e-4,
            "betas": (0.5, 0.999),
            "flow_steps": 5,
        },
        "cifar10": {
            "generator": "dcgan",
            "latent": 100,
            "learning_rate": 2e-4,
            "betas": (0.5, 0.999),
            "flow_steps": 5,
        },
        "original": {"samples": 64, "iterations": 3140},
    }

    generator: Literal["dcgan", "stylegan"] = setting("stylegan", "kind of GAN")
    latent: int = setting(512, "dimension of z, and of w in a StyleGAN2", ge=2)
    width: int = setting(64, "channels of a DCGAN before its last layer (ngf = ndf)", ge=1)
    spectral: bool = setting(False, "spectral normalisation in a DCGAN's discriminator", stages=("prior",))
    channel_base: int = setting(16384, "StyleGAN2: channels times side of a layer", smoke=256, quick=512, ge=64)
    channel_max: int = setting(512, "StyleGAN2: channels of a layer at most", smoke=16, quick=64, ge=1)
    mapping_layers: int = setting(2, "StyleGAN2: layers from z to w", ge=1)
    shown: int = setting(2_298_000, "public images that the GAN's discriminator sees", ge=1, stages=("prior",))
    max_steps: int | None = setting(
        None, "steps of the GAN at most; none means no cap", smoke=20, quick=400, ge=1, stages=("prior",)
    )
    batch_size: int = setting(64, "public images per step", smoke=8, quick=32, ge=1, stages=("prior",))
    learning_rate: float = setting(2.5e-3, "step size of Adam for both networks", quick=1e-3, gt=0, stages=("prior",))
    betas: tuple[float, float] = setting((0.0, 0.99), "decay rates of Adam for both networks", stages=("prior",))
    instance_noise: float = setting(
        0.0, "standard deviation of noise on the discriminator's input in [-1, 1]", ge=0, stages=("prior",)
    )
    r1_weight: float = setting(0.0128, "StyleGAN2: gamma of the R1 penalty", ge=0, stages=("prior",))
    r1_interval: int = setting(16, "StyleGAN2: steps between R1 penalties", ge=1, stages=("prior",))
    style_mixing: float = setting(0.9, "StyleGAN2: probability of mixing two z", ge=0, le=1, stages=("prior",))
    average_images: int = setting(
        20_000, "StyleGAN2: half-life in images of the averaged weights", ge=0, stages=("prior",)
    )
    flow_steps: int = setting(30, "couplings of a flow", smoke=2, quick=4, ge=1, stages=("evidence",))
    flow_hidden: int = setting(
        100, "width of the networks in a coupling", smoke=16, quick=32, ge=1, stages=("evidence",)
    )
    affine: bool = setting(False, "couplings scale besides adding", stages=("evidence",))
    samples: int = setting(32, "draws of q per label and iteration", smoke=2, quick=4, ge=1, stages=("evidence",))
    iterations: int = setting(320, "steps of the attack", smoke=20, quick=80, ge=1, stages=("evidence",))
    attack_learning_rate: float = setting(
        1e-4, "step size of SGD for the flows", smoke=5e-3, quick=5e-3, gt=0, stages=("evidence",)
    )
    momentum: float = setting(0.9, "momentum of SGD for the flows", ge=0, lt=1, stages=("evidence",))
    max_gradient: float | None = setting(
        None,
        "norm to which the gradient of a flow is cut; none cuts nothing",
        smoke=5.0,
        quick=5.0,
        gt=0,
        stages=("evidence",),
    )
    kl_weight: float = setting(1e-3, "factor of KL(q || N(0, I))", ge=0, stages=("evidence",))
    identity_weight: float = setting(1.0, "factor of the cross-entropy", ge=0, stages=("evidence",))

    def learn(self, view: View | None, public: Images, context: Context) -> Prior:
        """Train the GAN on public images; the generator's averaged weights are kept."""
        style = self.generator == "stylegan"
        schedule = Schedule(
            self.learning_rate,
            self.betas,
            self.instance_noise,
            self.r1_weight if style else 0.0,
            self.r1_interval,
            self.style_mixing,
            self.average_images if style else 0,
        )
        batches = Batches(public, self.batch_size, derive(context.seed, "gan"), device=context.device)
        with context.seeded("initialise"):
            gan = AdversarialPair(self._design(context), schedule, batches, context.device)
        steps = -(-self.shown // self.batch_size)
        steps = min(steps, self.max_steps or steps)
        context.loop("gan", steps, gan.state, gan.step)
        context.notes["gan_steps"] = steps
        return {"generator": weights(gan.average)}

    def run(self, view: View, prior: Prior, request: Request, context: Context) -> ClassReconstructions:
        """Fit and sample the distribution of every label and trial."""
        assert isinstance(view, WhiteBoxView)
        generator = restored(self._design(context).generator(), prior["generator"], context.device)
        layers = generator.layers if isinstance(generator, StyleGenerator) else 1
        labels = torch.tensor(request.labels)
        block = max(1, int(WEIGHTS_AT_ONCE.get(context.device.type, WEIGHTS_AT_ONCE["cpu"]) // self._weights(layers)))
        images = []
        for number, targets in enumerate(torch.split(labels.repeat(request.trials), block)):
            posterior = _Posterior(self, view, generator, layers, targets, number, context)
            context.loop(f"attack {number}", self.iterations, posterior.state, posterior.step)
            images.append(pixels(posterior.images, posterior.draw(request.draws), chunk_size(context)))
        found = torch.cat(images)
        found = found.view(request.trials, len(labels), *found.shape[1:]).transpose(1, 2)
        return ClassReconstructions(found.contiguous(), labels)

    def _design(self, context: Context) -> Design:
        return Design(
            self.generator,
            context.protocol.image,
            self.latent,
            self.width,
            self.spectral,
            self.channel_base,
            self.channel_max,
            self.mapping_layers,
        )

    def _weights(self, layers: int) -> int:
        """About how many weights the flows of one label have."""
        return layers * self.flow_steps * (self.flow_hidden * (self.latent + self.flow_hidden) + 2 * self.latent)


class _Posterior:
    """The distributions of some labels, and one step towards them."""

    def __init__(
        self,
        attack: VMI,
        view: WhiteBoxView,
        generator: torch.nn.Module,
        layers: int,
        labels: Tensor,
        number: int,
        context: Context,
    ) -> None:
        self._attack, self._view, self._generator, self._layers = attack, view, generator, layers
        self._count, self._device = len(labels), context.device
        self._targets = labels.to(context.device).repeat_interleave(attack.samples)
        self._source = context.generator("draws", number)
        with context.seeded("flows", number):
            self._flows = CouplingFlows(
                self._count * layers, attack.latent, attack.flow_steps, attack.flow_hidden, attack.affine
            ).to(context.device)
        self._optimizer = torch.optim.SGD(
            self._flows.parameters(), lr=attack.attack_learning_rate, momentum=attack.momentum
        )
        self._cut = parts(attack.samples, attack.samples, self._count, chunk_size(context), whole=False)

    @property
    def state(self) -> Mapping[str, torch.nn.Module | torch.optim.Optimizer]:
        """Everything that a step changes."""
        return {"flows": self._flows, "optimizer": self._optimizer}

    def step(self, i: int, source: torch.Generator) -> dict[str, Tensor]:
        """One step of SGD; the images' gradients reach the flows through the latents, part by part."""
        z, divergences = self._sample(self._attack.samples, source)
        leaf = z.detach().flatten(0, 1).requires_grad_(True)
        losses = descend(
            self._view,
            self._targets,
            self._cut,
            lambda part: self.images(leaf[part]),
            lambda x, _: x.new_zeros(len(x)),
            self._attack.identity_weight,
        )
        assert leaf.grad is not None
        self._optimizer.zero_grad(set_to_none=True)
        penalty = self._attack.kl_weight * divergences.sum() / self._layers
        torch.autograd.backward((z, penalty), (leaf.grad.view_as(z), None))
        if self._attack.max_gradient is not None:
            _cut(self._flows, self._attack.max_gradient)
        self._optimizer.step()
        return {"identity": losses["identity"], "kl": divergences.detach().mean()}

    def images(self, z: Tensor) -> Tensor:
        """Images `N C H W` in [0, 1] of latents `N L*D`."""
        if self._layers > 1:
            z = z.view(len(z), self._layers, -1)
        images: Tensor = self._generator(z).clamp(0, 1)
        return images

    @torch.no_grad()
    def draw(self, draws: int) -> Tensor:
        """Latents of fresh samples, `labels draws L*D`."""
        return self._sample(draws, self._source)[0]

    def _sample(self, count: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents `labels count L*D` and the divergence of each flow; the layers of a sample share their noise."""
        shape = (self._count, 1, count, self._attack.latent)
        noise = torch.randn(shape, generator=source, device=self._device)
        z, log_q = self._flows(noise.expand(-1, self._layers, -1, -1).flatten(0, 1))
        divergences = divergence(z, log_q)
        z = z.view(self._count, self._layers, count, -1).transpose(1, 2).flatten(2)
        return z, divergences


def _cut(flows: CouplingFlows, largest: float) -> None:
    """Scale the gradient of each flow, the second dimension of every parameter, to a norm of at most `largest`."""
    gradients = [p.grad for p in flows.parameters() if p.grad is not None]
    norms = torch.stack([g.square().sum((0, 2, 3)) for g in gradients]).sum(0).sqrt()
    factors = (largest / norms.clamp_min(largest)).view(1, -1, 1, 1)
    for gradient in gradients:
        gradient.mul_(factors)
