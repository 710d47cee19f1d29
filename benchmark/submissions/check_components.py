"""What a submitted record says of components, against those that are installed here; none of the submitter's runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import registry
from ..core.config import Definition, Protocol
from ..errors import CorruptArtifactError, IncompatibleRecordError, PrivbenchError, UnsupportedCellError
from ..files.untrusted import shown
from ..pipeline.cell import Cell, Choice, Selection
from ..pipeline.record_artifacts import name_of
from ..pipeline.resolve import build, defaults, resolve
from ..pipeline.write_record import changes, command
from ..records.record import Choice as RecordedChoice
from ..records.record import Record
from ..registry import Kind

#: The package whose components everybody has.
OURS = "privbench"
_STAND_INS = {"classes": ("none", "kedmi"), "attributes": ("none", "decoder")}


@dataclass(frozen=True)
class Components:
    """The components of a record, as far as they are installed here.

    Args:
        dataset: of the record.
        evaluators: those that can compute their scores again.
        missing: why the other evaluators cannot, by name.
        defense: `None` where it cannot be made here.
        attack: `None` where it cannot be made here.
        absent: why defense or attack cannot, by kind.
    """

    dataset: Choice
    evaluators: tuple[Choice, ...]
    missing: dict[str, str]
    defense: Choice | None
    attack: Choice | None
    absent: dict[str, str]

    @property
    def protocol(self) -> Protocol:
        """Of the data set."""
        found: Protocol = self.dataset.component.protocol
        return found

    def cell(self, record: Record) -> Cell:
        """The record's cell; what is not installed is stood in for, which its judges do not depend on."""
        defense, attack = _STAND_INS[self.protocol.task]
        budget = record.cell.budget
        return Cell(
            self.dataset,
            self.defense or resolve("defense", Selection(defense), budget, {}, self.dataset),
            self.attack or resolve("attack", Selection(attack), budget, {}, self.dataset),
            self.evaluators,
            record.cell.seed,
            budget,
        )


def components(record: Record) -> Components:
    """Find the components of a record, and compare what it says of them.

    Raises:
        IncompatibleRecordError: the protocol or a component is of another version here.
        CorruptArtifactError: the record contradicts itself or the components.
        UnsupportedCellError: its data set is not installed here.
    """
    _require_scores(record)
    cell = record.cell
    dataset = _installed("dataset", cell.dataset, record)
    if dataset is None:
        raise UnsupportedCellError(
            f"{name_of(record)} is on the data set {cell.dataset.name} of {shown(cell.dataset.distribution)}, "
            "which is not installed here; install it to verify"
        )
    ours = dataset.component.protocol.id
    if ours != record.protocol:
        raise IncompatibleRecordError(
            f"{name_of(record)} is of protocol {record.protocol}, and here {dataset.name} is {ours}, whose "
            f"numbers are not comparable; run its cell again with a privbench that has {ours}"
        )
    evaluators, missing = _evaluators(record, dataset.component.protocol)
    _require_bounded(record, (dataset, *evaluators))
    absent: dict[str, str] = {}
    defense, attack = _made("defense", cell.defense, record, absent), _made("attack", cell.attack, record, absent)
    found = Components(dataset, evaluators, missing, defense, attack, absent)
    _require_own_words(record, found)
    return found


def _installed(kind: Kind, recorded: RecordedChoice, record: Record) -> Choice | None:
    """The component, or `None` where the package that registers it is not here."""
    entries = [entry for entry in registry.entries(kind) if entry.name == recorded.name]
    if not any(entry.distribution == recorded.distribution for entry in entries):
        if recorded.distribution == OURS or any(entry.distribution == OURS for entry in entries):
            theirs = f"{shown(recorded.distribution)}, version {recorded.version}"
            here = entries[0].distribution if entries else "no package"
            raise IncompatibleRecordError(
                f"{name_of(record)} was made with {kind} {recorded.name} of {theirs}, and here {here} has one; "
                "run its cell again with this privbench"
            )
        return None
    cls = registry.load(kind, recorded.name)
    if cls.version != recorded.version:
        raise IncompatibleRecordError(
            f"{name_of(record)} was made with {kind} {recorded.name} of version {recorded.version}, and here it "
            f"is of version {cls.version}; run its cell again with this privbench"
        )
    component = build(cls, recorded.fields, kind, recorded.name)
    if component.model_dump(mode="json") != recorded.fields:
        raise CorruptArtifactError(
            f"expected {name_of(record)} to name every field of {kind} {recorded.name}, got others; run its cell again"
        )
    return Choice(kind, recorded.name, recorded.distribution, component)


def _require_bounded(record: Record, choices: Sequence[Choice]) -> None:
    """Refuse settings with which a verifier would train judges or resample for longer than as published."""
    for choice in choices:
        values, published = choice.component.model_dump(), defaults(type(choice.component))
        for path in (("judge", "epochs"), ("second_judge", "epochs"), ("resamples",)):
            given, most = _at(values, path), _at(published, path)
            if given is not None and most is not None and given > most:
                raise UnsupportedCellError(
                    f"expected {choice.name}.{'.'.join(path)} of {name_of(record)} to be at most the published "
                    f"{most}, got {given}; run its cell again with that"
                )


def _at(values: Mapping[str, Any], path: Sequence[str]) -> int | None:
    """The whole number at a path of nested settings; `None` where there is none."""
    found: Any = values
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, int) else None


def _made(kind: Kind, recorded: RecordedChoice, record: Record, absent: dict[str, str]) -> Choice | None:
    """The component if it is here with the files that it used; why not is noted in `absent`."""
    choice = _installed(kind, recorded, record)
    reason = _not_installed(recorded) if choice is None else _other_files(choice, recorded)
    if reason is None:
        return choice
    absent[kind] = reason
    return None


def _not_installed(recorded: RecordedChoice) -> str:
    return f"it is of {shown(recorded.distribution)}, which is not installed here"


def _other_files(choice: Choice, recorded: RecordedChoice) -> str | None:
    """Why a component would compute something else here than its record, such as other weights."""
    try:
        same = choice.component.files() == recorded.files
    except PrivbenchError as cause:
        return str(cause)
    return None if same else "it used other weights than those here"


def _evaluators(record: Record, protocol: Protocol) -> tuple[tuple[Choice, ...], dict[str, str]]:
    found, missing = [], {}
    for recorded in record.cell.evaluators:
        choice = _installed("evaluator", recorded, record)
        if choice is None:
            missing[recorded.name] = _not_installed(recorded)
            continue
        _require_definitions(record, choice)
        reason = choice.component.unavailable(protocol) or _other_files(choice, recorded)
        if reason is None:
            found.append(choice)
        else:
            missing[choice.name] = reason
    return tuple(found), missing


def _require_definitions(record: Record, choice: Choice) -> None:
    """Refuse an evaluator with scores that are not all there, or are not defined as here."""
    wanted: dict[str, Definition] = {definition.name: definition for definition in choice.component.scores}
    given = {name: score for name, score in record.scores.items() if score.evaluator == choice.name}
    for name in sorted(wanted.keys() ^ given.keys()):
        raise CorruptArtifactError(
            f"expected {name_of(record)} to have the scores {', '.join(sorted(wanted))} of {choice.name}, got "
            f"{'none' if name in wanted else 'another'} called {name}; run its cell again"
        )
    for name, score in given.items():
        if score.definition != wanted[name]:
            raise CorruptArtifactError(
                f"expected {name} of {name_of(record)} to be defined as {choice.name} defines it, got another "
                "definition; run its cell again"
            )


def _require_scores(record: Record) -> None:
    """Refuse evaluators named twice or without scores."""
    names = [choice.name for choice in record.cell.evaluators]
    for name in names:
        if names.count(name) > 1 or name not in {score.evaluator for score in record.scores.values()}:
            raise CorruptArtifactError(
                f"expected {name_of(record)} to have scores of each of its evaluators once, got {name} "
                f"{'twice' if names.count(name) > 1 else 'without any'}; run its cell again"
            )
    if not names:
        raise CorruptArtifactError(f"expected {name_of(record)} to have scores, got none; run its cell again")


def _require_own_words(record: Record, found: Components) -> None:
    """Refuse a record whose command or list of changed fields is not that of its cell, or whose access is not."""
    recorded = record.cell
    if not _same_words(record.command, command(recorded, record.changed)):
        raise CorruptArtifactError(
            f"expected the command of {name_of(record)} to run its cell, got another; run its cell again"
        )
    if found.attack is not None and record.access not in (None, found.attack.component.access):
        raise CorruptArtifactError(
            f"expected the access of {name_of(record)} to be {found.attack.component.access}, got "
            f"{record.access}; run its cell again"
        )
    if found.defense is None or found.attack is None or found.missing:
        return
    if changes(found.cell(record)) != record.changed:
        raise CorruptArtifactError(
            f"expected {name_of(record)} to list the fields that differ from {recorded.budget}'s usual ones, "
            "got another list; run its cell again"
        )


def _same_words(given: Sequence[str], due: Sequence[str]) -> bool:
    """Whether two commands are the same but for the order of their `--set`, which a record does not keep."""
    head = due.index("--set") if "--set" in due else len(due)
    pairs = [sorted(zip(words[head::2], words[head + 1 :: 2], strict=False)) for words in (given, due)]
    return len(given) == len(due) and list(given[:head]) == list(due[:head]) and pairs[0] == pairs[1]
