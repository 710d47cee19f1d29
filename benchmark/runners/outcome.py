"""Outcome of a run: scores, failures and the cells that they cost."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import CorruptArtifactError, StorageError
from ..pipeline.plan import Plan, Stage
from ..store.manifest import Artifact
from ..store.store import Store

#: Receives the key and the scores of a cell.
OnScores = Callable[[str, Artifact], None]


@dataclass(frozen=True)
class Failure:
    """A stage that failed, and the keys of the cells that need it."""

    stage: Stage
    reason: str
    cells: tuple[str, ...]


@dataclass
class Outcome:
    """Outcome of a run of a plan.

    Args:
        scores: artifacts of scores stages, by key.
        failures: reasons of the stages that failed or were blocked, by key.
        blocked: for each stage that was blocked, the keys of its inputs that failed.
        computed: keys of the stages computed in this run.
    """

    scores: dict[str, Artifact] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    blocked: dict[str, tuple[str, ...]] = field(default_factory=dict)
    computed: list[str] = field(default_factory=list)

    def causes(self, plan: Plan) -> list[Failure]:
        """The stages that failed themselves, each with the cells that fail because of it."""
        causes = {cell: self._causes_of(cell) for cell in plan.cells if cell in self.failures}
        return [
            Failure(plan.stages[key], reason, tuple(cell for cell, keys in causes.items() if key in keys))
            for key, reason in self.failures.items()
            if key not in self.blocked
        ]

    def _causes_of(self, key: str) -> set[str]:
        """Keys of the stages that failed themselves and made the stage `key` fail."""
        if key not in self.blocked:
            return {key}
        return {cause for failed in self.blocked[key] for cause in self._causes_of(failed)}


class ResultCollector:
    """Collects the outcome of a run, and passes on scores as they arrive: an interrupted run keeps its finished cells.

    Args:
        plan: the plan that runs.
        store: holds the scores.
        found: artifacts that the store had before the run, by key.
        on_scores: called once with the key and the scores of each cell.
    """

    def __init__(self, plan: Plan, store: Store, found: dict[str, Artifact | None], on_scores: OnScores | None) -> None:
        self._plan, self._store, self._on_scores = plan, store, on_scores
        self.outcome = Outcome()
        for key in plan.cells:
            self._collect(key, found[key])

    def _collect(self, key: str, artifact: Artifact | None) -> bool:
        if artifact is None:
            return False
        if self._on_scores is not None:
            self._on_scores(key, artifact)
        self.outcome.scores[key] = artifact
        return True

    def end(self, stage: Stage) -> None:
        """Collect the scores of a finished stage; `finish` tries again if they are damaged or not visible here yet."""
        if stage.key in self._plan.cells:
            with contextlib.suppress(CorruptArtifactError):
                self._collect(stage.key, self._store.find(stage.kind, stage.key))

    def finish(self) -> Outcome:
        """Collect the remaining scores, and return the outcome with all scores in the order of the plan.

        Raises:
            StorageError: another machine computed scores that are not in the store here.
        """
        scores = self.outcome.scores
        for key in self._plan.cells:
            if key in scores or key in self.outcome.failures:
                continue
            if not self._collect(key, self._store.find("scores", key)):
                raise StorageError(
                    f"expected {self._plan.stages[key].title} in the store {self._store.root} after it was computed, "
                    f"found none; choose a store that this and every computing machine share"
                )
        self.outcome.scores = {key: scores[key] for key in self._plan.cells if key in scores}
        return self.outcome
