"""The training loop resumes with the same bytes, reports divergence, and seeds every step."""

import pytest
import torch
from helpers.loops import PROTOCOL, Memory
from privbench.benchmark.core.config import Recipe
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.errors import DivergedError, InvalidConfigurationError
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.training.context import Context
from privbench.benchmark.training.device import choose_device
from privbench.benchmark.training.monitor import LoopMonitor
from privbench.benchmark.training.optimisation import cross_entropy, learning_rate
from privbench.benchmark.training.progress import NullProgress
from torch import nn


def toy() -> Network:
    return Network(
        {
            "flat": nn.Flatten(),
            "hidden": nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.3)),
            "logits": nn.Linear(8, 3),
        }
    )


def images() -> Images:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % 3
    pixels = torch.randint(0, 255, (60, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return Images(pixels, labels)


class InterruptedRunError(Exception):
    pass


def train(recipe: Recipe, checkpoint: Memory | None, stop: int | None = None) -> dict[str, torch.Tensor]:
    context = Context(PROTOCOL, torch.device("cpu"), 5, checkpoint)
    with context.seeded("initialise"):
        network = toy()
    calls = 0

    def loss(net, x, y):
        nonlocal calls
        calls += 1
        if stop is not None and calls > stop:
            raise InterruptedRunError
        return cross_entropy(net, x, y)

    context.fit("target", network, images(), recipe, loss)
    return network.state_dict()


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_resumed_loop_gives_the_same_bytes(monkeypatch, optimizer: str, stop: int) -> None:
    monkeypatch.setattr("privbench.benchmark.training.monitor.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("privbench.benchmark.training.monitor.CHECKPOINT_SHARE", 1e9)
    recipe = Recipe(optimizer=optimizer, learning_rate=0.05, epochs=4, batch_size=16, milestones=(2,))
    whole = train(recipe, None)
    memory = Memory()
    with pytest.raises(InterruptedRunError):
        train(recipe, memory, stop)
    assert memory.kept["target"][1]["done"] == stop
    resumed = train(recipe, memory)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_global_generator_is_not_changed() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(Recipe(epochs=1, batch_size=16), None)
    assert torch.equal(torch.rand(2), expected)


def test_message_of_divergence_has_the_step() -> None:
    context = Context(PROTOCOL, torch.device("cpu"), 5)

    def step(i, generator):
        return {"loss": torch.tensor(float("nan") if i == 4 else 1.0)}

    with pytest.raises(DivergedError, match="step 5 of 9"):
        context.loop("target", 9, {}, step)


def test_every_step_has_its_own_random_numbers() -> None:
    seen = []
    context = Context(PROTOCOL, torch.device("cpu"), 5)

    def step(i, generator):
        seen.append((float(torch.rand(())), float(torch.rand((), generator=generator))))
        return {}

    context.loop("a", 5, {}, step)
    first, seen = list(seen), []
    context.loop("a", 5, {}, step)
    assert first == seen
    assert len({value for pair in first for value in pair}) == 10


def test_schedule() -> None:
    recipe = Recipe(learning_rate=1.0, milestones=(2, 4), gamma=0.5)
    assert [learning_rate(recipe, epoch) for epoch in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_unknown_devices_are_rejected() -> None:
    for name in ("gpu", "cuda:x", "cuda:99"):
        with pytest.raises(InvalidConfigurationError, match=name):
            choose_device(name)


def interrupted(monkeypatch, recipe: Recipe) -> Memory:
    """The checkpoint of a run that was stopped after seven steps."""
    monkeypatch.setattr("privbench.benchmark.training.monitor.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("privbench.benchmark.training.monitor.CHECKPOINT_SHARE", 1e9)
    memory = Memory()
    with pytest.raises(InterruptedRunError):
        train(recipe, memory, 7)
    assert memory.kept["target"][1]["done"] == 7
    return memory


@pytest.mark.parametrize("package", ["privbench", "torch"])
def test_a_checkpoint_of_another_version_is_not_resumed(monkeypatch, caplog, package: str) -> None:
    """With two versions on one store, or after an upgrade, no artifact mixes two versions."""
    recipe = Recipe(optimizer="adam", learning_rate=0.05, epochs=4, batch_size=16)
    whole, memory = train(recipe, None), interrupted(monkeypatch, recipe)
    groups, info = memory.kept["target"]
    for tensors in groups.values():
        for tensor in tensors.values():
            tensor.zero_()  # what the other version made
    versions = {**info["versions"], package: "0.0.1"}
    memory.kept["target"] = groups, {**info, "versions": versions}
    found = train(recipe, memory)
    assert all(torch.equal(found[key], whole[key]) for key in whole)
    assert f"checkpoint of loop target was made with privbench {versions['privbench']} and torch" in caplog.text
    assert f"{package} 0.0.1" in caplog.text
    memory.kept["target"] = groups, {key: value for key, value in info.items() if key != "versions"}
    again = train(recipe, memory)
    assert all(torch.equal(again[key], whole[key]) for key in whole)
    assert "was made with another version of privbench; restarting the loop" in caplog.text


def wider(groups, facts):
    name = next(name for name, tensor in groups["network"].items() if tensor.shape == (8, 16))
    groups["network"][name] = torch.zeros(9, 16)


def without_a_layer(groups, facts):
    groups["network"].popitem()


def of_a_larger_optimizer(groups, facts):
    groups["optimizer"]["99.exp_avg"] = torch.zeros(3)


def of_another_loop(groups, facts):
    facts["generator"] = facts.pop("network")


def with_names_of_no_number(groups, facts):
    groups["optimizer"]["first.exp_avg"] = torch.zeros(3)


@pytest.mark.parametrize(
    "change", [wider, without_a_layer, of_a_larger_optimizer, of_another_loop, with_names_of_no_number]
)
def test_a_checkpoint_of_other_networks_is_not_resumed(monkeypatch, caplog, change) -> None:
    recipe = Recipe(optimizer="adam", learning_rate=0.05, epochs=4, batch_size=16)
    whole, memory = train(recipe, None), interrupted(monkeypatch, recipe)
    groups, info = memory.kept["target"]
    facts = dict(info["state"])
    change(groups, facts)
    memory.kept["target"] = groups, {**info, "state": facts}
    found = train(recipe, memory)
    assert all(torch.equal(found[key], whole[key]) for key in whole)
    assert "checkpoint of loop target is of other networks or optimisers; restarting the loop" in caplog.text


def test_a_resumed_loop_continues_time_and_queries() -> None:
    class View:
        def __init__(self, **queries: int) -> None:
            self.queries = queries

        def resume(self, queries) -> None:
            self.queries = queries

    memory = Memory()
    stopped = Context(PROTOCOL, torch.device("cpu"), 5, memory)
    stopped.view, stopped._seconds_before = View(forward=7), 100.0
    stopped.save("target", 3, {})
    resumed = Context(PROTOCOL, torch.device("cpu"), 5, memory)
    resumed.view, seen = View(), []
    resumed.loop("target", 5, {}, lambda i, generator: seen.append(i) or {})
    assert seen == [3, 4]
    assert resumed.view.queries == {"forward": 7}
    assert 100 <= resumed.seconds < 200


def test_a_curve_has_evenly_spaced_steps_and_the_last_one() -> None:
    context = Context(PROTOCOL, torch.device("cpu"), 5)
    context.loop("target", 305, {}, lambda i, generator: {"loss": torch.tensor(float(i))})
    assert context.curves["target"]["loss"] == [[i, float(i)] for i in [*range(0, 305, 3), 304]]


def test_checkpoints_take_a_small_share_of_the_time(monkeypatch) -> None:
    """Here a step takes a second and a checkpoint one, which is due after 50 seconds, 2 % of the time, not after 5."""
    now = [0.0]
    monkeypatch.setattr("privbench.benchmark.training.monitor.time.monotonic", lambda: now[0])

    class Slow(Memory):
        def save(self, name, groups, info) -> None:
            now[0] += 1
            saved.append(info["done"])

    saved: list[int] = []

    def step(i, generator):
        now[0] += 1
        return {}

    Context(PROTOCOL, torch.device("cpu"), 5, Slow()).loop("target", 130, {}, step)
    assert saved == [6, 57, 108]


def test_losses_on_an_accelerator_are_read_every_25_steps() -> None:
    class Loss:
        def __init__(self, i: int) -> None:
            self.i = i

        def __float__(self) -> float:
            read.append(self.i)
            return 1.0

    for device, interval in (("cpu", 1), ("cuda", 25)):
        read: list[int] = []
        monitor = LoopMonitor("target", 10_000, {}, NullProgress(), lambda done: None, torch.device(device))
        monitor.begin(0, {})
        for i in range(301):  # the curve has every hundredth step
            monitor.after_step(i, {"loss": Loss(i)})
        assert read == list(range(0, 301, interval))


@pytest.mark.parametrize(("halvings", "counts"), [(0, (60, 7, 1)), (1, (30, 3, 1)), (3, (7, 1, 1))])
def test_images_at_once_are_halved_as_often_as_memory_ran_out(halvings: int, counts: tuple[int, ...]) -> None:
    context = Context(PROTOCOL, torch.device("cpu"), 5, batch_halvings=halvings)
    assert not context.can_halve
    assert tuple(context.chunk_size(usual) for usual in (60, 7, 1)) == counts
    assert context.images_at_once == counts[0] and context.can_halve
