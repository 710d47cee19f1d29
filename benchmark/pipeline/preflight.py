"""Reasons why cells cannot run, found before anything runs: missing files, images without support."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from ..core.text import count
from ..errors import MissingDataError, PrivbenchError
from ..networks.weights import named
from ..registry import load
from .cell import Cell, Choice
from .matrix import unsupported
from .plan import Plan, Stage

if TYPE_CHECKING:
    from ..core.config import Protocol

log = logging.getLogger("privbench")


@dataclass(frozen=True)
class Gap:
    """Something that this machine lacks, with everything that needs it.

    Args:
        users: evaluators by name; other components and networks by role and name.
        reason: what is missing and the fix, in one sentence.
        cells: number of cells that need it.
    """

    users: tuple[str, ...]
    reason: str
    cells: int

    def __str__(self) -> str:
        return f"{', '.join(self.users)} ({count(self.cells, 'cell')}): {self.reason}"


class _Gaps:
    """Collects gaps, one for each reason."""

    def __init__(self) -> None:
        self._users: dict[str, dict[str, None]] = {}
        self._cells: dict[str, set[object]] = {}

    def add(self, user: str, reason: str, cells: Iterable[object]) -> None:
        self._users.setdefault(reason, {})[user] = None
        self._cells.setdefault(reason, set()).update(cells)

    def collected(self) -> list[Gap]:
        return [Gap(tuple(users), reason, len(self._cells[reason])) for reason, users in self._users.items()]


def unavailable_scores(cells: Iterable[Cell]) -> list[Gap]:
    """List the evaluators that apply to cells and do not run, one entry for each reason."""
    gaps = _Gaps()
    for number, cell in enumerate(cells):
        if unsupported(cell) is None:
            for name, reason in cell.unavailable():
                gaps.add(name, reason, [number])
    return gaps.collected()


def missing_files(plan: Plan, todo: Iterable[Stage]) -> list[Gap]:
    """List the files that stages read and that are missing or damaged, such as weights. Downloads nothing.

    Args:
        plan: the stages belong to it.
        todo: the stages that are to be computed; a stage that the store has needs no files.
    """
    gaps = _Gaps()
    known: dict[tuple[Any, ...], str | None] = {}
    for stage in todo:
        for user, subject in _users(stage):
            key = (id(subject) if isinstance(subject, Choice) else subject, stage.kind, id(stage.cell.dataset))
            if key not in known:
                known[key] = _file_problem(subject, stage)
            if reason := known[key]:
                of_cells = ((cell, (cell, *plan.stages[cell].inputs.values())) for cell in plan.cells)
                gaps.add(user, reason, (cell for cell, stages in of_cells if stage.key in stages))
    return gaps.collected()


def require_files(plan: Plan, todo: Iterable[Stage]) -> None:
    """Refuse to run a plan whose stages read files that are missing or damaged.

    Args:
        plan: the stages belong to it.
        todo: the stages that are to be computed.

    Raises:
        MissingDataError: names the first of these files, what needs it, and the number of the others.
    """
    gaps = missing_files(plan, todo)
    if gaps:
        more = f" ({count(len(gaps) - 1, 'more problem')}: `privbench plan` lists them)" if gaps[1:] else ""
        raise MissingDataError(f"{gaps[0]}{more}")


def _users(stage: Stage) -> Iterator[tuple[str, Choice | str]]:
    """Yield what reads files in a stage: components, and by name the networks that start from published weights."""
    cell = stage.cell
    protocol: Protocol = cell.dataset.component.protocol
    if stage.kind == "target":
        yield f"defense {cell.defense.name}", cell.defense
        if protocol.starts_from_published("target"):
            yield f"target {protocol.target_network}", protocol.target_network
    elif stage.kind in ("judge", "second_judge"):
        second = stage.kind == "second_judge"
        name = protocol.second_judge_network if second else protocol.judge_network
        if name and protocol.starts_from_published("second_judge" if second else "judge"):
            yield f"{'second ' * second}judge {name}", name
    elif stage.kind in ("prior", "evidence"):
        yield f"attack {cell.attack.name}", cell.attack
    elif stage.kind == "scores":
        yield from ((f"evaluator {choice.name}", choice) for choice in cell.evaluators)


def _file_problem(subject: Choice | str, stage: Stage) -> str | None:
    """Describe which file of a component, or of a network with published weights, is missing, and the fix."""
    try:
        if isinstance(subject, Choice):
            subject.files(stage.kind)
            return None
        network = load("network", subject)
        reason = named.problem(network.weights) if network.weights else None
        if reason is None:
            network.files(pretrained=True)
            return None
    except MissingDataError as cause:
        reason = str(cause)
    if isinstance(subject, str) and "pretrained" in type(stage.cell.dataset.component).model_fields:
        reason += ", or train from random weights with --set dataset.pretrained=false"
    return reason


def require_supported(cells: Iterable[Cell]) -> None:
    """Refuse cells whose images or labels a component or a network does not support.

    Networks are built without weights and memory; one that needs real numbers for that is not checked.

    Raises:
        InvalidConfigurationError: names the component, the images and those that it supports.
    """
    seen: set[tuple[Any, ...]] = set()
    for cell in cells:
        protocol: Protocol = cell.dataset.component.protocol
        judges = {judge for choice in cell.evaluators for judge in choice.component.judges}
        names = [protocol.judge_network] if judges else []
        names += [protocol.second_judge_network] if "second" in judges and protocol.second_judge_network else []
        checks: dict[tuple[Any, ...], Callable[[], None]] = {
            (id(cell.defense),): partial(_require_defense, cell.defense, protocol),
            (id(cell.attack),): partial(_require_component, cell.attack, protocol),
            tuple(names): partial(_require_judges, names, protocol),
        }
        for key, check in checks.items():
            if (id(cell.dataset), *key) not in seen:
                seen.add((id(cell.dataset), *key))
                check()


def _require_component(choice: Choice, protocol: Protocol) -> None:
    from ..networks.factory import require_embeddable

    choice.component.require(protocol)
    for kind, name in choice.component.networks():
        if kind == "embedder":
            require_embeddable(name, protocol)
        else:
            load(kind, name).require_channels(protocol.image[0])


def _require_defense(choice: Choice, protocol: Protocol) -> None:
    _require_component(choice, protocol)
    if protocol.pretrained:
        load("network", protocol.target_network).require(protocol.image, pretrained=True)
    random = protocol.model_copy(update={"pretrained": False})
    _try_building(lambda: choice.component.network(random))


def _require_judges(names: Sequence[str], protocol: Protocol) -> None:
    from ..networks.factory import build_network

    roles: tuple[Literal["judge", "second_judge"], ...] = ("judge", "second_judge")
    for role, name in zip(roles, names, strict=False):
        if protocol.starts_from_published(role):
            load("network", name).require(protocol.image, pretrained=True)
        _try_building(partial(build_network, name, protocol.image, protocol.judge_classes))


def _try_building(build: Callable[[], object]) -> None:
    """Build a network without memory for its weights; only what privbench refuses is an error."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        try:
            build()
        except PrivbenchError:
            raise
        except Exception:
            log.debug("a network is not checked, since it needs real numbers", exc_info=True)
