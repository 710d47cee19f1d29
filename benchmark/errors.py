"""Errors that the user can fix. Each message is one sentence that names the field and the fix."""

import difflib
from collections.abc import Iterable

#: Longest message, and the length of its end, which contains the fix and is kept of a longer message; in characters.
_LONGEST, _END = 1500, 400


class PrivbenchError(Exception):
    """Base of all errors that a user can fix; the command line prints the message and exits with 1.

    A message is one printable line of bounded length; the middle of a longer message is omitted.
    """

    def __init__(self, message: str) -> None:
        line = message if message.isprintable() else "".join(c if c.isprintable() else " " for c in message)
        if len(line) > _LONGEST:
            line = f"{line[: _LONGEST - _END - 5]} ... {line[-_END:]}"
        super().__init__(line)


class UnknownComponentError(PrivbenchError, LookupError):
    """A name that no installed package registers."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        matches = difflib.get_close_matches(name[:100], known, n=1)
        hint = f"did you mean {matches[0]!r}?" if matches else f"known: {', '.join(known) or 'none'}"
        super().__init__(f"unknown {kind} {name!r}: {hint}")


class BrokenComponentError(PrivbenchError, ImportError):
    """A registered component that cannot be imported, has the wrong type or has the name of another."""


class InvalidConfigurationError(PrivbenchError, ValueError):
    """A value that a field, matrix file or option does not accept."""


class UnsupportedCellError(PrivbenchError, ValueError):
    """A combination of components that does not apply, such as a class attack on an attribute task."""


class MissingDataError(PrivbenchError, FileNotFoundError):
    """Data or weights that are missing, or that are not the expected ones."""


class CorruptArtifactError(PrivbenchError, ValueError):
    """A stored file that does not match its manifest."""


class IncompatibleRecordError(PrivbenchError, ValueError):
    """A record of another schema, or a file that is not a record."""


class StorageError(PrivbenchError, OSError):
    """A folder or file that cannot be written, such as without permission or space."""


class DivergedError(PrivbenchError, ArithmeticError):
    """A loss that became infinite or NaN; the message names the stage, the step and the last good checkpoint."""
