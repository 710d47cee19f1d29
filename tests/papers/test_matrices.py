"""Matrices of published tables: cells are unique, stages are shared, invalid requests are rejected."""

import pytest
from privbench.benchmark.errors import InvalidConfigurationError, UnknownComponentError
from privbench.benchmark.papers.matrices import matrices
from privbench.benchmark.papers.table import load, tables
from privbench.benchmark.pipeline.plan import build_plan

TABLES = {table.name: table for table in tables()}


def test_a_matrix_for_each_data_set_and_attack():
    mnist, cifar = matrices(TABLES["bido-table3"], "full", [3, 4, 3])
    assert [m.datasets[0].name for m in (mnist, cifar)] == ["mnist", "cifar10"]
    assert [(d.name, d.preset) for d in cifar.defenses] == [
        ("none", "cifar10-published"),
        ("mid", "cifar10-published"),
        ("bido_coco", "cifar10-published"),
        ("bido_hsic", "cifar10-published"),
    ]
    assert (mnist.seeds, mnist.budget, mnist.attacks[0].name) == ((3, 4), "full", "kedmi")


def test_stages_are_shared(tmp_path):
    def stages(name):
        plan = build_plan(
            [cell for m in matrices(TABLES[name], "smoke", dataset="digits", controls=False) for cell in m.cells()],
            tmp_path,
        )
        kinds = [stage.kind for stage in plan.stages.values()]
        return {kind: kinds.count(kind) for kind in ("judge", "prior", "target", "scores")}

    assert stages("bido-table1") == {"judge": 1, "prior": 1, "target": 10, "scores": 10}
    assert stages("bido-table2") == {"judge": 1, "prior": 10, "target": 10, "scores": 10}


def test_rows_are_selected_by_label_or_part_of_it():
    table = TABLES["bido-table1"]
    assert [row.label for row in table.select(["mid"])] == ["MID (a)", "MID (b)", "MID (c)"]
    assert [row.label for row in table.select(["bido-hsic (C)", "No Def."])] == ["No Def.", "BiDO-HSIC (c)"]
    assert [row.label for row in TABLES["bido-table4"].select(["MID"])] == ["MID"]
    assert len(table.select()) == 10
    for label in ("MDI (a)", "", " "):
        with pytest.raises(UnknownComponentError, match="row of bido-table1"):
            table.select([label])


def test_invalid_requests_are_rejected():
    with pytest.raises(InvalidConfigurationError, match=r"bido-table6, which has hyperparameters.*bido-table1"):
        matrices(TABLES["bido-table6"])
    for label in ("for Dec", "for both"):
        with pytest.raises(
            InvalidConfigurationError, match=r"can be run: It needs .* Give a folder with --set dataset\.extra="
        ):
            matrices(TABLES["xiao-table1"], labels=[label])
    with pytest.raises(InvalidConfigurationError, match=r"fixes, got bido_hsic\.lambda_x"):
        matrices(TABLES["bido-table1"], settings={"bido_hsic.lambda_x": 1})
    with pytest.raises(UnknownComponentError, match="unknown table 'bido-table33': did you mean 'bido-table3'"):
        load("bido-table33")


def cells(table, budget="quick", **options):
    return [cell for matrix in matrices(TABLES[table], budget, controls=False, **options) for cell in matrix.cells()]


def described(cell):
    attack = cell.attack.component
    return (
        cell.defense.name,
        cell.attack.name,
        getattr(attack, "mu_1", None),
        len(cell.dataset.component.attributes),
        cell.dataset.component.extra,
    )


def test_a_row_with_two_attacks_is_two_cells_and_equal_cells_are_run_once():
    found = [described(cell) for cell in cells("xiao-table1")]
    assert len(found) == len(set(found)) == 10
    for defense in ("none", "adversarial_reconstruction"):
        assert [each[1:] for each in found if each[0] == defense] == [
            ("decoder", 0.0, 40, None),
            ("feature_regression", None, 40, None),
            ("decoder", 1.0, 40, None),
            ("decoder", 1.0, 1, None),
            ("feature_regression", None, 1, None),
        ]
    layers = {
        (cell.defense.name, getattr(cell.defense.component, "layer", None), cell.attack.component.layer)
        for cell in cells("xiao-table3")
    }
    names = ("conv1", "conv2", "conv3", "conv4", "avgpool", "fc")
    assert layers == {pair for x in names for pair in (("none", None, x), ("adversarial_reconstruction", x, x))}
    weights = [cell.defense.component.lambda_2 for cell in cells("xiao-table2") if cell.attack.name == "decoder"]
    assert weights == [0, 1, 2, 3, 4, 5, 10]
    assert {(cell.defense.component.mu_2, cell.defense.component.lambda_1) for cell in cells("xiao-table2")} == {(1, 1)}


@pytest.mark.parametrize("budget", ["smoke", "quick", "full"])
@pytest.mark.parametrize("name", ["xiao-table1", "xiao-table2", "xiao-table3"])
def test_targets_of_a_table_have_the_same_recipe(name, budget):
    found = [cell for each in (name, "xiao-table1") for cell in cells(each, budget=budget)]
    recipes = [cell.defense.component.recipe for cell in found]
    assert all(recipe == recipes[0] for recipe in recipes)


def test_a_setting_that_a_row_needs_applies_only_to_it():
    found = [described(cell) for cell in cells("xiao-table1", settings={"dataset.extra": "photographs"})]
    assert len(found) == 18
    with_extra = [each[:4] for each in found if each[4] is not None]
    assert with_extra == [
        (defense, attack, weight, 40)
        for attack, weight in (("decoder", 0.0), ("feature_regression", None))
        for defense in ("none", *["adversarial_reconstruction"] * 3)
    ]


def test_rows_with_more_data_for_both_train_the_encoder_on_it_with_and_without_the_defense():
    found = cells("xiao-table1", labels=["for both"], settings={"dataset.extra": "photographs"})
    defenses = [cell.defense.component for cell in found if cell.attack.name == "decoder"]
    assert [(each.lambda_1, each.lambda_2, each.learns_extra) for each in defenses] == [(0, 0, True), (1, 0, True)]
    (usual,) = cells("xiao-table1", labels=["#6"], settings={"dataset.extra": "photographs"})[:1]
    assert not usual.defense.component.learns_extra


def test_settings_apply_to_the_attack_that_they_name():
    found = cells(
        "xiao-table1", settings={"decoder.max_steps": 3, "feature_regression.hidden": 7, "dataset.observed": 9}
    )
    for cell in found:
        attack = cell.attack.component
        assert attack.max_steps == (3 if cell.attack.name == "decoder" else 300)
        assert getattr(attack, "hidden", 7) == 7
        assert cell.dataset.component.observed == 9
    with pytest.raises(UnknownComponentError, match="scope of --set 'decodre'"):
        cells("xiao-table1", settings={"decodre.max_steps": 3})


@pytest.mark.parametrize(
    "path",
    [
        *("decoder.mu_1", "attack.mu_2", "defense.lambda_1", "adversarial_reconstruction.mu_2"),
        *("dataset.attributes", "celeba_attributes.attributes", "celeba_attributes.extra"),
    ],
)
def test_fields_that_vary_between_rows_cannot_be_set(path):
    with pytest.raises(
        InvalidConfigurationError,
        match=f"without fields that vary between the rows, which xiao-table1 fixes, got {path};",
    ):
        matrices(TABLES["xiao-table1"], settings={path: 1})


def test_rows_with_fields_that_a_substitute_lacks_are_left_out():
    found = cells("xiao-table1", dataset="digits")
    assert {(cell.dataset.name, cell.attack.name) for cell in found} == {
        ("digits", "decoder"),
        ("digits", "feature_regression"),
    }
    assert len(found) == 6
    smaller = cells("xiao-table1", dataset="celeba_attributes_subset")
    assert len(smaller) == 10
    assert {len(cell.dataset.component.attributes) for cell in smaller} == {40, 1}
    with pytest.raises(InvalidConfigurationError, match="can be run: Data set digits has no field attributes, which"):
        matrices(TABLES["xiao-table1"], labels=["Smiling"], dataset="digits")
