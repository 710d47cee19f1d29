"""Records like those of a run, made without running anything."""

import hashlib
import random
from pathlib import Path

import numpy as np
from privbench.benchmark.records.picture import grid_png
from privbench.benchmark.records.record import Record, save

HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"
RIGHT_TO_LEFT = "\u202egnp.exe \u05e9\u05dc\u05d5\u05dd"

DEFINITIONS = {
    "accuracy": ("accuracy", "Accuracy", "utility", "higher", "fraction", "share of test images", "[0, 1]"),
    "attack_acc": ("attack_acc", "Attack Acc", "leakage", "lower", "fraction", "share of hits", "[0, 1]"),
    "attack_acc5": ("attack_acc", "Attack Acc5", "leakage", "lower", "fraction", "share in the top five", "[0, 1]"),
    "fid_judge": ("fid", "FID (judge)", "quality", "higher", "distance", "|m1 - m2|^2 + Tr(...)", "[0, inf)"),
    "fid_inception": ("fid_inception", "FID (Inception)", "quality", "higher", "distance", "as above", "[0, inf)"),
}


def key_of(*parts: object) -> str:
    """A made-up key."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def choice(name: str, version: int = 1, **fields: object) -> dict:
    return {"name": name, "distribution": "privbench", "version": version, "fields": fields}


def make_score(name: str, value: float | None, reason: str | None = None, n: int = 500, **more: object) -> dict:
    evaluator, title, measures, better, unit, formula, reach = DEFINITIONS[name]
    definition = {"name": name, "title": title, "measures": measures, "better": better, "unit": unit}
    definition |= {"formula": formula, "range": reach}
    return {"evaluator": evaluator, "definition": definition, "value": value, "n": n, "reason": reason} | more


def make_scores(leak: float, accuracy: float, seed: int) -> dict:
    """Scores of an attack with about that success rate."""
    noise = random.Random(f"{leak} {accuracy} {seed}")
    hits = min(1.0, max(0.0, leak + noise.gauss(0, 0.03)))
    per_class = [min(1.0, max(0.0, hits + noise.gauss(0, 0.12))) for _ in range(5)]
    value = min(1.0, accuracy + noise.gauss(0, 0.004))
    return {
        "accuracy": make_score(
            "accuracy", value, n=360, chance=0.2, interval=[value - 0.02, min(1.0, value + 0.012)], per_class=None
        ),
        "attack_acc": make_score(
            "attack_acc",
            hits,
            interval=[max(0.0, hits - 0.07), min(1.0, hits + 0.06)],
            intervals={"classes": [max(0.0, hits - 0.1), min(1.0, hits + 0.1)], "draws": None},
            spreads={"draws": 0.121, "trials": None, "classes": 0.2},
            chance=0.1,
            per_class=per_class,
            notes=["the judge is SCNN"],
        ),
        "attack_acc5": make_score("attack_acc5", min(1.0, hits + 0.2), chance=0.5, interval=[hits, min(1, hits + 0.3)]),
        "fid_judge": make_score("fid_judge", 40 + 300 * (1 - hits) + noise.gauss(0, 9), n=500),
    }


def make_record(
    defense: str = "none",
    attack: str = "kedmi",
    seed: int = 0,
    *,
    leak: float = 0.7,
    accuracy: float = 0.95,
    budget: str = "quick",
    protocol: str = "digits/v1",
    picture: bool = False,
    **changes: object,
) -> Record:
    """A record; `changes` replace top-level values, `cell` values of the cell."""
    cell = {
        "dataset": choice(protocol.split("/")[0], judge={"epochs": 5}),
        "defense": choice(defense, recipe={"learning_rate": 0.1}, **({"lambda_x": 2.0} if defense != "none" else {})),
        "attack": choice(attack, iterations=300),
        "evaluators": [choice("accuracy"), choice("attack_acc", resamples=2000), choice("fid")],
        "seed": seed,
        "budget": budget,
    } | changes.pop("cell", {})
    key = key_of(protocol, cell)
    curve = [[step, round(2.0 / (1 + step / 40), 4)] for step in range(0, 400, 20)]
    values = {
        "key": key,
        "protocol": protocol,
        "cell": cell,
        "command": ["privbench", "run", "--defense", defense, "--attack", attack, "--seed", str(seed)],
        "created": f"2026-01-31T12:00:{seed % 60:02}+00:00",
        "scores": make_scores(leak, accuracy, seed),
        "not_run": {"fid_inception": {"code": "unavailable", "reason": "Inception weights are not on this machine"}},
        "queries": {"forward": 120_000, "backward": 120_000},
        "costs": {
            "target": {"seconds": 31.2, "peak_memory_bytes": 812_000_000},
            "evidence": {"seconds": 54.0, "peak_memory_bytes": None, "computed_here": True},
        },
        "environment": {
            "privbench": "0.1.0",
            "python": "3.11.2",
            "torch": "2.9.0",
            "platform": "Linux x86_64",
            "cpu": "Example CPU",
            "cores": 2,
            "device": "cpu",
            "threads": 2,
            "commit": None,
        },
        "artifacts": {stage: {"key": key_of(stage, key), "digest": key_of("d", key)} for stage in ("target", "scores")},
        "judge": {"network": "scnn", "test_accuracy": 0.987, "n": 360, "pretrained": False},
        "curves": {"target": {"target": {"loss": curve}}},
        "flags": [],
        "picture": f"{key}.png" if picture else None,
    } | changes
    return Record.model_validate(values)


def random_picture(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (2, 5, 1, 8, 8), dtype=np.uint8)
    return grid_png(pixels, range(5))


def save_matrix(folder: Path, seeds: int = 3, attacks: tuple[str, ...] = ("gmi", "kedmi", "vmi")) -> list[Path]:
    """A full matrix on digits, with a picture in each record."""
    published = {"none": (0.78, 0.975), "bido_coco": (0.52, 0.958), "bido_hsic": (0.38, 0.962), "mid": (0.6, 0.93)}
    strength = {"gmi": -0.22, "kedmi": 0.0, "vmi": 0.1}
    paths = []
    for defense, (leak, accuracy) in published.items():
        for attack in attacks:
            for seed in range(seeds):
                values = {"leak": leak + strength.get(attack, 0.0), "accuracy": accuracy, "picture": True}
                record = make_record(defense, attack, seed, **values)
                paths.append(save(record, folder, random_picture(seed)))
    return paths
