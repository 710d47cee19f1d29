"""Decision whether a record belongs to a row of a published table. This module does not import torch."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..analysis.row_labels import flat
from ..core.config import Budget
from ..records.record import Record
from .table import Row, Table


def record_matcher(table: Table, row: Row, attack: str, dataset: str | None) -> Callable[[Record], bool]:
    """Return a function that decides whether a record belongs to a row.

    The record must have the row's defense, attack and data set (or its substitute). If the row has a preset of the
    defense, all fields of the defense must be equal. Otherwise, and for attack and data set, the fields that vary
    between the table's rows must be equal. A field that the user must set for the row may have any value but the
    default.
    """
    cell, user_field = row.cell, row.needs.partition(".")[2]
    wanted = (dataset or cell.dataset, cell.defense, attack)
    scopes = {"dataset": "dataset", "attack": attack} | ({} if cell.preset else {"defense": "defense"})
    configurations: dict[Budget, tuple[dict[str, Any], set[str]]] = {}

    def has_varied_fields(record: Record) -> bool:
        return all(
            _has_fields(
                table.varied_fields(scope) - {user_field},
                cell.fields.get(scope, {}),
                getattr(record.cell, kind).fields,
                record.changed.get(kind, {}),
            )
            for kind, scope in scopes.items()
        )

    def belongs(record: Record) -> bool:
        run = record.cell
        if (run.dataset.name, run.defense.name, run.attack.name) != wanted or (row.not_runnable and not user_field):
            return False
        if not has_varied_fields(record) or (user_field and user_field not in record.changed.get("dataset", {})):
            return False
        if not cell.preset:
            return True
        if run.budget not in configurations:
            configurations[run.budget] = flat(cell.configuration(run.budget)), cell.fields_set_by_dataset(run.budget)
        return _has_defense(*configurations[run.budget], flat(run.defense.fields), record.changed.get("defense", {}))

    return belongs


def _has_defense(
    wanted: Mapping[str, Any], by_dataset: Collection[str], recorded: Mapping[str, Any], changed: Collection[str]
) -> bool:
    """Return whether all fields of the defense, by dotted name, are equal.

    Fields that the data set decides are equal if the user did not change them. Fields that the record lacks are newer
    than the record and ignored.
    """
    shared = wanted.keys() & recorded.keys()
    return all(name not in changed if name in by_dataset else wanted[name] == recorded[name] for name in shared)


def _has_fields(
    names: Collection[str], wanted: Mapping[str, Any], recorded: Mapping[str, Any], changed: Collection[str]
) -> bool:
    """Return whether fields have the values of the row, or are unchanged if the row does not set them."""

    def same(name: str) -> bool:
        if name not in wanted:
            return all(path.partition(".")[0] != name for path in changed)
        value = recorded.get(name)
        return bool(value == wanted[name] or value == [wanted[name]])

    return all(same(name) for name in names)
