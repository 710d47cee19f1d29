"""Minibatch discrimination, with which a discriminator compares the samples of a batch."""

import torch
from torch import Tensor, nn


class MinibatchDiscrimination(nn.Module):
    """Append to each sample its closeness to the others of its group.

    With M = x T, an in x B x C tensor T, and n over the group of sample i:

        o_ib = sum_n exp(-||M_ib - M_nb||_1) - 1          (b = 1 ... B; n = i contributes the 1 that is subtracted)

    The L1 distances are computed kernel by kernel, so that no N x N x B x C tensor is built. Where two samples are
    equal, the distance has the subgradient 0.

    Args:
        features: width of the input.
        kernels: B.
        dims: C.

    References:
        Salimans, Goodfellow, Zaremba, Cheung, Radford, Chen. Improved Techniques for Training GANs. NeurIPS 2016.
        https://arxiv.org/abs/1606.03498

    Note:
        Second derivatives are not available (`torch.cdist` has none); no published attack needs them.

    Example:
        >>> MinibatchDiscrimination(8, kernels=3, dims=2)(torch.zeros(4, 8))[:, 8:]
        tensor([[3., 3., 3.],
                [3., 3., 3.],
                [3., 3., 3.],
                [3., 3., 3.]], grad_fn=<SliceBackward0>)
    """

    def __init__(self, features: int, kernels: int = 64, dims: int = 50) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(features, kernels, dims))
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, group: int | None = None) -> Tensor:
        """Return the samples with their closeness, `N features + kernels`.

        Args:
            x: `N features`.
            group: number of consecutive samples that are compared with each other; the last group is smaller where
                `group` does not divide N. `None` compares all.
        """
        projected = (x @ self.weight.flatten(1)).view(len(x), *self.weight.shape[1:])
        size = min(group or len(x), len(x))
        whole = len(x) - len(x) % size
        parts = [_closeness(projected[:whole].view(-1, size, *self.weight.shape[1:]))]
        if whole < len(x):
            parts.append(_closeness(projected[None, whole:]))
        return torch.cat((x, torch.cat(parts)), dim=1)


def _closeness(projected: Tensor) -> Tensor:
    """Closeness `(G n) B` of the samples `G n B C` of each group."""
    points = projected.transpose(1, 2)
    distances = torch.cdist(points, points, p=1.0)
    return ((-distances).exp().sum(-1) - 1).transpose(1, 2).flatten(0, 1)
