"""Components that each fail one check; `test_checks.py` registers them under the names of their classes."""

import random
import tempfile
from pathlib import Path
from typing import ClassVar

import torch
from privbench import (
    Attack,
    ClassReconstructions,
    Dataset,
    Defense,
    Definition,
    Evaluator,
    Images,
    Network,
    Predictions,
    PrivbenchError,
    Score,
    setting,
)
from privbench.benchmark.errors import MissingDataError
from privbench.benchmark.networks.embedders.embedder import Embedder
from privbench.benchmark.networks.perceptual.perceptual import Perceptual
from privbench.benchmark.testing.samples import Sample
from privbench.benchmark.training.optimisation import cross_entropy, update
from pydantic import ConfigDict
from torch import nn
from torch.nn import functional

#: A file that components read without naming it.
NOTE = Path(tempfile.mkdtemp()) / "note.txt"
NOTE.write_text("a note")


class Sound(Defense):
    """A defense that passes every check."""

    weight: float = setting(1.0, "factor of the loss", ge=0)

    def loss(self, network, x, y):
        return self.weight * cross_entropy(network, x, y)


class Unregistered(Sound):
    """A defense that no entry point names."""


class Undescribed(Sound):
    pass


class Unfinished(Sound):
    """A docstring that ends in the middle of a sentence, as in"""


class Unversioned(Sound):
    """A version of zero."""

    version = 0


class Nameless(Sound):
    """A field without a description."""

    steps: int = 3


class Unbounded(Sound):
    """A number without a range."""

    margin: float | None = setting(1.0, "distance between classes")


class Required(Sound):
    """A field without a default."""

    margin: float = setting(description="distance between classes", ge=0)


class Misbudgeted(Sound):
    """A value out of range in a budget."""

    margin: float = setting(1.0, "distance between classes", ge=0, quick=-1.0)


class Mispreset(Sound):
    """A preset with a field that it does not have."""

    presets: ClassVar = {"mine": {"wait": 2.0}}


class Thawed(Sound):
    """Fields that can be changed."""

    model_config = ConfigDict(frozen=False)


class PerImage(Sound):
    """A loss of each image."""

    def loss(self, network, x, y):
        return functional.cross_entropy(network.logits(x), y, reduction="none")


class Constant(Sound):
    """A loss without a gradient."""

    def loss(self, network, x, y):
        return cross_entropy(network, x, y).detach()


class StillTraining(Sound):
    """A target in training mode."""

    def train(self, private, context):
        return super().train(private, context).train()


class Gambler(Sound):
    """A loss that draws from Python's global generator."""

    def loss(self, network, x, y):
        return random.random() * super().loss(network, x, y)


class Vandal(Sound):
    """Training that blackens the private images."""

    def train(self, private, context):
        network = super().train(private, context)
        private.pixels[0] = 0
        return network


class Scaled(Network):
    """A network with a factor that is not in its state."""

    factor = 1.0

    def trace(self, x):
        latents, logits = super().trace(x)
        return latents, self.factor * logits


class Forgetful(Sound):
    """A target of which something learnt is not among its weights."""

    def network(self, protocol):
        return Scaled(dict(super().network(protocol).stages.items()))

    def train(self, private, context):
        network = super().train(private, context)
        network.factor = 2.0
        return network


class Rebuilder(Sound):
    """A trained network that `network` does not build."""

    def train(self, private, context):
        network = super().train(private, context)
        network.extra = nn.Linear(2, 2)
        return network


class Lenient(Network):
    """A network that loads whatever it is given."""

    def load_state_dict(self, state_dict, strict=True, assign=False):
        return super().load_state_dict(state_dict, strict=False, assign=assign)


class Careless(Sound):
    """A target that loads whatever it is given."""

    def network(self, protocol):
        return Lenient(dict(super().network(protocol).stages.items()))


class Amnesiac(Sound):
    """A loop that does not tell what its steps change."""

    def train(self, private, context):
        with context.seeded("initialise"):
            network = self.network(context.protocol)
        batches = context.batches("target", private, 16)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)

        def step(i, generator):
            loss = self.loss(network, *batches.at(i))
            update(optimizer, loss)
            return {"loss": loss.detach()}

        context.loop("target", 4, {"network": network}, step)
        return network.eval()


class Loopless(Sound):
    """Training outside context.loop."""

    def train(self, private, context):
        with context.seeded("initialise"):
            network = self.network(context.protocol)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        for i in range(2):
            update(optimizer, self.loss(network, *context.batches("target", private, 16).at(i)))
        return network.eval()


class Comparer(Sound):
    """A loss that needs two classes and does not say so."""

    def loss(self, network, x, y):
        return super().loss(network, x, y) / (
            len(y.unique()) - 1 if len(y.unique()) > 1 else 1 // (len(y.unique()) - 1)
        )


class Exploder(Sound):
    """A loss that turns the weights into NaN on one class."""

    def train(self, private, context):
        network = super().train(private, context)
        if len(private.truth("classes").unique()) == 1:
            nn.init.constant_(next(network.parameters()), float("nan"))
        return network


class Mislabelled(Sound):
    """Files whose hashes are none."""

    def files(self, stage=None):
        return {"weights": "unknown"}


class Still(Attack):
    """An attack that passes every check: a few steps from the mean public image."""

    access: ClassVar = "white_box"
    prior: ClassVar = "public"

    iterations: int = setting(4, "steps", ge=1)

    def learn(self, view, public, context):
        if len(public) == 0:
            raise PrivbenchError("expected public images, got none")
        return {"public": {"mean": public.pixels.double().mean(0).div(255).float(), "one": torch.ones(1)}}

    def state(self, images, optimizer):
        return {"images": images, "optimizer": optimizer}

    def loss(self, view, x, labels):
        return functional.cross_entropy(view.logits(x), labels)

    def run(self, view, prior, request, context):
        labels = torch.tensor(request.labels)
        many = labels.expand(request.trials, request.draws, -1)
        start = prior["public"]["mean"] * prior["public"]["one"]
        start = start + 0.1 * torch.randn(many.numel(), *start.shape, generator=context.generator("start"))
        images = nn.ParameterDict({"x": nn.Parameter(start.clamp(0, 1))})
        optimizer = torch.optim.Adam(images.parameters(), lr=0.1)

        def step(i, generator):
            loss = self.loss(view, images["x"], many.flatten())
            update(optimizer, loss)
            with torch.no_grad():
                images["x"].clamp_(0, 1)
            return {"loss": loss.detach()}

        context.loop("descend", self.iterations, self.state(images, optimizer), step)
        pixels = images["x"].detach().mul(255).round().to(torch.uint8)
        return ClassReconstructions(pixels.unflatten(0, tuple(many.shape)), labels)


class Grey(Still):
    """An access that there is not."""

    access: ClassVar = "grey_box"


class Layerless(Still):
    """An attack on features without the field `layer`."""

    access: ClassVar = "features"


class Liar(Still):
    """An attack that declares scores and reaches for the logits."""

    access: ClassVar = "scores"


class Climber(Still):
    """An attack that declares scores and takes their gradient."""

    access: ClassVar = "scores"

    def loss(self, view, x, labels):
        return functional.nll_loss(view.scores(x.clamp(0, 1)).log(), labels)


class Trainer(Still):
    """An attack that changes the target."""

    def run(self, view, prior, request, context):
        found = super().run(view, prior, request, context)
        with torch.no_grad():
            next(view.network.parameters()).mul_(1.01)
        return found


class Thief(Still):
    """An attack that reads weights where queries are not counted."""

    def loss(self, view, x, labels):
        weight = next(view.network.parameters()).detach().sum()
        return (x * weight).sum()


class Floating(Still):
    """Pixels that are not bytes."""

    def run(self, view, prior, request, context):
        found = super().run(view, prior, request, context)
        return ClassReconstructions(found.pixels.float(), found.labels)


class Unseeded(Still):
    """A start from the global generator."""

    def learn(self, view, public, context):
        return {"public": {**super().learn(view, public, context)["public"], "one": 0.5 + torch.rand(1)}}


class Eraser(Still):
    """An attack that blackens the public images."""

    def learn(self, view, public, context):
        found = super().learn(view, public, context)
        public.pixels.zero_()
        return found


class Shrugger(Still):
    """An attack that goes on without what it learnt."""

    def run(self, view, prior, request, context):
        mean = prior["public"].get("mean", torch.zeros(context.protocol.image))
        return super().run(view, {"public": {"mean": mean, "one": torch.ones(1)}}, request, context)


class Momentary(Still):
    """A loop that does not tell of its optimiser."""

    def state(self, images, optimizer):
        return {"images": images}


class Riser(Still):
    """A curve that is not recorded."""

    decreasing_losses: ClassVar = {"descend": "error"}


class Pairwise(Still):
    """An attack that needs two labels and does not say so."""

    def loss(self, view, x, labels):
        assert len(labels.unique()) > 1, "there is but one label"
        return super().loss(view, x, labels)


class Narrow(Still):
    """An attack that fails on images of another size without saying before which it supports."""

    def learn(self, view, public, context):
        if public.pixels.shape[-1] == 48:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return super().learn(view, public, context)


class Unfiled(Still):
    """Files whose hashes are none."""

    def files(self, stage=None):
        return {"weights": "unknown"}


def definition(name):
    title, range_ = "Brightness", "[0, 1]"
    return Definition(
        name=name, title=title, measures="quality", better="higher", unit="fraction", formula="mean", range=range_
    )


class Bright(Evaluator):
    """An evaluator that passes every check: the mean value of reconstructions."""

    needs: ClassVar = ("ClassReconstructions",)
    scores: ClassVar = (definition("bright"),)

    def value(self, pixels, evidence):
        return float(pixels.double().mean()) / 255

    def score(self, evidence, judges):
        pixels = evidence.get(ClassReconstructions).pixels
        (name,) = (item.name for item in self.scores)
        if pixels.numel() == 0:
            return {name: Score(None, reason="there are no reconstructions")}
        return {name: Score(self.value(pixels, evidence), n=len(pixels))}


class Copycat(Bright):
    """A score under a name that is taken."""

    scores: ClassVar = (definition("mse"),)


class Needy(Bright):
    """A kind of evidence that there is not."""

    needs: ClassVar = ("Confessions",)
    scores: ClassVar = (definition("needy"),)


class Excessive(Bright):
    """A score outside its range."""

    scores: ClassVar = (definition("excessive"),)

    def value(self, pixels, evidence):
        return 2.0


class Misnamed(Bright):
    """A score that it does not define."""

    scores: ClassVar = (definition("misnamed"),)

    def score(self, evidence, judges):
        return {"other": Score(0.5, n=1)}


class Dicey(Bright):
    """A score from the global generator."""

    scores: ClassVar = (definition("dicey"),)

    def value(self, pixels, evidence):
        return float(torch.rand(()))


class Scribbler(Bright):
    """An evaluator that writes into the evidence."""

    scores: ClassVar = (definition("scribbler"),)

    def value(self, pixels, evidence):
        pixels.flatten()[0] += 1
        return super().value(pixels, evidence)


class Divider(Bright):
    """A division by the number of images."""

    needs: ClassVar = ("Predictions",)
    scores: ClassVar = (definition("divider"),)

    def score(self, evidence, judges):
        found = evidence.get(Predictions)
        right = int((found.logits.argmax(1) == found.labels).sum())
        return {"divider": Score(right / len(found.labels), n=len(found.labels))}


class Second(Bright):
    """An evaluator that looks at the second label."""

    scores: ClassVar = (definition("second"),)

    def value(self, pixels, evidence):
        return float(pixels[:, :, 1].double().mean()) / 255


class Presumptuous(Bright):
    """An evaluator that presumes a field of the attack."""

    scores: ClassVar = (definition("presumptuous"),)

    def value(self, pixels, evidence):
        return 0.0 if evidence.attack["embedder"] else 1.0


class Plain(Sample):
    """A data set that passes every check."""

    @property
    def protocol(self):
        return super().protocol.model_copy(update={"name": "plain", **self.changes()})

    def changes(self):
        return {}


class Netless(Plain):
    """A network that there is not."""

    def changes(self):
        return {"target_network": "nothing"}


class Oversized(Plain):
    """A network that does not take the images."""

    def changes(self):
        return {"judge_network": "vgg16_bn", "image": (1, 8, 8)}


class Silent(Plain):
    """A file that is missed without a word of what to do."""

    def load(self, part, root):
        return torch.load(root / "images.pt")


class Unchecked(Plain):
    """A file that `check` does not miss."""

    def load(self, part, root):
        raise MissingDataError(f"expected {root / 'images.pt'}; download it")


class Littering(Plain):
    """A reader that leaves a file behind."""

    def load(self, part, root):
        (Path(root) / "cache.bin").write_bytes(b"x")
        return super().load(part, root)


class Float(Plain):
    """Pixels that are not bytes."""

    def load(self, part, root):
        images = super().load(part, root)
        return Images(images.pixels.float(), images.labels)


class Gap(Plain):
    """A class without test images."""

    def load(self, part, root):
        images = super().load(part, root)
        return images.select(images.labels != 3) if part == "private_test" else images


class Scarce(Plain):
    """Labels that FID needs whole."""

    def changes(self):
        return {"reference": 10_000}


class Leaky(Plain):
    """Private images among the public ones."""

    def load(self, part, root):
        return super().load("private_train" if part == "public" else part, root)


class Shuffler(Plain):
    """An order from the global generator."""

    def load(self, part, root):
        images = super().load(part, root)
        return images.select(torch.randperm(len(images)))


_KEPT: dict = {}


class Sharer(Plain):
    """Images that are handed out twice."""

    def load(self, part, root):
        return _KEPT.setdefault(part, super().load(part, root))


class Fingerless(Plain):
    """A fingerprint that is no text."""

    def fingerprint(self, root):
        return b"\x00"


class Tiny(Network):
    """A network that passes every check."""

    def __init__(self, image, classes, *, pretrained=False):
        channels, height, width = image
        hidden = nn.Sequential(nn.Linear(channels * height * width, 8), nn.ReLU())
        super().__init__({"flat": nn.Flatten(), "hidden": self.hidden(hidden), "logits": nn.Linear(8, classes)})

    def hidden(self, module):
        return module


class Unasked(Tiny):
    """A constructor without `pretrained`."""

    def __init__(self, image, classes):
        super().__init__(image, classes)


class Fussy(Tiny):
    """A constructor that fails on small images without a word."""

    def __init__(self, image, classes, *, pretrained=False):
        assert image[1] >= 32
        super().__init__(image, classes)


class Headless(Tiny):
    """A head that is not the rest of the network."""

    def head(self, z, layer):
        return super().head(z, layer) + 1


class _Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0) if len(x) > 1 else x


class BatchDependent(Tiny):
    """Logits that depend on the batch."""

    def hidden(self, module):
        return nn.Sequential(module, _Centred())


class Plural(Tiny):
    """A network that breaks down with one class."""

    def __init__(self, image, classes, *, pretrained=False):
        super().__init__(image, classes)
        self.scale = 1 / (classes - 1)


class _Rounded(nn.Module):
    def forward(self, x):
        return x.detach().round(decimals=3)


class Flat(Tiny):
    """Logits without a gradient."""

    def hidden(self, module):
        return nn.Sequential(_Rounded(), module)


class _Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class Noisy(Tiny):
    """Noise in evaluation mode."""

    def hidden(self, module):
        return nn.Sequential(module, _Noise())


class _InPlace(nn.Module):
    def forward(self, x):
        return x.mul_(0.5).flatten(1)


class Overwriter(Tiny):
    """A first stage that writes into the images."""

    def __init__(self, image, classes, *, pretrained=False):
        super().__init__(image, classes)
        self.stages["flat"] = _InPlace()

    def trace(self, x):
        latents = {"flat": self.stages["flat"](x)}
        latents["hidden"] = self.stages["hidden"](latents["flat"])
        return latents, self.stages["logits"](latents["hidden"])


class Tolerant(Tiny):
    """A network that loads whatever it is given."""

    def load_state_dict(self, state_dict, strict=True, assign=False):
        return super().load_state_dict(state_dict, strict=False, assign=assign)


class _Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        return x * (1 + self.steps)


class Counter(Tiny):
    """A network that counts its steps outside its state."""

    def hidden(self, module):
        return nn.Sequential(module, _Counting())


class Picky(Tiny):
    """A network that runs on no cell."""

    def __init__(self, image, classes, *, pretrained=False):
        if classes == 5 and not torch.utils.deterministic.fill_uninitialized_memory:
            raise ValueError("not in a run")
        super().__init__(image, classes)


class Vectors(Embedder):
    """An embedder that passes every check."""

    faces = False

    def embed(self, x, protocol):
        return functional.normalize(x.mean((2, 3)))


class Long(Vectors):
    """Vectors that are not of unit length."""

    def embed(self, x, protocol):
        return 2 * super().embed(x, protocol)


class Cut(Vectors):
    """Vectors without a gradient."""

    def embed(self, x, protocol):
        return super().embed(x.detach(), protocol)


class Dimmer(Vectors):
    """An embedder that writes into the images."""

    def embed(self, x, protocol):
        return super().embed(x.mul_(0.5), protocol)


class Faceless(Vectors):
    """An embedder of faces that takes everything."""

    faces = True


class Distance(Perceptual):
    """A perceptual network that passes every check."""

    def __init__(self, *, pretrained=True):
        nn.Module.__init__(self)

    def layers(self, x):
        return [x]

    def distance(self, a, b):
        return (a - b).square().mean((1, 2, 3))


class Apart(Distance):
    """A distance of equal images."""

    def distance(self, a, b):
        return super().distance(a, b) + 1


class Blind(Distance):
    """A distance without a gradient."""

    def distance(self, a, b):
        return super().distance(a.detach(), b)


class Fader(Distance):
    """A distance that writes into the images."""

    def distance(self, a, b):
        return super().distance(a, b.mul_(0.5))


NOT_A_DEFENSE = Dataset


class Borrower(Sound):
    """Training that reads a file which is not in its key."""

    def train(self, private, context):
        NOTE.read_text()
        return super().train(private, context)


class Peeker(Sound):
    """Training that reads a field of the protocol which is not in its key."""

    def train(self, private, context):
        assert context.protocol.draws
        return super().train(private, context)


class Copier(Still):
    """A prior from a file which is not in its key."""

    def learn(self, view, public, context):
        NOTE.read_bytes()
        return super().learn(view, public, context)


class Forgetter(Still):
    """A prior of a field that declares to decide the evidence alone."""

    steps: int = setting(3, "steps of the prior", ge=1, stages=("evidence",))

    def learn(self, view, public, context):
        assert self.steps
        return super().learn(view, public, context)


class Outsider(Still):
    """A field that is in no key."""

    steps: int = setting(3, "steps of the attack", ge=1, stages=("scores",))


class Consulter(Bright):
    """Scores from a file which is not in their key."""

    scores: ClassVar = (Bright.scores[0].model_copy(update={"name": "consulted"}),)

    def score(self, evidence, judges):
        with NOTE.open() as stream:
            stream.read()
        return super().score(evidence, judges)


class Elsewhere(Plain):
    """Images beside the data folder."""

    def load(self, part, root):
        NOTE.read_text()
        return super().load(part, root)


class Preloaded(Tiny):
    """Weights from a file that it does not name."""

    def __init__(self, image, classes, *, pretrained=False):
        NOTE.read_text()
        super().__init__(image, classes)


class Stored(Vectors):
    """Weights from a file that it does not name."""

    def __init__(self, *, pretrained=True):
        super().__init__(pretrained=pretrained)
        NOTE.read_text()


class Saved(Distance):
    """Weights from a file that it does not name."""

    def __init__(self, *, pretrained=True):
        NOTE.read_text()
        super().__init__(pretrained=pretrained)
