"""Selection of the rows and scores that a ranking counts."""

from collections import Counter
from collections.abc import Mapping

from ..core.config import Definition
from ..core.text import count
from ..records.record import RecordedScore
from .aggregate import Row, Section, Summary, evaluator_of, latest


def rows_by_cell(section: Section, column: Definition, notes: list[str]) -> dict[tuple[str, str], Row]:
    """The row of each defense and attack; of several rows, the one with the most seeds, then the newest."""
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
    cells: dict[tuple[str, str], Row] = {}
    for row in rows:
        if evaluators[id(row)] not in (None, chosen):
            continue
        cell = (row.defense, row.attack)
        other = cells.get(cell)
        if other is not None:
            notes.append(f"several rows of {row.defense} under {row.attack}: the one with the most seeds counts")
        if other is None or _seeds_and_date(row, column) > _seeds_and_date(other, column):
            cells[cell] = row
    return cells


def _seeds_and_date(row: Row, column: Definition) -> tuple[int, str]:
    return row.scores[column.name].seeds, max(record.created for record in row.records)


def shared_attacks(cells: Mapping[tuple[str, str], Row], column: Definition, notes: list[str]) -> tuple[str, ...]:
    """Attacks with a value against at least two defenses; all attacks with a value if there is no such attack."""
    defenses = Counter(attack for (_, attack), row in cells.items() if row.scores[column.name].value is not None)
    shared = tuple(sorted(attack for attack, number in defenses.items() if number > 1))
    if not shared:
        return tuple(sorted(defenses))
    notes += [
        f"{attack} has a value against only one defense and does not count"
        for attack in sorted(defenses.keys() - set(shared))
    ]
    return shared


def utilities(section: Section) -> dict[str, Summary]:
    """First utility score with a value, by defense, from the row with the most seeds."""
    found: dict[str, Summary] = {}
    for column in section.columns:
        summaries: dict[str, Summary] = {}
        for row in section.rows if column.measures == "utility" else ():
            summary, other = row.scores[column.name], summaries.get(row.defense)
            if summary.value is not None and (other is None or summary.seeds > other.seeds):
                summaries[row.defense] = summary
        found = summaries | found
    return found


def scores_by_seed(row: Row, column: Definition) -> dict[int, RecordedScore]:
    """Scores with a value, by seed."""
    found = {seed: record.scores.get(column.name) for seed, record in latest(row.records, column.name).items()}
    return {seed: score for seed, score in found.items() if score is not None and score.value is not None}
