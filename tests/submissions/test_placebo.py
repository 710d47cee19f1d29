"""A placebo in a submission: one training of it is enough, whatever the seeds of the defenses are."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.samples import choice, make_record
from privbench.benchmark.analysis.record_set import Records
from privbench.benchmark.errors import CorruptArtifactError, InvalidConfigurationError
from privbench.benchmark.submissions import bundle, verify
from privbench.benchmark.submissions.check_components import _is_same_command


def attacked(defense: str, seed: int, distribution: str = "privbench"):
    return make_record(defense, seed=seed, cell={"defense": choice(defense) | {"distribution": distribution}})


def declared(*records, seeds=(0, 1)):
    return SimpleNamespace(records=records, index=SimpleNamespace(seeds=seeds), folder=Path("here"))


def test_it_needs_one_seed_and_a_defense_all() -> None:
    records = (attacked("none", 0), attacked("none", 1), attacked("placebo", 0))
    assert bundle._shared_seeds(Records(records)) == (0, 1)
    verify._require_seeds(declared(*records))
    with pytest.raises(InvalidConfigurationError, match="to have the seeds 0, 1"):
        bundle._shared_seeds(Records((*records[:2], attacked("mid", 0))))


@pytest.mark.parametrize("wrong", [attacked("placebo", 7), attacked("placebo", 0, "another")])
def test_it_is_of_a_declared_seed_and_built_in(wrong) -> None:
    with pytest.raises(CorruptArtifactError, match="each of the seeds 0, 1 once"):
        verify._require_seeds(declared(attacked("none", 0), attacked("none", 1), wrong))


def test_commands_from_before_there_were_controls_are_accepted() -> None:
    words = ["privbench", "run", "--defense", "none", "--set", "a=1", "--set", "b=2"]
    now = [*words[:4], "--no-controls", "--set", "b=2", "--set", "a=1"]
    assert _is_same_command(words, now) and _is_same_command(now, now)
    assert not _is_same_command([*words[:3], "mid", *words[4:]], now)
