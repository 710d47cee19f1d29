"""Every timing of docs/performance.md in one run: `make bench`.

Medians over interleaved repeats; the machine is named beside them. `python tests/slow/performance/bench.py` prints
JSON, `--write FILE` replaces the part of a Markdown file between the two marks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import bench_attacks
import bench_defenses
import torch
from privbench.benchmark.core.config import Protocol, Recipe
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.networks.factory import build_network
from privbench.benchmark.pipeline.environment import environment
from privbench.benchmark.training.batches import Batches
from privbench.benchmark.training.context import Context
from privbench.benchmark.training.optimisation import cross_entropy, make_optimizer

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
MNIST = Protocol(
    name="bench", version=1, image=(1, 32, 32), classes=5, judge_classes=10, target_network="mcnn",
    judge_network="scnn", attacked=5, draws=1,
)  # fmt: skip


def overhead(turns: int, steps: int = 20) -> dict[str, float]:
    """Milliseconds a step of MCNN, batch 64: a bare loop over the same batches, and the harness's loop."""
    images = Images(torch.randint(0, 256, (steps * 64, 1, 32, 32), dtype=torch.uint8), torch.arange(steps * 64) % 5)
    recipe = Recipe(epochs=1)
    times: dict[str, list[float]] = {"bare": [], "harness": []}

    def bare() -> None:
        network = build_network("mcnn", MNIST.image, 5).train()
        batches, optimizer = Batches(images, 64, 0, device=torch.device("cpu")), make_optimizer(recipe, network)
        for i in range(steps):
            x, y = batches.at(i)
            assert y is not None
            loss = cross_entropy(network, x, y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    def harness() -> None:
        network = build_network("mcnn", MNIST.image, 5)
        Context(MNIST, torch.device("cpu"), 0).fit("target", network, images, recipe, cross_entropy)

    for turn in range(turns):
        both = [("bare", bare), ("harness", harness)]
        for name, run in both if turn % 2 else reversed(both):
            began = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - began) / steps)
    pairs = zip(times["harness"], times["bare"], strict=True)
    return {
        "bare": 1e3 * statistics.median(times["bare"]),
        "harness": 1e3 * statistics.median(times["harness"]),
        "ratio": statistics.median(a / b for a, b in pairs),
    }


def measure(repeats: int) -> dict[str, dict[str, float]]:
    """All timings: milliseconds, except iterations a second under `attack` and the ratio of the harness."""
    return {
        "harness": overhead(max(3, repeats)),
        "defenses": bench_defenses.measure(repeats),
        "attacks": bench_attacks.measure(max(3, repeats // 2)),
    }


def markdown(found: dict[str, dict[str, float]]) -> str:
    """The measurements as tables."""
    machine = environment(torch.device("cpu"))
    lines = [
        f"Measured on {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, Python "
        f"{machine['python']}, torch {machine['torch']}; medians; milliseconds, batch 64, unless said otherwise.",
    ]
    for title, values in found.items():
        lines += ["", f"| {title} | |", "|---|---|"]
        lines += [
            f"| `{name}` | {value:,.0f} |" if value >= 100 else f"| `{name}` | {value:.3g} |"
            for name, value in values.items()
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    found = measure(chosen.repeats)
    print(json.dumps(found, indent=1))
    if chosen.write:
        text = chosen.write.read_text(encoding="utf-8")
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        chosen.write.write_text(f"{before}{BEGIN}\n{markdown(found)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
