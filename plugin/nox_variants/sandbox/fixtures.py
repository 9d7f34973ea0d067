"""What a program under test meets: a client of its port, an HTTPS server, a DNS server.

A program of its own, for any Python 3.9: this machine's, in the network namespace of a sandbox, or
that of a helper container. It imports nothing of the package. The first line of standard input says
as JSON what is asked for, the next one ends it; it says what it sees as JSON, a line each.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from itertools import cycle
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

HOST = "fixture.test"
"""The name of the servers (RFC 6761, 6.2: nobody has it)."""

ADDRESS = "127.0.0.1"
HTTPS_PORT = 443
DNS_PORT = 53

BODY = b"fixture\n"

PATIENCE = 10.0
"""Seconds that a connection may be idle."""

LINGER = 1.0
"""Seconds that connections get to end when the program has ended."""

TICK = 0.005
"""Seconds between two tries to connect."""

_CONNECTIONS = 32
_MOST_HEAD = 65536
_SOURCE_PORTS = range(61000, 65536)
"""Behind those that the kernel gives: from one of them a closed port could reach itself."""

_REFUSALS = ("UNKNOWN_CA", "BAD_CERTIFICATE", "CERTIFICATE_UNKNOWN")
"""Alerts about a certificate that nothing vouches for (RFC 8446, 6.2), as OpenSSL names them."""

_REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%b" % (len(BODY), BODY)
)

_HEADER = struct.Struct("!6H")
_QUERY, _OPCODE, _RECURSION = 0x8000, 0x7800, 0x0100
_ANSWERS = 0x8480  # QR, AA, RA
_NO_SUCH_NAME, _NOT_IMPLEMENTED = 3, 4
_A, _IN, _LONGEST_LABEL = 1, 1, 63
_RECORD = struct.pack("!3HIH4B", 0xC00C, _A, _IN, 60, 4, *map(int, ADDRESS.split(".")))


def dns_answer(query: bytes) -> bytes:
    """Return the answer to a DNS query: :data:`HOST` and all below it is here, nothing else is.

    Args:
        query: A message of one question (RFC 1035, 4.1).

    Returns:
        The answer; empty for what is no query.
    """
    try:
        number, flags, questions, *_ = _HEADER.unpack_from(query)
        name, end = _name(query, _HEADER.size)
        kind, class_ = struct.unpack_from("!2H", query, end)
    except (struct.error, IndexError, ValueError):
        return b""
    if flags & _QUERY or questions != 1:
        return b""
    code, records = 0, b""
    if flags & _OPCODE:
        code = _NOT_IMPLEMENTED
    elif name != HOST and not name.endswith(f".{HOST}"):
        code = _NO_SUCH_NAME
    elif (kind, class_) == (_A, _IN):
        records = _RECORD
    flags = _ANSWERS | flags & (_OPCODE | _RECURSION) | code
    header = _HEADER.pack(number, flags, 1, bool(records), 0, 0)
    return header + query[_HEADER.size : end + 4] + records


def _name(message: bytes, at: int) -> tuple[str, int]:
    """Return the name at a place of a message, in lower case, and the place behind it."""
    labels = []
    while length := message[at]:
        if length > _LONGEST_LABEL:
            raise ValueError(length)  # a pointer: there is nothing before to point to
        labels.append(message[at + 1 : at + 1 + length])
        at += 1 + length
    return b".".join(labels).decode("ascii").lower(), at + 1


class Fixtures:
    """What was asked for, in threads.

    Args:
        say: Called with the name of what was seen, and more.
    """

    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say
        self._over = threading.Event()
        self._free = threading.Semaphore(_CONNECTIONS)
        self._lock = threading.Lock()
        self._busy: list[threading.Thread] = []
        self._distrusted = False

    def start(self, orders: dict[str, Any]) -> None:
        """Open every port, then begin.

        Args:
            orders: ``namespaces``: descriptors of namespaces to enter, in order; ``certificate``:
                PEM of a key and a chain, or nothing; ``names``: whether there is a DNS server;
                ``service``: how the program is asked, or None.
        """
        context = tls_context(orders["certificate"]) if orders["certificate"] else None
        if orders["service"]:
            import http.client  # noqa: F401, PLC0415  # 20 ms, before a clock runs
        _enter(orders["namespaces"])
        loops: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        if context is not None:
            https = socket.create_server((ADDRESS, HTTPS_PORT))
            loops.append((self._accept, (https, lambda each: self._secure(each, context))))
        if orders["names"]:
            datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            datagrams.bind((ADDRESS, DNS_PORT))
            stream = socket.create_server((ADDRESS, DNS_PORT))
            loops += [(_datagrams, (datagrams,)), (self._accept, (stream, _messages))]
        self._say("ready")
        if orders["service"]:
            self._begin(self.visit, **orders["service"])
        for loop, arguments in loops:
            threading.Thread(target=loop, args=arguments, daemon=True).start()

    def finish(self) -> None:
        """Let connections come to their end: what is still to be seen is seen now."""
        self._over.set()
        until = time.monotonic() + LINGER
        for thread in list(self._busy):
            thread.join(max(0.0, until - time.monotonic()))

    def visit(self, port: int, path: str, most: int, seconds: float) -> None:
        """Wait until a port takes a connection, and send one request over it.

        Args:
            port: The port.
            path: The request's path.
            most: Bytes of the answer's body that are kept.
            seconds: How long the answer may take, should nobody end this before.
        """
        connection = self._connect(port)
        if connection is not None:
            self._say("listens")
            with connection:
                connection.settimeout(seconds)
                self._say("answer", **_request(connection, port, path, most))

    def _connect(self, port: int) -> socket.socket | None:
        for source in cycle(each for each in _SOURCE_PORTS if each != port):
            if self._over.wait(TICK):
                break
            with suppress(OSError):
                return socket.create_connection((ADDRESS, port), PATIENCE, (ADDRESS, source))
        return None

    def _accept(self, listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        while True:
            with suppress(OSError):
                connection, _ = listener.accept()
                self._free.acquire()
                self._begin(self._handle, handle=handle, connection=connection)

    def _begin(self, function: Callable[..., None], **arguments: Any) -> None:
        thread = threading.Thread(target=function, kwargs=arguments, daemon=True)
        with self._lock:
            self._busy = [each for each in self._busy if each.is_alive()]
            thread.start()
            self._busy.append(thread)

    def _handle(self, handle: Callable[[socket.socket], None], connection: socket.socket) -> None:
        try:
            with connection, suppress(OSError):
                connection.settimeout(PATIENCE)
                handle(connection)
        finally:
            self._free.release()

    def _secure(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        """Answer one request over TLS; tell when the client does not trust the certificate.

        Some, of GnuTLS for one, shake hands first, look at the certificate then, and hang up: also
        while TLS 1.3's tickets are still on their way to them (RFC 8446, 4.6.1).
        """
        import ssl  # noqa: PLC0415  # 20 ms

        asked = b""
        try:
            with context.wrap_socket(connection, server_side=True) as secure:
                asked = _head(secure)
                if asked:
                    secure.sendall(_REPLY)
                    secure.unwrap()
                else:
                    self._distrust()
        except ssl.SSLError as error:
            if str(error.reason).endswith(_REFUSALS):
                self._distrust()
            raise
        except ConnectionError:
            if not asked:
                self._distrust()
            raise

    def _distrust(self) -> None:
        if not self._distrusted:
            self._distrusted = True
            self._say("distrusted")


def _head(connection: socket.socket) -> bytes:
    """Return the head of a request, or what came of it."""
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _MOST_HEAD:
        data = connection.recv(4096)
        if not data:
            break
        head += data
    return head


def _datagrams(server: socket.socket) -> None:
    """Answer DNS queries (RFC 1035, 4.2.1)."""
    while True:
        with suppress(OSError):
            query, client = server.recvfrom(4096)
            if answer := dns_answer(query):
                server.sendto(answer, client)


def _messages(connection: socket.socket) -> None:
    """Answer DNS queries over a stream (RFC 1035, 4.2.2)."""
    with connection.makefile("rb") as stream:
        while len(length := stream.read(2)) == 2:  # noqa: PLR2004
            answer = dns_answer(stream.read(int.from_bytes(length, "big")))
            if not answer:
                return
            connection.sendall(len(answer).to_bytes(2, "big") + answer)


def _request(connection: socket.socket, port: int, path: str, most: int) -> dict[str, Any]:
    """Send a GET and return the answer: its status, its body, or why there is none."""
    from http.client import HTTPConnection, HTTPException  # noqa: PLC0415  # 20 ms

    client = HTTPConnection(ADDRESS, port)
    client.sock = connection
    try:
        client.request("GET", path, headers={"Connection": "close"})
        with client.getresponse() as answer:
            body = answer.read(most)
            return {"status": answer.status, "body": body.decode("utf-8", "replace"), "error": ""}
    except (HTTPException, OSError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        return {"status": 0, "body": "", "error": words or type(error).__name__}


def tls_context(pem: str) -> ssl.SSLContext:
    """Return the context of a server with a key and its certificate.

    Only files can be loaded, so that one in memory is made.
    """
    import ssl  # noqa: PLC0415  # 20 ms

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with os.fdopen(os.memfd_create("certificate"), "wb") as file:
        file.write(pem.encode())
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return context


def _enter(namespaces: Iterable[int]) -> None:
    """Enter namespaces (setns(2)), which `os` has since Python 3.12; no thread runs yet."""
    import ctypes  # noqa: PLC0415  # only where it is needed

    for descriptor in namespaces:
        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(descriptor, 0):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(descriptor)


def main() -> None:
    """Do what standard input says, until it says more or ends."""
    lock = threading.Lock()

    def say(event: str, **more: Any) -> None:
        with lock:
            sys.stdout.write(f"{json.dumps({'event': event, **more})}\n")
            sys.stdout.flush()

    fixtures = Fixtures(say)
    threading.excepthook = lambda caught: say("failed", error=repr(caught.exc_value))
    try:
        fixtures.start(json.loads(sys.stdin.buffer.readline()))
    except (OSError, ValueError, LookupError, ImportError) as error:
        say("failed", error=f"{type(error).__name__}: {error}")
        return
    sys.stdin.buffer.readline()
    fixtures.finish()
    os._exit(0)  # threads are left behind


if __name__ == "__main__":
    main()
