"""Registries of the tests' own, what stands in front of them, and images in them."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import http.client
import itertools
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import requests

from conftest import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

PATIENCE = 60.0
"""Seconds that a registry gets to answer."""

USER = "somebody"
PASSWORD = "secret-of-the-test"  # noqa: S105  # of no one
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuu2hir4hxhqSzdkW1wYaCdjOyk2x8X6Wm\n"
"""The password for htpasswd(1): its program is on few machines."""

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True)
class Certificate:
    """A certificate for the loopback, by an authority of its own."""

    authority: Path
    certificate: Path
    key: Path


def certificate(folder: Path, *, for_what: str = "keyUsage=critical,keyCertSign") -> Certificate:
    """Make an authority and a certificate for 127.0.0.1 and localhost.

    Args:
        folder: Where they go.
        for_what: What the authority is for, which RFC 5280 wants it to say, and Python since 3.13.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Tests"),
        *(("-addext", for_what) if for_what else ()),
        *("-keyout", folder / "ca.key", "-out", folder / "ca.crt"),
    )
    _openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
        *("-keyout", folder / "key.pem", "-out", folder / "request"),
    )
    names = folder / "names"
    names.write_text(
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nauthorityKeyIdentifier=keyid\n",
        encoding="utf-8",
    )
    _openssl(
        *("x509", "-req", "-in", folder / "request", "-days", "2", "-CAcreateserial"),
        *("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key"),
        *("-extfile", names, "-out", folder / "certificate.pem"),
    )
    return Certificate(folder / "ca.crt", folder / "certificate.pem", folder / "key.pem")


def _openssl(*words: object, given: bytes = b"") -> bytes:
    if shutil.which("openssl") is None:
        require("registry", "openssl is not installed")
    done = subprocess.run(
        ["openssl", *map(str, words)], input=given, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


@contextlib.contextmanager
def registry(
    folder: Path,
    *,
    tls: Certificate | None = None,
    htpasswd: str | None = None,
    token: TokenServer | None = None,
    port: int = 0,
) -> Iterator[str]:
    """Start Debian's registry on the loopback; yields ``HOST:PORT``.

    Args:
        folder: Where its data and its log go.
        tls: Its certificate; without one it speaks plain HTTP.
        htpasswd: Who may come in, and with which password.
        token: Who gives tokens for it.
        port: Where it listens; 0 for where nobody does.
    """
    program = shutil.which("docker-registry")
    if program is None:
        require("registry", "docker-registry is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    server: dict[str, Any] = {"addr": f"127.0.0.1:{port}"}
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": server,
    }
    if tls:
        server["tls"] = {"certificate": str(tls.certificate), "key": str(tls.key)}
    if htpasswd:
        (folder / "htpasswd").write_text(htpasswd, encoding="utf-8")
        config["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    if token:
        config["auth"] = {"token": token.settings()}
    # JSON is YAML, too.
    (folder / "registry.yml").write_text(json.dumps(config), encoding="utf-8")
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", folder / "registry.yml"], stdout=log, stderr=log, cwd="/"
        )
    try:
        end = time.monotonic() + PATIENCE
        while not _listens(port):
            log_text = (folder / "registry.log").read_text(encoding="utf-8", errors="replace")
            assert process.poll() is None, log_text
            assert time.monotonic() < end, log_text
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    """Return a port of the loopback at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


# Images


@dataclass(frozen=True)
class Pushed:
    """An image that was pushed.

    Attributes:
        digest: Digest of its manifest.
        size: Bytes of its manifest.
        media_type: Media type of its manifest.
        layers: Its layers.
    """

    digest: str
    size: int
    media_type: str
    layers: tuple[bytes, ...]


def sha256(data: bytes) -> str:
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def configuration(layers: list[bytes], architecture: str = "amd64", **more: str) -> dict[str, Any]:
    """Return the configuration of an image of these layers."""
    return {
        "os": "linux",
        "architecture": architecture,
        **more,
        "config": {"Env": ["FROM=registry"]},
        "rootfs": {"type": "layers", "diff_ids": list(map(sha256, layers))},
    }


def push(
    url: str,
    repository: str,
    tag: str,
    layers: list[bytes],
    config: dict[str, Any] | None = None,
    *,
    media_type: str = MANIFEST,
    session: requests.Session | None = None,
) -> Pushed:
    """Push an image.

    Args:
        url: The registry, ``http://HOST:PORT``.
        repository: Where it goes.
        tag: How it is called there; empty for by its digest only.
        layers: Its layers.
        config: Its configuration; without one, one that fits.
        media_type: Media type of its manifest.
        session: Who pushes.
    """
    values = configuration(layers) if config is None else config
    with session or requests.Session() as used:
        used.trust_env = False  # neither this machine's proxies nor its authorities
        blobs = [json.dumps(values).encode(), *layers]
        for blob in blobs:
            _push_blob(used, f"{url}/v2/{repository}/blobs/uploads/", blob)
        described = [
            {"mediaType": LAYER if place else CONFIG, "digest": sha256(each), "size": len(each)}
            for place, each in enumerate(blobs)
        ]
        manifest = {"schemaVersion": 2, "mediaType": media_type}
        document = {**manifest, "config": described[0], "layers": described[1:]}
        digest, size = push_document(used, url, repository, tag, document)
    return Pushed(digest, size, media_type, tuple(layers))


def push_index(
    url: str,
    repository: str,
    tag: str,
    entries: list[tuple[Pushed, dict[str, str]]],
    *,
    media_type: str = INDEX,
) -> Pushed:
    """Push an index of images that are there, each with its platform."""
    manifests = [
        {"mediaType": each.media_type, "digest": each.digest, "size": each.size, "platform": place}
        for each, place in entries
    ]
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    with requests.Session() as session:
        session.trust_env = False
        digest, size = push_document(session, url, repository, tag, document)
    return Pushed(digest, size, media_type, ())


def push_document(
    session: requests.Session, url: str, repository: str, tag: str, document: dict[str, Any]
) -> tuple[str, int]:
    """Push a manifest or an index; returns digest and size."""
    data = json.dumps(document).encode()
    answer = session.put(
        f"{url}/v2/{repository}/manifests/{tag or sha256(data)}",
        data=data,
        headers={"Content-Type": document["mediaType"]},
        timeout=PATIENCE,
    )
    assert answer.status_code == 201, answer.text
    return sha256(data), len(data)


def _push_blob(session: requests.Session, uploads: str, blob: bytes) -> None:
    started = session.post(uploads, timeout=PATIENCE)
    assert started.status_code == 202, started.text
    answer = session.put(
        started.headers["Location"],
        params={"digest": sha256(blob)},
        data=blob,
        headers={"Content-Type": "application/octet-stream"},
        timeout=PATIENCE,
    )
    assert answer.status_code == 201, answer.text


# Servers of the tests' own


@dataclass(frozen=True)
class Request:
    """What a server was asked.

    Attributes:
        method: ``GET``, ``POST``.
        path: The path, with its query.
        headers: Its headers, names in lower case.
        body: Its body.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


class Server:
    """An HTTP server in a thread of its own; remembers what it was asked.

    Args:
        tls: Its certificate; without one it speaks plain HTTP.
        port: Where it listens; 0 for where nobody does.
        beside: A process on whose loopback it listens; 0 for the tests' own. What it asks itself,
            it asks from here.
    """

    def __init__(self, *, tls: Certificate | None = None, port: int = 0, beside: int = 0) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                headers = {
                    name.lower(): ", ".join(self.headers.get_all(name, ())) for name in self.headers
                }
                request = Request(self.command, self.path, headers, self.rfile.read(size))
                with outer.lock:
                    outer.requests.append(request)
                with contextlib.suppress(ConnectionError, TimeoutError):
                    outer.answer(request, self)

            # http.server looks for these names.
            do_POST = do_PUT = do_HEAD = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                del format, args

        self.lock = threading.Lock()
        self.requests: list[Request] = []
        self.ended = threading.Event()
        with ThreadPoolExecutor(1, initializer=_enter_network, initargs=(beside,)) as thread:
            listening = thread.submit(ThreadingHTTPServer, ("127.0.0.1", port), Handler)
        self._server = listening.result()
        self._server.daemon_threads = True
        self._scheme = "https" if tls else "http"
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(tls.certificate, tls.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def address(self) -> str:
        """Where it is, ``HOST:PORT``."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self._scheme}://{self.address}"

    def paths(self, part: str = "") -> list[str]:
        """Return the paths asked for that hold a text."""
        with self.lock:
            return [each.path for each in self.requests if part in each.path]

    def answer(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
        """Answer: nothing is here."""
        del request
        send(handler, 404, {}, b"{}")

    def close(self) -> None:
        """End it."""
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _enter_network(process: int) -> None:
    """Enter the network of a process: this thread's sockets are then made there (setns(2))."""
    if process:
        network = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
        try:
            kind = 0x40000000  # CLONE_NEWNET; Python has os.setns from 3.12 on
            if ctypes.CDLL(None, use_errno=True).setns(network, kind):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(network)


def send(
    handler: BaseHTTPRequestHandler,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    length: int | None = None,
) -> None:
    """Send an answer, whose length may be told wrongly."""
    handler.send_response(status)
    for name, value in headers.items():
        if name.lower() not in {"content-length", "transfer-encoding", "connection", "date"}:
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
    handler.wfile.flush()


class TokenServer(Server):
    """Gives tokens that a registry takes: RS256, with the certificate in the header.

    Args:
        folder: Where key and certificate go.
        user: Who gets tokens; everybody when empty.
        password: With which password.
        refresh: The identity token that is taken, too.
        life: Seconds that its tokens are said to live; none are said when None.
        name: What a token is called in an answer.
        tls: Its certificate.
    """

    def __init__(
        self,
        folder: Path,
        *,
        user: str = "",
        password: str = "",
        refresh: str = "",
        life: float | None = 300,
        name: str = "token",
        tls: Certificate | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tokens: list[str] = []
        self._key, self._certificate = folder / "token.key", folder / "token.crt"
        _openssl(
            *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=Token"),
            *("-keyout", self._key, "-out", self._certificate),
        )
        self._user, self._password, self._refresh = user, password, refresh
        self._life, self._name = life, name
        super().__init__(tls=tls)

    def settings(self) -> dict[str, str]:
        """Return what a registry has to know."""
        return {
            "realm": f"{self.url}/token",
            "service": "tests",
            "issuer": "tests",
            "rootcertbundle": str(self._certificate),
        }

    def answer(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
        """Give a token to whom may have one."""
        query = parse_qs(request.body.decode() or urlsplit(request.path).query)
        if not self._allowed(request, query):
            details = {"errors": [{"code": "UNAUTHORIZED", "message": "wrong user or password"}]}
            send(handler, 401, {}, json.dumps(details).encode())
            return
        access = []
        for scope in query.get("scope", []):
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        token = self.token(access)
        self.tokens.append(token)
        life = {} if self._life is None else {"expires_in": self._life}
        send(handler, 200, {}, json.dumps({self._name: token, **life}).encode())

    def _allowed(self, request: Request, query: dict[str, list[str]]) -> bool:
        if request.method == "POST":
            wanted = {"grant_type": ["refresh_token"], "refresh_token": [self._refresh]}
            return wanted.items() <= query.items()
        login = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
        return not self._user or request.headers.get("authorization") == f"Basic {login}"

    def token(self, access: list[dict[str, Any]]) -> str:
        """Return a signed token."""
        pem = self._certificate.read_text(encoding="utf-8")
        chain = ["".join(pem.splitlines()[1:-1])]
        now = int(time.time())
        claims = {
            "iss": "tests",
            "aud": "tests",
            "sub": "",
            "jti": str(len(self.tokens)),
            "iat": now,
            "nbf": now - 60,
            "exp": now + 3600,
            "access": access,
        }
        header = {"typ": "JWT", "alg": "RS256", "x5c": chain}
        signed = ".".join(_base64(json.dumps(each).encode()) for each in (header, claims))
        signature = _openssl("dgst", "-sha256", "-sign", self._key, given=signed.encode())
        return f"{signed}.{_base64(signature)}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(kw_only=True)
class Fault:
    """What goes wrong.

    Attributes:
        what: ``reset``, ``truncate`` and ``stall`` in the middle of a body; ``flip`` a byte;
            ``longer``: a body with a byte more; ``whole``: a range is not heard; ``shift``: a
            range starts elsewhere; ``answer``: with ``status``, ``headers`` and ``body``;
            ``silent``: nothing comes; ``drop``: nothing but the end of the connection.
        path: In which paths.
        times: How often; always when negative.
        after: Bytes of the body that still come.
        ranged: Whether it happens to requests with a range only.
    """

    what: str
    path: str = "/blobs/"
    times: int = 1
    after: int = 1 << 20
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ranged: bool = False


class FaultProxy(Server):
    """Stands in front of a registry and makes things go wrong.

    Args:
        upstream: The registry, ``HOST:PORT``.
        faults: What goes wrong, the first that fits.
        tls: Its certificate; the registry itself speaks plain HTTP.
        port: Where it listens; 0 for where nobody does.
        beside: A process on whose loopback it listens; 0 for the tests' own.
    """

    def __init__(
        self,
        upstream: str,
        *faults: Fault,
        tls: Certificate | None = None,
        port: int = 0,
        beside: int = 0,
    ) -> None:
        self._upstream = upstream
        self.faults = list(faults)
        super().__init__(tls=tls, port=port, beside=beside)

    def answer(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
        """Pass a request on, but for its fault."""
        fault = self._fault(request) or Fault(what="nothing")
        if fault.what in {"silent", "drop"}:
            handler.close_connection = True
            self.ended.wait(PATIENCE if fault.what == "silent" else 0)
        elif fault.what == "answer":
            send(handler, fault.status, fault.headers, fault.body)
        else:
            self._pass_on(request, handler, fault)

    def _pass_on(self, request: Request, handler: BaseHTTPRequestHandler, fault: Fault) -> None:
        headers = dict(request.headers)
        if fault.what == "whole":
            headers.pop("range", None)
        status, answered, body = self._ask(request, headers)
        match fault.what:
            case "reset" | "truncate" | "stall":
                send(handler, status, answered, body[: fault.after], len(body))
                handler.close_connection = True
                if fault.what == "stall":
                    self.ended.wait(PATIENCE)
                elif fault.what == "reset":
                    _reset(handler)
                return
            case "flip":
                body = bytes([body[0] ^ 1]) + body[1:]
            case "longer":
                body += b"x"
            case "shift":
                answered["content-range"] = f"bytes 0-{len(body) - 1}/{len(body)}"
            case _:
                pass
        size = answered.get("content-length") if request.method == "HEAD" else None
        send(handler, status, answered, body, int(size) if size else None)

    def _fault(self, request: Request) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                fits = fault.path in request.path and (
                    not fault.ranged or "range" in request.headers
                )
                if fits and fault.times:
                    fault.times -= 1
                    return fault
        return None

    def _ask(
        self, request: Request, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        # A client that takes this for its proxy gives the whole address.
        parts = urlsplit(request.path)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection = http.client.HTTPConnection(self._upstream, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(request.method, path, body=request.body, headers=dict(headers))
            answer = connection.getresponse()
            given = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, given, answer.read()


def _reset(handler: BaseHTTPRequestHandler) -> None:
    """Give the client time to read what was sent, and reset its connection (socket(7))."""
    time.sleep(0.2)
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.rfile.close()
    handler.connection.close()


@contextlib.contextmanager
def listener(port: int) -> Iterator[list[int]]:
    """Listen at a port; yields a list that gets an entry with each connection."""
    seen: list[int] = []
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(0.05)
        ended = threading.Event()

        def accept() -> None:
            for number in itertools.count():
                while not ended.is_set():
                    with contextlib.suppress(TimeoutError):
                        server.accept()[0].close()
                        seen.append(number)
                        break
                else:
                    return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield seen
        finally:
            ended.set()
            thread.join()
