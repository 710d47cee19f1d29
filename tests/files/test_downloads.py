"""Downloads end in time, whatever a server sends and how slowly."""

import itertools
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from privbench.benchmark.errors import MissingDataError
from privbench.benchmark.files import downloads

OK = b"HTTP/1.1 200 OK\r\n"
#: What is sent at once, and what follows, a piece every hundredth of a second, for ever.
SLOW = {
    "body": (OK + b"Content-Length: 1000000\r\n\r\n", [b"x"]),
    "body without a length": (OK + b"\r\n", [b"x"]),
    "a header": (OK + b"X-A: ", [b"x"]),
    "status": (b"HTTP/1.1 ", [b"2"]),
    "one hundred": (b"", [b"HTTP/1.1 100 Continue\r\n\r\n"]),
    "size of a chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n1;", [b"x"]),
    "empty extensions": (OK + b"Transfer-Encoding: chunked\r\n\r\n", [b"1;a=b\r\nx\r\n"]),
    "trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", [b"X-A: b\r\n"]),
    "nothing": (b"", [b""]),
    "nothing after the headers": (OK + b"\r\n", [b""]),
}


class Server:
    """Answers every connection with the same bytes until it is closed."""

    def __init__(self) -> None:
        self.first, self.then = b"", [b""]
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/x"
        self.stop = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self.stop.is_set():
            try:
                connection, _ = self.socket.accept()
                with connection:
                    connection.recv(4096)
                    connection.sendall(self.first)
                    for piece in itertools.cycle(self.then):
                        connection.sendall(piece)
                        if self.stop.wait(0.01):
                            break
            except OSError:
                continue


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr(downloads, "PLAIN_HTTP_HOSTS", frozenset({"127.0.0.1"}))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(downloads, "_BASE_SECONDS", 0.2)
    monkeypatch.setattr(downloads, "_MIN_RATE", 1e12)
    found = Server()
    yield found
    found.stop.set()
    found.socket.close()


@pytest.mark.parametrize("kind", SLOW)
def test_the_deadline_holds_for_every_part_of_an_answer(server: Server, kind: str) -> None:
    server.first, server.then = SLOW[kind]
    began = time.monotonic()
    with pytest.raises(MissingDataError, match="arrived in time"):
        downloads.fetch(server.url, 1 << 20)
    assert time.monotonic() - began < 3


def test_a_redirect_does_not_begin_a_new_deadline(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(downloads, "_BASE_SECONDS", 0.5)
    server.first = b"HTTP/1.1 302 Found\r\nLocation: " + server.url.encode() + b"?\r\nContent-Length: 30\r\n\r\n"
    server.then = [b"x"]
    began = time.monotonic()
    with pytest.raises(MissingDataError):
        downloads.fetch(server.url, 1 << 20)
    assert time.monotonic() - began < 3


def test_an_answer_in_time_is_whole(server: Server) -> None:
    server.first = OK + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX-A: b\r\n\r\n"
    assert downloads.fetch(server.url, 1 << 20) == b"abc"
