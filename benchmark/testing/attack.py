"""Laws of attacks."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ..access.open import TargetSource, open_view
from ..access.views import FeaturesView, View
from ..contracts import FeatureAttack, Prior
from ..core import evidence as kinds
from ..core.config import Access, Task
from ..core.evidence import Images, Request
from ..errors import PrivbenchError
from ..files.tensors import pack, unpack
from ..pipeline.trained_models import state
from ..training.context import Context
from .check import broken, made, require, sentence
from .component import ComponentUnderTest
from .configuration import configuration, described, fields, registered
from .run_cell import ATTACKS, choose, round_trip
from .samples import CPU, Sample, conditions, interrupted

_ROOT = Path()
#: The attacked labels and the observed private images.
LABELS, ITEMS = (0, 2), (4, 5, 6)
#: What an attack may call of each view.
_ALLOWED: Mapping[str, str] = {
    "white_box": "view.logits, view.latents, view.encode, view.head and view.network",
    "scores": "view.scores(x)",
    "labels": "view.labels(x)",
    "features": "view.features(x)",
}


@dataclass(frozen=True)
class Run:
    """What an attack gave.

    Args:
        evidence: what `run` returned.
        prior: what `learn` returned.
        asked: images that the attack asked of the target.
        unchanged: whether the target is as it was.
        curves: training curves by loop and series.
        altered: what it was given and changed.
    """

    evidence: Any
    prior: Prior
    asked: int
    unchanged: bool
    curves: Mapping[str, Any]
    altered: tuple[str, ...]


def declaration(subject: ComponentUnderTest) -> None:
    """Access, kind of evidence, prior and tasks are ones that the harness knows."""
    cls = subject.cls
    for name, known in (
        ("access", get_args(Access)),
        ("yields", tuple(ATTACKS)),
        ("prior", ("none", "public", "target")),
    ):
        value = getattr(cls, name, None)
        require(value in known, f"{cls.__name__}.{name} is {value!r}", f"choose from {', '.join(known)}")
    require(
        bool(cls.tasks) and cls.tasks <= {"classes", "attributes"},
        f"{cls.__name__}.tasks is {set(cls.tasks)}",
        'make it frozenset({"classes"}), frozenset({"attributes"}) or both',
    )
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
    """On every task it declares, it gives the evidence that it declares, of the size that it was asked for."""
    for task in sorted(subject.cls.tasks):
        _check_evidence(subject, _usual(subject, task).evidence, task, LABELS, ITEMS)


def determinism(subject: ComponentUnderTest) -> None:
    """The same seed gives the same prior and evidence, whatever the global random state is."""
    task = _task(subject)
    change = (
        "draw random numbers from context.generator(...), the step's generator or inside `with context.seeded(...)`"
    )
    first, second = _usual(subject, task), _attack(subject, task, noise=99)
    require(_equal(first.prior, second.prior), "learn gives two priors from one seed", change)
    _check_same(first.evidence, second.evidence, "run gives two results from one seed", change)


def inputs(subject: ComponentUnderTest) -> None:
    """It leaves the public images, the request, the prior and its own fields as they were."""
    for what in _usual(subject, _task(subject)).altered:
        broken(f"it changes the {what}", "work on a copy, or in local variables: other stages read the same")


def access(subject: ComponentUnderTest) -> None:
    """It asks the target through the view of its declared access, and leaves the target as it was."""
    cls, task = subject.cls, _task(subject)
    try:
        found = _usual(subject, task)
    except (AttributeError, RuntimeError, AssertionError) as cause:
        if cls.access == "white_box":
            raise
        broken(
            f"with the access {cls.access!r} that it declares, the attack raises {sentence(cause)}",
            f"use {_ALLOWED[cls.access]} alone, or declare the access that it takes",
        )
    require(found.unchanged, "it changes the target's weights or mode", "train a copy of it, or nothing")
    if found.asked:
        return
    other = _attack(subject, task, seed=1)
    same = _equal(found.prior, other.prior) and _difference(found.evidence, other.evidence) is None
    require(
        same,
        "its result depends on the target, but no query was counted",
        f"ask through {_ALLOWED[cls.access]}, which count, not through parts of the network",
    )


def prior(subject: ComponentUnderTest) -> None:
    """What it learns survives safetensors, gives the same evidence then, and is refused where a part is missing."""
    if subject.cls.prior == "none":
        return
    task = _task(subject)
    first = _usual(subject, task)
    good = isinstance(first.prior, Mapping) and all(isinstance(group, Mapping) for group in first.prior.values())
    require(good and bool(first.prior), "learn returns no groups of tensors", "return {group: {name: tensor}}")
    stored = {group: unpack(pack(tensors)) for group, tensors in first.prior.items()}
    again = _attack(subject, task, prior=stored)
    _check_same(first.evidence, again.evidence, "a stored prior gives another result", "put all that is learnt into it")
    for group, tensors in stored.items():
        fewer = {**stored, group: dict(list(tensors.items())[1:])}
        try:
            _attack(subject, task, prior=fewer)
        except Exception:
            continue
        broken(
            f"run goes on without {next(iter(tensors))!r} of the prior's group {group!r}",
            "load it strictly (load_state_dict(strict=True) or prior[group][name]), or leave it out of the prior",
        )


def resume(subject: ComponentUnderTest) -> None:
    """Killed in the middle of every loop and resumed from its checkpoint, it gives the same evidence."""
    task = _task(subject)
    with tempfile.TemporaryDirectory() as folder:

        def work(context: Context, stage: Callable[[Context], Any]) -> Any:
            return interrupted(context, stage, Path(folder))

        resumed = _attack(subject, task, noise=3, through=work)
    first = _usual(subject, task)
    change = (
        "pass every module and optimiser that a step changes to context.loop as `state`, and take random numbers from "
        "the step's generator"
    )
    require(_equal(first.prior, resumed.prior), "learn gives another prior after an interruption", change)
    _check_same(first.evidence, resumed.evidence, "run gives another result after an interruption", change)


def decreasing_losses(subject: ComponentUnderTest) -> None:
    """The curves that it says must fall are among those that its loops record."""
    recorded = _usual(subject, _task(subject)).curves
    for pattern, series in subject.cls.decreasing_losses.items():
        require(
            any(fnmatchcase(loop, pattern) and series in curve for loop, curve in recorded.items()),
            f"decreasing_losses names the series {series!r} of the loop {pattern!r}, which is not recorded",
            f"name one of {', '.join(f'{loop}: {name}' for loop in recorded for name in recorded[loop]) or 'none'}",
        )


def one_class(subject: ComponentUnderTest) -> None:
    """One label or image, and no public images, are attacked or refused by a PrivbenchError."""
    task = _task(subject)
    one = _attack(subject, task, labels=LABELS[1:], items=ITEMS[:1], prior=_usual(subject, task).prior)
    _check_evidence(subject, one.evidence, task, LABELS[1:], ITEMS[:1])
    if subject.cls.prior == "none":
        return
    with contextlib.suppress(PrivbenchError):
        _attack(subject, task, public=Sample(task=task).load("public", _ROOT).select(torch.arange(0)))


def record(subject: ComponentUnderTest) -> None:
    """A run of it gives a record that is written, read again and reported."""
    round_trip(subject, attack=subject.choice, task=_task(subject))


def _task(subject: ComponentUnderTest) -> Task:
    return "classes" if "classes" in subject.cls.tasks else "attributes"


def _usual(subject: ComponentUnderTest, task: Task) -> Run:
    """The attack as it should be, run once for all laws."""
    return subject.once(f"run {task}", lambda: _attack(subject, task))


def _attack(
    subject: ComponentUnderTest,
    task: Task,
    *,
    noise: int = 0,
    seed: int = 0,
    labels: tuple[int, ...] = LABELS,
    items: tuple[int, ...] = ITEMS,
    public: Images | None = None,
    prior: Prior | None = None,
    through: Callable[[Context, Callable[[Context], Any]], Any] = lambda context, stage: stage(context),
) -> Run:
    """Learn and attack as the harness does.

    Args:
        subject: the attack.
        task: of the target.
        noise: state of the global generators.
        seed: of the target.
        labels: to attack.
        items: private test images whose latents are observed.
        public: images to learn from.
        prior: what was learnt before.
        through: runs a stage in its context.
    """
    component, sample = subject.component, Sample(task=task)
    images = sample.load("public", _ROOT) if public is None else public
    learning, running = Context(sample.protocol, CPU, 5), Context(sample.protocol, CPU, 6)
    with conditions(noise), _view(subject, task, seed) as view:
        request = Request(labels, 2, 1, len(labels), *_observed(view, sample, items))
        given = _Given(component, images, request)
        asked = view.queries["forward"]
        if prior is None and component.prior != "none":
            learner = view if component.prior == "target" else None
            prior = through(learning, lambda context: component.learn(learner, images, _seeing(context, learner)))
        given.keep("prior", prior or {})
        evidence = through(running, lambda context: component.run(view, prior or {}, request, _seeing(context, view)))
        curves = {**learning.curves, **running.curves}
        asked = view.queries["forward"] - asked
        return Run(evidence, prior or {}, asked, view.unchanged(), curves, given.altered())


class _Given:
    """Remembers what an attack is given, to see afterwards what it changed."""

    def __init__(self, component: Any, public: Images, request: Request) -> None:
        self._component, self._fields = component, component.model_dump_json()
        self._kept: list[tuple[str, Tensor, Tensor]] = []
        observed = {} if request.encodings is None else {"observed latents": request.encodings}
        self.keep("request", {"": {"public images": public.pixels, **observed}})

    def keep(self, what: str, groups: Prior) -> None:
        """Remember tensors."""
        for group, tensors in groups.items():
            for name, value in tensors.items():
                self._kept.append((f"{what}'s {group}/{name}" if group else name, value, value.clone()))

    def altered(self) -> tuple[str, ...]:
        """What is no longer as it was."""
        found = [name for name, value, before in self._kept if not torch.equal(value, before)]
        if self._component.model_dump_json() != self._fields:
            found.append("fields of the attack")
        return tuple(found)


def _seeing(context: Context, view: View | None) -> Context:
    context.view = view
    return context


@contextlib.contextmanager
def _view(subject: ComponentUnderTest, task: Task, seed: int) -> Iterator[View]:
    """The target as the attack may see it; a process that answers is started once for all laws."""
    if subject.cls.access == "white_box":
        with _opened(subject, task, seed) as view:
            yield view
    else:
        stack: contextlib.ExitStack[Any] = subject.once("views", lambda: contextlib.ExitStack())
        yield subject.once(f"view {task} {seed}", lambda: stack.enter_context(_opened(subject, task, seed)))


@contextlib.contextmanager
def _opened(subject: ComponentUnderTest, task: Task, seed: int) -> Iterator[View]:
    with contextlib.ExitStack() as stack:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "target.safetensors"
            path.write_bytes(_weights(task, seed))
            view = stack.enter_context(
                open_view(
                    subject.cls.access,
                    TargetSource(
                        {"defense": "none", "fields": _defense().model_dump(mode="json")},
                        lambda: unpack(path.read_bytes()),
                        Sample(task=task).protocol,
                    ),
                    device=CPU,
                    seed=3,
                    layer=subject.component.cut_layer,
                )
            )
        yield view


def _weights(task: Task, seed: int) -> bytes:
    """A target without a defense, trained for two steps, as safetensors; no network of it is left behind."""
    sample = Sample(task=task)
    with conditions():
        network = _defense().train(sample.load("private_train", _ROOT), Context(sample.protocol, CPU, seed))
    return pack(state(network))


def _defense() -> Any:
    from ..pipeline.cell import Selection
    from ..pipeline.resolve import resolve

    return choose("defense", "none", resolve("dataset", Selection("digits"), "smoke", {})).component


def _observed(view: View, sample: Sample, items: tuple[int, ...]) -> tuple[Tensor, Tensor] | tuple[()]:
    """What an attack on features is given: latents, and whose they are."""
    if not isinstance(view, FeaturesView):
        return ()
    chosen = torch.tensor(items)
    return view.features(sample.load("private_test", _ROOT).pixels[chosen].float().div(255)), chosen


def _check_evidence(
    subject: ComponentUnderTest, found: Any, task: Task, labels: tuple[int, ...], items: tuple[int, ...]
) -> None:
    cls, image = subject.cls, Sample(task=task).protocol.image
    wanted = getattr(kinds, cls.yields)
    require(
        type(found) is wanted,
        f"run returns {type(found).__name__}",
        f"return a privbench.benchmark.core.evidence.{cls.yields}, or correct `yields`",
    )
    expected = _expected(cls.yields, len(labels), len(items), image)
    for name, (shape, dtype) in expected.items():
        value = getattr(found, name)
        right = isinstance(value, Tensor) and value.dtype == dtype and value.device.type == "cpu"
        shown = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        require(
            right and (tuple(value.shape) == shape if shape else value.ndim == 2 and len(value) == len(items)),
            f"{name} is {shown} for {len(labels)} labels, 2 draws and 1 trial or {len(items)} observed images",
            f"give {dtype} {shape or f'({len(items)}, D)'} on the CPU",
        )
    whose = ("labels", labels) if cls.yields == "ClassReconstructions" else ("items", items)
    require(
        tuple(getattr(found, whose[0]).tolist()) == whose[1],
        f"{whose[0]} is {getattr(found, whose[0]).tolist()}",
        f"give those of the request in its order, here {list(whose[1])}",
    )


def _expected(
    kind: str, labels: int, items: int, image: tuple[int, int, int]
) -> Mapping[str, tuple[tuple[int, ...] | None, torch.dtype]]:
    """Shape and dtype of every field of a kind of evidence; no shape where its width is the author's."""
    if kind == "ClassReconstructions":
        return {"pixels": ((1, 2, labels, *image), torch.uint8), "labels": ((labels,), torch.int64)}
    found = (
        {"pixels": ((items, *image), torch.uint8)}
        if kind == "PairedReconstructions"
        else {"features": (None, torch.float32)}
    )
    return {**found, "items": ((items,), torch.int64)}


def _equal(first: Prior, second: Prior) -> bool:
    return first.keys() == second.keys() and all(
        first[group].keys() == second[group].keys()
        and all(torch.equal(value, second[group][name]) for name, value in first[group].items())
        for group in first
    )


def _difference(first: Any, second: Any) -> str | None:
    """The name of the first field in which two pieces of evidence differ."""
    for item in dataclasses.fields(first):
        if not torch.equal(getattr(first, item.name), getattr(second, item.name)):
            return item.name
    return None


def _check_same(first: Any, second: Any, happened: str, change: str) -> None:
    name = _difference(first, second)
    require(name is None, f"{happened}, seen in {name}", change)


LAWS = made(
    "attack",
    *(registered, described, fields, configuration, declaration),
    *(access, shapes, determinism, inputs, prior, resume, decreasing_losses, one_class, record),
)
