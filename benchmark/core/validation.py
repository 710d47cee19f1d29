"""The validation part, which the harness holds out of the private training images of any data set."""

import torch
from torch import Tensor

from .config import Protocol
from .evidence import Images
from .split import held_out


def split_validation(images: Images, protocol: Protocol) -> tuple[Images, Images]:
    """Split private training images into those that a defense trains on and those that choose the best network.

    Of a label's n images ceil(n / N), drawn by a fixed hash of their positions, are validation images; N is
    `protocol.validation`. As many stay for training as the protocol needs of a label: the reference set of FID, and a
    group of the identity sampler. A label with fewer images keeps all of them. The images of an attribute task count as
    one label.

    Args:
        images: the part `private_train` as the data set loads it.
        protocol: of the data set.

    Returns:
        The images to train on and the validation images, each in the order of `images`. The latter are none if the
        protocol asks for none, or if no label can spare one.
    """
    if not protocol.validation:
        return images, images.select(torch.arange(0))
    least = max(protocol.reference, protocol.instances if protocol.sampler == "identity" else 1)
    held = torch.zeros(len(images), dtype=torch.bool)
    for label, positions in _by_label(images, protocol).items():
        count = min(-(-len(positions) // protocol.validation), len(positions) - least)
        if count > 0:
            _, drawn = held_out([str(position) for position in positions], count, "validation", protocol.name, label)
            held[[int(position) for position in drawn]] = True
    return images.select(~held), images.select(held)


def _by_label(images: Images, protocol: Protocol) -> dict[int, list[int]]:
    """Return the positions of the images of each label."""
    labels: Tensor = (
        images.truth("classes") if protocol.task == "classes" else torch.zeros(len(images), dtype=torch.int64)
    )
    found: dict[int, list[int]] = {}
    for position, label in enumerate(labels.tolist()):
        found.setdefault(label, []).append(position)
    return found
