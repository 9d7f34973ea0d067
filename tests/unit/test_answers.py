"""Long answers of a daemon: their objects as they come, and an end to the wait at any moment."""

from __future__ import annotations

import socket
import threading
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import requests
from docker.errors import APIError
from docker.types import CancellableStream
from requests.exceptions import ChunkedEncodingError

from nox_variants.engines.docker import answers
from nox_variants.engines.docker.connection import DaemonError

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
PATIENCE = 10.0


class Daemon:
    """A daemon that says what it is told, and then nothing.

    Attributes:
        url: Its address.
        left: Set when its client is gone.
    """

    def __init__(self, words: bytes, *, closes: bool) -> None:
        self._words = words
        self._closes = closes
        self._connections: list[socket.socket] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/"
        self.left = threading.Event()

    def serve(self) -> None:
        """Take one request."""
        connection, _ = self._server.accept()
        with connection:
            self._connections.append(connection)
            connection.recv(65536)
            connection.sendall(self._words)
            if not self._closes:
                with suppress(ConnectionError):
                    while connection.recv(65536):
                        pass
        self.left.set()

    def close(self) -> None:
        """Leave."""
        self._server.close()
        for each in self._connections:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def ask(self) -> requests.Response:
        """Send it a request."""
        return requests.get(self.url, stream=True, timeout=None)  # noqa: S113  # as builds do


@contextmanager
def daemon(*words: bytes, status: bytes = b"200 OK", closes: bool = True) -> Iterator[Daemon]:
    """Serve one answer, of chunks."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in words)
    made = Daemon(HEAD % status + chunks if words else b"", closes=closes)
    thread = threading.Thread(target=made.serve)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join(PATIENCE)


def test_objects_as_they_come() -> None:
    """An object that comes in two pieces is one, and what comes later is not waited for."""
    with daemon(b'{"stream": "a"}\r\n{"str', b'eam": "b"}\r\n\r\n', closes=False) as made:
        answer = answers.Answer(made.ask)
        lines = answers.heard(answer.lines, threading.Event())

        assert [next(lines), next(lines)] == [{"stream": "a"}, {"stream": "b"}]
        answer.close()
        assert made.left.wait(PATIENCE)


def test_end() -> None:
    """The wait is over when the answer is."""
    with daemon(b'{"stream": "a"}\r\n', b"") as made:
        answer = answers.Answer(made.ask)

        assert list(answers.heard(answer.lines, threading.Event())) == [{"stream": "a"}]


@pytest.mark.parametrize("words", [(), (b'{"stream": "a"}\n',)], ids=["at once", "in the middle"])
def test_cancelled(words: tuple[bytes, ...]) -> None:
    """Whoever waits for a daemon that has fallen silent can stop to; it sees its client leave."""
    cancelled = threading.Event()
    with daemon(*words, closes=False) as made:
        threading.Timer(0.2, cancelled.set).start()
        with (
            closing(answers.Answer(made.ask)) as answer,
            pytest.raises(DaemonError, match=r"^cancelled$"),
        ):
            list(answers.heard(answer.lines, cancelled))
        # Before it answers, there is nothing that could be closed: that ends with the process.
        assert made.left.wait(PATIENCE) if words else not made.left.is_set()


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        pytest.param((b'{"message": "no"}', b""), b"500 No", APIError, id="refusal"),
        pytest.param((b"{]\n", b""), b"200 OK", ValueError, id="no JSON"),
        pytest.param((b'{"a": 1}\n',), b"200 OK", ChunkedEncodingError, id="broken off"),
    ],
)
def test_errors(words: tuple[bytes, ...], status: bytes, error: type[Exception]) -> None:
    """What goes wrong beside is raised where it is waited for."""
    with daemon(*words, status=status) as made, pytest.raises(error):
        list(answers.heard(answers.Answer(made.ask).lines, threading.Event()))


def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long silence is told of, then one twice as long; a word begins it anew."""
    monkeypatch.setattr(answers, "_SILENCE", 0.02)
    monkeypatch.setattr(answers, "_POLL", 0.01)
    said: list[float] = []
    enough, spoken = threading.Event(), threading.Event()

    def words() -> Iterator[str]:
        for word in ("a", "b"):
            enough.wait(PATIENCE)
            enough.clear()
            yield word
            spoken.set()

    def silent(seconds: float) -> None:
        said.append(seconds)
        if len(said) % 2 == 0:
            enough.set()
            spoken.wait(PATIENCE)
            spoken.clear()

    assert list(answers.heard(words, threading.Event(), silent)) == ["a", "b"]
    assert said == [0.02, 0.04] * 2


def test_hang_up() -> None:
    """A stream of the SDK is closed with its response, one without it by itself."""
    with daemon(b"{}\n", closes=False) as made:
        response = made.ask()
        stream = CancellableStream(iter(()), response)

        answers.hang_up(stream)

        assert response.raw.closed
        assert made.left.wait(PATIENCE)
    ours, theirs = socket.socketpair()
    with theirs:
        answers.hang_up(ours)
        assert not theirs.recv(1)
