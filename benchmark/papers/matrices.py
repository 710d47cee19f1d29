"""Matrices that reproduce a published table. This module does not import torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.canonical import canonical
from ..core.config import Budget
from ..errors import InvalidConfigurationError
from ..pipeline.cell import Selection
from ..pipeline.matrix import Matrix
from .table import Row, Table, require_results


def matrices(
    table: Table,
    budget: Budget = "quick",
    seeds: Iterable[int] = (0,),
    *,
    labels: Sequence[str] = (),
    dataset: str | None = None,
    settings: Mapping[str, Any] | None = None,
    controls: bool = True,
    sandbox: bool | None = None,
) -> tuple[Matrix, ...]:
    """Return the matrices of a table: one for each configured data set and attack, so that they share stages.

    Args:
        table: a table of results.
        budget: budget of the cells.
        seeds: seeds of the cells.
        labels: rows to run; all by default.
        dataset: a data set that replaces the published ones; its numbers are not comparable with the published ones.
        settings: values by `scope.field`. A setting that one row needs applies only to that row. Settings that the
            table fixes cannot be given.
        controls: as of `Matrix`.
        sandbox: as of `Matrix`.

    Raises:
        InvalidConfigurationError: the table has settings, no row can be run, or `settings` has a field that the table
            fixes.
        UnknownComponentError: no row has a given label.
    """
    require_results(table)
    settings = settings or {}
    selected = table.select(labels)
    rows = [row for row in selected if not row.reason_not_runnable(dataset, settings)]
    if not rows:
        reason = selected[0].reason_not_runnable(dataset, settings)
        raise InvalidConfigurationError(f"no selected row of {table.name} can be run: {reason}")
    _reject_fixed_settings(table, dataset, settings)
    evaluators = tuple(Selection(name) for name in table.evaluators)
    unique_seeds = tuple(dict.fromkeys(seeds))
    return tuple(
        Matrix(
            (group.dataset,),
            tuple(group.defenses),
            (group.attack,),
            evaluators,
            unique_seeds,
            budget,
            group.settings,
            controls,
            baselines=False,
            sandbox=sandbox,
        )
        for group in _groups(table, rows, dataset, settings)
    )


@dataclass
class _Group:
    """Defenses under the same attack on the same data set, with the same settings."""

    dataset: Selection
    attack: Selection
    settings: dict[str, Any]
    defenses: list[Selection] = field(default_factory=list)


def _groups(table: Table, rows: Sequence[Row], substitute: str | None, settings: Mapping[str, Any]) -> Iterable[_Group]:
    """Group rows by data set and attack; a setting with the name of a component as its scope applies only to it."""
    named = {name for row in rows for name in (row.cell.dataset, *row.cell.attacks)}
    user_settings = {row.needs for row in table.rows if row.needs}
    groups: dict[str, _Group] = {}
    for row in rows:
        for name in row.cell.attacks:
            data, attack = row.cell.dataset_selection(substitute), row.cell.attack_selection(name)
            others = named - {data.name, name}
            applied = {
                path: value
                for path, value in settings.items()
                if path.partition(".")[0] not in others and (path not in user_settings or path == row.needs)
            }
            key = canonical([data.name, data.fields, name, attack.fields, applied])
            group = groups.setdefault(key, _Group(data, attack, applied))
            defense = row.cell.defense_selection()
            if defense not in group.defenses:
                group.defenses.append(defense)
    return groups.values()


def _reject_fixed_settings(table: Table, substitute: str | None, settings: Mapping[str, Any]) -> None:
    """Reject settings of what varies between the rows of a table: presets of defenses, or fields."""
    data = {"dataset", substitute, *(row.cell.dataset for row in table.rows)}
    defenses = {"defense", *(row.cell.defense for row in table.rows)}
    attacks = {name for row in table.rows for name in row.cell.attacks}
    presets = any(row.cell.preset for row in table.rows)
    user_settings = {row.needs for row in table.rows}
    for path in settings:
        scope, _, name = path.partition(".")
        affected = [kind for kind, scopes in (("dataset", data), ("defense", defenses)) if scope in scopes]
        affected += sorted(attacks & ({scope} if scope != "attack" else attacks))
        fixed = (
            any(name.partition(".")[0] in table.varied_fields(kind) for kind in affected) and path not in user_settings
        )
        if fixed or (presets and scope in defenses):
            what = "fields that vary between the rows" if fixed else "defenses"
            raise InvalidConfigurationError(
                f"expected --set without {what}, which {table.name} fixes, got {path}; use `privbench run`"
            )
