"""Choice among records that compete: higher levels of verification win, times that authors state decide nothing.

1. One key, one record: of the highest level. Its owner is the submission that was verified first; without a
   verification the results folder's own record comes before submitted ones.
2. One configuration and seed: records of the highest level.
3. One configuration: a submission that nobody verified adds no seeds to records of others.

What is left out is named, and does not make a report fail. Rankings leave unverified submissions out, too
(`Section.trusted`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.config import Definition
from ..records import installed
from ..records.record import Record
from ..records.submission import group_of
from ..records.submitted import Provenance
from ..records.verification import LEVELS


@dataclass(frozen=True)
class Candidate:
    """A record that was found.

    Args:
        record: as it is shown.
        claim: as its author wrote it.
        path: its file.
        source: its submission; `None` for a record of the results folder itself.
    """

    record: Record
    claim: Record
    path: Path
    source: Provenance | None = None

    @property
    def level(self) -> int:
        """Position of its level in `LEVELS`."""
        return LEVELS.index(self.source.level) if self.source else 0

    @property
    def is_unverified(self) -> bool:
        """Return whether it is of a submission that nobody verified."""
        return self.source is not None and self.level == 0


@dataclass(frozen=True)
class Choice:
    """Records that count.

    Args:
        items: one for each key.
        conflicts: messages about files of the results folder that contradict one another.
        left_out: messages about records that do not count.
    """

    items: tuple[Candidate, ...]
    conflicts: tuple[str, ...]
    left_out: tuple[str, ...]


def choose(candidates: Sequence[Candidate]) -> Choice:
    """Choose the records that count.

    Args:
        candidates: in the order of their paths, those of the results folder before those of submissions.
    """
    conflicts: list[str] = []
    left_out: list[str] = []
    by_key: dict[str, list[Candidate]] = {}
    for each in candidates:
        by_key.setdefault(each.record.key, []).append(each)
    chosen = [_of_key(group, conflicts, left_out) if len(group) > 1 else group[0] for group in by_key.values()]
    if any(each.source for each in chosen):
        chosen = _by_level(chosen, left_out)
    return Choice(tuple(_with_definitions(chosen)), tuple(conflicts), tuple(left_out))


def _since(each: Candidate) -> tuple[str, str]:
    """Sort verified records by their first verification."""
    return (each.source.since, each.source.submission) if each.source else ("", "")


def _of_key(group: Sequence[Candidate], conflicts: list[str], left_out: list[str]) -> Candidate:
    """Choose among records with one key."""
    own = [each for each in group if each.source is None]
    verified = sorted((each for each in group if each.level), key=_since)
    shown = max(verified, key=lambda each: each.level, default=(own or list(group))[0])
    for each in group:
        if each.claim == shown.claim:
            continue
        if each.source is None and shown.source is None:
            conflicts.append(f"{each.path} and {shown.path} have the same key but differ; remove one of them")
        else:
            left_out.append(f"{each.path} is left out: {shown.path} has the same key and differs, and counts first")
    if not verified:
        return shown
    assert shown.source is not None
    owner = verified[0].source
    assert owner is not None
    source = replace(shown.source, submission=owner.submission, contact=owner.contact, paper=owner.paper)
    path = own[0].path if own and own[0].claim == shown.claim else shown.path
    return replace(shown, source=source, path=path)


def _by_level(chosen: Sequence[Candidate], left_out: list[str]) -> list[Candidate]:
    """Leave out records beside ones of a higher level, and unverified submissions beside other records."""
    groups: dict[str, list[Candidate]] = {}
    for each in chosen:
        groups.setdefault(group_of(each.record), []).append(each)
    gone: set[int] = set()
    for group in groups.values():
        is_trusted = any(not each.is_unverified for each in group)
        highest: dict[int, int] = {}
        for each in group:
            highest[each.record.cell.seed] = max(each.level, highest.get(each.record.cell.seed, 0))
        for each in group:
            if is_trusted and each.is_unverified:
                left_out.append(f"{each.path} is left out: nobody verified it, and others recorded this configuration")
                gone.add(id(each))
            elif each.level < highest[each.record.cell.seed]:
                left_out.append(f"{each.path} is left out: a record of this configuration and seed has a higher level")
                gone.add(id(each))
    kept = [each for each in chosen if id(each) not in gone]
    return sorted(
        kept, key=lambda each: (each.source is not None, not each.level, _since(each) if each.level else ("", ""))
    )


def _with_definitions(chosen: Iterable[Candidate]) -> list[Candidate]:
    """Define every score as the installed evaluator does, or, of another package, as the record that counts first does.

    A record alone must not say which direction is better, or what the heading of a column is.
    """
    chosen = list(chosen)
    known = dict(installed.definitions())
    for each in sorted(chosen, key=lambda each: (-each.level, each.is_unverified)):
        for name, score in each.record.scores.items():
            known.setdefault(name, score.definition)
    return [replace(each, record=_defined(each.record, known)) for each in chosen]


def _defined(record: Record, known: Mapping[str, Definition]) -> Record:
    other = {name for name, score in record.scores.items() if score.definition != known[name]}
    if not other:
        return record
    scores = {
        name: score.model_copy(update={"definition": known[name]}) if name in other else score
        for name, score in record.scores.items()
    }
    return record.model_copy(update={"scores": scores})
