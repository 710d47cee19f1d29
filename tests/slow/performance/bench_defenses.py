"""Cost of the regulariser of BiDO-HSIC, compared with a transcription of the published estimator.

Run by `make bench`, or alone: `python tests/slow/performance/bench_defenses.py`.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch
from privbench.benchmark.networks.classifiers.network import Network
from privbench.benchmark.networks.factory import build_network
from privbench.defenses import _hsic_coco
from privbench.defenses.bido_hsic import BiDOHSIC
from privbench.defenses.none import NoDefense
from torch import Tensor
from torch.nn import functional

BATCH = 64
CLASSES = 5
#: Target networks of CIFAR-10 and MNIST with the shapes of their images.
TARGETS = {"vgg16_bn": (3, 32, 32), "mcnn": (1, 32, 32)}
LAMBDA_X, LAMBDA_Y = 0.1, 1.0


def transcription(x: Tensor, y: Tensor, latents: Sequence[Tensor]) -> Tensor:
    """BiDO-HSIC as published: every layer computes 4 kernels and 4 inverses, on the CPU."""
    codes = functional.one_hot(y, CLASSES).float()
    total = torch.zeros(())
    for z in latents:
        total = total + LAMBDA_X * _published_hsic(_gaussian(x), _gaussian(z))
        total = total - LAMBDA_Y * _published_hsic(_gaussian(z), (codes @ codes.T).cpu())
    return total


def _gaussian(z: Tensor) -> Tensor:
    z = z.flatten(1)
    norms = (z * z).sum(1, keepdim=True)
    distances = (norms - 2 * z @ z.T + norms.T).abs()
    return torch.exp(-distances / (2 * 5.0**2 * z.shape[1])).cpu()


def _published_hsic(k: Tensor, l: Tensor) -> Tensor:  # noqa: E741
    m = len(k)
    identity = torch.eye(m)
    ratios = []
    for kernel in (k, l):
        centred = kernel @ (identity - 1 / m)
        ratios.append(centred @ torch.inverse(centred + 1e-5 * m * identity))
    return (ratios[0] * ratios[1].T).sum()


def _batched(measure: _hsic_coco.Measure) -> Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]:
    def cost(x: Tensor, y: Tensor, latents: Sequence[Tensor]) -> Tensor:
        return _hsic_coco.regulariser(measure, x, y, latents, lambda_x=LAMBDA_X, lambda_y=LAMBDA_Y)

    return cost


def _transcribed_loss(network: Network, x: Tensor, y: Tensor) -> Tensor:
    latents, logits = network.trace(x)
    return functional.cross_entropy(logits, y) + transcription(x, y, tuple(latents.values())).to(x.device)


def _interleaved(variants: dict[str, Callable[[], None]], repeats: int, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of each variant; the variants take turns, so that other load on the machine affects all equally."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(-2, repeats):
        for name, variant in variants.items():
            _wait(device)
            began = time.perf_counter()
            variant()
            _wait(device)
            if repeat >= 0:
                times[name].append(1e3 * (time.perf_counter() - began))
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _steps(network: Network, x: Tensor, y: Tensor) -> dict[str, Callable[[], None]]:
    """A training step under each loss, on one network."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
    losses = {
        "plain": NoDefense().loss,
        "bido_hsic": BiDOHSIC(lambda_x=LAMBDA_X, lambda_y=LAMBDA_Y).loss,
        "transcription": _transcribed_loss,
    }

    def step(loss: Callable[[Network, Tensor, Tensor], Tensor]) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network, x, y).backward()
        optimizer.step()

    return {name: lambda loss=loss: step(loss) for name, loss in losses.items()}


def _regularisers(latents: Sequence[Tensor], x: Tensor, y: Tensor) -> dict[str, Callable[[], None]]:
    """Forward and backward pass of each regulariser alone, down to the latents."""
    costs = {
        "hsic_normalized": _batched(_hsic_coco.HSIC_NORMALIZED),
        "transcription": transcription,
        "hsic_biased": _batched(_hsic_coco.HSIC_BIASED),
        "coco_frobenius": _batched(_hsic_coco.COCO_FROBENIUS),
        "coco_spectral": _batched(_hsic_coco.COCO_SPECTRAL),
    }
    leaves = tuple(z.detach().requires_grad_() for z in latents)
    return {name: lambda cost=cost: torch.autograd.grad(cost(x, y, leaves), leaves) for name, cost in costs.items()}


def measure(repeats: int, device: str = "cpu") -> dict[str, float]:
    """Medians in milliseconds, for a batch of 64.

    `TARGET.step.VARIANT` is a training step, `TARGET.over_plain.VARIANT` the median over repeats of its difference
    from the plain step of the same turn, and `TARGET.alone.VARIANT` the regulariser's forward and backward by itself.
    """
    where = torch.device(device)
    found: dict[str, float] = {}
    for name, image in TARGETS.items():
        torch.manual_seed(0)
        network = build_network(name, image, CLASSES, pretrained=False).to(where).train()
        x = torch.rand(BATCH, *image, device=where)
        y = (torch.arange(BATCH) % CLASSES).to(where)
        latents = tuple(network.latents(x).values())
        value = _batched(_hsic_coco.HSIC_NORMALIZED)(x, y, latents).detach()
        torch.testing.assert_close(transcription(x, y, latents).detach(), value.cpu(), rtol=0.05, atol=0.05)
        times = _interleaved(_steps(network, x, y), repeats, where)
        for variant, values in times.items():
            found[f"{name}.step.{variant}"] = statistics.median(values)
            if variant != "plain":
                pairs = zip(values, times["plain"], strict=True)
                found[f"{name}.over_plain.{variant}"] = statistics.median(a - b for a, b in pairs)
        for variant, values in _interleaved(_regularisers(latents, x, y), repeats, where).items():
            found[f"{name}.alone.{variant}"] = statistics.median(values)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 21, *sys.argv[2:3]), indent=2))
