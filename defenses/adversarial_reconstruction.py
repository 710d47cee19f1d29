"""Adversarial reconstruction: train the encoder against a decoder that tries to invert it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..benchmark.contracts import Defense
from ..benchmark.core.config import Recipe, StageKind, setting
from ..benchmark.core.evidence import Images
from ..benchmark.core.seeds import derive
from ..benchmark.networks.classifiers.network import Network
from ..benchmark.networks.factory import build_perceptual
from ..benchmark.networks.weights.named import files_of
from ..benchmark.training.batches import Batches
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
        The text trains the simulated adversary on public images X2, Eqs. 7 and 8 on the private images X1. The field
        `simulated_on` chooses; the default follows the equations: the private images of the same batch.

    Note:
        The paper does not state optimisers, step sizes, batch size and training length. Here: Adam with the step size
        of the data set's BiDO recipe for encoder and head, Adam (betas 0.5, 0.999) with `adversary_learning_rate` for
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

    tasks = frozenset({"classes", "attributes"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mnist": {"recipe": {**_recipes.MNIST_ADAM, "learning_rate": 1e-3}},
        "cifar10": {"recipe": _recipes.CIFAR10_ADAM},
        "celeba": {"recipe": _recipes.CELEBA_ADAM},
        "celeba_attributes": {"recipe": _recipes.CELEBA_ATTRIBUTES},
        **_recipes.QUICK,
        "digits@quick": {"recipe": {"max_steps": 250, "batch_size": 32}},
    }

    lambda_1: float = setting(1.0, "weight of the negative pixel distance", ge=0)
    lambda_2: float = setting(0.0, "weight of the negative perceptual distance", ge=0)
    mu_1: float = setting(0.0, "weight of the simulated adversary's adversarial loss", ge=0)
    mu_2: float = setting(0.0, "weight of the simulated adversary's perceptual loss", ge=0)
    layer: str | None = setting(None, "cut layer whose latent Z is protected; none means the network's last latent")
    perceptual: str = setting("vgg16", "network of the perceptual distance, used if lambda_2 or mu_2 is not 0")
    simulated_on: Literal["private", "public"] = setting("private", "training images of the simulated adversary")
    max_channels: int = setting(2048, "widest layer of the simulated decoder", smoke=32, quick=256, ge=1)
    adversary_steps: int = setting(3, "updates of the simulated adversary before each update of encoder and head", ge=1)
    adversary_learning_rate: float = setting(1e-3, "step size of Adam for the simulated adversary", gt=0)
    recipe: Recipe = setting(Recipe(**_recipes.CELEBA_ADAM), "training of encoder and head")

    @property
    def cut_layer(self) -> str | None:
        """Name of the protected latent; `None` for the last."""
        return self.layer

    def files(self, stage: StageKind | None = None) -> Mapping[str, str]:
        """Hashes of the weights of the perceptual network, where it is used."""
        if not (self.lambda_2 or self.mu_2) or stage not in (None, "target"):
            return {}
        return files_of("perceptual", self.perceptual)

    def loss(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        """The utility loss L_u alone, in nats; `train` adds the terms of the simulated adversary."""
        return cross_entropy(network, x, y)

    def train(self, private: Images, context: Context) -> Network:
        """Train encoder and head in alternation with the simulated adversary."""
        game = _AdversarialTraining(self, private, context)
        steps = self.recipe.epochs * game.batches.steps_per_epoch
        steps = min(steps, self.recipe.max_steps or steps)
        context.loop("target", steps, game.state, game.step)
        context.notes["steps"] = steps
        context.notes["epochs"] = steps / game.batches.steps_per_epoch
        return game.network.eval()


class _AdversarialTraining:
    """Alternating updates of the simulated adversary (decoder, discriminator) and of the target (encoder, head)."""

    def __init__(self, defense: AdversarialReconstruction, private: Images, context: Context) -> None:
        self._defense, protocol, device = defense, context.protocol, context.device
        self.batches = context.batches("target", private, defense.recipe.batch_size)
        self._public: Batches | None = None
        if defense.simulated_on == "public":
            assert context.public is not None
            size = defense.recipe.batch_size
            self._public = Batches(context.public(), size, derive(context.seed, "public"), device=device)
        with context.seeded("initialise"):
            self.network = defense.network(protocol).to(device).train()
        self._layer = defense.layer or self.network.layers[-1]
        perceptual = None
        if defense.lambda_2 or defense.mu_2:
            perceptual = build_perceptual(defense.perceptual).to(device)
        latent = self._encode(torch.zeros(1, *protocol.image, device=device)).shape[1:]
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
        x, y = self.batches.at(i)
        assert y is not None
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

    def _adversary_batch(self, i: int, z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents and images that the adversary is trained on."""
        if self._public is None:
            return z.detach(), x
        public = self._public.at(i)[0]
        return self._encode(public), public

    @torch.no_grad()
    def _encode(self, x: Tensor) -> Tensor:
        """Latents of images in evaluation mode, which leaves the statistics of batch norm as they are."""
        self.network.eval()
        z = self.network.encode(x, self._layer)
        self.network.train()
        return z
