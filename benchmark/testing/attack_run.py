"""One run of the attack under test: learn and attack as in a cell, and record what happened."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..access.open import TargetSource, open_view
from ..access.views import FeaturesView, View
from ..contracts import Prior
from ..core.config import Task
from ..core.evidence import Images, Request
from ..files.tensors import pack, unpack
from ..pipeline.trained_models import state
from ..training.context import Context
from .component import ComponentUnderTest
from .run_cell import choose
from .samples import CPU, Sample, conditions

#: Positions of the attacked labels and of the observed private images.
LABELS, ITEMS = (0, 2), (4, 5, 6)


@dataclass(frozen=True)
class AttackRun:
    """Result and side effects of an attack.

    Args:
        evidence: return value of `run`.
        prior: return value of `learn`.
        queries: images that the attack sent to the target.
        target_unchanged: false if the attack changed the target.
        curves: training curves by loop and series.
        changed_inputs: names of the inputs that the attack changed.
    """

    evidence: Any
    prior: Prior
    queries: int
    target_unchanged: bool
    curves: Mapping[str, Any]
    changed_inputs: tuple[str, ...]


def reference_run(subject: ComponentUnderTest, task: Task) -> AttackRun:
    """The attack under the usual conditions, run once for all checks."""
    return subject.cached(f"run {task}", lambda: run_attack(subject, task))


def run_attack(
    subject: ComponentUnderTest,
    task: Task,
    *,
    noise: int = 0,
    seed: int = 0,
    labels: tuple[int, ...] = LABELS,
    items: tuple[int, ...] = ITEMS,
    public: Images | None = None,
    prior: Prior | None = None,
    run_stage: Callable[[Context, Callable[[Context], Any]], Any] = lambda context, stage: stage(context),
) -> AttackRun:
    """Learn and attack as in a cell.

    Args:
        subject: the attack.
        task: of the target.
        noise: state of the global generators.
        seed: of the target.
        labels: to attack.
        items: private test images whose latents are observed.
        public: images to learn from.
        prior: a prior that was learned before.
        run_stage: runs a stage in its context.
    """
    component, sample = subject.component, Sample(task=task)
    images = sample.load("public") if public is None else public
    learning, running = Context(sample.protocol, CPU, 5), Context(sample.protocol, CPU, 6)
    with conditions(noise), _view(subject, task, seed) as view:
        request = Request(labels, 2, 1, len(labels), *_observed_latents(view, sample, items))
        inputs = _Inputs(component, images, request)
        queries_before = view.queries["forward"]
        if prior is None and component.prior != "none":
            learner = view if component.prior == "target" else None
            prior = run_stage(learning, lambda context: component.learn(learner, images, _with_view(context, learner)))
        inputs.remember("prior", prior or {})
        evidence = run_stage(
            running, lambda context: component.run(view, prior or {}, request, _with_view(context, view))
        )
        curves = {**learning.curves, **running.curves}
        queries = view.queries["forward"] - queries_before
        return AttackRun(evidence, prior or {}, queries, view.unchanged(), curves, inputs.changed())


class _Inputs:
    """Copies of an attack's inputs, to detect what it changes."""

    def __init__(self, component: Any, public: Images, request: Request) -> None:
        self._component, self._fields = component, component.model_dump_json()
        self._copies: list[tuple[str, Tensor, Tensor]] = []
        observed = {} if request.encodings is None else {"observed latents": request.encodings}
        self.remember("request", {"": {"public images": public.pixels, **observed}})

    def remember(self, what: str, groups: Prior) -> None:
        """Copy tensors."""
        for group, tensors in groups.items():
            for name, value in tensors.items():
                self._copies.append((f"{what}'s {group}/{name}" if group else name, value, value.clone()))

    def changed(self) -> tuple[str, ...]:
        """Names of the inputs that differ from their copies."""
        found = [name for name, value, before in self._copies if not torch.equal(value, before)]
        if self._component.model_dump_json() != self._fields:
            found.append("fields of the attack")
        return tuple(found)


def _with_view(context: Context, view: View | None) -> Context:
    context.view = view
    return context


@contextlib.contextmanager
def _view(subject: ComponentUnderTest, task: Task, seed: int) -> Iterator[View]:
    """The target as the attack may access it; the process of a black-box target is started once for all checks."""
    if subject.cls.access == "white_box":
        with _open_target(subject, task, seed) as view:
            yield view
    else:
        stack: contextlib.ExitStack[Any] = subject.cached("views", contextlib.ExitStack)
        yield subject.cached(f"view {task} {seed}", lambda: stack.enter_context(_open_target(subject, task, seed)))


@contextlib.contextmanager
def _open_target(subject: ComponentUnderTest, task: Task, seed: int) -> Iterator[View]:
    with contextlib.ExitStack() as stack:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "target.safetensors"
            path.write_bytes(_target_weights(task, seed))
            view = stack.enter_context(
                open_view(
                    subject.cls.access,
                    TargetSource(
                        {"defense": "none", "fields": choose("defense", "none").component.model_dump(mode="json")},
                        lambda: unpack(path.read_bytes()),
                        Sample(task=task).protocol,
                    ),
                    device=CPU,
                    seed=3,
                    layer=subject.component.cut_layer,
                )
            )
        yield view


def _target_weights(task: Task, seed: int) -> bytes:
    """Weights of a target without a defense, trained for two steps, as safetensors; the network itself is deleted."""
    sample = Sample(task=task)
    with conditions():
        network = choose("defense", "none").component.train(
            sample.load("private_train"), Context(sample.protocol, CPU, seed)
        )
    return pack(state(network))


def _observed_latents(view: View, sample: Sample, items: tuple[int, ...]) -> tuple[Tensor, Tensor] | tuple[()]:
    """Input of an attack on features: latents and the positions of their images."""
    if not isinstance(view, FeaturesView):
        return ()
    chosen = torch.tensor(items)
    return view.features(sample.load("private_test").pixels[chosen].float().div(255)), chosen
