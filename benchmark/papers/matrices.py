"""What to run for a published table. Nothing here imports torch."""

from __future__ import annotations

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
) -> tuple[Matrix, ...]:
    """What to run for a table: a matrix for each data set and attack as configured, so that their stages are shared.

    Args:
        table: of results.
        budget: how much of the published effort.
        seeds: one cell each.
        labels: rows to run; all by default.
        dataset: a data set to run on in place of the published ones; the numbers then compare with nothing published.
        settings: `scope.field` to value; what a row needs reaches that row alone, and the table fixes what it prints.

    Raises:
        InvalidConfigurationError: the table holds settings, none of the rows can be run, or `settings` touches what
            the table fixes.
        UnknownComponentError: a label names no row.
    """
    require_results(table)
    settings = settings or {}
    chosen = table.select(labels)
    rows = [row for row in chosen if not row.obstacle(dataset, settings)]
    if not rows:
        reason = chosen[0].obstacle(dataset, settings)
        raise InvalidConfigurationError(f"no chosen row of {table.name} can be run: {reason}")
    _refuse_fixed(table, dataset, settings)
    evaluators = tuple(Selection(name) for name in table.evaluators)
    each = tuple(dict.fromkeys(seeds))
    return tuple(
        Matrix((group.dataset,), tuple(group.defenses), (group.attack,), evaluators, each, budget, group.settings)
        for group in _groups(table, rows, dataset, settings)
    )


@dataclass
class _Group:
    """Defenses that meet the same attack on the same data, under the same settings."""

    dataset: Selection
    attack: Selection
    settings: dict[str, Any]
    defenses: list[Selection] = field(default_factory=list)


def _groups(table: Table, rows: Sequence[Row], substitute: str | None, settings: Mapping[str, Any]) -> Iterable[_Group]:
    """Rows by data set and attack; a setting with the name of a component as its scope reaches that one only."""
    named = {name for row in rows for name in (row.cell.dataset, *row.cell.attacks)}
    brought = {row.needs for row in table.rows if row.needs}
    groups: dict[str, _Group] = {}
    for row in rows:
        for name in row.cell.attacks:
            data, attack = row.cell.choose_data(substitute), row.cell.choose_attack(name)
            others = named - {data.name, name}
            reaching = {
                path: value
                for path, value in settings.items()
                if path.partition(".")[0] not in others and (path not in brought or path == row.needs)
            }
            key = canonical([data.name, data.fields, name, attack.fields, reaching])
            group = groups.setdefault(key, _Group(data, attack, reaching))
            if row.cell.choose() not in group.defenses:
                group.defenses.append(row.cell.choose())
    return groups.values()


def _refuse_fixed(table: Table, substitute: str | None, settings: Mapping[str, Any]) -> None:
    """Refuse settings of what the rows of a table are told apart by: named presets, or fields."""
    data = {"dataset", substitute, *(row.cell.dataset for row in table.rows)}
    defenses = {"defense", *(row.cell.defense for row in table.rows)}
    attacks = {name for row in table.rows for name in row.cell.attacks}
    presets = any(row.cell.preset for row in table.rows)
    brought = {row.needs for row in table.rows}
    for path in settings:
        scope, _, name = path.partition(".")
        affected = [kind for kind, scopes in (("dataset", data), ("defense", defenses)) if scope in scopes]
        affected += sorted(attacks & ({scope} if scope != "attack" else attacks))
        fixed = any(name.partition(".")[0] in table.varied(each) for each in affected) and path not in brought
        if fixed or (presets and scope in defenses):
            what = "what tells rows apart" if fixed else "defenses"
            raise InvalidConfigurationError(
                f"expected --set to leave {what} alone, which {table.name} fixes, got {path}; use `privbench run`"
            )
