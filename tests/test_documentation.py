"""Numbers that docs/protocols.md gives are those of the code."""

from pathlib import Path

import pytest
from privbench.benchmark import registry
from privbench.benchmark.pipeline.cell import Selection
from privbench.benchmark.pipeline.resolve import resolve

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "protocols.md").read_text(encoding="utf-8")


def row(heading: str, start: str) -> list[str]:
    """The cells of the first table row below `heading` that begins with `start`."""
    section = TEXT[TEXT.index(heading) :]
    line = next(line for line in section.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


@pytest.mark.parametrize(
    ("name", "column"), [("digits", 0), ("mnist", 1), ("cifar10", 2), ("celeba", 3), ("celeba_vmi", 4)]
)
def test_steps_of_the_judge(name: str, column: int) -> None:
    found = resolve("dataset", Selection(name), "quick", {}).component.judge.max_steps
    assert row("", "steps at most, quick / smoke")[column].split("/")[0].split(",")[0].strip() == str(found)


@pytest.mark.parametrize(
    ("name", "column"), [("digits", 0), ("mnist", 1), ("cifar10", 2), ("celeba", 3), ("celeba_vmi", 4)]
)
def test_second_judges(name: str, column: int) -> None:
    quick, full = (resolve("dataset", Selection(name), budget, {}).component for budget in ("quick", "full"))

    def said(start: str) -> str:
        return row("| second judge |", start)[column]

    assert said("steps, quick / smoke").split("/")[0].split(",")[0].strip() == str(quick.second_judge.max_steps)
    assert float(said("step size")) == full.second_judge.learning_rate
    assert said("epochs") == str(full.second_judge.epochs)
    milestones = " and ".join(map(str, full.second_judge.milestones))
    assert said("step size times") == f"{full.second_judge.gamma} after {milestones}"


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "celeba", "celeba_subset", "celeba_vmi"])
def test_second_judges_and_negatives_at_a_glance(name: str) -> None:
    column = ["digits", "mnist", "cifar10", "celeba", "celeba_subset", "celeba_vmi"].index(name)
    found = [resolve("dataset", Selection(name), budget, {}).component for budget in ("full", "quick", "smoke")]
    networks = [found[0].protocol.target_network, found[0].protocol.judge_network]
    assert row("Tasks of classes", "second judge network")[column] == f"`{found[0].protocol.second_judge_network}`"
    assert row("Tasks of classes", "judge network")[column] == f"`{networks[1]}`"
    assert found[0].protocol.second_judge_network not in networks
    said = row("Tasks of classes", "calibrated negatives per label")[column]
    assert said == " / ".join(str(each.negatives) for each in found)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("digits", 0),
        ("mnist", 1),
        ("cifar10", 2),
        ("celeba", 3),
        ("celeba_subset", 4),
        ("celeba_vmi", 5),
        ("celeba_attributes", 6),
        ("celeba_attributes_subset", 7),
    ],
)
def test_steps_of_the_target(name: str, column: int) -> None:
    dataset = resolve("dataset", Selection(name), "quick", {})
    found = resolve("defense", Selection("bido_hsic"), "quick", {}, dataset).component.recipe.max_steps
    assert row("", "quick, at most")[column].split("(")[0].split(",")[0].strip() == str(found)


@pytest.mark.parametrize("name", ["celeba_attributes", "celeba_attributes_subset"])
def test_attribute_tasks(name: str) -> None:
    column = ["celeba_attributes", "celeba_attributes_subset"].index(name)
    protocols = [
        resolve("dataset", Selection(name), budget, {}).component.protocol for budget in ("full", "quick", "smoke")
    ]

    def said(start: str) -> list[str]:
        return row("Tasks of attributes", start)[column].split(" / ")

    assert said("protocol") == [f"`{protocols[0].id}`"]
    assert said("observed encodings at most") == [str(protocol.observed) for protocol in protocols]
    images = [" x ".join(map(str, protocol.image)) for protocol in protocols]
    assert said("image") == (images if len(set(images)) > 1 else images[:1])
    assert said("attributes") == [str(protocols[0].classes)]
    assert said("target network") == [f"`{protocols[0].target_network}`"]
    assert said("augmentation of the target") == [protocols[0].augmentation]


def test_vmi_at_a_glance() -> None:
    protocols = [
        resolve("dataset", Selection("celeba_vmi"), budget, {}).component.protocol
        for budget in ("full", "quick", "smoke")
    ]

    def said(start: str) -> str:
        return row("Tasks of classes", start)[-1]

    def three(field: str) -> str:
        return " / ".join(str(getattr(protocol, field)) for protocol in protocols)

    assert said("protocol") == f"`{protocols[0].id}`"
    assert said("attacked labels") == f"first {three('attacked')}"
    assert said("draws per label and trial") == three("draws")
    assert said("reconstructions per trial") == " / ".join(str(p.attacked * p.draws) for p in protocols)
    assert said("FID's private images in all") == " / ".join(str(p.attacked * p.reference) for p in protocols)
    assert said("target network") == f"`{protocols[0].target_network}`"
    assert said("augmentation of the target") == protocols[0].augmentation


#: By heading in docs/protocols.md: an attack, its fields by the beginning of a row, data sets of the columns `full`.
FIELDS = {
    "### GMI": (
        "gmi",
        {
            "GAN: epochs": "epochs",
            "GAN: discriminator steps at most": "max_steps",
            "GAN: batch": "batch_size",
            "GAN: Adam's step size": "learning_rate",
            "GAN: Adam's betas": "betas",
            "GAN: discriminator steps per": "n_critic",
            "GAN: factor of the gradient penalty": "gradient_weight",
            "iterations": "iterations",
            "step size for z": "attack_learning_rate",
            "Nesterov momentum for z": "momentum",
            "factor of the cross-entropy": "identity_weight",
        },
        ("celeba", "digits", "cifar10"),
    ),
    "### KED-MI": (
        "kedmi",
        {
            "GAN: epochs": "epochs",
            "GAN: discriminator steps at most": "max_steps",
            "GAN: batch": "batch_size",
            "GAN: Adam's step size": "learning_rate",
            "GAN: Adam's betas": "betas",
            "GAN: discriminator steps per": "n_critic",
            "GAN: factor of the entropy": "entropy_weight",
            "iterations": "iterations",
            "Adam's step size for mean": "attack_learning_rate",
            "factor of the cross-entropy": "identity_weight",
            "log-variance at the start": "initial_logvar",
        },
        ("cifar10",),
    ),
    "### VMI": (
        "vmi",
        {
            "dimension of z": "latent",
            "DCGAN: channels": "width",
            "DCGAN: spectral": "spectral",
            "StyleGAN2: channels times side": "channel_base",
            "StyleGAN2: channels at most": "channel_max",
            "StyleGAN2: mapping layers": "mapping_layers",
            "GAN: public images shown": "shown",
            "GAN: steps at most": "max_steps",
            "GAN: batch": "batch_size",
            "GAN: Adam's step size": "learning_rate",
            "GAN: Adam's betas": "betas",
            "GAN: noise": "instance_noise",
            "StyleGAN2: gamma of R1": "r1_weight",
            "StyleGAN2: probability of style mixing": "style_mixing",
            "couplings of a flow": "flow_steps",
            "width inside a coupling": "flow_hidden",
            "couplings scale too": "affine",
            "samples per label": "samples",
            "iterations": "iterations",
            "SGD's step size": "attack_learning_rate",
            "SGD's momentum": "momentum",
            "norm to which": "max_gradient",
            "factor of KL": "kl_weight",
            "factor of the cross-entropy": "identity_weight",
        },
        ("celeba", "digits", "cifar10"),
    ),
    "### Decoder and feature": (
        "decoder",
        {
            "passes over": "epochs",
            "steps at most": "max_steps",
            "batch": "batch_size",
            "Adam's step size": "learning_rate",
            "decoder: widest layer": "max_channels",
        },
        ("cifar10",),
    ),
}


def value(text: str) -> object:
    """A number, pair, `yes`, `no` or `none` as the tables write it."""
    words = {"none": None, "yes": True, "no": False}
    text = text.partition(";")[0].strip()
    if text in words:
        return words[text]
    if text.startswith("("):
        return tuple(float(part) for part in text.strip("()").split(","))
    return float(text.replace(",", ""))


@pytest.mark.parametrize("heading", FIELDS)
def test_fields_of_attacks(heading: str) -> None:
    name, rows, columns = FIELDS[heading]
    for start, field in rows.items():
        said = row(heading, start)
        assert len(said) == len(columns) + 2, (heading, start)
        for place, dataset in enumerate(columns):
            resolved = {
                budget: resolve("dataset", Selection(dataset), budget, {}) for budget in ("full", "quick", "smoke")
            }
            values = {
                budget: getattr(resolve("attack", Selection(name), budget, {}, found).component, field)
                for budget, found in resolved.items()
            }
            if said[place] != "-":
                assert values["full"] == value(said[place]), (heading, start, dataset)
            for budget, text in (("quick", said[-2]), ("smoke", said[-1])):
                if text != "-":
                    exceptions = [part for part in text.split(";")[1:] if dataset in part]
                    expected = float(exceptions[0].split()[-1]) if exceptions else value(text)
                    assert values[budget] == expected, (heading, start, dataset, budget)
                else:
                    assert values[budget] == values["full"], (heading, start, dataset, budget)


def recipes() -> dict[str, dict[str, object]]:
    """The table of recipes, by name."""
    section = TEXT.partition("### Recipes")[2].partition("| steps of a target")[0]
    found = {}
    for line in section.splitlines():
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        if not line.startswith("| ") or name == "recipe":
            continue
        optimizer, rate, momentum, nesterov, decay, epochs, factor = cells
        gamma, _, milestones = factor.partition(" after ")
        found[name] = {
            "optimizer": optimizer.lower(),
            "learning_rate": float(rate),
            **({} if momentum == "-" else {"momentum": float(momentum), "nesterov": nesterov == "yes"}),
            "weight_decay": float(decay),
            "epochs": int(epochs),
            **({"gamma": float(gamma)} if milestones else {}),
            "milestones": tuple(int(word) for word in milestones.replace(",", "").split() if word.isdigit()),
            "batch_size": 64,
        }
    return found


PRESETS = [
    (defense, dataset, place)
    for defense in ("none", "mid", "bido_coco", "bido_hsic")
    for place, names in enumerate(
        (("digits", "mnist"), ("cifar10",), ("celeba", "celeba_subset"), ("celeba_vmi",), ("celeba_attributes",))
    )
    for dataset in names
]


@pytest.mark.parametrize(("defense", "dataset", "place"), PRESETS)
def test_default_presets(defense: str, dataset: str, place: int) -> None:
    *weights, name = row("### Default presets", f"`{defense}`")[place].rsplit(", ", 1)
    found = resolve(
        "defense", Selection(defense), "full", {}, resolve("dataset", Selection(dataset), "full", {})
    ).component
    assert {key: getattr(found.recipe, key) for key in recipes()[name]} == recipes()[name]
    if weights:
        numbers = [float(word) for word in weights[0].strip("()").split(",")]
        assert numbers == ([found.beta] if defense == "mid" else [found.lambda_x, found.lambda_y])


@pytest.mark.parametrize("kind", ["defense", "attack"])
def test_every_component_and_preset_is_named(kind: registry.Kind) -> None:
    for name in registry.names(kind):
        if registry.find(kind, name).distribution == "privbench":
            section = TEXT.partition("## Defenses" if kind == "defense" else "## Attacks")[2]
            presets = [preset for preset in registry.load(kind, name).presets if "@" not in preset]
            assert f"`{name}`" in section or kind == "attack"
            for preset in presets:
                assert preset in section, f"docs/protocols.md says nothing of {name}:{preset}"


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_every_data_set_has_a_section(name: str) -> None:
    if registry.find("dataset", name).distribution == "privbench":
        protocol = resolve("dataset", Selection(name), "full", {}).component.protocol
        assert f"\n## {name}\n" in TEXT
        assert f"`{protocol.id}`" in TEXT
