"""A cell of toys that is planned and never run: each has a field, a file and a network for every stage it decides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args

from privbench.benchmark.contracts import Attack, Dataset, Defense, Evaluator
from privbench.benchmark.core.config import Protocol, StageKind, setting
from privbench.benchmark.pipeline.cell import Cell, Choice
from privbench.benchmark.testing.samples import Sample

KINDS: tuple[StageKind, ...] = get_args(StageKind)
#: The stages that each component decides, by the place of its identity in keys.
USES: dict[str, tuple[StageKind, ...]] = {
    "dataset": KINDS,
    "defense": ("target",),
    "attack": ("prior", "evidence"),
    "evaluators.0": ("scores",),
    "evaluators.1": ("scores",),
}
#: Version, package, kind and hash of each network that a component uses, by its name.
NETWORKS: dict[str, dict[str, Any]] = {}
#: Hash of each file that a component reads, by its name.
FILES: dict[str, str] = {}


def hashed(name: str) -> str:
    """A made-up hash."""
    return name.encode().hex().ljust(64, "0")[:64]


class Toy:
    """A network and a file of the component's own in each stage that it decides."""

    place: ClassVar[str]

    def networks(self, stage: StageKind | None = None) -> tuple[Any, ...]:
        return tuple((NETWORKS[name]["kind"], name) for name in self._names("network", stage))

    def files(self, stage: StageKind | None = None) -> Mapping[str, str]:
        return {name: FILES[name] for name in self._names("file", stage)}

    def _names(self, what: str, stage: StageKind | None) -> list[str]:
        return [f"{what} of {self.place} in {each}" for each in USES[self.place] if stage in (None, each)]


for _place, _stages in USES.items():
    for _stage in _stages:
        FILES[f"file of {_place} in {_stage}"] = hashed(f"{_place} {_stage}")
        NETWORKS[f"network of {_place} in {_stage}"] = {
            "version": 1, "distribution": "ours", "kind": "embedder", "file": hashed(f"{_stage} {_place}"),
        }  # fmt: skip


class ToyData(Toy, Dataset):
    """A data set with the protocol and the fingerprint that a test gives it."""

    place: ClassVar[str] = "dataset"
    given: ClassVar[Protocol] = Sample().protocol
    copy_of_files: ClassVar[str] = "copy 1"
    width: int = setting(1, "decides all stages", ge=1)

    @property
    def protocol(self) -> Protocol:
        return self.given

    def load(self, part: Any, root: Path) -> Any:
        raise NotImplementedError

    def fingerprint(self, root: Path) -> str:
        return self.copy_of_files


class ToyDefense(Toy, Defense):
    """A defense with a field."""

    place: ClassVar[str] = "defense"
    weight: float = setting(1.0, "of the regulariser", ge=0)

    def loss(self, network: Any, x: Any, y: Any) -> Any:
        raise NotImplementedError


class ToyAttack(Toy, Attack):
    """An attack with a field for each of its stages and one for both."""

    place: ClassVar[str] = "attack"
    access = "white_box"
    prior = "public"
    width: int = setting(1, "decides both stages", ge=1)
    steps: int = setting(1, "of the prior", ge=1, stages=("prior",))
    iterations: int = setting(1, "of the attack", ge=1, stages=("evidence",))

    def run(self, *_: Any) -> Any:
        raise NotImplementedError


class First(Toy, Evaluator):
    """An evaluator that asks one judge."""

    place: ClassVar[str] = "evaluators.0"
    needs = ("Predictions",)
    judges = ("classifier",)
    scores = ()
    resamples: int = setting(1, "of the bootstrap", ge=1)

    def score(self, *_: Any) -> Any:
        raise NotImplementedError


class Second(First):
    """An evaluator that asks both, and reads negatives."""

    place: ClassVar[str] = "evaluators.1"
    needs = ("Negatives",)
    judges = ("classifier", "second")
    version = 1


def toy_cell() -> Cell:
    """A cell of all toys."""

    def choice(kind: Any, component: Any) -> Choice:
        return Choice(kind, type(component).__name__.lower(), "tests", component)

    evaluators = (choice("evaluator", First()), choice("evaluator", Second()))
    return Cell(
        choice("dataset", ToyData()), choice("defense", ToyDefense()), choice("attack", ToyAttack()), evaluators, 0,
        "smoke",
    )  # fmt: skip
