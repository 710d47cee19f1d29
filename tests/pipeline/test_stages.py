"""What each stage reads, computes, counts and states, on a few digits and with components that note what they get."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from privbench.benchmark.access.views import FeaturesView
from privbench.benchmark.contracts import Attack, Evaluator, FeatureAttack
from privbench.benchmark.core.config import Definition, Protocol, Recipe
from privbench.benchmark.core.evidence import ClassReconstructions, Encodings, PairedReconstructions, Request, Score
from privbench.benchmark.errors import PrivbenchError
from privbench.benchmark.networks.judges import accuracy
from privbench.benchmark.pipeline import record_artifacts, stages
from privbench.benchmark.pipeline.cell import Cell, Choice
from privbench.benchmark.pipeline.facts import AttackFacts, ScoresFacts, TargetFacts, TrainedJudgeFacts
from privbench.benchmark.pipeline.plan import Plan, Stage, build_plan
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.pipeline.trained_models import load_judges, predict
from privbench.benchmark.pipeline.victim_encodings import observe
from privbench.benchmark.store.manifest import Artifact
from privbench.benchmark.store.store import Store
from privbench.benchmark.testing.run_cell import choose, sample_choice
from privbench.benchmark.testing.samples import Sample
from privbench.benchmark.training.context import Context

pytestmark = pytest.mark.usefixtures("local_targets")
CPU = torch.device("cpu")
NOWHERE = Path("nowhere")
SAMPLE = Sample(second_judge=Recipe(max_steps=3, batch_size=8))


class Asking(Attack):
    """An attack that sends 3 public images while it learns, and takes gradients for 5 in each of 4 steps."""

    access = "white_box"
    prior = "target"
    got: ClassVar[dict[str, Any]] = {}
    dies_after: ClassVar[int | None] = None

    def learn(self, view: Any, public: Any, context: Context) -> Any:
        view.logits(public.pixels[:3].float().div(255))
        return {"mean": {"image": public.pixels.float().mean(0)}}

    def run(self, view: Any, prior: Any, request: Request, context: Context) -> Any:
        self.got.update(request=request, trainable=[p for p in view.network.parameters() if p.requires_grad])
        x = prior["mean"]["image"].expand(5, -1, -1, -1).div(255).clone().requires_grad_()

        def step(i: int, generator: Any) -> dict[str, Any]:
            if i == self.dies_after:
                context.save("ask", i, {})
                raise KeyboardInterrupt
            torch.autograd.grad(view.logits(x).sum(), x)
            return {"loss": x.sum().detach()}

        context.loop("ask", 4, {}, step)
        shape = (request.trials, request.draws, len(request.labels), *context.protocol.image)
        return ClassReconstructions(torch.zeros(shape, dtype=torch.uint8), torch.tensor(request.labels))


class Trainer(Asking):
    """An attack that trains the target."""

    def run(self, view: Any, prior: Any, request: Request, context: Context) -> Any:
        next(view.network.parameters()).data.add_(1)
        return super().run(view, prior, request, context)


class Seeing(FeatureAttack):
    """An attack that keeps the latents that it is given, and asks for those of the same images."""

    yields: ClassVar[str] = "PairedReconstructions"
    got: ClassVar[dict[str, Any]] = {}

    def run(self, view: Any, prior: Any, request: Request, context: Context) -> Any:
        assert isinstance(view, FeaturesView)
        assert request.encodings is not None and request.items is not None
        test = SAMPLE.load("private_test").pixels[request.items]
        self.got.update(z=request.encodings, items=request.items, asked=view.features(test.float().div(255)))
        return PairedReconstructions(test, request.items)


class Listening(Evaluator):
    """An evaluator that keeps the latents that it is given."""

    needs = ("Encodings",)
    scores = (
        Definition(name="x", title="x", measures="quality", better="lower", unit="ratio", formula="x", range="[0, 1]"),
    )
    got: ClassVar[dict[str, Any]] = {}

    def score(self, evidence: Any, judges: Any) -> Any:
        self.got["z"] = evidence.get(Encodings).z
        return {"x": Score(0.5)}


class Raising(Listening):
    """An evaluator that raises."""

    needs = ("Predictions",)

    def score(self, evidence: Any, judges: Any) -> Any:
        raise ZeroDivisionError


def cell(defense: str = "none", attack: Any = None, evaluators: Any = (), seed: int = 0, dataset: Any = SAMPLE) -> Cell:
    return Cell(
        sample_choice(dataset), choose("defense", defense), Choice("attack", "toy", "tests", attack or Asking()),
        tuple(Choice("evaluator", f"toy{i}", "tests", each) for i, each in enumerate(evaluators)), seed, "smoke",
    )  # fmt: skip


def planned(made: Cell) -> dict[str, Stage]:
    plan: Plan = build_plan([made], NOWHERE)
    assert not plan.skipped
    return {stage.kind: stage for stage in plan.stages.values()}


def computed(made: Cell, folder: Path) -> tuple[dict[str, Artifact], Session]:
    session = Session(Store(folder), NOWHERE, CPU)
    return {kind: stages.run(stage, session) for kind, stage in planned(made).items()}, session


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, local_targets: None) -> tuple[dict[str, Artifact], Session]:
    """Every kind of stage, of a cell with both judges and negatives."""
    made = cell()
    evaluators = tuple(choose("evaluator", name) for name in ("accuracy", "attack_acc", "verified_acc"))
    made = Cell(made.dataset, made.defense, made.attack, evaluators, 0, "smoke")
    return computed(made, tmp_path_factory.mktemp("whole"))


def test_judges_do_not_depend_on_the_cell_that_asks_for_them(tmp_path: Path) -> None:
    """Another cell of a plan may be the first to need them, and another machine may have only the others."""
    digests = []
    for seed in (0, 1):
        made = cell(evaluators=(choose("evaluator", "verified_acc").component,), seed=seed)
        session = Session(Store(tmp_path / str(seed)), NOWHERE, CPU)
        found = [stages.run(stage, session) for kind, stage in planned(made).items() if "judge" in kind]
        digests.append([artifact.digest for artifact in found])
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 2


def test_every_stage_has_a_seed_of_its_own(tmp_path: Path) -> None:
    session = Session(Store(tmp_path), NOWHERE, CPU)
    needs = (choose("evaluator", "verified_acc").component,)
    first, second = ({k: session.context(s).seed for k, s in planned(cell(evaluators=needs, seed=n)).items()}
                     for n in (0, 1))  # fmt: skip
    assert len(set(first.values())) == len(first) == 7
    assert {kind for kind in first if first[kind] == second[kind]} == {"judge", "second_judge"}


def test_the_queries_of_prior_and_evidence_are_added(whole: Any) -> None:
    found, _ = whole
    assert AttackFacts.of(found["prior"]).queries == {"forward": 3, "backward": 0, "head": 0}
    assert AttackFacts.of(found["evidence"]).queries == {"forward": 20, "backward": 20, "head": 0}
    assert ScoresFacts.of(found["scores"]).queries == {"forward": 23, "backward": 20, "head": 0}


def test_queries_are_counted_across_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, made = Session(Store(tmp_path), NOWHERE, CPU), planned(cell())
    for kind in ("target", "prior"):
        stages.run(made[kind], session)
    monkeypatch.setattr(Asking, "dies_after", 2)
    with pytest.raises(KeyboardInterrupt):
        stages.run(made["evidence"], session)
    assert [*(tmp_path / "checkpoints").rglob("*.checkpoint")]
    monkeypatch.undo()
    assert AttackFacts.of(stages.run(made["evidence"], session)).queries["forward"] == 20
    assert not [*(tmp_path / "checkpoints").rglob("*.checkpoint")], "a finished stage leaves none"


def test_an_attack_gets_its_task_and_a_target_that_it_must_not_train(whole: Any, tmp_path: Path) -> None:
    request = Asking.got["request"]
    assert (request.labels, request.draws, request.trials, request.group) == ((0, 1), 2, 1, SAMPLE.protocol.group)
    assert request.encodings is None
    assert Asking.got["trainable"] == []
    with pytest.raises(PrivbenchError, match="attack toy changed the target's weights"):
        computed(cell(attack=Trainer()), tmp_path)


def test_scores_and_submissions_see_the_very_latents_that_were_attacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target's latents are random: asked again, they are others."""
    made = cell("mid", Seeing(), (Listening(),))
    found, session = computed(made, tmp_path)
    assert torch.equal(Seeing.got["z"], Listening.got["z"])
    assert not torch.equal(Seeing.got["z"], Seeing.got["asked"])
    target, keys = found["target"], (found["evidence"].key, found["scores"].key)
    again = [observe(made, session, target, key, None).z for key in keys]
    assert torch.equal(again[0], Seeing.got["z"])
    assert not torch.equal(again[1], Seeing.got["z"]), "each attack sees its own"
    monkeypatch.setattr(record_artifacts, "cell_of", lambda record: made)
    record: Any = SimpleNamespace(artifacts=ScoresFacts.of(found["scores"]).artifacts, key="f" * 64, command=())
    assert torch.equal(record_artifacts.encodings(record, session).z, Seeing.got["z"])


def test_latents_are_those_of_the_layer_and_of_images_across_the_test_part(tmp_path: Path) -> None:
    made = cell("none", Seeing(layer="layer1"), (Listening(),))
    found, session = computed(made, tmp_path)
    n = len(SAMPLE.load("private_test"))
    assert Seeing.got["items"].tolist() == [0, n // 4, n // 2, 3 * n // 4]
    pixels = SAMPLE.load("private_test").pixels[Seeing.got["items"]]
    z = session.target(found["target"], made).encode(pixels.float().div(255), "layer1")
    for seen in (Seeing.got["z"], Seeing.got["asked"], Listening.got["z"]):
        torch.testing.assert_close(seen, z)


def test_a_judge_states_its_own_recipe_and_accuracy(whole: Any) -> None:
    found, _ = whole
    test = SAMPLE.load("judge_test")
    judges = load_judges(found, SAMPLE.protocol, CPU)
    for role, judge, recipe in (
        ("judge", judges.classifier, SAMPLE.judge),
        ("second_judge", judges.second, SAMPLE.second_judge),
    ):
        facts = TrainedJudgeFacts.of(found[role])
        assert facts.recipe == recipe.model_dump(mode="json")
        assert facts.n == len(test) != len(SAMPLE.load("judge_train"))
        assert facts.test_accuracy == judge.test_accuracy == accuracy(judge.logits(test.pixels), test.labels)
    assert ScoresFacts.of(found["scores"]).judge["n"] == len(test)


@pytest.mark.parametrize(("usual", "expected"), [("none", ("none", "none")), ("cutout", ("flip", "crop_flip"))])
def test_judges_see_images_augmented_in_their_own_ways(
    usual: str, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Augmented(Sample):
        @property
        def protocol(self) -> Protocol:
            return super().protocol.model_copy(update={"augmentation": usual})

    seen = []
    monkeypatch.setattr(Context, "fit", lambda *_, augmentation=None, **options: seen.append(augmentation))
    session = Session(Store(tmp_path), NOWHERE, CPU)
    made = planned(cell(evaluators=(choose("evaluator", "verified_acc").component,), dataset=Augmented()))
    for kind in ("judge", "second_judge"):
        stages.run(made[kind], session)
    assert tuple(seen) == expected


def test_a_target_is_tested_on_the_private_test_images(whole: Any) -> None:
    found, session = whole
    test, stored = SAMPLE.load("private_test"), found["target"].tensors("predictions")
    facts = TargetFacts.of(found["target"])
    network = session.target(found["target"], cell())
    session.forget()
    assert torch.equal(stored["labels"], test.labels)
    assert torch.equal(stored["logits"], predict(network, test.pixels, CPU, facts.prediction_seed))
    assert (facts.n, facts.test_accuracy) == (len(test), accuracy(stored["logits"], test.labels))


def test_negatives_are_of_the_attacked_labels(whole: Any) -> None:
    found, _ = whole
    assert found["negatives"].tensors("Negatives")["labels"].unique().tolist() == [0, 1]
    assert SAMPLE.protocol.classes > 2


def test_scores_state_the_curves_and_artifacts_of_every_stage(whole: Any) -> None:
    found, _ = whole
    facts = ScoresFacts.of(found["scores"])
    assert set(facts.stage_curves) == {"target", "judge", "second_judge", "evidence"}
    assert {role: (each.key, each.digest) for role, each in facts.artifacts.items()} == {
        kind: (artifact.key, artifact.digest) for kind, artifact in found.items() if kind != "scores"
    }


@pytest.mark.parametrize("evaluators", [(Raising(), Listening()), (Listening(), Raising())])
def test_one_evaluator_that_raises_is_remembered(evaluators: Any, tmp_path: Path) -> None:
    found, _ = computed(cell("none", Seeing(), evaluators), tmp_path)
    assert ScoresFacts.of(found["scores"]).failed


def test_images_are_those_of_the_part_and_of_the_configured_data_set(tmp_path: Path) -> None:
    session, dataset = Session(Store(tmp_path), NOWHERE, CPU), sample_choice(SAMPLE)
    whole, parts = SAMPLE.load("private_train"), [session.images(dataset, p) for p in ("private_train", "private_val")]
    assert 0 < len(parts[1]) < len(parts[0]) < len(parts[0]) + len(parts[1]) == len(whole)
    small = sample_choice(Sample(image=(1, 16, 16)))
    assert session.images(small, "public").pixels.shape[-1] == 16
    assert session.images(dataset, "public").pixels.shape[-1] == 32
