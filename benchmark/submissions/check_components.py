"""Check of a submitted record against the installed components; no code of the submitter runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from .. import registry
from ..analysis.row_labels import flat
from ..core.config import BUILT_IN, Definition, Protocol, Recipe
from ..errors import IncompatibleRecordError, PrivbenchError, UnsupportedCellError
from ..files.untrusted import shown
from ..pipeline.cell import Cell, Choice, Selection
from ..pipeline.choose_attack import configured_attack
from ..pipeline.record_artifacts import name_of
from ..pipeline.resolve import build, defaults, resolve
from ..pipeline.write_record import changed_fields, command, scope_of
from ..records.record import Choice as RecordedChoice
from ..records.record import Record
from ..registry import Kind
from .rejection import reject

#: Stages of judges: fields of a data set with their recipes.
_JUDGES = ("judge", "second_judge")
#: Settings of the judges that make a verifier train longer, or need more memory.
_TRAINING = tuple((judge, name) for judge in _JUDGES for name in ("epochs", "batch_size"))
#: Defense and attack by task that replace those that are not installed.
_SUBSTITUTES = {"classes": ("none", "kedmi"), "attributes": ("none", "decoder")}


@dataclass(frozen=True)
class Components:
    """Components of a record that are installed here.

    Args:
        dataset: the data set.
        evaluators: evaluators that can recompute their scores.
        missing_evaluators: why the other evaluators cannot, by name.
        defense: the defense; `None` if it is not available.
        attack: the attack; `None` if it is not available.
        missing: why the defense or the attack is not available, by kind.
        installed: every component of the record whose class is installed, also those that cannot be used here.
    """

    dataset: Choice
    evaluators: tuple[Choice, ...]
    missing_evaluators: dict[str, str]
    defense: Choice | None
    attack: Choice | None
    missing: dict[str, str]
    installed: tuple[Choice, ...]

    @property
    def protocol(self) -> Protocol:
        """Protocol of the data set."""
        found: Protocol = self.dataset.component.protocol
        return found

    def cell(self, record: Record) -> Cell:
        """Return the record's cell, with substitutes for what is not installed; its judges do not depend on them."""
        defense, attack = _SUBSTITUTES[self.protocol.task]
        budget = record.cell.budget
        return Cell(
            self.dataset,
            self.defense or resolve("defense", Selection(defense), budget, {}, self.dataset),
            self.attack or resolve("attack", Selection(attack), budget, {}, self.dataset),
            self.evaluators,
            record.cell.seed,
            budget,
        )


def check_components(record: Record) -> Components:
    """Find the components of a record and check what the record states about them.

    Raises:
        IncompatibleRecordError: the protocol or a component has another version here.
        CorruptArtifactError: the record contradicts itself or the components.
        UnsupportedCellError: the data set is not installed here.
    """
    _require_scores(record)
    cell = record.cell
    dataset = _installed_component("dataset", cell.dataset, record)
    if dataset is None:
        raise UnsupportedCellError(
            f"{name_of(record)} needs the data set {cell.dataset.name} of {shown(cell.dataset.distribution)}, "
            "which is not installed here; install it to verify the record"
        )
    ours = dataset.component.protocol.id
    if ours != record.protocol:
        raise IncompatibleRecordError(
            f"{name_of(record)} has protocol {record.protocol}, but the installed {dataset.name} is {ours}, whose "
            f"numbers are not comparable; run its cell again with a privbench that has {ours}"
        )
    evaluators, missing_evaluators, installed = _available_evaluators(record, dataset.component.protocol)
    _require_published_effort(record, (dataset, *evaluators))
    missing: dict[str, str] = {}
    found: dict[Kind, Choice | None] = {}
    recorded: tuple[tuple[Kind, RecordedChoice], ...] = (("defense", cell.defense), ("attack", cell.attack))
    for kind, each in recorded:
        choice = _installed_component(kind, each, record, dataset)
        installed += [choice] if choice is not None else []
        reason = _not_installed(each) if choice is None else _different_files(choice, each)
        found[kind] = choice if reason is None else None
        missing |= {kind: reason} if reason is not None else {}
    components = Components(
        dataset, evaluators, missing_evaluators, found["defense"], found["attack"], missing, (dataset, *installed)
    )
    _require_consistent(record, components)
    return components


def _installed_component(
    kind: Kind, recorded: RecordedChoice, record: Record, dataset: Choice | None = None
) -> Choice | None:
    """Return a component, or `None` if its package is not installed; the attack of a plugin is not imported."""
    entries = [entry for entry in registry.entries(kind) if entry.name == recorded.name]
    if not any(entry.distribution == recorded.distribution for entry in entries):
        if recorded.distribution == BUILT_IN or any(entry.distribution == BUILT_IN for entry in entries):
            theirs = f"{shown(recorded.distribution)}, version {recorded.version}"
            installed = entries[0].distribution if entries else "no package"
            raise IncompatibleRecordError(
                f"{name_of(record)} was made with {kind} {recorded.name} of {theirs}, but here it belongs to "
                f"{installed}; run its cell again with this privbench"
            )
        return None
    if kind == "attack" and recorded.distribution != BUILT_IN:
        component = configured_attack(recorded.name, recorded.fields, record.cell.budget, dataset).component
        version = type(component).version
    else:
        cls = registry.load(kind, recorded.name)
        component, version = None, cls.version
    if version != recorded.version:
        raise IncompatibleRecordError(
            f"{name_of(record)} was made with version {recorded.version} of {kind} {recorded.name}, but version "
            f"{version} is installed; run its cell again with this privbench"
        )
    component = component or build(cls, recorded.fields, kind, recorded.name)
    if component.model_dump(mode="json") != recorded.fields:
        reject(record, f"have the fields of {kind} {recorded.name}", "others")
    return Choice(kind, recorded.name, recorded.distribution, component)


def _require_published_effort(record: Record, choices: Sequence[Choice]) -> None:
    """Reject settings that make a verifier train judges or resample longer than published."""
    for choice in choices:
        values, published = choice.component.model_dump(), defaults(type(choice.component))
        for path in (*_TRAINING, ("resamples",)):
            given, most = _nested_int(values, path), _nested_int(published, path)
            if given is not None and most is not None and given > most:
                raise UnsupportedCellError(
                    f"expected {choice.name}.{'.'.join(path)} of {name_of(record)} to be at most the published "
                    f"{most}, got {given}; run its cell again with this value"
                )


def require_published_steps(record: Record, components: Components, images: int) -> None:
    """Reject settings that make a verifier train a judge for more steps than published, before anything is trained.

    Args:
        record: of the submission.
        components: of the record.
        images: training images of the judges.

    Raises:
        UnsupportedCellError: names the judge, its steps, and the most.
    """
    dataset = components.dataset
    values, published = dataset.component.model_dump(), defaults(type(dataset.component))
    for judge in _JUDGES:
        if values.get(judge) is None or published.get(judge) is None:
            continue
        given, most = (Recipe(**each[judge]).steps(images) for each in (values, published))
        if given > most:
            raise UnsupportedCellError(
                f"expected the settings of {dataset.name}.{judge} of {name_of(record)} to train it for at most the "
                f"published {most:,} steps, got {given:,}; run its cell again with a larger batch_size or fewer epochs"
            )


def _nested_int(values: Mapping[str, Any], path: Sequence[str]) -> int | None:
    """Return the integer at a path of nested settings; `None` if there is none."""
    found: Any = values
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, int) else None


def _not_installed(recorded: RecordedChoice) -> str:
    return f"its package {shown(recorded.distribution)} is not installed here"


def _different_files(choice: Choice, recorded: RecordedChoice) -> str | None:
    """Explain which files or networks differ from those of the record; `None` if none do.

    Records before schema 3 do not name their networks.
    """
    try:
        if choice.files() != recorded.files:
            return "its weights differ from those on this machine"
        given = {name: network.model_dump() for name, network in recorded.networks.items()}
        if given and given != choice.networks():
            return "its networks are of other packages or versions here"
    except PrivbenchError as cause:
        return str(cause)
    return None


def _available_evaluators(
    record: Record, protocol: Protocol
) -> tuple[tuple[Choice, ...], dict[str, str], list[Choice]]:
    """Return evaluators that can score, the reasons why others cannot, and all that are installed."""
    found, missing, installed = [], {}, []
    for recorded in record.cell.evaluators:
        choice = _installed_component("evaluator", recorded, record)
        if choice is None:
            missing[recorded.name] = _not_installed(recorded)
            continue
        installed.append(choice)
        _require_definitions(record, choice)
        reason = choice.component.unavailable(protocol) or _different_files(choice, recorded)
        if reason is None:
            found.append(choice)
        else:
            missing[choice.name] = reason
    return tuple(found), missing, installed


def _require_definitions(record: Record, choice: Choice) -> None:
    """Reject missing or unknown scores of an evaluator, and scores with other definitions."""
    wanted: dict[str, Definition] = {definition.name: definition for definition in choice.component.scores}
    given = {name: score for name, score in record.scores.items() if score.evaluator == choice.name}
    for name in sorted(wanted.keys() ^ given.keys()):
        requirement = f"have the scores {', '.join(sorted(wanted))} of {choice.name}"
        reject(record, requirement, f"{'none' if name in wanted else 'another one'} named {name}")
    for name, score in given.items():
        if score.definition != wanted[name]:
            reject(record, f"have the definition of {choice.name}", "another one", name)


def _require_scores(record: Record) -> None:
    """Reject duplicate evaluators and evaluators without scores."""
    names = [choice.name for choice in record.cell.evaluators]
    for name in names:
        if names.count(name) > 1 or name not in {score.evaluator for score in record.scores.values()}:
            given = f"{name} {'twice' if names.count(name) > 1 else 'without scores'}"
            reject(record, "have each of its evaluators once, with scores", given)
    if not names:
        reject(record, "have scores", "none")


def _require_consistent(record: Record, found: Components) -> None:
    """Reject a record whose command, access or list of changed fields does not belong to its cell."""
    if not _is_same_command(record.command, command(record.cell, record.changed)):
        reject(record, "run its cell", "another", "the command")
    if found.attack is not None and record.access not in (None, found.attack.component.access):
        reject(record, f"be {found.attack.component.access}", record.access, "the access")
    budget, installed = record.cell.budget, {scope_of(choice): choice for choice in found.installed}
    recorded = {"defense": record.cell.defense, "attack": record.cell.attack}
    recorded |= {choice.name: choice for choice in record.cell.evaluators if choice.name not in installed}
    for scope in sorted({*installed, *recorded, *record.changed}):
        given = record.changed.get(scope, {})
        if scope in installed:
            is_true = given == changed_fields(installed[scope], budget, found.dataset)
        else:
            is_true = scope in recorded and _are_fields(given, recorded[scope].fields)
        if not is_true:
            requirement = f"list the fields of {shown(scope)} that differ from the defaults of the budget {budget}"
            reject(record, requirement, "other fields")


def _are_fields(given: Mapping[str, JsonValue], fields: Mapping[str, JsonValue]) -> bool:
    """Return whether values by dotted name are those of recorded fields, whose defaults nobody knows here."""
    known = {**flat(dict(fields)), **fields}
    return all(path in known and known[path] == value for path, value in given.items())


def _is_same_command(given: Sequence[str], expected: Sequence[str]) -> bool:
    """Return whether two commands are equal up to the order of `--set`, which a record does not keep.

    Records from before there were controls lack `--no-controls`.
    """
    given, expected = ([word for word in words if word != "--no-controls"] for words in (given, expected))
    head = expected.index("--set") if "--set" in expected else len(expected)
    settings = [sorted(zip(words[head::2], words[head + 1 :: 2], strict=False)) for words in (given, expected)]
    return len(given) == len(expected) and [*given[:head]] == [*expected[:head]] and settings[0] == settings[1]
