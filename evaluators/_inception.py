"""Inception network of pytorch-fid, with weights that are already on this machine."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..benchmark.networks.weights import named

#: Name of the weights.
WEIGHTS = "inception_fid"
_CHUNK = 16


def build() -> nn.Module:
    """Build the untrained network: torchvision's Inception v3 with the blocks in which TensorFlow's differs."""
    # These import torchvision, which takes seconds; other evaluators do not need it.
    from pytorch_fid.inception import FIDInceptionA, FIDInceptionC, FIDInceptionE_1, FIDInceptionE_2
    from torchvision.models import inception_v3

    network: nn.Module = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    for letter, inputs, pool in (("b", 192, 32), ("c", 256, 64), ("d", 288, 64)):
        setattr(network, f"Mixed_5{letter}", FIDInceptionA(inputs, pool_features=pool))
    for letter, width in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
        setattr(network, f"Mixed_6{letter}", FIDInceptionC(768, channels_7x7=width))
    network.Mixed_7b = FIDInceptionE_1(1280)
    network.Mixed_7c = FIDInceptionE_2(2048)
    return network


def load() -> nn.Module:
    """Load the trained network without its classifier, in evaluation mode.

    Raises:
        MissingDataError: the weights are missing or are not the published ones.
    """
    state = named.read(WEIGHTS)
    network = build()
    network.load_state_dict(state)
    network.fc = nn.Identity()
    return network.eval()


def features(network: nn.Module, pixels: Tensor) -> NDArray[np.float64]:
    """Pooled features `float64 N 2048` of images `uint8 N C H W`; a single channel is repeated three times.

    Images are resized to 299 x 299 (bilinear) and scaled to [-1, 1], as in pytorch-fid.
    """
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pixels), _CHUNK):
            x = pixels[start : start + _CHUNK].cpu().float().div(255).expand(-1, 3, -1, -1)
            x = nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
            parts.append(network(2 * x - 1).double())
    found: NDArray[np.float64] = torch.cat(parts).numpy()
    return found
