"""Signs of gradient masking: random outputs, and inputs without a gradient."""

from typing import Any

import torch
from torch import Tensor

from ..core.config import Task
from ..core.evidence import Images
from ..core.seeds import derive, seed_layers
from ..networks.classifiers.network import Network
from ..training.optimisation import frozen, task_loss

#: Private test images that a target is probed with, evenly spaced.
IMAGES = 64
#: Logits of one image are the same if they differ by less than this share of the largest: rounding on accelerators.
ROUNDING = 1e-5
#: A gradient of at most this norm is none: steps along it are lost in the rounding of pixels in [0, 1].
NO_GRADIENT = 1e-12


def probe(network: Network, test: Images, task: Task, device: torch.device, seed: int) -> dict[str, Any]:
    """Examine a target on evenly spaced private test images; every cell with that target gets the same result.

    Args:
        network: the target.
        test: the private test images.
        task: of the target.
        device: computes.
        seed: of the noise of a stochastic target.

    Returns:
        As `examine` does.
    """
    count = min(IMAGES, len(test))
    chosen = test.select(torch.arange(count) * len(test) // max(1, count))
    return examine(network, chosen.pixels.to(device).float().div(255), chosen.truth(task).to(device), seed)


def examine(network: Network, x: Tensor, truth: Tensor, seed: int) -> dict[str, Any]:
    """Compute the logits of some images twice, and the gradient of a loss with respect to them.

    The loss is that of a wrong answer (the next label, or every attribute inverted), as for an attack on its way
    there: at the right answer the loss of a confident target is saturated, and its gradient vanishes without any
    masking.

    Args:
        network: the target.
        x: `float32 N C H W` in [0, 1].
        truth: `int64 N` labels, or `bool N A` attributes.
        seed: of the noise of a stochastic target.

    Returns:
        `n`: images; if there are any, `random_logits` and `random_decisions`: the number of images whose two
        answers differ by more than rounding, and whose decisions differ; `zero_gradients`: the number with a gradient
        of zero (norm at most 1e-12) or not finite; `gradient_norm`: median Euclidean norm of the finite ones, `None`
        without any; `gradient_failed`: why there is no gradient at all, or `None`.
    """
    if not len(x):
        return {"n": 0}
    network = network.to(x.device).eval()
    with torch.no_grad():
        first, second = (_seeded(network, x, derive(seed, "probe", turn)) for turn in (0, 1))
    of_classes = truth.dtype != torch.bool
    before, after = (logits.argmax(1, keepdim=True) if of_classes else logits > 0 for logits in (first, second))
    facts = {
        "n": len(x),
        "random_logits": int(_differ(first, second).sum()),
        "random_decisions": int((before != after).any(1).sum()),
    }
    return facts | _gradients(network, x, truth, derive(seed, "probe", "gradient"))


def _seeded(network: Network, x: Tensor, seed: int) -> Tensor:
    """Compute logits `N K` with the global generators seeded, which noise layers draw from."""
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        seed_layers(x.device, seed)
        return network.logits(x)


def _differ(a: Tensor, b: Tensor) -> Tensor:
    """Return which rows of two sets of logits differ by more than rounding, `bool N`."""
    a, b = a.double(), b.double()
    scale = torch.maximum(a.abs(), b.abs()).amax(1, keepdim=True)
    same = ((a - b).abs() <= ROUNDING * scale) | (a == b) | (a.isnan() & b.isnan())
    return ~same.all(1)


def _gradients(network: Network, x: Tensor, truth: Tensor, seed: int) -> dict[str, Any]:
    x = x.clone().requires_grad_(True)
    failed = None
    gradient: Tensor | None = None
    try:
        with frozen(network):
            logits = _seeded(network, x, seed)
            wanted = ~truth if truth.dtype == torch.bool else (truth + 1) % logits.shape[1]
            loss = task_loss(logits, wanted) * len(x)
            if loss.requires_grad:
                (gradient,) = torch.autograd.grad(loss, x, allow_unused=True)
            else:
                failed = "no operation of the target passes one on"
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as cause:  # an operation without a derivative; it fails every attack by gradients alike
        failed = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    if gradient is None:
        gradient = torch.zeros_like(x)
    norms = gradient.detach().flatten(1).double().norm(dim=1)
    usable = norms.isfinite()
    return {
        "zero_gradients": int((~usable | (norms <= NO_GRADIENT)).sum()),
        "gradient_norm": float(norms[usable].median()) if bool(usable.any()) else None,
        "gradient_failed": failed,
    }
