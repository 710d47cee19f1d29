"""Stages that do nothing: importing this module, as unpickling one of them does, replaces what stages compute."""

import torch
from privbench.benchmark.contracts import Defense
from privbench.benchmark.core.canonical import digest
from privbench.benchmark.pipeline import stages
from privbench.benchmark.pipeline.cell import Cell, Choice, Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import Plan, Stage


class Nothing(Defense):
    """A defense that stands in a cell and is never trained."""

    def loss(self, network, x, y):
        raise AssertionError


def _write(stage: Stage, session: stages.Session):
    info = {"resource_class": "nothing", "peak_memory_bytes": 0, "host_peak_memory_bytes": 0}
    return session.store.write(stage.kind, stage.key, tensors={"nothing": {"zero": torch.zeros(1)}}, info=info)


stages._STAGES["scores"] = _write  # type: ignore[assignment]


def plan(count: int) -> Plan:
    """So many stages that do nothing, each read by none."""
    cell = Matrix((Selection("digits"),), (Selection("none"),), (Selection("gmi"),), budget="smoke").cells()[0]
    cell = Cell(cell.dataset, Choice("defense", "nothing", "bench", Nothing()), cell.attack, (), 0, "smoke")
    keys = [digest(["nothing", i]) for i in range(count)]
    made = {key: Stage("scores", key, f"nothing {i}", {}, cell) for i, key in enumerate(keys)}
    return Plan(made, dict.fromkeys(keys, cell))
