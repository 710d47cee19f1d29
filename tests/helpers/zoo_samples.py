"""A tiny target of the digits with its record, made without judges and attacks."""

import datetime
from pathlib import Path

import torch
from privbench.benchmark import api
from privbench.benchmark.core.canonical import digest
from privbench.benchmark.pipeline import stages
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import build_plan
from privbench.benchmark.records.record import Record, save
from privbench.benchmark.store.manifest import Artifact
from privbench.benchmark.store.store import Store

SETTINGS = {"defense.recipe.max_steps": 1, "defense.recipe.batch_size": 8}
ENVIRONMENT = {"privbench": "0", "python": "3", "torch": "2", "platform": "", "cpu": "", "cores": 1, "device": "cpu"}


def trained(folder: Path, defense: str = "none", seed: int = 0) -> tuple[Record, Artifact]:
    """A target in `folder/store` and its record in `folder/results`."""
    matrix = Matrix(
        (Selection("digits"),), (Selection(defense),), (Selection("kedmi"),), (), (seed,), "smoke", SETTINGS, False
    )
    (cell,) = matrix.cells()
    store = Store(folder / "store")
    stage = next(stage for stage in build_plan([cell], folder).stages.values() if stage.kind == "target")
    with store.lock("target", stage.key):
        session = stages.Session(store, folder, torch.device("cpu"))
        artifact = store.find("target", stage.key) or stages.run(stage, session)
    identity = cell.identity() | {"evaluators": []}
    record = Record.model_validate(
        {
            "key": digest(identity),
            "protocol": cell.dataset.component.protocol.id,
            "cell": identity,
            "command": ["privbench", "run", "--defense", defense],
            "created": datetime.datetime.now(datetime.UTC).isoformat(),
            "scores": {},
            "environment": {**ENVIRONMENT, "threads": 1},
            "artifacts": {"target": {"key": artifact.key, "digest": artifact.digest}},
        }
    )
    save(record, folder / "results")
    return record, artifact


def load(folder: Path, defense: str = "none", **words: object):
    """The target out of the store."""
    return api.load_target(defense, budget="smoke", settings=SETTINGS, store=folder / "store", data=folder, **words)
