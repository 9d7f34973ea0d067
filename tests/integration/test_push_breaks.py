"""Uploads that break off halfway: what the registry has of them is not taken for the whole."""

from __future__ import annotations

import contextlib
import io
import random
import socket
import socketserver
import struct
import threading
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

import registries
from nox_variants.images import transport
from nox_variants.images.content import Descriptor
from nox_variants.images.packing import GZIP
from nox_variants.images.transient import TransientError
from nox_variants.model import Digest
from pushers import REPOSITORY, Client, got, methods
from registries import Fault, FaultProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from registries import Request

pytestmark = pytest.mark.subprocess

BLOB = random.Random(4).randbytes(3_000_000)  # noqa: S311  # no secret
DIGEST = Digest(registries.sha256(BLOB))
NOW = {"Retry-After": "0"}


def send(client: Client) -> None:
    """Send the blob."""
    described = Descriptor(media_type=GZIP, digest=DIGEST, size=len(BLOB))
    client.pusher.blob("it", REPOSITORY, described, lambda: io.BytesIO(BLOB))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what is broken on purpose."""
    monkeypatch.setattr(transport, "_FIRST_PAUSE", 0.01)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Give an empty registry for everybody."""
    with registries.registry(tmp_path / "registry") as where:
        yield where


class Relay(socketserver.ThreadingTCPServer):
    """Passes bytes on to a registry, and resets connections that bring more than so many.

    Args:
        upstream: The registry, ``HOST:PORT``.
        most: Bytes that a connection may bring.
        times: How many are reset; all when negative.
    """

    daemon_threads = True

    def __init__(self, upstream: str, *, most: int, times: int) -> None:
        host, _, port = upstream.partition(":")
        self.upstream, self.most = (host, int(port)), most
        self.left = times
        super().__init__(("127.0.0.1", 0), Passing)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        """Where it is, ``HOST:PORT``."""
        return f"127.0.0.1:{self.server_address[1]}"

    def server_close(self) -> None:
        """End it."""
        self.shutdown()
        super().server_close()


class Passing(socketserver.BaseRequestHandler):
    """A connection of the relay."""

    def handle(self) -> None:
        """Pass bytes on in both ways."""
        relay, client, brought = cast("Relay", self.server), self.request, 0
        with socket.create_connection(relay.upstream) as registry:
            threading.Thread(target=copied, args=(registry, client), daemon=True).start()
            while data := client.recv(1 << 16):
                brought += len(data)
                if brought > relay.most and relay.left:
                    relay.left -= 1
                    reset = struct.pack("ii", 1, 0)  # socket(7)
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    break
                registry.sendall(data)
            with contextlib.suppress(OSError):
                registry.shutdown(socket.SHUT_RDWR)

    def finish(self) -> None:
        """Close it, which resets one that was cut off."""
        self.request.close()


def copied(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on in one way, until one of both is closed."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)


def test_reset_in_the_middle(address: str, tmp_path: Path) -> None:
    """An upload whose connection is reset is begun again, and arrives whole."""
    with (
        Relay(address, most=1_000_000, times=2) as relay,
        closing(Client(relay.address, tmp_path / "store")) as client,
    ):
        send(client)
        said, left = client.said, relay.left

    assert left == 0
    assert got(address, f"{REPOSITORY}/blobs/{DIGEST}").content == BLOB
    broken = f"it: registry {relay.address}: the connection broke, waiting"
    assert said == [f"{broken} 0.01 s", f"{broken} 0.02 s"]


def test_always_reset(address: str, tmp_path: Path) -> None:
    """Where no connection holds for long enough, it is said, and nothing is there."""
    with (
        Relay(address, most=1_000_000, times=-1) as relay,
        closing(Client(relay.address, tmp_path / "store")) as client,
        pytest.raises(TransientError, match="the connection broke, again and again"),
    ):
        send(client)

    assert got(address, f"{REPOSITORY}/blobs/{DIGEST}").status_code == 404


class Halfway(FaultProxy):
    """Lets half of the first upload through, and says that the registry does not answer."""

    halves = 0

    def answer(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
        """Answer 502 once."""
        if request.method != "PUT" or self.halves:
            super().answer(request, handler)
            return
        self.halves += 1
        half = request.body[: len(request.body) // 2]
        part = replace(request, method="PATCH", body=half)
        headers = {**request.headers, "content-length": str(len(half))}
        assert self._ask(part, headers)[0] == 202
        registries.send(handler, 502, NOW, b"")


def test_half_is_there(address: str, tmp_path: Path) -> None:
    """After half of a blob was taken, the other half of an upload is not another whole."""
    with Halfway(address) as proxy, closing(Client(proxy.address, tmp_path / "store")) as client:
        send(client)

    assert proxy.halves == 1
    assert got(address, f"{REPOSITORY}/blobs/{DIGEST}").content == BLOB


@pytest.mark.parametrize("status", [400, 416])
def test_registry_that_counts_both(address: str, tmp_path: Path, status: int) -> None:
    """A registry that has a part, and finds the whole after it wrong, gets a new upload."""
    faults = [
        Fault(what="answer", path="digest=sha256", status=503, headers=NOW),
        Fault(what="answer", path="digest=sha256", status=status),
    ]
    with (
        FaultProxy(address, *faults) as proxy,
        closing(Client(proxy.address, tmp_path / "store")) as client,
    ):
        send(client)
        asked = methods(proxy)

    assert asked == ["HEAD", "POST", "PUT", "PUT", "HEAD", "POST", "PUT"]
    assert got(address, f"{REPOSITORY}/blobs/{DIGEST}").content == BLOB
