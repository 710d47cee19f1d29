"""Failures of components that an `except` alone does not handle: memory that runs out, threads that fail."""

import logging
import threading
from pathlib import Path
from types import TracebackType

import torch

from ..errors import PrivbenchError

log = logging.getLogger("privbench")
#: Parts of messages of out-of-memory errors that are no `OutOfMemoryError`.
_SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


def is_out_of_memory(cause: BaseException) -> bool:
    """Return whether an exception means that memory ran out, of the machine or of an accelerator."""
    if isinstance(cause, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(cause, RuntimeError) and any(sign in str(cause) for sign in _SIGNS)


def raised_in(cause: BaseException) -> str:
    """Return the name of the file whose code raised an exception."""
    trace = cause.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return Path(trace.tb_frame.f_code.co_filename).name if trace else "unknown"


class Threads:
    """Context manager that collects exceptions of threads, whose results may then be missing."""

    def __init__(self) -> None:
        self._failed: list[BaseException] = []

    def __enter__(self) -> None:
        self._failed.clear()
        self._before, threading.excepthook = threading.excepthook, self._note

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        threading.excepthook = self._before

    def _note(self, failure: threading.ExceptHookArgs) -> None:
        if failure.exc_value is not None and not isinstance(failure.exc_value, SystemExit):
            log.debug("a thread failed", exc_info=failure.exc_value)
            self._failed.append(failure.exc_value)

    def check(self) -> None:
        """Raise if a thread failed.

        Raises:
            PrivbenchError: a thread failed.
        """
        for cause in self._failed:
            raise PrivbenchError(
                f"{type(cause).__name__} in a thread, in {raised_in(cause)}: {cause}; --debug shows where"
            )
