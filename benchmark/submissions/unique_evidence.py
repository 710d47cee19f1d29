"""Evidence belongs to one cell: two trainings do not give the same reconstructions or predictions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import PrivbenchError
from ..pipeline.record_artifacts import name_of
from ..records.record import Record
from ..records.submission import FOLDER, INDEX, Index, SubmittedRecord
from ..records.submitted import read_verified
from ..records.verification import LEVELS

#: Tensor of each kind of evidence that two trainings do not share. Other kinds may be equal, or follow from these.
DISTINCT = {
    "ClassReconstructions": "pixels",
    "PairedReconstructions": "pixels",
    "FeatureEstimates": "features",
    "Predictions": "logits",
}
#: Root mean square of the difference between two trainings, as a share of the values' spread, below which one is a copy
#: of the other: noise of one grey level in 255. Trainings with other seeds differ by more than a tenth.
NEAR = 0.02
#: Values of a tensor that are compared, evenly spaced.
_SAMPLE = 4096


@dataclass
class Sketches:
    """Samples of the evidence of a submission's records."""

    _found: dict[tuple[str, tuple[int, ...]], list[tuple[Record, Tensor]]] = field(default_factory=dict)

    def add(self, record: Record, items: Mapping[str, Any]) -> None:
        """Keep samples of a record's evidence."""
        for kind, name in DISTINCT.items():
            if kind in items:
                values: Tensor = getattr(items[kind], name)
                flat = values.reshape(-1)
                places = torch.linspace(0, max(0, len(flat) - 1), min(_SAMPLE, len(flat))).long()
                self._found.setdefault((kind, tuple(values.shape)), []).append((record, flat[places].double()))

    def copies(self) -> Iterator[tuple[Record, Record, str]]:
        """Yield pairs of records with nearly the same evidence that must differ, and its kind."""
        for (kind, _), group in self._found.items():
            for i, (record, values) in enumerate(group):
                for other, others in group[:i]:
                    if _must_differ(record, other, kind) and is_near(values, others):
                        yield record, other, kind


def _must_differ(record: Record, other: Record, kind: str) -> bool:
    """Return whether two records cannot share a kind of evidence.

    One target has the same answers in all its cells, and cells of two budgets with the same fields are the same work.
    """
    if record.cell.seed != other.cell.seed:
        return True
    first, second = ((each.cell.dataset, each.cell.defense, each.cell.attack) for each in (record, other))
    return kind != "Predictions" and first != second


def is_near(values: Tensor, others: Tensor) -> bool:
    """Return whether two samples differ by less than `NEAR` of their spread."""
    spread = max(float(values.std(correction=0)), float(others.std(correction=0)))
    difference = float((values - others).square().mean().sqrt()) if len(values) else 0.0
    return difference <= NEAR * spread


def copy_problem(record: Record, other: Record, kind: str) -> str:
    """Say that two records have the same evidence."""
    return (
        f"expected {name_of(record)} to have {kind} of its own, got nearly those of {name_of(other)}; each seed and "
        "defense needs an attack on a training of its own"
    )


def verified_outputs(folder: Path) -> dict[str, tuple[str, str]]:
    """Map the SHA-256 of attack outputs in the other verified submissions beside a folder to submission and key."""
    found: dict[str, tuple[str, str]] = {}
    inside = folder.absolute().parent
    for sibling in sorted(inside.iterdir()) if inside.name == FOLDER else ():
        if sibling.name == folder.name or not (sibling / INDEX).is_file():
            continue
        try:
            index, verification = read_verified(sibling, inside.parent)
        except PrivbenchError:
            continue  # the report names it
        levels = {key: each.level for key, each in verification.records.items()} if verification else {}
        for entry in index.records:
            key = Path(entry.record).stem
            if levels.get(key, LEVELS[0]) != LEVELS[0]:
                found |= dict.fromkeys(output_hashes(index, entry), (sibling.name, key))
    return found


def output_hashes(index: Index, entry: SubmittedRecord) -> Sequence[str]:
    """Return the SHA-256 of the attack's outputs of one record."""
    kinds = DISTINCT.keys() - {"Predictions"}
    return [index.files[path].sha256 for kind, path in entry.evidence.items() if kind in kinds]
