"""Files that were saved in place of others: what a file is, told from its first bytes."""

#: Number of bytes that decide; more do no harm.
HEAD = 512
_LFS = b"version https://git-lfs.github.com/spec/"


def stand_in(head: bytes) -> str | None:
    """Name what a download left in place of a file, as a noun; `None` if the file may be what it should be.

    Every reader of a file that a user or a server provides asks this first. None of the formats that privbench reads
    begins like one of these.

    Args:
        head: the first bytes of the file, at least `HEAD` where it has as many.

    Example:
        >>> stand_in(b"<!DOCTYPE html><title>Quota exceeded"), stand_in(b""), stand_in(b"PK")
        ('a web page', 'an empty file', None)
    """
    if not head:
        return "an empty file"
    if head.startswith(_LFS):
        return "a Git LFS pointer, which only names the file (`git lfs pull` gets it)"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return "a web page"
    return None
