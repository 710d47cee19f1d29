"""Cells to stages: shared ones once, each under a key made of everything that decides its result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..contracts import FeatureAttack
from ..core.canonical import digest
from ..core.config import StageKind
from ..errors import InvalidConfigurationError, PrivbenchError
from ..registry import find, load
from .cell import Cell, Choice
from .matrix import unsupported

#: Raised when the way keys are made changes; it is part of every key.
KEY_FORMAT = 1
#: Kinds of stages whose name in keys is the one that they had when the keys were first made.
_NAMES_IN_KEYS = {"second_judge": "second"}
#: Kinds of stages that train a judge.
JUDGES = ("judge", "second_judge")
#: Raised when a change alters the calibrated negatives; part of the keys of that stage.
NEGATIVES = 1
#: Raised when a change of `probe` alters what a scores stage finds out about its target.
PROBE = 1


@dataclass(frozen=True)
class Stage:
    """One cached step.

    Args:
        kind: of the step.
        key: SHA-256 of everything that decides its result.
        title: short name for progress and messages.
        inputs: keys of the stages it reads, by role.
        cell: one of the cells it serves; those share all that the stage depends on.
    """

    kind: StageKind
    key: str
    title: str
    inputs: Mapping[str, str]
    cell: Cell

    @property
    def resource_class(self) -> str:
        """Equal for stages that take about as much memory: kind, data set, component and budget."""
        protocol = self.cell.dataset.component.protocol
        components = {
            "judge": protocol.judge_network,
            "second_judge": protocol.second_judge_network or "",
            "target": self.cell.defense.name,
            "negatives": protocol.target_network,
        }
        component = components.get(self.kind, self.cell.attack.name)
        return f"{self.kind} {self.cell.dataset.name} {component} {self.cell.budget}"


@dataclass(frozen=True)
class Skipped:
    """A cell that has no meaning."""

    cell: Cell
    reason: str


@dataclass
class Plan:
    """Stages in an order in which every stage follows its inputs.

    Args:
        stages: by key, in order.
        cells: the cells to run, by the key of their scores.
        skipped: cells without a meaning, with the reason.
    """

    stages: dict[str, Stage] = field(default_factory=dict)
    cells: dict[str, Cell] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def build_plan(cells: Iterable[Cell], root: Path) -> Plan:
    """Plan cells.

    Args:
        cells: what to run.
        root: the data folder; data sets without published checksums are identified by its files.

    Raises:
        InvalidConfigurationError: a field `layer` names a cut layer that the target does not have.
    """
    plan = Plan()
    identities = _Identities()
    fingerprints: dict[str, str] = {}
    layers: dict[str, tuple[str, ...]] = {}
    for cell in cells:
        reason = unsupported(cell)
        if reason:
            plan.skipped.append(Skipped(cell, reason))
            continue
        _check_layers(cell, layers, identities)
        data = identities.digest(cell.dataset)
        if data not in fingerprints:
            fingerprints[data] = cell.dataset.component.fingerprint(root)
        _add(plan, cell, fingerprints[data], identities)
    return plan


class _Identities:
    """What cells share, said once: identities of choices, and of the networks that stages train."""

    def __init__(self) -> None:
        # The choice itself is kept too, since another one may get the number of one that is gone.
        self._choices: dict[tuple[int, StageKind | None], tuple[Choice, dict[str, Any]]] = {}
        self._digests: dict[int, str] = {}
        self._networks: dict[str, dict[str, str | int]] = {}

    def choice(self, choice: Choice, stage: StageKind | None = None) -> dict[str, Any]:
        """`choice.identity(stage)`."""
        place = (id(choice), stage)
        if place not in self._choices:
            self._choices[place] = (choice, choice.identity(stage))
        return self._choices[place][1]

    def digest(self, choice: Choice) -> str:
        """The digest of all that identifies a choice."""
        whole = self.choice(choice)
        if id(choice) not in self._digests:
            self._digests[id(choice)] = digest(whole)
        return self._digests[id(choice)]

    def network(self, name: str) -> dict[str, str | int]:
        """What of a network decides the result of a stage that trains it."""
        if name not in self._networks:
            distribution, version = find("network", name).distribution, load("network", name).version
            self._networks[name] = {"name": name, "distribution": distribution, "version": version}
        return self._networks[name]


def _check_layers(cell: Cell, known: dict[str, tuple[str, ...]], identities: _Identities) -> None:
    """Refuse a cut layer that the cell's target does not have; `known` holds the layers of targets seen before."""
    attack = cell.attack.component
    if attack.access == "features" and not isinstance(attack, FeatureAttack):
        raise InvalidConfigurationError(
            f"expected attack {cell.attack.name} to derive from FeatureAttack, since its access is features; its "
            "author must change its base class"
        )
    for choice in (cell.defense, cell.attack):
        layer = choice.component.cut_layer
        if layer is None:
            continue
        key = identities.digest(cell.defense) + identities.digest(cell.dataset)
        if key not in known:
            known[key] = _layers(cell)
        if layer not in known[key]:
            raise InvalidConfigurationError(
                f"expected {choice.kind}.layer to be one of {', '.join(known[key])}, got {layer!r}; these are the "
                f"cut layers of {cell.defense.name} on {cell.dataset.name}"
            )


def _layers(cell: Cell) -> tuple[str, ...]:
    """Names of the latents of a cell's target, which is built without weights."""
    import torch

    protocol = cell.dataset.component.protocol.model_copy(update={"pretrained": False})
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                network = cell.defense.component.network(protocol)
        except PrivbenchError:
            raise
        except Exception:  # some initialisations need real numbers
            network = cell.defense.component.network(protocol)
    found: tuple[str, ...] = network.layers
    return found


def _add(plan: Plan, cell: Cell, fingerprint: str, identities: _Identities) -> None:
    """Add the stages of one cell that the plan does not have yet."""
    attack = cell.attack.component
    protocol = cell.dataset.component.protocol

    def stage(kind: StageKind, title: str, inputs: dict[str, str], **parts: Any) -> str:
        content = {
            "format": KEY_FORMAT,
            "stage": _NAMES_IN_KEYS.get(kind, kind),
            "dataset": identities.choice(cell.dataset, kind),
            "protocol": protocol.id,
            "data": fingerprint,
            "inputs": {_NAMES_IN_KEYS.get(role, role): key for role, key in inputs.items()},
            **parts,
        }
        key = digest(content)
        plan.stages.setdefault(key, Stage(kind, key, title, inputs, cell))
        return key

    data = cell.dataset.name
    target = stage(
        "target",
        f"target {data} {cell.defense.name} seed {cell.seed}",
        {},
        defense=identities.choice(cell.defense, "target"),
        network=identities.network(protocol.target_network),
        seed=cell.seed,
    )
    inputs = {"target": target}
    if attack.prior != "none":
        reads = {"target": target} if attack.prior == "target" else {}
        whose = f" of {cell.defense.name}" if reads else ""
        inputs["prior"] = stage(
            "prior",
            f"prior {data} {cell.attack.name}{whose} seed {cell.seed}",
            reads,
            attack=identities.choice(cell.attack, "prior"),
            seed=cell.seed,
        )
    evidence = stage(
        "evidence", f"evidence {cell.title}", inputs, attack=identities.choice(cell.attack, "evidence"), seed=cell.seed
    )
    inputs = {**inputs, "evidence": evidence}
    asked = {judge for choice in cell.evaluators for judge in choice.component.judges}
    if asked:
        inputs["judge"] = stage("judge", f"judge {data}", {}, network=identities.network(protocol.judge_network))
    if "second" in asked:
        network = identities.network(protocol.second_judge_network or "")
        inputs["second_judge"] = stage("second_judge", f"second judge {data}", {}, network=network)
    if any("Negatives" in choice.component.needs for choice in cell.evaluators):
        title = f"negatives {data} {cell.defense.name} seed {cell.seed}"
        inputs["negatives"] = stage("negatives", title, {"target": target}, method=NEGATIVES)
    scores = stage(
        "scores",
        f"scores {cell.title}",
        inputs,
        evaluators=[identities.choice(choice, "scores") for choice in cell.evaluators],
        probe=PROBE,
    )
    plan.cells[scores] = cell
