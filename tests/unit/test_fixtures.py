"""What a program under test meets: answers to DNS queries, and to requests of its own."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nox_variants.model import Need, Smoke
from nox_variants.sandbox import probes
from nox_variants.sandbox.fixtures import HOST, Fixtures, dns_answer, tls_context

A, AAAA, TXT, CHAOS = 1, 28, 16, 3
NO_ERROR, NO_SUCH_NAME, NOT_IMPLEMENTED = 0, 3, 4


def question(name: str, kind: int = A, class_: int = 1, flags: int = 0x0100) -> bytes:
    """Return a query (RFC 1035, 4.1)."""
    labels = (label.encode() for label in name.split(".") if label)
    words = b"".join(bytes([len(label)]) + label for label in labels)
    return struct.pack("!6H", 77, flags, 1, 0, 0, 0) + words + struct.pack("!B2H", 0, kind, class_)


@pytest.mark.parametrize(
    ("query", "code", "records"),
    [
        (question(HOST), NO_ERROR, 1),
        (question(f"name.{HOST}"), NO_ERROR, 1),
        (question(f"a.b.{HOST.upper()}"), NO_ERROR, 1),
        (question(HOST, AAAA), NO_ERROR, 0),
        (question(HOST, TXT), NO_ERROR, 0),
        (question(HOST, A, CHAOS), NO_ERROR, 0),
        (question("example.org"), NO_SUCH_NAME, 0),
        (question(f"not{HOST}"), NO_SUCH_NAME, 0),
        (question(""), NO_SUCH_NAME, 0),
        (question(HOST, flags=0x2800), NOT_IMPLEMENTED, 0),
    ],
)
def test_dns_answer(query: bytes, code: int, records: int) -> None:
    """The one name and all below it have an address; its question comes back with the answer."""
    answer = dns_answer(query)

    number, flags, *counts = struct.unpack_from("!6H", answer)
    assert (number, flags & 0x8000, flags & 0xF) == (77, 0x8000, code)
    assert counts == [1, records, 0, 0]
    assert flags & 0x7900 == query[2] << 8 & 0x7900
    assert answer[12 : len(query)] == query[12:]
    assert answer[-4:] == bytes([127, 0, 0, 1]) or not records
    assert len(answer) == len(query) + 16 * records


def test_dns_answer_ignores_what_is_added() -> None:
    """A query with an EDNS record (RFC 6891) gets the answer of one without."""
    edns = bytearray(question(HOST) + b"\0" + struct.pack("!2HIH", 41, 1232, 0, 0))
    edns[11] = 1

    assert dns_answer(bytes(edns)) == dns_answer(question(HOST))


@pytest.mark.parametrize(
    "query",
    [
        b"",
        question(HOST)[:-1],
        question(HOST)[:20],
        question(HOST, flags=0x8000),
        b"\0\0\0\0\0\2" + question(HOST)[6:],
        question(HOST)[:12] + b"\xc0\x0c\0\1\0\1",
        question("\xff" * 3),
    ],
    ids=["empty", "cut", "cut in a name", "an answer", "two questions", "a pointer", "no ASCII"],
)
def test_no_query(query: bytes) -> None:
    """What is no query gets no answer."""
    assert dns_answer(query) == b""


@given(st.binary(max_size=600))
def test_dns_answer_survives(data: bytes) -> None:
    """No bytes are too strange, and none make an answer that is much longer."""
    assert len(dns_answer(data)) <= len(data) + 16


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nhello", {"status": 200, "body": "hello", "error": ""}),
        (b"HTTP/1.0 503 No\r\n\r\nbusy\xff", {"status": 503, "body": "busy\ufffd", "error": ""}),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100, {"status": 200, "body": "x" * 64, "error": ""}),
        (b"HTTP/1.1 204 No\r\n\r\n", {"status": 204, "body": "", "error": ""}),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            {"status": 200, "body": "ab", "error": ""},
        ),
        (b"SSH-2.0-x\r\n", {"status": 0, "body": "", "error": "SSH-2.0-x"}),
        (b"", {"status": 0, "body": "", "error": "Remote end closed connection without response"}),
    ],
    ids=["answer", "other status", "too long", "empty", "chunked", "no HTTP", "nothing"],
)
def test_visit(answer: bytes, seen: dict[str, Any]) -> None:
    """A server is asked once, and what it says is told, bounded."""
    said: list[tuple[str, dict[str, Any]]] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        visitor = threading.Thread(
            target=Fixtures(lambda event, **more: said.append((event, more))).visit,
            args=(server.getsockname()[1], "/a?b", 64, 30.0),
        )
        visitor.start()
        connection, _ = server.accept()
        with connection:
            request = connection.recv(4096)
            connection.sendall(answer)
        visitor.join()

    assert request.startswith(b"GET /a?b HTTP/1.1\r\n")
    assert said == [("listens", {}), ("answer", seen)]


def ask(connection: socket.socket, context: ssl.SSLContext, request: bytes) -> bytes:
    """Ask over TLS, or only shake hands; the server takes no second connection."""
    with (
        connection,
        suppress(ssl.SSLCertVerificationError),
        context.wrap_socket(connection, server_hostname=HOST) as secure,
    ):
        if request:
            secure.sendall(request)
            return b"".join(iter(lambda: secure.recv(4096), b""))
    return b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("trusts", "request_", "said"),
    [
        pytest.param(True, b"GET / HTTP/1.1\r\n\r\n", [], id="trusts"),
        pytest.param(False, b"GET / HTTP/1.1\r\n\r\n", ["distrusted"], id="does not"),
        pytest.param(True, b"", ["distrusted"], id="hangs up after the handshake"),
    ],
)
def test_certificate(
    version: ssl.TLSVersion,
    *,
    trusts: bool,
    request_: bytes,
    said: list[str],
) -> None:
    """A client that trusts gets an answer; one that does not is known by its alert, or its end."""
    made, other = (probes.fixtures(Smoke(needs=(Need.CERTIFICATES,))) for _ in range(2))
    assert made is not None
    assert other is not None
    heard: list[str] = []
    context = ssl.create_default_context(cadata=made.authority if trusts else other.authority)
    context.maximum_version = version
    ours, theirs = socket.socketpair()
    fixtures, served = Fixtures(heard.append), tls_context(made.certificate)
    server = threading.Thread(
        target=fixtures._handle, args=(lambda each: fixtures._secure(each, served), theirs)
    )
    server.start()
    answer = ask(ours, context, request_)
    server.join()

    assert heard == said
    assert answer.endswith(b"\r\n\r\nfixture\n") == (not said)


def test_visit_is_given_up() -> None:
    """Nobody waits for a port for ever, and there is nothing to say about it then."""
    said: list[str] = []
    fixtures = Fixtures(lambda event, **_: said.append(event))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    visitor = threading.Thread(target=fixtures.visit, args=(port, "/", 64, 30.0))
    visitor.start()
    fixtures.finish()
    visitor.join()

    assert said == []
