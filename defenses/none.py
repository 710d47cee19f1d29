"""Training without a defense."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from ..benchmark.contracts import Defense
from ..benchmark.core.config import Recipe, setting
from ..benchmark.networks.classifiers.network import Network
from ..benchmark.training.optimisation import cross_entropy
from . import _recipes


class NoDefense(Defense):
    """Plain cross-entropy, the baseline for all defenses.

    The loss is `-mean log softmax(logits)_y`. On attributes it is the mean binary cross-entropy, the baseline of
    Xiao et al. (their lambda_1 = lambda_2 = 0).

    Note:
        Without a preset, the recipe is that of the data set, the same for every defense. `mnist-published`,
        `celeba-published` and `vmi` are the SGD recipes of BiDO's released code, although the paper's App. B.2
        describes Adam for every target; `celeba-adam`, `mnist-adam` and `vmi-printed` are the printed recipes.

    Note:
        The released code has no recipe for CIFAR-10; `cifar10-published` is the printed one.
    """

    tasks = frozenset({"classes", "attributes"})
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mnist-published": {"recipe": _recipes.MNIST_SGD},
        "cifar10-published": {"recipe": _recipes.CIFAR10_ADAM},
        "celeba-published": {"recipe": _recipes.CELEBA_SGD},
        "vmi": {"recipe": _recipes.VMI_NO_DEFENSE},
        "mnist-adam": {"recipe": _recipes.MNIST_ADAM},
        "celeba-adam": {"recipe": _recipes.CELEBA_ADAM},
        "vmi-printed": {"recipe": _recipes.VMI_SGD},
    }

    recipe: Recipe = setting(Recipe(**_recipes.CELEBA_SGD), "training of the target")

    def loss(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy in nats; binary cross-entropy for attributes."""
        return cross_entropy(network, x, y)
