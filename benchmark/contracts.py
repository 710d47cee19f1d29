"""What a component is: data set, defense, attack, evaluator. One abstract method each, configuration as fields.

A component is a frozen pydantic model. Its fields are its whole configuration, each with a description, a range and
the published value as default; its canonical JSON is part of every cache key that depends on it. `version` is raised
when a change alters results. Nothing here imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import torch

    from .access.open import View
    from .core.evidence import Evidence, Images, Request, Score
    from .networks.judges import Judges
    from .networks.network import Network
    from .training.context import Context

Budget = Literal["smoke", "quick", "full"]
BUDGETS: tuple[Budget, ...] = ("smoke", "quick", "full")
Access = Literal["white_box", "scores", "labels", "features"]
Part = Literal["private_train", "private_test", "public", "judge_train", "judge_test"]
StageKind = Literal["judge", "second", "target", "negatives", "prior", "evidence", "scores"]
Task = Literal["classes", "attributes"]
#: What an attack learns before it runs: named groups of named tensors (network states), stored as safetensors.
Prior = Mapping[str, Mapping[str, "torch.Tensor"]]


def setting(
    default: Any = ...,
    description: str = "",
    *,
    smoke: Any = None,
    quick: Any = None,
    stages: tuple[StageKind, ...] | None = None,
    **constraints: Any,
) -> Any:
    """Declare a field of a component.

    Args:
        default: the published value; it is what the budget `full` uses.
        description: unit and meaning, in one phrase.
        smoke: value under the budget `smoke`, where it differs.
        quick: value under the budget `quick`, where it differs.
        stages: the stages whose result depends on the field; `None` means every stage that sees the component.
        constraints: passed to `pydantic.Field` (`ge`, `gt`, `le`, `lt`, ...).
    """
    budgets = {name: value for name, value in (("smoke", smoke), ("quick", quick)) if value is not None}
    extra: dict[str, Any] = {"budgets": budgets}
    if stages is not None:
        extra["stages"] = list(stages)
    return Field(default, description=description, json_schema_extra=extra, **constraints)


class Configuration(BaseModel):
    """A frozen set of validated fields; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class Recipe(Configuration):
    """How a classifier is trained: optimiser, schedule and length.

    The schedule multiplies the learning rate by `gamma` after each epoch in `milestones`.
    """

    optimizer: Literal["sgd", "adam"] = setting("sgd", "optimiser")
    learning_rate: float = setting(0.01, "step size", gt=0)
    momentum: float = setting(0.9, "momentum of SGD; Adam ignores it", ge=0, lt=1)
    nesterov: bool = setting(False, "Nesterov momentum for SGD")
    weight_decay: float = setting(0.0, "L2 penalty", ge=0)
    batch_size: int = setting(64, "images per step", ge=1)
    epochs: int = setting(50, "passes over the training images", ge=1)
    max_steps: int | None = setting(
        None, "stop after this many steps even if epochs are left; none means no cap", smoke=12, quick=150, ge=1
    )
    milestones: tuple[int, ...] = setting((), "epochs after which the learning rate is multiplied by gamma")
    gamma: float = setting(0.1, "factor of the learning rate at each milestone", gt=0)


class Protocol(Configuration):
    """Everything fixed that makes numbers comparable; its `id` is printed with every number."""

    name: str
    version: int
    task: Task = "classes"
    image: tuple[int, int, int] = Field(description="channels, height, width")
    classes: int = Field(description="outputs of the target", ge=1)
    judge_classes: int = Field(description="outputs of the judge", ge=1)
    target_network: str = Field(description="name in `privbench list networks`")
    judge_network: str = Field(description="name in `privbench list networks`")
    second_judge_network: str | None = Field(
        None, description="name in `privbench list networks`; none where there is no second judge"
    )
    pretrained: bool = Field(False, description="start target and judges from the published weights")
    judge_pretrained: bool | None = Field(
        None, description="start the judges from the published weights; none means as `pretrained`"
    )
    sampler: Literal["shuffle", "identity"] = "shuffle"
    instances: int = Field(4, description="images per identity in a batch of the identity sampler", ge=1)
    augmentation: Literal["none", "flip", "crop_flip", "cutout"] = "none"
    attributes: tuple[str, ...] = Field((), description="names of the outputs of an attribute task, in order")
    face_box: tuple[int, int, int, int] | None = Field(
        None,
        description="of faces: left, top, width, height of the image in CelebA's aligned frame of 178 x 218 pixels",
    )
    attacked: int = Field(description="labels 0 .. attacked-1 are attacked", ge=1)
    group: int = Field(60, description="labels that the published attack optimises together", ge=1)
    draws: int = Field(description="reconstructions per label and trial", ge=1)
    trials: int = Field(1, description="independent attacks", ge=1)
    reference: int = Field(5, description="private training images per label that FID compares with", ge=1)
    observed: int = Field(
        1000, description="private test images, evenly spaced, whose encodings an attack on features is given", ge=1
    )

    @property
    def id(self) -> str:
        """Name and version, such as `mnist/v1`."""
        return f"{self.name}/v{self.version}"


class Component(Configuration, ABC):
    """Base of everything that the registry holds."""

    version: ClassVar[int] = 1
    #: Named settings from papers. The data set's name or family picks the default one; `name:preset` picks another.
    #: `mnist@quick` holds what differs from the budget's values on that data set or family.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def config(self, stage: StageKind | None = None) -> dict[str, Any]:
        """The fields that decide the result of `stage`, ready for canonical JSON (all fields without a stage)."""
        values = self.model_dump(mode="json")
        if stage is None:
            return values
        fields = type(self).model_fields
        return {name: value for name, value in values.items() if stage in _stages(fields[name], stage)}

    def files(self, stage: StageKind | None = None) -> Mapping[str, str]:
        """SHA-256 of every file besides the data set that decides the result of `stage`, such as weights, by name.

        Raises:
            MissingDataError: a file is not here.
        """
        return {}


def _stages(field: Any, stage: StageKind) -> tuple[str, ...]:
    extra = field.json_schema_extra
    declared = extra.get("stages") if isinstance(extra, dict) else None
    return (stage,) if declared is None else tuple(declared)


class Dataset(Component):
    """Private and public images with their protocol.

    A subclass gives `protocol` and `load`. `check` names what is missing or damaged, `prepare` downloads or explains.
    """

    #: Whose presets fit where a component has none for the data set itself (`digits` uses MNIST's).
    family: ClassVar[str] = ""
    judge: Recipe = setting(Recipe(), "training of the judge", stages=("judge",))
    second_judge: Recipe = setting(Recipe(), "training of the second judge", stages=("second",))
    negatives: int = setting(20, "calibrated negatives per attacked label", smoke=5, stages=("negatives",), ge=1)

    @property
    @abstractmethod
    def protocol(self) -> Protocol:
        """Everything that makes numbers on this data set comparable."""

    @abstractmethod
    def load(self, part: Part, root: Path) -> Images:
        """Read one part.

        Args:
            part: `private_train`, `private_test`, `public`, `judge_train` or `judge_test`.
            root: the data folder (`--data` or `PRIVBENCH_DATA`).

        Raises:
            MissingDataError: a file is missing, truncated or not what it should be.
        """

    def fingerprint(self, root: Path) -> str:
        """What identifies the files behind the protocol, for cache keys; empty where checksums are published."""
        return ""

    def check(self, root: Path) -> list[str]:
        """What is missing or damaged below `root`, one sentence each; empty when all is there."""
        return []

    def prepare(self, root: Path) -> None:
        """Fetch or convert what can be; raise MissingDataError with what to put where otherwise."""
        problems = self.check(root)
        if problems:
            from .errors import MissingDataError

            raise MissingDataError(problems[0])


class Defense(Component):
    """A way to train a target. Most override only `loss`."""

    tasks: ClassVar[frozenset[Task]] = frozenset({"classes"})
    recipe: Recipe = setting(Recipe(), "training of the target")

    def network(self, protocol: Protocol) -> Network:
        """The untrained target; the weights are random or, where the protocol says so, the published ones."""
        from .networks.catalog import build

        return build(protocol.target_network, protocol.image, protocol.classes, pretrained=protocol.pretrained)

    @abstractmethod
    def loss(self, network: Network, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The training loss of one batch.

        Args:
            network: the target in training mode.
            x: `float32 N C H W` in [0, 1], augmented.
            y: `int64 N`, or `bool N A` for attributes.

        Returns:
            A scalar.
        """

    def train(self, private: Images, context: Context) -> Network:
        """Train a target on the private training images; overridden where one loss per step is not enough."""
        with context.seeded("initialise"):
            network = self.network(context.protocol)
        context.fit("target", network, private, self.recipe, self.loss)
        return network


class Attack(Component):
    """A way to reconstruct private data through an allowed view of the target.

    An attack whose access is `features` declares a field `layer` (`str | None`): the cut layer, `None` for the last.
    """

    access: ClassVar[Access]
    #: The kind of evidence that `run` returns, a class name in `evidence`.
    yields: ClassVar[str] = "ClassReconstructions"
    tasks: ClassVar[frozenset[Task]] = frozenset({"classes"})
    #: `public`: one prior serves all targets; `target`: one per target; `none`: `learn` is not called.
    prior: ClassVar[Literal["none", "public", "target"]] = "none"
    #: What `learn` and `run` minimise: by loop (a pattern such as `attack *`) the recorded series that must fall; a
    #: curve that does not is flagged. Losses of networks that play against each other are left out.
    falling: ClassVar[Mapping[str, str]] = {}

    def learn(self, view: View | None, public: Images, context: Context) -> Prior:
        """Learn from public images (and the target, if `prior` is `target`) what `run` needs.

        Fields that `run` alone reads are declared with `stages=("evidence",)`, those of `learn` alone with
        `stages=("prior",)`: changing the former does not repeat the latter.
        """
        return {}

    @abstractmethod
    def run(self, view: View, prior: Prior, request: Request, context: Context) -> Any:
        """Attack the target.

        Returns:
            An instance of the evidence class named by `yields`.
        """


def gives_no(attack: str, kinds: str = "") -> str:
    """How the reason begins why an evaluator has nothing to read: the attack never gives that kind of evidence."""
    return f"{attack} gives no {kinds}"


class Definition(Configuration):
    """What a score means; columns and the page of definitions are made from these."""

    name: str
    title: str
    measures: Literal["utility", "leakage", "quality"]
    better: Literal["higher", "lower"] = Field(description="what a defender prefers")
    unit: Literal["fraction", "distance", "similarity", "decibel", "ratio"]
    formula: str
    range: str


class Evaluator(Component):
    """Turns evidence into scores."""

    #: Kinds of evidence it reads, class names in `evidence`; `A|B` stands for either. `Predictions`, `Negatives` and,
    #: of attacks on features, `Encodings` come from the harness, the others from the attack.
    needs: ClassVar[tuple[str, ...]]
    #: Judges it asks: `classifier`, `second`.
    judges: ClassVar[tuple[str, ...]] = ()
    #: Run only when named with `--evaluator`.
    optional: ClassVar[bool] = False
    scores: ClassVar[tuple[Definition, ...]]

    def unavailable(self, protocol: Protocol) -> str | None:
        """Why the score cannot be had for this protocol on this machine, in one sentence; `None` if it can."""
        return None

    @abstractmethod
    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Every score in `scores`, by name. An undefined one has `value=None` and a reason."""
