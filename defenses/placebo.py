"""Training on permuted labels, a control for attacks."""

import dataclasses

import torch
from torch import Tensor

from ..benchmark.contracts import Defense
from ..benchmark.core.config import Kept, setting
from ..benchmark.core.evidence import Images
from ..benchmark.core.seeds import derive
from ..benchmark.networks.classifiers.network import Network
from ..benchmark.training.context import Context
from ..benchmark.training.optimisation import cross_entropy


class Placebo(Defense):
    """Training on the private images with permuted labels, a control and not a defense.

    The target is trained like one without a defense, by cross-entropy, but the labels (or the rows of attributes) of
    the private training images are permuted among them. Every label keeps its frequency and gets the images of all true
    labels in equal proportions, so that none tells what its images show. An attack that asks such a target for a label
    can therefore learn nothing about that label from it. What it scores all the same is due to

    - the attack's prior: public images resemble some private labels more than others,
    - the judge's prior: a judge prefers some labels for images that show none,
    - images that fool both target and judge.

    Success above the placebo's is what an attack owes to the target.

    Note:
        A placebo controls attacks that reconstruct labels. It controls nothing for attacks that receive the latents of
        single images: a latent describes its image whatever the network has learned.

    Note:
        The permutation is stratified by the true labels. A uniform one gives a label a few images more of one class
        than of the others; with few labels, a network learns such a majority, and by chance it is the right one.
    """

    tasks = frozenset({"classes", "attributes"})
    selection: Kept = setting("last", "network kept; a placebo has no best one")

    def loss(self, network: Network, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy in nats of the permuted labels; binary cross-entropy for attributes."""
        return cross_entropy(network, x, y)

    def train(self, private: Images, context: Context) -> Network:
        """Train a target on the private training images after their annotations were permuted by the stage's seed."""
        return super().train(permute_annotations(private, derive(context.seed, "permutation")), context)


def permute_annotations(images: Images, seed: int) -> Images:
    """Return the images with the labels, identities and attributes of others: one permutation for all annotations.

    Each label gets images of every true label in proportion to their numbers, to within one or two images; without
    labels the permutation is uniform.

    Args:
        images: with any annotations.
        seed: of the permutation, which is drawn on the CPU, so that every device gets the same.
    """
    generator = torch.Generator().manual_seed(seed)
    source = torch.randperm(len(images), generator=generator)
    if images.labels is not None:
        order = torch.randperm(len(images), generator=generator)
        mixed, by_label = order[_mixed(images.labels[order], generator)], images.labels[source].argsort(stable=True)
        source = torch.empty_like(source).scatter_(0, mixed, source[by_label])
    found = {name: getattr(images, name) for name in ("labels", "identities", "attributes")}
    return dataclasses.replace(images, **{name: part[source] for name, part in found.items() if part is not None})


def _mixed(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return an order `int64 N` in which every stretch has each label in proportion, one at most off."""
    counts = labels.bincount()
    sorted_by_label = labels.argsort(stable=True)
    first = counts.cumsum(0) - counts
    rank = torch.empty_like(labels)
    rank[sorted_by_label] = torch.arange(len(labels)) - first[labels[sorted_by_label]]
    start = torch.rand(len(counts), generator=generator, dtype=torch.float64)
    return ((rank + start[labels]) / counts[labels]).argsort(stable=True)
