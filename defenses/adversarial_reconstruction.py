"""Adversarial reconstruction: train the encoder against a decoder that tries to invert it."""

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from ..benchmark.contracts import Defense
from ..benchmark.core.config import Recipe, StageKind, UsedNetwork, setting
from ..benchmark.core.evidence import UNKNOWN, Images
from ..benchmark.core.seeds import derive
from ..benchmark.errors import InvalidConfigurationError
from ..benchmark.networks.classifiers.network import Network
from ..benchmark.networks.factory import build_perceptual
from ..benchmark.training.batches import Batches, batches
from ..benchmark.training.context import Context
from ..benchmark.training.decoder_adversary import Adversary, pixel_distance
from ..benchmark.training.optimisation import cross_entropy, frozen, learning_rate, make_optimizer, task_loss, update
from . import _recipes


class AdversarialReconstruction(Defense):
    """Train the encoder against a simulated decoder.

    The target minimises `min_{Enc, f} L_u - lambda_1 L_p - lambda_2 L_perc` (Eq. 9), against a simulated adversary with
    `min_Dec L_p + mu_1 L_adv + mu_2 L_perc` (Eq. 5). L_u is the task's cross-entropy (binary for attributes), L_p the
    pixel and L_perc the perceptual distance of x and Dec(Z). Each step first updates the decoder (and discriminator)
    with Z fixed, then the encoder and the head with the decoder fixed.

    Z is the latent at `layer`; the layers of the target after Z are the utility head f.

    References:
        Xiao, Tsai, Sohn, Chandraker, Yang: Adversarial Learning of Privacy-Preserving and Task-Oriented
        Representations, AAAI 2020. https://arxiv.org/abs/1911.10143

    Note:
        Eq. 3 as printed swaps the terms of real and reconstructed images; the standard order is used.

    Note:
        The text, the algorithm and Figure 2 train the simulated adversary on public images X2, as the attacker does;
        Eqs. 7 and 8 have the private images X1. The default is X2; with `simulated_on=private` it is the private images
        of the same batch, which a small set lets it memorise.

    Note:
        Rows 7 and 8 of Table 1 train Enc on images of MS-Celeb-1M too, which have no attributes; the paper does not say
        how. With `learns_extra`, a target that is first trained on the private images alone, without the adversary,
        labels the images of `dataset.extra` by its decisions. Each step then adds them to the private images, in
        proportion to their number, and the simulated adversary sees them as well. This approximates the rows. Without
        `learns_extra`, nothing here sees the extra images, only the attacker does.

    Note:
        The paper does not say what batch norm in Enc does. Here it uses the statistics of the batch everywhere: in the
        latents that the adversary learns from, public or private, and in those that Enc is trained on. The running
        statistics come from private images alone. In evaluation mode, the adversary would learn from latents other than
        those against which it is used, which lag behind while Enc changes.

    Note:
        The paper does not state optimisers, step sizes, batch size and training length. Here: the recipe of the
        data set, as for every defense, for encoder and head, Adam (betas 0.5, 0.999) with `adversary_learning_rate` for
        the adversary.

    Note:
        The paper alternates "until convergence"; here `adversary_steps` updates of the adversary precede each update of
        encoder and head. A weak adversary fails even though Z keeps the information, which a newly trained decoder then
        recovers.

    Note:
        L_p is the mean over pixels on a scale of [-1, 1], L_perc a sum over layers of means, so the weights do not
        depend on the image size; the paper prints squared norms without units.

    Note:
        While encoder and head are updated, batch norm in the decoder uses the statistics of the batch, as in training.
    """

    version: ClassVar[int] = 2
    tasks = frozenset({"classes", "attributes"})
    lambda_1: float = setting(1.0, "weight of the negative pixel distance", ge=0)
    lambda_2: float = setting(0.0, "weight of the negative perceptual distance", ge=0)
    mu_1: float = setting(0.0, "weight of the simulated adversary's adversarial loss", ge=0)
    mu_2: float = setting(0.0, "weight of the simulated adversary's perceptual loss", ge=0)
    layer: str | None = setting(None, "cut layer whose latent Z is protected; none means the network's last latent")
    perceptual: str = setting("vgg16", "network of the perceptual distance, used if lambda_2 or mu_2 is not 0")
    simulated_on: Literal["private", "public"] = setting("public", "training images of the simulated adversary")
    learns_extra: bool = setting(
        False, "also train on the images of `dataset.extra`, labelled by a target trained on the private images"
    )
    max_channels: int = setting(2048, "widest layer of the simulated decoder", smoke=32, quick=256, ge=1)
    adversary_steps: int = setting(3, "updates of the simulated adversary before each update of encoder and head", ge=1)
    adversary_learning_rate: float = setting(1e-3, "step size of Adam for the simulated adversary", gt=0)
    recipe: Recipe = setting(Recipe(**_recipes.CELEBA_ADAM), "training of encoder and head")

    @property
    def cut_layer(self) -> str | None:
        """Name of the protected latent; `None` for the last."""
        return self.layer

    def networks(self, stage: StageKind | None = None) -> tuple[UsedNetwork, ...]:
        """The perceptual network, where it is used."""
        is_used = (self.lambda_2 or self.mu_2) and stage in (None, "target")
        return (("perceptual", self.perceptual),) if is_used else ()

    def loss(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        """The utility loss L_u alone, in nats; `train` adds the terms of the simulated adversary."""
        return cross_entropy(network, x, y)

    def train(self, private: Images, context: Context) -> Network:
        """Train encoder and head in alternation with the simulated adversary."""
        game = _AdversarialTraining(self, private, context)
        steps = self.recipe.epochs * game.batches.steps_per_epoch
        steps = min(steps, self.recipe.max_steps or steps)
        chosen = context.selection(
            "target", game.network, self.selection, self.recipe, steps, game.batches.steps_per_epoch
        )

        def step(i: int, generator: torch.Generator) -> dict[str, Tensor]:
            losses = game.step(i, generator)
            chosen.look(i)
            return losses

        context.loop("target", steps, {**game.state, **chosen.state}, step)
        context.notes["selection"] = chosen.finish()
        context.notes["steps"] = steps
        context.notes["epochs"] = steps / game.batches.steps_per_epoch
        return game.network.eval()


class _AdversarialTraining:
    """Alternating updates of the simulated adversary (decoder, discriminator) and of the target (encoder, head)."""

    def __init__(self, defense: AdversarialReconstruction, private: Images, context: Context) -> None:
        self._defense, protocol, device = defense, context.protocol, context.device
        self.batches = context.batches("target", private, defense.recipe.batch_size)
        self._extra = _extra_batches(defense, private, context) if defense.learns_extra else None
        self._public = _public_batches(defense, context) if defense.simulated_on == "public" else None
        with context.seeded("initialise"):
            self.network = defense.network(protocol).to(device).train()
        self._layer = defense.layer or self.network.layers[-1]
        perceptual = None
        if defense.lambda_2 or defense.mu_2:
            perceptual = build_perceptual(defense.perceptual).to(device)
        latent = self._encode(torch.zeros(2, *protocol.image, device=device)).shape[1:]
        with context.seeded("initialise adversary"):
            self._adversary = Adversary(
                latent,
                protocol.image,
                max_channels=defense.max_channels,
                learning_rate=defense.adversary_learning_rate,
                mu_1=defense.mu_1,
                mu_2=defense.mu_2,
                perceptual=perceptual,
                device=device,
            )
        self._optimizer = make_optimizer(defense.recipe, self.network)
        self.state = {"network": self.network, "optimizer": self._optimizer, **self._adversary.state}

    def step(self, i: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Update the adversary `adversary_steps` times, then encoder and head (Eq. 9)."""
        defense = self._defense
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(defense.recipe, i // self.batches.steps_per_epoch)
        x, y = self._labelled_batch(i)
        latents, logits = self.network.trace(x)
        z = latents[self._layer]
        pairs = self._adversary_batch(i, z, x)
        for _ in range(defense.adversary_steps):
            self._adversary.step(*pairs)
        losses = {"loss": task_loss(logits, y)}
        total = losses["loss"]
        with frozen(self._adversary.decoder):
            reconstruction = self._adversary.decoder(z)
            losses["pixels"] = pixel_distance(reconstruction, x).mean()
            total = total - defense.lambda_1 * losses["pixels"]
            if defense.lambda_2:
                losses["perceptual"] = self._adversary.perceptual_distance(reconstruction, x)
                total = total - defense.lambda_2 * losses["perceptual"]
        update(self._optimizer, total)
        return {name: value.detach() for name, value in losses.items()}

    def _labelled_batch(self, i: int) -> tuple[Tensor, Tensor]:
        """Private images, followed by extra ones if there are any, with their labels or attributes."""
        found = [each.at(i) for each in (self.batches, self._extra) if each is not None]
        return torch.cat([x for x, _ in found]), torch.cat([y for _, y in found if y is not None])

    def _adversary_batch(self, i: int, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and images that the adversary is trained on."""
        if self._public is None:
            return z.detach(), x
        public = self._public.at(i)[0]
        return self._encode(public), public

    @torch.no_grad()
    def _encode(self, x: Tensor) -> Tensor:
        """Latents of images under the statistics of their batch, as in training, which are not recorded."""
        norms = [module for module in self.network.modules() if isinstance(module, _BatchNorm)]
        tracked = [norm.track_running_stats for norm in norms]
        for norm in norms:
            norm.track_running_stats = False
        z = self.network.encode(x, self._layer)
        for norm, before in zip(norms, tracked, strict=True):
            norm.track_running_stats = before
        return z


def _public_batches(defense: AdversarialReconstruction, context: Context) -> Batches:
    """Public images for the simulated adversary; a batch has all of them if they are few.

    Raises:
        InvalidConfigurationError: there are fewer than two, too few for the statistics of batch norm.
    """
    known, _ = _split_extra(context)
    images = context.public() if defense.learns_extra and context.public else known
    if len(images) < 2:
        raise InvalidConfigurationError(
            f"expected at least 2 public images for the simulated adversary, got {len(images)}; "
            "use defense.simulated_on=private"
        )
    return Batches(images, defense.recipe.batch_size, derive(context.seed, "public"), device=context.device)


def _extra_batches(defense: AdversarialReconstruction, private: Images, context: Context) -> Batches:
    """Extra images with the decisions of a target that is trained on the private images, as many as their share.

    Raises:
        InvalidConfigurationError: the data set has no extra images.
    """
    _, extra = _split_extra(context)
    if len(extra) == 0:
        raise InvalidConfigurationError(
            "expected dataset.extra to be a folder of images for defense.learns_extra=true, got none; name a folder"
        )
    with context.seeded("initialise teacher"):
        teacher = defense.network(context.protocol)
    context.fit("teacher", teacher, private, defense.recipe, cross_entropy, kept=defense.selection)
    with torch.no_grad():
        size = defense.recipe.batch_size
        logits = torch.cat([teacher.logits(x).cpu() for x, _ in batches(extra, size, context.device)])
    if context.protocol.task == "attributes":
        labelled = replace(extra, attributes=logits > 0)
    else:
        labelled = replace(extra, labels=logits.argmax(1))
    share = max(1, round(defense.recipe.batch_size * len(extra) / len(private)))
    return context.batches("extra", labelled, share, sampler="shuffle")


def _split_extra(context: Context) -> tuple[Images, Images]:
    """Public images of the data set itself, and those of `dataset.extra`, which follow them."""
    assert context.public is not None
    images = context.public()
    known = len(images) if images.identities is None else int((images.identities != UNKNOWN).sum())
    return images.select(slice(known)), images.select(slice(known, None))
