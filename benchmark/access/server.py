"""The target's own process: it holds the network and answers the one kind of question that it was opened for.

`TargetProcess` starts it as `python -m privbench.benchmark.access.server`. The first message opens the target; every
later one is a question with images `x`, or moves the query count after a resumed attack. No message reads a weight
or changes the access. It leaves when its input ends.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

import torch
from torch import Tensor

from ..core.config import Protocol
from ..core.seeds import derive, seed_layers
from ..errors import InvalidConfigurationError, PrivbenchError
from .open import TargetSource, build
from .views import check_images
from .wire import receive, send

#: Images per forward pass.
CHUNK = 256


class Target:
    """A network behind one kind of question.

    The noise of a stochastic network is drawn from PyTorch's global generators, which are seeded before each chunk
    by (`seed`, number of images answered before): the same questions in the same order get the same bytes.

    Args:
        header: `access`, `rebuild`, `protocol`, `device`, `seed` and `layer`, as `open_view` sends them.
        state: the weights.
    """

    def __init__(self, header: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        self._protocol = Protocol.model_validate(header["protocol"])
        network = build(TargetSource(header["rebuild"], lambda: state, self._protocol))
        self._device = torch.device(header["device"])
        self._network = network.to(self._device)
        self._access, self._seed = header["access"], header["seed"]
        self._layer = header["layer"] or network.layers[-1]
        if self._access == "features" and self._layer not in network.layers:
            layers = ", ".join(network.layers)
            raise InvalidConfigurationError(f"expected layer to be one of {layers}, got {self._layer!r}")
        self.answered = 0
        #: The answer to no image, from which the asker learns shape and dtype.
        self.empty = self._answers(torch.zeros(1, *self._protocol.image))[:0]

    def ask(self, x: Tensor) -> Tensor:
        """Scores, labels or features of images `N C H W`, on the CPU."""
        check_images(x, self._protocol)
        answers = []
        for begin in range(0, len(x), CHUNK):
            seed_layers(self._device, derive(self._seed, "query", self.answered + begin))
            answers.append(self._answers(x[begin : begin + CHUNK]))
        self.answered += len(x)
        return torch.cat(answers) if answers else self.empty

    def resume(self, answered: int) -> None:
        """Count on from `answered`, never backwards: noise that was drawn is not drawn again."""
        self.answered = max(self.answered, answered)

    @torch.inference_mode()
    def _answers(self, x: Tensor) -> Tensor:
        x = x.to(self._device)
        if self._access == "features":
            return self._network.encode(x, self._layer).cpu()
        logits = self._network.logits(x).float()
        match self._access, self._protocol.task:
            case "scores", "classes":
                return logits.softmax(1).cpu()
            case "scores", "attributes":
                return logits.sigmoid().cpu()
            case "labels", "classes":
                return logits.argmax(1).cpu()
            case "labels", "attributes":
                return (logits > 0).cpu()
        raise InvalidConfigurationError(f"expected access to be scores, labels or features, got {self._access!r}")


def serve(reader: IO[bytes], writer: IO[bytes]) -> None:
    """Open a target and answer until the input ends.

    Raises:
        EOFError: the input ended.
    """
    header, state = receive(reader)
    try:
        _compute_like(header)
        target = Target(header, state)
    except Exception as error:
        send(writer, _failure(error))
        return
    del state
    send(writer, {"answered": 0}, {"answer": target.empty})
    while True:
        header, tensors = receive(reader)
        try:
            answer = _reply(target, header, tensors)
        except Exception as error:
            send(writer, _failure(error))
        else:
            send(writer, {"answered": target.answered}, {"answer": answer})


def _reply(target: Target, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    if header == {"do": "ask"} and set(tensors) == {"x"}:
        return target.ask(tensors["x"])
    if header.get("do") == "resume" and isinstance(header.get("answered"), int):
        target.resume(header["answered"])
        return target.empty
    raise InvalidConfigurationError("expected a question with images x; this target answers nothing else")


def _compute_like(header: Mapping[str, Any]) -> None:
    torch.set_num_threads(header["threads"])
    torch.set_deterministic_debug_mode("error" if header["deterministic"] else "default")
    torch.set_float32_matmul_precision(header["precision"])


def _failure(error: Exception) -> dict[str, str]:
    if isinstance(error, PrivbenchError):
        return {"error": str(error), "kind": type(error).__name__}
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    return {"error": f"the target failed in its own process with {type(error).__name__}: {first}", "kind": "failure"}


def main() -> None:
    """Serve over standard input and output; what a network prints goes to standard error."""
    reader, writer = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    with suppress(EOFError, BrokenPipeError):
        serve(reader, writer)
    os._exit(0)


if __name__ == "__main__":
    main()
