"""Selection of the rows and scores that a ranking counts."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..core.config import Definition
from ..core.text import count
from ..records.record import RecordedScore
from .aggregate import Row, Section, counted, evaluator_of
from .row_labels import identity_of
from .suites import is_of_suite

#: Rows by defense (its label) and attack (its registered name).
Cells = Mapping[tuple[str, str], Row]


@dataclass(frozen=True)
class BestKnown:
    """The strongest attack on a defense that anybody has recorded: the largest leakage in one record.

    Args:
        value: the record's score.
        attack: label of the attack.
        key: key of the record.
    """

    value: float
    attack: str
    key: str


def comparable_rows(section: Section, column: Definition, notes: list[str]) -> list[Row]:
    """Return the rows to which a score applies, from the newest and most used evaluator that gives it."""
    rows = [row for row in section.rows if not row.scores[column.name].not_applicable]
    evaluators = {id(row): evaluator_of(row, column.name) for row in rows}
    groups = Counter(evaluator for evaluator in evaluators.values() if evaluator is not None)
    chosen = max(groups, key=lambda evaluator: (evaluator[1], groups[evaluator], evaluator[0]))
    if len(groups) > 1:
        left_out = groups.total() - groups[chosen]
        notes.append(
            f"several evaluators or versions give this score: {count(left_out, 'row')} of other evaluators "
            f"than the newest and most used one {'is' if left_out == 1 else 'are'} left out"
        )
    return [row for row in rows if evaluators[id(row)] in (None, chosen)]


def suite_cells(rows: Sequence[Row], attacks: Iterable[str], column: Definition, notes: list[str]) -> Cells:
    """Return the row of each defense under each of the suite's attacks, with no field of the attack set by the user.

    Where a suite's attack has rows of several versions, those of the version that attacked the most defenses count, or
    of the newest. Of several rows, the one with the most seeds counts, or the first.
    """
    cells: dict[tuple[str, str], Row] = {}
    for attack in attacks:
        versions: dict[str, list[Row]] = {}
        for row in rows:
            if is_of_suite(row, attack):
                versions.setdefault(identity_of(row.records[0].cell.attack), []).append(row)
        if not versions:
            continue
        counted = max(versions.values(), key=lambda found: (len({row.defense for row in found}), _version(found[0])))
        if len(versions) > 1:
            notes.append(f"several versions of {attack}: the one that attacked the most defenses counts")
        for row in counted:
            other = cells.get((row.defense, attack))
            if other is not None:
                notes.append(f"several rows of {row.defense} under {attack}: the one with the most seeds counts")
            if other is None or _seeds(row, column) > _seeds(other, column):
                cells[row.defense, attack] = row
    return cells


def _version(row: Row) -> int:
    return row.records[0].cell.attack.version


def _seeds(row: Row, column: Definition) -> int:
    return row.scores[column.name].seeds


def further_cells(rows: Sequence[Row], suite: Cells, column: Definition) -> dict[tuple[str, str], Row]:
    """Return the rows with a value under other attacks, or other settings of them, by defense and label of attack."""
    of_suite = {id(row) for row in suite.values()}
    cells: dict[tuple[str, str], Row] = {}
    for row in rows:
        if id(row) in of_suite or row.scores[column.name].value is None:
            continue
        other = cells.get((row.defense, row.attack))
        if other is None or _seeds(row, column) > _seeds(other, column):
            cells[row.defense, row.attack] = row
    return cells


def best_known(rows: Iterable[Row], column: Definition) -> dict[str, BestKnown]:
    """Return the strongest recorded attack on each defense: any attack, settings and seed.

    It is the largest value of one record and not a mean over seeds, so that more records can only raise it.
    """
    sign = 1.0 if column.better == "lower" else -1.0
    found: dict[str, tuple[float, str, str]] = {}
    for row in rows:
        for record in row.records:
            score = record.scores.get(column.name)
            if score is not None and score.value is not None:
                candidate = (sign * score.value, row.attack, record.key)
                found[row.defense] = max(found.get(row.defense, candidate), candidate)
    return {defense: BestKnown(sign * cost, attack, key) for defense, (cost, attack, key) in found.items()}


def scores_by_seed(row: Row, column: Definition) -> dict[int, RecordedScore]:
    """Scores with a value, by seed."""
    found = {seed: record.scores.get(column.name) for seed, record in counted(row.records, column.name).items()}
    return {seed: score for seed, score in found.items() if score is not None and score.value is not None}
