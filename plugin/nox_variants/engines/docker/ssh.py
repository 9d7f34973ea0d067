"""A daemon behind ssh: each connection is a `docker system dial-stdio` on the other machine.

The SDK's own way needs paramiko, and knows no time limits. Here a connection is a socket like any
other, with the user's own ssh client at its other end.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import docker
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.transport import UnixHTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from nox_variants.errors import EngineUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from urllib3._base_connection import BaseHTTPConnection

_OPTIONS = ("-T", "-o", "BatchMode=yes")
"""No terminal, and no question that nobody would see: a password, a host's new key."""

_PREFIX = "http+docker://"
"""What the SDK has for an address that is no host's (docker.api.client)."""

_KEPT = 4096
_GRACE = 5.0


def command(url: str, seconds: int) -> tuple[str, ...]:
    """Return the command that connects to a daemon, on its standard input and output.

    Args:
        url: ``ssh://user@host:port``, perhaps with the path of the daemon's socket.
        seconds: How long it may take to connect.

    Raises:
        EngineUnavailable: The address is none.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise EngineUnavailable(f"the address is none: {error}") from error
    if not host or parts.query or parts.fragment:
        raise EngineUnavailable("the address is none: it is written ssh://user@host:port")
    if parts.password is not None:
        raise EngineUnavailable("a password cannot stand in the address: ssh takes a key")
    user = ("-l", unquote(parts.username)) if parts.username else ()
    where = ("-p", str(port)) if port else ()
    path = parts.path.rstrip("/")
    words = ("--host", f"unix://{path}") if path else ()
    remote = shlex.join(("docker", *words, "system", "dial-stdio"))
    timeout = ("-o", f"ConnectTimeout={seconds}")
    return ("ssh", *_OPTIONS, *timeout, *user, *where, "--", host, remote)


class Tunnel:
    """Connections through ssh.

    Args:
        words: The command of each.
        environ: Its environment.
    """

    def __init__(self, words: tuple[str, ...], environ: Mapping[str, str]) -> None:
        self._words = words
        self._environ = environ
        self._lock = threading.Lock()
        self._clients: list[subprocess.Popen[bytes]] = []
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the tunnel

    def open(self) -> socket.socket:
        """Return a new connection."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                client = subprocess.Popen(
                    self._words,
                    stdin=theirs.fileno(),
                    stdout=theirs.fileno(),
                    stderr=self._errors,
                    env=self._environ,
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        with self._lock:
            self._clients = [each for each in self._clients if each.poll() is None]
            self._clients.append(client)
        return ours

    def said(self) -> str:
        """Return the last words of an ssh client; nothing when all is well."""
        descriptor = self._errors.fileno()
        begin = max(os.fstat(descriptor).st_size - _KEPT, 0)  # not sought: ssh writes at that place
        lines = os.pread(descriptor, _KEPT, begin).decode(errors="replace").splitlines()
        return next((" ".join(line.split()) for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        """End all connections."""
        with self._lock:
            clients, self._clients = self._clients, []
        for client in clients:
            client.terminate()
        for client in clients:
            with suppress(subprocess.TimeoutExpired):
                client.wait(_GRACE)
        self._errors.close()


class _Connection(HTTPConnection):
    def __init__(self, *args: Any, tunnel: Tunnel, **options: Any) -> None:
        super().__init__(*args, **options)
        self._through = tunnel

    def connect(self) -> None:
        self.sock = self._through.open()
        self.sock.settimeout(self.timeout)


class _Pool(HTTPConnectionPool):
    ConnectionCls: type[BaseHTTPConnection] = _Connection


class _Adapter(UnixHTTPAdapter):
    def __init__(self, tunnel: Tunnel, *, timeout: int, connections: int) -> None:
        super().__init__("http+unix:///", timeout)
        self._pool = _Pool("localhost", timeout=timeout, maxsize=connections, tunnel=tunnel)
        self._through = tunnel

    def get_connection(self, url: Any, proxies: Any = None) -> Any:  # noqa: ARG002  # the SDK's own
        return self._pool

    def close(self) -> None:
        super().close()
        self._pool.close()
        self._through.close()


def client(tunnel: Tunnel, *, seconds: int, connections: int) -> docker.DockerClient:
    """Return the SDK's client of the daemon behind a tunnel; closing it closes the tunnel.

    Args:
        tunnel: The tunnel.
        seconds: How long an answer may take.
        connections: How many are kept.

    Raises:
        DockerException: The daemon does not say who it is.
        RequestException: It cannot be reached.
    """
    adapter = _Adapter(tunnel, timeout=seconds, connections=connections)

    def speaking(version: str) -> docker.DockerClient:
        made = docker.DockerClient(base_url="unix:///ssh", version=version, timeout=seconds)
        made.api.mount(_PREFIX, adapter)  # in place of that socket, which nobody opens
        return made

    found = speaking(MINIMUM_DOCKER_API_VERSION).api.version(api_version=False)
    return speaking(str(found.get("ApiVersion") or MINIMUM_DOCKER_API_VERSION))
