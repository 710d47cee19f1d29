"""Every preset against the published table: the recipe of each row, and the weights of each named setting."""

import pytest
from privbench.benchmark import registry

#: Optimiser, step size, momentum, Nesterov, weight decay, epochs, milestones, gamma; batches have 64 images.
ADAM = ("adam", 1e-4, None, None, 0.0, 50, (), None)
SGD = ("sgd", 1e-2, 0.9, True, 1e-4, 50, (), None)
CELEBA_MID = ("sgd", 1e-2, 0.9, False, 1e-4, 50, (), None)
MNIST_ADAM = ("adam", 1e-1, None, None, 0.0, 20, (), None)
MNIST_SGD = ("sgd", 1e-1, 0.5, True, 0.0, 20, (), None)
MNIST_MID = ("sgd", 1e-1, 0.5, False, 0.0, 20, (), None)
CIFAR10 = ("adam", 1e-4, None, None, 0.0, 30, (25,), 0.5)
VMI = ("sgd", 1e-1, 0.9, True, 5e-4, 100, (60, 80), 0.2)
VMI_NONE = ("sgd", 1e-1, 0.9, True, 5e-4, 200, (60, 120, 160), 0.2)

RECIPES = {
    "none": {
        "celeba-published": SGD, "celeba-adam": ADAM, "mnist-published": MNIST_SGD, "mnist-adam": MNIST_ADAM,
        "cifar10-published": CIFAR10, "vmi": VMI_NONE, "vmi-printed": VMI,
    },
    "mid": {
        "celeba-a": CELEBA_MID, "celeba-b": CELEBA_MID, "celeba-c": CELEBA_MID, "celeba-adam": ADAM,
        "mnist-published": MNIST_MID, "mnist-0.1": MNIST_MID, "mnist-adam": MNIST_ADAM, "cifar10-published": CIFAR10,
        "vmi": VMI,
    },
    "bido_hsic": {"mnist-published": MNIST_ADAM, "cifar10-published": CIFAR10, "vmi": VMI, "vmi-0.1-1": VMI},
    "bido_coco": {"mnist-published": MNIST_ADAM, "cifar10-published": CIFAR10, "vmi": VMI},
}  # fmt: skip

WEIGHTS = {
    "bido_hsic": {
        "celeba-a": (0.05, 2.5), "celeba-b": (0.05, 1), "celeba-c": (0.05, 0.5), "celeba": (0.05, 0.5),
        "celeba-table5-none": (0, 0), "celeba-table5-x": (0.1, 0), "celeba-table5-y": (0, 1), "celeba-table5": (0.1, 1),
        "mnist": (2, 20), "cifar10": (0.1, 1), "vmi": (0.1, 2), "vmi-0.1-1": (0.1, 1), "celeba_vmi": (0.1, 2),
        "celeba_attributes": (0.05, 0.5),
    },
    "bido_coco": {
        "celeba-a": (15, 75), "celeba-b": (10, 50), "celeba-c": (5, 25), "celeba-c-printed": (5, 50), "celeba": (5, 25),
        "celeba-table5-none": (0, 0), "celeba-table5-x": (10, 0), "celeba-table5-y": (0, 50), "celeba-table5": (10, 50),
        "mnist": (1, 50), "cifar10": (0.1, 5), "vmi": (0.05, 2.5), "celeba_vmi": (0.05, 2.5),
        "celeba_attributes": (5, 25),
    },
}  # fmt: skip

#: Other settings of the released code.
FURTHER = {
    "bido_hsic": [
        (0.1, 0.5), (0.1, 1), (0.2, 1), (0.2, 2), (0.2, 10), (0.01, 0.05), (0.01, 0.2), (0.01, 0.5), (0.05, 0.25),
    ],
    "bido_coco": [(1, 5), (1, 20), (1, 50)],
}  # fmt: skip

BETAS = {
    "celeba": 0.003, "celeba_attributes": 0.003, "celeba-a": 0.02, "celeba-b": 0.01, "celeba-c": 0.003,
    "celeba-adam": 0.003, "mnist": 0.2, "mnist-published": 0.2, "mnist-0.1": 0.1, "mnist-adam": 0.2, "cifar10": 0.15,
    "cifar10-published": 0.15, "vmi": 0.0, "celeba_vmi": 0.0,
}  # fmt: skip


def recipe_of(fields: dict) -> tuple:
    """The recipe of a defense with these fields, with what its optimiser or schedule does not read left out."""
    recipe = registry.load("defense", "none")(recipe=fields["recipe"]).recipe
    sgd = recipe.optimizer == "sgd"
    assert recipe.batch_size == 64
    return (
        recipe.optimizer, recipe.learning_rate, recipe.momentum if sgd else None, recipe.nesterov if sgd else None,
        recipe.weight_decay, recipe.epochs, recipe.milestones, recipe.gamma if recipe.milestones else None,
    )  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_the_published_ones(name: str) -> None:
    presets = registry.load("defense", name).presets
    found = {preset: recipe_of(values) for preset, values in presets.items() if "recipe" in values}
    expected = RECIPES[name]
    if name.startswith("bido"):
        expected = expected | {preset: ADAM for preset in found if preset.startswith("celeba-")}
    assert found == expected


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_bido_are_the_published_ones(name: str) -> None:
    presets = registry.load("defense", name).presets
    found = {preset: (values["lambda_x"], values["lambda_y"]) for preset, values in presets.items()}
    further = {"-".join(["celeba", *(f"{weight:g}" for weight in pair)]): pair for pair in FURTHER[name]}
    published = {"mnist-published": "mnist", "cifar10-published": "cifar10"}
    expected = WEIGHTS[name] | {preset: WEIGHTS[name][of] for preset, of in published.items()} | further
    assert found == expected
    scales = {preset: values["x_scale"] for preset, values in presets.items()}
    assert scales == {preset: 2.0 if "vmi" in preset else 1.0 for preset in presets}
    defaults = registry.load("defense", name)()
    assert (defaults.lambda_x, defaults.lambda_y, defaults.sigma, defaults.x_scale) == (*expected["celeba"], 5.0, 1.0)


def test_weights_of_mid_are_the_published_ones() -> None:
    presets = registry.load("defense", "mid").presets
    assert {preset: values["beta"] for preset, values in presets.items()} == BETAS
