"""Scores of reconstructions of single images: originals, unrelated images, means with intervals and spreads.

The interval is Student-t over independent units: people where they are known (`identities`, or the labels of faces),
else images. The units of `intervals["classes"]` are the classes. `spreads` are sample standard deviations of the
images' values and of the class means.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..benchmark.core.config import Protocol
from ..benchmark.core.evidence import Evidence, Images, PairedReconstructions, Score
from ..benchmark.core.statistics import Interval, clustered, sample_std, student
from ..benchmark.errors import InvalidConfigurationError
from ._cosine import Values
from ._reasons import NO_RECONSTRUCTIONS

#: Maps reconstructions and originals, both `float64 N C H W` in [0, 1], to one value per image.
Measure = Callable[[Tensor, Tensor], Values]
#: Images measured at once.
_CHUNK = 64


def pairs(evidence: Evidence) -> tuple[Tensor, Images]:
    """Reconstructions `uint8 N C H W` and their originals, which are private test images.

    Raises:
        InvalidConfigurationError: their shapes differ.
    """
    found: PairedReconstructions = evidence.get(PairedReconstructions)
    images = evidence.private("private_test").select(found.items.cpu())
    if found.pixels.shape != images.pixels.shape:
        ours, theirs = (" x ".join(map(str, x.shape)) for x in (found.pixels, images.pixels))
        raise InvalidConfigurationError(f"expected reconstructions to be {theirs} like the originals, got {ours}")
    return found.pixels.cpu(), images


def _people(images: Images, protocol: Protocol) -> NDArray[np.int64] | None:
    """Identity of the person in each image; `None` where it is unknown or images do not show people."""
    owners = images.labels if images.identities is None and protocol.face_box is not None else images.identities
    return None if owners is None else owners.cpu().numpy()


def related_groups(images: Images) -> NDArray[np.int64]:
    """Group of related images that each image belongs to: its identity, else its class, else the image alone."""
    owners = images.labels if images.identities is None else images.identities
    return np.arange(len(images)) if owners is None else owners.cpu().numpy()


def unrelated(groups: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Draw for each item another one at random from all other groups, always with the same seed.

    Args:
        groups: `N`, the group of each item.

    Returns:
        `int64 N`, positions; `None` where all items are in one group.
    """
    order = np.argsort(groups, kind="stable")
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        return None
    after, others = np.cumsum(sizes)[group], len(groups) - sizes[group]
    step = np.random.Generator(np.random.PCG64(0)).integers(others)
    chosen: NDArray[np.int64] = order[(after + step) % len(groups)]
    return chosen


def measured(measure: Measure, rebuilt: Tensor, original: Tensor) -> Values:
    """Apply a measure to images `uint8 N C H W`, chunk by chunk."""
    parts = zip(torch.split(rebuilt, _CHUNK), torch.split(original, _CHUNK), strict=True)
    found = [measure(x.double().div(255), y.double().div(255)) for x, y in parts if len(x)]
    return np.concatenate(found) if found else np.zeros(0)


def pixel_score(evidence: Evidence, measure: Measure, bounds: Interval, notes: tuple[str, ...] = ()) -> Score:
    """Mean of a measure over reconstructions and originals; `chance` is the mean with unrelated originals."""
    rebuilt, images = pairs(evidence)
    other = unrelated(related_groups(images))
    chance = None if other is None else measured(measure, rebuilt, images.pixels[other])
    return score_images(measured(measure, rebuilt, images.pixels), images, evidence.protocol, bounds, chance, notes)


def score_images(
    values: Values,
    images: Images,
    protocol: Protocol,
    bounds: Interval,
    chance: Values | None,
    notes: tuple[str, ...] = (),
) -> Score:
    """Score of one value per image.

    Args:
        values: `N`, NaN where undefined.
        images: the N originals.
        protocol: of the data set.
        bounds: range of the mean.
        chance: `N`, the values with unrelated originals, NaN where undefined; `None` where there are none.
        notes: first notes of the score.
    """
    if len(values) == 0:
        return Score(value=None, reason=NO_RECONSTRUCTIONS)
    defined = ~np.isnan(values)
    lost = int((~defined).sum())
    if lost == len(values):
        return Score(value=None, n=0, notes=notes, reason="the measure is undefined for every image")
    if lost:
        notes = (*notes, f"{lost} of {len(values)} images are undefined and left out")
    x, people, by_class = values[defined], _people(images, protocol), _by_class(values, images, protocol)
    if people is None:
        interval = student(x, bounds)
    else:
        interval = clustered(x, people[defined], bounds)
        notes = (*notes, f"the interval is over the {len(np.unique(people[defined]))} people in the images")
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
    """Mean of each class, NaN for a class without values; `None` for attribute tasks."""
    if protocol.task != "classes" or images.labels is None:
        return None
    defined = ~np.isnan(values)
    labels = images.labels.cpu().numpy()[defined]
    count = np.bincount(labels, minlength=protocol.classes)
    total = np.bincount(labels, values[defined], minlength=protocol.classes)
    means: Values = np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)
    return means
