"""What no field can be is refused in one sentence, wherever it is given: `--set`, a matrix file, Python."""

import functools

import pytest
from privbench.benchmark.errors import InvalidConfigurationError
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix, parse_settings
from privbench.benchmark.pipeline.matrix_file import MAX_BYTES, read_matrix

HEAD = 'defenses = ["none"]\nattacks = ["kedmi"]\n'
LONG = "9" * 5000
DEEP = functools.reduce(lambda inner, _: [inner], range(5000), 1)
CYCLE: list = []
CYCLE.append(CYCLE)


def matrix(**changes) -> Matrix:
    given = {"datasets": (Selection("digits"),), "defenses": (Selection("none"),), "attacks": (Selection("kedmi"),)}
    return Matrix(**given | {"budget": "smoke"} | changes)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("attack.iterations=" + "[" * 3000 + "]" * 3000, "expected attack.iterations to have fewer levels, got [["),
        ("attack.iterations=" + "[" * 300 + "]" * 300, "attack.iterations to be nested at most 64 levels deep"),
        ("attack." + "a." * 5000 + "b=1", "to have at most 64 parts, got 5002"),
        (f"attack.iterations={LONG}", "expected attack.iterations to have integers of fewer digits, got 99"),
        (f"attack.iterations={LONG[:4000]}", "attack.iterations to have integers from -2**63 to 2**63 - 1"),
        (f"attack.iterations=+{LONG[:400]}", "attack.iterations to have integers from -2**63 to 2**63 - 1"),
        (f"defense.recipe.milestones=[3, -{LONG[:40]}]", "defense.recipe.milestones to have integers from -2**63"),
        ("attack.iterations=1e300", "expected attack.iterations to be "),
        (f"defense.recipe.learning_rate={LONG}.0", "learning_rate to be a finite number"),
    ],
)
def test_settings(setting, said):
    with pytest.raises(InvalidConfigurationError) as info:
        matrix(settings=parse_settings([setting])).cells()
    assert said in str(info.value)
    assert len(str(info.value)) < 400


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = " + "[" * 3000 + "]" * 3000, "it is nested more than 64 levels deep"),
        ("set = " + "{a = " * 3000 + "1" + "}" * 3000, "it is nested more than 64 levels deep"),
        ("set." + "a." * 3000 + "b = 1", "it is nested more than 64 levels deep"),
        ("[set." + "a." * 3000 + "b]\nc = 1", "it is nested more than 64 levels deep"),
        (f"seeds = [{LONG}]", "an integer in it has too many digits"),
        (
            f"seeds = [0x{'f' * 5000}]",
            "expected seeds to have integers from -2**63 to 2**63 - 1, got ",
        ),
        ("#" + " " * MAX_BYTES, "it has more than 16,777,216 bytes"),
        ("set = {attack.iterations = 1", "cannot be read as TOML: "),
    ],
)
def test_matrix_files(tmp_path, text, said):
    (tmp_path / "matrix.toml").write_text(HEAD + text)
    with pytest.raises(InvalidConfigurationError) as info:
        read_matrix(tmp_path / "matrix.toml").cells()
    assert said in str(info.value)
    assert len(str(info.value)) < 400


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"attack.iterations": DEEP}},
        {"settings": {"attack.iterations": CYCLE}},
        {"seeds": (1 << 50_000,)},
        {"attacks": (Selection("kedmi", fields={"iterations": 1 << 70}),)},
        {"attacks": (Selection("kedmi", fields={"iterations": {"a": DEEP}}),)},
    ],
)
def test_python(changes):
    with pytest.raises(InvalidConfigurationError, match=r"^expected (attack\.iterations|seed) to "):
        matrix(**changes).cells()


def test_what_fields_can_be_is_taken(tmp_path):
    (tmp_path / "matrix.toml").write_text(HEAD + "seeds = [9223372036854775807]\nset.attack.iterations = 3\n")
    cells = read_matrix(tmp_path / "matrix.toml").cells()
    assert (cells[0].seed, cells[0].attack.component.iterations) == (2**63 - 1, 3)
