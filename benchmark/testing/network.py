"""Laws of networks, which are targets and judges."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ..core.config import Recipe
from ..errors import InvalidConfigurationError, PrivbenchError
from ..files.tensors import pack, unpack
from ..networks.classifiers.network import Network
from ..pipeline.cell import Choice, Selection
from ..pipeline.resolve import resolve
from ..pipeline.trained_models import state
from ..training.context import Context
from ..training.optimisation import cross_entropy
from .check import broken, made, require, sentence
from .component import ComponentUnderTest
from .configuration import described, registered
from .defense import refuses_strangers
from .run_cell import round_trip
from .samples import CPU, Sample, conditions, interrupted
from .samples import logits as answers

_ROOT = Path()
#: Images that networks are tried on, the first that a network takes; those of the embedded data sets.
IMAGES = ((1, 32, 32), (3, 32, 32), (3, 64, 64))
_CLASSES = 4


def construction(subject: ComponentUnderTest) -> None:
    """It is made by (image, classes, *, pretrained), and refuses images that it cannot take by a PrivbenchError."""
    network = _network(subject)
    require(
        list(network.stages)[-1] == "logits" and len(network.layers) > 0,
        f"its stages are {', '.join(network.stages)}",
        "give Network at least one stage with a latent, and the last one the name 'logits'",
    )
    for image in ((1, 1, 1), (3, 7, 5)):
        try:
            _made(subject, image)
        except InvalidConfigurationError:
            continue
        except Exception as cause:
            broken(
                f"of images {image} it raises {sentence(cause)}",
                "raise InvalidConfigurationError that says which images it takes",
            )


def shapes(subject: ComponentUnderTest) -> None:
    """Its logits are float32 N K for any N, and the head after the encoder is the network at every layer."""
    network, x = _network(subject), _x(subject)
    with torch.inference_mode():
        latents, found = network.trace(x)
        right = found.dtype == torch.float32 and tuple(found.shape) == (len(x), _CLASSES)
        require(right, f"logits are {found.dtype} {tuple(found.shape)}", f"give float32 {(len(x), _CLASSES)}")
        require(
            tuple(latents) == network.layers and all(len(z) == len(x) for z in latents.values()),
            f"trace gives the latents {', '.join(latents)}",
            f"give one of every layer, a row per image: {', '.join(network.layers)}",
        )
        for layer, z in latents.items():
            change = "let trace, encode and head run the same stages"
            _check_close(network.encode(x, layer), z, f"encode at {layer} is not the latent of trace", change)
            _check_close(network.head(z, layer), found, f"the head at {layer} does not give the logits", change)
        require(
            tuple(network.features(x).shape[:1]) == (len(x),) and network.features(x).ndim == 2,
            "features are not N D",
            "flatten the last latent",
        )


def empty(subject: ComponentUnderTest) -> None:
    """No images give no logits, and an image has the same logits alone as in company."""
    network, x = _network(subject), _x(subject)
    with torch.inference_mode():
        none = network.logits(x[:0])
        require(tuple(none.shape) == (0, _CLASSES), f"of no images it gives {tuple(none.shape)}", "give (0, K)")
        _check_close(
            network.logits(x[:1]),
            network.logits(x)[:1],
            "an image has other logits in company",
            "use running statistics in evaluation mode, none of the batch",
        )


def one_class(subject: ComponentUnderTest) -> None:
    """It can have a single output, or refuses it by a PrivbenchError."""
    try:
        network = _made(subject, _image(subject), 1)
    except PrivbenchError:
        return
    with torch.inference_mode():
        found = network.logits(_x(subject))
    require(tuple(found.shape) == (2, 1), f"of one class it gives logits {tuple(found.shape)}", "give N 1")


def gradient(subject: ComponentUnderTest) -> None:
    """Its logits have a gradient at the image, which attacks in a white box follow."""
    network, x = _network(subject), _x(subject).requires_grad_()
    logits = network.logits(x)
    found = torch.autograd.grad(logits.sum(), x, allow_unused=True)[0] if logits.requires_grad else None
    require(
        found is not None and bool(found.isfinite().all()) and float(found.abs().sum()) > 0,
        "its logits have no finite gradient at the image",
        "leave out detach, rounding and no_grad",
    )


def determinism(subject: ComponentUnderTest) -> None:
    """The same seed gives the same initial weights, and the same image the same logits in evaluation mode."""
    first, second = (state(_seeded(subject)) for _ in range(2))
    change = "initialise from PyTorch's global generator alone, which the harness seeds"
    require(all(torch.equal(first[name], second[name]) for name in first), "one seed gives two networks", change)
    network, x = _network(subject), _x(subject)
    with torch.inference_mode():
        require(
            torch.equal(network.logits(x), network.logits(x)),
            "in evaluation mode the same images have two answers",
            "let noise such as dropout act in training mode only: a noisy target belongs to a defense",
        )


def inputs(subject: ComponentUnderTest) -> None:
    """It leaves the images as they were, and its own weights and buffers in evaluation mode."""
    network, x = _network(subject), _x(subject)
    before, kept = x.clone(), {name: value.clone() for name, value in state(network).items()}
    with torch.inference_mode():
        network.trace(x)
    require(torch.equal(x, before), "it changes its input", "do not use in-place operations on the input")
    now = state(network)
    require(all(torch.equal(now[name], kept[name]) for name in kept), "asking changes it", "freeze buffers in eval()")


def strict_loading(subject: ComponentUnderTest) -> None:
    """It comes back from its weights alone, and weights that are not all of its own are refused."""
    network, x = _network(subject), _x(subject)
    weights = unpack(pack(state(network)))
    other = _made(subject, _image(subject)).eval()
    try:
        other.load_state_dict(weights, strict=True)
    except RuntimeError as cause:
        broken(f"its own weights do not load: {str(cause).splitlines()[0]}", "give every stage fixed names and shapes")
    with torch.inference_mode():
        require(
            torch.equal(other.logits(x), network.logits(x)),
            "another network with the same weights gives other logits",
            "keep everything that decides the logits in parameters or buffers",
        )
    refuses_strangers(other, weights)


def resume(subject: ComponentUnderTest) -> None:
    """Trained, killed in the middle and resumed from its checkpoint, it is the same network."""
    sample = Sample(image=_image(subject), target_network=subject.name)
    images = sample.load("private_train", _ROOT)
    recipe = Recipe(max_steps=3, batch_size=8, momentum=0.9)

    def train(context: Context) -> Network:
        with context.seeded("initialise"):
            network = _made(subject, sample.image, sample.protocol.classes)
        context.fit("target", network, images, recipe, cross_entropy)
        return network

    with tempfile.TemporaryDirectory() as folder, conditions():
        whole = train(Context(sample.protocol, CPU, 7))
        parts = interrupted(Context(sample.protocol, CPU, 7), train, Path(folder))
    first, second = state(whole), state(parts)
    for name, value in first.items():
        require(
            torch.equal(value, second[name]),
            f"after an interruption it is trained to another network, first in {name}",
            "keep everything that training changes in parameters or buffers (register_buffer)",
        )
    require(
        bool(answers(whole, images).isfinite().all()),
        "after three steps of SGD its logits are not finite",
        "normalise images in [0, 1] inside the network, and initialise it for a step size of 0.01",
    )


def record(subject: ComponentUnderTest) -> None:
    """A run with it as the target gives a record that is written, read again and reported."""
    digits = resolve("dataset", Selection("digits"), "smoke", {})
    sample = Sample(image=_image(subject), target_network=subject.name)
    round_trip(subject, dataset=Choice("dataset", "digits", digits.distribution, sample))


def _made(subject: ComponentUnderTest, image: tuple[int, int, int], classes: int = _CLASSES) -> Network:
    network: Network = subject.cls(image, classes, pretrained=False)
    return network


def _image(subject: ComponentUnderTest) -> tuple[int, int, int]:
    found = subject.once("image", lambda: next((image for image in IMAGES if _takes(subject, image)), None))
    if found is None:
        broken(f"it takes none of the images {', '.join(map(str, IMAGES))}", "let it take one, so that it can be tried")
    return found


def _takes(subject: ComponentUnderTest, image: tuple[int, int, int]) -> bool:
    try:
        _made(subject, image)
    except InvalidConfigurationError:
        return False
    return True


def _seeded(subject: ComponentUnderTest) -> Network:
    image = _image(subject)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return _made(subject, image)


def _network(subject: ComponentUnderTest) -> Network:
    return subject.once("network", lambda: _seeded(subject).eval())


def _x(subject: ComponentUnderTest) -> Tensor:
    return torch.rand(2, *_image(subject), generator=torch.Generator().manual_seed(0))


def _check_close(first: Tensor, second: Tensor, happened: str, change: str) -> None:
    same = first.shape == second.shape and torch.allclose(first, second, rtol=1e-4, atol=1e-5)
    require(same, happened, change)


LAWS = made(
    "network",
    *(registered, described, construction, shapes, empty, one_class, gradient),
    *(determinism, inputs, strict_loading, resume, record),
)
