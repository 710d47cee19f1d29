"""A target is asked twice and for its gradient; what that shows becomes flags of the record."""

import json
from pathlib import Path

import pytest
import torch
from privbench.benchmark.analysis.cell_flags import cell_flags
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.pipeline import gradient_masking
from privbench.benchmark.pipeline.cell import Cell, Selection
from privbench.benchmark.pipeline.facts import TargetFacts
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import build_plan
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.pipeline.trained_models import predict, state
from privbench.benchmark.pipeline.write_record import make_record
from privbench.benchmark.store.manifest import Artifact
from privbench.benchmark.store.store import Store
from torch import Tensor, nn

CPU = torch.device("cpu")
NOWHERE = Path("nowhere")
X = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 3


class Noise(nn.Module):
    """Adds noise of one size, in evaluation mode too."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x + self.size * torch.randn_like(x)


class Scale(nn.Module):
    """Multiplies."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Steps(nn.Module):
    """Rounds, which has a derivative of zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x.round()


class Detached(nn.Module):
    """Cuts the graph."""

    def forward(self, x: Tensor) -> Tensor:
        return x.detach()


class InPlace(nn.Module):
    """Changes what its own derivative needs."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.sigmoid()
        return y.mul_(2)


def network(*layers: nn.Module, outputs: int = 3) -> Network:
    torch.manual_seed(1)
    return Network({"flat": nn.Sequential(nn.Flatten(), *layers), "logits": nn.Linear(4, outputs)})


def names(facts: dict) -> list[str]:
    return [flag["name"] for flag in cell_flags(scores={}, probe=facts)]


def test_a_plain_target_shows_nothing() -> None:
    before = X.clone()
    facts = gradient_masking.examine(network(), X, LABELS, 5)
    assert {key: facts[key] for key in ("n", "random_logits", "random_decisions", "zero_gradients")} == {
        "n": 8,
        "random_logits": 0,
        "random_decisions": 0,
        "zero_gradients": 0,
    }
    assert facts["gradient_failed"] is None
    assert names(facts) == []
    assert torch.equal(X, before)
    assert not X.requires_grad


def test_the_gradient_is_that_of_the_loss_of_the_next_label() -> None:
    made = network()
    x = X[:1].clone().requires_grad_(True)
    nn.functional.cross_entropy(made.logits(x), (LABELS[:1] + 1) % 3).backward()
    assert gradient_masking.examine(made, X[:1], LABELS[:1], 5)["gradient_norm"] == pytest.approx(
        float(x.grad.norm()), rel=1e-6
    )


def test_a_confident_target_is_not_taken_for_a_masked_one() -> None:
    """Its own loss is saturated: softmax of logits this far apart is exactly 1."""
    made = network()
    own = made.logits(X).argmax(1)
    made.stages["logits"] = nn.Sequential(made.stages["logits"], Scale(1e5))
    x = X.clone().requires_grad_(True)
    nn.functional.cross_entropy(made.logits(x), own).backward()
    assert x.grad.abs().max() == 0
    assert names(gradient_masking.examine(made, X, own, 5)) == []


def test_noise_is_found_and_rounding_is_not() -> None:
    facts = gradient_masking.examine(network(Noise(1.0)), X, LABELS, 5)
    assert facts["random_logits"] == 8
    assert 0 < facts["random_decisions"] <= 8
    assert names(facts) == ["random_output"]
    assert gradient_masking.examine(network(Noise(1.0)), X, LABELS, 5) == facts
    slight = gradient_masking.examine(network(Noise(1e-3)), X, LABELS, 5)
    assert slight["random_logits"] == 8
    assert gradient_masking.examine(network(Noise(1e-7)), X, LABELS, 5)["random_logits"] == 0


@pytest.mark.parametrize("layers", [(Steps(),), (Scale(0.0),), (Detached(),), (Scale(float("nan")),), (Scale(1e-30),)])
def test_a_target_without_a_gradient_is_found(layers: tuple[nn.Module, ...]) -> None:
    facts = gradient_masking.examine(network(*layers), X, LABELS, 5)
    assert facts["zero_gradients"] == 8
    assert names(facts) == ["zero_input_gradient"]
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_a_derivative_that_cannot_be_computed_is_named() -> None:
    facts = gradient_masking.examine(network(InPlace()), X, LABELS, 5)
    assert facts["zero_gradients"] == 8
    assert "inplace" in facts["gradient_failed"]
    assert "\n" not in facts["gradient_failed"]


def test_only_some_images_without_a_gradient() -> None:
    dead = torch.cat((X[:2] * 0, X[2:] + 0.1))
    made = network(nn.Threshold(0.05, 0.0))
    assert gradient_masking.examine(made, dead, LABELS, 5)["zero_gradients"] == 2


def test_attributes_are_decided_one_by_one() -> None:
    truth = torch.rand(8, 3, generator=torch.Generator().manual_seed(2)) > 0.5
    facts = gradient_masking.examine(network(Noise(1.0)), X, truth, 5)
    assert facts["random_logits"] == 8
    assert 0 < facts["random_decisions"] <= 8
    assert facts["zero_gradients"] == 0


def test_no_images_no_facts() -> None:
    assert gradient_masking.examine(network(), X[:0], LABELS[:0], 5) == {"n": 0}
    assert names({"n": 0}) == []


def cell(defense: str) -> Cell:
    return Matrix((Selection("digits"),), (Selection(defense),), (Selection("kedmi"),), budget="smoke").cells()[0]


def stored(folder: Path, made: Cell, network: Network) -> tuple[Session, Artifact]:
    session = Session(Store(folder), NOWHERE, CPU)
    test = session.images(made.dataset, "private_test").select(torch.arange(20))
    logits = predict(network, test.pixels, CPU, 3)
    tensors = {"network": state(network), "predictions": {"logits": logits, "labels": test.labels}}
    info = {"prediction_seed": 3, "test_accuracy": 1.0, "n": 20}
    return session, session.store.write("target", "a" * 64, tensors=tensors, info=info)


@pytest.mark.parametrize(("defense", "expected"), [("none", "zero_input_gradient"), ("mid", "random_output")])
def test_targets_of_cells(tmp_path: Path, defense: str, expected: str) -> None:
    """A target whose last layer ignores its input, and MID's, whose noise is drawn at test time too."""
    made = cell(defense)
    network = made.defense.component.network(made.dataset.component.protocol)
    if defense == "none":
        nn.init.zeros_(network.stages["logits"].weight)
    session, artifact = stored(tmp_path, made, network)
    test = session.images(made.dataset, "private_test")
    seed = TargetFacts.of(artifact).prediction_seed

    def probed() -> dict[str, object]:
        return gradient_masking.probe(session.target(artifact, made), test, "classes", CPU, seed)

    facts = probed()
    assert facts["n"] == gradient_masking.IMAGES
    assert names(facts) == [expected]
    assert probed() == facts


def test_a_target_is_probed_on_images_across_the_test_part(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 3 * gradient_masking.IMAGES
    test = Images(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count))
    seen: list[Tensor] = []
    monkeypatch.setattr(gradient_masking, "examine", lambda network, x, truth, seed: seen.extend([x, truth]) or {})
    gradient_masking.probe(network(), test, "classes", CPU, 5)
    assert torch.equal(seen[1], torch.arange(0, count, 3))
    assert torch.equal(seen[0].flatten(), torch.arange(0, count, 3) / 255)


def scores_artifact(folder: Path, **info: object) -> tuple[Cell, object, Artifact]:
    plan = build_plan([cell("none")], folder)
    ((key, made),) = plan.cells.items()
    definition = next(c for c in made.evaluators if c.name == "fid").component.scores[0].model_dump(mode="json")
    score = {"value": 3.0, "n": 10, "reason": None, "evaluator": "fid", "definition": definition}
    scores = {"fid_judge": score | {"flags": {"fid_rank_deficient": "10 images in 512 features"}}}
    machine = {"privbench": "0", "python": "3", "torch": "2", "platform": "p", "cpu": "c", "cores": 1}
    facts = {
        "artifacts": {},
        "queries": {},
        "costs": {},
        "environment": machine | {"device": "cpu", "threads": 1},
        "judge": {"network": "scnn", "test_accuracy": 0.9, "n": 9, "pretrained": False},
        "stage_curves": {"evidence": {"attack": {"identity": [[i, 2.0] for i in range(40)]}}},
    }
    files = {"scores.json": json.dumps(scores).encode()}
    artifact = Store(folder).write("scores", key, tensors={}, info=facts | info, files=files)
    return made, plan.stages[key], artifact


def test_a_record_has_the_flags_of_all_sources_and_the_access_of_its_attack(tmp_path: Path) -> None:
    found = gradient_masking.examine(network(Noise(1.0)), X, LABELS, 5)
    record = make_record(*scores_artifact(tmp_path, probe=found))
    assert {flag.name for flag in record.flags} == {
        "attack_loss_did_not_fall",
        "random_output",
        "shared_lineage",
        "fid_rank_deficient",
    }
    assert record.access == "white_box"
    assert record.scores["fid_judge"].value == 3.0


def test_a_scores_artifact_of_an_older_version_was_not_probed(tmp_path: Path) -> None:
    older = {"network": "scnn", "test_accuracy": 0.9, "n": 9}
    record = make_record(*scores_artifact(tmp_path, judge=older, stage_curves={}))
    assert {flag.name for flag in record.flags} == {"shared_lineage", "fid_rank_deficient"}
