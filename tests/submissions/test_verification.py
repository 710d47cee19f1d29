"""Verification of valid and forged submissions; each forgery is rejected with its own message."""

import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from privbench.benchmark.datasets.digits import Digits
from privbench.benchmark.errors import MissingDataError, PrivbenchError
from privbench.benchmark.files.tensors import pack
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.pipeline.write_record import command
from privbench.benchmark.records.record import Record
from privbench.benchmark.records.submission import INDEX, MAX_FILE
from privbench.benchmark.store.manifest import digest_of
from privbench.benchmark.store.store import Store
from privbench.benchmark.submissions import recompute
from privbench.benchmark.submissions.verify import SubmissionResult, verify_submission

Check = Callable[[Path], SubmissionResult]
FIRST = "ClassReconstructions"


def refusal(check: Check, folder: Path) -> str:
    """The message with which a submission is rejected."""
    try:
        found = check(folder)
    except PrivbenchError as problem:
        return str(problem)
    (problem,) = found.problems
    assert not found.records
    return problem


def png(width: int, height: int) -> bytes:
    """A PNG with a large declared size and little content."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1 << 16))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_valid_submission_is_recomputed(check: Check, honest: Path) -> None:
    found = check(honest)
    assert found.problems == ()
    (record,) = found.records.values()
    assert record.level == "recomputed"
    assert record.notes == ()
    assert {score.outcome for score in record.scores.values()} == {"equal"}
    assert {"accuracy", "attack_acc", "fid_judge", "verified_acc", "knn_distance"} <= record.scores.keys()
    (claimed,) = found.submission.records
    assert record.scores.keys() == claimed.scores.keys()


def test_a_submission_has_only_plain_data_and_no_weights(honest: Path, author: Path) -> None:
    names = sorted(path.relative_to(honest).as_posix() for path in honest.rglob("*") if path.is_file())
    assert [Path(name).suffix for name in names] == [".safetensors"] * 3 + [".json", ".png", ".json"]
    stored = {path.read_bytes() for path in author.rglob("network.safetensors")}
    assert stored
    assert not stored & {path.read_bytes() for path in honest.rglob("*") if path.is_file()}


# Forged records, with correct hashes.


def edit_score(record: dict[str, Any]) -> None:
    record["scores"]["accuracy"]["value"] -= 0.001


def edit_interval(record: dict[str, Any]) -> None:
    record["scores"]["accuracy"]["interval"] = [0.0, 1.0]


def edit_named_interval(record: dict[str, Any]) -> None:
    record["scores"]["knn_distance"]["intervals"] |= {"draws": [0.0, 2.0]}


def edit_class(record: dict[str, Any]) -> None:
    record["scores"]["accuracy"]["per_class"][0] = 0.99


def edit_direction(record: dict[str, Any]) -> None:
    record["scores"]["attack_acc"]["definition"]["better"] = "higher"


def drop_score(record: dict[str, Any]) -> None:
    del record["scores"]["attack_acc5"]


def drop_evaluator_scores(record: dict[str, Any]) -> None:
    record["scores"] = {name: score for name, score in record["scores"].items() if score["evaluator"] != "mcc"}


def edit_protocol(record: dict[str, Any]) -> None:
    record["protocol"] = "digits/v3"


def edit_dataset_version(record: dict[str, Any]) -> None:
    record["cell"]["dataset"]["version"] += 1


def edit_evaluator_version(record: dict[str, Any]) -> None:
    record["cell"]["evaluators"][0]["version"] = 99


def edit_defense_version(record: dict[str, Any]) -> None:
    record["cell"]["defense"]["version"] = 99


def edit_attack_field(record: dict[str, Any]) -> None:
    record["cell"]["attack"]["fields"]["iterations"] = 1500
    record["changed"]["attack"]["iterations"] = 1500
    record["command"] = [
        "attack.iterations=1500" if word.startswith("attack.iterations") else word for word in record["command"]
    ]


def edit_changes(record: dict[str, Any]) -> None:
    del record["changed"]["attack"]["iterations"]
    place = next(i for i, word in enumerate(record["command"]) if word.startswith("attack.iterations"))
    del record["command"][place - 1 : place + 1]


def edit_command(record: dict[str, Any]) -> None:
    record["command"] = ["rm", "-rf", "/"]


def edit_judge(record: dict[str, Any]) -> None:
    record["judge"]["network"] = "lenet5"


def edit_key(record: dict[str, Any]) -> None:
    record["key"] = "0" * 64
    record["picture"] = f"{'0' * 64}.png"


def edit_protocol_to_unknown(record: dict[str, Any]) -> None:
    record["cell"]["dataset"] |= {"name": "nobody", "distribution": "elsewhere"}


def edit_seed(record: dict[str, Any]) -> None:
    record["cell"]["seed"] = 0 if record["cell"]["seed"] else 7
    record["command"] = ["7" if word == "0" else word for word in record["command"]]


def long_judge_training(record: dict[str, Any]) -> None:
    record["cell"]["dataset"]["fields"]["judge"] |= {"epochs": 10**9, "max_steps": None}


def large_batches(record: dict[str, Any]) -> None:
    record["cell"]["dataset"]["fields"]["second_judge"]["batch_size"] = 100_000


def small_batches(record: dict[str, Any]) -> None:
    """Published epochs, but a step for every two images."""
    record["cell"]["dataset"]["fields"]["judge"] |= {"batch_size": 2, "max_steps": 10**6}
    record["changed"]["dataset"] |= {"judge.batch_size": 2, "judge.max_steps": 10**6}
    record["command"] = command(Record.model_validate(record).cell, record["changed"])


def many_resamples(record: dict[str, Any]) -> None:
    (choice,) = [each for each in record["cell"]["evaluators"] if each["name"] == "mcc"]
    choice["fields"]["resamples"] = 1_000_000


FORGED_RECORDS = [
    (long_judge_training, "expected digits.judge.epochs of the record"),
    (large_batches, "expected digits.second_judge.batch_size of the record"),
    (small_batches, "to train it for at most the published 660 steps, got 21,"),
    (many_resamples, "to be at most the published 1000, got 1000000"),
    (edit_score, "expected accuracy of the record"),
    (edit_interval, "expected interval of accuracy of the record"),
    (edit_named_interval, "expected intervals of knn_distance of the record"),
    (edit_class, "expected per_class of accuracy of the record"),
    (edit_direction, "to have the definition of attack_acc, got another one"),
    (drop_score, "to have the scores attack_acc, attack_acc5 of attack_acc, got none named attack_acc5"),
    (drop_evaluator_scores, "to have each of its evaluators once, with scores, got mcc without scores"),
    (edit_protocol, "has protocol digits/v3, but the installed digits is digits/v2"),
    (edit_dataset_version, "was made with version 2 of dataset digits, but version 1 is installed"),
    (edit_evaluator_version, "was made with version 99 of evaluator accuracy, but version"),
    (edit_defense_version, "was made with version 99 of defense none, but version"),
    (edit_attack_field, "of its components, fields, seed and data, got"),
    (edit_changes, "to list the fields of attack that differ from the defaults of the budget smoke, got other fields"),
    (edit_command, "expected the command of the record"),
    (edit_judge, "expected network of the judge of the record"),
    (edit_key, "to have the key of its cell, got another"),
    (edit_protocol_to_unknown, "needs the data set nobody of elsewhere, which is not installed here"),
]


@pytest.mark.parametrize(("edit", "message"), FORGED_RECORDS, ids=lambda value: getattr(value, "__name__", ""))
def test_forged_records(check: Check, forged, edit: Callable[[dict[str, Any]], None], message: str) -> None:
    forged.change_record(edit)
    assert message in refusal(check, forged.folder)


def test_another_seed(check: Check, forged) -> None:
    forged.change_record(edit_seed)
    forged.change_index(lambda index: index.update(seeds=[7]))
    assert "of its components, fields, seed and data, got" in refusal(check, forged.folder)


# Forged evidence, with correct hashes.


def swap_images(tensors: dict[str, torch.Tensor]) -> None:
    pixels = tensors["pixels"]
    tensors["pixels"] = 255 - pixels


def drop_identity(tensors: dict[str, torch.Tensor]) -> None:
    tensors["pixels"], tensors["labels"] = tensors["pixels"][:, :, :-1], tensors["labels"][:-1]


def drop_draw(tensors: dict[str, torch.Tensor]) -> None:
    tensors["pixels"] = tensors["pixels"][:, :-1]


def other_labels(tensors: dict[str, torch.Tensor]) -> None:
    tensors["labels"] = tensors["labels"].flip(0)


def drop_image(tensors: dict[str, torch.Tensor]) -> None:
    tensors["logits"], tensors["labels"] = tensors["logits"][1:], tensors["labels"][1:]


def more_negatives(tensors: dict[str, torch.Tensor]) -> None:
    tensors |= {name: value.repeat(3, *[1] * (value.dim() - 1)) for name, value in tensors.items()}


def half_precision(tensors: dict[str, torch.Tensor]) -> None:
    tensors["logits"] = tensors["logits"].half()


def extra_tensor(tensors: dict[str, torch.Tensor]) -> None:
    tensors["weights"] = torch.zeros(1)


FORGED_EVIDENCE = [
    (FIRST, swap_images, "to show the reconstructions in the submission, got another picture"),
    (FIRST, drop_identity, "to have the 5 attacked labels of reconstructions of its protocol, got 4"),
    (FIRST, drop_draw, "to have the 2 draws of reconstructions of its protocol, got 1"),
    (FIRST, other_labels, "to have reconstructions of the labels 0 to 4 in order, got [4, 3, 2, 1, 0]"),
    ("Predictions", other_labels, "to be those of digits/v2 on this machine, got others"),
    ("Predictions", drop_image, "to have the 183 predictions of private test images of its protocol, got 182"),
    ("Predictions", half_precision, "expected logits of"),
    ("Predictions", extra_tensor, "to contain labels, logits of Predictions, got 'weights'"),
    ("Negatives", more_negatives, "to have at most 2 negatives per label, got"),
]


@pytest.mark.parametrize(("kind", "edit", "message"), FORGED_EVIDENCE, ids=lambda value: getattr(value, "__name__", ""))
def test_forged_evidence(check: Check, forged, kind: str, edit: Callable[..., None], message: str) -> None:
    forged.change_evidence(kind, edit)
    assert message in refusal(check, forged.folder)


def test_replaced_images_with_their_picture(check: Check, forged) -> None:
    """Reconstructions of another attack with their picture and digest: what is published follows from them."""
    from privbench.benchmark.core.evidence import ClassReconstructions
    from privbench.benchmark.records.picture import picture_of

    forged.change_evidence(FIRST, swap_images)
    tensors: dict[str, torch.Tensor] = {}
    forged.change_evidence(FIRST, tensors.update)
    forged.replace(forged.path(".png"), picture_of({FIRST: ClassReconstructions(**tensors)}))
    assert "to have ClassReconstructions with the digest" in refusal(check, forged.folder)
    found = digest_of({f"{FIRST}.safetensors": forged.index["files"][forged.path(f"evidence/{FIRST}")]["sha256"]})
    forged.change_record(lambda record: record["artifacts"]["evidence"].update(digest=found))
    (record,) = check(forged.folder).records.values()
    fid = record.scores["fid_judge"]
    assert fid.outcome == "not compared" and fid.claimed != fid.found
    assert record.published.scores["fid_judge"].value == fid.found


def test_another_picture(check: Check, forged) -> None:
    forged.replace(forged.path(".png"), png(64, 64))
    assert "got another picture" in refusal(check, forged.folder)


def test_a_record_without_a_picture(check: Check, forged) -> None:
    """An author may not want to publish pictures, for example of faces."""
    forged.drop(forged.path(".png"))
    (record,) = check(forged.folder).records.values()
    assert record.level == "recomputed"


def test_a_broken_picture(check: Check, forged) -> None:
    path = forged.path(".png")
    content = (forged.folder / path).read_bytes()
    forged.replace(path, content[:-40])
    assert "with more than a header and pixels, such as animation, or with less" in refusal(check, forged.folder)
    forged.replace(path, content[:60] + bytes(9) + content[69:])
    assert "to be an intact PNG" in refusal(check, forged.folder)


def test_a_picture_that_exceeds_the_memory(check: Check, forged) -> None:
    forged.replace(forged.path(".png"), png(100_000, 100_000))
    assert "got one of 100,000 x 100,000 pixels" in refusal(check, forged.folder)


# Forged folders.


class Payload:
    """An object whose pickle runs code when it is read."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.witness),)


def test_a_pickle(check: Check, forged, tmp_path) -> None:
    forged.replace("evidence/weights.pkl", pickle.dumps(Payload(tmp_path / "witness")))
    message = refusal(check, forged.folder)
    assert "to hold JSON, PNG and safetensors only, got 'evidence/weights.pkl', which may run code" in message
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize(
    "data", [b"\x80\x04", b"PK\x03\x04", b"<html>", b""], ids=["pickle", "archive", "page", "empty"]
)
def test_a_pickle_named_safetensors(check: Check, forged, tmp_path, data: bytes) -> None:
    content = pickle.dumps(Payload(tmp_path / "witness")) if data == b"\x80\x04" else data + bytes(50) * bool(data)
    forged.replace(forged.path("evidence/Predictions"), content)
    kinds = {b"\x80\x04": "got a pickle, which can run code when read", b"PK\x03\x04": "got an archive"}
    assert kinds.get(data, "got another kind of file") in refusal(check, forged.folder)
    assert not (tmp_path / "witness").exists()


def test_a_link_out_of_the_folder(check: Check, forged, tmp_path) -> None:
    path = forged.path("evidence/Predictions")
    outside = tmp_path / "outside.safetensors"
    (forged.folder / path).rename(outside)
    (forged.folder / path).symlink_to(outside)
    assert "got a symbolic link, which may lead out of the folder" in refusal(check, forged.folder)


def test_a_folder_that_is_a_link(check: Check, forged, tmp_path) -> None:
    (forged.folder / "evidence").rename(tmp_path / "evidence")
    (forged.folder / "evidence").symlink_to(tmp_path / "evidence")
    assert "got a symbolic link, which may lead out of the folder" in refusal(check, forged.folder)
    (tmp_path / "whole").symlink_to(forged.folder)
    assert "to be a folder, got a symbolic link" in refusal(check, tmp_path / "whole")


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.json", "records/../../x.json", "C:\\x.json", "~/x.json"])
def test_a_path_outside_the_folder(check: Check, forged, path: str) -> None:
    facts = {"bytes": 3, "sha256": "0" * 64}
    forged.change_index(lambda index: index["files"].update({path: facts}))
    assert f"got {path!r}; use plain relative paths" in refusal(check, forged.folder)


def test_a_record_at_another_path(check: Check, forged) -> None:
    path = forged.path(".json")
    data = (forged.folder / path).read_bytes()
    forged.drop(path)
    moved = path.replace("/none/", "/bido_hsic/")
    forged.replace(moved, data)
    forged.replace(moved.replace(".json", ".png"), (forged.folder / path.replace(".json", ".png")).read_bytes())
    forged.drop(path.replace(".json", ".png"))
    forged.change_index(lambda index: index["records"][0].update(record=moved))
    assert "to have the path records/digits-v2/none/kedmi/" in refusal(check, forged.folder)


def test_an_extra_file(check: Check, forged) -> None:
    (forged.folder / "evidence" / "notes.json").write_text("{}")
    assert "and no others, got 'evidence/notes.json'" in refusal(check, forged.folder)


def test_an_extra_file_that_is_listed(check: Check, forged) -> None:
    forged.replace(f"evidence/Predictions-{'0' * 16}.safetensors", b"{}")
    assert "to list files of its records only" in refusal(check, forged.folder)


def test_a_missing_file(check: Check, forged) -> None:
    (forged.folder / forged.path("evidence/Predictions")).unlink()
    assert "found none; create the submission again" in refusal(check, forged.folder)


def test_a_changed_file(check: Check, forged) -> None:
    path = forged.folder / forged.path("evidence/Predictions")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert "to have the SHA-256" in refusal(check, forged.folder)
    path.write_bytes(bytes(data) + b" ")
    assert "bytes as submission.json lists, got more" in refusal(check, forged.folder)


def test_a_submission_with_a_verification(check: Check, forged) -> None:
    (forged.folder / "verification.json").write_text("{}")
    assert "to contain no verification, got 'verification.json'" in refusal(check, forged.folder)
    (forged.folder / "verification.json").unlink()
    forged.replace("verifications/forged.json", b"{}")
    assert "expected files in" in refusal(check, forged.folder)


def test_a_missing_seed(check: Check, forged) -> None:
    forged.change_index(lambda index: index.update(seeds=[0, 1]))
    assert "to have each of the seeds 0, 1 once" in refusal(check, forged.folder)
    assert "got none for 1" in refusal(check, forged.folder)


def test_evidence_of_two_attacks(check: Check, forged) -> None:
    path = f"evidence/PairedReconstructions-{'0' * 16}.safetensors"
    pixels = torch.zeros((183, 1, 32, 32), dtype=torch.uint8)
    forged.replace(path, pack({"pixels": pixels, "items": torch.arange(183)}))
    forged.change_index(lambda index: index["records"][0]["evidence"].update(PairedReconstructions=path))
    assert "to have predictions and the output of one attack" in refusal(check, forged.folder)
    first = forged.index["records"][0]["evidence"][FIRST]
    forged.change_index(lambda index: index["records"][0]["evidence"].pop(FIRST))
    forged.drop(first)
    assert "to have ClassReconstructions, which its attack returns, got PairedReconstructions" in refusal(
        check, forged.folder
    )


def test_deep_json(check: Check, forged) -> None:
    text = (forged.folder / INDEX).read_text("utf-8")
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        deep = text.replace('"seeds": [', f'"deep": {opening * 100_000}1{closing * 100_000}, "seeds": [', 1)
        (forged.folder / INDEX).write_text(deep, "utf-8")
        assert "levels deep" in refusal(check, forged.folder)
    (forged.folder / INDEX).write_text(text, "utf-8")
    path = forged.path(".json")
    record = json.loads((forged.folder / path).read_text("utf-8"))
    record["judge"]["deep"] = json.loads("[" * 40 + "]" * 40)
    forged.replace(path, json.dumps(record).encode())
    assert "nested more than 24 levels deep" in refusal(check, forged.folder)


def test_a_huge_declared_tensor(check: Check, forged) -> None:
    header = {
        "logits": {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 1 << 62]},
        "labels": {"dtype": "I64", "shape": [183], "data_offsets": [1 << 62, (1 << 62) + 183 * 8]},
    }
    text = json.dumps(header).encode()
    forged.replace(forged.path("evidence/Predictions"), struct.pack("<Q", len(text)) + text + bytes(5000))
    assert "bytes of tensors that its header declares, got a file of" in refusal(check, forged.folder)


def test_a_huge_header(check: Check, forged) -> None:
    forged.replace(forged.path("evidence/Predictions"), struct.pack("<Q", 1 << 62) + b"{}" + bytes(500))
    assert "got another kind of file" in refusal(check, forged.folder)


def test_a_huge_file(check: Check, forged) -> None:
    path = forged.folder / forged.path("evidence/Predictions")
    with path.open("r+b") as file:
        file.truncate(MAX_FILE + 1)
    assert "files of at most 104,857,600 bytes each" in refusal(check, forged.folder)
    forged.change_index(lambda index: index["files"][forged.path("evidence/Predictions")].update(bytes=MAX_FILE + 1))
    assert "less than or equal to 104857600" in refusal(check, forged.folder)


def test_a_pipe(check: Check, forged) -> None:
    os.mkfifo(forged.folder / "evidence" / "x.json")
    assert "to be a regular file, got something else" in refusal(check, forged.folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda index: index.update(schema_version=9), "has schema 9 and this privbench reads up to 1; upgrade"),
        (lambda index: index.update(format="x"), "to be the index of a submission, got another file"),
        (lambda index: index.pop("contact"), "to have contact, found none"),
        (lambda index: index.update(contact=" "), "expected contact in"),
        (lambda index: index.update(level="re-run"), "to have known fields only, got level"),
        (lambda index: index["records"].append(index["records"][0]), "to list each record once, got one twice"),
    ],
)
def test_a_wrong_index(check: Check, forged, edit: Callable[[dict[str, Any]], object], message: str) -> None:
    forged.change_index(edit)
    assert message in refusal(check, forged.folder)


def test_no_submission(check: Check, tmp_path) -> None:
    assert "to be a submission, found no submission.json there" in refusal(check, tmp_path)
    assert "to be a submission, found no submission.json there" in refusal(check, tmp_path / "nowhere")


# Components that cannot be checked here are noted and do not raise the level.


def test_a_defense_of_a_package_that_is_not_installed(check: Check, forged) -> None:
    def edit(record: dict[str, Any]) -> None:
        record["cell"]["defense"] = {"name": "smooth", "distribution": "elsewhere", "version": 3, "fields": {"a": 1}}
        record["changed"] = {"defense": {"a": 1}} | {k: v for k, v in record["changed"].items() if k != "defense"}
        words = record["command"][: record["command"].index("--set")]
        words[words.index("none")] = "smooth"
        pairs = [f"{k}.{n}={json.dumps(v)}" for k, fields in record["changed"].items() for n, v in fields.items()]
        record["command"] = [*words, *(word for pair in pairs for word in ("--set", pair))]

    forged.change_record(edit)
    found = check(forged.folder)
    assert found.problems == ()
    (record,) = found.records.values()
    assert record.level == "self-reported"
    assert "its defense smooth is not available here (its package elsewhere is not installed here)" in record.notes[0]
    forged.change_record(lambda record: record["changed"]["attack"].clear())
    assert "expected the command of the record" in refusal(check, forged.folder)


def test_a_defense_with_a_built_in_name(check: Check, forged) -> None:
    def edit(record: dict[str, Any]) -> None:
        record["cell"]["defense"] = {"name": "none", "distribution": "elsewhere", "version": 1, "fields": {}}

    forged.change_record(edit)
    assert "was made with defense none of elsewhere, version 1, but here it belongs to privbench" in refusal(
        check, forged.folder
    )


def test_an_evaluator_of_a_package_that_is_not_installed(check: Check, forged) -> None:
    def edit(record: dict[str, Any]) -> None:
        record["cell"]["evaluators"].append({"name": "mine", "distribution": "elsewhere", "version": 1, "fields": {}})
        score = json.loads(json.dumps(record["scores"]["accuracy"])) | {"evaluator": "mine"}
        score["definition"]["name"] = "my_score"
        record["scores"]["my_score"] = score
        place = record["command"].index("--set")
        record["command"][place:place] = ["--evaluator", "mine"]

    forged.change_record(edit)
    (record,) = check(forged.folder).records.values()
    assert record.level == "self-reported"
    assert record.notes == ("mine was not recomputed: its package elsewhere is not installed here",)
    assert "my_score" not in record.scores
    assert {score.outcome for score in record.scores.values()} == {"equal"}


def test_missing_evidence(check: Check, forged) -> None:
    path = forged.path("evidence/Negatives")
    forged.drop(path)
    forged.change_index(lambda index: index["records"][0]["evidence"].pop("Negatives"))
    (record,) = check(forged.folder).records.values()
    assert record.level == "self-reported"
    assert record.notes == ("verified_acc was not recomputed: the submission has no Negatives",)


def test_missing_data(verifier: Path, honest: Path, monkeypatch) -> None:
    def load(self: Digits, part: str, root: Path) -> None:
        raise MissingDataError("expected digits, found none; get them")

    monkeypatch.setattr(Digits, "load", load)
    session = Session(Store(verifier), verifier, torch.device("cpu"))
    (record,) = verify_submission(honest, session).records.values()
    assert record.level == "self-reported"
    assert record.notes == ("not recomputed: expected digits, found none; get them",)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (0.5, 0.5 + 1e-6, True),
        (0.5, 0.501, False),
        (1000.0, 1000.05, True),
        (1000.0, 1001.0, False),
        (None, None, True),
        (None, 0.0, False),
        ((0.1, 0.2), [0.1, 0.2], True),
        ((0.1, 0.2), [0.1], False),
        ({"draws": None}, {"draws": None}, True),
        ({"draws": 1.0}, {}, False),
        (0.0, 1e-9, True),
    ],
)
def test_rounding(ours: object, theirs: object, same: bool) -> None:
    assert recompute.is_close(ours, theirs) is same


def test_a_submission_has_the_same_bytes_as_the_record(honest: Path, author: Path) -> None:
    """The submitted record and the record in the results are identical files."""
    (record,) = (author / "results" / "records").rglob("*.json")
    (copy,) = (honest / "records").rglob("*.json")
    assert copy.read_bytes() == record.read_bytes()
    assert isinstance(Record.model_validate_json(copy.read_bytes()), Record)
