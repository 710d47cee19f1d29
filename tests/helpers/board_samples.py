"""Records for the report, derived from the committed ones: thousands, or with hostile texts in all free fields."""

import hashlib
import itertools
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]
COMMITTED = Path(__file__).resolve().parents[2] / "results"

DEFENSES = ("label_noise", "dp_sgd", "transfer", "label_smoothing", "nad", "purifier", "trapdoor", "rolss", "lomma_aug")
FLAGS = ("target_collapsed", "attack_loss_did_not_fall", "fid_rank_deficient", "weak_judge", "zero_input_gradient")
#: (protocol of the committed record, protocol of the sample, budget); the first is the largest.
SECTIONS = (
    ("mnist/v1", "mnist/v1", "quick"),
    ("digits/v1", "digits/v1", "quick"),
    ("mnist/v1", "mnist/v1", "full"),
    ("digits/v1", "digits/v2", "smoke"),
)

#: A script that sets a variable of the page and opens a dialog.
_RUN = "window.pwned=1;alert(1)"
LONG = "W" * 4000
HOSTILE = {
    "script": f"</script><script>{_RUN}</script>",
    "image": f"<img src=x onerror={_RUN}>",
    "closing": f"</style></title></textarea></template></details></table></svg><svg onload={_RUN}>",
    "double quote": f'" onmouseover="{_RUN}" autofocus onfocus="{_RUN}',
    "single quote": f"' onmouseover='{_RUN}' x='",
    "address": f"javascript:{_RUN}",
    "elsewhere": "https://evil.example/x.js url(https://evil.example/x.png) @import '//evil.example'",
    "program": f"\\u003cscript\\u003e';{_RUN};//\u2028`${{{_RUN}}}`",
    "template": "{{7*7}}{% raw %}${7*7}<%= 7*7 %>#{7*7}",
    "comment": f"--><!--<![CDATA[ ]]><!--<script> {_RUN}",
    "entity": "&lt;b&gt;&amp;&#60;i&#62;&nbsp;&bogus;",
    "address part": "?defense=x&attack=y#cell-0 %3Cscript%3E %00 a/../../b",
    "long": LONG,
    "long words": "verylong " * 444,
    "right to left": "\u202egnp.exe\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u2067x\u2066",
    "zero width": "a\u200bb\u200cc\u200dd\ufeffe\u2060f\u00adg",
    "control": "nul\x00 bell\x07 escape\x1b[31m line\nfeed\rreturn\ttab \x7f\x85",
    "emoji": "👩‍👩‍👧‍👦🏳️‍🌈 e" + "\u0301\u0323" * 60,
    "spreadsheet": "=HYPERLINK(1)\t@SUM(A1) \\input{/etc/passwd} $x_1$ 100% & | `code` **bold**",
}

#: Names of fields that the schema restricts.
_RESTRICTED = {
    "key",
    "digest",
    "name",
    "protocol",
    "access",
    "budget",
    "created",
    "picture",
    "evaluator",
    "measures",
    "better",
    "unit",
}
#: Mappings with free names, and the depth to which they are nested.
_FREE = {"fields": 3, "changed": 2, "intervals": 1, "spreads": 1, "not_run": 1, "queries": 1, "costs": 1, "judge": 3}
_FREE |= {"artifacts": 1, "curves": 3, "files": 1}


def committed() -> list[tuple[Json, Path]]:
    """Every record of the repository with its path, sorted by path."""
    paths = sorted((COMMITTED / "records").rglob("*.json"))
    return [(json.loads(path.read_text(encoding="utf-8")), path) for path in paths]


def write_many(folder: Path, count: int = 2000, seed: int = 0, *, one_table: bool = False) -> list[Path]:
    """Write `count` different records with pictures.

    Values, intervals and values per class of the committed records are shifted at random within their ranges. Names and
    fields of defenses vary; some cells are missing, some scores are undefined, some cells have flags.

    Args:
        folder: the results folder.
        count: how many records.
        seed: equal seeds give equal files.
        one_table: put all in one section with one seed each, so that a table has about `count` rows.
    """
    templates: dict[tuple[str, str], list[tuple[Json, Path]]] = {}
    for record, path in committed():
        templates.setdefault((record["protocol"], record["cell"]["attack"]["name"]), []).append((record, path))
    datasets = {record["protocol"]: record["cell"]["dataset"] for record, _ in committed()}
    defenses = {(r["protocol"], r["cell"]["defense"]["name"]): r["cell"]["defense"] for r, _ in committed()}
    curves: dict[str, str] = {}
    pictures: dict[str, Path] = {}
    written = []
    for cell in itertools.islice(_cells(sorted({attack for _, attack in templates}), seed, one_table), count):
        source, defense, number, attack, run = cell
        group = templates.get((source[0], attack)) or templates["digits/v1", attack]
        record, path = group[(number + run) % len(group)]
        shared = {"dataset": datasets[source[0]], "attack": group[0][0]["cell"]["attack"]}
        shared["defense"] = defenses.get((source[0], defense), defenses[source[0], "mid"])
        record = record | {"cell": record["cell"] | shared}
        text = curves.setdefault(record["key"], json.dumps(record["curves"]))
        made = _varied(record, source, defense, number, attack, run)
        target = _record_path(folder, made)
        target.write_text(f'{json.dumps(made)[:-1]}, "curves": {text}}}', encoding="utf-8")
        if made["picture"]:
            _picture(path.with_suffix(".png"), target.with_suffix(".png"), pictures)
        written.append(target)
    return written


def _cells(attacks: list[str], seed: int, one_table: bool) -> Iterator[tuple[tuple[str, str, str], str, int, str, int]]:
    """Section, defense, number of its variant, attack and seed of each cell."""
    noise = random.Random(seed)
    own = ("none", "bido_hsic", "bido_coco", "mid", "adversarial_reconstruction")
    for number in itertools.count():
        defense = (own + DEFENSES)[number % 14] if number < 140 else f"defense_{number}"
        for i, source in enumerate(SECTIONS[:1] if one_table else SECTIONS):
            if i > number % 4:
                continue
            runs = 1 if one_table else 3 if number < 2 else noise.choice((1, 2, 3, 3))
            for attack in attacks:
                if noise.random() < 0.05:
                    continue
                for run in range(runs):
                    yield source, defense, number // 14 if number < 140 else 0, attack, run


def _varied(record: Json, source: tuple[str, str, str], defense: str, number: int, attack: str, run: int) -> Json:
    """The record without its curves, converted to that of another cell."""
    _, protocol, budget = source
    noise = random.Random(f"{source} {defense} {number} {attack} {run}")
    strength = random.Random(f"{source} {defense} {number}").gauss(0, 0.8)
    cell = dict(record["cell"], seed=run, budget=budget)
    fields = dict(cell["defense"]["fields"])
    changed = {}
    if number:
        fields["strength"] = changed["strength"] = round(0.05 * number, 2)
    cell["defense"] = dict(cell["defense"], name=defense, fields=fields)
    cell["attack"] = dict(cell["attack"], name=attack)
    made = {name: value for name, value in record.items() if name != "curves"}
    key = hashlib.sha256(f"{protocol} {json.dumps(cell, sort_keys=True)}".encode()).hexdigest()
    moved = {}
    for name, score in sorted(record["scores"].items()):
        shift = strength + noise.gauss(0, 0.3)
        if score["definition"]["measures"] == "utility":
            shift = random.Random(f"{source} {defense} {number} {run}").gauss(-0.4, 0.5)
        moved[name] = _undefined(score) if noise.random() < 0.02 else _moved(score, shift, noise)
    command = ["privbench", "run", "--dataset", cell["dataset"]["name"], "--defense", defense, "--attack", attack]
    command += ["--budget", budget, "--seed", str(run)] + (
        ["--set", f"defense.strength={0.05 * number:.2f}"] * bool(number)
    )
    message = f"accuracy {noise.random():.2f} is below twice the rate of guessing"
    return made | {
        "key": key,
        "protocol": protocol,
        "cell": cell,
        "changed": {"defense": changed} if changed else {},
        "command": command,
        "created": f"2026-{1 + number % 12:02}-{1 + noise.randrange(28):02}T{noise.randrange(24):02}:00:00+00:00",
        "scores": moved,
        "queries": {name: int(value * noise.uniform(0.5, 2)) for name, value in record["queries"].items()},
        "costs": {
            name: cost | {"seconds": cost["seconds"] * noise.uniform(0.5, 3)} for name, cost in record["costs"].items()
        },
        "flags": [{"name": noise.choice(FLAGS), "message": message}] if noise.random() < 0.04 else [],
        "picture": f"{key}.png" if record["picture"] else None,
    }


def _undefined(score: Json) -> Json:
    empty: Json = {"value": None, "interval": None, "intervals": {}, "spreads": {}, "per_class": None}
    return score | empty | {"n": 0, "reason": "40 images are fewer than the 256 features"}


def _moved(score: Json, shift: float, noise: random.Random) -> Json:
    """The score with all values moved by `shift`, in logits or logarithms, within their range."""
    move = _mover(score["definition"]["unit"], shift)
    value = move(score["value"])
    if score["per_class"] is not None:
        classes = [
            None if p is None else _mover(score["definition"]["unit"], shift + noise.gauss(0, 0.2))(p)
            for p in score["per_class"]
        ]
        given = [p for p in classes if p is not None]
        value = math.fsum(given) / len(given)
        score = score | {"per_class": classes}
    interval = score["interval"]
    if interval is not None:
        interval = [min(move(interval[0]), value), max(move(interval[1]), value)]
    return score | {"value": value, "interval": interval}


def _mover(unit: str, shift: float) -> Callable[[float], float]:
    if unit == "fraction":
        return lambda p: p if p in (0, 1) else 1 / (1 + math.exp(-math.log(p / (1 - p)) - shift))
    if unit == "similarity":
        return lambda s: math.tanh(math.atanh(max(-0.999, min(0.999, s))) + shift / 2)
    return lambda x: x * math.exp(shift / 4)


def _record_path(folder: Path, record: Json) -> Path:
    parts = (record["protocol"].replace("/", "-"), record["cell"]["defense"]["name"], record["cell"]["attack"]["name"])
    parent = folder.joinpath("records", *parts)
    parent.mkdir(parents=True, exist_ok=True)
    return parent / f"{record['key']}.json"


def _picture(source: Path, target: Path, known: dict[str, Path]) -> None:
    """Copy a picture, or link to an earlier copy."""
    if source.name in known:
        target.hardlink_to(known[source.name])
    else:
        target.write_bytes(source.read_bytes())
        known[source.name] = target


def write_hostile(folder: Path) -> list[Path]:
    """Write two records for each hostile text, in which it replaces every free text and name, and a few more records.

    All but three are cells of one section, which also has two harmless cells. The name of an invalid file is hostile
    too; its path is not returned.
    """
    sources = [
        (r, p)
        for r, p in committed()
        if r["protocol"] == "mnist/v1" and r["cell"]["attack"]["name"] in ("gmi", "kedmi")
    ]
    plain = [(r, p) for r, p in sources if r["cell"]["defense"]["name"] == "none" and r["cell"]["seed"] == 0]
    made = [(record, path) for record, path in plain]
    for i, text in enumerate(HOSTILE.values()):
        for record, path in plain:
            made.append((_hostile(record, text, keep_dataset=True, seed=i), path))
    for seed, name in enumerate(("script", "double quote", "long"), start=100):
        made.append((_hostile(plain[0][0], HOSTILE[name], keep_dataset=False, seed=seed), plain[0][1]))
    made.append((_longest(plain[1][0]), plain[1][1]))
    paths = []
    pictures: dict[str, Path] = {}
    for record, path in made:
        target = _record_path(folder, record)
        target.write_text(json.dumps(record), encoding="utf-8")
        _picture(path.with_suffix(".png"), target.with_suffix(".png"), pictures)
        paths.append(target)
    (folder / "records" / f"{HOSTILE['image']}.json").write_text("{}", encoding="utf-8")
    return paths


def _hostile(record: Json, text: str, *, keep_dataset: bool, seed: int) -> Json:
    made: Json = _filled(record, text, 0)
    key = hashlib.sha256(f"{seed} {text} {record['key']}".encode()).hexdigest()
    made |= {"key": key, "picture": f"{key}.png", "flags": [{"name": text, "message": text}], "changed": {}}
    made["cell"]["seed"] = seed
    made["changed"] = {"defense": {text: text}, text: {text: text}}
    for score in made["scores"].values():
        score["definition"] = score["definition"] | {"name": text}
    made["not_run"] = {name: {"code": "unavailable", "reason": text} for name in (text, "fid_inception")}
    made["judge"] |= {"test_accuracy": text}
    if keep_dataset:
        made["cell"]["dataset"] = record["cell"]["dataset"]
    fid = made["scores"]["fid_judge"]
    made["scores"]["fid_judge"] = _undefined(fid) | {"reason": text, "notes": [text]}
    return made


def _filled(value: Any, text: str, free: int, name: str = "") -> Any:
    """A copy of `value` in which `text` replaces every free text and the first free name of every mapping."""
    if isinstance(value, dict):
        depth = _FREE.get(name, 0) if not free else free - 1
        made = {inner: _filled(child, text, depth, "" if depth else inner) for inner, child in value.items()}
        if depth and made:
            first = next(iter(made))
            made = {text if inner == first else inner: child for inner, child in made.items()}
        return made
    if isinstance(value, list):
        return [_filled(item, text, free, name) for item in value]
    return text if isinstance(value, str) and name not in _RESTRICTED else value


def _longest(record: Json) -> Json:
    """A record with the longest names that the schema allows."""
    cell = dict(record["cell"], seed=99)
    cell["defense"] = cell["defense"] | {"name": "D" * 100}
    cell["attack"] = cell["attack"] | {"name": "A" * 100}
    key = hashlib.sha256(b"longest").hexdigest()
    return record | {"key": key, "picture": f"{key}.png", "cell": cell, "protocol": f"{'P' * 80}/v999999"}
