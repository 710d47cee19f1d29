"""Inception network of pytorch-fid, with weights that are already on this machine."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..benchmark.errors import MissingDataError

#: First digits of the file's SHA-256, as in its published name.
SHA256_PREFIX = "6726825d"
FILE = f"pt_inception-2015-12-05-{SHA256_PREFIX}.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
_CHUNK = 16


def weights_path() -> Path:
    """Path at which torch stores the weights that pytorch-fid downloads."""
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


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


def load(path: Path) -> nn.Module:
    """Load the trained network without its classifier, in evaluation mode.

    Raises:
        MissingDataError: the file is not the published one.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(SHA256_PREFIX):
        raise MissingDataError(
            f"expected {path} to have a SHA-256 that starts with {SHA256_PREFIX}, got {digest[:8]}; "
            f"delete it and download {URL} again"
        )
    network = build()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
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
