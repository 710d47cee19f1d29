"""Judges: independent networks that evaluators query about reconstructions.

A judge is the "evaluation classifier" of the papers: a classifier of the private labels that is trained independently
of the target, with another architecture. A reconstruction counts as a success if the judge recognises its label. It is
not a language model. The harness trains or loads judges; evaluators only query them.
"""

from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from ..core.config import Protocol
from ..errors import UnsupportedCellError
from .classifiers.network import Network
from .embedders.embedder import Embedder
from .factory import build_embedder

#: Images per forward pass of an embedder, which enlarges images.
_CHUNK = 64


class Judge:
    """A trained classifier in evaluation mode, queried in chunks without gradients.

    Args:
        network: the classifier; its last latent gives the features.
        device: device of the network.
        chunk: images per forward pass.
        name: of the network, in `privbench list networks`.
        test_accuracy: accuracy on the judge's test images; `None` if it was not tested.
    """

    def __init__(
        self,
        network: Network,
        device: torch.device,
        chunk: int = 256,
        *,
        name: str = "",
        test_accuracy: float | None = None,
    ) -> None:
        self._network = network.eval().to(device)
        self._device = device
        self._chunk = chunk
        self.name = name
        self.test_accuracy = test_accuracy

    def logits(self, pixels: Tensor) -> Tensor:
        """Logits `float32 N K` of images `uint8 N C H W`, on the CPU."""
        return torch.cat([self._network.logits(x).cpu() for x in self._batches(pixels)])

    def features(self, pixels: Tensor, transform: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Features `float32 N D` of images `uint8 N C H W`, on the CPU; `transform` maps each batch in [0, 1] first."""
        preprocess = transform or (lambda x: x)
        return torch.cat([self._network.features(preprocess(x)).cpu() for x in self._batches(pixels)])

    def _batches(self, pixels: Tensor) -> Iterator[Tensor]:
        with torch.inference_mode():
            for begin in range(0, len(pixels), self._chunk):
                part = pixels[begin : begin + self._chunk]
                yield part.to(self._device).float().div(255)


class Judges:
    """The judges and embedders of one cell, each built on first use.

    Args:
        classifier: builds the judge.
        device: device of the embedders.
        protocol: of the images.
        second: builds the second judge; `None` if there is none.
    """

    def __init__(
        self,
        classifier: Callable[[], Judge],
        device: torch.device,
        protocol: Protocol,
        second: Callable[[], Judge] | None = None,
    ) -> None:
        self._make_classifier = classifier
        self._make_second = second
        self._device = device
        self._protocol = protocol
        self._embedders: dict[str, Embedder] = {}

    @cached_property
    def classifier(self) -> Judge:
        """The judge of the protocol."""
        return self._make_classifier()

    @cached_property
    def second(self) -> Judge:
        """The second judge: a classifier of another architecture and training.

        Raises:
            UnsupportedCellError: the evaluator does not name it in `judges`.
        """
        if self._make_second is None:
            raise UnsupportedCellError(
                f"expected a second judge on {self._protocol.id}, got none; the evaluator must name 'second' in "
                "its attribute judges, and the protocol its network"
            )
        return self._make_second()

    def embeddings(self, name: str, pixels: Tensor) -> Tensor:
        """Embed images as unit vectors with a registered embedder.

        Args:
            name: in `privbench list embedders`.
            pixels: `uint8 N C H W`.

        Returns:
            `float32 N D` on the CPU.

        Raises:
            UnknownComponentError: no embedder has this name.
            InvalidConfigurationError: the embedder does not support the protocol's images.
            MissingDataError: its weights are missing or damaged.
        """
        if name not in self._embedders:
            self._embedders[name] = build_embedder(name).to(self._device)
        return embed(self._embedders[name], pixels, self._protocol, self._device)


def embed(network: Embedder, pixels: Tensor, protocol: Protocol, device: torch.device | str = "cpu") -> Tensor:
    """Embed images `uint8 N C H W` of a protocol as unit vectors `float32 N D`, on the CPU."""
    with torch.inference_mode():
        parts = (part.to(device).float().div(255) for part in torch.split(pixels, _CHUNK))
        return torch.cat([network.embed(x, protocol).float().cpu() for x in parts])


def accuracy(logits: Tensor, truth: Tensor) -> float:
    """Accuracy in [0, 1]: of the largest logit for labels `int64 N`, of the sign of each logit for `bool N A`."""
    decisions = logits > 0 if truth.dtype == torch.bool else logits.argmax(1)
    return float((decisions == truth.cpu()).double().mean())
