"""From scores artifacts to records."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .plan import Plan, Stage
from .records import SCHEMA, Record, save
from .runners.local import Outcome
from .spec import Cell, Selection, digest, resolve
from .store import Artifact

#: A judge below this test accuracy is flagged.
WEAK_JUDGE = 0.8


def write_records(plan: Plan, outcome: Outcome, results: Path) -> list[tuple[Record, Path]]:
    """Save a record of every cell that has its scores."""
    written = []
    for key, artifact in outcome.scores.items():
        cell = plan.cells[key]
        record = make_record(cell, plan.stages[key], artifact)
        picture = artifact.file("picture.png") if record.picture else None
        written.append((record, save(record, results, picture)))
    return written


def make_record(cell: Cell, stage: Stage, artifact: Artifact) -> Record:
    """The record of one cell, made from its scores artifact alone."""
    info = artifact.info
    identity, changed = cell.identity(), changes(cell)
    key = digest({"cell": identity, "scores": stage.key})
    scores: dict[str, Any] = json.loads(artifact.file("scores.json"))
    artifacts = {**info["artifacts"], "scores": {"key": artifact.key, "digest": artifact.digest}}
    values = {
        "schema_version": SCHEMA,
        "key": key,
        "protocol": cell.dataset.component.protocol.id,
        "cell": identity,
        "changed": changed,
        "command": command(cell, changed),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "scores": scores,
        "not_run": dict(cell.not_run),
        "queries": info["queries"],
        "costs": info["costs"],
        "environment": info["environment"],
        "artifacts": artifacts,
        "judge": info["judge"],
        "curves": info["stage_curves"],
        "flags": flags(info["judge"], scores),
        "picture": f"{key}.png" if "picture.png" in artifact.manifest.files else None,
    }
    return Record.model_validate(values)


def flags(judge: Mapping[str, Any], scores: Mapping[str, Any]) -> list[dict[str, str]]:
    """Findings that cast doubt on the scores: a judge that is often wrong, a target that learned nothing."""
    found = []
    if judge and judge["test_accuracy"] < WEAK_JUDGE:
        right = f"the judge is right on {judge['test_accuracy']:.1%} of {judge['n']} test images"
        found.append(
            {"name": "weak_judge", "message": f"{right}, so attack accuracy and FID in its features say little"}
        )
    collapse = _collapse(scores)
    if collapse:
        found.append({"name": "target_collapsed", "message": collapse})
    return found


def _collapse(scores: Mapping[str, Any]) -> str | None:
    """Why the target is thought to have learned nothing, in one sentence; `None` if it is not.

    MCC decides where it has an interval: where one answer is frequent, a useful target's accuracy may be at chance.
    """
    mcc, accuracy = (scores.get(name) or {"value": None, "interval": None} for name in ("mcc", "accuracy"))
    if mcc["interval"]:
        at_chance = mcc["interval"][0] <= mcc["chance"]
        message = f"the target's MCC of {mcc['value']:.3f} is not above chance, so there is little to leak"
        return message if at_chance else None
    if accuracy["interval"] and accuracy["interval"][0] <= accuracy["chance"]:
        return f"the target's accuracy of {accuracy['value']:.1%} is not above chance, so there is little to leak"
    computed = mcc.get("chance") is not None and accuracy["value"] is not None
    if computed and mcc["value"] is None:
        return f"{mcc['reason']}, so nothing shows that the target has learned anything"
    return None


def command(cell: Cell, changed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The command that runs the cell again: names, and every field that they alone would not give."""
    words = ["privbench", "run"]
    for choice in (cell.dataset, cell.defense, cell.attack):
        words += [f"--{choice.kind}", choice.name]
    words += ["--budget", cell.budget, "--seed", str(cell.seed)]
    for choice in cell.evaluators:
        words += ["--evaluator", choice.name]
    for scope, fields in changed.items():
        for path, value in fields.items():
            words += ["--set", f"{scope}.{path}={json.dumps(value)}"]
    return words


def changes(cell: Cell) -> dict[str, dict[str, Any]]:
    """The fields that the names and the budget alone would not give, by kind (by name for evaluators)."""
    found = {}
    for choice in (cell.dataset, cell.defense, cell.attack, *cell.evaluators):
        usual = resolve(choice.kind, Selection(choice.name), cell.budget, {}, cell.dataset).component
        fields = dict(_differences(choice.component.model_dump(mode="json"), usual.model_dump(mode="json")))
        if fields:
            found[choice.name if choice.kind == "evaluator" else choice.kind] = fields
    return found


def _differences(values: Mapping[str, Any], usual: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        other = usual.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            found += _differences(value, other, f"{prefix}{name}.")
        elif value != other:
            found.append((f"{prefix}{name}", value))
    return found
