"""`privbench paper list | show | run | compare`, as a user sees them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from helpers import command_line
from privbench.benchmark import api
from privbench.benchmark.papers.table import load, names
from privbench.benchmark.records.record import Record, save
from privbench.benchmark.runners.outcome import Outcome

LABEL = "MNIST: BiDO-HSIC"


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    for name in ("STORE", "RESULTS", "DATA"):
        monkeypatch.setenv(f"PRIVBENCH_{name}", str(tmp_path / name.lower()))


def invoke(*words):
    return command_line.run("paper", *words)


def refusal(*words):
    return command_line.refusal("paper", *words)


def flat(text):
    return " ".join(text.split())


def score(name, value, interval=None, unit="fraction"):
    definition = {"name": name, "title": name, "measures": "leakage", "better": "lower", "formula": "", "range": ""}
    return {
        "evaluator": {"attack_acc5": "attack_acc", "fid_judge": "fid"}.get(name, name),
        "definition": {**definition, "unit": unit},
        "value": value,
        "interval": interval,
        "n": 500,
        "reason": "the covariance is singular" if value is None else None,
    }


def record(
    label=LABEL,
    *,
    table="bido-table3",
    attack=None,
    protocol="mnist/v2",
    budget="full",
    seed=0,
    scores=None,
    changed=None,
):
    (row,) = load(table).select([label])
    attack = attack or row.cell.attacks[0]
    scores = scores or [
        score("accuracy", 0.9961, (0.99, 0.998)),
        score("attack_acc", 0.08, (0.02, 0.12)),
        score("attack_acc5", 0.5, (0.4, 0.6)),
        score("fid_bido", 322.5, unit="distance"),
    ]
    sets = row.cell.fields
    choices = {
        "dataset": (protocol.partition("/")[0], {**load(table).requires, **sets.get("dataset", {})}),
        "defense": (row.cell.defense, row.cell.configuration(budget)),
        "attack": (attack, sets.get(attack, {})),
    }
    made = {
        kind: {"name": name, "distribution": "privbench", "version": 1, "fields": fields}
        for kind, (name, fields) in choices.items()
    }
    evaluators = [{"distribution": "privbench", "version": 1, "fields": {}, "name": s["evaluator"]} for s in scores]
    unique = {each["name"]: each for each in evaluators}
    return Record.model_validate(
        {
            "key": f"{hash((label, attack, protocol, budget, seed, str(scores))) & (2**250 - 1):064x}",
            "protocol": protocol,
            "cell": {**made, "evaluators": list(unique.values()), "seed": seed, "budget": budget},
            "changed": changed or {},
            "command": ["privbench", "run"],
            "created": "2026-01-01T00:00:00+00:00",
            "scores": {each["definition"]["name"]: each for each in scores},
            "environment": {
                **dict.fromkeys(("privbench", "python", "torch", "platform", "cpu", "device"), "x"),
                "cores": 1,
                "threads": 1,
            },
        }
    )


@pytest.fixture
def executed(monkeypatch):
    """Replaces the runner; what it was asked for and what it answers."""
    state = SimpleNamespace(cells=None, options=None, records=[], failures={}, skipped=[])

    def execute(cells, **options):
        state.cells, state.options = cells, options
        stages = {"k": SimpleNamespace(title="target mnist none seed 0", kind="target", key="k")}
        plan = SimpleNamespace(stages=stages, skipped=state.skipped, cells={})
        outcome = Outcome(computed=["k"], failures=state.failures)
        return plan, outcome, [(made, options["results"] / f"{made.key}.json") for made in state.records]

    monkeypatch.setattr(api, "execute", execute)
    return state


def test_list():
    result = invoke("list")
    assert result.code == 0
    for name in names():
        assert name in result.out
    assert "4 of 4" in result.out
    assert "8 of 8" in result.out
    found = json.loads(invoke("list", "--json").out)
    assert [row["name"] for row in found] == names()
    assert found[3]["runnable"] == 4
    assert found[5]["kind"] == "settings"
    assert {row["name"]: row["runnable"] for row in found if "xiao" in row["name"]} == {
        "xiao-table1": 6,
        "xiao-table2": 7,
        "xiao-table3": 12,
    }


def test_show_results():
    result = invoke("show", "bido-table1")
    assert result.code == 0
    line = next(line for line in result.out.splitlines() if line.strip().startswith("BiDO-HSIC (c)"))
    assert line.split()[2:] == [
        "80.35", "6.47", "±", "2.57", "16.07", "±", "2.91", "134.63", "bido_hsic:celeba-c",
    ]  # fmt: skip
    text = flat(result.out)
    assert "Runs as gmi on celeba/v2, scored by accuracy, attack_acc, fid, fid_bido." in text
    assert "143.63" in text
    assert "± of Attack Acc: sample standard deviation over the 5 restarts" in text


def test_show_settings_beside_what_is_used():
    result = invoke("show", "bido-table6")
    line = next(line for line in result.out.splitlines() if line.strip().startswith("BiDO-COCO (c)"))
    assert flat(line) == "BiDO-COCO (c) lambda_x 5, lambda_y 50 lambda_x 5, lambda_y 25 bido_coco:celeba-c"
    facts = json.loads(invoke("show", "bido-table6", "--json").out)
    assert facts["used"]["BiDO-COCO (c)"] == {"lambda_x": 5.0, "lambda_y": 25.0}


def test_show_says_what_cannot_be_run_once():
    text = flat(invoke("show", "xiao-table1").out)
    rows = (
        "#5 none, more data for Dec; #6 adv, more data for Dec; #7 none, more data for both; #8 adv, more data for both"
    )
    assert text.count(f"Cannot be run ({rows}): It needs a folder") == 1
    assert "Give a folder with --set dataset.extra=FOLDER" in text


def test_show_what_a_row_sets_and_which_attack_gives_a_column():
    result = invoke("show", "xiao-table1")
    lines = [flat(line) for line in result.out.splitlines()]
    assert "#2 adv 0.612 - - 0.515 0.574 0.221 13.423" in lines
    assert "#3 none, GAN none decoder mu_1=1, mu_2=0" in lines
    text = flat(result.out)
    assert "#2 adv adversarial_reconstruction defense lambda_1=1, lambda_2=0, mu_1=0, mu_2=0; decoder" in text
    assert "Runs as decoder and feature_regression on celeba_attributes/v2, scored by mcc, face_similarity," in text
    assert "Face Sim., SSIM, PSNR: from decoder. Feature Sim.: from feature_regression." in text
    facts = json.loads(invoke("show", "xiao-table3", "--json").out)
    assert facts["rows"][1]["cell"]["fields"]["defense"]["layer"] == "conv1"
    assert facts["rows"][1]["values"]["lda"] == {"value": 0.28, "spread": None}


def similar(**values):
    units = {"psnr": "decibel"}
    return [score(name, value, unit=units.get(name, "similarity")) for name, value in values.items()]


def xiao(label="#2 adv", protocol="celeba_attributes/v2", **options):
    shared = {"table": "xiao-table1", "protocol": protocol, **options}
    decoded = similar(mcc=0.6, face_similarity=0.4, ssim=0.2214, psnr=13.0)
    return [
        record(label, attack="decoder", scores=decoded, **shared),
        record(label, attack="feature_regression", scores=similar(mcc=0.6, feature_similarity=0.5), **shared),
    ]


def test_compare_a_row_of_two_attacks(tmp_path):
    for made in xiao():
        save(made, tmp_path / "results")
    result = invoke("compare", "xiao-table1", "--rows", "#2 adv")
    assert (result.code, result.err) == (0, "")
    lines = [flat(line) for line in result.out.splitlines()]
    assert "#2 adv [decoder] Mean MCC 0.612 0.600 1 not comparable: 1 seed" in lines
    assert "Face Sim. 0.515 0.400 1 not comparable" in lines
    assert "SSIM 0.221 0.221 1 not comparable: 1 seed" in lines
    assert "PSNR 13.423 13.000 1 not comparable: 1 seed" in lines
    assert "#2 adv [feature_regression] Feature Sim. 0.574 0.500 1 not comparable" in lines
    text = flat(result.out)
    assert "Face Sim.: not comparable: the paper compares faces in layer 3 of OpenFace" in text
    assert "no records" not in text
    assert "A printed ±" not in text
    facts = json.loads(invoke("compare", "xiao-table1", "--json").out)
    assert [line["attack"] for line in facts["lines"]] == ["decoder", "feature_regression", "feature_regression"]
    assert [line["label"] for line in facts["lines"]] == ["#2 adv", "#2 adv", "#4 adv, GAN"]
    assert "#4 adv, GAN (decoder)" in facts["missing"]


def test_a_smaller_copy_of_xiaos_data_is_said_loudly(tmp_path):
    for made in xiao(protocol="celeba_attributes_subset/v2", budget="quick"):
        save(made, tmp_path / "results")
    assert "to contain records of xiao-table1, got none" in refusal("compare", "xiao-table1")
    result = invoke("compare", "xiao-table1", "--dataset", "celeba_attributes_subset", "--rows", "#2 adv")
    text = flat(result.out)
    assert "NOT THE PUBLISHED PROTOCOL: celeba_attributes_subset replaces celeba_attributes. No values are" in text
    assert "celeba_attributes_subset/v2 is not the published protocol, celeba_attributes/v2" in text
    assert [line for line in result.out.splitlines() if "+0." in line or "-0." in line] == []
    assert text.count("not comparable") >= 5


def test_run_on_a_smaller_copy_says_what_is_left_out(executed):
    executed.records = xiao(protocol="celeba_attributes_subset/v2", budget="quick")
    result = invoke("run", "xiao-table1", "--dataset", "celeba_attributes_subset")
    assert result.code == 0
    assert {cell.dataset.name for cell in executed.cells} == {"celeba_attributes_subset"}
    assert len(executed.cells) == 10
    err = flat(result.err)
    rows = (
        "#5 none, more data for Dec; #6 adv, more data for Dec; #7 none, more data for both; #8 adv, more data for both"
    )
    assert f"n/a: {rows}: It needs a folder of face images" in err
    assert "NOT THE PUBLISHED PROTOCOL" in result.out
    named = invoke("run", "xiao-table1", "--dataset", "celeba_attributes_subset", "--rows", "#2 adv", "--rows", "#7")
    assert named.code == 1
    assert len(executed.cells) == 2


def test_run_with_what_a_row_needs(executed):
    executed.records = xiao()
    result = invoke("run", "xiao-table1", "--rows", "for Dec", "--set", "dataset.extra=photographs")
    assert result.code == 0
    assert len(executed.cells) == 4
    assert {str(cell.dataset.component.extra) for cell in executed.cells} == {"photographs"}
    assert "n/a: #" not in result.err


def test_run_table_3_on_digits_has_no_such_layers(executed):
    invoke("run", "xiao-table3", "--dataset", "digits", "--rows", "Conv1")
    (none, defended) = executed.cells
    assert (none.attack.component.layer, defended.defense.component.layer) == ("conv1", "conv1")


@pytest.mark.parametrize("name", names())
def test_every_table_shows_within_110_columns(name):
    result = invoke("show", name)
    assert result.code == 0
    assert max(len(line) for line in result.out.splitlines()) <= 110
    assert json.loads(invoke("show", name, "--json").out)["name"] == name


@pytest.mark.parametrize("command", ["show", "run", "compare"])
def test_an_unknown_table(command):
    assert "unknown table 'bido-tabel3': did you mean 'bido-table3'?" in refusal(command, "bido-tabel3")


@pytest.mark.parametrize("arguments", [["list"], ["show", "bido-table3"]])
def test_reading_does_not_import_torch(arguments):
    assert "torch" not in command_line.imported_modules("paper", *arguments)


def test_comparing_does_not_import_torch(tmp_path):
    save(record(), tmp_path / "results")
    assert "torch" not in command_line.imported_modules("paper", "compare", "bido-table3", str(tmp_path / "results"))


def test_compare(tmp_path):
    for seed in (0, 1, 2):
        scores = [score("accuracy", 0.99 + seed / 1000), score("attack_acc", 0.2 + seed / 200)]
        save(record(seed=seed, scores=[*scores, score("fid_bido", 322.5, unit="distance")]), tmp_path / "results")
        save(record("MNIST: MID", seed=seed, scores=[score("attack_acc", 0.5)]), tmp_path / "results")
    result = invoke("compare", "bido-table3")
    assert (result.code, result.err) == (0, "")
    lines = [flat(line) for line in result.out.splitlines()]
    assert "ours: protocol mnist/v2, budget full" in lines
    assert "MNIST: BiDO-HSIC Accuracy 99.61 99.10 [98.85, 99.35] 3 -0.51 agrees" in lines
    assert "Attack Acc 4.36 ± 5.70 20.50 [19.26, 21.74] 3 +16.14 differs" in lines
    # Three equal seeds have no variation, so there is no interval over them.
    assert "FID 322.00 ± 16.96 322.50 3 +0.50 undecided" in lines
    order = lines[lines.index("Order of the rows, two by two, by our means:") + 1 :]
    assert order == [
        "- Attack Acc (kedmi, mnist/v2, full): 1 of 1 published orders reproduced, 0 of them with separate intervals"
    ]
    text = flat(result.out)
    assert "no records of MNIST: No Def.; MNIST: BiDO-COCO" in text
    assert "appends the FID of each trial twice" in text
    assert "A printed ± is a spread" in text
    assert "NOT THE PUBLISHED" not in text
    assert max(len(line) for line in result.out.splitlines()) <= 110


def test_compare_one_seed_with_its_own_interval(tmp_path):
    save(record(), tmp_path / "results")
    result = invoke("compare", "bido-table3", tmp_path / "results", "--rows", "hsic", "--budget", "full")
    lines = [flat(line) for line in result.out.splitlines()]
    assert "MNIST: BiDO-HSIC Accuracy 99.61 99.61 [99.00, 99.80] 1 not comparable: 1 seed" in lines
    assert "Attack Acc 4.36 ± 5.70 8.00 [2.00, 12.00] 1 not comparable: 1 seed" in lines
    assert "Attack Acc5 76.96 ± 12.10 50.00 [40.00, 60.00] 1 not comparable: 1 seed" in lines
    assert "MNIST: MID: " not in result.out
    assert lines[-1] == "- no two rows of a column have records of one protocol, budget and attack"


def test_compare_json(tmp_path):
    save(record(), tmp_path / "results")
    facts = json.loads(invoke("compare", "bido-table3", "--json", "--rows", LABEL).out)
    assert (facts["table"], facts["missing"], facts["substitute"]) == ("bido-table3", [], None)
    entry = facts["lines"][0]["entries"][1]
    assert entry["published"] == 4.36
    assert entry["ours"] == pytest.approx(8.0)
    assert (entry["verdict"], entry["reason"]) == ("not comparable", "1 seed")
    assert facts["orders"] == []
    assert facts["discrepancies"][0].keys() == {"what", "where"}


def test_a_changed_attack_is_marked_and_not_compared(tmp_path):
    save(record(changed={"attack": {"iterations": 7}}), tmp_path / "results")
    text = flat(invoke("compare", "bido-table3").out)
    assert "MNIST: BiDO-HSIC* Accuracy" in text
    assert "* attack.iterations=7 not comparable: attack.iterations differs from the published settings" in text


def test_another_definition_of_fid_is_marked(tmp_path):
    save(record(scores=[score("fid_judge", 300.0, unit="distance")]), tmp_path / "results")
    text = flat(invoke("compare", "bido-table3").out)
    assert (
        "FID: not comparable: the definition of fid_judge differs from that of fid_bido, which was not recorded" in text
    )
    assert "Accuracy: no score: accuracy was not recorded" in text


def test_compare_without_records(tmp_path):
    assert "to be a results folder or a record" in refusal("compare", "bido-table3")
    save(record(protocol="digits/v1"), tmp_path / "results")
    assert "got none; run `privbench paper run bido-table3`" in refusal("compare", "bido-table3")
    assert "--dataset celeba_subset`" in refusal("compare", "bido-table3", "--dataset", "celeba_subset")


def test_compare_refuses_an_unknown_budget(tmp_path):
    save(record(), tmp_path / "results")
    assert "expected budget to be one of smoke, quick, full, got 'ful'" in refusal(
        "compare", "bido-table3", "--budget", "ful"
    )


def test_compare_names_damaged_records(tmp_path):
    path = save(record(), tmp_path / "results")
    (path.parent / "broken.json").write_text("{")
    result = invoke("compare", "bido-table3")
    assert result.code == 1
    assert "broken.json" in result.err
    assert "Attack Acc" in result.out


def test_a_substitute_is_said_loudly(tmp_path):
    save(record(protocol="digits/v1"), tmp_path / "results")
    result = invoke("compare", "bido-table3", "--dataset", "digits", "--rows", LABEL)
    text = flat(result.out)
    assert "NOT THE PUBLISHED PROTOCOL: digits replaces mnist. No values are compared." in text
    assert "not comparable: digits/v1 is not the published protocol, mnist/v2" in text
    assert "+3.64" not in text


def test_run(executed, tmp_path):
    executed.records = [record(seed=4)]
    result = invoke(
        "run", "bido-table3", "--no-controls", "--rows", LABEL, "--budget", "full", "--seed", 4, "--device", "cpu",
        "--jobs", 2, "--set", "attack.latent=50",
    )  # fmt: skip
    assert result.code == 0
    (cell,) = executed.cells
    assert (cell.dataset.name, cell.defense.name, cell.attack.name) == ("mnist", "bido_hsic", "kedmi")
    assert (cell.seed, cell.budget, cell.attack.component.latent) == (4, "full", 50)
    assert cell.defense.component.config() == load("bido-table3").select([LABEL])[0].cell.configuration("full")
    assert [choice.name for choice in cell.evaluators] == ["accuracy", "attack_acc", "fid", "fid_bido"]
    assert executed.options["store"].root == str(tmp_path / "store")
    assert executed.options["jobs"] == 2
    assert "Attack Acc 4.36 ± 5.70 8.00 [2.00, 12.00] 1 not comparable: 1 seed" in flat(result.out)
    assert "1 of 1 stage computed" in result.err
    assert "1 record in" in result.err


def test_run_takes_all_rows_and_the_quick_budget_by_default(executed):
    invoke("run", "bido-table3")
    assert [cell.defense.name == "placebo" for cell in executed.cells] == [False] * 8 + [True] * 2
    assert {(cell.budget, cell.seed) for cell in executed.cells} == {("quick", 0)}


def test_run_reports_what_went_wrong(executed):
    executed.failures = {"k": "the loss became infinite"}
    executed.records = [record(scores=[score("fid_bido", None, unit="distance")])]
    executed.skipped = [SimpleNamespace(cell=SimpleNamespace(title="mnist none kedmi"), reason="no meaning")]
    result = invoke("run", "bido-table3")
    assert result.code == 1
    assert "    target mnist none seed 0: the loss became infinite" in result.err
    assert "privbench: MNIST: BiDO-HSIC: fid_bido is undefined: the covariance is singular" in flat(result.err)
    assert "privbench: n/a: mnist none kedmi: no meaning" in result.err


def test_run_on_a_substitute(executed):
    executed.records = [record(protocol="digits/v1", budget="smoke")]
    result = invoke("run", "bido-table1", "--dataset", "digits", "--budget", "smoke")
    assert [cell.dataset.name for cell in executed.cells] == ["digits"] * 11
    assert executed.cells[-2].defense.component.lambda_y == 0.5
    assert "NOT THE PUBLISHED PROTOCOL: digits replaces celeba" in result.out


def test_run_refuses(executed):
    assert "has hyperparameters" in refusal("run", "bido-table6")
    assert "no selected row of xiao-table1 can be run: " in refusal("run", "xiao-table1", "--rows", "for both")
    assert "fields that vary between the rows, which xiao-table3 fixes" in refusal(
        "run", "xiao-table3", "--set", "decoder.layer=fc"
    )
    assert "expected budget to be one of smoke, quick, full, got 'huge'" in refusal(
        "run", "bido-table3", "--budget", "huge"
    )
    assert "unknown dataset 'mnits': did you mean 'mnist'" in refusal("run", "bido-table3", "--dataset", "mnits")
    assert "row of bido-table3 'GAN'" in refusal("run", "bido-table3", "--rows", "GAN")
    assert invoke("run", "bido-table3", "--jobs", 0).code == 2
    assert executed.cells is None
