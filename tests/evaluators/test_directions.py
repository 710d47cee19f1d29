"""The direction of every score of every registered evaluator: copies of private images leak more than noise.

`better` of a leakage score must prefer the noise, that of a utility score the target that is right. A new evaluator is
covered without being named, unless it measures quality.
"""

from types import SimpleNamespace

import pytest
import torch
from privbench.benchmark import registry
from privbench.benchmark.core.config import Definition, Protocol
from privbench.benchmark.core.evidence import (
    ClassReconstructions,
    Encodings,
    Evidence,
    FeatureEstimates,
    Images,
    Negatives,
    PairedReconstructions,
    Predictions,
    Score,
)
from privbench.evaluators import _inception

CLASSES, TRIALS, DRAWS, SIZE = 8, 2, 6, 12
EVALUATORS = {entry.name: registry.load("evaluator", entry.name) for entry in registry.entries("evaluator")}
PROTOCOL = Protocol(
    name="made-up",
    version=1,
    image=(1, SIZE, SIZE),
    classes=CLASSES,
    judge_classes=CLASSES,
    target_network="none",
    judge_network="none",
    second_judge_network="none",
    face_box=(0, 0, SIZE, SIZE),
    attacked=CLASSES,
    draws=DRAWS,
    reference=4,
)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (*shape, 1, SIZE, SIZE), generator=_generator(seed), dtype=torch.uint8)


PATTERNS = _noise(CLASSES, seed=0)


def _images(labels: torch.Tensor, seed: int) -> torch.Tensor:
    noise = torch.randint(-40, 41, PATTERNS[labels].shape, generator=_generator(seed))
    return (PATTERNS[labels].long() + noise).clamp(0, 255).to(torch.uint8)


LABELS = torch.arange(CLASSES).repeat(5)
PRIVATE = {part: Images(_images(LABELS, seed), LABELS) for seed, part in enumerate(("private_train", "private_test"))}


def _embed(name: str, pixels: torch.Tensor) -> torch.Tensor:
    return pixels.flatten(1).float().div(255).sub(0.5)


class _Judge:
    """Names the class whose pattern is nearest; the second one sees half of the rows."""

    name, test_accuracy = "nearest", 1.0

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        seen, patterns = (_embed("", x[:, :, : self._rows]) for x in (pixels, PATTERNS))
        return -torch.cdist(seen, patterns)

    def features(self, pixels: torch.Tensor, transform: object = None) -> torch.Tensor:
        return _embed("", pixels)[:, :5]


JUDGES = SimpleNamespace(classifier=_Judge(SIZE), second=_Judge(SIZE // 2), embeddings=_embed)
ITEMS = torch.arange(len(LABELS))


def _evidence(*, leaks: bool) -> Evidence:
    """Evidence of an attack that returns private images, or of one that returns noise."""
    labels = torch.arange(CLASSES)
    shape, test = (TRIALS, DRAWS, CLASSES), PRIVATE["private_test"]
    found = _images(labels.expand(shape), 7) if leaks else _noise(*shape, seed=8)
    pairs = _images(LABELS, 9) if leaks else _noise(len(LABELS), seed=10)
    z = 0.1 * torch.randn(len(LABELS), CLASSES, generator=_generator(11))
    z += torch.eye(CLASSES)[LABELS if leaks else LABELS.flip(0)[torch.randperm(len(LABELS), generator=_generator(12))]]
    logits = torch.randn(len(LABELS), CLASSES, generator=_generator(13))
    items = (
        ClassReconstructions(found, labels),
        PairedReconstructions(pairs, ITEMS),
        FeatureEstimates(_embed("", pairs), ITEMS),
        Encodings(z, ITEMS),
        Predictions(logits + 9 * torch.eye(CLASSES)[test.labels] * leaks, test.labels),
        # The judges accept negatives that show the class, which is a mistake of theirs.
        Negatives(pairs, LABELS, torch.ones(len(LABELS), dtype=torch.bool)),
    )
    return Evidence(
        PROTOCOL, {type(item).__name__: item for item in items}, PRIVATE.__getitem__, {"embedder": "made-by-hand"}
    )


@pytest.fixture(scope="module")
def scores() -> dict[str, tuple[Definition, Score, Score]]:
    """Definition of each score, and its values for leaking and for harmless evidence."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_inception, "load", lambda *_: None)
        patch.setattr(_inception, "features", lambda network, pixels: _embed("", pixels)[:, :5].double().numpy())
        for loaded in EVALUATORS.values():
            leaking, harmless = (loaded().score(_evidence(leaks=leaks), JUDGES) for leaks in (True, False))
            found |= {each.name: (each, leaking[each.name], harmless[each.name]) for each in loaded.scores}
    return found


#: Scores that measure quality, and whether they are better for the evidence that leaks: judges agree about images that
#: show a class, and accept negatives that do; a Frechet distance to private images is smaller.
QUALITY = {
    "judge_agreement": True,
    **dict.fromkeys(("fpr_first", "fpr_second", "fpr_both"), False),
    **dict.fromkeys(("fid_judge", "fid_bido", "fid_inception", "fid_vmi"), False),
}


@pytest.mark.parametrize("name", [score.name for loaded in EVALUATORS.values() for score in loaded.scores])
def test_a_score_prefers_what_its_direction_says(name: str, scores: dict[str, tuple[Definition, Score, Score]]) -> None:
    definition, leaking, harmless = scores[name]
    assert leaking.value is not None and harmless.value is not None
    prefers_leaking = {"leakage": False, "utility": True}.get(definition.measures)
    if prefers_leaking is None:
        prefers_leaking = QUALITY[name]
    is_larger = leaking.value > harmless.value
    assert leaking.value != pytest.approx(harmless.value, rel=0.05)
    assert is_larger == (prefers_leaking == (definition.better == "higher"))
    if leaking.chance is not None and definition.measures == "leakage":
        beyond = leaking.value - leaking.chance
        assert beyond > 0 if definition.better == "lower" else beyond < 0, "it leaks more than chance"
