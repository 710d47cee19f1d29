"""Base classes of components: data set, defense, attack, evaluator.

Each has one abstract method, and its configuration as fields.

A component is a frozen pydantic model. Its fields are its whole configuration, each with a description, a range and
the published value as default; its canonical JSON is part of every cache key that depends on it. `version` is raised
when a change alters results. Nothing here imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from .core.config import (
    Access,
    Configuration,
    Definition,
    Kept,
    Part,
    Protocol,
    Recipe,
    StageKind,
    Task,
    UsedNetwork,
    setting,
)
from .core.ranking_rules import RankingRules

if TYPE_CHECKING:
    import torch

    from .access.views import View
    from .core.evidence import Evidence, Images, Request, Score
    from .networks.classifiers.network import Network
    from .networks.judges import Judges
    from .training.context import Context

#: Result of an attack's learning before it runs: named groups of named tensors (network states), stored as safetensors.
Prior = Mapping[str, Mapping[str, "torch.Tensor"]]


class Component(Configuration, ABC):
    """Base class of all registered components."""

    #: Kind in the registry.
    kind: ClassVar[str]
    version: ClassVar[int] = 1
    #: Named settings from papers. The data set's name or family picks the default one; `name:preset` picks another.
    #: `mnist@quick` holds what differs from the budget's values on that data set or family.
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @property
    def cut_layer(self) -> str | None:
        """Name of the latent Z that the component observes or protects; `None` for the last latent, or for none."""
        return None

    def networks(self, stage: StageKind | None = None) -> tuple[UsedNetwork, ...]:
        """Return kind and name of the registered embedders and perceptual networks that decide the result of `stage`.

        Their package, version and files go into the keys of those stages.
        """
        return ()

    def require(self, protocol: Protocol) -> None:
        """Refuse images or labels that the component does not support, before anything runs.

        By default everything is supported. An attack with a generator for certain sizes overrides it, for example with
        `require_square` of `networks/classifiers/requirements.py`. An evaluator defines `unavailable` instead.

        Raises:
            InvalidConfigurationError: names the component, the images, and those that it supports.
        """

    def files(self, stage: StageKind | None = None) -> Mapping[str, str]:
        """Return the SHA-256 of files that decide the result of `stage`, such as weights, by name.

        They go into the keys of those stages and into the record, so that other content under the same path is another
        cell. `privbench.hash_file` and `privbench.hash_folder` make them. The files of a data set belong into
        `fingerprint`, and those of registered networks into their own `files`.

        Raises:
            MissingDataError: a file is missing.
        """
        return {}


class Dataset(Component):
    """Private and public images with their protocol.

    A subclass defines `protocol` and `load`. `check` lists missing or damaged files, `prepare` fetches them or says
    where to put them.
    """

    kind = "dataset"
    #: Data set whose presets apply where a component has none for this one (`digits` uses MNIST's).
    family: ClassVar[str] = ""
    #: How the defenses on it are ranked. Those of built-in data sets stand in `analysis/suites.py`.
    ranking: ClassVar[RankingRules] = RankingRules()
    target: Recipe = setting(Recipe(), "training of the target, the same for every defense", stages=("target",))
    judge: Recipe = setting(Recipe(), "training of the judge", stages=("judge",))
    second_judge: Recipe = setting(Recipe(), "training of the second judge", stages=("second_judge",))
    negatives: int = setting(20, "calibrated negatives per attacked label", smoke=5, stages=("negatives",), ge=1)

    @property
    @abstractmethod
    def protocol(self) -> Protocol:
        """Return everything that makes numbers on this data set comparable."""

    @abstractmethod
    def load(self, part: Part, root: Path) -> Images:
        """Read one part, all its images; `part` is how the harness reads them.

        Args:
            part: `private_train`, `private_test`, `public`, `judge_train` or `judge_test`; never `private_val`, which
                the harness holds out of `private_train`.
            root: the data folder (`--data` or `PRIVBENCH_DATA`).

        Raises:
            MissingDataError: a file is missing, truncated or not what it should be.
        """

    def part(self, part: Part, root: Path) -> Images:
        """Read one part as every stage and every comparison uses it.

        `private_train` is without the images of `private_val`: what defenses train on.

        Args:
            part: any part.
            root: the data folder.

        Raises:
            MissingDataError: as for `load`.
        """
        if part not in ("private_train", "private_val"):
            return self.load(part, root)
        from .core.validation import split_validation

        return split_validation(self.load("private_train", root), self.protocol)[part == "private_val"]

    def fingerprint(self, root: Path) -> str:
        """Return what identifies the content of the files that `load` reads, for the keys of all stages.

        It is empty without files, or where `load` refuses files whose checksums are not the published ones.
        `privbench.hash_file` and `privbench.hash_folder` make it.

        Raises:
            MissingDataError: a file is missing.
        """
        return ""

    def check(self, root: Path) -> list[str]:
        """List what is missing or damaged below `root`, one sentence each; empty if nothing is."""
        return []

    def prepare(self, root: Path) -> None:
        """Fetch or convert files; raise MissingDataError, which says what to put where, if that is impossible."""
        problems = self.check(root)
        if problems:
            from .errors import MissingDataError

            raise MissingDataError(problems[0])


class Defense(Component):
    """A way to train a target. Most override only `loss`."""

    kind = "defense"
    tasks: ClassVar[frozenset[Task]] = frozenset({"classes"})
    recipe: Recipe = setting(Recipe(), "training of the target; by default the field `target` of the data set")
    selection: Kept = setting(
        "best", "network kept: the best on the validation images, looked at during training, or that of the last step"
    )

    def network(self, protocol: Protocol) -> Network:
        """Build the untrained target, with random weights or, if the protocol says so, published ones."""
        from .networks.factory import build_network

        return build_network(protocol.target_network, protocol.image, protocol.classes, pretrained=protocol.pretrained)

    @abstractmethod
    def loss(self, network: Network, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Compute the training loss of one batch.

        Args:
            network: the target in training mode.
            x: `float32 N C H W` in [0, 1], augmented.
            y: `int64 N`, or `bool N A` for attributes.

        Returns:
            A scalar.
        """

    def train(self, private: Images, context: Context) -> Network:
        """Train a target on the private training images; override it if one loss per step is not enough."""
        with context.seeded("initialise"):
            network = self.network(context.protocol)
        context.fit("target", network, private, self.recipe, self.loss, kept=self.selection)
        return network


class Attack(Component):
    """A way to reconstruct private data through an allowed view of the target.

    An attack whose access is `features` derives from `FeatureAttack`.
    """

    kind = "attack"
    access: ClassVar[Access]
    #: The kind of evidence that `run` returns, a class name in `evidence`.
    yields: ClassVar[str] = "ClassReconstructions"
    tasks: ClassVar[frozenset[Task]] = frozenset({"classes"})
    #: `public`: one prior serves all targets; `target`: one per target; `none`: `learn` is not called.
    prior: ClassVar[Literal["none", "public", "target"]] = "none"
    #: What `learn` and `run` minimise: by loop (a pattern such as `attack *`) the recorded series that must decrease; a
    #: curve that does not is flagged. Losses of networks that play against each other are left out.
    decreasing_losses: ClassVar[Mapping[str, str]] = {}

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


class FeatureAttack(Attack):
    """An attack that observes the latent Z of the victim's images at a cut layer."""

    access = "features"
    layer: str | None = setting(None, "cut layer whose latent Z is observed; none means the network's last latent")

    @property
    def cut_layer(self) -> str | None:
        """Name of the observed latent; `None` for the last."""
        return self.layer


class Evaluator(Component):
    """Turns evidence (the output of an attack) into scores."""

    kind = "evaluator"
    #: Kinds of evidence it reads, class names in `evidence`; `A|B` stands for either. `Predictions`, `Negatives` and,
    #: of attacks on features, `Encodings` come from the harness, the others from the attack.
    needs: ClassVar[tuple[str, ...]]
    #: Judges (evaluation classifiers) that it uses: `classifier`, `second`.
    judges: ClassVar[tuple[str, ...]] = ()
    #: Name in `privbench weights ls` of weights that it reads itself; those of the embedders that it names are theirs.
    weights: ClassVar[str | None] = None
    #: Run only when named with `--evaluator`.
    optional: ClassVar[bool] = False
    scores: ClassVar[tuple[Definition, ...]]

    def unavailable(self, protocol: Protocol) -> str | None:
        """Return why this machine cannot score this protocol, in one sentence; `None` if it can."""
        return None

    @abstractmethod
    def score(self, evidence: Evidence, judges: Judges) -> dict[str, Score]:
        """Compute every score in `scores`, by name. An undefined one has `value=None` and a reason."""
