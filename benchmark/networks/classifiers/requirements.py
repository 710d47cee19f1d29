"""What a network asks of its images and weights, checked before anything is built."""

from __future__ import annotations

from ...errors import InvalidConfigurationError

Image = tuple[int, int, int]


def require_size(network: str, image: Image, least: int) -> None:
    """Refuse images smaller than `least` pixels in height or width, or without channels.

    Raises:
        InvalidConfigurationError: the image is too small.
    """
    channels, height, width = image
    if channels < 1 or min(height, width) < least:
        raise InvalidConfigurationError(
            f"expected images for {network} to be at least 1 x {least} x {least} (C x H x W), got {_shown(image)}; "
            "choose another network or data set"
        )


def require_square(network: str, image: Image, sides: tuple[int, ...]) -> None:
    """Refuse images that are not square with one of the published `sides`.

    Raises:
        InvalidConfigurationError: the image has another shape.
    """
    channels, height, width = image
    if channels < 1 or height != width or height not in sides:
        known = " or ".join(f"{side} x {side}" for side in sides)
        raise InvalidConfigurationError(
            f"expected images for {network} to be {known}, got {_shown(image)}; choose a data set of that size"
        )


def require_colour(network: str, image: Image, reason: str) -> None:
    """Refuse images without three channels.

    Raises:
        InvalidConfigurationError: the image is not in colour; `reason` says what to do.
    """
    if image[0] != 3:
        raise InvalidConfigurationError(
            f"expected images for {network} to have 3 channels, got {_shown(image)} (C x H x W); {reason}"
        )


def require_untrained(network: str, pretrained: bool) -> None:
    """Refuse `pretrained` where nobody published weights.

    Raises:
        InvalidConfigurationError: pretrained weights were asked for.
    """
    if pretrained:
        raise InvalidConfigurationError(
            f"expected dataset.pretrained to be false for {network}, got True; no weights of it are published"
        )


def _shown(image: Image) -> str:
    return " x ".join(str(size) for size in image)
