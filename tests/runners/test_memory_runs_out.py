"""An attack that runs out of memory continues with smaller batches, has the same result, and the record says so."""

import pytest
import torch
from helpers.tiny import FAULTY_CELL
from privbench.attacks import _inversion
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.failures import is_out_of_memory
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.plan import build_plan
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.pipeline.stages import run
from privbench.benchmark.store.store import Store
from privbench.benchmark.training.context import Context

CPU = torch.device("cpu")
TINY = {
    "dataset.draws": 5,
    "defense.recipe.max_steps": 2,
    "defense.recipe.batch_size": 16,
    "attack.max_steps": 2,
    "attack.batch_size": 8,
    "attack.iterations": 3,
}


def context(batch_halvings=0):
    protocol = Protocol(
        name="x", version=1, image=(1, 8, 8), classes=2, judge_classes=2, target_network="a", judge_network="b",
        attacked=2, draws=1,
    )  # fmt: skip
    return Context(protocol, CPU, 0, batch_halvings=batch_halvings)


@pytest.mark.parametrize(
    "cause",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_what_counts_as_out_of_memory(cause) -> None:
    assert is_out_of_memory(cause)
    assert not is_out_of_memory(RuntimeError("sizes of tensors must match"))


def test_a_tensor_too_large_for_any_machine() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)


def test_the_batch_is_halved_down_to_one_image() -> None:
    assert [context(n).chunk_size(64) for n in (0, 1, 6, 7, 99)] == [64, 32, 1, 1, 1]
    last = context(6)
    assert not last.can_halve
    last.chunk_size(128)
    assert last.can_halve
    last = context(6)
    last.chunk_size(64)
    assert not last.can_halve


def test_an_attack_restarts_with_half_as_many_images(run, tmp_path) -> None:
    result = run("large", "correct", fields={"fits": 16, "marks": str(tmp_path)})
    tries = sorted(len(path.read_text().split()) for path in tmp_path.iterdir() if path.name.isdigit())
    assert tries == [1, 3]
    costs = {record.cell.attack.fields["how"]: record.costs for record, _ in result.records}
    assert (costs["large"]["evidence"].images_at_once, costs["correct"]["evidence"].images_at_once) == (16, None)
    assert costs["large"]["target"].images_at_once is None
    nothing = run("large", fields={"fits": 0})
    assert nothing.reasons["large"].startswith("out of memory")


def test_the_command_line_reports_the_smaller_batch(privbench) -> None:
    words = ["run", *FAULTY_CELL]
    code, _, err = privbench(*words, "--set", "attack.how=large", "--set", "attack.fits=32")
    assert code == 0, err
    assert "note: blank under faulty: out of memory in evidence; continued with 32 images at once" in err


ATTACKS = [
    "gmi",
    "kedmi",
    "vmi",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("decoder", "feature_regression")),
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_result_of_an_attack_does_not_depend_on_the_batch_size(attack, tmp_path, monkeypatch) -> None:
    settings = TINY if attack != "feature_regression" else TINY | {"attack.embedder": "hog"}
    matrix = Matrix(
        (Selection("digits"),),
        (Selection("none"),),
        (Selection(attack),),
        (Selection("accuracy"),),
        budget="smoke",
        settings={name: value for name, value in settings.items() if applies(name, attack)},
        controls=False,
    )
    (cell,) = matrix.cells()
    stages = {stage.kind: stage for stage in build_plan([cell], tmp_path).stages.values()}
    session = Session(Store(tmp_path), tmp_path, CPU)
    found = []
    for kind in ("target", "prior", "evidence"):
        found = [run(stages[kind], session)]
    sizes = []
    for batch_halvings in (1, 4):
        session.store.discard("evidence", stages["evidence"].key)
        usual = Context.chunk_size
        monkeypatch.setattr(
            Context, "chunk_size", lambda self, n, h=batch_halvings, usual=usual: sizes.append(n) or usual(self, n) >> h
        )
        found.append(run(stages["evidence"], session))
        monkeypatch.setattr(Context, "chunk_size", usual)
    assert sizes
    first, *others = [values(artifact) for artifact in found]
    for other in others:
        for name, value in first.items():
            assert (value.double() - other[name].double()).abs().max() <= (1 if value.dtype == torch.uint8 else 1e-4)
    assert any(len(value) and value.double().std() > 0 for value in first.values())


def applies(name: str, attack: str) -> bool:
    from privbench.benchmark.registry import load

    scope, _, field = name.partition(".")
    return scope != "attack" or field in load("attack", attack).model_fields


def values(artifact) -> dict[str, torch.Tensor]:
    (group,) = artifact.groups
    return artifact.tensors(group)


def test_groups_are_split_only_if_their_images_are_independent() -> None:
    assert _inversion.split_batch(5, 5, 1, 2, whole=True) == [(slice(0, 5), 5)]
    assert _inversion.split_batch(5, 5, 2, 2, whole=False) == [(slice(i, min(i + 2, 10)), 5) for i in range(0, 10, 2)]
