"""Decode many images in threads, each to pixels or to a sentence that says what is wrong."""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from ..errors import MissingDataError
from ..files.images import read_image

#: Images that are decoded before the first of them is passed on.
_CHUNK = 512


def try_decode(
    names: Sequence[str],
    read: Callable[[str], bytes],
    crop: Callable[[Image.Image], Image.Image],
    describe: Callable[[str, str], str],
) -> Iterator[np.ndarray | str]:
    """Decode each image to pixels `uint8 3 S S`, or to an error message.

    Args:
        names: of the images.
        read: returns the encoded image of a name, or raises `MissingDataError`; called in several threads.
        crop: makes a square of side S from an image; raises `ValueError` with a phrase such as `has 3 x 3 pixels`.
        describe: makes an error message from a name and such a phrase.
    """

    def decode(name: str) -> np.ndarray | str:
        try:
            return np.asarray(crop(read_image(read(name)))).transpose(2, 0, 1)
        except MissingDataError as error:
            return str(error)
        except ValueError as fault:
            return describe(name, str(fault))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(names), _CHUNK):
            with warnings.catch_warnings():  # Pillow warns of what it makes errors of, and of odd metadata
                warnings.simplefilter("ignore")
                decoded = list(pool.map(decode, names[start : start + _CHUNK]))
            yield from decoded


def require_decoded(attempts: Iterable[np.ndarray | str]) -> Iterator[np.ndarray]:
    """Pass images on.

    Raises:
        MissingDataError: an attempt is an error message instead of an image.
    """
    for attempt in attempts:
        if isinstance(attempt, str):
            raise MissingDataError(attempt)
        yield attempt
