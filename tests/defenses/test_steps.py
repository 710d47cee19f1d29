"""Whole trainings of the defenses against slow transcriptions of their papers: losses, and every weight afterwards.

The targets are tiny, and all is float64: the two agree to rounding. Formulas are those of the papers, or of the
released code where a docstring of the defense says so.
"""

from collections.abc import Callable

import pytest
import torch
from helpers import by_hand
from helpers.loops import PROTOCOL
from privbench.benchmark.contracts import Defense
from privbench.benchmark.core.config import Protocol, Recipe
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.training.context import Context
from privbench.defenses.bido_coco import BiDOCOCO
from privbench.defenses.bido_hsic import BiDOHSIC
from privbench.defenses.mid import MID
from privbench.defenses.none import NoDefense
from privbench.defenses.placebo import Placebo
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("double")
CPU, SEED = torch.device("cpu"), 5
#: Three steps of 8 images an epoch; the rate falls after the first and the second epoch.
RECIPE = Recipe(
    learning_rate=0.05, momentum=0.8, nesterov=True, weight_decay=0.02, batch_size=8, epochs=3, milestones=(1, 2),
    gamma=0.5,
)  # fmt: skip


def stages() -> dict[str, nn.Module]:
    """Latents of 3 x 3 x 3, 4 x 2 x 2 and 16 numbers of an image of 6 x 6 pixels."""
    return {
        "layer1": nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)),
        "layer2": nn.Sequential(nn.Conv2d(3, 4, 2), nn.Tanh()),
        "feature": nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16)),
        "logits": nn.Linear(16, 3),
    }


@pytest.fixture(autouse=True)
def _small_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Defense, "network", lambda self, protocol: Network(stages()))


def protocol(task: str = "classes") -> Protocol:
    return PROTOCOL.model_copy(update={"image": (1, 6, 6), "augmentation": "flip", "task": task})


def images(count: int = 26, seed: int = 1) -> Images:
    """Images with labels and three attributes; two of the 26 are left out of each epoch."""
    drawn = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 1, 6, 6), generator=drawn, dtype=torch.uint8)
    labels = torch.randint(0, 3, (count,), generator=drawn)
    return Images(pixels, labels, labels + 7, torch.randint(0, 2, (count, 3), generator=drawn).bool())


def fresh(*more: Callable[[], nn.Module]) -> nn.ModuleList:
    """The network as the stage's seed starts it, as a list of stages; `more` stages replace the logits."""
    torch.manual_seed(by_hand.seed_of(SEED, "initialise"))
    made = list(stages().values())
    return nn.ModuleList([*made[:-1], *(make() for make in more)] if more else made)


Loss = Callable[[nn.ModuleList, Tensor, Tensor], Tensor]


def compare(defense: Defense, start: nn.ModuleList, loss: Loss, truth: Tensor | None = None) -> None:
    """Train a defense, and its transcription, on the same private images."""
    private, task = images(), "attributes" if truth is not None and truth.dtype == torch.bool else "classes"
    context = Context(protocol(task), CPU, SEED)
    found = defense.train(private, context)
    truth = private.labels if truth is None else truth
    expected, losses = by_hand.train(start, private.pixels, truth, defense.recipe, loss, seed=SEED, augmentation="flip")
    seen = [value for _, value in context.curves["target"]["loss"]]
    assert len(seen) == 9
    assert seen == pytest.approx(losses, rel=1e-7)
    by_hand.assert_equal(found, expected)
    assert not any(module.training for module in found.modules())


# No defense


def cross_entropy(network: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
    return by_hand.task_loss(by_hand.outputs(network, x)[-1], y)


@pytest.mark.parametrize("task", ["classes", "attributes"])
def test_no_defense_is_cross_entropy(task: str) -> None:
    truth = images().attributes if task == "attributes" else None
    compare(NoDefense(recipe=RECIPE, selection="last"), fresh(), cross_entropy, truth)


# BiDO: Eqs. 2, 5 and 7, and the released estimators


def gaussian(rows: Tensor, sigma: float) -> Tensor:
    """`exp(-||a - b||^2 / (2 sigma^2 d))` from the differences themselves."""
    rows = rows.reshape(len(rows), -1)
    squares = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    return (-squares / (2 * sigma * sigma * rows.shape[1])).exp()


def linear(y: Tensor) -> Tensor:
    """Inner products of one-hot labels, or of vectors of attributes."""
    codes = y.tolist() if y.dtype == torch.bool else [[label == k for k in range(3)] for label in y.tolist()]
    return torch.tensor([[float(sum(p * q for p, q in zip(a, b, strict=True))) for b in codes] for a in codes])


def centring(m: int) -> Tensor:
    return torch.eye(m) - torch.ones(m, m) / m


def normalized(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    """As released: `trace(R_K R_L)` with `K~ = K H` and `R = K~ (K~ + 1e-5 m I)^-1`."""
    m = len(k)
    ratios = [c @ torch.linalg.inv(c + 1e-5 * m * torch.eye(m)) for c in (k @ centring(m), l @ centring(m))]
    return (ratios[0] * ratios[1].T).sum()


def biased(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    """Eq. 5: `trace(K H L H) / (m - 1)^2`."""
    h = centring(len(k))
    return torch.trace(k @ h @ l @ h) / (len(k) - 1) ** 2


def frobenius(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    """As released: `sqrt(||H K H H L H||_F) / m`."""
    h = centring(len(k))
    return ((h @ k @ h) @ (h @ l @ h)).pow(2).sum().sqrt().sqrt() / len(k)


def spectral(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    """Eq. 2: the same with the largest singular value."""
    h = centring(len(k))
    return torch.linalg.svdvals((h @ k @ h) @ (h @ l @ h))[0].sqrt() / len(k)


Dependence = Callable[[Tensor, Tensor], Tensor]


def bido(dependence: Dependence, lambda_x: float, lambda_y: float, sigma: float) -> Loss:
    def loss(network: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
        *latents, logits = by_hand.outputs(network, x)
        total = by_hand.task_loss(logits, y)
        for z in latents:
            k = gaussian(z, sigma)
            total = total + lambda_x * dependence(gaussian(2 * x - 1, sigma), k) - lambda_y * dependence(k, linear(y))
        return total

    return loss


@pytest.mark.parametrize(
    ("defense", "fields", "dependence", "weights", "task"),
    [
        (BiDOHSIC, {}, normalized, (0.05, 0.2), "classes"),
        (BiDOHSIC, {}, normalized, (0.05, 0.2), "attributes"),
        (BiDOHSIC, {"estimator": "biased"}, biased, (30.0, 20.0), "classes"),
        (BiDOCOCO, {}, frobenius, (3.0, 2.0), "classes"),
        (BiDOCOCO, {"norm": "spectral"}, spectral, (3.0, 2.0), "classes"),
    ],
)
def test_bido_is_cross_entropy_with_the_bilateral_term(
    defense: type[Defense], fields: dict[str, str], dependence: Dependence, weights: tuple[float, float], task: str
) -> None:
    """With images in [-1, 1], as in the VMI experiments, and another bandwidth than the published one."""
    fields = {"lambda_x": weights[0], "lambda_y": weights[1], "sigma": 0.7, "x_scale": 2.0, **fields}
    chosen = defense(**fields, recipe=RECIPE, selection="last")
    truth = images().attributes if task == "attributes" else None
    compare(chosen, fresh(), bido(dependence, *weights, sigma=0.7), truth)


# MID


def mid(beta: float) -> Loss:
    """`CE + beta KL(N(mu, sigma^2) || N(0, I))` of one noisy code, of which the step's generator draws first."""

    def loss(network: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
        *body, code, head = network
        statistics = code.linear(by_hand.outputs(nn.ModuleList(body), x)[-1])
        half = statistics.shape[1] // 2
        mean, scale = statistics[:, :half], (1 + (statistics[:, half:] - 5).exp()).log()
        noise = torch.randn(len(x), half)
        divergence = ((mean**2 + scale**2 - 1) / 2 - scale.log()).sum() / len(x)
        return by_hand.task_loss(head(mean + scale * noise), y) + beta * divergence

    return loss


class Code(nn.Module):
    """The layer of the bottleneck, with the name that its weights have."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)


@pytest.mark.parametrize("task", ["classes", "attributes"])
@pytest.mark.parametrize("test_noise", [False, True])
def test_mid_is_cross_entropy_of_a_noisy_code_with_its_divergence(task: str, test_noise: bool) -> None:
    start = fresh(Code, lambda: nn.Linear(8, 3))
    truth = images().attributes if task == "attributes" else None
    defense = MID(beta=0.3, test_noise=test_noise, recipe=RECIPE, selection="last")
    compare(defense, start, mid(0.3), truth)


def test_a_target_of_mid_answers_with_noise_unless_it_is_asked_not_to() -> None:
    x, answers = images().pixels.double() / 255, {}
    for test_noise in (False, True):
        recipe = RECIPE.model_copy(update={"max_steps": 1})
        target = MID(test_noise=test_noise, recipe=recipe, selection="last").train(
            images(), Context(protocol(), CPU, SEED)
        )
        with torch.no_grad():
            answers[test_noise] = [target.logits(x) for _ in range(3)]
            statistics = target.stages["bottleneck"].linear(target.encode(x, "feature"))
            mean = target.stages["logits"](statistics[:, :8])
    silent, noisy = answers[False], answers[True]
    assert torch.equal(silent[0], silent[1])
    torch.testing.assert_close(silent[0], mean)
    assert not torch.equal(noisy[0], noisy[1])
    assert (noisy[0] - mean).abs().max() < 0.2, "around the answer without noise"


# Placebo


def permuted(labels: list[int], seed: int) -> list[int]:
    """Whose annotation each image gets.

    The images, in a random order, are mixed: image r of the n of its label stands at (r + start of the label) / n. The
    givers, in another random order, are sorted by label. The k-th mixed image gets the annotation of the k-th giver.
    """
    drawn = torch.Generator().manual_seed(seed)
    givers = torch.randperm(len(labels), generator=drawn).tolist()
    takers = torch.randperm(len(labels), generator=drawn).tolist()
    start = torch.rand(max(labels) + 1, generator=drawn, dtype=torch.float64).tolist()
    place, seen = {}, dict.fromkeys(labels, 0)
    for taker in takers:
        label = labels[taker]
        place[taker] = (seen[label] + start[label]) / labels.count(label)
        seen[label] += 1
    takers.sort(key=place.__getitem__)
    givers.sort(key=labels.__getitem__)
    source = [0] * len(labels)
    for taker, giver in zip(takers, givers, strict=True):
        source[taker] = giver
    return source


@pytest.mark.parametrize("task", ["classes", "attributes"])
def test_placebo_is_cross_entropy_of_permuted_labels(task: str) -> None:
    private = images()
    source = permuted(private.labels.tolist(), by_hand.seed_of(SEED, "permutation"))
    assert sorted(source) == list(range(26)) != source
    truth = private.attributes[source] if task == "attributes" else private.labels[source]
    compare(Placebo(recipe=RECIPE), fresh(), cross_entropy, truth)


def test_the_labels_of_validation_images_are_not_permuted() -> None:
    validation = images(8, seed=2)
    context = Context(protocol(), CPU, SEED, validation=lambda: validation)
    target = Placebo(recipe=RECIPE).train(images(), context)
    with torch.no_grad():
        right = target.logits(validation.pixels.double() / 255).argmax(1) == validation.labels
    assert context.notes["selection"]["validation_accuracy"] == pytest.approx(float(right.double().mean()))
    assert context.notes["selection"]["kept"] == "last"
