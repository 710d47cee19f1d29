"""A plan of 10,000 cells takes seconds and little memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="peaks of memory are read from the operating system")
#: CPU seconds, which depend little on the load of the machine; megabytes in addition to those of the imports.
SECONDS, MEGABYTES = 5.0, 150
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
from privbench.benchmark.pipeline.plan import build_plan
from privbench.benchmark.pipeline.matrix import Matrix, Selection

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))

matrices = {
    "seeds": Matrix(
        (Selection("digits"),),
        tuple(Selection(name) for name in ("none", "bido_hsic", "bido_coco", "mid", "adversarial_reconstruction")),
        tuple(Selection(name) for name in ("gmi", "kedmi", "vmi", "decoder", "feature_regression")),
        seeds=tuple(range(400)),
        controls=False,
    ),
    "fields": Matrix(
        (Selection("digits"),),
        tuple(Selection("bido_hsic", fields={"lambda_x": 0.01 + i / 1000}) for i in range(100)),
        tuple(Selection("kedmi", fields={"iterations": i + 1}) for i in range(100)),
        controls=False,
    ),
}
matrix = matrices[sys.argv[1]]
build_plan(Matrix(matrix.datasets, matrix.defenses, matrix.attacks).cells()[:1], Path(sys.argv[2]))
before, began = peak(), time.process_time()
plan = build_plan(matrix.cells(), Path(sys.argv[2]))
print(json.dumps([len(plan.cells), len(plan.stages), time.process_time() - began, peak() - before]))
"""


@pytest.mark.parametrize(("shape", "stages"), [("seeds", 30_802), ("fields", 20_302)])
def test_ten_thousand_cells(tmp_path: Path, shape: str, stages: int) -> None:
    command = [sys.executable, "-c", PROGRAM, shape, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    cells, found, seconds, megabytes = json.loads(done.stdout)
    assert (cells, found) == (10_000, stages)
    assert seconds < SECONDS
    assert megabytes < MEGABYTES
