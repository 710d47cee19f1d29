"""The best network on the validation images is kept, also by a loop that was killed, and stochastic ones are seeded."""

import pytest
import torch
from helpers import by_hand
from helpers.loops import PROTOCOL, Memory
from privbench.benchmark.core.config import Recipe
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.training.context import Context
from privbench.benchmark.training.optimisation import cross_entropy
from privbench.benchmark.training.selection import ACCURACY, LOSS, Selection
from torch import nn
from torch.nn import functional

CPU = torch.device("cpu")


class KilledError(BaseException):
    """The end of a process."""


class Noise(nn.Module):
    """Noise that is also drawn in evaluation mode."""

    def forward(self, z):
        return z + torch.randn_like(z)


def network(*extra: nn.Module) -> Network:
    hidden = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), *extra)
    return Network({"flat": nn.Flatten(), "hidden": hidden, "logits": nn.Linear(8, 3)})


def images(count: int = 60, seed: int = 1) -> Images:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 255, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 3)


def fit(kept="best", *, epochs=4, rate=0.5, memory=None, stop=None, extra=(), validation=None):
    """Train on 60 images in steps of 16, three an epoch. Return the context, the network and the state at each step."""
    given = images(30, 2) if validation is None else validation
    context = Context(PROTOCOL, CPU, 5, memory, validation=lambda: given)
    with context.seeded("initialise"):
        trained = network(*extra)
    states = []

    def loss(net, x, y):
        states.append({name: value.clone() for name, value in net.state_dict().items()})
        if stop is not None and len(states) > stop:
            raise KilledError
        return cross_entropy(net, x, y)

    recipe = Recipe(optimizer="adam", learning_rate=rate, epochs=epochs, batch_size=16)
    context.fit("target", trained, images(), recipe, loss, kept=kept)
    return context, trained, states


def weights(net) -> list[torch.Tensor]:
    return [value for name, value in net.items() if "running" not in name and "tracked" not in name]


def test_the_best_network_is_kept_and_at_equal_accuracy_the_lower_loss():
    context, trained, states = fit()
    facts, curve = context.notes["selection"], context.curves["target"]
    looks = [(value, -loss, -i) for (i, value), (_, loss) in zip(curve[ACCURACY], curve[LOSS], strict=True)]
    best = max(looks)
    assert len({value for value, *_ in looks}) > 1, "a training whose accuracy never changes shows nothing"
    assert best[2] != -11, "nor one whose last step is the best"
    assert facts == {
        "kept": "best", "step": 1 - best[2], "steps": 12, "validation_accuracy": best[0], "validation_loss": -best[1],
        "validation_images": 16,
    }  # fmt: skip
    # The state before step k + 1 is the one after step k.
    after = states[facts["step"]]
    pairs = zip(weights(after), weights(trained.state_dict()), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not trained.training


class Answers(nn.Module):
    """Logits of four images of label 0, given by hand, and a mark of the step that gave them."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(4, 2))
        self.register_buffer("mark", torch.tensor(0))

    def forward(self, x):
        return self.logits


def test_what_is_kept_of_looks_that_are_equal_worse_or_not_finite():
    answers, curve, half = Answers(), {}, torch.tensor([1.0, 1.0, -1.0, -1.0])
    trained = Network({"flat": nn.Flatten(), "logits": answers})
    given = Images(images(4).pixels, torch.zeros(4, dtype=torch.int64))
    chosen = Selection(
        trained, given, "best", steps=7, steps_per_epoch=1, batch_size=4, curve=lambda: curve, device=CPU, seed=9
    )
    # For a margin of label 0 of each image: accuracy 1/2, 3/4, 3/4 with a lower loss, the same, none, 1/2, 1/2 again.
    right = torch.tensor([1.0, 1.0, 1.0, -1.0])
    margins = [half, 0.1 * right, right, right, half * torch.nan, 0.01 * half, 2 * half]
    for i, margin in enumerate(margins):
        answers.logits.data = torch.stack([margin, torch.zeros(4)], 1)
        answers.mark.fill_(i)
        chosen.look(i)
    assert [i for i, _ in curve[ACCURACY]] == [0, 1, 2, 3, 5, 6], "a look that is not finite counts for nothing"
    assert [value for _, value in curve[ACCURACY]] == [0.5, 0.75, 0.75, 0.75, 0.5, 0.5]
    facts = chosen.finish()
    assert (facts["step"], int(answers.mark)) == (3, 2)
    assert torch.equal(answers.logits[:, 0], right)


@pytest.mark.parametrize("validation", [30, 20])
def test_a_look_measures_evenly_spaced_images_in_evaluation_mode_with_noise_of_its_step(validation):
    """Each look of a training, from the network as it was: also noise that a network draws at a look is its own."""
    given, made = images(validation, 2), (Noise(), nn.Dropout(0.5))
    context, trained, states = fit("last", epochs=2, extra=made, validation=given)
    states = [*states[1:], trained.state_dict()]
    chosen = given.select(torch.tensor([j * validation // 16 for j in range(16)]))
    copied = network(*made).eval()
    assert [i for i, _ in context.curves["target"][ACCURACY]] == list(range(6))
    for i, state in enumerate(states):
        copied.load_state_dict(state)
        torch.manual_seed(by_hand.seed_of(by_hand.seed_of(5, "target", "look"), i))
        with torch.no_grad():
            logits = copied.logits(chosen.pixels / 255)
        right = sum(row.argmax() == label for row, label in zip(logits, chosen.labels, strict=True)) / 16
        found = [context.curves["target"][name][i][1] for name in (ACCURACY, LOSS)]
        assert found == pytest.approx([float(right), float(by_hand.task_loss(logits, chosen.labels))], rel=1e-5)


def test_accuracy_and_loss_are_means_over_all_images_of_all_chunks():
    given, curve = images(300, 2), {}
    trained = network().train()
    chosen = Selection(
        trained, given, "last", steps=1, steps_per_epoch=1, batch_size=400, curve=lambda: curve, device=CPU, seed=9
    )
    chosen.look(0)
    assert trained.training
    with torch.no_grad():
        logits = trained.eval().logits(given.pixels / 255)
    assert curve[LOSS] == [[0, pytest.approx(float(functional.cross_entropy(logits, given.labels)), rel=1e-5)]]
    assert curve[ACCURACY] == [[0, pytest.approx(float((logits.argmax(1) == given.labels).double().mean()))]]


def test_last_keeps_the_network_of_the_last_step_and_records_the_same_looks():
    best, _, _ = fit()
    last, trained, _ = fit("last")
    plain = fit(kept=None)
    assert last.curves == best.curves
    assert last.notes["selection"]["kept"] == "last" and last.notes["selection"]["step"] == 12
    assert all(torch.equal(trained.state_dict()[name], value) for name, value in plain[1].state_dict().items())
    assert "selection" not in plain[0].notes and ACCURACY not in plain[0].curves["target"]


@pytest.mark.parametrize(("epochs", "looks"), [(1, 3), (4, 12), (7, 11), (10, 10), (40, 40)])
def test_a_training_is_looked_at_ten_times_and_once_an_epoch(epochs, looks):
    context, _, _ = fit(epochs=epochs)
    steps = [i for i, _ in context.curves["target"][ACCURACY]]
    assert len(steps) == looks and steps[-1] == 3 * epochs - 1


def test_without_validation_images_the_last_network_is_kept_and_the_facts_say_so():
    context, trained, _ = fit(validation=images(30).select(torch.arange(0)))
    assert context.notes["selection"] == {"kept": "last", "step": 12, "steps": 12, "validation_images": 0}
    expected = fit("last")[1].state_dict()
    assert all(torch.equal(expected[name], value) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("stop", range(1, 12))
def test_a_killed_loop_chooses_the_same_bytes(monkeypatch, stop):
    """Wherever it is killed: before, after and at the best step."""
    monkeypatch.setattr("privbench.benchmark.training.monitor.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("privbench.benchmark.training.monitor.CHECKPOINT_SHARE", 1e9)
    whole, expected, _ = fit(extra=(Noise(),))
    memory = Memory()
    with pytest.raises(KilledError):
        fit(memory=memory, stop=stop, extra=(Noise(),))
    assert memory.kept["target"][1]["done"] == stop
    resumed, found, _ = fit(memory=memory, extra=(Noise(),))
    assert resumed.notes == whole.notes and resumed.curves == whole.curves
    assert all(torch.equal(expected.state_dict()[name], value) for name, value in found.state_dict().items())


def test_a_look_changes_neither_the_training_nor_the_generators():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    noisy = fit("last", extra=(Noise(), nn.Dropout(0.3)))[1].state_dict()
    assert torch.equal(torch.rand(2), expected)
    plain = fit(kept=None, extra=(Noise(), nn.Dropout(0.3)))[1].state_dict()
    assert all(torch.equal(plain[name], value) for name, value in noisy.items())


def test_the_accuracy_of_attributes_is_the_mean_over_attributes():
    protocol = PROTOCOL.model_copy(update={"task": "attributes", "attributes": ("a", "b", "c")})
    truth = images(16, 4).pixels.flatten(1)[:, :3] > 127
    given = Images(images(16, 4).pixels, attributes=truth)
    context = Context(protocol, CPU, 5, validation=lambda: given)
    with context.seeded("initialise"):
        trained = network()
    context.fit("target", trained, given, Recipe(epochs=1, batch_size=16), cross_entropy, kept="last")
    with torch.no_grad():
        said = trained.logits(given.pixels.float().div(255)) > 0
    assert context.notes["selection"]["validation_accuracy"] == pytest.approx(float((said == truth).float().mean()))


def test_few_steps_look_at_no_more_images_than_they_train_on():
    """A look may cost half as much as the training since the one before, not many times as much."""
    context, _, _ = fit(epochs=1, validation=images(3000, 2))
    assert context.notes["selection"]["validation_images"] == 16
