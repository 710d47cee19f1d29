"""Cost of a step of KED-MI and of its parts, at published sizes.

Run by `make bench`, or alone: `python tests/slow/performance/bench_attacks.py`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from privbench.attacks._inversion import IMAGES_AT_ONCE, accumulate_gradients, split_batch
from privbench.attacks.kedmi import KEDMI, _LabelledGAN, fakeness
from privbench.attacks.networks.discriminators import LabelDiscriminator
from privbench.attacks.networks.generators import Generator
from privbench.benchmark.access.views import WhiteBoxView
from privbench.benchmark.core.config import Protocol
from privbench.benchmark.core.evidence import Images
from privbench.benchmark.networks.factory import build_network
from privbench.benchmark.training.context import Context

BATCH = 64
#: Target, image shape and classes of the published GANs.
SHAPES = {"mnist": ("mcnn", (1, 32, 32), 5), "celeba": ("vgg16_bn", (3, 64, 64), 1000)}
#: Numbers of labels that are attacked together.
LABELS = (5, 300)


def _context(name: str, device: torch.device) -> tuple[Context, WhiteBoxView]:
    target, image, classes = SHAPES[name]
    protocol = Protocol(
        name=name,
        version=0,
        image=image,
        classes=classes,
        judge_classes=classes,
        target_network=target,
        judge_network=target,
        attacked=5,
        draws=1,
    )
    torch.manual_seed(0)
    network = build_network(target, image, classes, pretrained=False).to(device).eval().requires_grad_(False)
    return Context(protocol, device, seed=0), WhiteBoxView(network, protocol)


def _milliseconds(action: Callable[[], object], repeats: int, device: torch.device) -> float:
    times = []
    for repeat in range(-1, repeats):
        _wait(device)
        began = time.perf_counter()
        action()
        _wait(device)
        if repeat >= 0:
            times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _gan(name: str, repeats: int, device: torch.device) -> dict[str, float]:
    """A discriminator step and a generator step of KED-MI, and their parts."""
    context, view = _context(name, device)
    pixels = torch.randint(0, 256, (4 * BATCH, *context.protocol.image), dtype=torch.uint8)
    gan = _LabelledGAN(KEDMI(batch_size=BATCH), view, Images(pixels), context)
    source, real = torch.Generator(device).manual_seed(0), gan.batches.at(0)[0]
    x = torch.rand(3 * BATCH, *context.protocol.image, device=device)
    z = torch.randn(BATCH, 100, device=device)
    f = gan.discriminator.features(x).detach()

    def forward_backward(run: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def action() -> None:
            gan.discriminator.zero_grad(set_to_none=True)
            run().sum().backward()

        return action

    @torch.no_grad()
    def without_gradient(run: Callable[[], object]) -> None:
        run()

    actions: dict[str, Callable[[], object]] = {
        "discriminator_step": lambda: gan.update_discriminator(0, real, source),
        "generator_step": lambda: gan.update_generator(0, real, source),
        "target_labels": lambda: without_gradient(lambda: view.logits(x[:BATCH])),
        "generator_forward": lambda: without_gradient(lambda: gan.generator(z)),
        "discriminator_convolutions": forward_backward(lambda: gan.discriminator.features(x)),
        "minibatch_discrimination": forward_backward(lambda: gan.discriminator.minibatch(f, BATCH)),
        "adam": lambda: gan.discriminator_optimizer.step(),
    }
    return {key: _milliseconds(action, repeats, device) for key, action in actions.items()}


def _attack(name: str, labels: int, repeats: int, device: torch.device) -> float:
    """Milliseconds of one iteration of KED-MI's recovery."""
    context, view = _context(name, device)
    classes, image = context.protocol.classes, context.protocol.image
    generator = Generator(image).to(device).eval().requires_grad_(False)
    discriminator = LabelDiscriminator(image, classes).to(device).eval().requires_grad_(False)
    z = torch.randn(labels, 100, device=device, requires_grad=True)
    targets = (torch.arange(labels) % classes).to(device)
    chunks = split_batch(labels, 60, 1, IMAGES_AT_ONCE[device.type], whole=True)
    return _milliseconds(
        lambda: accumulate_gradients(
            view,
            targets,
            chunks,
            lambda chunk: generator(z[chunk]),
            lambda images, group: fakeness(discriminator(images, group)),
            100.0,
        ),
        repeats,
        device,
    )


def measure(repeats: int, device: str = "cpu") -> dict[str, float]:
    """Medians for KED-MI at MNIST's and CelebA's shapes.

    `SHAPE.gan.PART` are milliseconds of a step of its GAN (batch 64) and of its parts, forward and backward where they
    are trained; `SHAPE.attack.LABELS` are iterations per second with LABELS labels optimised together.
    """
    where = torch.device(device)
    found: dict[str, float] = {}
    for name in SHAPES:
        found |= {f"{name}.gan.{key}": value for key, value in _gan(name, repeats, where).items()}
        for labels in LABELS:
            found[f"{name}.attack.{labels}"] = 1e3 / _attack(name, labels, repeats, where)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 5), indent=1))
