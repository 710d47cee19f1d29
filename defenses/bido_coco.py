"""BiDO with the constrained covariance (COCO)."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ..benchmark.core.config import Recipe, setting
from . import _recipes
from ._bido import VMI_SCALE, BiDO, preset
from ._hsic_coco import COCO_FROBENIUS, COCO_SPECTRAL, Measure

#: Further weights (lambda_x, lambda_y) that the authors trained on CelebA, besides the settings of Table 6.
_FURTHER = ((1, 5), (1, 20), (1, 50))


class BiDOCOCO(BiDO):
    """Bilateral dependency optimization with COCO.

    The loss makes latents depend little on the image and much on the label:

    `CE + sum_j [ lambda_x COCO(X, Z_j) - lambda_y COCO(Z_j, Y) ]`, `COCO = sqrt(||H K H H L H||) / m`

    Gaussian kernels of bandwidth `sigma sqrt(d)` on X and Z_j, linear kernel on one-hot Y or attributes. The sum is
    over all latents of the network. With `lambda_x=0` or `lambda_y=0` the term is disabled (Table 5) and not computed.

    References:
        Peng, Liu, Zhang, Lan, Ye, Liu, Han: Bilateral Dependency Optimization: Defending Against Model-inversion
        Attacks, KDD 2022. https://arxiv.org/abs/2206.05483

    Note:
        The paper prints the spectral norm (Eq. 2, 9), the released code uses the Frobenius norm, and the published
        weights belong to the latter: for labels of rank r it is larger by r^(1/4). `frobenius` is the default.

    Note:
        The released training script ignores its option `--measure`, so `--measure=COCO` trains HSIC (and, for the VMI
        experiments, the documented spelling `hsic` matches neither branch). It is unknown which of the published COCO
        numbers this affects; this class always computes COCO.

    Note:
        Table 6 prints (5, 50) for setting c. The released code gives the printed accuracy of 81.55 % for (5, 25) and
        73.20 % for (5, 50), so `celeba-c`, the default, is (5, 25) and `celeba-c-printed` is (5, 50).

    Note:
        Where a latent is constant over the batch, COCO is 0 and the gradient of its square root is infinite; here the
        gradient is then 0.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mnist": preset(1, 50),
        "mnist-published": preset(1, 50, _recipes.MNIST_ADAM),
        "cifar10": preset(0.1, 5),
        "cifar10-published": preset(0.1, 5, _recipes.CIFAR10_ADAM),
        "celeba": preset(5, 25),
        "celeba_attributes": preset(5, 25),
        "celeba-a": preset(15, 75, _recipes.CELEBA_ADAM),
        "celeba-b": preset(10, 50, _recipes.CELEBA_ADAM),
        "celeba-c": preset(5, 25, _recipes.CELEBA_ADAM),
        "celeba-c-printed": preset(5, 50, _recipes.CELEBA_ADAM),
        **{f"celeba-{x:g}-{y:g}": preset(x, y, _recipes.CELEBA_ADAM) for x, y in _FURTHER},
        "celeba-table5": preset(10, 50, _recipes.CELEBA_ADAM),
        "celeba-table5-none": preset(0, 0, _recipes.CELEBA_ADAM),
        "celeba-table5-x": preset(10, 0, _recipes.CELEBA_ADAM),
        "celeba-table5-y": preset(0, 50, _recipes.CELEBA_ADAM),
        "vmi": preset(0.05, 2.5, _recipes.VMI_SGD, x_scale=VMI_SCALE),
        "celeba_vmi": preset(0.05, 2.5, x_scale=VMI_SCALE),
    }

    lambda_x: float = setting(5.0, "weight of COCO(X, Z_j); 0 disables the term", ge=0)
    lambda_y: float = setting(25.0, "weight of COCO(Z_j, Y); 0 disables the term", ge=0)
    norm: Literal["frobenius", "spectral"] = setting("frobenius", "as released, or Eq. 2")
    recipe: Recipe = setting(Recipe(**_recipes.CELEBA_ADAM), "training of the target")

    def measure(self) -> Measure:
        """The dependence measure of the field `norm`."""
        return COCO_FROBENIUS if self.norm == "frobenius" else COCO_SPECTRAL
