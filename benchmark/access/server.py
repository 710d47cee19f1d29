"""Server process of a target: it runs the network and answers the one kind of query that it was started for.

`TargetProcess` starts it as `python -m privbench.benchmark.access.server`. The first message rebuilds the target. Every
later one is a query with images `x`, or sets the query count of a resumed attack. No message reads a weight or changes
the access. The process ends when its input ends.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

import torch
from torch import Tensor

from ..core.config import Protocol
from ..core.seeds import derive, seed_layers
from ..errors import InvalidConfigurationError, PrivbenchError
from .open import TargetSource, rebuild_target
from .protection import hide_memory
from .settings import apply_settings
from .views import check_images
from .wire import read_message, take_streams, write_message

#: Images per forward pass.
CHUNK = 256


class TargetServer:
    """A network that answers one kind of query.

    PyTorch's global generators draw the noise of a stochastic network. They are seeded before each chunk by (`seed`,
    number of images answered before), so the same queries in the same order get the same bytes.

    Args:
        header: `access`, `rebuild`, `protocol`, `device`, `seed` and `layer`, as sent by `open_view`.
        state: the weights.
    """

    def __init__(self, header: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        self._protocol = Protocol.model_validate(header["protocol"])
        network = rebuild_target(TargetSource(header["rebuild"], lambda: state, self._protocol))
        self._device = torch.device(header["device"])
        self._network = network.to(self._device)
        self._access, self._seed = header["access"], header["seed"]
        self._layer = header["layer"] or network.layers[-1]
        if self._access == "features" and self._layer not in network.layers:
            layers = ", ".join(network.layers)
            raise InvalidConfigurationError(f"expected layer to be one of {layers}, got {self._layer!r}")
        #: Number of images answered so far.
        self.answered = 0
        #: Answer to a query without images, which has the shape and dtype of every answer.
        self.empty_answer = self._answer_chunk(torch.zeros(1, *self._protocol.image))[:0]

    def answer(self, x: Tensor) -> Tensor:
        """Return the scores, labels or features of images `N C H W`, on the CPU."""
        check_images(x, self._protocol)
        answers = []
        for begin in range(0, len(x), CHUNK):
            seed_layers(self._device, derive(self._seed, "query", self.answered + begin))
            answers.append(self._answer_chunk(x[begin : begin + CHUNK]))
        self.answered += len(x)
        return torch.cat(answers) if answers else self.empty_answer

    def resume(self, answered: int) -> None:
        """Continue the count from `answered`, never a smaller one, so that no noise is drawn twice."""
        self.answered = max(self.answered, answered)

    @torch.inference_mode()
    def _answer_chunk(self, x: Tensor) -> Tensor:
        x = x.to(self._device)
        if self._access == "features":
            return self._network.encode(x, self._layer).cpu()
        logits = self._network.logits(x).float()
        attributes = self._protocol.task == "attributes"
        if self._access == "scores":
            return (logits.sigmoid() if attributes else logits.softmax(1)).cpu()
        if self._access == "labels":
            return (logits > 0 if attributes else logits.argmax(1)).cpu()
        raise InvalidConfigurationError(f"expected access to be scores, labels or features, got {self._access!r}")


def serve(reader: IO[bytes], writer: IO[bytes]) -> None:
    """Rebuild a target and answer queries until the input ends.

    Raises:
        EOFError: the input ended.
    """
    header, state = read_message(reader)
    try:
        apply_settings(header)
        server = TargetServer(header, state)
    except Exception as error:
        write_message(writer, _error_header(error))
        return
    del state
    write_message(writer, {"answered": 0}, {"answer": server.empty_answer})
    while True:
        header, tensors = read_message(reader)
        try:
            answer = _handle(server, header, tensors)
        except Exception as error:
            write_message(writer, _error_header(error))
        else:
            write_message(writer, {"answered": server.answered}, {"answer": answer})


def _handle(server: TargetServer, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    if header == {"do": "query"} and set(tensors) == {"x"}:
        return server.answer(tensors["x"])
    if header.get("do") == "resume" and isinstance(header.get("answered"), int):
        server.resume(header["answered"])
        return server.empty_answer
    raise InvalidConfigurationError("expected a query with images x; this target answers nothing else")


def _error_header(error: Exception) -> dict[str, str]:
    if isinstance(error, PrivbenchError):
        return {"error": str(error), "kind": type(error).__name__}
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    return {"error": f"the target failed in its own process with {type(error).__name__}: {first}", "kind": "failure"}


def main() -> None:
    """Serve over standard input and output; the output of a network goes to standard error."""
    hide_memory()
    reader, writer = take_streams()
    with suppress(EOFError, BrokenPipeError):
        serve(reader, writer)
    os._exit(0)


if __name__ == "__main__":
    main()
