"""BiDO with the constrained covariance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ..benchmark.core.config import Recipe, setting
from . import _recipes
from ._bido import BiDO, preset

if TYPE_CHECKING:
    from ._dependence import Measure

#: Trained by the authors on CelebA, beside the settings of Table 6: (lambda_x, lambda_y).
_FURTHER = ((1, 5), (1, 20), (1, 50))


class BiDOCOCO(BiDO):
    """Bilateral dependency optimization with COCO: latents that depend little on the image and much on the label.

    `CE + sum_j [ lambda_x COCO(X, Z_j) - lambda_y COCO(Z_j, Y) ]`, `COCO = sqrt(||H K H H L H||) / m`

    Gaussian kernels of bandwidth `sigma sqrt(d)` on X and Z_j, linear kernel on one-hot Y or attributes. The sum is
    over all latents of the network. With `lambda_x=0` or `lambda_y=0` the term is off (Table 5) and costs nothing.

    References:
        Peng, Liu, Zhang, Lan, Ye, Liu, Han: Bilateral Dependency Optimization: Defending Against Model-inversion
        Attacks, KDD 2022. https://arxiv.org/abs/2206.05483

    Note:
        The paper prints the spectral norm (Eq. 2, 9), the released code takes the Frobenius norm, and the published
        weights belong to the latter: for labels of rank r it is larger by r^(1/4). `frobenius` is the default.

    Note:
        The released training script never hands its option `--measure` on, so `--measure=COCO` trains HSIC (and, for
        the VMI experiments, the documented spelling `hsic` matches neither branch). Which of the published COCO
        numbers that touches is unknown; this class always computes COCO.

    Note:
        Table 6 prints (5, 50) for setting c. The released code attributes the printed accuracy of 81.55 % to (5, 25)
        and 73.20 % to (5, 50), so `celeba-c`, the default, is (5, 25) and `celeba-c-printed` is (5, 50).

    Note:
        Where a latent is constant over the batch, COCO is 0 and its square root has no gradient; the gradient is then
        0, not infinite.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mnist": preset(1, 50, _recipes.MNIST_ADAM),
        "cifar10": preset(0.1, 5, _recipes.CIFAR10_ADAM),
        "celeba": preset(5, 25, _recipes.CELEBA_ADAM),
        "celeba_attributes": preset(5, 25, _recipes.CELEBA_ATTRIBUTES),
        "celeba-a": preset(15, 75, _recipes.CELEBA_ADAM),
        "celeba-b": preset(10, 50, _recipes.CELEBA_ADAM),
        "celeba-c": preset(5, 25, _recipes.CELEBA_ADAM),
        "celeba-c-printed": preset(5, 50, _recipes.CELEBA_ADAM),
        **{f"celeba-{x:g}-{y:g}": preset(x, y, _recipes.CELEBA_ADAM) for x, y in _FURTHER},
        **_recipes.QUICK,
        "celeba-table5": preset(10, 50, _recipes.CELEBA_ADAM),
        "celeba-table5-none": preset(0, 0, _recipes.CELEBA_ADAM),
        "celeba-table5-x": preset(10, 0, _recipes.CELEBA_ADAM),
        "celeba-table5-y": preset(0, 50, _recipes.CELEBA_ADAM),
        "vmi": preset(0.05, 2.5, _recipes.VMI_SGD),
        "celeba_vmi": preset(0.05, 2.5, _recipes.VMI_SGD),
    }

    lambda_x: float = setting(5.0, "weight of COCO(X, Z_j); 0 switches the term off", ge=0)
    lambda_y: float = setting(25.0, "weight of COCO(Z_j, Y); 0 switches the term off", ge=0)
    norm: Literal["frobenius", "spectral"] = setting("frobenius", "as released, or Eq. 2")
    recipe: Recipe = setting(Recipe(**_recipes.CELEBA_ADAM), "training of the target")

    def measure(self) -> Measure:
        """The estimator."""
        from ._dependence import COCO_FROBENIUS, COCO_SPECTRAL

        return COCO_FROBENIUS if self.norm == "frobenius" else COCO_SPECTRAL
