"""Checks of evaluators."""

import dataclasses
import math
import re
import unittest
from collections.abc import Callable, Mapping
from typing import Any

import torch

from .. import registry
from ..core import evidence as kinds
from ..core.config import Part, Protocol, Task
from ..core.evidence import Evidence, Images, Score
from ..errors import PrivbenchError
from ..networks.factory import build_embedder, build_network
from ..networks.judges import Judge, Judges
from .check import checks_from, error_message, fail, require
from .component import ComponentUnderTest
from .configuration import configuration, described, fields, registered, registered_names
from .key import require_in_key, require_settings_in_keys
from .run_cell import ATTACKS, round_trip
from .samples import CPU, Sample, conditions, of_one_class
from .watch import watch

#: Embedder of synthetic feature estimates; it has no weights to download.
_EMBEDDER = "hog"
#: Trials and draws of synthetic reconstructions.
_TRIALS, _DRAWS = 2, 3


def definitions(subject: ComponentUnderTest) -> None:
    """Every score has a complete definition and a unique name; needs and judges are ones that privbench has."""
    cls = subject.cls
    found = [definition.name for definition in getattr(cls, "scores", ())]
    require(bool(found), f"{cls.__name__}.scores is empty", "list a privbench.Definition of every score")
    for definition in cls.scores:
        empty = [name for name in ("name", "title", "formula", "range") if not getattr(definition, name).strip()]
        require(not empty, f"the definition of {definition.name!r} has no {', '.join(empty)}", "fill it in")
    for other in ("itself", *registered_names(subject)):
        theirs = found if other == "itself" else [item.name for item in registry.load("evaluator", other).scores]
        duplicates = sorted(name for name in set(found) if theirs.count(name) > (other == "itself"))
        require(
            not duplicates,
            f"the score {', '.join(duplicates)} of {cls.__name__} is also one of {other}",
            "rename it: score names are columns of the report",
        )
    for need in getattr(cls, "needs", ()) or fail(f"{cls.__name__} declares no needs", "name kinds of evidence"):
        for kind in need.split("|"):
            require(
                dataclasses.is_dataclass(getattr(kinds, kind, None)) and kind not in ("Images", "Request", "Score"),
                f"{cls.__name__}.needs names {kind!r}",
                "name kinds of evidence, such as Predictions or ClassReconstructions, with | between alternatives",
            )
    unknown = set(cls.judges) - {"classifier", "second"}
    require(not unknown, f"judges names {', '.join(sorted(unknown))}", "choose from classifier, second")


def scores(subject: ComponentUnderTest) -> None:
    """The evaluator returns every score that it defines, within its range, or None with the reason."""
    _check_scores(subject, _reference_scores(subject), _evidence(subject))


def determinism(subject: ComponentUnderTest) -> None:
    """The same evidence gives the same scores, whatever the global random state is."""
    with conditions(99):
        again = subject.component.score(_evidence(subject), _judges(_protocol(subject)))
    require(
        repr(again) == repr(_reference_scores(subject)),
        "it returns two scores for the same evidence",
        "draw random numbers from a generator with a fixed seed (a field `seed`), and compute in float64",
    )


def key(subject: ComponentUnderTest) -> None:
    """Fields of the evaluator, and the content of files that it reads, are in the key of the scores."""
    require_settings_in_keys(subject, ["scores"])
    evidence = _evidence(subject)
    judges = _judges(evidence.protocol)
    with watch() as reads, conditions():
        subject.component.score(evidence, judges)
    require_in_key(subject, "scores", reads)


def inputs(subject: ComponentUnderTest) -> None:
    """The evaluator does not change the evidence, the private images or its own fields."""
    evidence = _evidence(subject)
    before = {
        (kind, item.name): getattr(found, item.name).clone()
        for kind, found in evidence.items.items()
        for item in dataclasses.fields(found)
    }
    fields_before = subject.component.model_dump_json()
    private = {part: evidence.private(part).pixels.clone() for part in ("private_train", "private_test")}
    with conditions():
        subject.component.score(evidence, _judges(evidence.protocol))
    for (kind, name), value in before.items():
        now = getattr(evidence.items[kind], name)
        require(torch.equal(now, value), f"it changes {name} of {kind}", "work on a copy: other evaluators read it")
    for part, pixels in private.items():
        require(torch.equal(evidence.private(part).pixels, pixels), f"it changes the images of {part}", "copy them")
    require(subject.component.model_dump_json() == fields_before, "it changes its own fields", "use local variables")


def empty(subject: ComponentUnderTest) -> None:
    """Without evidence, every score is None with the reason, or a PrivbenchError names the reason."""
    _check_edge_case(subject, _evidence(subject, keep=0), "no reconstructions and no predictions")


def one_class(subject: ComponentUnderTest) -> None:
    """Evidence on a single class gives a score, None with the reason, or a PrivbenchError."""
    _check_edge_case(subject, _evidence(subject, one_class=True), "a single class")


def record(subject: ComponentUnderTest) -> None:
    """A run with the evaluator gives a record that is written, read again and reported."""
    _evidence(subject)
    wanted = {kind for need in subject.cls.needs for kind in need.split("|")}
    kind = next((kind for kind in ATTACKS if kind in wanted), None)
    if "Encodings" in wanted and kind is None:
        kind = "PairedReconstructions"
    round_trip(subject, evaluator=subject.choice, task=_task(subject), evidence=kind)


def _check_edge_case(subject: ComponentUnderTest, evidence: Evidence, what: str) -> None:
    try:
        with conditions():
            found = subject.component.score(evidence, _judges(evidence.protocol))
    except PrivbenchError:
        return
    except Exception as cause:
        fail(
            f"for {what}, it raises {error_message(cause)}",
            "return Score(value=None, reason='...') for an undefined score",
        )
    _check_scores(subject, found, evidence)


def _check_scores(subject: ComponentUnderTest, found: Any, evidence: Evidence) -> None:
    defined = {definition.name: definition for definition in subject.cls.scores}
    valid = isinstance(found, Mapping) and all(isinstance(score, Score) for score in found.values())
    require(valid, f"score returns {type(found).__name__} without scores", "return {name: privbench.Score(...)}")
    require(
        set(found) == set(defined),
        f"score returns {', '.join(sorted(found)) or 'nothing'}",
        f"return exactly the scores that it defines: {', '.join(sorted(defined))}",
    )
    for name, score in found.items():
        low, high = _range(defined[name].range)
        require(
            score.value is None or low <= score.value <= high,
            f"the score {name} is {score.value}, outside its range {defined[name].range}",
            "correct the formula or the range",
        )
        require(
            score.value is None or score.n > 0,
            f"the score {name} has no number of observations",
            "set n of the Score",
        )


def _range(text: str) -> tuple[float, float]:
    """Bounds of a range such as `[0, inf)`, widened by rounding errors; infinite for another notation."""
    match = re.match(r"[\[(]\s*([^,]+),\s*([^\])]+)[\])]", text)
    try:
        low, high = (float(word) for word in match.groups()) if match else (-math.inf, math.inf)
    except ValueError:
        return -math.inf, math.inf
    slack = 1e-6 * max([1.0, *(abs(bound) for bound in (low, high) if math.isfinite(bound))])
    return low - slack, high + slack


def _reference_scores(subject: ComponentUnderTest) -> Any:
    def score() -> Any:
        with conditions():
            return subject.component.score(_evidence(subject), _judges(_protocol(subject)))

    return subject.cached("scores", score)


def _task(subject: ComponentUnderTest) -> Task:
    """The task on which the evaluator is checked.

    Raises:
        unittest.SkipTest: the evaluator is available on neither task.
    """
    tasks: tuple[Task, ...] = ("classes", "attributes")
    reasons = {task: subject.component.unavailable(Sample(task=task).protocol) for task in tasks}
    for task, reason in reasons.items():
        if reason is None:
            return task
    raise unittest.SkipTest(f"it is not available on a few digits: {reasons['classes']}")


def _protocol(subject: ComponentUnderTest) -> Protocol:
    return Sample(task=_task(subject)).protocol


def _judges(protocol: Protocol) -> Judges:
    def judge(name: str) -> Callable[[], Judge]:
        def make() -> Judge:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                return Judge(build_network(name, protocol.image, protocol.judge_classes), CPU)

        return make

    return Judges(judge(protocol.judge_network), CPU, protocol, judge(protocol.second_judge_network or "lenet5"))


def _evidence(subject: ComponentUnderTest, *, keep: int | None = None, one_class: bool = False) -> Evidence:
    """Synthetic evidence of every kind that the evaluator needs.

    Args:
        subject: the evaluator.
        keep: observations of each kind, by default all.
        one_class: of the first class only.
    """
    sample = Sample(task=_task(subject))
    protocol = sample.protocol
    parts: dict[Part, Images] = {part: sample.load(part) for part in ("private_train", "private_test")}
    if one_class:
        parts = {part: of_one_class(images) for part, images in parts.items()}
        protocol = protocol.model_copy(update={"attacked": 1})
    synthetic = _SyntheticEvidence(protocol, parts["private_test"], sample.load("public"), keep)
    wanted = {kind for need in subject.cls.needs for kind in need.split("|")}
    items = {}
    for kind in sorted(wanted):
        if not hasattr(synthetic, kind.lower()):
            raise unittest.SkipTest(f"there is no synthetic {kind}")
        items[kind] = getattr(synthetic, kind.lower())()
    alternatives = {kind for need in subject.cls.needs if "|" in need for kind in need.split("|")[1:]}
    items = {kind: found for kind, found in items.items() if kind not in alternatives}
    loaded: Mapping[str, Images] = parts  # type: ignore[assignment]
    return Evidence(protocol, items, lambda part: loaded[part], {"embedder": _EMBEDDER})


class _SyntheticEvidence:
    """Random evidence, one method for each kind.

    Args:
        protocol: of the data set.
        test: the private test images.
        public: public images.
        keep: observations of each kind; `None` for all.
    """

    def __init__(self, protocol: Protocol, test: Images, public: Images, keep: int | None) -> None:
        self._protocol, self._test, self._public, self._keep = protocol, test, public, keep
        self._generator = torch.Generator().manual_seed(11)

    def _items(self) -> torch.Tensor:
        return torch.arange(len(self._test))[: self._keep]

    def _noisy(self, items: torch.Tensor) -> torch.Tensor:
        pixels = self._test.pixels[items]
        noise = torch.randint(-40, 40, pixels.shape, generator=self._generator)
        return (pixels.long() + noise).clamp(0, 255).to(torch.uint8)

    def predictions(self) -> kinds.Predictions:
        truth = self._test.truth(self._protocol.task)[: self._keep]
        logits = torch.randn(len(truth), self._protocol.classes, generator=self._generator)
        return kinds.Predictions(logits, truth)

    def classreconstructions(self) -> kinds.ClassReconstructions:
        labels = torch.arange(self._protocol.attacked)
        count = _TRIALS * _DRAWS * len(labels)
        pixels = self._public.pixels[torch.arange(count) % len(self._public)]
        pixels = pixels.reshape(_TRIALS, _DRAWS, len(labels), *self._protocol.image)
        return kinds.ClassReconstructions(pixels[:, : self._keep], labels)

    def pairedreconstructions(self) -> kinds.PairedReconstructions:
        items = self._items()
        return kinds.PairedReconstructions(self._noisy(items), items)

    def featureestimates(self) -> kinds.FeatureEstimates:
        items = self._items()
        network = build_embedder(_EMBEDDER)
        with torch.inference_mode():
            features = network.embed(self._noisy(items).float().div(255), self._protocol)
        return kinds.FeatureEstimates(features.clone(), items)

    def encodings(self) -> kinds.Encodings:
        items = self._items()
        return kinds.Encodings(torch.randn(len(items), 6, generator=self._generator), items)

    def negatives(self) -> kinds.Negatives:
        labels = torch.arange(self._protocol.attacked).repeat_interleave(2)[: self._keep]
        fooled = torch.arange(len(labels)) % 2 == 0
        return kinds.Negatives(self._public.pixels[: len(labels)], labels, fooled)


CHECKS = checks_from(
    "evaluator",
    *(registered, described, fields, configuration, definitions),
    *(key, scores, determinism, inputs, empty, one_class, record),
)
