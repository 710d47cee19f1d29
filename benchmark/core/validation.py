"""The validation part, which the harness holds out of the private training images of any data set."""

import torch

from .config import Protocol
from .evidence import Images
from .split import held_out


def split_validation(images: Images, protocol: Protocol) -> tuple[Images, Images]:
    """Split private training images into those that a defense trains on and those that choose the best network.

    Of a label's n images ceil(n / N), drawn by a fixed hash of their positions, are validation images; N is
    `protocol.validation`. As many stay for training as the protocol needs of a label: the reference set of FID, and a
    group of the identity sampler. A label with fewer images keeps all of them.

    The images of an attribute task count as one label, and the last ceil(n / N) of them are held out, so that both
    parts share the memory of `images`: 160,000 faces of 224 x 224 are mapped from a file of 24 GB.

    Args:
        images: the part `private_train` as the data set loads it.
        protocol: of the data set.

    Returns:
        The images to train on and the validation images, each in the order of `images`. The latter are none if the
        protocol asks for none, or if no label can spare one.
    """
    if not protocol.validation:
        return images, images.select(torch.arange(0))
    if protocol.task == "attributes":
        first = len(images) - _spared(len(images), protocol)
        return images.select(slice(first)), images.select(slice(first, None))
    held = torch.zeros(len(images), dtype=torch.bool)
    for label, positions in _by_label(images).items():
        count = _spared(len(positions), protocol)
        if count:
            _, drawn = held_out([str(position) for position in positions], count, "validation", protocol.name, label)
            held[[int(position) for position in drawn]] = True
    return images.select(~held), images.select(held)


def _spared(count: int, protocol: Protocol) -> int:
    """Return how many of a label's `count` images are held out."""
    least = max(protocol.reference, protocol.instances if protocol.sampler == "identity" else 1)
    return max(0, min(-(-count // protocol.validation), count - least))


def _by_label(images: Images) -> dict[int, list[int]]:
    """Return the positions of the images of each label."""
    found: dict[int, list[int]] = {}
    for position, label in enumerate(images.truth("classes").tolist()):
        found.setdefault(label, []).append(position)
    return found
