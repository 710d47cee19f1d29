"""Laws of calibrated negatives, a slow copy of how they are made, and what they say of two kinds of attackers."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import ClassReconstructions, Evidence, Images, Negatives, Predictions
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.networks.judges import Judge, accuracy
from privbench.benchmark.pipeline import negatives
from privbench.benchmark.pipeline.negatives import Ball, log_odds, make_negatives
from privbench.benchmark.pipeline.trained_models import predict
from privbench.benchmark.training.context import Context
from privbench.evaluators.attack_acc import AttackAcc
from privbench.evaluators.verified_acc import VerifiedAcc
from sklearn.datasets import load_digits
from torch import nn

CPU = torch.device("cpu")
LABELS = (0, 1, 2, 3, 4)
PROTOCOL = Protocol(
    name="scans",
    version=1,
    image=(1, 8, 8),
    classes=5,
    judge_classes=10,
    target_network="none",
    judge_network="none",
    second_judge_network="none",
    attacked=5,
    draws=10,
)


class Noise(nn.Module):
    """A stochastic layer, at test time too."""

    def forward(self, x):
        return x + 0.5 * torch.randn_like(x)


def perceptron(classes, hidden, *, seed, noisy=False, channels=1):
    generator = torch.Generator().manual_seed(seed)
    size = 64 * channels
    layers = [nn.Flatten(), nn.Linear(size, hidden), nn.Tanh(), *([Noise()] if noisy else [])]
    network = Network({"hidden": nn.Sequential(*layers), "logits": nn.Linear(hidden, classes)})
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
    return network


def trained(network, images):
    """Fits a small network to all images at once, by gradient descent, in well under a second."""
    x, y = images.pixels.float().div(255), images.labels
    parameters = list(network.parameters())
    for _ in range(150):
        slopes = torch.autograd.grad(nn.functional.cross_entropy(network(x), y), parameters)
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter -= slope
    return network.eval()


@pytest.fixture(scope="module")
def scans():
    """Images of ten digits: every other one for training, the rest for testing."""
    data = load_digits()
    pixels = (torch.from_numpy(data.images).unsqueeze(1) * 255 / 16).round().to(torch.uint8)
    images = Images(pixels, torch.from_numpy(data.target).long())
    return images.select(torch.arange(0, len(images), 2)), images.select(torch.arange(1, len(images), 2))


@pytest.fixture(scope="module")
def world(scans):
    """A target of the digits 0-4, two judges of all ten, public images of 5-9, what the target says of test images."""
    train, test = scans
    private, known = (part.select(part.labels < 5) for part in (train, test))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        target = trained(perceptron(5, 24, seed=0), private)
        judges = [trained(perceptron(10, hidden, seed=hidden), train) for hidden in (32, 20)]
    return SimpleNamespace(
        target=target,
        private=private,
        test=test,
        judges=judges,
        public=Images(train.pixels[train.labels >= 5]),
        known=Predictions(predict(target, known.pixels, CPU, 0), known.labels),
    )


def made(world, each=8, *, seed=3, target=None, public=None, known=None, labels=LABELS):
    context = Context(PROTOCOL, CPU, seed)
    public = world.public if public is None else public
    return make_negatives(target or world.target, public, known or world.known, labels, each, context)


def origins(found, public):
    """For each negative the public image that is nearest in the largest difference of a pixel, and that difference."""
    apart = (found.pixels[:, None].int() - public.pixels[None].int()).abs().flatten(2).amax(2)
    return apart.min(1)


def test_they_fool_the_target_as_surely_as_private_images_or_use_the_whole_ball(world):
    found = made(world)
    logits = predict(world.target, found.pixels, CPU, 0)
    assert torch.equal(logits.argmax(1) == found.labels, found.fooled)
    assert found.fooled.double().mean() > 0.9
    odds = log_odds(world.known.logits.double(), world.known.labels)
    sure = float(odds[world.known.logits.argmax(1) == world.known.labels].median())
    unsure = log_odds(logits.double(), found.labels) < sure - 1e-3
    assert unsure.double().mean() < 0.5
    pushed = (found.pixels.int() - world.public.pixels[origins(found, world.public)[1]].int()).abs().flatten(1).amax(1)
    assert (pushed[unsure] == Ball.of(1).radius).all()


def test_they_stay_in_the_ball_and_begin_at_public_images_each_used_once(world):
    before = world.public.pixels.clone()
    found = made(world)
    apart, index = origins(found, world.public)
    assert found.pixels.dtype == torch.uint8
    assert int(apart.max()) <= Ball.of(1).radius == 76
    assert int(apart.min()) > 0, "images that the target takes for the label as they are are of no use"
    assert len(index.unique()) == len(index)
    assert torch.equal(world.public.pixels, before)
    assert found.labels.tolist() == [label for label in LABELS for _ in range(8)]


def test_the_ball_in_colour_is_small():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 3, 8, 8), generator=generator, dtype=torch.uint8)
    target = perceptron(5, 24, seed=1, channels=3).eval()
    known = Predictions(torch.eye(5) * 50, torch.arange(5))  # surer than anything a small step can reach
    found = made(None, 3, target=target, public=Images(pixels), known=known)
    apart, _ = origins(found, Images(pixels))
    assert set(apart.tolist()) == {Ball.of(3).radius} == {8}


def test_a_slow_copy_gives_the_same_images(world):
    labels = torch.where(torch.arange(len(world.known.labels)) % 5 < 2, 0, world.known.labels)  # many are wrong now
    known = Predictions(world.known.logits, labels)
    found, ball, target = made(world, 4, known=known), Ball.of(1), copy.deepcopy(world.target).double()
    index = origins(found, world.public)[1]
    odds = [
        math.log(p / (1 - p))
        for logits, label in zip(known.logits.double(), labels.tolist(), strict=True)
        if int(logits.argmax()) == label
        for p in [float(logits.softmax(0)[label])]
    ]
    sure = sorted(odds)[(len(odds) - 1) // 2]
    same = 0
    for place, label in zip(index.tolist(), found.labels.tolist(), strict=True):
        start = world.public.pixels[place].int()
        image = start.clone()
        for _ in range(ball.steps):
            x = image.double().div(255)[None].requires_grad_()
            logits = target(x)[0]
            others = torch.cat([logits[:label], logits[label + 1 :]])
            if logits[label] > others.max() and logits[label].item() - others.exp().sum().log().item() >= sure:
                break
            nn.functional.cross_entropy(logits[None], torch.tensor([label])).backward()
            for row in range(8):
                for column in range(8):
                    slope = float(x.grad[0, 0, row, column])
                    value = int(image[0, row, column]) + (ball.step if slope < 0 else -ball.step if slope > 0 else 0)
                    low, high = int(start[0, row, column]) - ball.radius, int(start[0, row, column]) + ball.radius
                    image[0, row, column] = min(max(value, low, 0), high, 255)
        same += torch.equal(image.to(torch.uint8), found.pixels[(index == place).nonzero()[0, 0]])
    assert same >= 19, "of 20; float32 and float64 may stop at another step"


def test_same_seed_same_bytes_and_nothing_else_is_touched(world):
    state = {key: value.clone() for key, value in world.target.state_dict().items()}
    drawn = torch.get_rng_state()
    first, second, other = made(world), made(world), made(world, seed=4)
    for field in ("pixels", "labels", "fooled"):
        assert torch.equal(getattr(first, field), getattr(second, field))
    assert not torch.equal(first.pixels, other.pixels)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, state[key]) for key, value in world.target.state_dict().items())
    assert all(p.requires_grad for p in world.target.parameters())


def test_chunks_change_nothing_of_a_target_without_noise(world, monkeypatch):
    whole = made(world)
    monkeypatch.setattr(negatives, "CHUNK", 7)
    assert torch.equal(made(world).pixels, whole.pixels)


def test_a_stochastic_target_is_seeded_and_asked_anew(world):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        target = trained(perceptron(5, 24, seed=0, noisy=True), world.private)
    with torch.random.fork_rng():
        first = made(world, target=target)
        torch.rand(3)  # noise comes from the seed, not from where the global generator stands
        second = made(world, target=target)
    assert torch.equal(first.pixels, second.pixels)
    assert torch.equal(first.fooled, second.fooled)
    assert first.fooled.double().mean() > 0.5


def test_a_target_without_gradient_is_not_fooled(world):
    class Deaf(Network):
        def logits(self, x):
            return torch.arange(5.0).expand(len(x), 5)

    deaf = Deaf({"flat": nn.Flatten(), "logits": nn.Linear(64, 5)}).eval()
    found = made(world, target=deaf)
    assert found.labels.unique().tolist() == [0, 1, 2, 3], "it takes everything for 4 unpushed"
    assert not found.fooled.any()
    assert int(origins(found, world.public)[0].max()) == 0


@pytest.mark.parametrize(("public", "expected"), [(0, 0), (4, 0), (13, 2), (60, 8)])
def test_fewer_public_images_make_fewer_negatives_of_each_label(world, public, expected):
    found = made(world, public=world.public.select(torch.arange(public)))
    counts = torch.bincount(found.labels, minlength=5)
    assert int(counts.max()) == expected
    assert found.pixels.shape == (len(found.labels), 1, 8, 8)
    assert found.fooled.dtype == torch.bool
    assert len(found.fooled) == len(found.labels)


def test_a_target_that_is_never_right_is_fooled_at_the_border(world):
    wrong = Predictions(world.known.logits, (world.known.logits.argmax(1) + 1) % 5)
    found = made(world, known=wrong)
    assert found.fooled.all()
    logits = predict(world.target, found.pixels, CPU, 0)
    assert (
        log_odds(logits, found.labels).mean()
        < log_odds(predict(world.target, made(world).pixels, CPU, 0), found.labels).mean()
    )


def test_log_odds_equal_their_definition_and_do_not_round():
    logits = torch.randn(30, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(30) % 6
    p = logits.softmax(1)[torch.arange(30), labels]
    torch.testing.assert_close(log_odds(logits, labels), (p / (1 - p)).log())
    sure = torch.tensor([[90.0, 0.0, 0.0]])
    assert float(log_odds(sure, torch.tensor([0]))) == pytest.approx(90 - math.log(2))


def scored(world, pixels, found):
    """Scores of reconstructions `1 S 5 1 8 8`; the target's own success; the first judge's attack accuracy."""
    judges = SimpleNamespace(**dict(zip(("classifier", "second"), (Judge(n, CPU) for n in world.judges), strict=True)))
    items = {"ClassReconstructions": ClassReconstructions(pixels, torch.arange(5)), "Negatives": found}
    evidence = Evidence(PROTOCOL, items, lambda part: None)
    said = predict(world.target, pixels.flatten(0, 2), CPU, 0).argmax(1)
    success = float((said == torch.arange(5).repeat(pixels.shape[1])).double().mean())
    return VerifiedAcc().score(evidence, judges) | AttackAcc().score(evidence, judges), success


def test_a_perfect_memory_is_verified_and_an_adversary_that_fools_the_target_is_not(world):
    """Returning private images is a leak that both judges confirm; returning negatives fools the target alone."""
    found = made(world, 10)
    assert found.fooled.all()
    memory = torch.stack([world.private.pixels[world.private.labels == label][:40] for label in range(5)], 1)[None]
    right = [accuracy(predict(judge, world.test.pixels, CPU, 0), world.test.labels) for judge in world.judges]
    scores, success = scored(world, memory, found)
    assert success > 0.95
    assert min(right) > 0.9
    assert scores["verified_acc"].value > sum(right) - 1 - 0.03
    assert scores["judge_agreement"].value >= scores["verified_acc"].value

    adversary = found.pixels.reshape(5, 10, 1, 8, 8).transpose(0, 1)[None]
    scores, success = scored(world, adversary, found)
    assert success == 1
    assert scores["attack_acc"].value == pytest.approx(scores["fpr_first"].value)
    assert scores["verified_acc"].value == pytest.approx(scores["fpr_both"].value)
    assert scores["fpr_both"].value <= min(scores["fpr_first"].value, scores["fpr_second"].value)
    assert scores["fpr_both"].value < 0.8 < success
    assert isinstance(found, Negatives)
