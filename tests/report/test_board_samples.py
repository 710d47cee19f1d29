"""Tests of the sampled records: valid, different, in range."""

from helpers import board_samples as samples
from privbench import load_records


def test_records_are_different_and_in_range(tmp_path):
    paths = samples.write_many(tmp_path, 180)
    records = load_records(tmp_path, strict=True)
    assert len(records) == len(set(paths)) == 180
    assert all(record.key == path.stem for record, path in zip(records.items, records.paths, strict=True))
    sections = records.sections()
    assert len({(section.protocol, section.budget) for section in sections}) == len(sections) == 4
    assert {len(row.seeds) for section in sections for row in section.rows} == {1, 2, 3}
    scores = [score for record in records for score in record.scores.values()]
    known = [score for score in scores if score.value is not None]
    assert 0 < len(scores) - len(known) < 0.1 * len(scores)
    assert len({score.value for score in known}) > len(known) / 4
    for score in known:
        low, high = score.interval or (score.value, score.value)
        assert low <= score.value <= high
        if score.definition.unit == "fraction":
            assert all(0 <= value <= 1 for value in (low, high, *(p for p in score.per_class or () if p is not None)))
    assert all((records.picture(record) is not None) == (record.picture is not None) for record in records)


def test_equal_seeds_give_equal_files(tmp_path):
    first, second = (samples.write_many(tmp_path / name, 20, seed=3) for name in ("a", "b"))
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_one_table_has_a_row_for_each_record(tmp_path):
    samples.write_many(tmp_path, 60, one_table=True)
    (section,) = load_records(tmp_path, strict=True).sections()
    assert len(section.rows) == 60


def test_hostile_texts_are_in_every_free_field(tmp_path):
    paths = samples.write_hostile(tmp_path)
    records = load_records(tmp_path)
    assert len(records) == len(paths)
    assert len(records.problems) == 1
    assert samples.HOSTILE["image"] in records.problems[0]
    for text in samples.HOSTILE.values():
        record = next(r for r in records if r.environment.cpu == text)
        score = record.scores["attack_acc"]
        texts = [
            record.cell.defense.distribution,
            score.definition.title,
            score.definition.formula,
            score.definition.name,
        ]
        texts += [*record.command, *score.notes, *score.spreads, *record.changed, *record.not_run, *record.queries]
        texts += [record.flags[0].name, record.flags[0].message, *record.curves, *record.costs, *record.artifacts]
        texts += [record.scores["fid_judge"].reason, *record.judge, *record.cell.attack.fields]
        assert texts.count(text) >= 16
