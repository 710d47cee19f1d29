"""`privbench figure` as a user sees it, on records and stores made without running anything."""

import io
import json
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from helpers import command_line, samples
from PIL import Image
from privbench.benchmark import registry
from privbench.benchmark.contracts import Dataset, FeatureAttack
from privbench.benchmark.core.config import Protocol, setting
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.networks.factory import build_embedder, build_network
from privbench.benchmark.pipeline import record_artifacts
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.pipeline.trained_models import predict, state
from privbench.benchmark.records.record import Record, save
from privbench.benchmark.store.store import Store

CPU = torch.device("cpu")
N = 24


class Halves(Dataset):
    """Grey images whose halves are bright or not."""

    attributes: tuple[str, ...] = setting(("Upper", "Left", "Smiling"), "what the target predicts")

    @property
    def protocol(self) -> Protocol:
        return Protocol(
            name="halves", version=1, task="attributes", image=(1, 32, 32), classes=max(2, len(self.attributes)),
            judge_classes=2, target_network="mcnn", judge_network="mcnn", attributes=self.attributes, attacked=1,
            draws=1, observed=20,
        )  # fmt: skip

    def load(self, part: str, root: Path) -> Images:
        generator = torch.Generator().manual_seed(len(part))
        every = torch.rand(N, 3, generator=generator) < 0.5
        pixels = torch.randint(0, 256, (N, 1, 32, 32), generator=generator, dtype=torch.uint8)
        return Images(pixels, attributes=every[:, [("Upper", "Left", "Smiling").index(a) for a in self.attributes]])


class Watcher(FeatureAttack):
    """An attack on features that is never run."""

    yields: ClassVar[str] = "PairedReconstructions"
    tasks: ClassVar[frozenset[Any]] = frozenset({"classes", "attributes"})
    strength: float = setting(1.0, "of nothing")

    def run(self, view: Any, prior: Any, request: Any, context: Any) -> Any:
        raise AssertionError


TOYS = {"dataset": ("halves", Halves), "attack": ("watcher", Watcher)}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """The toys, as if a package registered them; figures are written into the temporary folder."""
    installed = registry._points

    def points(kind: registry.Kind) -> tuple[EntryPoint, ...]:
        if kind not in TOYS:
            return installed(kind)
        name, cls = TOYS[kind]
        return (*installed(kind), EntryPoint(name, f"{__name__}:{cls.__name__}", f"privbench.{kind}s"))

    monkeypatch.setattr(registry, "_points", points)
    monkeypatch.chdir(tmp_path)
    for name in ("PRIVBENCH_STORE", "PRIVBENCH_RESULTS"):
        monkeypatch.setenv(name, str(tmp_path / name.removeprefix("PRIVBENCH_").lower()))
    monkeypatch.setenv("PRIVBENCH_DATA", str(tmp_path / "data"))
    registry.entries.cache_clear()
    yield
    registry.entries.cache_clear()


def record_of(
    evidence: dict[str, dict[str, torch.Tensor]] | None = None,
    *,
    dataset: str = "halves",
    defense: str = "none",
    attack: str = "watcher",
    target: Any = None,
    **settings: Any,
) -> Record:
    """A record in results, with its evidence (and target) in the store."""
    selected = [(Selection(name),) for name in (dataset, defense, attack)]
    (cell,) = Matrix(*selected, (), budget="smoke", settings=settings, controls=False, sandbox=False).cells()
    identity = cell.identity()
    del identity["evaluators"]
    keys = {role: samples.key_of(role, identity) for role in ("evidence", "target")}
    store, digests = Store(Path("store")), dict(keys)
    if evidence is not None:
        digests["evidence"] = store.write("evidence", keys["evidence"], tensors=evidence, info={}).digest
    if target is not None:
        test = cell.dataset.component.load("private_test", Path())
        logits = predict(target, test.pixels, CPU, 0)
        tensors = {"network": state(target), "predictions": {"logits": logits, "labels": logits.argmax(1)}}
        facts = {"prediction_seed": 0, "test_accuracy": 0.5, "n": N}
        digests["target"] = store.write("target", keys["target"], tensors=tensors, info=facts).digest
    record = samples.make_record(
        defense,
        attack,
        protocol=cell.dataset.component.protocol.id,
        cell=identity,
        budget="smoke",
        artifacts={role: {"key": key, "digest": digests[role]} for role, key in keys.items()},
    )
    save(record, Path("results"))
    return record


def paired(seed: int, items: list[int]) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (len(items), 1, 32, 32), generator=generator, dtype=torch.uint8)
    return {"PairedReconstructions": {"pixels": pixels, "items": torch.tensor(items)}}


def of_labels(seed: int, labels: list[int]) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (2, 3, len(labels), 1, 32, 32), generator=generator, dtype=torch.uint8)
    return {"ClassReconstructions": {"pixels": pixels, "labels": torch.tensor(labels)}}


def call(*words: object) -> command_line.Result:
    return command_line.run("figure", *words)


def refused(*words: object) -> str:
    """The message with which a command fails; nothing is written."""
    message = command_line.refusal("figure", *words)
    assert not list(Path().glob("*.png"))
    return message


def tiles(path: str, rows: int, columns: int, private: int = 0) -> np.ndarray:
    """The images of a grid of 32 x 32 pixels with a gap below `private` rows, as `rows columns 32 32`."""
    shown = np.asarray(Image.open(path).convert("L"))
    size, gap, apart, margin = 4 * 32, 6, 20, 24
    bottom = shown.shape[0] - margin
    top = bottom - rows * (size + gap) + gap - (apart if private else 0)
    left = next(x for x in range(shown.shape[1]) if (shown[top : top + size, x] != 255).mean() > 0.9)
    found = np.empty((rows, columns, 32, 32), np.uint8)
    for row in range(rows):
        y = top + row * (size + gap) + (apart if 0 < private <= row else 0)
        for column in range(columns):
            x = left + column * (size + gap)
            found[row, column] = shown[y : y + size : 4, x : x + size : 4]
    return found


def test_pairs_stand_in_the_same_columns_below_their_originals(tmp_path: Path) -> None:
    first, second = paired(1, [0, 3, 5, 9]), paired(2, [9, 7, 5, 0])
    record_of(first, **{"attack.strength": 1.0})
    record_of(second, **{"attack.strength": 2.0})
    done = call("reconstructions", "results", "--with-private-images")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == ["reconstructions.png", "reconstructions.svg"]
    shown = tiles("reconstructions.png", 3, 3, private=1)
    originals = Halves().load("private_test", Path()).pixels[[0, 5, 9], 0].numpy()
    assert (shown[0] == originals).all()
    assert (shown[1] == first["PairedReconstructions"]["pixels"][[0, 2, 3], 0].numpy()).all()
    assert (shown[2] == second["PairedReconstructions"]["pixels"][[3, 2, 0], 0].numpy()).all()
    before = [Path(name).read_bytes() for name in done.out.split()]
    assert call("reconstructions", "results", "--with-private-images").code == 0
    assert [Path(name).read_bytes() for name in done.out.split()] == before


def test_private_images_are_shown_on_demand_only(monkeypatch: pytest.MonkeyPatch) -> None:
    found = paired(1, list(range(20)))
    record_of(found)

    def refuse(*_: object) -> None:
        raise AssertionError("read private images")

    monkeypatch.setattr(Halves, "load", refuse)
    done = call("reconstructions", "results", "--columns", 4, "--out", "few.png")
    assert done.out == "few.png\n"
    assert done.err == "private images are omitted; --with-private-images shows them\n"
    assert (tiles("few.png", 1, 4)[0] == found["PairedReconstructions"]["pixels"][[0, 5, 10, 15], 0].numpy()).all()
    assert not Path("few.svg").exists()


def test_labels_are_columns_below_the_two_private_images_that_are_nearest_to_any_of_their_reconstructions() -> None:
    cell = record_artifacts.cell_of(record_of(dataset="digits", attack="kedmi"))
    Path("results").rename("other")
    train = cell.dataset.component.part("private_train", Path())
    found = {name: of_labels(seed, [0, 1, 2, 3, 4]) for seed, name in enumerate(("mid", "none"))}
    for name, position in (("none", 7), ("mid", 11)):
        for label in range(5):
            copied = train.pixels[train.labels == label][position]
            found[name]["ClassReconstructions"]["pixels"][0, 0, label] = copied // 2 + 20
        record_of(found[name], dataset="digits", defense=name, attack="kedmi")
    done = call("reconstructions", "results", "--out", "deep/labels", "--with-private-images")
    assert done.out.split() == ["deep/labels.png", "deep/labels.svg"]
    shown = tiles("deep/labels.png", 4, 5, private=2)
    network, protocol = build_embedder("hog"), cell.dataset.component.protocol
    for label in range(5):
        made = torch.stack([found[name]["ClassReconstructions"]["pixels"][0, 0, label] for name in ("none", "mid")])
        assert (shown[2:, label] == made[:, 0].numpy()).all()
        private = train.pixels[train.labels == label]
        cosines = network(private / 255, protocol) @ network(made / 255, protocol).T
        ranked = sorted(range(len(private)), key=lambda i: -max(cosines[i].tolist()))
        assert set(ranked[:2]) == {7, 11}
        assert (shown[:2, label] == private[ranked[:2], 0].numpy()).all()


def test_faces_are_compared_by_a_face_network_and_others_by_gradients() -> None:
    def usual(dataset: str) -> str:
        return record_artifacts.usual_embedder(record_of(dataset=dataset, attack="kedmi"))

    assert (usual("digits"), usual("cifar10"), usual("celeba_subset")) == ("hog", "hog", "facenet_vggface2")


def test_what_is_missing_is_one_sentence_with_the_command_that_makes_it() -> None:
    record = record_of(None)
    sentence = refused("reconstructions", "results")
    assert "is not in the store" in sentence
    assert f"`{' '.join(record.command)}`" in sentence
    sentence = refused("tsne", "results")
    assert "the target of the record of none under watcher on halves/v1" in sentence
    bare = json.loads(record.text()) | {"artifacts": {}}
    Path("bare.json").write_text(json.dumps(bare), encoding="utf-8")
    assert "names no evidence; make it with `privbench run" in refused("reconstructions", "bare.json")
    Path("empty").mkdir()
    for command in ("reconstructions", "tsne", "tradeoff"):
        for path in ("empty", "nowhere"):
            assert "privbench run" in refused(command, path)


def test_records_that_do_not_go_together_are_refused() -> None:
    estimates = {"FeatureEstimates": {"features": torch.zeros(4, 2), "items": torch.arange(4)}}
    record_of(estimates, **{"attack.strength": 3.0})
    assert "got FeatureEstimates in the record of none" in refused("reconstructions", "results")
    Path("results").rename("other")
    record_of(paired(1, [0, 1]), dataset="digits")
    record_of(of_labels(1, [0, 1]), dataset="digits", attack="kedmi")
    sentence = refused("reconstructions", "results")
    assert "got both (labels by kedmi, items by watcher)" in sentence
    record_of(paired(1, [0, 1]))
    for command in ("reconstructions", "tradeoff"):
        sentence = refused(command, "results")
        assert "one protocol, got digits/v2 and halves/v1" in sentence


def test_records_without_a_common_image_are_refused() -> None:
    record_of(paired(1, [0, 1]))
    record_of(paired(1, [2, 3]), defense="mid")
    assert "items in common, got none" in refused("reconstructions", "results")


def test_another_copy_of_the_data_is_noticed() -> None:
    record_of(paired(1, [0, N]))
    sentence = refused("reconstructions", "results", "--with-private-images")
    assert f"at least {N + 1} private test images of halves in data, got {N}" in sentence.replace(f"{Path.cwd()}/", "")


def test_a_component_that_changed_since_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    record_of(paired(1, [0, 1]))
    monkeypatch.setattr(Watcher, "version", 2)
    sentence = refused("reconstructions", "results", "--with-private-images")
    assert "attack watcher of unknown, version 1, and here it is of unknown, version 2" in sentence
    assert call("reconstructions", "results").code == 0


def test_damaged_files_are_named_after_the_rest_is_shown() -> None:
    record_of(paired(1, [0, 1]))
    Path("results/records/bad.json").write_text("{", encoding="utf-8")
    done = call("reconstructions", "results")
    assert done.code == 1
    assert done.out.split() == ["reconstructions.png", "reconstructions.svg"]
    assert "bad.json to be a JSON object" in done.err
    for name in ("reconstructions.png", "reconstructions.svg"):
        Path(name).unlink()
    assert "bad.json" in refused("tradeoff", "results/records/bad.json")


@pytest.mark.parametrize("name", ["figure.pdf", "figure.JPG"])
def test_other_formats_are_refused_before_anything_is_read(name: str) -> None:
    for command in ("reconstructions", "tsne", "tradeoff"):
        assert "end in .png or .svg" in refused(command, "nowhere", "--out", name)


def test_a_name_with_a_dot_is_a_name() -> None:
    record_of(paired(1, [0, 1]))
    done = call("reconstructions", "results", "--out", "lambda_0.5")
    assert done.out.split() == ["lambda_0.5.png", "lambda_0.5.svg"]


def test_a_place_that_cannot_be_written_leaves_nothing() -> None:
    record_of(paired(1, [0, 1]))
    Path("folder.png").mkdir()
    Path("file").write_text("x", encoding="utf-8")
    for name in ("folder.png", "file/figure.png"):
        done = call("reconstructions", "results", "--out", name)
        assert done.code == 1
        assert "choose another --out" in done.err
    assert not [path for path in Path().iterdir() if "partial" in path.name]


def test_tradeoff_is_made_of_records_alone() -> None:
    samples.save_matrix(Path("results"), seeds=2, attacks=("gmi", "kedmi"))
    done = call("tradeoff", "results", "--leakage", "attack_acc5")
    assert (done.code, done.err) == (0, "")
    assert done.out.split() == ["tradeoff.png", "tradeoff.svg"]
    assert Path("tradeoff.png").read_bytes().startswith(b"\x89PNG")
    modules = command_line.imported_modules("figure", "tradeoff", "results", "--out", "again.svg")
    assert not {"torch", "pandas", "sklearn"} & modules
    for name in ("tradeoff.png", "tradeoff.svg"):
        Path(name).unlink()
    Path("again.svg").unlink()
    assert "did you mean 'attack_acc5'" in refused("tradeoff", "results", "--leakage", "attack_ac5")


def test_encodings_are_those_of_the_target_at_the_cut_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = build_network("mcnn", (1, 32, 32), 3).eval()
    record = record_of(target=network, **{"attack.layer": "layer2"})
    session = Session(Store(Path("store")), Path("data"), CPU)
    found = record_artifacts.encodings(record, session)
    test = Halves().load("private_test", Path())
    assert found.items.tolist() == [i * N // 20 for i in range(20)]
    with torch.inference_mode():
        expected = network.encode(test.pixels[found.items].float().div(255), "layer2")
    assert torch.allclose(found.z, expected, atol=1e-5)
    monkeypatch.setattr(record_artifacts, "encodings", lambda *_: found)
    done = call("tsne", "results", "--attribute", "Left", "--attribute", "Upper", "--device", "cpu")
    assert (done.code, done.out.split()) == (0, ["tsne.png", "tsne.svg"]), done.err
    for name in ("tsne.png", "tsne.svg"):
        Path(name).unlink()
    sentence = refused("tsne", "results", "--attribute", "Smilin")
    assert sentence == "unknown attribute of halves 'Smilin': did you mean 'Smiling'?"
    assert "at most twice" in refused("tsne", "results", *["--attribute", "Left"] * 3)


def test_attributes_outside_the_task_are_read_from_the_data_set() -> None:
    record = record_of(**{"dataset.attributes": ["Left"]})
    session = Session(Store(Path("store")), Path("data"), CPU)
    items = torch.tensor([0, 4, 2])
    every = Halves().load("private_test", Path()).attributes
    names, values = record_artifacts.attributes(record, ["Left"], items, session)
    assert names == ("Left",)
    assert (values[:, 0] == every[items, 1].numpy()).all()
    names, values = record_artifacts.attributes(record, ["Smiling", "Left"], items, session)
    assert (values == every[items][:, [2, 1]].numpy()).all()
    assert record_artifacts.attributes(record, [], items, session)[0] == ("Upper", "Left")


def test_class_tasks_are_coloured_by_label_and_have_no_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    from privbench.benchmark.core.evidence import Encodings
    from privbench.benchmark.report.figures import tsne

    record = record_of(dataset="digits", attack="kedmi")
    items = torch.arange(0, 180, 6)
    monkeypatch.setattr(record_artifacts, "encodings", lambda *_: Encodings(torch.randn(30, 4), items))
    assert "coloured by label, got Smiling" in refused("tsne", "results", "--attribute", "Smiling")
    session = Session(Store(Path("store")), Path("data"), CPU)
    (embedding,), groups = tsne.embed_records([record], session, [], None, 0)
    labels = record_artifacts.cell_of(record).dataset.component.load("private_test", Path()).labels[items]
    assert [groups[kind].name for kind in embedding.groups] == [f"label {label}" for label in labels.tolist()]
    assert embedding.note == "last latent, 4 values, 30 images"


def test_points_are_in_the_group_of_their_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    from privbench.benchmark.core.evidence import Encodings
    from privbench.benchmark.report.figures import tsne

    record = record_of()
    items = torch.arange(20)
    monkeypatch.setattr(record_artifacts, "encodings", lambda *_: Encodings(torch.randn(20, 2, 3), items))
    session = Session(Store(Path("store")), Path("data"), CPU)
    truth = Halves().load("private_test", Path()).attributes[items]
    (embedding,), groups = tsne.embed_records([record], session, ["Left", "Upper"], "layer1", 0)
    expected = [f"Left {'−+'[left]}, Upper {'−+'[upper]}" for upper, left in truth[:, :2].int().tolist()]
    assert [groups[kind].name for kind in embedding.groups] == expected
    assert embedding.note == "layer1, 6 values, 20 images"
    (embedding,), groups = tsne.embed_records([record], session, ["Left"], None, 0)
    assert [groups[kind].name for kind in embedding.groups] == [
        f"Left {'−+'[left]}" for left in truth[:, 1].int().tolist()
    ]


def test_rows_are_sorted_unless_the_order_is_given_and_a_record_is_shown_once() -> None:
    found = {}
    for strength in (10.0, 9.0):
        evidence = paired(int(strength), [0, 1])
        record = record_of(evidence, **{"attack.strength": strength})
        found[next(Path("results").rglob(f"{record.key}.json"))] = evidence["PairedReconstructions"]["pixels"][
            :, 0
        ].numpy()
    ten, nine = found
    again = json.loads(nine.read_text(encoding="utf-8")) | {"key": "a" * 64}
    Path("same.json").write_text(json.dumps(again), encoding="utf-8")
    for order, words in (((nine, ten), []), ((ten, nine), ["--as-given"])):
        assert call("reconstructions", ten, nine, "same.json", *words).code == 0
        shown = tiles("reconstructions.png", 2, 2)
        assert all((shown[row] == found[file]).all() for row, file in enumerate(order))


def test_labels_beyond_those_with_a_marker_are_others() -> None:
    from privbench.benchmark.report.figures import tsne

    groups, (kinds,) = tsne._groups((), [np.array([0, 50, 9, 3, 99])])
    assert [groups[kind].name for kind in kinds] == ["label 0", "label 50", "label 9", "label 3", "label 99"]
    groups, (kinds,) = tsne._groups((), [np.arange(30)[::-1]])
    assert [groups[kind].name for kind in kinds] == ["other labels"] * 21 + [f"label {i}" for i in range(8, -1, -1)]


def test_pictures_are_pictures() -> None:
    record_of(paired(1, [0, 1]))
    assert call("reconstructions", "results", "-o", "x").code == 0
    assert Image.open(io.BytesIO(Path("x.png").read_bytes())).size[0] > 200
    assert Path("x.svg").read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.parametrize("words", [["--help"], ["figure", "--help"], ["figure", "tsne", "--help"]])
def test_help_imports_neither_torch_nor_matplotlib(words: list[str]) -> None:
    assert not {"torch", "matplotlib", "numpy"} & command_line.imported_modules(*words)
