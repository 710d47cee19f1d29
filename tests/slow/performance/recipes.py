"""Validation accuracies of every defense under several recipes of the target, from which a data set's is chosen.

`python tests/slow/performance/recipes.py digits --seed 0 --seed 1` prints a table: the recipes, and for each defense
the mean and the lowest validation accuracy of the chosen network over the seeds, and the seconds of a training. Leakage
is not measured. `--swing` adds the lowest and highest accuracy of the looks in the second half of the training: what a
target would have if the last step were kept, which could be any of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from privbench.benchmark.core.paths import data_root
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.environment import environment
from privbench.benchmark.pipeline.resolve import resolve
from privbench.benchmark.training.context import Context
from privbench.benchmark.training.selection import ACCURACY

DEFENSES = ("none", "mid", "bido_coco", "bido_hsic", "adversarial_reconstruction")
RECIPES: dict[str, dict[str, Any]] = {
    "SGD 1e-1, momentum .5": {"optimizer": "sgd", "learning_rate": 1e-1, "momentum": 0.5, "nesterov": True},
    "SGD 1e-2, momentum .9": {"optimizer": "sgd", "learning_rate": 1e-2, "momentum": 0.9, "nesterov": True},
    "Adam 1e-4": {"optimizer": "adam", "learning_rate": 1e-4},
    "Adam 3e-4": {"optimizer": "adam", "learning_rate": 3e-4},
    "Adam 1e-3": {"optimizer": "adam", "learning_rate": 1e-3},
    "Adam 3e-3": {"optimizer": "adam", "learning_rate": 3e-3},
    "Adam 1e-2": {"optimizer": "adam", "learning_rate": 1e-2},
    "Adam 1e-1": {"optimizer": "adam", "learning_rate": 1e-1},
}


def accuracies(
    name: str, defense: str, recipe: dict[str, Any], root: Path, seeds: list[int], settings: dict[str, Any]
) -> tuple[list[float], list[float], list[float]]:
    """Validation accuracies of the chosen networks and seconds, one of each per seed, and those of the later looks."""
    dataset = resolve("dataset", Selection(name), "quick", settings)
    component = resolve("defense", Selection(defense, fields={"recipe": recipe}), "quick", {}, dataset).component
    train, validation = (dataset.component.part(part, root) for part in ("private_train", "private_val"))
    found, seconds, later = [], [], []
    for seed in seeds:
        context = Context(
            dataset.component.protocol,
            torch.device("cpu"),
            seed,
            public=lambda: dataset.component.part("public", root),
            validation=lambda: validation,
        )
        began = time.monotonic()
        component.train(train, context)
        seconds.append(time.monotonic() - began)
        found.append(context.notes["selection"]["validation_accuracy"])
        looks = [accuracy for _, accuracy in context.curves["target"][ACCURACY]]
        later += looks[len(looks) // 2 :]
    return found, seconds, later


def main() -> None:
    """Print the table of one data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--steps", type=int, action="append", help="by default those of the budget quick")
    parser.add_argument("--recipe", action="append", choices=list(RECIPES))
    parser.add_argument("--defense", action="append", choices=DEFENSES)
    parser.add_argument("--scratch", action="store_true", help="start from random weights")
    parser.add_argument("--swing", action="store_true", help="show the looks in the second half")
    options = parser.parse_args()
    settings = {"dataset.pretrained": False} if options.scratch else {}
    machine = environment(torch.device("cpu"))
    print(f"{options.dataset}, budget quick, {machine['cpu']}, {torch.get_num_threads()} threads", flush=True)
    defenses, seeds = options.defense or DEFENSES, options.seed or [0]
    print("| recipe | steps | " + " | ".join(f"`{name}`" for name in defenses) + " |", flush=True)
    print("|---|--:|" + "--:|" * len(defenses))
    for steps in options.steps or [None]:
        for recipe in options.recipe or RECIPES:
            fields = RECIPES[recipe] | ({"max_steps": steps} if steps else {})
            cells = []
            for defense in defenses:
                try:
                    found, seconds, later = accuracies(
                        options.dataset, defense, fields, data_root(options.data), seeds, settings
                    )
                except Exception as cause:
                    cells.append(type(cause).__name__)
                    continue
                text = f"{100 * statistics.mean(found):.1f}"
                text += f" (least {100 * min(found):.1f})" if len(found) > 1 else ""
                text += f" (later looks {100 * min(later):.1f} to {100 * max(later):.1f})" if options.swing else ""
                cells.append(f"{text}, {statistics.mean(seconds):.0f} s")
            print(f"| {recipe} | {steps or 'quick'} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
