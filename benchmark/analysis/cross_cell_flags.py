"""Flags that show only between cells: an attack is beaten with weaker access, or succeeds on a placebo."""

from collections.abc import Iterable, Iterator, Sequence

from ..records.record import Flag
from .aggregate import Row, Section, evaluator_of
from .excess import Controls, is_on_features

#: Comparable kinds of access, from weakest to strongest. `features` is not comparable: such an attack is given latents
#: of the images that it reconstructs, so its knowledge is different, neither weaker nor stronger.
ACCESS_ORDER = ("labels", "scores", "white_box")


def cross_cell_flags(section: Section) -> dict[str, tuple[Flag, ...]]:
    """Find the flags of a section that need several cells, by key of the record.

    A record is flagged if an attack with weaker access leaks more of the same defense, or if its attack succeeds on the
    placebo. Placebos are not flagged. Rows of submissions that nobody verified raise no flag on others.
    """
    rows = [row for row in section.trusted.rows if not row.is_control]
    messages: dict[str, dict[str, list[str]]] = {}
    for score in (column for column in section.columns if column.measures == "leakage"):
        for row, message in _outperformed_rows(rows, score.name):
            for record in row.records:
                messages.setdefault(record.key, {}).setdefault("weaker_access_wins", []).append(message)
    for row, message in _placebo_rows(section):
        for record in row.records:
            messages.setdefault(record.key, {}).setdefault("placebo_above_chance", []).append(message)
    return {
        key: tuple(Flag(name=name, message="; ".join(texts)) for name, texts in found.items())
        for key, found in messages.items()
    }


def _placebo_rows(section: Section) -> Iterator[tuple[Row, str]]:
    """Rows whose attack succeeds on the placebo beyond chance, by the leading score of excess."""
    controls = Controls(section)
    leading = controls.leading
    for row in section.rows if leading else ():
        assert leading is not None
        placebo = None if row.is_control or is_on_features(row.records) else controls.placebo(row, leading.name)
        found = None if placebo is None else placebo.scores[leading.name]
        if found is None or found.value is None or found.interval is None or found.chance is None:
            continue
        low, high = found.interval
        if low > found.chance if leading.better == "lower" else high < found.chance:
            numbers, unit = (found.value, low, high, found.chance), " %" if leading.unit == "fraction" else ""
            value, start, end, chance = (f"{100 * x:.1f}" if unit else f"{x:.3f}" for x in numbers)
            yield (
                row,
                f"{row.attack} reaches a {leading.title} of {value} [{start}, {end}]{unit} on a "
                f"target that knows no labels, where chance is {chance}{unit}",
            )


def _outperformed_rows(rows: Iterable[Row], score: str) -> Iterator[tuple[Row, str]]:
    """Rows for which an attack with weaker access on the same defense leaks more, beyond both intervals."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if score in row.scores and row.scores[score].value is not None and _access_level(row) >= 0:
            groups.setdefault(row.defense, []).append(row)
    for group in groups.values():
        if len({_access_level(row) for row in group}) == 1:
            continue
        for row in group:
            comparable = [other for other in group if evaluator_of(other, score) == evaluator_of(row, score)]
            weaker = [other for other in comparable if _wins(other, row, comparable, score)]
            if weaker:
                yield row, _message(max(weaker, key=lambda other: _leakage(other, score)), row, score)


def _wins(weaker: Row, row: Row, group: Sequence[Row], score: str) -> bool:
    """Return whether `weaker` has weaker access than `row` and leaks more than every attack with stronger access."""
    if _access_level(weaker) >= _access_level(row):
        return False
    stronger = (other for other in group if _access_level(other) > _access_level(weaker))
    best = max(stronger, key=lambda other: _leakage(other, score)).scores[score].interval
    found = weaker.scores[score].interval
    if found is None or best is None:
        return False
    higher_leaks = weaker.scores[score].definition.better == "lower"
    return found[0] > best[1] if higher_leaks else found[1] < best[0]


def _message(weaker: Row, row: Row, score: str) -> str:
    value, weaker_value = row.scores[score].value, weaker.scores[score].value
    return (
        f"{weaker.attack} with access {_access(weaker)} leaks more by {row.scores[score].definition.title} than "
        f"{row.attack} with access {_access(row)}: {weaker_value:.3g} against {value:.3g}"
    )


def _leakage(row: Row, score: str) -> float:
    """The row's value, with the sign with which larger values leak more."""
    summary = row.scores[score]
    assert summary.value is not None
    return summary.value if summary.definition.better == "lower" else -summary.value


def _access(row: Row) -> str | None:
    """Access of the row's attack; `None` if its records lack it or differ in it."""
    found = {record.access for record in row.records}
    return found.pop() if len(found) == 1 else None


def _access_level(row: Row) -> int:
    """Index of the row's access in `ACCESS_ORDER`; -1 if it is not comparable."""
    access = _access(row)
    return ACCESS_ORDER.index(access) if access in ACCESS_ORDER else -1
