"""Records: they round-trip, newer or damaged ones are refused, and only equal cells are averaged."""

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import samples
from hypothesis import given, settings
from hypothesis import strategies as st
from privbench import load_records
from privbench.benchmark.analysis.aggregate import sections
from privbench.benchmark.analysis.record_set import Records
from privbench.benchmark.cli.run import undefined_scores
from privbench.benchmark.errors import IncompatibleRecordError, MissingDataError, StorageError
from privbench.benchmark.files.tree import Tree
from privbench.benchmark.records import bounds
from privbench.benchmark.records.record import MAX_BYTES, SCHEMA, Record, location, read, save
from privbench.benchmark.records.verification import write_verification
from privbench.benchmark.report.formatting import format_score
from pydantic import ValidationError
from scipy import stats

make_record, make_score, choice = samples.make_record, samples.make_score, samples.choice


def together(*records: Record) -> Records:
    return Records(records, tuple(Path(f"{record.key}.json") for record in records))


def with_score(value: float | None, seed: int, name: str = "attack_acc", **more: object) -> Record:
    reason = None if value is not None else f"seed {seed} failed"
    return make_record(seed=seed, scores={name: make_score(name, value, reason, **more)})


def test_round_trip_keeps_every_byte(tmp_path):
    record = make_record(picture=True, flags=[{"name": "weak", "message": samples.HOSTILE + samples.RIGHT_TO_LEFT}])
    path = save(record, tmp_path, samples.random_picture())
    assert path == tmp_path / "records" / "digits-v1" / "none" / "kedmi" / f"{record.key}.json"
    assert read(path) == record
    before = path.read_bytes()
    assert save(read(path), tmp_path, samples.random_picture()) == path
    assert path.read_bytes() == before
    assert sorted(file.name for file in path.parent.iterdir()) == [f"{record.key}.json", f"{record.key}.png"]
    assert json.loads(before) == record.model_dump(mode="json")


@settings(max_examples=40, deadline=None)
@given(
    value=st.floats(0, bounds.MAX_VALUE),
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    curve=st.lists(st.tuples(st.integers(0, 2**40), st.none() | st.floats(-1e300, 1e300)), max_size=5),
)
def test_any_number_and_text_survive(value, text, curve):
    score = make_score("fid_judge", value, spreads={text: value}, notes=[text], per_class=[value, None])
    record = make_record(scores={"fid_judge": score}, command=[text], curves={text: {text: {text: curve}}})
    assert Record.model_validate_json(record.text()) == record
    assert Record.model_validate_json(record.text()).text() == record.text()


def test_the_file_is_easy_to_review():
    text = make_record().text()
    keys = [line.split('"')[1] for line in text.splitlines() if line.startswith(' "')]
    assert keys == sorted(keys)
    assert '\n  "interval": [' not in text
    assert '   "interval": [0.' in text
    assert "     [20, 1.3333]," in text
    assert max(map(len, text.splitlines())) < 130


def test_newer_schema_is_refused_before_anything_else(tmp_path):
    path = tmp_path / "new.json"
    path.write_text(json.dumps({"schema_version": SCHEMA + 1, "shape": "unknown"}))
    with pytest.raises(IncompatibleRecordError, match=rf"new\.json has schema {SCHEMA + 1} .* upgrade privbench$"):
        read(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is an empty file"),
        (b"\xff\xfe", "can't decode byte"),
        (b"[1, 2]", "to be a JSON object: it is of type list"),
        (b"null", "to be a JSON object: it is of type NoneType"),
        (b"<html>", "it is a web page"),
        (b'{"schema_version": true}', "to be a record, got another file"),
        (b'{"schema_version": 0}', "to be a record, got another file"),
        (b'{"schema_version": 2}', "to have key, found none"),
        (b'{"schema_version": 1}', "to have key, found none"),
        (b'{"schema_version": NaN}', "NaN is not JSON"),
        (b'{"schema_version": 1, "schema_version": 2}', "a name appears twice"),
        (b'{"schema_version": 1, "cell": {"n": [1e999]}}', "Out of range"),
        (b'{"schema_version": 1, "n": "\\ud800"}', "encode character"),
        (b'{"schema_version": 1, "n": ' + b"9" * 5000 + b"}", "5000 digits"),
        (b'{"schema_version": 1, "judge": ' + b"[" * 50 + b"]" * 50 + b"}", "nested more than 24 levels deep"),
        (b'{"schema_version": 1, "n": ' + b"[" * 50 + b"]" * 50 + b"}", "nested more than 24 levels deep"),
        (b"[" * 200_000, "nested more than 24 levels deep"),
        (b" " * (MAX_BYTES + 1), "larger than 8,388,608 bytes"),
    ],
)
def test_files_that_are_not_records_get_one_sentence(tmp_path, content, reason):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(IncompatibleRecordError) as caught:
        read(path)
    message = str(caught.value)
    assert reason in message
    assert "bad.json" in message
    assert "\n" not in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"key": "../../etc/passwd"}, "key"),
        ({"protocol": "../v1"}, "protocol"),
        ({"protocol": "digits"}, "protocol"),
        ({"created": "yesterday"}, "created"),
        ({"created": "2026-01-31T12:00:00+02:00"}, "UTC"),
        ({"created": "2026-01-31T12:00:00"}, "UTC"),
        ({"surprise": 1}, "surprise"),
        ({"scores": {"fid_inception": samples.make_score("fid_inception", 1.0)}}, "does not list"),
        ({"scores": {"accuracy": samples.make_score("accuracy", None)}}, "value or a reason"),
        ({"scores": {"accuracy": samples.make_score("accuracy", 0.5, "but why")}}, "value or a reason"),
        ({"scores": {"accuracy": samples.make_score("accuracy", math.nan)}}, "finite"),
        ({"cell": {"attack": samples.choice("../gmi")}}, "attack"),
        ({"cell": {"budget": "huge"}}, "budget"),
    ],
)
def test_inconsistent_records_cannot_be_made(change, where):
    with pytest.raises(ValidationError, match=where):
        make_record(**change)


def test_the_picture_is_named_after_the_key():
    with pytest.raises(ValidationError, match="named after the key"):
        Record.model_validate(make_record().model_dump() | {"picture": "../secret.png"})


def test_unreadable_records_of_a_folder_are_named(tmp_path):
    paths = samples.save_matrix(tmp_path, seeds=1, attacks=("kedmi",))
    bad = tmp_path / "records" / "digits-v1" / "broken.json"
    bad.write_text("{")
    (bad.parent / ".half.json").write_text("{")
    (tmp_path / "other.json").write_text("{}")
    records = load_records(tmp_path)
    assert len(records) == len(paths) == 4
    assert len(records.problems) == 1
    assert "broken.json" in records.problems[0]
    assert [record.key for record in load_records(tmp_path / "records")] == [record.key for record in records]
    assert [record.key for record in load_records(str(paths[0]))] == [paths[0].stem]
    with pytest.raises(IncompatibleRecordError, match=r"broken\.json"):
        load_records(tmp_path, strict=True)
    with pytest.raises(IncompatibleRecordError):
        load_records(bad)
    with pytest.raises(MissingDataError, match="privbench run"):
        load_records(tmp_path / "nowhere")


def test_a_duplicate_record_counts_once(tmp_path):
    first = save(make_record(), tmp_path)
    copy = first.parent / "copy.json"
    copy.write_bytes(first.read_bytes())
    assert len(load_records(tmp_path)) == 1
    assert not load_records(tmp_path).problems
    other = Record.model_validate(make_record().model_dump() | {"queries": {"forward": 1}})
    copy.write_text(other.text())
    assert len(load_records(tmp_path)) == 1
    assert "same key" in load_records(tmp_path).problems[0]


def test_unwritable_folder_leaves_nothing(tmp_path):
    (tmp_path / "records").write_text("a file in the way")
    with pytest.raises(StorageError, match="not a directory; choose another results folder"):
        save(make_record(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["records"]


def test_failed_write_keeps_the_old_record(tmp_path, monkeypatch):
    path = save(make_record(), tmp_path)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        StorageError, match="no space left on device; free some space, or choose another results folder"
    ):
        save(Record.model_validate(make_record().model_dump() | {"queries": {}}), tmp_path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_record_is_not_written_before_its_picture(tmp_path, monkeypatch):
    real = Tree.write_file

    def full(tree, path, content):
        if path.suffix == ".png":
            raise OSError(28, "No space left on device")
        real(tree, path, content)

    monkeypatch.setattr(Tree, "write_file", full)
    with pytest.raises(StorageError, match="no space left on device"):
        save(make_record(picture=True), tmp_path, samples.random_picture())
    assert not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize("place", ["records", "records/digits-v1", "records/digits-v1/none", "verifications"])
def test_nothing_is_written_through_a_link_of_the_results(tmp_path, place):
    """The results folder itself may be one."""
    results, outside = tmp_path / "results", tmp_path / "outside"
    save(make_record(), results)
    (results / "verifications").mkdir()
    (results / place).rename(outside)
    (results / place).symlink_to(outside)
    before = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    with pytest.raises(StorageError, match=r"is a symbolic link; remove the link, or choose another results folder"):
        if place == "verifications":
            found = SimpleNamespace(text=lambda: "{}", records={}, model_copy=lambda update: found)
            write_verification(found, results, "name")
        else:
            save(make_record(), results)
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == before
    (tmp_path / "alias").symlink_to(tmp_path / "new")
    (tmp_path / "new").mkdir()
    assert save(make_record(), tmp_path / "alias").resolve().is_relative_to(tmp_path / "new")


def test_picture_is_a_png_beside_the_record_or_none(tmp_path):
    record = make_record(picture=True)
    path = save(record, tmp_path, samples.random_picture())
    assert load_records(path).picture(record) == samples.random_picture()
    path.with_suffix(".png").write_bytes(b"<svg onload=alert(1)>")
    assert load_records(path).picture(record) is None
    path.with_suffix(".png").unlink()
    assert load_records(path).picture(record) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_seeds_give_scipys_t_interval(values):
    row = together(*(with_score(value, seed) for seed, value in enumerate(values))).wide_rows()[0]
    mean, sem = sum(values) / len(values), stats.sem(values)
    assert row["attack_acc"] == pytest.approx(mean, abs=1e-12)
    assert row["attack_acc.seeds"] == len(values)
    assert row["attack_acc.n"] == 500 * len(values)
    assert row["attack_acc.std"] == pytest.approx(math.sqrt(len(values)) * sem, abs=1e-9)
    if len(set(values)) == 1:
        assert row["attack_acc.low"] is None
    elif sem > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, mean, sem)
        assert row["attack_acc.low"] == pytest.approx(max(0.0, low), abs=1e-9)
        assert row["attack_acc.high"] == pytest.approx(min(1.0, high), abs=1e-9)


def test_one_seed_has_its_own_interval_and_no_spread():
    row = together(with_score(0.5, 0, interval=[0.4, 0.6])).wide_rows()[0]
    assert (row["attack_acc.low"], row["attack_acc.high"], row["attack_acc.std"]) == (0.4, 0.6, None)
    row = together(with_score(0.5, 0)).wide_rows()[0]
    assert (row["attack_acc.low"], row["attack_acc.std"]) == (None, None)


def test_an_interval_over_seeds_stays_within_the_range_of_its_unit():
    for unit, values, end, bound in (("similarity", (0.99, 0.95, 0.999), 1, 1.0), ("ratio", (0.1, 2.0), 0, 0.0)):
        records = []
        for seed, value in enumerate(values):
            score = make_score("attack_acc", value)
            score["definition"]["unit"] = unit
            records.append(make_record("none", seed=seed, scores={"attack_acc": score}))
        ((row,),) = [section.rows for section in sections(records)]
        assert row.scores["attack_acc"].interval[end] == bound


def test_missing_stays_missing_with_its_reason():
    row = together(with_score(0.5, 0), with_score(None, 1), with_score(0.7, 2)).wide_rows()[0]
    assert row["attack_acc"] == pytest.approx(0.6)
    assert row["attack_acc.seeds"] == 2
    assert row["attack_acc.reason"] == "seed 1: seed 1 failed"
    row = together(with_score(None, 0)).wide_rows()[0]
    assert row["attack_acc"] is None
    assert row["attack_acc.reason"] == "seed 0 failed"


def test_an_evaluator_that_did_not_run_explains_its_column():
    evaluators = [choice("accuracy"), choice("attack_acc", resamples=2000), choice("fid"), choice("fid_inception")]
    full = make_record(
        "none", scores={"fid_inception": make_score("fid_inception", 9.0)}, cell={"evaluators": evaluators}
    )
    rows = together(full, make_record("mid")).wide_rows()
    missing = next(row for row in rows if row["defense"] == "mid")
    assert missing["fid_inception"] is None
    assert missing["fid_inception.reason"] == "Inception weights are not on this machine"
    assert missing["accuracy"] is not None
    other = next(row for row in rows if row["defense"] == "none")
    assert other["accuracy.reason"] == "was not scored"


def test_a_score_that_the_attack_gives_nothing_for_is_a_dash():
    reasons = {"attack_acc": {"code": "not_applicable", "reason": "decoder gives no ClassReconstructions"}}
    scores = {"accuracy": make_score("accuracy", 0.9)}
    records = [make_record("none", "kedmi"), make_record("none", "decoder", scores=scores, not_run=reasons)]
    ((decoder, kedmi),) = [section.rows for section in sections(records)]
    assert format_score(decoder.scores["attack_acc"], 1).value == "-"
    assert format_score(decoder.scores["attack_acc"], 1).reason == ""
    assert decoder.scores["attack_acc"].reason == "decoder gives no ClassReconstructions"
    assert format_score(kedmi.scores["attack_acc"], 1).value not in {"-", "n/a"}
    lost = make_record(
        "none",
        "decoder",
        scores=scores,
        not_run={"attack_acc": {"code": "unavailable", "reason": "weights are missing"}},
    )
    ((decoder, _),) = [section.rows for section in sections([records[0], lost])]
    assert format_score(decoder.scores["attack_acc"], 1).value == "n/a"


def test_a_score_without_a_meaning_here_is_a_dash_and_no_failure():
    def record(**changes: object) -> Record:
        undefined = make_score("attack_acc", 0.5) | {"value": None, "reason": "five of five", **changes}
        return make_record(scores={"accuracy": make_score("accuracy", 0.9), "attack_acc": undefined})

    for known, shown in ((True, "-"), (False, "n/a")):
        made = record(not_applicable=known)
        ((row,),) = [section.rows for section in sections([made])]
        assert format_score(row.scores["attack_acc"], 1).value == shown
        assert [text.split(": ")[1] for text in undefined_scores(together(made))] == (
            [] if known else ["attack_acc is undefined"]
        )


def test_an_evaluator_of_other_evidence_is_not_missed():
    reasons = {
        "ssim": {"code": "not_applicable", "reason": "not applicable to kedmi, which gives no PairedReconstructions"},
        "fid_inception": {"code": "unavailable", "reason": "weights are missing"},
    }
    (section,) = sections([make_record("none", not_run=reasons)])
    assert section.not_run == (("fid_inception", "weights are missing"),)


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "digits/v2"},
        {"budget": "smoke"},
        {"cell": {"dataset": choice("digits", judge={"epochs": 6})}},
        {"cell": {"dataset": choice("digits", 2, judge={"epochs": 5})}},
        {"cell": {"defense": choice("none", 2, recipe={"learning_rate": 0.1})}},
        {"cell": {"defense": choice("none", recipe={"learning_rate": 0.2})}},
        {"cell": {"defense": choice("none", recipe={"learning_rate": 0.1}) | {"distribution": "rival"}}},
        {"cell": {"attack": choice("kedmi", iterations=301)}},
        {"cell": {"evaluators": [choice("accuracy"), choice("attack_acc", 2, resamples=2000), choice("fid")]}},
        {"cell": {"evaluators": [choice("accuracy"), choice("attack_acc", resamples=100), choice("fid")]}},
    ],
)
def test_different_cells_are_never_averaged(change):
    rows = together(make_record(seed=0), make_record(seed=1), make_record(seed=2, **change)).wide_rows()
    assert sorted(row["seeds"] for row in rows) == [1, 2]
    names = ("protocol", "budget", "dataset", "defense", "attack", "evaluators")
    assert len({tuple(row[name] for name in names) for row in rows}) == 2


def test_a_seed_scored_again_counts_once():
    more = [choice("accuracy"), choice("attack_acc", resamples=2000), choice("fid"), choice("lpips")]
    old = make_record(seed=0, scores={"attack_acc": make_score("attack_acc", 0.2)})
    new = make_record(
        seed=0,
        scores={"attack_acc": make_score("attack_acc", 0.4)},
        cell={"evaluators": more},
        created="2027-01-01T00:00:00+00:00",
    )
    row = together(new, old).wide_rows()[0]
    assert (row["seeds"], row["attack_acc"], row["attack_acc.seeds"]) == (1, 0.4, 1)


def test_labels_show_what_the_user_changed_and_what_differs():
    plain = make_record("mid")
    changed = make_record(
        "mid",
        cell={"defense": choice("mid", beta=0.5, recipe={"epochs": 3})},
        changed={"defense": {"recipe": {"epochs": 3}}},
    )
    assert together(plain).wide_rows()[0]["defense"] == "mid"
    assert together(changed).wide_rows()[0]["defense"] == "mid recipe.epochs=3"
    labels = sorted(row["defense"] for row in together(plain, changed).wide_rows())
    assert labels == ["mid lambda_x=2.0 recipe.learning_rate=0.1", "mid recipe.epochs=3 beta=0.5"]


def test_frames_hold_the_same_rows():
    records = together(*(make_record(defense, seed=seed) for defense in ("none", "mid") for seed in (0, 1)))
    long, wide = records.long(), records.wide()
    assert len(long) == 4 * (4 + 1)
    assert len(wide) == 2
    scored = long[long["score"] == "attack_acc"]
    means = scored.groupby("defense")["value"].mean()
    assert means["mid"] == pytest.approx(wide.set_index("defense")["attack_acc"]["mid"])
    assert set(long[long["score"].isna()]["evaluator"]) == {"fid_inception"}
    assert Records().long().empty
    assert Records().wide().empty


def test_location_stays_inside_the_results(tmp_path):
    assert location(make_record(), tmp_path).is_relative_to(tmp_path)


def test_numbers_that_overflow_are_refused_in_every_part(tmp_path):
    whole = json.loads(make_record().text())
    assert whole["curves"]
    places = list(_numbers(whole))
    assert len(places) > 30
    for path in places:
        changed = json.loads(make_record().text())
        inside = changed
        for step in path[:-1]:
            inside = inside[step]
        inside[path[-1]] = "OVERFLOW"
        file = tmp_path / "bad.json"
        file.write_text(json.dumps(changed).replace('"OVERFLOW"', "1e999"))
        with pytest.raises(IncompatibleRecordError):
            read(file)


def _numbers(value, path=()):
    if isinstance(value, dict | list):
        for step, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(child, (*path, step))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path
