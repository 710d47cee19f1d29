"""Files over https: bounded in size and time, verified while they arrive, never followed to plain http."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import CorruptArtifactError, InvalidConfigurationError, MissingDataError
from .untrusted import shown

#: Seconds that a server may keep silent.
TIMEOUT = 30.0
#: Seconds for a file, whatever its size, plus those for its bytes at the slowest rate that is put up with.
_PATIENCE, _SLOWEST = 120.0, 20_000
#: Hosts that may answer by plain http: none; tests put 127.0.0.1 here.
PLAIN_HTTP_HOSTS: frozenset[str] = frozenset()
_CHUNK = 1 << 16
_PROXIES_AND_ERRORS = (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
)


def require_https(url: str) -> None:
    """Refuse addresses other than https.

    Raises:
        InvalidConfigurationError: it is of another kind.
    """
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "http" and parts.hostname in PLAIN_HTTP_HOSTS
        sound = (parts.scheme == "https" or plain) and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        sound = False
    if not sound:
        raise InvalidConfigurationError(
            f"expected an address that begins with https://, got {shown(repr(url))}; give one"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to https only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            require_https(newurl)
        except InvalidConfigurationError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, limit: int, write: Callable[[bytes], object]) -> str:
    """Hand the bytes of a file to `write` piece by piece; returns their SHA-256.

    Args:
        url: https.
        limit: bytes; a file that has more is refused as soon as that shows.
        write: takes each piece.

    Raises:
        InvalidConfigurationError: the address, or one that it leads to, is not https.
        MissingDataError: it cannot be fetched.
        CorruptArtifactError: it is larger than `limit`.
    """
    require_https(url)
    opener = urllib.request.OpenerDirector()
    for handler in (*_PROXIES_AND_ERRORS, _Redirects):
        opener.add_handler(handler())
    deadline = time.monotonic() + _PATIENCE + limit / _SLOWEST
    digest, size = hashlib.sha256(), 0
    try:
        with opener.open(urllib.request.Request(url, headers={"User-Agent": "privbench"}), timeout=TIMEOUT) as source:
            while block := source.read1(_CHUNK):
                size += len(block)
                if size > limit:
                    raise CorruptArtifactError(
                        f"expected {url} to give at most {limit:,} bytes, got more; tell its owner"
                    )
                if time.monotonic() > deadline:
                    raise TimeoutError(f"only {size:,} bytes came in time")
                digest.update(block)
                write(block)
    except (OSError, http.client.HTTPException, ValueError) as cause:
        if isinstance(cause, CorruptArtifactError | InvalidConfigurationError):
            raise
        reason = shown(_reason(cause)) or type(cause).__name__
        raise MissingDataError(f"{url} cannot be fetched ({reason}); check the address and the network") from cause
    return digest.hexdigest()


def _reason(cause: Exception) -> object:
    if isinstance(cause, urllib.error.HTTPError):
        cause.close()
        return f"HTTP {cause.code} {cause.reason}"
    return getattr(cause, "reason", None) or cause


def fetch(url: str, limit: int) -> bytes:
    """The bytes of a small file; see `download`."""
    data = bytearray()
    download(url, limit, data.extend)
    return bytes(data)


def save(url: str, path: Path, limit: int) -> str:
    """Download into a file that does not exist yet; returns its SHA-256. See `download`."""
    with path.open("xb") as file:
        return download(url, limit, file.write)
