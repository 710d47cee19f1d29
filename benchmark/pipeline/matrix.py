"""Matrices: data sets x defenses x attacks x seeds, resolved into cells.

A component's fields are resolved in layers, later ones winning: the published defaults of its class, for a defense the
recipe of the data set (its field `target`), the preset (the one named, or the one of the data set or its family), the
budget's values (then the preset `NAME@BUDGET` of the data set or its family), and what the user sets. The budget's
values of a defense's recipe are those of the data set: a preset that names a published recipe without `max_steps` is
still cut to the data set's number of steps.

A defense is compared with `none` under the same recipe. If its recipe is not the data set's, a matrix adds that `none`.

Besides the cells that are asked for, a matrix has controls: each attack that reconstructs labels also attacks a
placebo, a target trained on permuted labels, once. Attacks on the latents of single images have none: a latent
describes its image whatever the network has learned, so a placebo controls nothing there.
"""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import registry
from ..contracts import Attack, Dataset, Defense, Evaluator
from ..core.config import BUDGETS, BUILT_IN, PLACEBO, UNDEFENDED, Budget
from ..errors import BrokenComponentError, InvalidConfigurationError, UnknownComponentError
from ..files.untrusted import shown
from ..records.record import NotRun
from .cell import Cell, Choice, Selection
from .given import check_given
from .resolve import resolve

SCOPES = ("dataset", "defense", "attack", "evaluator")


@dataclass(frozen=True)
class Matrix:
    """Every data set x defense x attack x seed.

    Args:
        settings: `scope.field` to value; the scope is a kind (`attack`) or a component's name (`kedmi`).
        evaluators: `None` means all that apply.
        controls: add the placebo under the first seed, unless it is among `defenses`, whose cells come last, and `none`
            under the recipe of each defense whose recipe is not the data set's.
        baselines: whether the controls include the latter; the recipes of published tables differ on purpose.
        sandbox: run every attack (or none) in a process of its own; by default those of plugins, see `isolation`.
    """

    datasets: tuple[Selection, ...]
    defenses: tuple[Selection, ...]
    attacks: tuple[Selection, ...]
    evaluators: tuple[Selection, ...] | None = None
    seeds: tuple[int, ...] = (0,)
    budget: Budget = "quick"
    settings: Mapping[str, Any] = field(default_factory=dict)
    controls: bool = True
    baselines: bool = True
    sandbox: bool | None = None

    def cells(self) -> list[Cell]:
        """Resolve into cells, in the order given, controls last.

        Raises:
            PrivbenchError: a name, field or value is wrong.
        """
        settings = self.settings
        _check_scopes(settings, self)
        _check_numbers(self)
        found: list[Cell] = []
        controls: list[Cell] = []
        for data in self.datasets:
            dataset = resolve("dataset", data, self.budget, settings)
            defenses = [resolve("defense", name, self.budget, settings, dataset) for name in self.defenses]
            defenses += _baselines(dataset, defenses, self.budget) if self.controls and self.baselines else []
            attacks = [self._attack(name, dataset) for name in self.attacks]
            scored = [(attack, *applicable_evaluators(self, dataset, attack, settings)) for attack in attacks]
            found += [
                Cell(dataset, defense, attack, evaluators, seed, self.budget, not_run)
                for defense, (attack, evaluators, not_run) in itertools.product(defenses, scored)
                for seed in self.seeds
            ]
            if self.has_placebo:
                placebo = resolve("defense", Selection(PLACEBO), self.budget, _of_placebo(settings), dataset)
                controls += [
                    Cell(dataset, placebo, attack, evaluators, self.seeds[0], self.budget, not_run)
                    for attack, evaluators, not_run in scored
                    if attack.component.yields == "ClassReconstructions"
                ]
        return found + [cell for cell in controls if unsupported(cell) is None]

    def _attack(self, selection: Selection, dataset: Choice) -> Choice:
        """Resolve an attack; one that runs in a process of its own is not imported here."""
        isolated = self.sandbox
        if isolated is None:
            isolated = registry.find("attack", selection.name).distribution != BUILT_IN
        if not isolated:
            return resolve("attack", selection, self.budget, self.settings, dataset)
        from .choose_attack import choose_attack

        return choose_attack(selection, self.budget, self.settings, dataset)

    @property
    def has_placebo(self) -> bool:
        """Return whether the placebo is added to the defenses."""
        return self.controls and all(defense.name != PLACEBO for defense in self.defenses)


def cells_of(matrices: Iterable[Matrix]) -> list[Cell]:
    """Resolve several matrices into cells, the controls of all after the other cells."""
    cells = [cell for matrix in matrices for cell in matrix.cells()]
    return sorted(cells, key=lambda cell: cell.defense.name == PLACEBO)


def _baselines(dataset: Choice, defenses: Sequence[Choice], budget: Budget) -> list[Choice]:
    """Return `none` under each recipe of a defense that is not the data set's, unless it is among the defenses."""
    found: list[Choice] = []
    for choice in defenses:
        defense: Defense = choice.component
        if choice.name in (UNDEFENDED, PLACEBO) or defense.recipe == dataset.component.target:
            continue
        fields = {"recipe": defense.recipe.model_dump(), "selection": defense.selection}
        baseline = resolve("defense", Selection(UNDEFENDED, fields=fields), budget, {}, dataset)
        if all((each.name, each.component) != (baseline.name, baseline.component) for each in (*defenses, *found)):
            found.append(baseline)
    return found


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Parse `scope.field=value`; a value that is not JSON is a string. See `check_given` for bounds.

    Example:
        >>> parse_settings(["attack.iterations=500", "defense.estimator=biased"])
        {'attack.iterations': 500, 'defense.estimator': 'biased'}

    Raises:
        InvalidConfigurationError: a text has another form, or a value is out of bounds.
    """
    found: dict[str, Any] = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals or "." not in path.strip():
            raise InvalidConfigurationError(
                f"expected --set to be SCOPE.FIELD=VALUE such as attack.iterations=500, got {text!r}"
            )
        path = path.strip()
        try:
            found[path] = json.loads(value, parse_constant=lambda constant: constant)
        except json.JSONDecodeError:
            found[path] = value
        except (RecursionError, ValueError) as cause:
            fault = "fewer levels" if isinstance(cause, RecursionError) else "integers of fewer digits"
            raise InvalidConfigurationError(f"expected {shown(path)} to have {fault}, got {shown(value)}") from None
        check_given(path, found[path])
    return found


def _of_placebo(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a placebo has: of the defenses' fields only the recipe, which all defenses share."""
    return {
        path: value
        for path, value in settings.items()
        if not path.startswith("defense.") or path.split(".")[1] == "recipe"
    }


def _check_scopes(settings: Mapping[str, Any], matrix: Matrix) -> None:
    selections = [*matrix.datasets, *matrix.defenses, *matrix.attacks, *(matrix.evaluators or ())]
    known = {*SCOPES, *(selection.name for selection in selections), *([PLACEBO] if matrix.has_placebo else [])}
    if matrix.evaluators is None:
        known |= set(registry.names("evaluator"))
    for path in settings:
        if path.partition(".")[0] not in known:
            raise UnknownComponentError("scope of --set", path.partition(".")[0], known)


def _check_numbers(matrix: Matrix) -> None:
    if matrix.budget not in BUDGETS:
        raise InvalidConfigurationError(f"expected budget to be one of {', '.join(BUDGETS)}, got {matrix.budget!r}")
    for seed in matrix.seeds:
        check_given("seed", seed)
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise InvalidConfigurationError(f"expected seed to be an integer from 0 to 2**63 - 1, got {seed!r}")
    if not matrix.seeds:
        raise InvalidConfigurationError("expected seeds to name at least one seed, got none")


def applicable_evaluators(
    matrix: Matrix, dataset: Choice, attack: Choice, settings: Mapping[str, Any]
) -> tuple[tuple[Choice, ...], tuple[tuple[str, NotRun], ...]]:
    """Return the evaluators of a cell, and the reasons why others do not run."""
    named = matrix.evaluators is not None
    selections = matrix.evaluators or tuple(Selection(name) for name in registry.names("evaluator"))
    available = {"Predictions", "Negatives", attack.component.yields}
    if attack.component.access == "features":
        available.add("Encodings")
    chosen: list[Choice] = []
    not_run: list[tuple[str, NotRun]] = []
    for selection in selections:
        try:
            choice = resolve("evaluator", selection, matrix.budget, settings, dataset)
        except BrokenComponentError as cause:
            if named:
                raise
            not_run.append((selection.name, NotRun(code="unavailable", reason=str(cause))))
            continue
        evaluator: Evaluator = choice.component
        if not named and evaluator.optional:
            continue
        missing = [kind.replace("|", " or ") for kind in evaluator.needs if available.isdisjoint(kind.split("|"))]
        reason = _unmet_need(evaluator, dataset) or evaluator.unavailable(dataset.component.protocol)
        if missing:
            why = f"not applicable to {attack.name}, which gives no {', '.join(missing)}"
            not_run.append((selection.name, NotRun(code="not_applicable", reason=why)))
        elif reason:
            not_run.append((selection.name, NotRun(code="unavailable", reason=reason)))
        else:
            chosen.append(choice)
    return tuple(chosen), tuple(not_run)


def _unmet_need(evaluator: Evaluator, dataset: Choice) -> str | None:
    """Return why the harness cannot give the evaluator what it needs on this data set; `None` if it can."""
    protocol = dataset.component.protocol
    if "Negatives" in evaluator.needs and protocol.task != "classes":
        return f"calibrated negatives are pushed towards class labels and {protocol.id} has attributes"
    if "second" in evaluator.judges and protocol.second_judge_network is None:
        return f"a second judge is asked and {protocol.id} names no network for one"
    return None


def unsupported(cell: Cell) -> str | None:
    """Return why the cell has no meaning, in one sentence; `None` if it has one."""
    dataset: Dataset = cell.dataset.component
    task = dataset.protocol.task
    for choice in (cell.defense, cell.attack):
        component: Defense | Attack = choice.component
        if task not in component.tasks:
            return f"{choice.kind} {choice.name} works on {' and '.join(sorted(component.tasks))}, not on {task}"
    return None
