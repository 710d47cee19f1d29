"""Coverage of the worst case's interval and rate of false separations, by simulation: the tables of docs/ranking.md.

`python tests/slow/performance/ranking_accuracy.py` prints them as Markdown, `--write FILE` replaces the part of a file
between the two marks. The seed is in the first line. Half an hour on two cores; `--simulations 20` takes minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from privbench.benchmark.analysis import rank_bootstrap
from privbench.benchmark.analysis.worst_case import Sample

Floats = NDArray[np.float64]
BEGIN, END = "<!-- simulated: begin -->", "<!-- simulated: end -->"
SEED = 15
#: Standard deviations of the logits: of identities, of a defense's identities, of a training, and of its identities.
IDENTITY, OWN, TRAINING, CELL = 0.8, 0.4, 0.3, 0.5
#: How vulnerable an identity is to the attacks, as a share of its worst case `A K`.
PATTERNS = ("equal", "unequal", "anticorrelated", "alone")
#: Logits of the worst case, usual and rare.
USUAL, RARE = -1.0, -4.0
RESAMPLES = 300
#: Draws where the record does not tell them.
UNTOLD = 20


def shares(pattern: str, attacks: int, identities: int) -> Floats:
    """`A K`: success rate of each attack as a share of the worst case."""
    found = np.full((attacks, identities), {"equal": 1.0, "unequal": 0.8, "anticorrelated": 0.2, "alone": 0.0}[pattern])
    strongest = np.arange(identities) % attacks if pattern == "anticorrelated" else np.zeros(identities, dtype=int)
    found[strongest, np.arange(identities)] = 1.0
    return found


def expected(logits: Floats, deviation: float) -> Floats:
    """Mean of the success rate over normal deviations of the logit."""
    places, weights = np.polynomial.hermite_e.hermegauss(41)
    rates = 1 / (1 + np.exp(-(logits[..., None] + deviation * places)))
    found: Floats = rates @ weights / weights.sum()
    return found


class Case(NamedTuple):
    """One row of the table; `draws` 0 stands for `UNTOLD` draws that the record does not tell."""

    identities: int
    draws: int
    attacks: int
    seeds: int
    level: float = USUAL


class Found(NamedTuple):
    """Outcomes of one simulation: by defense whether the interval holds the truth (NaN without one), and its length."""

    held: Floats
    length: Floats
    lower: NDArray[np.bool_]


def simulate(case: Case, logits: Floats, generator: np.random.Generator) -> Found:
    """Simulate one ranking of a defense of each pattern, with the worst-case logits `M`."""
    size = len(PATTERNS)
    # With one training all statements are about that training, so that equal defenses have equal trainings.
    training = generator.normal(0, TRAINING if case.seeds > 1 else 0.0, (size, case.seeds, 1))
    common, own = generator.normal(0, IDENTITY, case.identities), generator.normal(0, OWN, (size, 1, case.identities))
    cell = generator.normal(0, CELL, (size, case.seeds, case.identities))
    worst = 1 / (1 + np.exp(-(logits[:, None, None] + common + own + training + cell)))
    known = case.draws or UNTOLD
    samples = []
    for i, pattern in enumerate(PATTERNS):
        rates = worst[i] * shares(pattern, case.attacks, case.identities)[:, None]
        costs = generator.binomial(known, rates) / known
        draws = np.full((case.attacks, case.seeds), case.draws)
        samples.append(Sample(pattern, costs, tuple(range(case.seeds)), draws))
    estimate = rank_bootstrap.estimate(samples, resamples=RESAMPLES)
    spread = np.sqrt(IDENTITY**2 + OWN**2 + CELL**2)
    truth = expected(logits, float(np.hypot(spread, TRAINING) if case.seeds > 1 else spread))
    intervals = rank_bootstrap.intervals(estimate, (0, 1))
    held = [np.nan if found is None else found[0] <= t <= found[1] for found, t in zip(intervals, truth, strict=True)]
    length = [np.nan if found is None else found[1] - found[0] for found in intervals]
    return Found(np.array(held, float), np.array(length), rank_bootstrap.significantly_lower(estimate))


class Rates(NamedTuple):
    """Rates over the simulations of a case; NaN without an interval."""

    coverage: float
    lowest: float
    length: float
    printed: float
    false: float
    wrong: float
    right: float


def measure(case: Case, simulations: int, seed: int) -> Rates:
    """Simulate equal defenses, then defenses whose worst cases lie up to a logit apart, in random order."""
    generator = np.random.default_rng([seed, *case[:4], int(10 * abs(case.level))])
    size = len(PATTERNS)
    found = [simulate(case, np.full(size, case.level), generator) for _ in range(simulations)]
    held, wrong, right, pairs = np.stack([one.held for one in found]), 0, 0, 0
    for _ in range(simulations):
        steps = generator.permutation(size) / (size - 1)
        lower = simulate(case, case.level + steps, generator).lower
        truly = steps[:, None] < steps
        wrong += bool((lower & ~truly).any())
        right, pairs = right + int((lower & truly).sum()), pairs + int(truly.sum())
    printed = np.isfinite(held)
    by_pattern = [held[:, i][printed[:, i]].mean() for i in range(size) if printed[:, i].any()]
    lengths = np.stack([one.length for one in found])[printed]
    return Rates(
        coverage=float(held[printed].mean()) if printed.any() else np.nan,
        lowest=float(min(by_pattern, default=np.nan)),
        length=float(lengths.mean()) if printed.any() else np.nan,
        printed=float(printed.mean()),
        false=float(np.mean([one.lower.any() for one in found])),
        wrong=wrong / simulations,
        right=right / pairs,
    )


def cases(level: float) -> Iterator[Case]:
    """The grid at a level of success; one seed with untold draws of several attacks has no interval and is left out."""
    for identities in (5, 20, 300):
        for draws in (1, 5, 20, 100, 0) if level == USUAL else (5, 100):
            for attacks in (1, 3, 6) if level == USUAL else (1, 3):
                for seeds in (1, 3, 5) if level == USUAL else (1,):
                    if draws or (seeds > 1 and attacks > 1):
                        yield Case(identities, draws, attacks, seeds, level)


def row(found: Sequence[Rates]) -> str:
    """Cells of one row: for each number of seeds the coverage, false and wrong separations, and the right ones."""
    covered = [f"{rates.coverage:.2f} ({rates.lowest:.2f})" if rates.printed else "none" for rates in found]
    errors = [f"{max(rates.false, rates.wrong):.2f}" for rates in found]
    return " | ".join([*covered, *errors, *(f"{rates.right:.2f}" for rates in found)])


def table(results: Mapping[Case, Rates], level: float) -> Iterator[str]:
    """Lines of a Markdown table of the cases at a level."""
    seeds = sorted({case.seeds for case in results if case.level == level})
    titles = [f"{title}, {n} seed{'s' * (n > 1)}" for title in ("coverage", "errors", "found") for n in seeds]
    yield "| identities | draws | attacks | " + " | ".join(titles) + " |"
    yield "|---" * (3 + len(titles)) + "|"
    empty = Rates(np.nan, np.nan, np.nan, 0.0, 0.0, 0.0, 0.0)
    for case in dict.fromkeys(case._replace(seeds=1) for case in results if case.level == level):
        cells = row([results.get(case._replace(seeds=n), empty) for n in seeds])
        yield f"| {case.identities} | {case.draws or 'untold'} | {case.attacks} | {cells} |"


def simulated(task: tuple[Case, int]) -> tuple[Case, Rates]:
    """Measure a case, the larger ones with a quarter of the simulations."""
    case, simulations = task
    large = case.identities > 5 and case.identities * (case.draws or UNTOLD) >= 300
    return case, measure(case, max(1, simulations // 4) if large else simulations, SEED)


def main() -> None:
    """Simulate all cases, then print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=160, help="of equal, and of different defenses")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--write", type=Path, help="Markdown file with the two marks")
    asked = parser.parse_args()
    tasks = [(case, asked.simulations) for level in (USUAL, RARE) for case in cases(level)]
    results = {}
    with ProcessPoolExecutor(asked.jobs) as pool:
        for case, rates in pool.map(simulated, tasks):
            results[case] = rates
            print(f"{case}: {rates}", file=sys.stderr, flush=True)
    fewer = f"{asked.simulations // 4} of 300 identities, and of 20 with 20 or more draws"
    lines = [f"Seed {SEED}, {asked.simulations} simulations of each kind ({fewer}):", ""]
    lines += [*table(results, USUAL), "", "Rare successes (3 %):", "", *table(results, RARE)]
    text = "\n".join(lines)
    if asked.write is None:
        print(text)
        return
    page = asked.write.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    asked.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
