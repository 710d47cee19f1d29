"""Laws that every registered component keeps, built in or not; the list comes from the registry."""

import dataclasses
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import torch
from privbench.benchmark import contracts, registry
from privbench.benchmark import evidence as kinds
from privbench.benchmark.access import FeaturesView, Source, View, open_view
from privbench.benchmark.errors import InvalidConfigurationError, MissingDataError
from privbench.benchmark.evidence import Images, Request
from privbench.benchmark.models import state
from privbench.benchmark.networks.network import Network
from privbench.benchmark.spec import BUDGETS, Selection, resolve
from privbench.benchmark.training import Context

CPU = torch.device("cpu")
NOWHERE = Path("nowhere")
#: The cheapest settings that every component of a kind understands, where it has the field.
TINY = {"max_steps": 2, "iterations": 2, "batch_size": 8}


def tiny(kind: registry.Kind, name: str) -> Any:
    digits = resolve("dataset", Selection("digits"), "smoke", {})
    fields = registry.load(kind, name).model_fields
    settings = {f"{kind}.{field}": value for field, value in TINY.items() if field in fields}
    if kind == "defense":
        settings |= {"defense.recipe.max_steps": 2, "defense.recipe.batch_size": 16}
    return resolve(kind, Selection(name), "smoke", settings, digits).component


@pytest.fixture(scope="module")
def digits() -> Any:
    return resolve("dataset", Selection("digits"), "smoke", {"dataset.draws": 2}).component


@pytest.fixture(scope="module")
def private(digits) -> Images:
    images = digits.load("private_train", NOWHERE)
    return images.select(torch.arange(0, len(images), max(1, len(images) // 64)))


@pytest.fixture(scope="module")
def public(digits) -> Images:
    return digits.load("public", NOWHERE).select(torch.arange(48))


@pytest.mark.parametrize(
    ("kind", "name"), [(k, n) for k in registry.KINDS if k not in registry.MODULES for n in registry.names(k)]
)
def test_configuration(kind: registry.Kind, name: str) -> None:
    """Every field says what it means, every budget resolves, and the configuration survives JSON."""
    component = registry.load(kind, name)
    for field, info in component.model_fields.items():
        assert info.description, f"{name}.{field} has no description"
    assert isinstance(component.version, int)
    assert component.version >= 1
    digits = None if kind == "dataset" else resolve("dataset", Selection("digits"), "full", {})
    for budget in BUDGETS:
        made = resolve(kind, Selection(name), budget, {}, digits).component
        assert component.model_validate_json(made.model_dump_json()) == made
    for preset in component.presets:
        resolve(kind, Selection(name, preset), "full", {}, digits)
    with pytest.raises(Exception, match="frozen"):
        setattr(made, next(iter(component.model_fields), "x"), 1)


@pytest.mark.parametrize("name", registry.names("dataset"))
def test_dataset(name: str, tmp_path: Path) -> None:
    """It loads what its protocol says, or says in one sentence what is missing."""
    dataset = registry.load("dataset", name)()
    protocol = dataset.protocol
    try:
        parts = {part: dataset.load(part, tmp_path) for part in contracts.Part.__args__}
    except MissingDataError as error:
        assert "\n" not in str(error)
        assert dataset.check(tmp_path)
        return
    for images in parts.values():
        assert images.pixels.dtype == torch.uint8
        assert tuple(images.pixels.shape[1:]) == protocol.image
        assert len(images)
    for part in ("private_train", "private_test"):
        assert parts[part].labels.unique().tolist() == list(range(protocol.classes))
    again = registry.load("dataset", name)().load("private_train", tmp_path)
    assert torch.equal(again.pixels, parts["private_train"].pixels)


@pytest.mark.parametrize("name", registry.names("network"))
def test_network(name: str) -> None:
    """Head after encoder is the network at every layer, and its state loads strictly."""
    image = next(i for i in [(1, 32, 32), (3, 32, 32), (3, 64, 64)] if _takes(name, i))
    network: Network = registry.load("network", name)(image, 4).eval()
    x = torch.rand(2, *image, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        latents, logits = network.trace(x)
        assert logits.shape == (2, 4)
        assert tuple(latents) == network.layers
        for layer, z in latents.items():
            torch.testing.assert_close(network.head(z, layer), logits, rtol=1e-4, atol=1e-5)
    other: Network = registry.load("network", name)(image, 4)
    other.load_state_dict(network.state_dict(), strict=True)


FACES = contracts.Protocol(
    name="faces",
    version=1,
    image=(3, 64, 64),
    classes=2,
    judge_classes=2,
    target_network="none",
    judge_network="none",
    attacked=1,
    draws=1,
    face_box=(35, 55, 108, 108),
)


@pytest.mark.parametrize("name", registry.names("embedder"))
def test_embedder(name: str) -> None:
    """Unit vectors, the same for an image whatever its company, differentiable; faces are not looked for elsewhere."""
    network = registry.load("embedder", name)(pretrained=False).eval()
    x = torch.rand(2, *FACES.image, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    found = network.embed(x.requires_grad_(), FACES)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    assert torch.autograd.grad(found[:, 0].sum(), x)[0].abs().sum() > 0
    with torch.inference_mode():
        torch.testing.assert_close(network.embed(before[:1], FACES), found[:1].detach(), rtol=1e-4, atol=1e-5)
        assert network.embed(before[:0], FACES).shape == (0, found.shape[1])
        elsewhere = FACES.model_copy(update={"face_box": None})
        if network.faces:
            with pytest.raises(InvalidConfigurationError, match="face_box"):
                network.embed(before, elsewhere)
        else:
            assert network.embed(before, elsewhere).shape == found.shape
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", registry.names("perceptual"))
def test_perceptual(name: str) -> None:
    """Nothing between equal images, more between others, for images of any size, differentiable."""
    network = registry.load("perceptual", name)(pretrained=False).eval()
    a, b = torch.rand(2, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found = network.distance(a.requires_grad_(), b)
    assert found.shape == (2,)
    assert (found > 0).all()
    assert torch.autograd.grad(found.sum(), a)[0].abs().sum() > 0
    assert network.distance(a, a).abs().max() == 0


def _takes(name: str, image: tuple[int, int, int]) -> bool:
    try:
        registry.load("network", name)(image, 4)
    except InvalidConfigurationError:
        return False
    return True


def train(name: str, digits: Any, private: Images) -> Network:
    context = Context(digits.protocol, CPU, 7)
    return tiny("defense", name).train(private, context)


@pytest.mark.parametrize("name", registry.names("defense"))
def test_defense(name: str, digits, private: Images) -> None:
    """It trains the same target from the same seed, leaves its input alone, and its target loads strictly."""
    before = private.pixels.clone()
    first = train(name, digits, private)
    second = train(name, digits, private)
    assert torch.equal(private.pixels, before)
    assert not first.training
    ours, theirs = state(first), state(second)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    network = tiny("defense", name).network(digits.protocol)
    network.load_state_dict(ours, strict=True)
    logits = first.logits(torch.rand(3, *digits.protocol.image))
    assert logits.shape == (3, digits.protocol.classes)
    assert logits.dtype == torch.float32
    assert first.logits(torch.rand(0, *digits.protocol.image)).shape == (0, digits.protocol.classes)


@pytest.mark.parametrize("name", registry.names("attack"))
def test_attack(name: str, digits, private: Images, public: Images) -> None:
    """It gives what it says, twice the same, sees public images only, and asks no more than its access allows.

    What it says must fall is among the curves that it records.
    """
    attack = tiny("attack", name)
    target = train("none", digits, private)
    protocol = digits.protocol
    rebuild = {
        "defense": "none",
        "fields": tiny("defense", "none").model_dump(mode="json"),
        "protocol": protocol.model_dump(mode="json"),
    }
    before = public.pixels.clone()
    found = []
    for _ in range(2):
        learning, running = Context(protocol, CPU, 5), Context(protocol, CPU, 6)
        with open_view(attack.access, Source(rebuild, lambda: state(target), protocol), device=CPU, seed=3) as view:
            prior = {}
            if attack.prior != "none":
                learner = view if attack.prior == "target" else None
                prior = attack.learn(learner, public, learning)
            request = Request((0, 2), 2, 1, 2, *observed(view, private))
            found.append(attack.run(view, prior, request, running))
            assert view.queries["forward"] > 0
            assert view.unchanged()
    assert torch.equal(public.pixels, before)
    recorded = {loop: series for context in (learning, running) for loop, series in context.curves.items()}
    for pattern, series in attack.falling.items():
        assert any(fnmatchcase(loop, pattern) and series in curve for loop, curve in recorded.items()), pattern
    first, second = found
    assert type(first) is getattr(kinds, attack.yields)
    for field in dataclasses.fields(first):
        assert torch.equal(getattr(first, field.name), getattr(second, field.name)), field.name
    if attack.yields == "ClassReconstructions":
        assert first.pixels.shape == (1, 2, 2, *protocol.image)
        assert first.labels.tolist() == [0, 2]
    else:
        assert first.items.tolist() == [4, 5, 6]
    if attack.yields == "PairedReconstructions":
        assert first.pixels.shape == (3, *protocol.image)
    assert getattr(first, "pixels", torch.zeros(0, dtype=torch.uint8)).dtype == torch.uint8


def observed(view: View, private: Images) -> tuple[torch.Tensor, torch.Tensor] | tuple[()]:
    """What an attack on features is given: three latents and whose they are."""
    if not isinstance(view, FeaturesView):
        return ()
    items = torch.tensor([4, 5, 6])
    return view.features(private.pixels[items].float().div(255)), items


@pytest.mark.parametrize("name", registry.names("evaluator"))
def test_evaluator(name: str) -> None:
    """Its definitions are complete and its needs are kinds of evidence."""
    evaluator = registry.load("evaluator", name)
    assert evaluator.scores
    for definition in evaluator.scores:
        assert definition.formula
        assert definition.range
    for need in evaluator.needs:
        assert all(hasattr(kinds, kind) for kind in need.split("|"))
    names = [definition.name for definition in evaluator.scores]
    assert len(set(names)) == len(names)


def test_score_names_are_unique() -> None:
    names = [d.name for name in registry.names("evaluator") for d in registry.load("evaluator", name).scores]
    assert len(set(names)) == len(names)
