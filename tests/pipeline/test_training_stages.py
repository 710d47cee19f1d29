"""The stages that train: which images, recipe, batches and start each judge has, and what a target is asked for."""

from types import SimpleNamespace

import pytest
import torch
from helpers import by_hand
from helpers.loops import PROTOCOL
from privbench.benchmark.core.config import Recipe
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.pipeline import stages
from privbench.benchmark.training.context import Context
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("double")
CPU, SEED = torch.device("cpu"), 5
RECIPES = {
    "judge": Recipe(
        learning_rate=0.05, momentum=0.5, nesterov=True, batch_size=8, epochs=3, milestones=(1,), gamma=0.2
    ),
    "second_judge": Recipe(optimizer="adam", learning_rate=0.01, weight_decay=0.01, batch_size=6, epochs=2),
}


def layers() -> dict[str, nn.Module]:
    return {"flat": nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6)), "logits": nn.Linear(6, 3)}


def images(count: int, seed: int) -> Images:
    drawn = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 1, 4, 4), generator=drawn, dtype=torch.uint8)
    return Images(pixels, torch.randint(0, 3, (count,), generator=drawn), torch.arange(count) // 9)


PARTS = {
    "judge_train": images(27, 1),
    "judge_test": images(10, 2),
    "private_train": images(20, 3),
    "private_test": images(300, 4),
}
DATASET = SimpleNamespace(component=SimpleNamespace(**RECIPES))


def run(kind: str, monkeypatch: pytest.MonkeyPatch, **changes: object) -> tuple[stages.StageOutput, list[dict]]:
    """Run the stage of a judge; return its output and how its network was asked for."""
    asked = []

    def build(protocol: object, **options: bool) -> Network:
        asked.append(options)
        return Network(layers())

    monkeypatch.setattr(stages, "judge_network", build)
    # Judges see float32 images; this one has weights in float64.
    monkeypatch.setattr(Tensor, "float", lambda self: self.double())
    stage = SimpleNamespace(kind=kind, cell=SimpleNamespace(dataset=DATASET))
    session = SimpleNamespace(device=CPU, images=lambda dataset, part: PARTS[part] if dataset is DATASET else None)
    protocol = PROTOCOL.model_copy(update={"second_judge_network": "other", "sampler": "identity", **changes})
    return stages._judge(stage, session, Context(protocol, CPU, SEED)), asked


@pytest.mark.parametrize("augmentation", ["none", "flip", "cutout"])
@pytest.mark.parametrize(("kind", "usual"), [("judge", "flip"), ("second_judge", "crop_flip")])
def test_a_judge_is_trained_as_documented(
    kind: str, usual: str, augmentation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shuffled whatever the target's sampler is, with an augmentation of its own where targets have one."""
    output, asked = run(kind, monkeypatch, augmentation=augmentation)
    torch.manual_seed(by_hand.seed_of(SEED, "initialise"))
    start, train, test = nn.ModuleList(layers().values()), PARTS["judge_train"], PARTS["judge_test"]

    def loss(network: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
        return by_hand.task_loss(by_hand.outputs(network, x)[-1], y)

    own = "none" if augmentation == "none" else usual
    expected, _ = by_hand.train(
        start, train.pixels, train.labels, RECIPES[kind], loss, seed=SEED, loop="judge", augmentation=own
    )
    found = Network(layers())
    found.load_state_dict(output.tensors["network"])
    by_hand.assert_equal(found, expected)
    with torch.no_grad():
        right = by_hand.outputs(expected, test.pixels.double() / 255)[-1].argmax(1) == test.labels
    assert output.facts.test_accuracy == pytest.approx(float(right.double().mean()))
    assert (output.facts.n, output.facts.network) == (10, "other" if kind == "second_judge" else "toy")
    assert output.facts.recipe == RECIPES[kind].model_dump(mode="json")
    assert asked == [{"pretrained": False, "second": kind == "second_judge"}]


@pytest.mark.parametrize(
    ("changes", "starts"),
    [
        ({"pretrained": True}, {"judge": True, "second_judge": True}),
        ({"pretrained": True, "judge_pretrained": False}, {"judge": False, "second_judge": False}),
        ({"judge_pretrained": True}, {"judge": True, "second_judge": True}),
        ({"judge_pretrained": True, "second_judge_pretrained": False}, {"judge": True, "second_judge": False}),
    ],
)
def test_each_judge_starts_from_the_weights_that_the_protocol_says(
    changes: dict, starts: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, pretrained in starts.items():
        output, asked = run(kind, monkeypatch, **changes)
        assert [options["pretrained"] for options in asked] == [pretrained] == [output.facts.pretrained]


class Noisy(nn.Module):
    """Noise that is also drawn in evaluation mode."""

    def forward(self, z: Tensor) -> Tensor:
        return z + torch.randn_like(z)


def test_a_target_sees_training_images_and_answers_test_images_with_the_noise_of_its_seed() -> None:
    target = Network({"noisy": nn.Sequential(nn.Flatten(), Noisy()), "logits": nn.Linear(16, 3)})
    seen = []

    def train(private: Images, context: Context) -> Network:
        seen.append(private)
        context.notes["selection"] = {"kept": "best"}
        return target.float()

    defense = SimpleNamespace(component=SimpleNamespace(train=train), identity=lambda: {"name": "noisy"})
    stage = SimpleNamespace(kind="target", cell=SimpleNamespace(dataset=DATASET, defense=defense))
    session = SimpleNamespace(device=CPU, images=lambda dataset, part: PARTS[part])
    torch.set_default_dtype(torch.float32)
    output = stages._target(stage, session, Context(PROTOCOL, CPU, SEED))
    assert [private is PARTS["private_train"] for private in seen] == [True]
    test, expected = PARTS["private_test"], []
    for i, part in enumerate(test.pixels.split(256)):
        torch.manual_seed(by_hand.seed_of(SEED, "predict", i))
        with torch.no_grad():
            expected.append(target(part / 255))
    predictions = output.tensors["predictions"]
    torch.testing.assert_close(predictions["logits"], torch.cat(expected))
    assert predictions["labels"] is test.labels
    right = torch.cat(expected).argmax(1) == test.labels
    facts = output.facts
    assert facts.test_accuracy == pytest.approx(float(right.double().mean()))
    assert (facts.n, facts.prediction_seed, facts.selection) == (300, SEED, {"kept": "best"})
    assert (facts.defense, facts.protocol["name"]) == ({"name": "noisy"}, "toy")
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in output.tensors["network"].items())
