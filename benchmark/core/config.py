"""Configuration of components: fields with budgets, recipes, protocols and definitions of scores."""

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

Budget = Literal["smoke", "quick", "full"]
BUDGETS: tuple[Budget, ...] = ("smoke", "quick", "full")
Access = Literal["white_box", "scores", "labels", "features"]
#: Parts of a data set. The harness holds `private_val` out of what a data set loads as `private_train`.
Part = Literal["private_train", "private_val", "private_test", "public", "judge_train", "judge_test"]
#: Which network of a training is kept: the best one on the validation part, or the one of the last step.
Kept = Literal["best", "last"]
StageKind = Literal["judge", "second_judge", "target", "negatives", "prior", "evidence", "scores"]
Task = Literal["classes", "attributes"]
#: Kind and name of a registered network that a component uses besides those of the protocol.
UsedNetwork = tuple[Literal["embedder", "perceptual"], str]
#: Name of the defense that trains a target without protection; others are compared with it.
UNDEFENDED = "none"
#: Name of the built-in control: a target trained on permuted labels, which every matrix attacks too.
PLACEBO = "placebo"


#: Distribution of the components that come with privbench, and of no others.
BUILT_IN = "privbench"


def is_placebo(name: str, distribution: str) -> bool:
    """Return whether a defense of that name and package is the built-in control."""
    return (name, distribution) == (PLACEBO, BUILT_IN)


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
        default: the published value, used under the budget `full`.
        description: unit and meaning, in one phrase.
        smoke: value under the budget `smoke`, if it differs.
        quick: value under the budget `quick`, if it differs.
        stages: the stages whose result depends on the field; `None` means every stage that uses the component.
        constraints: passed to `pydantic.Field` (`ge`, `gt`, `le`, `lt`, ...).

    Raises:
        ValueError: `stages` names no kind of stage.
    """
    unknown = set(stages or ()) - set(get_args(StageKind))
    if unknown:
        raise ValueError(f"expected stages to be among {', '.join(get_args(StageKind))}, got {min(unknown)!r}")
    budgets = {name: value for name, value in (("smoke", smoke), ("quick", quick)) if value is not None}
    extra: dict[str, Any] = {"budgets": budgets}
    if stages is not None:
        extra["stages"] = list(stages)
    return Field(default, description=description, json_schema_extra=extra, **constraints)


class Configuration(BaseModel):
    """A frozen set of validated fields; unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def config(self, stage: StageKind | None = None) -> dict[str, Any]:
        """Return the fields that decide the result of `stage`, for canonical JSON (all fields without a stage)."""
        values = self.model_dump(mode="json")
        if stage is None:
            return values
        fields = type(self).model_fields
        return {name: value for name, value in values.items() if stage in decided_stages(fields[name])}


def decided_stages(field: FieldInfo) -> tuple[StageKind, ...]:
    """Return the kinds of stages that a field decides: those that it declares, else all."""
    extra = field.json_schema_extra
    declared: Any = extra.get("stages") if isinstance(extra, dict) else None
    return get_args(StageKind) if declared is None else tuple(declared)


class Recipe(Configuration):
    """Training of a classifier: optimiser, schedule and length.

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

    def steps(self, images: int) -> int:
        """Return the number of steps with shuffled batches of at least one image."""
        steps = self.epochs * (images // min(self.batch_size, images))
        return min(steps, self.max_steps or steps)


#: Stages that evaluators read, and what attacks alone read before them. Evaluators see the whole protocol, so that
#: every field of it decides `scores`.
_JUDGES: tuple[StageKind, ...] = ("judge", "second_judge", "scores")
_EVIDENCE: tuple[StageKind, ...] = ("evidence", "scores")
_ATTACKED: tuple[StageKind, ...] = ("target", "negatives", "prior", "evidence", "scores")


class Protocol(Configuration):
    """Fixed settings that make numbers comparable; the `id` is printed with every number.

    All of them are in the keys of stages. A field that declares `stages` is in the keys of those alone: another number
    of draws does not train a target again. `privbench check` fails a component that reads others.
    """

    name: str
    version: int
    task: Task = "classes"
    image: tuple[int, int, int] = Field(description="channels, height, width")
    classes: int = Field(description="outputs of the target", ge=1)
    judge_classes: int = setting(..., "outputs of the judge", stages=_JUDGES, ge=1)
    target_network: str = setting(..., "name in `privbench list networks`", stages=_ATTACKED)
    judge_network: str = setting(..., "name in `privbench list networks`", stages=("judge", "scores"))
    second_judge_network: str | None = setting(
        None,
        "name in `privbench list networks`; none without a second judge",
        stages=("second_judge", "scores"),
    )
    pretrained: bool = setting(
        False,
        "start the target from the published weights",
        stages=("judge", "second_judge", "target", "scores"),
    )
    judge_pretrained: bool | None = setting(
        None, "start the judges from the published weights; none means the value of `pretrained`", stages=_JUDGES
    )
    second_judge_pretrained: bool | None = setting(
        None,
        "start the second judge from the published weights; none means as the judge",
        stages=("second_judge", "scores"),
    )
    sampler: Literal["shuffle", "identity"] = "shuffle"
    instances: int = Field(4, description="images per identity in a batch of the identity sampler", ge=1)
    augmentation: Literal["none", "flip", "crop_flip", "cutout"] = "none"
    validation: int = setting(
        10,
        "one in this many private training images of each label, rounded up, is held out to choose the "
        "best network of a training; 0 for none",
        stages=("target", "scores"),
        ge=0,
    )
    attributes: tuple[str, ...] = Field((), description="names of the outputs of an attribute task, in order")
    face_box: tuple[int, int, int, int] | None = Field(
        None,
        description="of faces: left, top, width, height of the image in CelebA's aligned frame of 178 x 218 pixels",
    )
    attacked: int = setting(
        ..., "labels 0 .. attacked-1 are attacked", stages=("negatives", "evidence", "scores"), ge=1
    )
    group: int = setting(60, "labels that the published attack optimises together", stages=_EVIDENCE, ge=1)
    draws: int = setting(..., "reconstructions per label and trial", stages=_EVIDENCE, ge=1)
    trials: int = setting(1, "independent attacks", stages=_EVIDENCE, ge=1)
    reference: int = setting(
        5, "private training images per label in the reference set of FID", stages=("target", "scores"), ge=1
    )  # the validation part leaves as many, so that it decides what the target is trained on
    observed: int = setting(
        1000,
        "private test images, evenly spaced, whose encodings an attack on features receives",
        stages=_EVIDENCE,
        ge=1,
    )

    def starts_from_published(self, role: Literal["target", "judge", "second_judge"]) -> bool:
        """Return whether a network starts from the published weights."""
        if role == "second_judge" and self.second_judge_pretrained is not None:
            return self.second_judge_pretrained
        return self.pretrained if role == "target" or self.judge_pretrained is None else self.judge_pretrained

    @property
    def id(self) -> str:
        """Return name and version, such as `mnist/v1`."""
        return f"{self.name}/v{self.version}"


class Definition(Configuration):
    """Meaning of a score; columns and the page of definitions are made from it."""

    name: str
    title: str
    measures: Literal["utility", "leakage", "quality"]
    better: Literal["higher", "lower"] = Field(description="direction that a defender prefers")
    unit: Literal["fraction", "distance", "similarity", "decibel", "ratio"]
    formula: str
    range: str
