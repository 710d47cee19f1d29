"""A started process of an attack: it gets a job, asks, and returns the result or the reason of a failure."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from torch import Tensor

from .. import errors
from ..access.process import LostTargetError
from ..access.protection import hidden_memory
from ..access.wire import read_message, write_message
from ..core.paths import cache_root, results_root
from ..errors import PrivbenchError, UnknownComponentError
from ..files.untrusted import shown
from . import sandbox

#: Bytes of tensors that the attack's process may send at once: a query, a checkpoint, a prior or the evidence.
LARGEST = 4 << 30
#: The module that the process runs; it stands above this folder, since it finds and configures the attack.
_MODULE = f"{__package__.rpartition('.')[0]}.pipeline.attack_server"
Tensors = Mapping[str, Tensor]
#: Answers a call of the attack's process; `None` where it waits for none.
Handler = Callable[[Mapping[str, Any], Tensors], tuple[Mapping[str, Any], Tensors] | None]


class AttackFailedError(PrivbenchError, RuntimeError):
    """Failure of an attack in its own process."""


class UnreadableAnswerError(PrivbenchError):
    """Message of an attack's process that is not one, or the end of the process."""


class Link:
    """A started process of an attack."""

    def __init__(self, name: str, process: sandbox.Popen, log: IO[bytes]) -> None:
        self._name, self._process, self._log = name, process, log

    def run(
        self,
        job: Mapping[str, Any],
        tensors: Tensors,
        handlers: Mapping[str, Handler],
        failed: Callable[[Mapping[str, Any]], None] = lambda answer: None,
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Send a job and answer calls until it is done.

        Raises:
            PrivbenchError: the attack failed, or what arrived is no message.
            MemoryError: the attack's process had not enough memory.
        """
        assert self._process.stdin and self._process.stdout
        try:
            write_message(self._process.stdin, job, tensors)
            while True:
                header, found = read_message(self._process.stdout, LARGEST)
                call = header.get("call")
                if call == "done":
                    return header, found
                if call == "failed":
                    failed(header)
                    raise self._failure(header)
                answer = handlers[str(call)](header, found)
                if answer is not None:
                    write_message(self._process.stdin, *answer)
        except (EOFError, OSError) as cause:
            if isinstance(cause, PrivbenchError) and not isinstance(cause, LostTargetError):
                raise
            raise self._lost(cause) from cause
        except (KeyError, TypeError, ValueError, OverflowError) as cause:
            if isinstance(cause, PrivbenchError) and not isinstance(cause, errors.CorruptArtifactError):
                raise
            raise UnreadableAnswerError(
                f"the process of attack {self._name} sent something that is no message ({shown(cause)})"
            ) from cause

    def _failure(self, header: Mapping[str, Any]) -> Exception:
        kind, text, file = (shown(header.get(part, ""), 1200) for part in ("kind", "error", "file"))
        known = getattr(errors, kind, None)
        if kind in ("MemoryError", "OutOfMemoryError"):
            return MemoryError(text)
        if known is UnknownComponentError:
            return PrivbenchError(text)
        if isinstance(known, type) and issubclass(known, PrivbenchError):
            return known(text)
        if kind.startswith("thread "):
            return AttackFailedError(
                f"{kind.removeprefix('thread ')} in a thread of attack {self._name}, in {file}: {text}"
            )
        return AttackFailedError(f"{kind} in {file}: {text}; --no-sandbox --debug shows where")

    def _lost(self, cause: BaseException) -> PrivbenchError:
        if isinstance(cause, LostTargetError):
            return cause
        with contextlib.suppress(Exception):
            self._process.wait(timeout=10)
        code = self._process.poll()
        self._log.seek(0)
        lines = self._log.read()[-4000:].decode(errors="replace").strip().splitlines()
        last = f"; the last line of its output is {shown(lines[-1])!r}" if lines else ""
        return UnreadableAnswerError(
            f"the process of attack {self._name} ended with code {code} before it was done{last}"
        )


@contextlib.contextmanager
def started(name: str, hidden: Sequence[Path], *, accelerator: bool) -> Iterator[Link]:
    """Start the process of an attack, and end it after the block."""
    with tempfile.TemporaryDirectory(prefix="privbench-attack-") as folder, tempfile.TemporaryFile() as log:
        private = [*hidden, cache_root(), results_root()]
        with hidden_memory():
            process = sandbox.start(_MODULE, hidden=private, folder=Path(folder), accelerator=accelerator, log=log)
            try:
                yield Link(name, process, log)
            finally:
                process.kill()
                process.wait()
                for stream in (process.stdin, process.stdout):
                    with contextlib.suppress(OSError):
                        if stream:
                            stream.close()
