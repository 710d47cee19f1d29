"""Plan of a run: cells become stages, shared ones once, in an order in which inputs come first."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..contracts import FeatureAttack
from ..core.config import StageKind
from ..errors import InvalidConfigurationError, PrivbenchError
from .cell import Cell
from .keys import NEGATIVES_VERSION, PROBE_VERSION, Identities, stage_key
from .matrix import unsupported

#: Kinds of stages that train a judge.
JUDGES: tuple[StageKind, ...] = ("judge", "second_judge")


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
        """Return a name that is equal for stages that take about as much memory."""
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
    """A cell whose combination of components has no meaning."""

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
    identities = Identities()
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


def _check_layers(cell: Cell, known: dict[str, tuple[str, ...]], identities: Identities) -> None:
    """Refuse a cut layer that the cell's target does not have; `known` caches the layers of targets."""
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
    """Return the names of the latents of a cell's target, which is built without weights."""
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


def _add(plan: Plan, cell: Cell, fingerprint: str, identities: Identities) -> None:
    """Add the stages of one cell that the plan does not have yet."""
    attack = cell.attack.component
    protocol = cell.dataset.component.protocol

    def stage(kind: StageKind, title: str, inputs: dict[str, str], **parts: Any) -> str:
        parts |= {"dataset": identities.choice(cell.dataset, kind), "protocol": identities.protocol(cell.dataset, kind)}
        key = stage_key(kind, data=fingerprint, inputs=inputs, **parts)
        plan.stages.setdefault(key, Stage(kind, key, title, inputs, cell))
        return key

    data = cell.dataset.name
    target = stage(
        "target",
        f"target {data} {cell.defense.name} seed {cell.seed}",
        {},
        defense=identities.choice(cell.defense, "target"),
        network=identities.network(protocol.target_network, pretrained=protocol.pretrained),
        seed=cell.seed,
    )
    inputs = {"target": target}
    if attack.prior != "none":
        prior_inputs = {"target": target} if attack.prior == "target" else {}
        of_defense = f" of {cell.defense.name}" if prior_inputs else ""
        inputs["prior"] = stage(
            "prior",
            f"prior {data} {cell.attack.name}{of_defense} seed {cell.seed}",
            prior_inputs,
            attack=identities.choice(cell.attack, "prior"),
            seed=cell.seed,
        )
    evidence = stage(
        "evidence", f"evidence {cell.title}", inputs, attack=identities.choice(cell.attack, "evidence"), seed=cell.seed
    )
    inputs = {**inputs, "evidence": evidence}
    judges = {judge for choice in cell.evaluators for judge in choice.component.judges}
    if judges:
        network = identities.network(protocol.judge_network, pretrained=protocol.starts_from_published("judge"))
        inputs["judge"] = stage("judge", f"judge {data}", {}, network=network)
    if "second" in judges:
        name, pretrained = protocol.second_judge_network or "", protocol.starts_from_published("second_judge")
        network = identities.network(name, pretrained=pretrained)
        inputs["second_judge"] = stage("second_judge", f"second judge {data}", {}, network=network)
    if any("Negatives" in choice.component.needs for choice in cell.evaluators):
        title = f"negatives {data} {cell.defense.name} seed {cell.seed}"
        inputs["negatives"] = stage("negatives", title, {"target": target}, method=NEGATIVES_VERSION)
    scores = stage(
        "scores",
        f"scores {cell.title}",
        inputs,
        evaluators=[identities.choice(choice, "scores") for choice in cell.evaluators],
        probe=PROBE_VERSION,
    )
    plan.cells[scores] = cell
