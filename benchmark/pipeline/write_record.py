"""Make records from scores artifacts."""

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..analysis.cell_flags import Lineage, cell_flags
from ..contracts import Attack
from ..core.canonical import digest
from ..core.config import Budget, Protocol, is_placebo
from ..errors import IncompatibleRecordError
from ..isolation.declared import description_of
from ..records.record import SCHEMA, ArtifactReference, CellIdentity, Record, location, read, save
from ..registry import load
from ..store.manifest import Artifact
from .cell import Cell, Choice, Selection
from .facts import ScoresFacts
from .keys import KEY_FORMAT
from .plan import Plan, Stage
from .resolve import resolve


def write_record(plan: Plan, key: str, artifact: Artifact, results: Path) -> tuple[Record, Path]:
    """Save the record of the cell whose scores have this key, unless it is there: then it keeps its time and bytes."""
    record = make_record(plan.cells[key], plan.stages[key], artifact)
    picture = artifact.file("picture.png") if record.picture else None
    path = location(record, results)
    earlier = _earlier(path)
    if earlier is not None and record.model_copy(update={"created": earlier.created}) == earlier:
        if picture is None or path.with_suffix(".png").is_file():
            return earlier, path
        record = earlier
    return record, save(record, results, picture)


def _earlier(path: Path) -> Record | None:
    """Return the record at a path; `None` if there is none, or if it cannot be read."""
    try:
        return read(path) if path.is_file() else None
    except IncompatibleRecordError:
        return None


def make_record(cell: Cell, stage: Stage, artifact: Artifact) -> Record:
    """Make the record of one cell from its scores artifact alone."""
    facts = ScoresFacts.of(artifact)
    identity, changed = cell.identity(), changes(cell)
    key = digest({"cell": identity, "scores": stage.key})
    scores: dict[str, Any] = json.loads(artifact.file("scores.json"))
    artifacts = {**facts.artifacts, "scores": ArtifactReference(key=artifact.key, digest=artifact.digest)}
    values = {
        "schema_version": SCHEMA,
        "key": key,
        "key_format": KEY_FORMAT,
        "protocol": cell.dataset.component.protocol.id,
        "cell": identity,
        "changed": changed,
        "command": command(cell, changed),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "scores": {name: _without_flags(score) for name, score in scores.items()},
        "not_run": dict(cell.not_run),
        "access": cell.attack.component.access,
        "queries": facts.queries,
        "costs": facts.costs,
        "environment": facts.environment,
        "artifacts": artifacts,
        "target": facts.target,
        "judge": facts.judge,
        "curves": facts.stage_curves,
        "flags": record_flags(
            cell.dataset.component.protocol,
            cell.attack.component,
            scores=scores,
            judge=facts.judge,
            curves=facts.stage_curves,
            probe=facts.probe,
            control=is_placebo(cell.defense.name, cell.defense.distribution),
        ),
        "picture": f"{key}.png" if "picture.png" in artifact.manifest.files else None,
    }
    return Record.model_validate(values)


def record_flags(
    protocol: Protocol,
    attack: Attack | None,
    *,
    scores: Mapping[str, Any],
    judge: Mapping[str, Any],
    curves: Mapping[str, Any],
    probe: Mapping[str, Any] | None,
    control: bool = False,
) -> list[dict[str, str]]:
    """Find the flags of a cell, a control's or another; without an `attack`, its losses are not checked."""
    judges = [facts for facts in (judge, judge.get("second_judge")) if isinstance(facts, Mapping) and facts]
    return cell_flags(
        scores=scores,
        judge=judge,
        curves=curves,
        decreasing_losses=attack.decreasing_losses if attack else {},
        probe=probe,
        target=lineage(protocol.target_network, pretrained=protocol.pretrained),
        judges=[lineage(str(facts["network"]), pretrained=bool(facts.get("pretrained"))) for facts in judges],
        control=control,
    )


def _without_flags(score: Mapping[str, Any]) -> dict[str, Any]:
    """Return a score without its flags, which are among the record's."""
    return {name: value for name, value in score.items() if name != "flags"}


def lineage(network: str, *, pretrained: bool) -> Lineage:
    """Return the lineage of a registered network that was trained here."""
    kind = load("network", network)
    return Lineage(network, kind.family, kind.pretraining if pretrained else "")


def command(cell: Cell | CellIdentity, changed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the command that runs this cell alone: names, and the fields whose values they do not imply."""
    words = ["privbench", "run", "--dataset", cell.dataset.name, "--defense", cell.defense.name]
    words += ["--attack", cell.attack.name]
    words += ["--budget", cell.budget, "--seed", str(cell.seed)]
    for choice in cell.evaluators:
        words += ["--evaluator", choice.name]
    words += ["--no-controls"]
    for scope, fields in changed.items():
        for path, value in fields.items():
            words += ["--set", f"{scope}.{path}={json.dumps(value)}"]
    return words


def changes(cell: Cell) -> dict[str, dict[str, Any]]:
    """Return the fields whose values the names and the budget do not imply, by kind (by name for evaluators)."""
    choices = (cell.dataset, cell.defense, cell.attack, *cell.evaluators)
    found = {scope_of(choice): changed_fields(choice, cell.budget, cell.dataset) for choice in choices}
    return {scope: fields for scope, fields in found.items() if fields}


def scope_of(choice: Choice) -> str:
    """Return the word before the dot of `--set` for the fields of a component."""
    return choice.name if choice.kind == "evaluator" else choice.kind


def changed_fields(choice: Choice, budget: Budget, dataset: Choice) -> dict[str, Any]:
    """Return the fields of a component whose values its name, the budget and the data set do not imply."""
    described = description_of(choice.component)
    if described is not None:
        usual = {name: field.usual for name, field in described.fields.items()}
    else:
        component = resolve(choice.kind, Selection(choice.name), budget, {}, dataset).component
        usual = component.model_dump(mode="json")
    return dict(_differences(choice.component.model_dump(mode="json"), usual))


def _differences(values: Mapping[str, Any], usual: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        other = usual.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            found += _differences(value, other, f"{prefix}{name}.")
        elif value != other:
            found.append((f"{prefix}{name}", value))
    return found
