"""Checks of defenses."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ..access.open import TargetSource, rebuild_target
from ..core.config import Task
from ..core.evidence import Images
from ..errors import MissingDataError, PrivbenchError
from ..files.tensors import pack, unpack
from ..networks.classifiers.network import Network
from ..pipeline.trained_models import state
from ..training.context import Context
from .assertions import require_same, require_strict_loading, task_of
from .check import checks_from, fail, require
from .component import ComponentUnderTest
from .configuration import configuration, described, fields, registered
from .key import require_in_key, require_settings_in_keys
from .run_cell import round_trip
from .samples import CPU, Sample, conditions, interrupted, logits, of_one_class
from .watch import watch


def shapes(subject: ComponentUnderTest) -> None:
    """On every declared task, `loss` is a finite scalar and `train` returns a network in evaluation mode."""
    for task in sorted(subject.cls.tasks):
        protocol = Sample(task=task).protocol
        _check_loss(subject, task)
        network = _trained(subject, task)
        require(
            isinstance(network, Network),
            f"train returns {type(network).__name__}",
            "return the trained privbench.Network",
        )
        require(
            not network.training,
            "train returns a network in training mode",
            "end with network.eval()",
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
    task = task_of(subject)
    with conditions(99):
        again = subject.component.train(Sample(task=task).part("private_train", Path()), _context(task))
    require_same(
        state(_trained(subject, task)),
        state(again),
        "two trainings from one seed differ",
        "draw random numbers from context.generator(...), or inside `with context.seeded(...)`",
    )


def key(subject: ComponentUnderTest) -> None:
    """What training reads is in the target's key: its own fields, fields of the protocol, and the content of files."""
    require_settings_in_keys(subject, ["target"])
    task = task_of(subject)
    images, context = Sample(task=task).load("private_train"), _context(task)
    with watch() as reads, conditions():
        subject.component.train(images, context)
    require_in_key(subject, "target", reads)


def inputs(subject: ComponentUnderTest) -> None:
    """Training does not change the private images, their labels or the configuration."""
    task = task_of(subject)
    images = Sample(task=task).part("private_train", Path())
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
    """The target is restored from its weights alone, and incomplete or unexpected weights are rejected."""
    task = task_of(subject)
    protocol = Sample(task=task).protocol
    trained = _trained(subject, task)
    weights = unpack(pack(state(trained)))
    rebuild = {"defense": subject.name, "fields": subject.component.model_dump(mode="json")}
    try:
        loaded = rebuild_target(TargetSource(rebuild, lambda: weights, protocol))
    except MissingDataError as cause:
        fail(str(cause), "let network(protocol) build the same network that train trains and returns")
    test = Sample(task=task).load("private_test")
    require(
        torch.equal(logits(loaded, test), logits(trained, test)),
        "the target gives other logits after its weights were stored and loaded",
        "keep everything that train learns in parameters or buffers (register_buffer) of the network",
    )
    require_strict_loading(loaded, weights)


def resume(subject: ComponentUnderTest) -> None:
    """Training that is killed in every loop and resumed from its checkpoint gives the same target."""
    task = task_of(subject)
    images = Sample(task=task).part("private_train", Path())
    context = _context(task)
    with tempfile.TemporaryDirectory() as folder, conditions(3):
        resumed = interrupted(context, lambda context: subject.component.train(images, context), Path(folder))
    require_same(
        state(_trained(subject, task)),
        state(resumed),
        "an interrupted training gives another target",
        "pass every module and optimizer that a step changes to context.loop as `state`, and take random numbers from "
        "the step's generator",
    )
    require(
        bool(_cached_context(subject, task).curves),
        "train runs no loop of the context",
        "train with context.fit or context.loop, which checkpoint and resume",
    )


def one_class(subject: ComponentUnderTest) -> None:
    """Training on a single class or on no images succeeds or raises a PrivbenchError."""
    for task in sorted(subject.cls.tasks):
        images = Sample(task=task).part("private_train", Path())
        for few in (of_one_class(images), images.select(torch.arange(0))):
            with conditions():
                try:
                    network = subject.component.train(few, _context(task))
                except PrivbenchError:
                    continue
            found = logits(network, images)
            require(
                bool(found.isfinite().all()),
                f"trained on {len(few)} images of one class, the target gives logits that are not finite",
                "raise a PrivbenchError that names the data it needs, or avoid the division by 0",
            )


def record(subject: ComponentUnderTest) -> None:
    """A run of the defense gives a record that is written, read again and reported."""
    round_trip(subject, defense=subject.choice, task=task_of(subject))


def _context(task: Task) -> Context:
    sample = Sample(task=task)
    return Context(
        sample.protocol,
        CPU,
        7,
        public=lambda: sample.load("public"),
        validation=lambda: sample.part("private_val", Path()),
    )


def _cached_context(subject: ComponentUnderTest, task: Task) -> Context:
    """The context of `_trained`."""
    return subject.cached(f"context {task}", lambda: _context(task))


def _trained(subject: ComponentUnderTest, task: Task) -> Network:
    """The target of a task, trained once for all checks."""

    def train() -> Network:
        images: Images = Sample(task=task).part("private_train", Path())
        with conditions():
            network: Network = subject.component.train(images, _cached_context(subject, task))
        return network

    return subject.cached(f"target {task}", train)


def _check_loss(subject: ComponentUnderTest, task: Task) -> None:
    sample = Sample(task=task)
    few = sample.part("private_train", Path())
    few = few.select(torch.arange(0, len(few), 4))
    with conditions():
        network = subject.component.network(sample.protocol).train()
        value = subject.component.loss(network, few.pixels.float().div(255), few.truth(task))
    valid = isinstance(value, Tensor) and value.shape == () and value.is_floating_point()
    shown = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    require(valid, f"on {task}, loss returns {shown}", "return one floating-point scalar, such as the batch mean")
    require(
        value.requires_grad and bool(value.isfinite()),
        f"on {task}, loss returns {float(value.detach()):.6g}"
        + ("" if value.requires_grad else ", without a gradient"),
        "compute it from network.logits(x) or network.trace(x), and keep it finite",
    )


def _check_logits(found: Tensor, shape: tuple[int, int]) -> None:
    require(
        found.dtype == torch.float32 and tuple(found.shape) == shape,
        f"for {shape[0]} images, the target gives logits {found.dtype} {tuple(found.shape)}",
        f"return float32 of shape {shape}, from `logits` and from `head` at every layer",
    )


CHECKS = checks_from(
    "defense",
    *(registered, described, fields, configuration),
    *(key, shapes, determinism, inputs, strict_loading, resume, one_class, record),
)
