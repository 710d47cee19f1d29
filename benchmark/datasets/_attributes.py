"""Protocol of CelebA data sets with 40 binary attributes: split by image, and an optional second public folder."""

import difflib
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import field_validator
from torch import Tensor

from ..core.config import Part, Protocol, Recipe, setting
from ..core.evidence import UNKNOWN, Images
from ..core.split import ranked
from ..errors import MissingDataError
from ..files import images as reader
from . import _celeba_files as release
from . import _fields
from ._decoded import cache_key, decoded, decoded_path
from ._extra import ExtraImages, list_images
from ._faces import Faces, Split

#: Attributes of the release, in its order.
ATTRIBUTES = (
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose"),
    *("Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses"),
    *("Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache"),
    *("Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks"),
    *("Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick"),
    *("Wearing_Necklace", "Wearing_Necktie", "Young"),
)
#: The largest centred square of the aligned frame: all columns, rows 20 .. 197.
SQUARE = (0, 20, 178, 178)
Size = Literal[64, 112, 128, 224]
#: Increase when the crop of extra images changes; the reader of images has its own version.
_FORMAT = 1


class AttributeFaces(Faces):
    """Faces with binary attributes, split by image into X1 (private training), X2 (public) and T (private test).

    Images have identities as well as attributes. The public images are X2, followed by the JPEG and PNG images of the
    folder `extra`, if one is given, in the order of their names: the centre square, resized bilinearly; the
    identities of those are unknown, and there are no attributes then.

    References:
        Xiao et al., "Adversarial Learning of Privacy-Preserving and Task-Oriented Representations", AAAI 2020,
        https://arxiv.org/abs/1911.10143.
        Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015,
        https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html.

    Note:
        The paper states only the numbers of images of its split. We draw by a fixed hash of the file names.

    Note:
        The split draws images, not people: most identities have images in X1, X2 and T, so the adversary knows other
        pictures of the people it attacks. The paper makes the same assumption of representative data.

    Note:
        The paper does not state the size of its images. Its decoder begins with 7 x 7 positions and doubles them five
        times, which gives 224, the input size of ResNet-50.

    Note:
        The paper does not describe the crop; we keep the largest centred square of the aligned frame.

    Note:
        The paper does not say whether its ResNet-50 starts from ImageNet weights or how images are augmented. Ours
        starts from ImageNet weights, as the other face networks do (`pretrained=false` starts it from random ones), and
        images are not augmented.

    Note:
        The paper's extra images are an unspecified 10,000 of MS-Celeb-1M, which is no longer distributed. We do not
        check whether the images of `extra` show people of the private parts.

    Note:
        No label is attacked and no judge is used; the protocol names a network for a judge, which is never trained.
    """

    family: ClassVar[str] = "celeba_attributes"
    #: Name of the protocol.
    title: ClassVar[str]
    target: Recipe = _fields.target(
        Recipe(optimizer="adam", learning_rate=1e-4, epochs=20), max_steps=150, batch_size=32
    )
    attributes: tuple[str, ...] = setting(ATTRIBUTES, "names of the attributes that the target predicts, in order")
    size: Size = setting(224, "height and width of an image in pixels", smoke=64, quick=64)
    extra: Path | None = setting(
        None, "folder of extra public images; none for X2 alone", stages=("target", "prior", "evidence")
    )
    observed: int = setting(
        2599,
        "private test images, at most, whose encodings an attack on features receives",
        smoke=50,
        quick=500,
        stages=("evidence", "scores"),
        ge=1,
    )

    @field_validator("attributes", mode="before")
    @classmethod
    def _one_name(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @field_validator("attributes")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in ATTRIBUTES:
                match = difflib.get_close_matches(name, ATTRIBUTES, n=1)
                hint = (
                    f"did you mean {match[0]!r}?" if match else "`privbench show dataset celeba_attributes` lists them"
                )
                raise ValueError(f"attributes of CelebA, of which {name!r} is none ({hint})")
        if not names or len(set(names)) < len(names):
            raise ValueError("one or more attributes of CelebA, each once")
        return names

    @field_validator("extra", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        if given == "":
            raise ValueError("a folder")
        return given

    @property
    def protocol(self) -> Protocol:
        """Version 2."""
        return Protocol(
            name=self.title,
            version=2,
            task="attributes",
            image=(3, self.size, self.size),
            classes=len(self.attributes),
            judge_classes=len(self.attributes),
            target_network="resnet50",
            judge_network="facenet",
            pretrained=self.pretrained,
            attributes=self.attributes,
            face_box=SQUARE,
            attacked=1,
            group=1,
            draws=1,
            reference=1,
            observed=self.observed,
        )

    @abstractmethod
    def counts(self, identities: Mapping[str, int]) -> tuple[int, int]:
        """Return the numbers of images of X1 and X2; T has the rest.

        Raises:
            MissingDataError: the list is too short for this protocol.
        """

    def split(self, identities: Mapping[str, int]) -> Split:
        """Split images into X1, X2 and T by rank of the hash, each in the order of the names."""
        train, public = self.counts(identities)
        order = ranked(list(identities), f"{self.title}/v1")
        return Split(
            {
                "private_train": tuple(sorted(order[:train])),
                "private_test": tuple(sorted(order[train + public :])),
                "public": tuple(sorted(order[train : train + public])),
            }
        )

    def load(self, part: Part, root: Path) -> Images:
        """Read one part; with `extra`, public images have no attributes, and those of `extra` the identity -1."""
        images = super().load(part, root)
        if part != "public" or self.extra is None:
            return images
        extra = self._decode_extra(self._list_extra(root))
        assert images.identities is not None
        unknown = torch.full((len(extra),), UNKNOWN, dtype=images.identities.dtype)
        return Images(torch.cat([images.pixels, extra]), identities=torch.cat([images.identities, unknown]))

    def fingerprint(self, root: Path) -> str:
        """Identify split, annotations and images, and the content of `extra`."""
        key = super().fingerprint(root)
        if self.extra is None:
            return key
        extra = self._list_extra(root)
        if not decoded_path("extra", self._extra_key(extra)).exists():
            extra.require_whole()
        return cache_key([key, extra.digest])

    def check(self, root: Path) -> list[str]:
        """List what is missing or damaged; decode every image of the split and of `extra` to find out."""
        problems = super().check(root)
        if self.extra is None:
            return problems
        try:
            attempts = self._list_extra(root).try_decode(self.size)
            return problems + [attempt for attempt in attempts if isinstance(attempt, str)]
        except MissingDataError as error:
            return [*problems, str(error)]

    def _list_extra(self, root: Path) -> ExtraImages:
        assert self.extra is not None
        return list_images(self.extra, root / release.FOLDER)

    def _extra_key(self, extra: ExtraImages) -> str:
        return cache_key([_FORMAT, reader.VERSION, self.size, extra.digest])

    def _decode_extra(self, extra: ExtraImages) -> Tensor:
        """Decode the images of `extra`, `uint8 N 3 S S`; the result is cached."""
        key = self._extra_key(extra)
        shapes = {"extra": (len(extra.names), 3, self.size, self.size)}
        return decoded(decoded_path("extra", key), key, "extra", shapes, lambda: {"extra": extra.decode(self.size)})
