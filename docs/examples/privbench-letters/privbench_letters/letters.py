"""The data set letters."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from privbench import Dataset, Images, Protocol, setting
from privbench.benchmark.core.config import Part, Recipe

if TYPE_CHECKING:
    from torch import Tensor

PRIVATE, PUBLIC = "ABCDE", "KLMNOPQRST"
#: Images of a letter; the last ones of a private letter are test images.
PICTURES, TEST = 100, 20
#: Training images of each letter that FID compares with; fewer than are left without those for validation.
REFERENCE = 72
SIDE = 32
FONTS = ("Sans", "Sans-Bold", "Sans-Oblique", "SansMono", "SansMono-Bold", "Serif", "Serif-Bold", "Serif-Italic")


class Letters(Dataset):
    """Capital letters in eight typefaces included in matplotlib, 32 x 32: A to E are private, K to T public.

    An image shows one letter with a random typeface, size (20 to 28 pixels), rotation (at most 15 degrees) and
    position, drawn with a fixed seed. The judge has the private letters as classes 0-4 and the public ones as 5-14.

    Note:
        Other releases of Pillow or FreeType may draw other grey levels; both versions are part of the key of every
        result.
    """

    #: Components without a preset for this data set use the one for MNIST.
    family: ClassVar[str] = "mnist"
    target: Recipe = setting(
        Recipe(optimizer="adam", learning_rate=1e-3, epochs=20),
        "training of the target, the same for every defense",
        quick={"max_steps": 150},
        stages=("target",),
    )
    draws: int = setting(50, "reconstructions per label and trial", smoke=5, stages=("evidence", "scores"), ge=1)

    @property
    def protocol(self) -> Protocol:
        """`letters/v1`."""
        return Protocol(
            name="letters",
            version=1,
            image=(1, SIDE, SIDE),
            classes=len(PRIVATE),
            judge_classes=len(PRIVATE) + len(PUBLIC),
            target_network="mcnn",
            judge_network="scnn",
            second_judge_network="lenet5",
            attacked=len(PRIVATE),
            group=len(PRIVATE),
            draws=self.draws,
            reference=REFERENCE,
        )

    def fingerprint(self, root: Path) -> str:
        """The libraries that draw the images."""
        import PIL
        from PIL import features

        return f"Pillow {PIL.__version__}, FreeType {features.version('freetype2')}"

    def load(self, part: Part, root: Path) -> Images:
        """Draw one part; `root` is not read."""
        import torch

        train, test = range(PICTURES - TEST), range(PICTURES - TEST, PICTURES)
        chosen = {
            "private_train": [(PRIVATE, train)],
            "private_test": [(PRIVATE, test)],
            "public": [(PUBLIC, range(PICTURES))],
            "judge_train": [(PRIVATE, train), (PUBLIC, train)],
            "judge_test": [(PRIVATE, test), (PUBLIC, test)],
        }[part]
        pictures = [(letter, i) for letters, numbers in chosen for letter in letters for i in numbers]
        labels = torch.tensor([(PRIVATE + PUBLIC).index(letter) for letter, _ in pictures])
        return Images(torch.stack([drawn(*picture) for picture in pictures]), None if part == "public" else labels)


@cache
def drawn(letter: str, number: int) -> Tensor:
    """Draw the image with this number of a letter, `uint8 1 H W`; equal arguments give equal images."""
    import matplotlib
    import numpy as np
    import torch
    from PIL import Image, ImageDraw, ImageFont

    source = random.Random(f"{letter}{number}")
    font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVu{source.choice(FONTS)}.ttf"
    image = Image.new("L", (2 * SIDE, 2 * SIDE))
    place = (SIDE + source.uniform(-2, 2), SIDE + source.uniform(-2, 2))
    pen = ImageFont.truetype(str(font), source.uniform(20, 28))
    ImageDraw.Draw(image).text(place, letter, fill=255, font=pen, anchor="mm")
    image = image.rotate(source.uniform(-15, 15), Image.Resampling.BILINEAR)
    low, high = SIDE // 2, SIDE + SIDE // 2
    return torch.from_numpy(np.array(image.crop((low, low, high, high)))).unsqueeze(0)
