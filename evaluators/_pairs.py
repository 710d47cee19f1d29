"""What the evaluators of single images share: originals, unrelated images, and a mean with what is needed to trust it.

An interval is Student-t over the independent units: people where they are known (`identities`, or the labels of faces),
else images. `intervals["classes"]` takes the classes for the units, `spreads` are sample standard deviations of the
images' values and of the class means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..benchmark.core.config import Protocol
from ..benchmark.core.evidence import Evidence, Images, PairedReconstructions, Score
from ..benchmark.core.statistics import Interval, clustered, sample_std, student
from ..benchmark.errors import InvalidConfigurationError

if TYPE_CHECKING:
    from torch import Tensor

Values = NDArray[np.float64]
#: Of reconstructions and originals, both `float64 N C H W` in [0, 1], one value an image.
Measure = Callable[["Tensor", "Tensor"], Values]
#: Images measured at a time.
_CHUNK = 64


def pairs(evidence: Evidence) -> tuple[Tensor, Images]:
    """Reconstructions `uint8 N C H W` and the private test images that they belong to.

    Raises:
        InvalidConfigurationError: their shapes differ.
    """
    found: PairedReconstructions = evidence.get(PairedReconstructions)
    images = evidence.private("private_test").select(found.items.cpu())
    if found.pixels.shape != images.pixels.shape:
        ours, theirs = (" x ".join(map(str, x.shape)) for x in (found.pixels, images.pixels))
        raise InvalidConfigurationError(f"expected reconstructions to be {theirs} as the originals, got {ours}")
    return found.pixels.cpu(), images


def people(images: Images, protocol: Protocol) -> NDArray[np.int64] | None:
    """Who is in each image; `None` where that is not known or images do not show people."""
    owners = images.labels if images.identities is None and protocol.face_box is not None else images.identities
    return None if owners is None else owners.cpu().numpy()


def kinds(images: Images) -> NDArray[np.int64]:
    """What makes images related: the identity, else the class, else being the same image."""
    owners = images.labels if images.identities is None else images.identities
    return np.arange(len(images)) if owners is None else owners.cpu().numpy()


def unrelated(groups: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """For each item, another one drawn at random from all that are not of its group, always the same draw.

    Args:
        groups: `N`, the group of each item.

    Returns:
        `int64 N`, positions; `None` where all are of one group.
    """
    order = np.argsort(groups, kind="stable")
    _, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return None
    after, others = np.cumsum(sizes)[place], len(groups) - sizes[place]
    step = np.random.Generator(np.random.PCG64(0)).integers(others)
    chosen: NDArray[np.int64] = order[(after + step) % len(groups)]
    return chosen


def measured(measure: Measure, rebuilt: Tensor, original: Tensor) -> Values:
    """A measure of `uint8 N C H W` images, chunk by chunk."""
    import torch

    parts = zip(torch.split(rebuilt, _CHUNK), torch.split(original, _CHUNK), strict=True)
    found = [measure(x.double().div(255), y.double().div(255)) for x, y in parts if len(x)]
    return np.concatenate(found) if found else np.zeros(0)


def pixel_score(evidence: Evidence, measure: Measure, bounds: Interval, notes: tuple[str, ...] = ()) -> Score:
    """The mean of a measure over reconstructions and originals; `chance` is that with unrelated originals."""
    rebuilt, images = pairs(evidence)
    other = unrelated(kinds(images))
    chance = None if other is None else measured(measure, rebuilt, images.pixels[other])
    return summary(measured(measure, rebuilt, images.pixels), images, evidence.protocol, bounds, chance, notes)


def summary(
    values: Values,
    images: Images,
    protocol: Protocol,
    bounds: Interval,
    chance: Values | None,
    notes: tuple[str, ...] = (),
) -> Score:
    """The mean of one value an image.

    Args:
        values: `N`, NaN where undefined.
        images: the N originals.
        protocol: what was fixed.
        bounds: the range of the mean.
        chance: `N`, the same with unrelated originals, NaN where undefined; `None` where there are none.
        notes: passed on.
    """
    if len(values) == 0:
        return Score(value=None, reason="there are no reconstructions")
    defined = ~np.isnan(values)
    lost = int((~defined).sum())
    if lost == len(values):
        return Score(value=None, n=0, notes=notes, reason="the measure is undefined for every image")
    if lost:
        notes = (*notes, f"{lost} of {len(values)} images are undefined and left out")
    x, owners, by_class = values[defined], people(images, protocol), _by_class(values, images, protocol)
    if owners is None:
        interval = student(x, bounds)
    else:
        interval = clustered(x, owners[defined], bounds)
        notes = (*notes, f"the interval is over the {len(np.unique(owners[defined]))} people in the images")
    intervals, spreads = {}, {"images": sample_std(x)}
    if by_class is not None:
        assert images.labels is not None
        intervals["classes"] = clustered(x, images.labels.cpu().numpy()[defined], bounds)
        spreads["classes"] = sample_std(by_class[~np.isnan(by_class)])
    return Score(
        value=float(x.mean()),
        n=len(x),
        interval=interval,
        intervals=intervals,
        spreads=spreads,
        chance=None if chance is None or np.isnan(chance).all() else float(np.nanmean(chance)),
        per_class=None if by_class is None else tuple(None if np.isnan(v) else float(v) for v in by_class),
        notes=notes,
    )


def _by_class(values: Values, images: Images, protocol: Protocol) -> Values | None:
    """The mean of each class, NaN for a class without values; `None` for attribute tasks."""
    if protocol.task != "classes" or images.labels is None:
        return None
    defined = ~np.isnan(values)
    labels = images.labels.cpu().numpy()[defined]
    count = np.bincount(labels, minlength=protocol.classes)
    total = np.bincount(labels, values[defined], minlength=protocol.classes)
    means: Values = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return means
