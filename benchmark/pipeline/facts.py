"""Facts that stages state about their results: one frozen class for each kind of artifact.

They are stored as the JSON `info` of an artifact; records and later stages read them back through these classes.
"""

from typing import Any, Self

from pydantic import ConfigDict, Field, JsonValue, ValidationError, model_validator

from ..core.config import Configuration
from ..errors import CorruptArtifactError
from ..records.record import ArtifactReference, Cost, Environment
from ..records.schema1 import rename_second_judge
from ..store.manifest import Artifact

#: Training curves by loop and series: step and value.
Curves = dict[str, dict[str, list[tuple[int, float | None]]]]


class Facts(Configuration):
    """Facts of one artifact; other facts in its `info`, such as those of older releases, are ignored."""

    model_config = ConfigDict(extra="ignore")

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        """Read the facts of an artifact.

        Raises:
            CorruptArtifactError: a fact is missing or has another type.
        """
        try:
            return cls.model_validate(artifact.info)
        except ValidationError as cause:
            field = ".".join(map(str, cause.errors(include_url=False)[0]["loc"]))
            raise CorruptArtifactError(
                f"expected the {artifact.kind} {artifact.key[:12]} to state {field or 'its facts'}, found none that is "
                f"valid; remove {artifact.path} and run again"
            ) from None


class RunFacts(Facts):
    """Facts of every stage: what ran, how long, on what."""

    title: str
    resource_class: str = ""
    seconds: float
    peak_memory_bytes: int
    host_peak_memory_bytes: int = 0
    device: str = ""
    threads: int | None = None
    images_at_once: int | None = None
    notes: dict[str, JsonValue] = Field(default_factory=dict)
    curves: Curves = Field(default_factory=dict)


class JudgeFacts(Facts):
    """Facts of a judge: its network and its accuracy on `n` test images."""

    network: str
    test_accuracy: float
    n: int
    pretrained: bool


class TrainedJudgeFacts(JudgeFacts):
    """Facts of a judge with the recipe of its training."""

    recipe: dict[str, JsonValue]


class TargetFacts(Facts):
    """Facts of a target.

    Its accuracy on the `n` private test images, the seed of its stored predictions, and which network of its training
    was kept (see `training.selection.Selection.finish`).
    """

    test_accuracy: float
    n: int
    prediction_seed: int
    selection: dict[str, JsonValue] = Field(default_factory=dict)
    defense: dict[str, JsonValue] = Field(default_factory=dict)
    protocol: dict[str, JsonValue] = Field(default_factory=dict)


class NegativesFacts(Facts):
    """Facts of calibrated negatives: how many there are, and how many fool the target."""

    n: int
    fooled: int


class AttackFacts(Facts):
    """Facts of a prior or of evidence: images that the attack sent to the target, by kind of query, and its isolation.

    `isolation` is `none` in the harness's process, else how the attack's own process was started.
    """

    queries: dict[str, int] = Field(default_factory=dict)
    isolation: str = "none"


class ScoresFacts(Facts):
    """Facts of scores: all that a record says besides the scores themselves."""

    failed: bool = False
    artifacts: dict[str, ArtifactReference]
    costs: dict[str, Cost]
    stage_curves: dict[str, Curves]
    target: dict[str, JsonValue] = Field(default_factory=dict)
    judge: dict[str, JsonValue] = Field(default_factory=dict)
    queries: dict[str, int] = Field(default_factory=dict)
    environment: Environment
    probe: dict[str, JsonValue] | None = None

    @model_validator(mode="before")
    @classmethod
    def _convert(cls, info: Any) -> Any:
        return rename_second_judge(info) if isinstance(info, dict) else info
