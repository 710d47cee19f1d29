"""Steps of the adversarial reconstruction against a transcription of Eqs. 1 to 9: who learns what from which loss."""

import copy
from collections.abc import Callable

import pytest
import torch
from helpers import by_hand
from helpers.loops import PROTOCOL, Memory
from privbench.benchmark.contracts import Defense
from privbench.benchmark.core.config import Protocol, Recipe
from privbench.benchmark.core.evidence import UNKNOWN, Images
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.networks.perceptual.perceptual import Perceptual
from privbench.benchmark.training.context import Context
from privbench.defenses import adversarial_reconstruction
from privbench.defenses.adversarial_reconstruction import AdversarialReconstruction
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("double")
CPU, SEED = torch.device("cpu"), 5
#: Two steps of 8 images an epoch; the rate falls after the first.
RECIPE = Recipe(learning_rate=0.05, momentum=0.8, weight_decay=0.02, batch_size=8, epochs=2, milestones=(1,), gamma=0.5)
EVERYTHING = {"lambda_1": 0.7, "lambda_2": 0.4, "mu_1": 0.3, "mu_2": 0.6}


def stages() -> dict[str, nn.Module]:
    """Latents of 3 x 8 x 8, 4 x 4 x 4 and 64 numbers of an image of 16 x 16 pixels."""
    return {
        "layer1": nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)),
        "layer2": nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.Tanh()),
        "feature": nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)),
        "logits": nn.Linear(64, 3),
    }


class Two(Perceptual):
    """Two activations: every second column, and a curve of all pixels."""

    smallest = 4

    def layers(self, x: Tensor) -> tuple[Tensor, ...]:
        return x[..., ::2], 3 * x.tanh()


@pytest.fixture(autouse=True)
def _small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Defense, "network", lambda self, protocol: Network(stages()))
    monkeypatch.setattr(adversarial_reconstruction, "build_perceptual", lambda name: Two())


def images(count: int, seed: int) -> Images:
    drawn = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 1, 16, 16), generator=drawn, dtype=torch.uint8)
    attributes = torch.randint(0, 2, (count, 3), generator=drawn).bool()
    return Images(pixels, torch.arange(count) % 3, torch.arange(count), attributes)


PRIVATE, PUBLIC, VALIDATION = images(17, 1), images(19, 2), images(8, 3)


def protocol(task: str = "classes") -> Protocol:
    return PROTOCOL.model_copy(update={"image": (1, 16, 16), "augmentation": "flip", "task": task})


def context(task: str = "classes", memory: Memory | None = None) -> Context:
    return Context(protocol(task), CPU, SEED, memory, public=lambda: PUBLIC, validation=lambda: VALIDATION)


def defense(**fields: object) -> AdversarialReconstruction:
    chosen = {"max_channels": 6, "adversary_steps": 2, "adversary_learning_rate": 0.01, "recipe": RECIPE, **fields}
    return AdversarialReconstruction(**chosen)


def pixels_apart(a: Tensor, b: Tensor) -> Tensor:
    """Eq. 1 on [-1, 1], in the mean over pixels and images."""
    return (((2 * a - 1) - (2 * b - 1)) ** 2).mean()


def perceptually_apart(a: Tensor, b: Tensor) -> Tensor:
    """Eq. 4: the two activations of `Two`, each in the mean; three equal channels change no mean."""
    return ((a - b)[..., ::2] ** 2).mean() + ((3 * a.tanh() - 3 * b.tanh()) ** 2).mean()


class ByHand:
    """The game of one defense: encoder and head, decoder, discriminator, each with its optimiser."""

    def __init__(self, chosen: AdversarialReconstruction, task: str, game: object) -> None:
        self.defense, self.truth = chosen, PRIVATE.labels if task == "classes" else PRIVATE.attributes
        torch.manual_seed(by_hand.seed_of(SEED, "initialise"))
        self.target = nn.ModuleList(stages().values()).train()
        self.cut = list(stages()).index(chosen.layer or "feature")
        adversary = game._adversary
        self.decoder = copy.deepcopy(adversary.decoder)
        self.discriminator = copy.deepcopy(adversary._discriminator) if chosen.mu_1 else None
        self.of_target = by_hand.optimizer(chosen.recipe)
        self.of_decoder, self.of_discriminator = by_hand.Adam((0.5, 0.999)), by_hand.Adam((0.5, 0.999))

    def improve(self, module: nn.Module, optimizer: by_hand.SGD | by_hand.Adam, loss: Tensor, rate: float) -> None:
        """One step of one player alone."""
        weights = list(module.parameters())
        optimizer.step(weights, torch.autograd.grad(loss, weights), rate)

    def adversary(self, z: Tensor, x: Tensor) -> None:
        """Eqs. 2 to 5: first the discriminator, then the decoder."""
        chosen, rate = self.defense, self.defense.adversary_learning_rate
        fake = self.decoder(z)
        loss = pixels_apart(fake, x)
        if chosen.mu_1:
            real_is_real, fake_is_real = (1 / (1 + (-self.discriminator(each)).exp()) for each in (x, fake.detach()))
            value = (real_is_real.log() + (1 - fake_is_real).log()).mean()
            self.improve(self.discriminator, self.of_discriminator, -value, rate)
            loss = loss + chosen.mu_1 * (1 - 1 / (1 + (-self.discriminator(fake)).exp())).log().mean()
        if chosen.mu_2:
            loss = loss + chosen.mu_2 * perceptually_apart(fake, x)
        self.improve(self.decoder, self.of_decoder, loss, rate)

    def public(self, i: int) -> tuple[Tensor, Tensor]:
        """Latents of a copy in training mode, so that public images leave no trace in the statistics."""
        order = by_hand.batch(len(PUBLIC), self.defense.recipe.batch_size, by_hand.seed_of(SEED, "public"), i)
        x = torch.stack([PUBLIC.pixels[j] for j in order]).double() / 255
        with torch.no_grad():
            return by_hand.outputs(copy.deepcopy(self.target), x)[self.cut], x

    def step(self, i: int) -> dict[str, float]:
        """The adversary on public images, or those of the private batch, then Eq. 9."""
        chosen, recipe = self.defense, self.defense.recipe
        drawn = by_hand.seed_of(SEED, "target", "batches")
        order = by_hand.batch(len(PRIVATE), recipe.batch_size, drawn, i)
        x = torch.stack([PRIVATE.pixels[j] for j in order]).double() / 255
        x = by_hand.augmented(x, "flip", by_hand.generator(drawn, "step", i))
        outputs = by_hand.outputs(self.target, x)
        z, logits = outputs[self.cut], outputs[-1]
        seen, shown = (z.detach(), x) if chosen.simulated_on == "private" else self.public(i)
        for _ in range(chosen.adversary_steps):
            self.adversary(seen, shown)
        losses = {"loss": by_hand.task_loss(logits, torch.stack([self.truth[j] for j in order]))}
        reconstruction = self.decoder(z)
        losses["pixels"] = pixels_apart(reconstruction, x)
        total = losses["loss"] - chosen.lambda_1 * losses["pixels"]
        if chosen.lambda_2:
            losses["perceptual"] = perceptually_apart(reconstruction, x)
            total = total - chosen.lambda_2 * losses["perceptual"]
        self.improve(self.target, self.of_target, total, by_hand.rate(recipe, i // 2))
        return {name: float(value.detach()) for name, value in losses.items()}


@pytest.mark.parametrize(
    ("fields", "task"),
    [
        ({**EVERYTHING, "layer": "layer2"}, "classes"),
        ({**EVERYTHING, "layer": "layer1", "simulated_on": "private"}, "attributes"),
        ({"lambda_1": 2.0, "adversary_steps": 3}, "classes"),
        ({"lambda_2": 1.5, "layer": "layer2"}, "classes"),
    ],
)
def test_each_player_takes_the_published_steps(fields: dict[str, object], task: str) -> None:
    chosen = defense(**fields)
    game = adversarial_reconstruction._AdversarialTraining(chosen, PRIVATE, context(task))
    expected = ByHand(chosen, task, game)
    by_hand.assert_equal(game.network, expected.target, 0)
    for i in range(4):
        losses = {name: float(value) for name, value in game.step(i, torch.Generator()).items()}
        assert losses == pytest.approx(expected.step(i), rel=1e-8)
        by_hand.assert_equal(game.network, expected.target)
        by_hand.assert_equal(game._adversary.decoder, expected.decoder)
        if expected.discriminator is not None:
            by_hand.assert_equal(game._adversary._discriminator, expected.discriminator)


def test_a_training_is_its_steps_and_keeps_the_best_network() -> None:
    chosen = defense(**EVERYTHING, layer="layer2")
    game = adversarial_reconstruction._AdversarialTraining(chosen, PRIVATE, context())
    after, right = [], []
    x, y = VALIDATION.pixels.double() / 255, VALIDATION.labels
    for i in range(4):
        game.step(i, torch.Generator())
        after.append(copy.deepcopy(game.network).eval())
        with torch.no_grad():
            logits = after[-1].logits(x)
        right.append((float((logits.argmax(1) == y).double().mean()), -float(by_hand.task_loss(logits, y))))
    best = right.index(max(right))
    for kept, step in (("last", 3), ("best", best)):
        used = context()
        found = defense(**EVERYTHING, layer="layer2", selection=kept).train(PRIVATE, used)
        by_hand.assert_equal(found, after[step], 0)
        assert not any(module.training for module in found.modules())
        facts = used.notes["selection"]
        assert (facts["kept"], facts["step"], facts["steps"], used.notes["steps"]) == (kept, step + 1, 4, 4)
        assert facts["validation_accuracy"] == pytest.approx(right[step][0])
        assert used.notes["epochs"] == 2
    assert best < 3, "a training whose last step is the best does not show what is kept"


def test_max_steps_ends_a_training() -> None:
    used = context()
    defense(recipe=RECIPE.model_copy(update={"max_steps": 3})).train(PRIVATE, used)
    assert (used.notes["steps"], used.notes["epochs"], len(used.curves["target"]["loss"])) == (3, 1.5, 3)


class KilledError(BaseException):
    """The end of a process."""


def test_a_killed_training_ends_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoder, discriminator, their optimisers and the best network so far are part of a checkpoint."""
    monkeypatch.setattr("privbench.benchmark.training.monitor.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("privbench.benchmark.training.monitor.CHECKPOINT_SHARE", 1e9)
    chosen, memory, whole = defense(**EVERYTHING), Memory(), context()
    expected = chosen.train(PRIVATE, whole)
    step: Callable = adversarial_reconstruction._AdversarialTraining.step

    def killed(self, i, generator):
        if i == 3:
            raise KilledError
        return step(self, i, generator)

    with monkeypatch.context() as patch:
        patch.setattr(adversarial_reconstruction._AdversarialTraining, "step", killed)
        with pytest.raises(KilledError):
            chosen.train(PRIVATE, context(memory=memory))
    assert memory.kept["target"][1]["done"] == 3
    resumed = context(memory=memory)
    by_hand.assert_equal(chosen.train(PRIVATE, resumed), expected, 0)
    assert (resumed.notes, resumed.curves) == (whole.notes, whole.curves)


@pytest.mark.parametrize("task", ["classes", "attributes"])
def test_extra_images_have_the_decisions_of_a_teacher(task: str) -> None:
    """The teacher is a target without the defense, in evaluation mode; the last 7 public images are extra."""
    known = Images(PUBLIC.pixels, identities=torch.arange(19).where(torch.arange(19) < 12, UNKNOWN))
    used = Context(protocol(task), CPU, SEED, public=lambda: known)
    game = adversarial_reconstruction._AdversarialTraining(defense(learns_extra=True, selection="last"), PRIVATE, used)
    torch.manual_seed(by_hand.seed_of(SEED, "initialise teacher"))
    start = nn.ModuleList(stages().values())

    def loss(network: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
        return by_hand.task_loss(by_hand.outputs(network, x)[-1], y)

    truth = PRIVATE.labels if task == "classes" else PRIVATE.attributes
    teacher, _ = by_hand.train(
        start, PRIVATE.pixels, truth, RECIPE, loss, seed=SEED, loop="teacher", augmentation="flip"
    )
    extra = known.pixels[12:]
    with torch.no_grad():
        logits = by_hand.outputs(teacher, extra.double() / 255)[-1]
    decisions = logits.argmax(1) if task == "classes" else logits > 0
    x, y = game._labelled_batch(1)
    assert len(x) == len(y) == 8 + 3  # 7 extra images to 17 private ones: 8 x 7 / 17 = 3.3 to a batch of 8
    drawn = by_hand.seed_of(SEED, "extra", "batches")
    order = by_hand.batch(7, 3, drawn, 1)
    shown = by_hand.augmented(extra[order].double() / 255, "flip", by_hand.generator(drawn, "step", 1))
    torch.testing.assert_close(x[8:], shown)
    assert torch.equal(y[8:], decisions[order])


@pytest.mark.parametrize("kept", ["best", "last"])
def test_the_teacher_is_kept_as_the_target_is(kept: str) -> None:
    used = context()
    known = Images(PUBLIC.pixels, identities=torch.arange(19).where(torch.arange(19) < 12, UNKNOWN))
    used.public = lambda: known
    adversarial_reconstruction._AdversarialTraining(defense(learns_extra=True, selection=kept), PRIVATE, used)
    assert used.notes["selection"]["kept"] == kept


def test_the_perceptual_network_is_part_of_the_key_where_it_is_used() -> None:
    for fields, used in (({}, False), ({"lambda_2": 1.0}, True), ({"mu_2": 1.0}, True), ({"mu_1": 1.0}, False)):
        for stage, reads in (("target", True), ("evidence", False), (None, True)):
            expected = (("perceptual", "vgg16"),) if used and reads else ()
            assert defense(**fields).networks(stage) == expected
    assert defense(lambda_2=1.0, perceptual="efficientnet_lite0").networks() == (("perceptual", "efficientnet_lite0"),)


def test_the_attacked_layer_is_the_protected_one() -> None:
    """Attacks on features observe the layer that the defense names."""
    assert [defense(layer=layer).cut_layer for layer in ("layer1", None)] == ["layer1", None]
