"""The process that holds a target for an attack that may only ask it: started, asked and ended from here."""

from __future__ import annotations

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
from .wire import receive, send


class LostTargetError(PrivbenchError, ConnectionError):
    """The process that holds the target failed, ended or was closed."""


_KNOWN = {kind.__name__: kind for kind in (InvalidConfigurationError, MissingDataError)}


class TargetProcess:
    """A child process that holds one target and answers one kind of question.

    The child is a new interpreter with this one's search path, not a fork: nothing of it lies in this process. It
    sits in its own session, so that Ctrl-C reaches only this process. It is ended by `close`, when this object is
    collected, and at exit; should this process be killed, it leaves at the end of its standard input.

    Args:
        header: what to open, for `access.server`.
        tensors: the target's weights; they are written to the child and not kept.

    Raises:
        LostTargetError: the child did not start or could not build the target.
        InvalidConfigurationError: the child refuses the configuration.
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
            self.ready = self.ask(header, tensors)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The child's process number."""
        return self._process.pid

    def ask(
        self, header: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Send one message and wait for its answer.

        An exchange that is interrupted (Ctrl-C, say) closes the process: its late answer must not pass for another's.

        Raises:
            LostTargetError: the child is closed, ended before it answered, or failed.
            InvalidConfigurationError: the child refuses the question.
        """
        if not self._finalizer.alive:
            raise LostTargetError("this view of the target is closed; ask it while its `open_view` block is open")
        assert self._process.stdin and self._process.stdout
        try:
            send(self._process.stdin, header, tensors)
            answer, values = receive(self._process.stdout)
        except (EOFError, OSError) as cause:
            raise self._lost() from cause
        except BaseException:
            self.close()
            raise
        if "error" in answer:
            raise _KNOWN.get(answer["kind"], LostTargetError)(answer["error"])
        return answer, values

    def close(self) -> None:
        """End the child and reap it; it holds nothing that must be saved."""
        self._finalizer()

    def _lost(self) -> LostTargetError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        code = self._process.poll()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        self.close()
        how = "still runs but closed its output" if code is None else f"ended with code {code}"
        if code is not None and code < 0:
            how = f"was killed by signal {-code}"
        words = f"; its last words were {lines[-1].strip()!r}" if lines else ""
        return LostTargetError(f"the process that holds the target {how} before it answered{words}")


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
