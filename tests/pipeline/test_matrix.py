"""Selections, settings and matrices: what they mean and how they refuse."""

import dataclasses
import json
from types import SimpleNamespace
from typing import ClassVar

import pytest
from helpers.toy_cell import ToyAttack
from hypothesis import given
from hypothesis import strategies as st
from privbench.benchmark import registry
from privbench.benchmark.core.canonical import canonical, digest
from privbench.benchmark.core.config import Budget, Configuration, Recipe, setting
from privbench.benchmark.errors import InvalidConfigurationError, PrivbenchError, UnknownComponentError
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.matrix import Matrix, cells_of, parse_settings
from privbench.benchmark.pipeline.matrix_file import read_matrix
from privbench.benchmark.pipeline.resolve import budget_values, defaults, resolve

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_canonical_json_reads_back_and_ignores_order(value: object) -> None:
    text = canonical({"b": value, "a": 1})
    assert json.loads(text) == {"a": 1, "b": value}
    assert digest({"b": value, "a": 1}) == digest({"a": 1, "b": value})


@given(st.text(max_size=40))
def test_any_setting_text_is_understood_or_refused_in_one_sentence(text: str) -> None:
    try:
        found = parse_settings([text])
    except InvalidConfigurationError as error:
        assert "--set" in str(error)
    else:
        assert len(found) == 1


class Nested(Configuration):
    recipe: Recipe = setting(Recipe(epochs=3), "training")
    width: int = setting(10, "channels", smoke=2, quick=5, ge=1)


def test_budget_reaches_nested_fields_and_full_is_as_published() -> None:
    assert budget_values(Nested, "quick") == {"recipe": {"max_steps": 150}, "width": 5}
    assert budget_values(Nested, "full") == {}
    assert defaults(Nested)["recipe"]["epochs"] == 3


def test_layers_win_in_order_class_preset_budget_user() -> None:
    digits = resolve("dataset", Selection("digits"), "quick", {})
    plain = resolve("defense", Selection("bido_hsic"), "quick", {}, digits).component
    assert (plain.lambda_x, plain.lambda_y) == (2, 20), "the preset of MNIST, Table 8, serves its family"
    named = resolve("defense", Selection("bido_hsic", "celeba-c"), "quick", {}, digits).component
    assert (named.lambda_x, named.lambda_y) == (0.05, 0.5), "Table 6"
    user = resolve(
        "defense", Selection("bido_hsic"), "quick", {"defense.lambda_x": 7, "bido_hsic.recipe.max_steps": 3}, digits
    )
    assert (user.component.lambda_x, user.component.recipe.max_steps, user.component.lambda_y) == (7, 3, 20)


class Layered(ToyAttack):
    """An attack whose field has a value in every layer."""

    presets: ClassVar = {"named": {"iterations": 50}, "digits@smoke": {"iterations": 3}}
    iterations: int = setting(100, "of the attack", smoke=2, ge=1)


def test_every_layer_wins_over_those_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A preset that names the published number of steps is still cut to the budget's."""
    digits = resolve("dataset", Selection("digits"), "smoke", {})
    monkeypatch.setattr(registry, "load", lambda kind, name: Layered)
    monkeypatch.setattr(registry, "find", lambda kind, name: SimpleNamespace(distribution="tests"))

    def steps(preset: str | None, budget: Budget, dataset: object = None, **settings: int) -> int:
        scoped = {f"{scope}.iterations": value for scope, value in settings.items()}
        found = resolve("attack", Selection("layered", preset), budget, scoped, dataset)  # type: ignore[arg-type]
        return int(found.component.iterations)

    assert steps(None, "full") == 100
    assert steps("named", "full") == 50
    assert steps("named", "smoke") == 2
    assert steps("named", "smoke", digits) == 3
    assert steps("named", "smoke", digits, attack=4) == 4
    assert steps("named", "smoke", digits, layered=5, attack=4) == 5


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "celeba", "celeba_subset", "celeba_vmi"])
@pytest.mark.parametrize("budget", ["smoke", "quick", "full"])
def test_every_defense_has_the_recipe_of_the_data_set(name: str, budget: Budget) -> None:
    """`none` was trained by SGD and BiDO by Adam, MID with 220 steps and BiDO with 70."""
    dataset = resolve("dataset", Selection(name), budget, {})
    recipes = [
        resolve("defense", Selection(defense), budget, {}, dataset).component.recipe
        for defense in registry.names("defense")
        if registry.find("defense", defense).distribution == "privbench"
    ]
    assert len(recipes) >= 5 and set(recipes) == {dataset.component.target}


def test_a_published_recipe_is_cut_to_the_steps_of_the_data_set() -> None:
    mnist = resolve("dataset", Selection("mnist"), "quick", {})
    published = resolve("defense", Selection("bido_hsic", "mnist-published"), "quick", {}, mnist).component
    assert (published.recipe.optimizer, published.recipe.learning_rate, published.lambda_y) == ("adam", 0.1, 20)
    assert published.recipe.max_steps == mnist.component.target.max_steps
    full = resolve("dataset", Selection("mnist"), "full", {})
    assert resolve("defense", Selection("none", "mnist-published"), "full", {}, full).component.recipe.max_steps is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"defense.lambda_z": 1}, ["defense.lambda_z", "did you mean 'defense.lambda_"]),
        ({"defense.recipe.epoch": 1}, ["defense.recipe.epoch", "defense.recipe.epochs"]),
        ({"defense.recipe.epochs": 0}, ["defense.recipe.epochs", "greater than or equal to 1", "0"]),
        ({"defense.lambda_x": "much"}, ["defense.lambda_x", "number", "much"]),
        ({"defense.estimator": "magic"}, ["defense.estimator", "normalized", "magic"]),
        ({"defense.recipe": 3}, ["defense.recipe", "3"]),
    ],
)
def test_wrong_fields_are_named(settings: dict[str, object], words: list[str]) -> None:
    with pytest.raises(PrivbenchError) as caught:
        resolve("defense", Selection("bido_hsic"), "quick", settings)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def _matrix(**changes: object) -> Matrix:
    values: dict[str, object] = {
        "datasets": (Selection("digits"),),
        "defenses": (Selection("none"), Selection("bido_hsic")),
        "attacks": (Selection("kedmi"),),
        "controls": False,
    }
    return Matrix(**(values | changes))  # type: ignore[arg-type]


def test_a_matrix_is_the_product_of_its_lists() -> None:
    cells = _matrix(seeds=(0, 1)).cells()
    assert [(c.defense.name, c.seed) for c in cells] == [("none", 0), ("none", 1), ("bido_hsic", 0), ("bido_hsic", 1)]


def _trained_alike(**changes: object) -> list[tuple[str, str, float, int]]:
    return [
        (cell.defense.name, cell.defense.component.selection, cell.defense.component.recipe.learning_rate, cell.seed)
        for cell in _matrix(**{"controls": True, **changes}).cells()
        if cell.defense.name != "placebo"
    ]


def test_a_defense_with_its_own_recipe_brings_none_under_that_recipe() -> None:
    """Otherwise the board compares two recipes."""
    rate = resolve("dataset", Selection("digits"), "quick", {}).component.target.learning_rate
    own = Selection("bido_hsic", "mnist-published")
    assert _trained_alike(defenses=(Selection("none"), own), seeds=(0, 1)) == [
        ("none", "best", rate, 0), ("none", "best", rate, 1),
        ("bido_hsic", "best", 0.1, 0), ("bido_hsic", "best", 0.1, 1),
        ("none", "best", 0.1, 0), ("none", "best", 0.1, 1),
    ]  # fmt: skip
    last = dataclasses.replace(own, fields={"selection": "last"})
    assert _trained_alike(defenses=(last,))[1:] == [("none", "last", 0.1, 0)]
    assert [found[0] for found in _trained_alike(defenses=(own,), controls=False)] == ["bido_hsic"]
    both = (Selection("none"), Selection("bido_hsic"))
    assert len(_trained_alike(defenses=both, settings={"defense.recipe.epochs": 3})) == 2, (
        "none has that recipe already"
    )


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"budget": "quik"}, "budget"),
        ({"seeds": (-1,)}, "seed"),
        ({"seeds": ()}, "seeds"),
        ({"settings": {"atack.iterations": 5}}, "atack"),
        ({"defenses": (Selection("bido_hsik"),)}, "bido_hsic"),
        ({"defenses": (Selection("bido_hsic", "celeba-x"),)}, "celeba-x"),
    ],
)
def test_a_wrong_matrix_is_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(PrivbenchError, match=word):
        _matrix(**changes).cells()


def test_a_matrix_file_names_the_path_of_a_wrong_entry(tmp_path) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text('defenses = ["none"]\nattacks = ["kedmi", {name = "kedmi", iterations = 0}]\n')
    with pytest.raises(InvalidConfigurationError, match=r"attacks\[1\]\.iterations"):
        read_matrix(path).cells()


@pytest.mark.parametrize(
    "text",
    ["defenses = [", "defenses = 'none'", "attacks = ['kedmi']", "defense = ['none']", "defenses=['none']\nattacks=[3]",
     "defenses=['none']\nattacks=['kedmi']\nseeds=1", "defenses=['none']\nattacks=['kedmi']\nset=1"],
)  # fmt: skip
def test_a_damaged_matrix_file_is_one_sentence(tmp_path, text: str) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text(text)
    with pytest.raises(PrivbenchError) as caught:
        read_matrix(path).cells()
    assert "\n" not in str(caught.value).strip()


def test_a_matrix_file_says_the_same_as_options(tmp_path) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text(
        'defenses = [{name = "bido_hsic", preset = "celeba-c", lambda_x = 1.5}]\nattacks = ["kedmi"]\n'
        "budget = 'smoke'\nseeds = [3]\n[set]\n'attack.iterations' = 9\n"
    )
    cell = read_matrix(path).cells()[0]
    assert (cell.defense.component.lambda_x, cell.defense.component.lambda_y) == (1.5, 0.5)
    assert (cell.seed, cell.budget, cell.attack.component.iterations) == (3, "smoke", 9)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UnknownComponentError, match="did you mean 'kedmi'"):
        _matrix(attacks=(Selection("kedmy"),)).cells()


PLACEBOS = [("digits", "placebo", "kedmi", 7), ("digits", "placebo", "gmi", 7)]


def _names(cells) -> list[tuple[str, str, str, int]]:
    return [(cell.dataset.name, cell.defense.name, cell.attack.name, cell.seed) for cell in cells]


def test_each_attack_on_labels_also_attacks_one_placebo_after_all_other_cells() -> None:
    attacks = tuple(map(Selection, ("kedmi", "gmi", "decoder")))
    made = _matrix(attacks=attacks, seeds=(7, 8), controls=True)
    cells = made.cells()
    assert len(cells) == 2 * 3 * 2 + 2
    assert _names(cells[-2:]) == PLACEBOS
    assert _names(cells[:-2]) == _names(_matrix(attacks=attacks, seeds=(7, 8)).cells())
    both = _matrix(datasets=(Selection("digits"), Selection("mnist")), controls=True).cells()
    assert [cell.defense.name for cell in both] == ["none", "bido_hsic"] * 2 + ["placebo"] * 2
    several = cells_of([made, _matrix(controls=True)])
    assert [cell.defense.name == "placebo" for cell in several] == [False] * (len(several) - 3) + [True] * 3


def test_a_placebo_that_is_named_is_not_added_again() -> None:
    named = _matrix(defenses=(Selection("none"), Selection("placebo")), seeds=(1, 2), controls=True).cells()
    assert [(cell.defense.name, cell.seed) for cell in named] == [
        *(("none", 1), ("none", 2), ("placebo", 1), ("placebo", 2)),
    ]


def test_an_attribute_task_has_no_placebo() -> None:
    attributes = _matrix(
        datasets=(Selection("celeba_attributes_subset"),), defenses=(Selection("none"),), controls=True
    )
    assert _names(attributes.cells()) == [("celeba_attributes_subset", "none", "kedmi", 0)]


def test_a_placebo_takes_the_recipe_of_all_defenses_and_its_own_settings_only() -> None:
    settings = {"defense.lambda_x": 3, "defense.recipe.max_steps": 5, "placebo.recipe.batch_size": 9}
    *_, placebo = _matrix(defenses=(Selection("bido_hsic"),), settings=settings, controls=True).cells()
    recipe = placebo.defense.component.recipe
    assert (placebo.defense.name, recipe.max_steps, recipe.batch_size) == ("placebo", 5, 9)
    with pytest.raises(UnknownComponentError, match="placebo"):
        _matrix(settings=settings).cells()


def test_a_matrix_file_can_do_without_controls(tmp_path) -> None:
    path = tmp_path / "matrix.toml"
    path.write_text("defenses = ['none']\nattacks = ['kedmi']\ncontrols = false\n")
    assert len(read_matrix(path).cells()) == 1
    path.write_text("defenses = ['none']\nattacks = ['kedmi']\n")
    assert len(read_matrix(path).cells()) == 2
    path.write_text("defenses = ['none']\nattacks = ['kedmi']\ncontrols = 'no'\n")
    with pytest.raises(InvalidConfigurationError, match="expected controls to be true or false, got 'no'"):
        read_matrix(path)
