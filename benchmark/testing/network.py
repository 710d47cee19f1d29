"""Checks of networks, which are targets and judges."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ..core.config import Recipe
from ..errors import InvalidConfigurationError, PrivbenchError
from ..files.tensors import pack, unpack
from ..networks.classifiers.network import Network
from ..pipeline.trained_models import state
from ..training.context import Context
from ..training.optimisation import cross_entropy
from .assertions import (
    require_close,
    require_gradient,
    require_input_unchanged,
    require_same,
    require_strict_loading,
)
from .check import checks_from, error_message, fail, require
from .component import ComponentUnderTest
from .configuration import described, registered
from .key import require_hashed
from .run_cell import round_trip, sample_choice
from .samples import CPU, Sample, conditions, interrupted, logits
from .watch import watch

#: Shapes of the built-in data sets; a network is checked on the first that it accepts.
IMAGES = ((1, 32, 32), (3, 32, 32), (3, 64, 64))
_CLASSES = 4


def construction(subject: ComponentUnderTest) -> None:
    """The constructor takes (image, classes, *, pretrained) and rejects unsuitable images with a PrivbenchError."""
    network = _network(subject)
    require(
        list(network.stages)[-1] == "logits" and len(network.layers) > 0,
        f"its stages are {', '.join(network.stages)}",
        "give Network at least one stage with a latent, and name the last stage 'logits'",
    )
    for image in ((1, 1, 1), (3, 7, 5)):
        try:
            _build(subject, image)
        except InvalidConfigurationError:
            continue
        except Exception as cause:
            fail(
                f"for images {image} it raises {error_message(cause)}",
                "raise an InvalidConfigurationError that says which images it accepts",
            )


def key(subject: ComponentUnderTest) -> None:
    """The content of files that the constructor reads is in the keys of what is trained with the network."""
    for pretrained in (False, True):
        with watch(offline=True) as reads, torch.random.fork_rng(devices=[]):
            try:
                subject.cls(_image(subject), _CLASSES, pretrained=pretrained)
            except PrivbenchError:  # it has no published weights, or they are not on this machine
                continue
        hook = f"files(pretrained={pretrained})"
        require_hashed(subject, reads, subject.cls.files(pretrained=pretrained), hook)


def shapes(subject: ComponentUnderTest) -> None:
    """Logits are float32 N K for any N, and the head after the encoder equals the network at every layer."""
    network, x = _network(subject), _x(subject)
    with torch.inference_mode():
        latents, found = network.trace(x)
        valid = found.dtype == torch.float32 and tuple(found.shape) == (len(x), _CLASSES)
        require(valid, f"logits are {found.dtype} {tuple(found.shape)}", f"return float32 {(len(x), _CLASSES)}")
        require(
            tuple(latents) == network.layers and all(len(z) == len(x) for z in latents.values()),
            f"trace gives the latents {', '.join(latents)}",
            f"return one for every layer, with a row per image: {', '.join(network.layers)}",
        )
        for layer, z in latents.items():
            fix = "let trace, encode and head run the same stages"
            require_close(network.encode(x, layer), z, f"encode at {layer} is not the latent of trace", fix)
            require_close(network.head(z, layer), found, f"the head at {layer} does not give the logits", fix)
        require(
            tuple(network.features(x).shape[:1]) == (len(x),) and network.features(x).ndim == 2,
            "features are not N D",
            "flatten the last latent",
        )


def empty(subject: ComponentUnderTest) -> None:
    """No images give no logits, and the logits of an image do not depend on the batch."""
    network, x = _network(subject), _x(subject)
    with torch.inference_mode():
        none = network.logits(x[:0])
        require(tuple(none.shape) == (0, _CLASSES), f"for no images it gives {tuple(none.shape)}", "return (0, K)")
        require_close(
            network.logits(x[:1]),
            network.logits(x)[:1],
            "the logits of an image depend on the batch",
            "in evaluation mode, use running statistics, not those of the batch",
        )


def one_class(subject: ComponentUnderTest) -> None:
    """A network with a single output can be built, or the constructor raises a PrivbenchError."""
    try:
        network = _build(subject, _image(subject), 1)
    except PrivbenchError:
        return
    with torch.inference_mode():
        found = network.logits(_x(subject))
    require(tuple(found.shape) == (2, 1), f"for one class it gives logits {tuple(found.shape)}", "return N 1")


def gradient(subject: ComponentUnderTest) -> None:
    """The logits have a gradient with respect to the image, which white-box attacks follow."""
    require_gradient(_network(subject).logits, _x(subject))


def determinism(subject: ComponentUnderTest) -> None:
    """The same seed gives the same initial weights; in evaluation mode the same image gives the same logits."""
    first, second = (state(_seeded(subject)) for _ in range(2))
    fix = "initialise only from PyTorch's global generator, which privbench seeds"
    require_same(first, second, "one seed gives two networks", fix)
    network, x = _network(subject), _x(subject)
    with torch.inference_mode():
        require(
            torch.equal(network.logits(x), network.logits(x)),
            "in evaluation mode the same images have two answers",
            "use noise such as dropout in training mode only: a noisy target is a defense",
        )


def inputs(subject: ComponentUnderTest) -> None:
    """In evaluation mode, a forward pass changes neither the images nor the network's weights and buffers."""
    network, x = _network(subject), _x(subject)
    before = {name: value.clone() for name, value in state(network).items()}
    require_input_unchanged(network.trace, x)
    require_same(before, state(network), "a forward pass changes its state", "freeze buffers in eval()")


def strict_loading(subject: ComponentUnderTest) -> None:
    """The network is restored from its weights alone, and incomplete or unexpected weights are rejected."""
    network, x = _network(subject), _x(subject)
    weights = unpack(pack(state(network)))
    other = _build(subject, _image(subject)).eval()
    try:
        other.load_state_dict(weights, strict=True)
    except RuntimeError as cause:
        fail(f"its own weights do not load: {str(cause).splitlines()[0]}", "give every stage fixed names and shapes")
    with torch.inference_mode():
        require(
            torch.equal(other.logits(x), network.logits(x)),
            "another network with the same weights gives other logits",
            "keep everything that the logits depend on in parameters or buffers",
        )
    require_strict_loading(other, weights)


def resume(subject: ComponentUnderTest) -> None:
    """Training that is killed and resumed from its checkpoint gives the same network."""
    sample = Sample(image=_image(subject), target_network=subject.name)
    images = sample.load("private_train")
    recipe = Recipe(max_steps=3, batch_size=8, momentum=0.9)

    def train(context: Context) -> Network:
        with context.seeded("initialise"):
            network = _build(subject, sample.image, sample.protocol.classes)
        context.fit("target", network, images, recipe, cross_entropy)
        return network

    with tempfile.TemporaryDirectory() as folder, conditions():
        whole = train(Context(sample.protocol, CPU, 7))
        resumed = interrupted(Context(sample.protocol, CPU, 7), train, Path(folder))
    fix = "keep everything that training changes in parameters or buffers (register_buffer)"
    require_same(state(whole), state(resumed), "training gives another network after an interruption", fix)
    require(
        bool(logits(whole, images).isfinite().all()),
        "after three steps of SGD its logits are not finite",
        "normalise images in [0, 1] inside the network, and initialise it for a step size of 0.01",
    )


def record(subject: ComponentUnderTest) -> None:
    """A run with the network as the target gives a record that is written, read again and reported."""
    sample = Sample(image=_image(subject), target_network=subject.name)
    round_trip(subject, dataset=sample_choice(sample))


def _build(subject: ComponentUnderTest, image: tuple[int, int, int], classes: int = _CLASSES) -> Network:
    network: Network = subject.cls(image, classes, pretrained=False)
    return network


def _image(subject: ComponentUnderTest) -> tuple[int, int, int]:
    found = subject.cached("image", lambda: next((image for image in IMAGES if _accepts(subject, image)), None))
    if found is None:
        fail(f"it accepts none of the images {', '.join(map(str, IMAGES))}", "accept one, so that the checks can run")
    return found


def _accepts(subject: ComponentUnderTest, image: tuple[int, int, int]) -> bool:
    try:
        _build(subject, image)
    except InvalidConfigurationError:
        return False
    return True


def _seeded(subject: ComponentUnderTest) -> Network:
    image = _image(subject)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return _build(subject, image)


def _network(subject: ComponentUnderTest) -> Network:
    return subject.cached("network", lambda: _seeded(subject).eval())


def _x(subject: ComponentUnderTest) -> Tensor:
    return torch.rand(2, *_image(subject), generator=torch.Generator().manual_seed(0))


CHECKS = checks_from(
    "network",
    *(registered, described, construction, key, shapes, empty, one_class, gradient),
    *(determinism, inputs, strict_loading, resume, record),
)
