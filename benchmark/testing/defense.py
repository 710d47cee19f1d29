"""Laws of defenses."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..access.open import TargetSource, build
from ..core.config import Task
from ..core.evidence import Images
from ..errors import MissingDataError, PrivbenchError
from ..files.tensors import pack, unpack
from ..networks.classifiers.network import Network
from ..pipeline.trained_models import state
from ..training.context import Context
from .check import broken, made, require
from .component import ComponentUnderTest
from .configuration import configuration, described, fields, registered
from .run_cell import round_trip
from .samples import CPU, Sample, conditions, interrupted, logits, of_one_class

_ROOT = Path()


def shapes(subject: ComponentUnderTest) -> None:
    """On every task it declares, `loss` is a finite scalar and `train` gives a network in evaluation mode."""
    for task in sorted(subject.cls.tasks):
        protocol = Sample(task=task).protocol
        _check_loss(subject, task)
        network = _trained(subject, task)
        require(
            isinstance(network, Network),
            f"train returns {type(network).__name__}",
            "return the privbench.Network that it trained",
        )
        require(
            not network.training, "train returns a network in training mode", "end with network.eval(), as context.fit"
        )
        x = torch.rand(3, *protocol.image, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            latents, found = network.trace(x)
            _check_logits(found, (3, protocol.classes))
            for layer, z in latents.items():
                _check_logits(network.head(z, layer), (3, protocol.classes))
            _check_logits(network.logits(x[:0]), (0, protocol.classes))


def determinism(subject: ComponentUnderTest) -> None:
    """The same seed gives the same target, whatever the global random state is."""
    task = _task(subject)
    with conditions(99):
        again = subject.component.train(Sample(task=task).load("private_train", _ROOT), _context(task))
    _check_same(
        state(_trained(subject, task)),
        state(again),
        "two trainings from one seed differ",
        "draw random numbers from context.generator(...), or inside `with context.seeded(...)`",
    )


def inputs(subject: ComponentUnderTest) -> None:
    """Training leaves the private images, their labels and the configuration as they were."""
    task = _task(subject)
    images = Sample(task=task).load("private_train", _ROOT)
    before = {name: value.clone() for name, value in vars(images).items() if value is not None}
    fields_before = subject.component.model_dump_json()
    with conditions():
        subject.component.train(images, _context(task))
    for name, value in before.items():
        require(
            torch.equal(getattr(images, name), value),
            f"train changes the {name} of the private images",
            "work on a copy: other stages read the same images",
        )
    require(
        subject.component.model_dump_json() == fields_before,
        "train changes the defense's own fields",
        "keep what changes in local variables: the fields are part of the cache key",
    )


def strict_loading(subject: ComponentUnderTest) -> None:
    """The target comes back from its weights alone, and weights that are not all of its own are refused."""
    task = _task(subject)
    protocol = Sample(task=task).protocol
    trained = _trained(subject, task)
    weights = unpack(pack(state(trained)))
    rebuild = {"defense": subject.name, "fields": subject.component.model_dump(mode="json")}
    try:
        loaded = build(TargetSource(rebuild, lambda: weights, protocol))
    except MissingDataError as cause:
        broken(str(cause), "let network(protocol) build the very network that train trains and returns")
    test = Sample(task=task).load("private_test", _ROOT)
    require(
        torch.equal(logits(loaded, test), logits(trained, test)),
        "the target gives other logits after its weights were stored and loaded",
        "keep everything that train learns in parameters or buffers (register_buffer) of the network",
    )
    refuses_strangers(loaded, weights)


def refuses_strangers(network: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Weights with one missing, and with one too many, do not load.

    Raises:
        BrokenLawError: they do.
    """
    first = next(iter(weights), None)
    fewer = {name: value for name, value in weights.items() if name != first}
    for what, given in (("one weight missing", fewer), ("an unexpected weight", {**weights, "x": torch.zeros(1)})):
        if first is None and given is fewer:
            continue
        try:
            network.load_state_dict(dict(given), strict=True)
        except RuntimeError:
            continue
        broken(f"the network loads a state with {what}", "do not override load_state_dict or its hooks")


def resume(subject: ComponentUnderTest) -> None:
    """Killed in the middle of every loop and resumed from its checkpoint, it trains the same target."""
    task = _task(subject)
    images = Sample(task=task).load("private_train", _ROOT)
    context = _context(task)
    with tempfile.TemporaryDirectory() as folder, conditions(3):
        resumed = interrupted(context, lambda context: subject.component.train(images, context), Path(folder))
    _check_same(
        state(_trained(subject, task)),
        state(resumed),
        "a training that was interrupted gives another target",
        "pass every module and optimiser that a step changes to context.loop as `state`, and take random numbers from "
        "the step's generator",
    )
    require(
        bool(_context_of(subject, task).curves),
        "train runs no loop of the context",
        "train with context.fit or context.loop, which checkpoint and resume",
    )


def one_class(subject: ComponentUnderTest) -> None:
    """Images of a single class, and no images, are trained on or refused by a PrivbenchError."""
    for task in sorted(subject.cls.tasks):
        images = Sample(task=task).load("private_train", _ROOT)
        for few in (of_one_class(images), images.select(torch.arange(0))):
            with conditions():
                try:
                    network = subject.component.train(few, _context(task))
                except PrivbenchError:
                    continue
            found = logits(network, images)
            require(
                bool(found.isfinite().all()),
                f"trained on {len(few)} images of one class the target gives logits that are not finite",
                "raise a PrivbenchError that says what data it needs, or guard the division",
            )


def record(subject: ComponentUnderTest) -> None:
    """A run of it gives a record that is written, read again and reported."""
    task = _task(subject)
    round_trip(subject, defense=subject.choice, task=task)


def _task(subject: ComponentUnderTest) -> Task:
    tasks = subject.cls.tasks
    require(
        bool(tasks) and tasks <= {"classes", "attributes"},
        f"{subject.cls.__name__}.tasks is {set(tasks)}",
        'make it frozenset({"classes"}), frozenset({"attributes"}) or both',
    )
    return "classes" if "classes" in tasks else "attributes"


def _context(task: Task) -> Context:
    sample = Sample(task=task)
    return Context(sample.protocol, CPU, 7, public=lambda: sample.load("public", _ROOT))


def _context_of(subject: ComponentUnderTest, task: Task) -> Context:
    _trained(subject, task)
    return subject.once(f"context {task}", lambda: _context(task))


def _trained(subject: ComponentUnderTest, task: Task) -> Network:
    """The target of a task, trained once for all laws; its context is kept too."""

    def train() -> Network:
        images: Images = Sample(task=task).load("private_train", _ROOT)
        context = subject.once(f"context {task}", lambda: _context(task))
        with conditions():
            network: Network = subject.component.train(images, context)
        return network

    return subject.once(f"target {task}", train)


def _check_loss(subject: ComponentUnderTest, task: Task) -> None:
    sample = Sample(task=task)
    few = sample.load("private_train", _ROOT)
    few = few.select(torch.arange(len(few)) % 4 == 0)
    with conditions():
        network = subject.component.network(sample.protocol).train()
        value = subject.component.loss(network, few.pixels.float().div(255), few.truth(task))
    good = isinstance(value, Tensor) and value.shape == () and value.is_floating_point()
    shown = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    require(good, f"on {task}, loss returns {shown}", "return one floating-point scalar, such as the batch mean")
    require(
        value.requires_grad and bool(value.isfinite()),
        f"on {task}, loss returns {float(value.detach()):.6g}"
        + ("" if value.requires_grad else ", without a gradient"),
        "compute it from network.logits(x) or network.trace(x), and keep it finite",
    )


def _check_logits(found: Tensor, shape: tuple[int, int]) -> None:
    require(
        found.dtype == torch.float32 and tuple(found.shape) == shape,
        f"of {shape[0]} images the target gives logits {found.dtype} {tuple(found.shape)}",
        f"give float32 of shape {shape}, from `logits` and from `head` at every layer",
    )


def _check_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor], happened: str, change: str) -> None:
    require(first.keys() == second.keys(), f"{happened}: they have other weights", change)
    for name, value in first.items():
        require(torch.equal(value, second[name]), f"{happened}, first in {name}", change)


LAWS = made(
    "defense",
    *(registered, described, fields, configuration),
    *(shapes, determinism, inputs, strict_loading, resume, one_class, record),
)
