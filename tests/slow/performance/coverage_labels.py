"""Coverage of intervals of rates over labels, by simulation; prints the table of docs/intervals.md.

    python tests/slow/performance/coverage_labels.py          # ten minutes on one core

The rate of each label is drawn from a Beta distribution with a given mean and sum of parameters (`spread`; the smaller,
the more labels differ), and its draws are hits with that rate. An interval covers if it holds the mean.
"""

import itertools
import sys
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from privbench.benchmark.core.statistics import clustered, rate_over_labels, wilson

SEED, RUNS, RESAMPLES = 0, 500, 200
LABELS = (2, 3, 5, 10, 20, 60)
DRAWS, SPREADS, MEANS = (5, 100), (0.5, 2.5, 10.0), (0.02, 0.05, 0.1, 0.3, 0.5)
Array = NDArray[np.float64]
Bounds = tuple[float, float]


def student(hits: Array, groups: NDArray[np.int64]) -> Bounds:
    """Student over label rates, Wilson's over the labels if all are equal."""
    k = groups.max() + 1
    return clustered(hits, groups, (0, 1)) or wilson(float(hits.mean()) * k, k) or (0.0, 1.0)


def wilson_of_draws(hits: Array, groups: NDArray[np.int64]) -> Bounds:
    """Wilson's, as if all draws were independent."""
    return wilson(float(hits.sum()), len(hits)) or (0.0, 1.0)


def bootstrap(hits: Array, groups: NDArray[np.int64]) -> Bounds:
    """Percentile bootstrap over labels and, within a label, over draws; Wilson's over the labels without variation."""
    k = int(groups.max()) + 1
    if np.ptp(hits) == 0:
        return wilson(float(hits[0]) * k, k) or (0.0, 1.0)
    draws = len(hits) // k
    rates, generator = hits.reshape(k, draws).mean(1), np.random.default_rng(0)
    means = generator.binomial(draws, rates[generator.integers(k, size=(RESAMPLES, k))]).mean(1) / draws
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def ours(hits: Array, groups: NDArray[np.int64]) -> Bounds:
    """The interval of the scores."""
    return rate_over_labels(hits, groups) or (0.0, 1.0)


METHODS: dict[str, Callable[[Array, NDArray[np.int64]], Bounds]] = {
    "ours": ours,
    "Student": student,
    "bootstrap": bootstrap,
    "Wilson, draws": wilson_of_draws,
}


def measure(labels: int, draws: int, spread: float, mean: float) -> dict[str, tuple[float, float]]:
    """Coverage and mean width of each method."""
    generator = np.random.default_rng((SEED, labels, draws, int(10 * spread), int(100 * mean)))
    held, width, groups = dict.fromkeys(METHODS, 0), dict.fromkeys(METHODS, 0.0), np.arange(labels).repeat(draws)
    for _ in range(RUNS):
        rates = generator.beta(mean * spread, (1 - mean) * spread, labels)
        hits = (generator.random(labels * draws) < rates[groups]).astype(float)
        for name, method in METHODS.items():
            low, high = method(hits, groups)
            held[name] += low <= mean <= high
            width[name] += high - low
    return {name: (held[name] / RUNS, width[name] / RUNS) for name in METHODS}


def main() -> None:
    """Print for each number of labels the least coverage of each method over the grid, and its mean width."""
    print(f"seed {SEED}, {RUNS} runs a setting, {RESAMPLES} resamples of the bootstrap")
    print("| labels | " + " | ".join(f"{name}: least | < 93 % | width" for name in METHODS) + " |")
    print("|--:|" + "--:|--:|--:|" * len(METHODS))
    for labels in LABELS:
        found = []
        for draws, spread, mean in itertools.product(DRAWS, SPREADS, MEANS):
            found.append(measure(labels, draws, spread, mean))
            if "-v" in sys.argv:
                print(labels, draws, spread, mean, found[-1], file=sys.stderr)
        cells = []
        for name in METHODS:
            covered = [setting[name][0] for setting in found]
            width = np.mean([setting[name][1] for setting in found])
            cells += [
                f"{100 * min(covered):.0f} %",
                f"{sum(c < 0.93 for c in covered)} of {len(covered)}",
                f"{width:.2f}",
            ]
        print(f"| {labels} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
