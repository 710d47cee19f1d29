"""Requirements of a network on its images and weights, checked before it is built."""

from ...errors import InvalidConfigurationError

Image = tuple[int, int, int]


def require_size(network: str, image: Image, least: int) -> None:
    """Reject images smaller than `least` pixels in height or width, or without channels.

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
    """Reject images that are not square with one of the published `sides`.

    Raises:
        InvalidConfigurationError: the image has another shape.
    """
    channels, height, width = image
    if channels < 1 or height != width or height not in sides:
        known = " or ".join(f"{side} x {side}" for side in sides)
        raise InvalidConfigurationError(
            f"expected images for {network} to be {known}, got {_shown(image)}; choose a data set of that size"
        )


def require_power_of_two(network: str, image: Image, least: int, advice: str) -> None:
    """Reject images that are not square with a power of two, at least `least`, as their side.

    Raises:
        InvalidConfigurationError: the image has another shape.
    """
    channels, height, width = image
    if channels < 1 or height != width or height < least or height & (height - 1):
        sides = ", ".join(f"{side} x {side}" for side in (least, 2 * least, 4 * least))
        raise InvalidConfigurationError(
            f"expected images for {network} to be {sides} or further doublings, got {_shown(image)}; {advice}"
        )


def require_colour(network: str, image: Image, advice: str) -> None:
    """Reject images without three channels.

    Raises:
        InvalidConfigurationError: the image does not have three channels.
    """
    if image[0] != 3:
        raise InvalidConfigurationError(
            f"expected images for {network} to have 3 channels, got {_shown(image)} (C x H x W); {advice}"
        )


def require_imagenet_channels(network: str, image: Image) -> None:
    """Reject images without three channels, which ImageNet weights need.

    Raises:
        InvalidConfigurationError: the image does not have three channels.
    """
    require_colour(
        network, image, "its ImageNet weights need 3; train from scratch with --set dataset.pretrained=false"
    )


def require_untrained(network: str, pretrained: bool) -> None:
    """Reject `pretrained` for a network without published weights.

    Raises:
        InvalidConfigurationError: `pretrained` is true.
    """
    if pretrained:
        raise InvalidConfigurationError(
            f"expected dataset.pretrained to be false for {network}, got True; it has no published weights"
        )


def _shown(image: Image) -> str:
    return " x ".join(str(size) for size in image)
