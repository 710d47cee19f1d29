"""Rejection of a submitted record, in one form of message."""

from typing import NoReturn

from ..errors import CorruptArtifactError
from ..pipeline.record_artifacts import name_of
from ..records.record import Record


def reject(record: Record, requirement: str, given: object, part: str = "") -> NoReturn:
    """Reject a record.

    Args:
        record: record to reject.
        requirement: what the record must be or have, after "to".
        given: what it is or has instead.
        part: part of the record that the requirement is about; the whole record by default.

    Raises:
        CorruptArtifactError: always.
    """
    subject = f"{part} of {name_of(record)}" if part else name_of(record)
    raise CorruptArtifactError(f"expected {subject} to {requirement}, got {given}; run its cell again")
