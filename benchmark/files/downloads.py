"""Downloads over https: limited in size and time, hashed on arrival, without redirects to plain http."""

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

#: Seconds to wait for the next bytes of a server.
TIMEOUT = 30.0
#: Seconds that a download may take: a constant, plus its size over the slowest accepted rate in bytes per second.
_BASE_SECONDS, _MIN_RATE = 120.0, 20_000
#: Hosts that may be reached by plain http: none; tests add 127.0.0.1.
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
    """Refuse an address that is not https.

    Raises:
        InvalidConfigurationError: it has another scheme, or is not an address.
    """
    try:
        parts = urlsplit(url)
        plain = parts.scheme == "http" and parts.hostname in PLAIN_HTTP_HOSTS
        valid = (parts.scheme == "https" or plain) and bool(parts.hostname) and url.isprintable() and " " not in url
    except ValueError:
        valid = False
    if not valid:
        raise InvalidConfigurationError(
            f"expected an address that begins with https://, got {shown(repr(url))}; correct it"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects to https only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        try:
            require_https(newurl)
        except InvalidConfigurationError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def download(url: str, limit: int, write: Callable[[bytes], object]) -> str:
    """Download a file and pass its bytes to `write`, block by block; returns their SHA-256.

    Args:
        url: https.
        limit: bytes; a larger file is refused when this many have arrived.
        write: called with each block.

    Raises:
        InvalidConfigurationError: the address, or one that it redirects to, is not https.
        MissingDataError: the file cannot be downloaded.
        CorruptArtifactError: the file is larger than `limit`.
    """
    require_https(url)
    opener = urllib.request.OpenerDirector()
    for handler in (*_PROXIES_AND_ERRORS, _Redirects):
        opener.add_handler(handler())
    deadline = time.monotonic() + _BASE_SECONDS + limit / _MIN_RATE
    digest, size = hashlib.sha256(), 0
    try:
        with opener.open(urllib.request.Request(url, headers={"User-Agent": "privbench"}), timeout=TIMEOUT) as source:
            while block := source.read1(_CHUNK):
                size += len(block)
                if size > limit:
                    raise CorruptArtifactError(
                        f"expected {url} to have at most {limit:,} bytes, got more; tell its owner"
                    )
                if time.monotonic() > deadline:
                    raise TimeoutError(f"only {size:,} bytes arrived in time")
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
    """Download a small file to memory; see `download`."""
    data = bytearray()
    download(url, limit, data.extend)
    return bytes(data)


def save(url: str, path: Path, limit: int) -> str:
    """Download to a file that does not exist yet; returns its SHA-256. See `download`."""
    with path.open("xb") as file:
        return download(url, limit, file.write)
