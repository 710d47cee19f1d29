"""Checks of attacks."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ..contracts import FeatureAttack, Prior
from ..core import evidence as kinds
from ..core.config import Access, StageKind, Task
from ..errors import InvalidConfigurationError, PrivbenchError
from ..files.tensors import pack, unpack
from ..training.context import Context
from .assertions import first_difference, require_same, task_of
from .attack_run import ITEMS, LABELS, reference_run, run_attack
from .check import ConformanceError, checks_from, error_message, fail, require
from .component import ComponentUnderTest
from .configuration import configuration, described, fields, registered
from .key import require_in_key, require_settings_in_keys
from .run_cell import ATTACKS, round_trip, sample_choice
from .samples import Sample, interrupted
from .watch import Reads, watch

#: Channels, height and width of images that no built-in data set has.
_UNUSUAL = (1, 48, 48)
#: Calls that each view offers.
_ALLOWED: Mapping[str, str] = {
    "white_box": "view.logits, view.latents, view.encode, view.head and view.network",
    "scores": "view.scores(x)",
    "labels": "view.labels(x)",
    "features": "view.features(x)",
}


def declaration(subject: ComponentUnderTest) -> None:
    """The declared access, evidence, prior and tasks are ones that privbench supports."""
    cls = subject.cls
    for name, known in (
        ("access", get_args(Access)),
        ("yields", tuple(ATTACKS)),
        ("prior", ("none", "public", "target")),
    ):
        value = getattr(cls, name, None)
        require(value in known, f"{cls.__name__}.{name} is {value!r}", f"choose from {', '.join(known)}")
    task_of(subject)
    require(
        cls.access != "features" or issubclass(cls, FeatureAttack),
        f"{cls.__name__} observes features and does not derive from FeatureAttack",
        "derive it from FeatureAttack, which declares the field `layer`",
    )
    require(
        cls.yields != "FeatureEstimates" or "embedder" in cls.model_fields,
        f"{cls.__name__} has no field 'embedder'",
        "declare it: `embedder: str`, the network whose features are estimated",
    )


def shapes(subject: ComponentUnderTest) -> None:
    """On every declared task, the attack returns the declared evidence in the requested shape."""
    for task in sorted(subject.cls.tasks):
        _check_evidence(subject, reference_run(subject, task).evidence, task, LABELS, ITEMS)


def determinism(subject: ComponentUnderTest) -> None:
    """The same seed gives the same prior and evidence, whatever the global random state is."""
    task = task_of(subject)
    fix = "draw random numbers from context.generator(...), the step's generator or inside `with context.seeded(...)`"
    first, second = reference_run(subject, task), run_attack(subject, task, noise=99)
    require_same(_flat(first.prior), _flat(second.prior), "learn gives two priors from one seed", fix)
    require_same(vars(first.evidence), vars(second.evidence), "run gives two results from one seed", fix)


def key(subject: ComponentUnderTest) -> None:
    """What the attack reads is in the keys of prior and evidence: fields, its own and the protocol's, and files."""
    stages: list[StageKind] = ["evidence"] if subject.component.prior == "none" else ["prior", "evidence"]
    require_settings_in_keys(subject, stages)
    by_stage: list[Reads] = []

    def watched(context: Context, stage: Callable[[Context], Any]) -> Any:
        with watch(subject.cls) as reads:
            by_stage.append(reads)
            return stage(context)

    run_attack(subject, task_of(subject), run_stage=watched)
    for index, (kind, reads) in enumerate(zip(stages, by_stage, strict=True)):
        require_in_key(subject, kind, reads, stages[:index])


def inputs(subject: ComponentUnderTest) -> None:
    """The attack does not change the public images, the request, the prior or its own fields."""
    for what in reference_run(subject, task_of(subject)).changed_inputs:
        fail(f"it changes the {what}", "work on a copy or in local variables: other stages read the same data")


def access(subject: ComponentUnderTest) -> None:
    """The attack queries the target only through the view of its declared access, and does not change it."""
    cls, task = subject.cls, task_of(subject)
    try:
        found = reference_run(subject, task)
    except (AttributeError, RuntimeError, AssertionError) as cause:
        if cls.access == "white_box":
            raise
        fail(
            f"with its declared access {cls.access!r}, the attack raises {error_message(cause)}",
            f"use only {_ALLOWED[cls.access]}, or declare the access that it needs",
        )
    require(found.target_unchanged, "it changes the target's weights or mode", "train a copy of the target")
    if found.queries:
        return
    other = run_attack(subject, task, seed=1)
    same_prior = first_difference(_flat(found.prior), _flat(other.prior)) is None
    require(
        same_prior and first_difference(vars(found.evidence), vars(other.evidence)) is None,
        "its result depends on the target, but no query was counted",
        f"query the target through {_ALLOWED[cls.access]}, which count, not through parts of the network",
    )


def prior(subject: ComponentUnderTest) -> None:
    """The prior survives safetensors, then gives the same evidence, and is rejected if a tensor is missing."""
    if subject.cls.prior == "none":
        return
    task = task_of(subject)
    first = reference_run(subject, task)
    valid = isinstance(first.prior, Mapping) and all(isinstance(group, Mapping) for group in first.prior.values())
    require(valid and bool(first.prior), "learn returns no groups of tensors", "return {group: {name: tensor}}")
    stored = {group: unpack(pack(tensors)) for group, tensors in first.prior.items()}
    again = run_attack(subject, task, prior=stored)
    fix = "put everything that is learned into the prior"
    require_same(vars(first.evidence), vars(again.evidence), "a stored prior gives another result", fix)
    for group, tensors in stored.items():
        fewer = {**stored, group: dict(list(tensors.items())[1:])}
        try:
            run_attack(subject, task, prior=fewer)
        except Exception:
            continue
        fail(
            f"run succeeds without {next(iter(tensors))!r} of the prior's group {group!r}",
            "load it strictly (load_state_dict(strict=True) or prior[group][name]), or leave it out of the prior",
        )


def resume(subject: ComponentUnderTest) -> None:
    """An attack that is killed in every loop and resumed from its checkpoint gives the same evidence."""
    task = task_of(subject)
    with tempfile.TemporaryDirectory() as folder:

        def run_stage(context: Context, stage: Callable[[Context], Any]) -> Any:
            return interrupted(context, stage, Path(folder))

        resumed = run_attack(subject, task, noise=3, run_stage=run_stage)
    first = reference_run(subject, task)
    fix = (
        "pass every module and optimizer that a step changes to context.loop as `state`, and take random numbers from "
        "the step's generator"
    )
    require_same(_flat(first.prior), _flat(resumed.prior), "learn gives another prior after an interruption", fix)
    require_same(vars(first.evidence), vars(resumed.evidence), "run gives another result after an interruption", fix)


def decreasing_losses(subject: ComponentUnderTest) -> None:
    """The curves in `decreasing_losses` are among those that the attack's loops record."""
    recorded = reference_run(subject, task_of(subject)).curves
    for pattern, series in subject.cls.decreasing_losses.items():
        require(
            any(fnmatchcase(loop, pattern) and series in curve for loop, curve in recorded.items()),
            f"decreasing_losses names the series {series!r} of the loop {pattern!r}, which is not recorded",
            f"name one of {', '.join(f'{loop}: {name}' for loop in recorded for name in recorded[loop]) or 'none'}",
        )


def one_class(subject: ComponentUnderTest) -> None:
    """One label or image, and no public images, are attacked or rejected with a PrivbenchError."""
    task = task_of(subject)
    learned = reference_run(subject, task).prior
    one = run_attack(subject, task, labels=LABELS[1:], items=ITEMS[:1], prior=learned)
    _check_evidence(subject, one.evidence, task, LABELS[1:], ITEMS[:1])
    if subject.cls.prior == "none":
        return
    with contextlib.suppress(PrivbenchError):
        run_attack(subject, task, public=Sample(task=task).load("public").select(torch.arange(0)))


def record(subject: ComponentUnderTest) -> None:
    """A run of the attack gives a record that is written, read again and reported."""
    round_trip(subject, attack=subject.choice, task=task_of(subject))


def support(subject: ComponentUnderTest) -> None:
    """Images of 48 x 48 pixels are attacked, or refused by `require` before anything runs."""
    task = task_of(subject)
    sample = Sample(task=task, image=_UNUSUAL)
    try:
        subject.component.require(sample.protocol)
    except InvalidConfigurationError:
        return
    try:
        round_trip(subject, attack=subject.choice, dataset=sample_choice(sample), task=task)
    except ConformanceError as cause:
        fail(
            f"images of {_UNUSUAL[1]} x {_UNUSUAL[2]} pixels are not attacked: {cause}",
            "support them, or raise an InvalidConfigurationError in require(protocol) that says which it supports",
        )


def _check_evidence(
    subject: ComponentUnderTest, found: Any, task: Task, labels: tuple[int, ...], items: tuple[int, ...]
) -> None:
    cls, image = subject.cls, Sample(task=task).protocol.image
    expected_type = getattr(kinds, cls.yields)
    require(
        type(found) is expected_type,
        f"run returns {type(found).__name__}",
        f"return a privbench.benchmark.core.evidence.{cls.yields}, or correct `yields`",
    )
    expected = _expected_fields(cls.yields, len(labels), len(items), image)
    for name, (shape, dtype) in expected.items():
        value = getattr(found, name)
        valid = isinstance(value, Tensor) and value.dtype == dtype and value.device.type == "cpu"
        shown = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        require(
            valid and (tuple(value.shape) == shape if shape else value.ndim == 2 and len(value) == len(items)),
            f"{name} is {shown} for {len(labels)} labels, 2 draws and 1 trial or {len(items)} observed images",
            f"return {dtype} {shape or f'({len(items)}, D)'} on the CPU",
        )
    name, requested = ("labels", labels) if cls.yields == "ClassReconstructions" else ("items", items)
    returned = getattr(found, name).tolist()
    require(
        tuple(returned) == requested,
        f"{name} is {returned}",
        f"return those of the request in its order, here {list(requested)}",
    )


def _expected_fields(
    kind: str, labels: int, items: int, image: tuple[int, int, int]
) -> Mapping[str, tuple[tuple[int, ...] | None, torch.dtype]]:
    """Shape and dtype of every field of a kind of evidence; no shape for features, whose width the embedder decides."""
    if kind == "ClassReconstructions":
        return {"pixels": ((1, 2, labels, *image), torch.uint8), "labels": ((labels,), torch.int64)}
    found = (
        {"pixels": ((items, *image), torch.uint8)}
        if kind == "PairedReconstructions"
        else {"features": (None, torch.float32)}
    )
    return {**found, "items": ((items,), torch.int64)}


def _flat(groups: Prior) -> dict[str, Tensor]:
    return {f"{group}/{name}": value for group, tensors in groups.items() for name, value in tensors.items()}


CHECKS = checks_from(
    "attack",
    *(registered, described, fields, configuration, declaration),
    *(key, access, shapes, determinism, inputs, prior, resume, decreasing_losses, one_class, support, record),
)
