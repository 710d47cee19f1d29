"""Find the stages of a plan that must be computed."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..pipeline.plan import Plan, Stage
from ..store.manifest import Artifact
from ..store.store import Store
from .attempt import find_usable

#: Concurrent requests to a shared tier.
_CONCURRENT_REQUESTS = 16
_T = TypeVar("_T")


def find_pending(plan: Plan, store: Store) -> tuple[dict[str, Artifact | None], list[Stage]]:
    """The verified artifacts of a plan that the store has, by key, and the stages to compute.

    Artifacts that do not match their manifest go to quarantine. An artifact that is only in the shared tier is read,
    and thus downloaded, only if it holds scores or if a stage to compute reads it.
    """
    local = {stage.key for stage in plan.stages.values() if store.exists(stage.kind, stage.key)}
    found: dict[str, Artifact | None] = dict.fromkeys(plan.stages)
    checked: set[str] = set()
    new = set(plan.stages) if store.address.remote is None else local | plan.cells.keys()
    while True:
        stages = [stage for stage in plan.stages.values() if stage.key in new]
        found |= map_stages(store, lambda stage: find_usable(store, stage), stages)
        checked |= new
        todo = to_compute(plan, found, {key for key in local if found[key] is None})
        new = {key for stage in todo if stage.key in checked for key in stage.inputs.values()} - checked
        if not new:
            return found, todo


def to_compute(plan: Plan, found: Mapping[str, object | None], damaged: Iterable[str] = ()) -> list[Stage]:
    """The stages to compute, in order.

    A stage with a missing artifact is computed only if a stage to compute reads it; one with a damaged artifact is
    always recomputed, so that a run leaves no damage in the store.
    """
    keys = set(damaged)
    for stage in reversed(plan.stages.values()):
        if found[stage.key] is None and (stage.key in plan.cells or stage.key in keys):
            keys.add(stage.key)
        if stage.key in keys:
            keys |= {key for key in stage.inputs.values() if found[key] is None}
    return [stage for stage in plan.stages.values() if stage.key in keys]


def map_stages(store: Store, function: Callable[[Stage], _T], stages: Iterable[Stage]) -> dict[str, _T]:
    """The result of `function` for each stage, by key; calls run concurrently if the store is at a URL."""
    stages = list(stages)
    with ThreadPoolExecutor(_CONCURRENT_REQUESTS if store.address.remote else 1) as pool:
        return dict(zip((stage.key for stage in stages), pool.map(function, stages), strict=True))
