"""Faces: a protocol of crops of CelebA, and real faces."""

import collections
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from privbench.benchmark.core.config import Protocol
from torch import Tensor

#: Left, top, width and height of the common crop of CelebA's aligned images, in pixels.
BOX = (35, 55, 108, 108)


def protocol(box: tuple[int, int, int, int] | None = BOX, size: int = 64) -> Protocol:
    """A protocol of two people, of square images of a box."""
    return Protocol(
        name="synthetic",
        version=1,
        image=(3, size, size),
        classes=2,
        judge_classes=2,
        target_network="none",
        judge_network="none",
        attacked=1,
        draws=1,
        face_box=box,
    )


def crops(folder: Path) -> tuple[Tensor, np.ndarray]:
    """Five faces of each of 40 people in the common crop, 64 x 64, and their identities; skips if there are none."""
    listing = folder / "identity_CelebA.txt"
    if not listing.is_file() or not (folder / "img_align_celeba").is_dir():
        pytest.skip(f"{folder} holds no faces")
    by_person = collections.defaultdict(list)
    for line in sorted(listing.read_text().split("\n")):
        if line:
            by_person[int(line.split()[1])].append(line.split()[0])
    people = [person for person in sorted(by_person) if len(by_person[person]) >= 10][:40]
    left, top, width, height = BOX
    pixels = []
    for name in (name for person in people for name in by_person[person][:5]):
        with Image.open(folder / "img_align_celeba" / name) as image:
            face = image.convert("RGB").crop((left, top, left + width, top + height))
            small = face.resize((64, 64), Image.Resampling.BILINEAR)
        pixels.append(torch.from_numpy(np.array(small)).permute(2, 0, 1))
    return torch.stack(pixels), np.repeat(people, 5)
