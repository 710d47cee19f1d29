"""Stable names for links; they depend on the configuration of a record, not on the other records in the report."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...analysis.aggregate import Section
from ...records.record import Record

#: Hexadecimal digits in the name of a cell, a row and a data set configuration.
_CELL, _ROW, _DATASET = 16, 8, 6


def cell_names(records: Iterable[Record]) -> dict[str, str]:
    """The first 16 digits of each record's key, or all 64 if an earlier record has the same 16; by key."""
    taken: set[str] = set()
    names: dict[str, str] = {}
    for key in (record.key for record in records):
        name = key[:_CELL] if key[:_CELL] not in taken else key
        taken.add(name)
        names[key] = name
    return names


def section_anchors(sections: Sequence[Section]) -> list[str]:
    """Anchors such as `digits-v1-quick`, with six digits of the data set's configuration if a user changed it.

    Unchanged configurations can differ too, as in two versions of a data set; then the one whose long name sorts first
    gets the short name, unverified submissions last.
    """
    candidates = []
    for section in sections:
        first = section.rows[0].records[0]
        short = f"{section.protocol.replace('/', '-')}-{section.budget}"
        long = f"{short}-{_digest(first.cell.dataset.model_dump(mode='json'), _DATASET)}"
        is_unverified = all(row.is_unverified for row in section.rows)
        candidates.append(_Candidate(long if first.changed.get("dataset") else short, long, is_unverified))
    return _resolve_conflicts(candidates)


def row_anchors(section: Section) -> list[str]:
    """Anchors such as `r3fa90b12`, a digest of protocol, budget, data set, defense and attack.

    If rows differ only in their evaluators, all but the one whose longer digest sorts first add these to it.
    """
    candidates = []
    for row in section.rows:
        cell = row.records[0].cell
        choices = [choice.model_dump(mode="json") for choice in (cell.dataset, cell.defense, cell.attack)]
        identity = [section.protocol, section.budget, *choices]
        short, long = (f"r{_digest(value, _ROW)}" for value in (identity, [*identity, row.evaluators]))
        candidates.append(_Candidate(short, long, row.is_unverified))
    return _resolve_conflicts(candidates)


@dataclass(frozen=True)
class _Candidate:
    short: str
    long: str
    is_unverified: bool


def _resolve_conflicts(candidates: Sequence[_Candidate]) -> list[str]:
    """Give each short name to the first of its candidates, unverified submissions last, and the others long names."""
    owners: dict[str, int] = {}
    for i, candidate in sorted(enumerate(candidates), key=lambda item: (item[1].is_unverified, item[1].long)):
        owners.setdefault(candidate.short, i)
    return [each.short if owners[each.short] == i else each.long for i, each in enumerate(candidates)]


def _digest(value: Any, length: int) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]
