"""Targets on attributes: what a plan makes of them, and every published defense trained on a tiny data set."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from privbench.benchmark import api, registry
from privbench.benchmark.contracts import Attack, Dataset
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.errors import CorruptArtifactError, InvalidConfigurationError, PrivbenchError
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.pipeline.cell import Cell, Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import build_plan
from privbench.benchmark.pipeline.resolve import resolve
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.pipeline.stages import run
from privbench.benchmark.pipeline.trained_models import load_target, predict
from privbench.benchmark.store.store import Store
from privbench.benchmark.training.batches import Batches
from torch import nn

CPU = torch.device("cpu")
DEFENSES = ["none", "mid", "bido_hsic", "bido_coco"]


class Halves(Dataset):
    """Grey images whose upper and left halves are bright or not; that is what the attributes say."""

    family: ClassVar[str] = "celeba_attributes"
    names: tuple[str, ...] = ("Upper", "Left")

    @property
    def protocol(self) -> Protocol:
        return Protocol(
            name="halves", version=1, task="attributes", image=(1, 8, 8), classes=len(self.names), judge_classes=2,
            target_network="toy_network", judge_network="toy_network", sampler="identity", instances=2,
            attributes=self.names, attacked=1, draws=1,
        )  # fmt: skip

    def load(self, part: str, root: Path) -> Images:
        generator = torch.Generator().manual_seed(len(part))
        attributes = torch.rand(96, 2, generator=generator) < 0.5
        x = 0.3 + 0.2 * torch.rand(96, 1, 8, 8, generator=generator)
        x[:, :, :4] += 0.25 * attributes[:, 0, None, None, None]
        x[:, :, :, :4] += 0.25 * attributes[:, 1, None, None, None]
        return Images((255 * x).byte(), identities=torch.arange(96) % 12, attributes=attributes[:, : len(self.names)])


class ToyNetwork(Network):
    """One convolution and one hidden layer."""

    def __init__(self, image: tuple[int, int, int], classes: int, *, pretrained: bool = False) -> None:
        convolution = nn.Sequential(nn.Conv2d(image[0], 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4))
        hidden = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.ReLU())
        super().__init__({"convolution": convolution, "hidden": hidden, "logits": nn.Linear(12, classes)})


class ToyAttack(Attack):
    """An attack on either task, which is planned and never run."""

    access: ClassVar[Any] = "labels"
    yields: ClassVar[str] = "PairedReconstructions"
    tasks: ClassVar[frozenset[Any]] = frozenset({"classes", "attributes"})

    def run(self, view: Any, prior: Any, request: Any, context: Any) -> Any:
        raise AssertionError


TOYS = {"dataset": ("halves", Halves), "network": ("toy_network", ToyNetwork), "attack": ("toy_attack", ToyAttack)}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The toys, as if a package registered them."""
    installed = registry._points

    def points(kind: registry.Kind) -> tuple[EntryPoint, ...]:
        if kind not in TOYS:
            return installed(kind)
        name, cls = TOYS[kind]
        return (*installed(kind), EntryPoint(name, f"{__name__}:{cls.__name__}", f"privbench.{kind}s"))

    monkeypatch.setattr(registry, "_points", points)
    registry.entries.cache_clear()
    yield
    registry.entries.cache_clear()


SETTINGS = {"defense.recipe.optimizer": "adam", "defense.recipe.learning_rate": 0.03, "defense.recipe.max_steps": 120}


def cells(*defenses: str, attack: str = "toy_attack", dataset: str = "halves", **more: Any) -> list[Cell]:
    values = {"evaluators": (), "settings": SETTINGS, "controls": False, "sandbox": False, **more}
    selected = tuple(Selection.parse(name) for name in defenses)
    return Matrix((Selection(dataset),), selected, (Selection(attack),), **values).cells()


def trained(folder: Path, cell: Cell) -> tuple[Any, Session]:
    """The artifact of a cell's target."""
    session = Session(Store(folder), folder, CPU)
    stage = next(stage for stage in build_plan([cell], folder).stages.values() if stage.kind == "target")
    return run(stage, session), session


@pytest.mark.parametrize("names", [["Upper"], ["Upper", "Left"]])
@pytest.mark.parametrize("defense", DEFENSES)
def test_every_defense_trains_a_target_that_tells_attributes(defense: str, names: list[str], tmp_path: Path) -> None:
    (cell,) = cells(defense, settings=SETTINGS | {"dataset.names": names})
    artifact, session = trained(tmp_path, cell)
    stored = artifact.tensors("predictions")
    test = session.images(cell.dataset, "private_test")
    assert stored["labels"].dtype == torch.bool
    assert torch.equal(stored["labels"], test.attributes)
    assert stored["logits"].shape == (96, len(names))
    # Guessing gives 1/2 of at least 96 decisions, +- 0.1 at two standard errors.
    assert artifact.info["test_accuracy"] > 0.9
    assert artifact.info["test_accuracy"] == ((stored["logits"] > 0) == test.attributes).double().mean().item()
    loaded = load_target(artifact, cell, test, CPU)
    assert torch.equal(predict(loaded, test.pixels, CPU, artifact.info["prediction_seed"]), stored["logits"])


def test_the_regulariser_reads_the_attributes(tmp_path: Path) -> None:
    (cell,) = cells("bido_hsic", settings=SETTINGS | {"defense.recipe.max_steps": 1, "defense.lambda_x": 0})
    defense = cell.defense.component
    torch.manual_seed(1)
    network, images = defense.network(cell.dataset.component.protocol), Halves().load("private_train", tmp_path)
    x, y = images.pixels[:24].float() / 255, images.attributes[:24]
    shuffled = y[torch.randperm(24, generator=torch.Generator().manual_seed(0))]
    off = defense.model_copy(update={"lambda_y": 0.0})
    with torch.no_grad():
        true, other = (float(defense.loss(network, x, a) - off.loss(network, x, a)) for a in (y, shuffled))
        binary = nn.functional.binary_cross_entropy_with_logits(network(x), y.float())
        assert float(off.loss(network, x, y)) == pytest.approx(float(binary), rel=1e-6)
    assert true < other < 0, "latents tell more of the true attributes than of others"


@pytest.mark.parametrize("attack", ["gmi", "kedmi", "vmi"])
def test_a_class_attack_on_attributes_is_skipped_in_one_sentence(attack: str, tmp_path: Path) -> None:
    made = build_plan(cells("none", "bido_hsic", attack=attack), tmp_path)
    assert made.stages == made.cells == {}
    assert [skipped.reason for skipped in made.skipped] == [f"attack {attack} works on classes, not on attributes"] * 2


def test_what_has_no_meaning_computes_nothing_and_says_so(tmp_path: Path) -> None:
    folders = {"data": tmp_path, "store": tmp_path / "store", "results": tmp_path / "results"}
    plan, outcome, records = api.execute(cells("none", attack="kedmi"), **folders, device="cpu")
    assert (outcome.computed, outcome.failures, records) == ([], {}, [])
    assert plan.skipped[0].cell.title == "halves none kedmi seed 0"


@pytest.mark.parametrize("defense", ["mid", "bido_hsic", "bido_coco"])
def test_presets_serve_the_family(defense: str) -> None:
    halves = resolve("dataset", Selection("halves"), "full", {})
    celeba = resolve("defense", Selection(defense, "celeba"), "full", {}).component
    ours = resolve("defense", Selection(defense), "full", {}, halves).component
    assert ours.model_dump(exclude={"recipe"}) == celeba.model_dump(exclude={"recipe"})


def test_a_target_whose_decisions_changed_is_refused(tmp_path: Path) -> None:
    (cell,) = cells("none")
    artifact, session = trained(tmp_path, cell)
    stored = artifact.tensors("predictions")
    # The largest logit of each image stays where it is, and every decision becomes no.
    changed = Store(tmp_path / "changed").write(
        "target",
        "a" * 64,
        tensors={
            "network": artifact.tensors("network"),
            "predictions": {**stored, "logits": stored["logits"] - 100},
        },
        info=artifact.info,
    )
    with pytest.raises(CorruptArtifactError, match="of its stored predictions, expected at least 99%"):
        load_target(changed, cell, session.images(cell.dataset, "private_test"), CPU)


def test_a_target_is_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(api._ATTACKS, "attributes", "toy_attack")
    settings = {"defense.recipe.max_steps": 2}
    words = {"dataset": "halves", "settings": settings, "data": tmp_path, "store": tmp_path}
    with pytest.raises(PrivbenchError, match="train it with `privbench run --dataset halves --defense none --attack"):
        api.load_target("none", **words)
    trained(tmp_path, cells("none", settings=settings)[0])
    assert api.load_target("none", **words).layers == ("convolution", "hidden")
    monkeypatch.setitem(api._ATTACKS, "attributes", "kedmi")
    with pytest.raises(PrivbenchError, match="attack kedmi works on classes, not on attributes"):
        api.load_target("none", **words)


@pytest.mark.parametrize("task", ["classes", "attributes"])
def test_the_attack_that_stands_for_all_fits_the_task(task: str) -> None:
    assert task in registry.load("attack", api._ATTACKS[task]).tasks  # type: ignore[index]


def test_the_identity_sampler_keeps_attributes_beside_their_images(tmp_path: Path) -> None:
    images = Halves().load("private_train", tmp_path)
    numbered = Images(torch.arange(96, dtype=torch.uint8).view(96, 1, 1, 1), images.attributes, images.identities)
    batches = Batches(numbered, 8, 0, "identity", 2)
    for step in range(batches.steps_per_epoch):
        x, y = batches.at(step)
        index = (255 * x.flatten()).round().long()
        owners = images.identities[index]
        assert y.dtype == torch.bool
        assert torch.equal(y, images.attributes[index])
        assert torch.equal(owners[0::2], owners[1::2])
        assert len(owners.unique()) == 4


def test_attributes_are_no_identities(tmp_path: Path) -> None:
    images = Halves().load("private_train", tmp_path)
    with pytest.raises(InvalidConfigurationError, match=r"identities or class labels .* use sampler 'shuffle'"):
        Batches(Images(images.pixels, images.attributes), 8, 0, "identity", 2)
