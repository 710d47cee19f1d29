"""Mutual information regularization by a variational information bottleneck."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..benchmark.contracts import Defense
from ..benchmark.core.config import Protocol, Recipe, Task, setting
from . import _recipes

if TYPE_CHECKING:
    from torch import Tensor

    from ..benchmark.networks.classifiers.network import Network


def _preset(beta: float, recipe: Mapping[str, Any]) -> dict[str, Any]:
    return {"beta": beta, "recipe": recipe}


class MID(Defense):
    """Mutual information regularization based defense: the classifier sees a noisy code that holds little of the image.

    `CE + beta KL(N(mu, sigma^2) || N(0, I))`, `z = mu + sigma e`, `e ~ N(0, I)`, `sigma = softplus(s - 5)`

    A linear layer maps the feature (`d`) to mu and s (`k = d/2` each), and another maps z to the logits. KL is summed
    over the k dimensions and averaged over the batch; it bounds I(X; Z) from above. One sample of e a forward pass.

    References:
        Wang, Zhang, Wang, Liu, Sarwate, Jia: Improving Robustness to Model Inversion Attacks via Mutual Information
        Regularization, AAAI 2021. https://arxiv.org/abs/2009.05241
        Alemi, Fischer, Dillon, Murphy: Deep Variational Information Bottleneck, ICLR 2017.
        Hyperparameters and details from Peng et al.: Bilateral Dependency Optimization, KDD 2022, and its code.

    Note:
        The noise is drawn in evaluation mode too, at test and at attack time, as in the released code, so logits are
        random; `test_noise=False` uses the mean there.

    Note:
        The released code draws the noise on the CPU and moves it; here it is drawn on the device of the network, from
        PyTorch's global generator, which the harness seeds.

    Note:
        The released VMI experiments take beta = 0 (Table 7, preset `vmi`): the bottleneck alone, without the penalty.

    Note:
        The released training script loops over beta = 0.1 only. For MNIST its other files give 0.2 with 97.42 %, the
        paper's accuracy, and 0.1 with 99.06 % (preset `mnist-0.1`).

    Note:
        For CIFAR-10 the released script builds a network of another width and cannot run; preset `cifar10` takes beta
        from Table 8 and the paper's recipe.

    Note:
        MID was published for classes. On attributes CE is the mean binary cross-entropy, and preset `celeba_attributes`
        takes CelebA's beta.
    """

    tasks: ClassVar[frozenset[Task]] = frozenset({"classes", "attributes"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mnist": _preset(0.2, _recipes.MNIST_MID),
        "mnist-0.1": _preset(0.1, _recipes.MNIST_MID),
        "cifar10": _preset(0.15, _recipes.CIFAR10_ADAM),
        "celeba": _preset(0.003, _recipes.CELEBA_MID),
        "celeba_attributes": _preset(0.003, _recipes.CELEBA_ATTRIBUTES),
        "celeba-a": _preset(0.02, _recipes.CELEBA_MID),
        "celeba-b": _preset(0.01, _recipes.CELEBA_MID),
        "celeba-c": _preset(0.003, _recipes.CELEBA_MID),
        "vmi": _preset(0.0, _recipes.VMI_SGD),
        "celeba_vmi": _preset(0.0, _recipes.VMI_SGD),
        "mnist-adam": _preset(0.2, _recipes.MNIST_ADAM),
        "celeba-adam": _preset(0.003, _recipes.CELEBA_ADAM),
        **_recipes.QUICK,
        "digits@quick": {"recipe": {"max_steps": 220}},
    }

    beta: float = setting(0.003, "weight of KL, in units of cross-entropy per nat", ge=0)
    test_noise: bool = setting(True, "draw noise outside training too, as released; if not, use the mean")
    recipe: Recipe = setting(Recipe(**_recipes.CELEBA_MID), "training of the target")

    def network(self, protocol: Protocol) -> Network:
        """The protocol's target with the bottleneck after its feature; the latent `bottleneck` is z."""
        from ._bottleneck import insert

        return insert(super().network(protocol), protocol.classes, test_noise=self.test_noise)

    def loss(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        """Mean (binary) cross-entropy of one noisy pass, plus beta times the mean KL, in nats."""
        from ..benchmark.training.optimisation import task_loss
        from ._bottleneck import Bottleneck

        bottleneck = network.stages["bottleneck"]
        assert isinstance(bottleneck, Bottleneck)
        mean, scale = bottleneck.statistics(network.encode(x, network.layers[-2]))
        logits = network.head(bottleneck.sample(mean, scale), "bottleneck")
        penalty = self.beta * bottleneck.divergence(mean, scale).mean() if self.beta else 0.0
        return task_loss(logits, y) + penalty
