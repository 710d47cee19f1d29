"""Client of the process that runs a target: it starts the process, sends queries and ends it."""

import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from torch import Tensor

from ..errors import InvalidConfigurationError, MissingDataError, PrivbenchError
from .wire import read_message, write_message


class LostTargetError(PrivbenchError, ConnectionError):
    """Failure, end or closure of the process that runs the target."""


#: Errors of the child that are raised here under their own type.
_ERROR_TYPES = {kind.__name__: kind for kind in (InvalidConfigurationError, MissingDataError)}


class TargetProcess:
    """A child process that runs one target and answers one kind of query.

    The child is a new interpreter with this one's search path, not a fork, so this process has no copy of its memory.
    It has its own session, so Ctrl-C reaches only this process. It ends by `close`, when this object is
    garbage-collected, and at exit; if this process is killed, it ends when its standard input ends.

    Args:
        header: target and access, for `access.server`.
        tensors: the target's weights; they are sent to the child and not stored here.

    Raises:
        LostTargetError: the child did not start or could not build the target.
        InvalidConfigurationError: the child rejects the configuration.
        MissingDataError: the weights do not fit the target's network.
    """

    def __init__(self, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(),
            start_new_session=True,
        )
        self._finalizer = weakref.finalize(self, _end, self._process, self._log)
        try:
            #: Answer to a query without images, which has the shape and dtype of every answer.
            self.empty_answer = self.send(header, tensors)[1]["answer"]
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process number of the child."""
        return self._process.pid

    def send(
        self, header: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Send one message and wait for the answer.

        An interruption, such as Ctrl-C, closes the process: its late answer could be taken for that of the next query.

        Raises:
            LostTargetError: the child is closed, ended before it answered, or failed.
            InvalidConfigurationError: the child rejects the query.
        """
        if not self._finalizer.alive:
            raise LostTargetError("this view of the target is closed; query it inside its `open_view` block")
        assert self._process.stdin and self._process.stdout
        try:
            write_message(self._process.stdin, header, tensors)
            answer, values = read_message(self._process.stdout)
        except (EOFError, OSError) as cause:
            raise self._lost_error() from cause
        except BaseException:
            self.close()
            raise
        if "error" in answer:
            raise _ERROR_TYPES.get(answer["kind"], LostTargetError)(answer["error"])
        return answer, values

    def close(self) -> None:
        """Kill the child and wait for its end; it has nothing to save."""
        self._finalizer()

    def _lost_error(self) -> LostTargetError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        code = self._process.poll()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        self.close()
        end = "closed its output but still runs" if code is None else f"ended with code {code}"
        if code is not None and code < 0:
            end = f"was killed by signal {-code}"
        output = f"; the last line of its output is {lines[-1].strip()!r}" if lines else ""
        return LostTargetError(f"the process that runs the target {end} before it answered{output}")


def _environment() -> dict[str, str]:
    path = os.pathsep.join(entry or str(os.getcwd()) for entry in sys.path)  # noqa: PTH109
    return {**os.environ, "PYTHONPATH": path}


def _end(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, log):
        with suppress(OSError):
            if stream:
                stream.close()
