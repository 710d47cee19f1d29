"""Names that links can rely on: they depend on what a record is of, not on what else the report holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...analysis.aggregate import Row, Section
from ...records.record import Record

_CELL = 16
_ROW = 8
_DATA = 6


def cell_names(records: Iterable[Record]) -> dict[str, str]:
    """Of each record's key its first 16 digits, or all 64 where an earlier record has the same."""
    taken: set[str] = set()
    names: dict[str, str] = {}
    for key in (record.key for record in records):
        name = key[:_CELL] if key[:_CELL] not in taken else key
        taken.add(name)
        names[key] = name
    return names


def section_anchors(sections: Sequence[Section]) -> list[str]:
    """Such as `digits-v1-quick`, followed by six digits of the data set's configuration where its user changed it.

    Configurations that differ although no user changed them, such as those of two versions of a data set, share the
    short name: it stays with the one whose records are older.
    """
    found = []
    for section in sections:
        first = section.rows[0].records[0]
        short = f"{section.protocol.replace('/', '-')}-{section.budget}"
        long = f"{short}-{_digest(first.cell.dataset.model_dump(mode='json'), _DATA)}"
        found.append(_Candidate(long if first.changed.get("dataset") else short, long, _oldest(section.rows)))
    return _settled(found)


def row_anchors(section: Section) -> list[str]:
    """Such as `r3fa90b12`, from protocol, budget, data set, defense and attack, and evaluators if rows share these.

    As of sections, the rows whose records are older keep the name without evaluators.
    """
    found = []
    for row in section.rows:
        cell = row.records[0].cell
        choices = [choice.model_dump(mode="json") for choice in (cell.dataset, cell.defense, cell.attack)]
        identity = [section.protocol, section.budget, *choices]
        short, long = (f"r{_digest(value, _ROW)}" for value in (identity, [*identity, row.evaluators]))
        found.append(_Candidate(short, long, _oldest([row])))
    return _settled(found)


@dataclass(frozen=True)
class _Candidate:
    short: str
    long: str
    oldest: str


def _settled(candidates: Sequence[_Candidate]) -> list[str]:
    """Short names, each for the oldest that wants it; long ones for the others."""
    owners: dict[str, int] = {}
    for i, candidate in sorted(enumerate(candidates), key=lambda item: (item[1].oldest, item[1].long)):
        owners.setdefault(candidate.short, i)
    return [each.short if owners[each.short] == i else each.long for i, each in enumerate(candidates)]


def _oldest(rows: Iterable[Row]) -> str:
    return min(record.created for row in rows for record in row.records)


def _digest(value: Any, length: int) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]
