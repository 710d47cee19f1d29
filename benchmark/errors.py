"""Errors that the user can fix. Each message is one sentence that names the field and the fix."""

import difflib
from collections.abc import Iterable

#: Longest message, and how much of a longer one's end is kept, where the fix stands; in characters.
_LONGEST, _END = 1500, 400


class PrivbenchError(Exception):
    """Base of everything a user can fix; the command line prints it as one sentence and exits with 1.

    Whatever a message quotes, it is one printable line of bounded length; the middle of a longer one is left out.
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
    """A registered component that does not import, has the wrong type or clashes with another."""


class InvalidConfigurationError(PrivbenchError, ValueError):
    """A value that a field, matrix file or option does not take."""


class UnsupportedCellError(PrivbenchError, ValueError):
    """A combination of components that has no meaning, such as a class attack on an attribute task."""


class MissingDataError(PrivbenchError, FileNotFoundError):
    """Data or weights that are not where they were looked for, or are not what they should be."""


class CorruptArtifactError(PrivbenchError, ValueError):
    """A stored file that does not match its manifest."""


class IncompatibleRecordError(PrivbenchError, ValueError):
    """A record of another schema, or one that is not a record."""


class StorageError(PrivbenchError, OSError):
    """A folder that cannot be written: no permission, no space, not a folder."""


class DivergedError(PrivbenchError, ArithmeticError):
    """A loss that became infinite or not a number; names the stage, the step and the last good checkpoint."""
