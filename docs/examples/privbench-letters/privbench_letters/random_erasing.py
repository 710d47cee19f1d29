"""The defense random_erasing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from privbench import Defense, setting

if TYPE_CHECKING:
    from privbench import Network
    from torch import Tensor


class RandomErasing(Defense):
    """Cross-entropy on images with a random rectangle hidden, so that the target never sees a whole image.

    Each step hides one rectangle of each image, with the proportions of the image: its share of the area is uniform on
    [0, `area`], its position is uniform, and its pixels become the mean of the batch.

    References:
        Tran, Nguyen, Mai, Vandierendonck, Assent, Kot, Cheung: Random Erasing vs. Model Inversion: A Promising Defense
        or a False Hope? TMLR 2025. https://arxiv.org/abs/2409.01062

    Note:
        The default of `area` and the uniform share are our choice.
    """

    area: float = setting(0.4, "largest share of an image that is hidden", ge=0, le=1)

    def loss(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy in nats.

        Args:
            network: the target in training mode.
            x: `float32 N C H W` in [0, 1].
            y: `int64 N`.
        """
        from torch.nn import functional

        return functional.cross_entropy(network.logits(erased(x, self.area)), y)


def erased(x: Tensor, area: float) -> Tensor:
    """Hide one rectangle of each image, drawn by PyTorch's global generator, which every step seeds.

    Args:
        x: `float32 N C H W`.
        area: largest share of an image that is hidden, in [0, 1].
    """
    import torch

    count, _, height, width = x.shape
    share = (area * torch.rand(count, 1, 1, device=x.device)).sqrt()
    inside = torch.ones(count, height, width, dtype=torch.bool, device=x.device)
    for size, shape in ((height, (1, height, 1)), (width, (1, 1, width))):
        begin = torch.rand(count, 1, 1, device=x.device) * (1 - share)
        place = (torch.arange(size, device=x.device).view(shape) + 0.5) / size
        inside &= (place >= begin) & (place < begin + share)
    return torch.where(inside.unsqueeze(1), x.mean((0, 2, 3), keepdim=True), x)
