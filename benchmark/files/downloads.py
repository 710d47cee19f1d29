"""Downloads over https: limited in size and time, hashed on arrival, without redirects to plain http."""

import hashlib
import http.client
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from ..errors import CorruptArtifactError, InvalidConfigurationError, MissingDataError
from .untrusted import shown

#: Seconds to wait for the next bytes of a server.
TIMEOUT = 30.0
#: Seconds that a request may take, from its first byte to its last: a constant, plus the size of the file over the
#: slowest accepted rate in bytes per second.
_BASE_SECONDS, _MIN_RATE = 120.0, 20_000
#: Hosts that may be reached by plain http: none; tests add 127.0.0.1.
PLAIN_HTTP_HOSTS: frozenset[str] = frozenset()
_CHUNK = 1 << 16
_PROXIES_AND_ERRORS = (
    urllib.request.ProxyHandler,
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


class _Deadline:
    """Ends a request when its time is over, whatever the server is sending then: headers, chunks or nothing.

    Waiting for bytes has a limit of its own; a server that sends one byte in time, again and again, does not reach it.
    """

    def __init__(self, seconds: float) -> None:
        self.over = False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def watch(self, connection: socket.socket) -> None:
        """Close this connection when the time is over."""
        self._sockets.append(connection)
        if self.over:
            self._end()

    def _end(self) -> None:
        self.over = True
        for connection in self._sockets:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it is closed, or belongs to an encrypted connection now, which is watched too

    def handlers(self) -> list[urllib.request.BaseHandler]:
        """Handlers of http and https whose connections end with this deadline."""
        deadline = self

        def connect(address: Any, *words: Any, **more: Any) -> socket.socket:
            connection = socket.create_connection(address, *words, **more)
            deadline.watch(connection)
            return connection

        class Plain(http.client.HTTPConnection):
            def __init__(self, *words: Any, **more: Any) -> None:
                super().__init__(*words, **more)
                # http.client sets it on the object; a proxy already answers on this connection inside `connect`.
                self._create_connection = connect

        class Encrypted(http.client.HTTPSConnection):
            def __init__(self, *words: Any, **more: Any) -> None:
                super().__init__(*words, **more)
                self._create_connection = connect

            def connect(self) -> None:
                super().connect()
                deadline.watch(self.sock)

        class HTTP(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Plain, req)

        class HTTPS(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Encrypted, req)

        return [HTTP(), HTTPS()]


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
    deadline = _Deadline(_BASE_SECONDS + limit / _MIN_RATE)
    opener = urllib.request.OpenerDirector()
    for handler in (*(made() for made in (*_PROXIES_AND_ERRORS, _Redirects)), *deadline.handlers()):
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers={"User-Agent": "privbench"})
    digest, size = hashlib.sha256(), 0
    try:
        with deadline, opener.open(request, timeout=TIMEOUT) as source:
            while block := source.read1(_CHUNK):
                size += len(block)
                if size > limit:
                    raise CorruptArtifactError(
                        f"expected {url} to have at most {limit:,} bytes, got more; tell its owner"
                    )
                digest.update(block)
                write(block)
            if deadline.over:
                raise TimeoutError
    except (OSError, http.client.HTTPException, ValueError) as cause:
        if isinstance(cause, CorruptArtifactError | InvalidConfigurationError):
            raise
        late = f"only {size:,} bytes arrived in time" if deadline.over else ""
        reason = late or shown(_reason(cause)) or type(cause).__name__
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
