"""Valid documents of every kind that strangers give, and changes that make them wrong."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from privbench.benchmark.files.tensors import pack
from privbench.benchmark.records.record import read
from privbench.benchmark.store.manifest import FileFacts, Manifest

RESULTS = Path(__file__).resolve().parents[3] / "results" / "records"
HASH = "0123456789abcdef" * 4
MATRIX = b"""
defenses = ["none", { name = "bido_hsic", preset = "mnist", lambda_x = 0.5 }]
attacks = ["kedmi", "gmi"]
datasets = ["digits"]
evaluators = ["attack_acc"]
seeds = [0, 1]
budget = "smoke"
set = { "attack.iterations" = 3, defense.recipe = { max_steps = 1 } }
"""
_TARGET = {
    "folder": "a/b",
    "manifest": {"bytes": 900, "sha256": HASH},
    "weights": {"bytes": 900, "sha256": HASH},
    "protocol": "digits/v1",
    "defense": "none",
    "network": "mcnn",
    "seed": 0,
    "budget": "smoke",
    "test_accuracy": 0.5,
    "n": 900,
}
_SUBMISSION = {
    "format": "privbench submission",
    "schema_version": 1,
    "privbench": "0.1.0",
    "created": "2026-01-31T12:00:00+00:00",
    "contact": "somebody@example.org",
    "paper": "A defense",
    "seeds": [0],
    "records": [{"record": "records/a.json", "evidence": {"Predictions": "evidence/a.safetensors"}, "probe": {}}],
    "files": {
        "records/a.json": {"bytes": 10, "sha256": HASH},
        "evidence/a.safetensors": {"bytes": 10, "sha256": HASH},
    },
}
_FINDING = {
    "format": "privbench verification",
    "schema_version": 1,
    "submission": HASH,
    "by": "somebody",
    "created": "2026-01-31T12:00:00+00:00",
    "privbench": "0.1.0",
    "python": "3.12.1",
    "torch": "2.11.0",
    "platform": "Linux x86_64",
    "records": {
        HASH: {
            "level": "recomputed",
            "scores": {"accuracy": {"claimed": 0.5, "found": 0.5, "outcome": "equal", "reason": ""}},
            "notes": ["nothing"],
        }
    },
}


def smallest_record() -> bytes:
    """The least of the committed records, with a curve."""
    path = min(RESULTS.rglob("*.json"), key=lambda found: (found.stat().st_size, found.name))
    record = read(path)
    curve = {"target": {"train": {"loss": ((0, 1.0), (1, None))}}}
    return record.model_copy(update={"curves": curve, "picture": None}).text().encode()


def manifest() -> bytes:
    facts = {"x.safetensors": FileFacts(bytes=3, sha256=HASH)}
    created = "2026-01-31T12:00:00+00:00"
    return Manifest(
        kind="target", key=HASH, created=created, inputs={"prior": HASH}, info={"n": 1}, files=facts
    ).encode()


def exported() -> bytes:
    """What the manifest of an exported target looks like."""
    from privbench.benchmark.exports.manifest import Exported

    return json.dumps(dict.fromkeys(Exported.model_fields) | {"format": "privbench target"}).encode()


def pictures() -> list[bytes]:
    """Small images of every form: modes, depths, transparency, metadata, several pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 7, 4), dtype=np.uint8)
    whole, grey = Image.fromarray(noise), Image.fromarray(noise[..., 0])
    exif = Image.Exif()
    exif[0x0112] = 6
    flat, deep = whole.convert("RGB"), Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    given: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (whole, "PNG", {"exif": exif}),
        (flat, "PNG", {"transparency": (1, 2, 3)}),
        (grey, "PNG", {"transparency": 7}),
        (deep, "PNG", {"transparency": 7}),
        (whole.convert("LA"), "PNG", {}),
        (grey.convert("1"), "PNG", {}),
        (flat.quantize(4), "PNG", {"transparency": b"\0\7\xff", "bits": 2}),
        (flat, "PNG", {"save_all": True, "append_images": [flat]}),
        (flat, "JPEG", {"exif": exif}),
        (grey, "JPEG", {"progressive": True}),
        (flat.convert("CMYK"), "JPEG", {}),
        (flat, "MPO", {"save_all": True, "append_images": [flat]}),
    ]
    found = []
    for image, kind, options in given:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


def archives() -> list[bytes]:
    """Archives of two images, stored and deflated."""
    found = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as opened:
            for name, content in zip(("img_align_celeba/000001.jpg", "000002.png"), pictures()[:2], strict=True):
                opened.writestr(name, content)
        found.append(buffer.getvalue())
    return found


_LISTS = [
    b"000001.jpg 2880\n000002.jpg 2937\n",
    b"\xef\xbb\xbf000001.jpg 2880\r\n",
    "000001.jpg 2880\n".encode("utf-16"),
    b"2\nBald Smiling \n000001.jpg -1  1\n000002.jpg  1 -1\n",
    b"image_id,Bald,Smiling\n000001.jpg,-1,1\n000002.jpg,1,-1\n",
]


def documents() -> dict[str, list[bytes]]:
    """By reader, what it takes."""
    tensors = pack({"x": torch.arange(6.0).reshape(2, 3), "y": torch.zeros(0, dtype=torch.int64)})
    return {
        "record": [smallest_record()],
        "manifest": [manifest()],
        "matrix": [MATRIX],
        "settings": [b"attack.iterations=3", b'dataset.attributes=["Smiling"]', b"defense.recipe.max_steps=1"],
        "selection": [b"bido_hsic:mnist@quick", b"kedmi"],
        "export": [exported()],
        "zoo": [json.dumps({"format": "privbench zoo", "schema_version": 1, "targets": {"one": _TARGET}}).encode()],
        "safetensors": [tensors],
        "tensors": [tensors],
        "submission": [json.dumps(_SUBMISSION).encode()],
        "finding": [json.dumps(_FINDING).encode()],
        "picture": pictures(),
        "archive": archives(),
        "lists": _LISTS,
    }


_HOSTILE = st.sampled_from(
    [
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\x",
        "a/../../b",
        "\u202etxt",
        "\x00",
        "\ud800",
        "x" * 5000,
        "<script>",
        "{{7*7}}",
        "",
        "nan",
        "1e999",
        "__class__",
        "-" * 300,
        "9" * 4400,
        "[" * 1100,
        "a." * 1100,
    ]
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | _HOSTILE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | _HOSTILE, inner, max_size=3),
    max_leaves=6,
)


def _places(value: object, path: tuple = ()) -> list[tuple]:
    found = [path]
    if isinstance(value, dict | list):
        for step, child in value.items() if isinstance(value, dict) else enumerate(value[:20]):
            found += _places(child, (*path, step))
    return found


@st.composite
def changed_json(draw: st.DrawFn, whole: bytes) -> bytes:
    """A JSON document with one to three places replaced, removed, renamed, doubled or nested."""
    value = json.loads(whole)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(_places(value)))
        if not path:
            value = draw(st.just(value) | _VALUES)
            continue
        inside = value
        for step in path[:-1]:
            inside = inside[step]
        how = draw(st.sampled_from(["replace", "replace", "remove", "rename", "nest", "double"]))
        if how == "replace":
            inside[path[-1]] = draw(_VALUES)
        elif how == "remove":
            del inside[path[-1]]
        elif how == "nest":
            for _ in range(draw(st.sampled_from([1, 30, 300]))):
                inside[path[-1]] = [inside[path[-1]]]
        elif isinstance(inside, dict):
            inside[draw(st.text(max_size=12) | _HOSTILE)] = inside[path[-1]]
        else:
            inside.append(inside[path[-1]])
        if not isinstance(value, dict | list):
            break
    return json.dumps(value).encode()


@st.composite
def changed_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes cut, doubled, or replaced at one to four places."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(len(data), start + 40)))
        data[start:stop] = draw(st.binary(max_size=12) | _HOSTILE.map(lambda text: text.encode("utf-8", "replace")))
    return bytes(data)
