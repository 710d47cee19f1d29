"""Evidence (the output of an attack, as the evaluators receive it), images and scores: values passed between stages.

Stored images are `uint8 N C H W`; networks take `float32` in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from .config import Protocol, Task

#: Identity of an image of a person that the data set does not know.
UNKNOWN = -1


@dataclass(frozen=True)
class Images:
    """A set of images with their annotations.

    Args:
        pixels: `uint8 N C H W`.
        labels: `int64 N` class labels, or `None`.
        identities: `int64 N` identity numbers, `UNKNOWN` for people outside the data set, or `None`.
        attributes: `bool N A`, or `None`.
    """

    pixels: Tensor
    labels: Tensor | None = None
    identities: Tensor | None = None
    attributes: Tensor | None = None

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    def truth(self, task: Task) -> Tensor:
        """Return the true outputs for a target of `task`: `int64 N` labels, or `bool N A` attributes."""
        truth = self.labels if task == "classes" else self.attributes
        assert truth is not None
        return truth

    def select(self, index: Tensor | slice) -> Images:
        """Select the images at `index` (`int64 M`, `bool N`, or a slice, which copies nothing), with annotations."""
        parts: dict[str, Any] = {}
        for name, value in vars(self).items():
            parts[name] = None if value is None else value[index]
        return Images(**parts)


@dataclass(frozen=True)
class Request:
    """Task of an attack: `draws` reconstructions of each label in each of `trials` independent attacks.

    Args:
        labels: the attacked labels.
        draws: S, reconstructions per label and trial.
        trials: R, independent attacks.
        group: labels that the published attack optimises together.
        encodings: for an attack on features, `float32 N ...`: the latents Z that it has observed, one for each private
            image to reconstruct, on the CPU; else `None`.
        items: `int64 N`, positions of these images in the private test images.
    """

    labels: tuple[int, ...]
    draws: int
    trials: int = 1
    group: int = 60
    encodings: Tensor | None = None
    items: Tensor | None = None


@dataclass(frozen=True)
class ClassReconstructions:
    """Reconstructions of classes.

    Args:
        pixels: `uint8 R S K C H W`: trials, draws, attacked labels, image.
        labels: `int64 K`, the attacked labels.
    """

    pixels: Tensor
    labels: Tensor


@dataclass(frozen=True)
class PairedReconstructions:
    """Reconstructions of single private images.

    Args:
        pixels: `uint8 N C H W`, the reconstructions.
        items: `int64 N`, positions of the originals in the private test images.
    """

    pixels: Tensor
    items: Tensor


@dataclass(frozen=True)
class FeatureEstimates:
    """Estimates M(Z), from latents Z, of the features C(X) of a known network C.

    The attack's field `embedder` names C.

    Args:
        features: `float32 N D`, M(Z).
        items: `int64 N`, positions of the images X in the private test images.
    """

    features: Tensor
    items: Tensor


@dataclass(frozen=True)
class Encodings:
    """Latents that an attack on features receives. The harness adds them; no attack returns them.

    Args:
        z: `float32 N ...`, latents Z at the cut layer.
        items: `int64 N`, positions of the images in the private test images.
    """

    z: Tensor
    items: Tensor


@dataclass(frozen=True)
class Negatives:
    """Calibrated negatives: public images pushed towards a label with the target's gradient. The harness adds them.

    Args:
        pixels: `uint8 N C H W`.
        labels: `int64 N`, the attacked label that each image was pushed towards.
        fooled: `bool N`, whether the target classifies the image as the label.
    """

    pixels: Tensor
    labels: Tensor
    fooled: Tensor


@dataclass(frozen=True)
class Predictions:
    """Outputs of the target for the private test images, with the true labels.

    Args:
        logits: `float32 N K`.
        labels: `int64 N` (or `bool N A` for attributes, with logits `N A`).
    """

    logits: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Evidence:
    """Everything that an evaluator may read about one cell.

    Args:
        protocol: of the data set.
        items: evidence by class name (`Predictions`, `ClassReconstructions`, ...).
        private: reads a part of the private data (`private_train`, without the validation images, or `private_test`),
            for evaluators only.
        attack: the attack's fields.
    """

    protocol: Protocol
    items: Mapping[str, Any]
    private: Callable[[str], Images]
    attack: Mapping[str, Any] = field(default_factory=dict)

    def get(self, kind: type[Any]) -> Any:
        """Return the evidence of class `kind`."""
        return self.items[kind.__name__]


@dataclass(frozen=True)
class Score:
    """Score: a number with its uncertainty and context.

    Numbers may be those of Python, NumPy or PyTorch; they are stored as Python's.

    Args:
        value: the score, or `None` if it is undefined or failed; then `reason` says why.
        n: number of observations; of a share of hits by label, the same number for each label.
        interval: 95 % interval (low, high), or `None` if one observation gives no spread.
        intervals: further named intervals, such as `draws` and `classes`.
        spreads: named standard deviations, such as `draws` and `trials` (sample standard deviation, ddof 1).
        chance: value for random guessing, if defined.
        per_class: one value per attacked label, in the order of the request.
        reason: why `value` is `None`.
        notes: information for the reader, such as the network used.
        flags: reasons to doubt the value, one sentence by name; the harness adds them to the record's flags.
        not_applicable: whether the score has no meaning here by construction, such as top-5 among five classes; a score
            without value for another reason counts as failed, and the run exits with 1.
    """

    value: float | None
    n: int = 0
    interval: tuple[float, float] | None = None
    intervals: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    spreads: Mapping[str, float | None] = field(default_factory=dict)
    chance: float | None = None
    per_class: tuple[float | None, ...] | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)
    not_applicable: bool = False

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError("a score has either a value or a reason for its absence")
        if self.not_applicable and self.value is not None:
            raise ValueError(f"a score that is not applicable has no value, got {self.value}")
        for name in ("value", "chance"):
            self._set(name, _number(name, getattr(self, name)))
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a score is finite or None with a reason, got {self.value}")
        self._set("n", int(_number("n", self.n) or 0))
        self._set("interval", _pair("interval", self.interval))
        self._set("intervals", {name: _pair(f"intervals[{name!r}]", each) for name, each in self.intervals.items()})
        self._set("spreads", {name: _number(f"spreads[{name!r}]", each) for name, each in self.spreads.items()})
        values = _plain(self.per_class)
        if values is not None:
            if not isinstance(values, list | tuple):
                raise TypeError(f"expected per_class of a score to be a sequence of numbers, got {values!r:.60}")
            self._set("per_class", tuple(_number(f"per_class[{i}]", each) for i, each in enumerate(values)))
        if not all(isinstance(text, str) and text for flag in self.flags.items() for text in flag):
            raise ValueError(f"a flag of a score is a name with a sentence, got {dict(self.flags)}")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def _plain(value: Any) -> Any:
    """Convert a number or array of NumPy or PyTorch to Python's numbers and lists."""
    convert = getattr(value, "tolist", None)
    return convert() if callable(convert) else value


def _number(name: str, value: Any) -> float | None:
    """Return a field of a score that is a number or `None`.

    Raises:
        TypeError: it is something else.
    """
    found = _plain(value)
    if found is None or isinstance(found, int | float):
        return found
    raise TypeError(f"expected {name} of a score to be a number or None, got {found!r:.60}")


def _pair(name: str, value: Any) -> tuple[float, float] | None:
    """Return a field of a score that is an interval or `None`.

    Raises:
        TypeError: it is something else.
    """
    found = _plain(value)
    if found is None:
        return None
    if not isinstance(found, list | tuple) or len(found) != 2:
        raise TypeError(f"expected {name} of a score to be a pair of numbers or None, got {found!r:.60}")
    low, high = _number(f"{name}[0]", found[0]), _number(f"{name}[1]", found[1])
    if low is None or high is None:
        raise TypeError(f"expected {name} of a score to be a pair of numbers or None, got {found!r:.60}")
    return low, high
