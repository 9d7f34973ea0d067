"""Images of real registries, without a daemon, over connections that break."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import requests

import registries
from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images import registry, transport
from nox_variants.images.content import LARGEST_MANIFEST, Descriptor
from nox_variants.images.registry import Registries
from nox_variants.images.transient import STATUSES
from nox_variants.model import Digest
from registries import PASSWORD, USER, Fault, FaultProxy, Request, Server, TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from registries import Certificate, Pushed

pytestmark = pytest.mark.subprocess

AMD64 = "linux/amd64"
LAYERS = [b"small", random.Random(1).randbytes(3_000_000)]  # noqa: S311  # no secret
LARGE = registries.sha256(LAYERS[1])


@dataclass
class Client:
    """Registries as a run has them, and what was said."""

    environ: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.registries = Registries(
            environ=self.environ, progress=self.said.append, cancelled=self.cancelled
        )

    def digest(self, reference: str, platform: str = AMD64, *, insecure: bool = True) -> str:
        return self.registries.image(reference, platform, insecure=insecure).digest

    def fetch(self, address: str, file: Path, digest: str = LARGE, size: int = 3_000_000) -> bytes:
        layer = Descriptor(media_type=registries.LAYER, digest=Digest(digest), size=size)
        self.registries.blobs(f"{address}/team/base:1", insecure=True).fetch(layer, file)
        return file.read_bytes()

    def refused(self, reference: str, *, insecure: bool = True) -> str:
        with pytest.raises(ImageError) as caught:
            self.registries.image(reference, AMD64, insecure=insecure)
        text = str(caught.value)
        assert text.startswith(reference)
        assert_no_secret(text, *self.said)
        return text


def assert_no_secret(*texts: str) -> None:
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for text in texts:
        assert PASSWORD not in text
        assert login not in text


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what is broken on purpose."""
    monkeypatch.setattr(transport, "_FIRST_PAUSE", 0.01)


@pytest.fixture
def client() -> Iterator[Client]:
    """Registries without a login."""
    opened = Client()
    yield opened
    opened.registries.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a layer goes."""
    return tmp_path / "layer"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give a registry for everybody with ``team/base:1``."""
    with registries.registry(tmp_path_factory.mktemp("registry")) as where:
        registries.push(f"http://{where}", "team/base", "1", LAYERS)
        yield where


@pytest.fixture(scope="module")
def pushed(address: str) -> Pushed:
    """Give the image that is there."""
    return registries.push(f"http://{address}", "team/base", "1", LAYERS)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give a registry that wants a password."""
    folder = tmp_path_factory.mktemp("guarded")
    with registries.registry(folder, htpasswd=registries.HTPASSWD) as where:
        session = requests.Session()
        session.auth = (USER, PASSWORD)
        registries.push(f"http://{where}", "team/base", "1", LAYERS, session=session)
        yield where


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Give a certificate of a private authority."""
    return registries.certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Iterator[str]:
    """Give a registry with TLS and a certificate of a private authority."""
    with registries.registry(tmp_path_factory.mktemp("encrypted"), tls=certificate) as where:
        with requests.Session() as session:
            session.verify = str(certificate.authority)
            registries.push(f"https://{where}", "team/base", "1", LAYERS, session=session)
        yield where


def logged_in(folder: Path, where: str, user: str = USER, password: str = PASSWORD) -> Client:
    """Return registries with a login in docker's configuration."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    return configured(folder, {"auths": {where: {"auth": login}}})


def configured(folder: Path, config: object) -> Client:
    """Return registries with a configuration of docker's."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return Client({"DOCKER_CONFIG": str(folder), "PATH": os.environ["PATH"]})


# What a registry has


def test_by_tag(address: str, pushed: Pushed, client: Client, place: Path) -> None:
    """A tag gives digest, layers and environment; a layer comes with its bytes."""
    image = client.registries.image(f"{address}/team/base:1", AMD64, insecure=True)

    assert image.digest == pushed.digest
    assert image.env == (("FROM", "registry"),)
    assert image.diff_ids == tuple(map(registries.sha256, LAYERS))
    assert [(each.digest, each.size) for each in image.layers] == [
        (registries.sha256(each), len(each)) for each in LAYERS
    ]
    assert client.fetch(address, place) == LAYERS[1]
    assert client.said == []


def test_by_digest(address: str, pushed: Pushed, client: Client) -> None:
    """A digest is enough, and beats a tag that says something else."""
    assert client.digest(f"{address}/team/base@{pushed.digest}") == pushed.digest
    assert client.digest(f"{address}/team/base:other@{pushed.digest}") == pushed.digest


@pytest.mark.parametrize(
    ("index", "manifest"),
    [
        (registries.INDEX, registries.MANIFEST),
        (registries.DOCKER_INDEX, registries.DOCKER_MANIFEST),
    ],
)
def test_index(address: str, client: Client, index: str, manifest: str) -> None:
    """An index gives the image of the platform, whose variant may be left out."""
    url, repository = f"http://{address}", "team/index"
    images = {
        name: registries.push(
            url,
            repository,
            "",
            [name.encode()],
            registries.configuration([name.encode()], name),
            media_type=manifest,
        )
        for name in ("amd64", "arm64")
    }
    platforms = {
        "amd64": {"os": "linux", "architecture": "amd64"},
        "arm64": {"os": "linux", "architecture": "arm64", "variant": "v8"},
    }
    whole = registries.push_index(
        url,
        repository,
        "both",
        [(images[name], platforms[name]) for name in images],
        media_type=index,
    )

    for reference in (f"{address}/{repository}:both", f"{address}/{repository}@{whole.digest}"):
        assert client.digest(reference) == images["amd64"].digest
        assert client.digest(reference, "linux/arm64") == images["arm64"].digest
    with pytest.raises(ImageError, match="is not made for linux/s390x: only for") as caught:
        client.digest(f"{address}/{repository}:both", "linux/s390x")
    assert str(caught.value).startswith(f"{address}/{repository}:both: ")


def test_index_in_an_index(address: str, client: Client, pushed: Pushed) -> None:
    """An index that leads to an index is refused."""
    url, platform = f"http://{address}", {"os": "linux", "architecture": "amd64"}
    inner = registries.push_index(url, "team/base", "inner", [(pushed, platform)])
    registries.push_index(url, "team/base", "outer", [(inner, platform)])

    assert "an index in an index" in client.refused(f"{address}/team/base:outer")


def test_empty_layer(address: str, client: Client, place: Path) -> None:
    """A layer of no bytes is a layer."""
    registries.push(f"http://{address}", "team/base", "empty", [b""])

    assert client.fetch(address, place, registries.sha256(b""), 0) == b""


def test_many_threads(address: str, pushed: Pushed, client: Client, tmp_path: Path) -> None:
    """Threads share one client."""
    with ThreadPoolExecutor(8) as pool:
        files = [tmp_path / str(number) for number in range(16)]
        fetched = list(pool.map(lambda file: client.fetch(address, file), files))

    assert fetched == [pushed.layers[1]] * 16


def test_what_is_not_there(address: str, client: Client, place: Path) -> None:
    """An image, a repository and a layer that are not there are errors with a hint."""
    for reference in (f"{address}/team/base:nothing", f"{address}/nobody/nothing:1"):
        text = client.refused(reference)
        assert "there is no such image or tag: " in text
        assert "unknown" in text  # the registry's own word
        assert text.endswith("Is the reference right?")
    missing = registries.sha256(b"missing")
    with pytest.raises(ImageError, match=f"the registry does not have {missing}"):
        client.fetch(address, place, missing, 7)
    assert not place.exists()


def test_configuration_for_another_machine(address: str, client: Client) -> None:
    """A manifest whose configuration is made for something else is refused."""
    config = registries.configuration([b"x"], "riscv64")
    registries.push(f"http://{address}", "team/base", "riscv", [b"x"], config)

    assert "only for linux/riscv64" in client.refused(f"{address}/team/base:riscv")


# Who asks


def test_password(guarded: str, tmp_path: Path, place: Path) -> None:
    """A registry that wants a password gets docker's, after it asked for one."""
    with FaultProxy(guarded) as proxy:
        client = logged_in(tmp_path / "docker", proxy.address)
        client.digest(f"{proxy.address}/team/base:1")
        client.fetch(proxy.address, place)
        sent = ["authorization" in each.headers for each in proxy.requests]
    client.registries.close()

    assert sent == [False, True, True, True]


def test_wrong_password(guarded: str, tmp_path: Path) -> None:
    """A wrong password, and none, are errors that say how to log in."""
    wrong = logged_in(tmp_path / "docker", guarded, password=f"{PASSWORD}-not")
    for client in (wrong, Client()):
        text = client.refused(f"{guarded}/team/base:1")
        assert "wants a login" in text
        assert f"docker login {guarded}, and again." in text
        client.registries.close()


def test_echoed_password(guarded: str, tmp_path: Path) -> None:
    """A registry that repeats what it was told does not bring it into a message."""
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    said = {"errors": [{"message": f"not {login}\x1b[2J,\n{PASSWORD}{'!' * 300}"}]}
    challenge = Fault(
        what="answer", path="", status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}
    )
    echo = Fault(what="answer", path="", status=403, body=json.dumps(said).encode())
    with FaultProxy(guarded, challenge, echo) as proxy:
        client = logged_in(tmp_path / "docker", proxy.address)
        text = client.refused(f"{proxy.address}/team/base:1")
    client.registries.close()

    assert "does not allow it: not *** [2J, ***!!!" in text
    assert "!" * 190 not in text


@pytest.mark.parametrize("name", ["token", "access_token"])
def test_anonymous_token(tmp_path: Path, client: Client, place: Path, name: str) -> None:
    """A token is asked for where the registry says, once for a repository."""
    with (
        TokenServer(tmp_path / "token", name=name) as tokens,
        registries.registry(tmp_path / "registry", token=tokens) as where,
    ):
        push_with_token(tokens, where)
        client.digest(f"{where}/team/base:1")
        client.fetch(where, place)

    assert tokens.paths() == ["/token?service=tests&scope=repository%3Ateam%2Fbase%3Apull"]


def push_with_token(tokens: TokenServer, where: str) -> None:
    """Push ``team/base:1`` to a registry that wants tokens."""
    session = requests.Session()
    access = [{"type": "repository", "name": "team/base", "actions": ["pull", "push"]}]
    session.headers["Authorization"] = f"Bearer {tokens.token(access)}"
    registries.push(f"http://{where}", "team/base", "1", LAYERS, session=session)


def test_token_with_a_login(tmp_path: Path) -> None:
    """The token server gets docker's login; a wrong one is an error, and nobody is told it."""
    with (
        TokenServer(tmp_path / "token", user=USER, password=PASSWORD) as tokens,
        registries.registry(tmp_path / "registry", token=tokens) as where,
    ):
        push_with_token(tokens, where)
        client = logged_in(tmp_path / "docker", where)
        wrong = logged_in(tmp_path / "wrong", where, password=f"{PASSWORD}-not")
        client.digest(f"{where}/team/base:1")
        text = wrong.refused(f"{where}/team/base:1")
        client.registries.close()
        wrong.registries.close()

    assert "wants a login, or another one: wrong user or password" in text
    assert not any(token in text for token in tokens.tokens)


def test_identity_token(tmp_path: Path) -> None:
    """An identity token of docker's is exchanged for one of the registry's."""
    with (
        TokenServer(tmp_path / "token", refresh=PASSWORD, name="access_token") as tokens,
        registries.registry(tmp_path / "registry", token=tokens) as where,
    ):
        push_with_token(tokens, where)
        client = configured(
            tmp_path / "docker", {"auths": {where: {"auth": "", "identitytoken": PASSWORD}}}
        )
        client.digest(f"{where}/team/base:1")
        client.registries.close()
        asked = [(each.method, each.path) for each in tokens.requests]

    assert asked == [("POST", "/token")]


@pytest.mark.parametrize("life", [0.000_001, 300])
def test_token_that_is_refused_later(tmp_path: Path, client: Client, life: float) -> None:
    """A token is asked for again when its time is over or the registry takes it no more."""
    with (
        TokenServer(tmp_path / "token", life=life) as tokens,
        registries.registry(tmp_path / "registry", token=tokens) as where,
    ):
        push_with_token(tokens, where)
        challenge = f'Bearer realm="{tokens.url}/token",service="tests"'
        late = Fault(
            what="answer", path="/blobs/", status=401, headers={"WWW-Authenticate": challenge}
        )
        with FaultProxy(where, late) as proxy:
            client.digest(f"{proxy.address}/team/base:1")

    assert len(tokens.paths()) == 2


def test_token_server_that_is_none(address: str, client: Client) -> None:
    """Hostile and broken token servers are errors, not crashes."""
    cases = {
        "gave no token": {"status": 200, "body": b'{"token": "a\\r\\nX-Other: b"}'},
        "gave no token ": {"status": 200, "body": b"[" * 100_000},
        "failed with 500": {"status": 500, "body": b"\xff"},
        "more than 5 redirects": {"status": 302, "headers": {"Location": "/token"}},
    }
    for words, answer in cases.items():
        with FaultProxy(address) as proxy:
            realm = f'Bearer realm="{proxy.url}/token?x=1"'
            headers = {"WWW-Authenticate": realm}
            proxy.faults = [
                Fault(what="answer", path="/token", times=-1, **answer),  # type: ignore[arg-type]
                Fault(what="answer", path="", times=-1, status=401, headers=headers),
            ]
            text = client.refused(f"{proxy.address}/team/base:1")
        assert words.strip() in text


@pytest.mark.parametrize(
    "challenge", ["", "Negotiate", "Bearer", 'Bearer realm="ftp://x"', 'Bearer realm="http://[x"']
)
def test_challenge_that_is_none(address: str, client: Client, challenge: str) -> None:
    """A challenge that nobody can answer is an error."""
    fault = Fault(
        what="answer", path="", times=-1, status=401, headers={"WWW-Authenticate": challenge}
    )
    with FaultProxy(address, fault) as proxy:
        text = client.refused(f"{proxy.address}/team/base:1")

    assert "wants a login" in text or "which is no https address" in text


def test_one_token_for_all_threads(tmp_path: Path, client: Client) -> None:
    """Threads that are refused together ask for one token."""
    with (
        TokenServer(tmp_path / "token", life=None) as tokens,
        registries.registry(tmp_path / "registry", token=tokens) as where,
        ThreadPoolExecutor(4) as pool,
    ):
        push_with_token(tokens, where)
        files = [tmp_path / str(number) for number in range(4)]
        assert list(pool.map(lambda file: client.fetch(where, file), files)) == [LAYERS[1]] * 4

    assert len(tokens.paths()) == 1


# Credential helpers


def helper(folder: Path, name: str, script: str) -> None:
    """Make a credential helper."""
    file = folder / f"docker-credential-{name}"
    file.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    file.chmod(0o755)


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
def test_credential_helper(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """A credential helper on PATH is asked."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    values = json.dumps({"ServerURL": guarded, "Username": USER, "Secret": PASSWORD})
    helper(tmp_path, "x", f"test \"$1 $(cat)\" = 'get {guarded}' && echo '{values}'")
    config = {key: {guarded: "x"} if key == "credHelpers" else "x"}
    client = configured(tmp_path / "docker", config)

    assert client.digest(f"{guarded}/team/base:1")
    client.registries.close()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, "names docker-credential-x, which is not on PATH. Install it"),
        (f"echo {PASSWORD}; exit 1", "docker-credential-x failed. Does docker-credential-x list"),
        (f"echo {PASSWORD}", "docker-credential-x failed."),
        (f'echo \'{{"Secret": "{PASSWORD}"}}\'', "docker-credential-x failed."),
    ],
)
def test_helper_that_does_not_help(
    address: str,
    guarded: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str | None,
    words: str,
) -> None:
    """A helper that is missing or fails is named, but only where a login is wanted."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    if script is not None:
        helper(tmp_path, "x", script)
    client = configured(tmp_path / "docker", {"credsStore": "x"})

    assert client.digest(f"{address}/team/base:1")
    assert words in client.refused(f"{guarded}/team/base:1")
    client.registries.close()


@pytest.mark.parametrize(
    "text", ["{", "[1]", '{"auths": {"x": 1}}', '{"auths": {"x": {"auth": 1}}}']
)
def test_broken_configuration(guarded: str, tmp_path: Path, text: str) -> None:
    """A configuration that cannot be read is named."""
    client = configured(tmp_path / "docker", {})
    assert "wants a login" in client.refused(f"{guarded}/team/base:1")
    client.registries.close()
    client = Client(client.environ)
    (tmp_path / "docker/config.json").write_text(text, encoding="utf-8")

    assert f"{tmp_path}/docker/config.json: cannot be read" in client.refused(
        f"{guarded}/team/base:1"
    )
    client.registries.close()


# Encryption


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "certs.d"])
def test_private_authority(
    encrypted: str,
    certificate: Certificate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    """An authority of one's own is taken from where others take it."""
    environ = {name: str(certificate.authority)}
    if name == "certs.d":
        monkeypatch.setattr(transport, "_CERTIFICATES", tmp_path)
        (tmp_path / encrypted).mkdir()
        (tmp_path / encrypted / "ca.crt").write_bytes(certificate.authority.read_bytes())
        environ = {}
    client = Client(environ)

    assert client.digest(f"{encrypted}/team/base:1", insecure=False)
    client.registries.close()


def test_authority_that_does_not_say_what_it_is_for(tmp_path: Path) -> None:
    """What Python takes no more since 3.13 has a hint of its own: it is no matter of trust."""
    made = registries.certificate(tmp_path / "tls", for_what="")
    with registries.registry(tmp_path / "registry", tls=made) as where:
        client = Client({"SSL_CERT_FILE": str(made.authority)})
        text = client.refused(f"{where}/team/base:1", insecure=False)
        client.registries.close()

    assert ("only as RFC 5280 has it" in text) == (sys.version_info >= (3, 13))


def test_unknown_authority(encrypted: str, client: Client, tmp_path: Path) -> None:
    """A certificate of nobody known, and a file of authorities that is none, are errors."""
    text = client.refused(f"{encrypted}/team/base:1", insecure=False)
    assert f"the certificate of {encrypted} is not trusted" in text
    assert f"certs.d/{encrypted}/ca.crt" in text

    for content, words in (
        (None, "cannot be read"),
        ("no certificate", "no certificate or crl found"),
    ):
        file = tmp_path / "authorities"
        if content is not None:
            file.write_text(content, encoding="utf-8")
        other = Client({"SSL_CERT_FILE": str(file)})
        assert words in other.refused(f"{encrypted}/team/base:1", insecure=False)
        other.registries.close()


def test_plain_http_only_when_allowed(address: str, encrypted: str, client: Client) -> None:
    """Nobody falls back to plain HTTP, and plain HTTP to TLS is an error, too."""
    text = client.refused(f"{address}/team/base:1", insecure=False)
    assert "does not speak TLS" in text
    assert "only where the image is marked insecure" in text

    assert "answered 400" in client.refused(f"{encrypted}/team/base:1")


def test_no_token_over_plain_http(
    certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry with TLS cannot send a login to a token server without it."""
    monkeypatch.setattr(transport, "_READ", 10.0)
    with (
        TokenServer(tmp_path / "token") as tokens,
        registries.registry(tmp_path / "registry", tls=certificate, token=tokens) as where,
    ):
        client = logged_in(tmp_path / "docker", where)
        client.environ["SSL_CERT_FILE"] = str(certificate.authority)
        text = client.refused(f"{where}/team/base:1", insecure=False)
        client.registries.close()

    assert f"wants tokens of {tokens.url}, which is no https address" in text
    assert tokens.paths() == []


def test_token_with_tls(certificate: Certificate, tmp_path: Path) -> None:
    """A login goes to a token server with TLS."""
    with (
        TokenServer(tmp_path / "token", user=USER, password=PASSWORD, tls=certificate) as tokens,
        registries.registry(tmp_path / "registry", tls=certificate, token=tokens) as where,
    ):
        client = logged_in(tmp_path / "docker", where)
        client.environ["SSL_CERT_FILE"] = str(certificate.authority)
        assert "there is no such image" in client.refused(f"{where}/team/base:1", insecure=False)
        client.registries.close()

    assert len(tokens.tokens) == 1


def test_no_way_from_tls_to_plain_http(address: str, certificate: Certificate) -> None:
    """A registry with TLS cannot lead to an address without it."""
    with FaultProxy(address) as other, FaultProxy(address, tls=certificate) as proxy:
        reference = f"{proxy.address}/team/base:1"
        client = Client({"REQUESTS_CA_BUNDLE": str(certificate.authority)})
        assert client.digest(reference, insecure=False)
        location = {"Location": f"{other.url}/v2/team/base/manifests/1?signature=secret"}
        proxy.faults = [Fault(what="answer", path="", status=307, headers=location)]
        text = client.refused(reference, insecure=False)
        client.registries.close()

    assert f"{proxy.url} leads where no one may follow: {other.url}" in text
    assert other.requests == []


def test_connection_that_ends_at_once(client: Client) -> None:
    """What ends before it is encrypted is a broken connection, not a wrong certificate."""
    port = registries.free_port()
    with registries.listener(port):
        text = client.refused(f"127.0.0.1:{port}/team/base:1", insecure=False)

    assert "the connection broke, again and again" in text


# Connections that break


@pytest.mark.parametrize("what", ["reset", "truncate"])
def test_resumed(address: str, client: Client, place: Path, what: str) -> None:
    """A layer goes on where it broke."""
    with FaultProxy(address, Fault(what=what), Fault(what=what, after=1_500_000)) as proxy:
        fetched = client.fetch(proxy.address, place)
        ranges = [each.headers.get("range", "") for each in proxy.requests]

    assert fetched == LAYERS[1]
    assert len(ranges) == 3
    assert ranges[0] == ""
    assert all(each.startswith("bytes=") and each != "bytes=0-" for each in ranges[1:])


def test_stalled(
    address: str, client: Client, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that brings nothing for long is as good as broken."""
    monkeypatch.setattr(transport, "_READ", 1.0)
    with FaultProxy(address, Fault(what="stall")) as proxy:
        fetched = client.fetch(proxy.address, place)
        again = proxy.requests[-1].headers["range"]

    assert fetched == LAYERS[1]
    assert again.startswith("bytes=")
    assert again != "bytes=0-"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(what="whole", ranged=True),
        Fault(what="shift", ranged=True),
        Fault(what="answer", status=416, ranged=True),
    ],
    ids=["whole", "shift", "416"],
)
def test_range_that_is_not_heard(address: str, client: Client, place: Path, fault: Fault) -> None:
    """Where the rest cannot be had, or another part comes, it begins again."""
    fault.times = 1
    with FaultProxy(address, Fault(what="truncate"), fault) as proxy:
        assert client.fetch(proxy.address, place) == LAYERS[1]


def test_broken_for_ever(address: str, client: Client, place: Path) -> None:
    """Five attempts that gain nothing are enough, and leave no file."""
    with (
        FaultProxy(address, Fault(what="truncate", after=0, times=-1)) as proxy,
        pytest.raises(ImageError, match="the connection broke, again and again") as caught,
    ):
        client.fetch(proxy.address, place)

    assert len(proxy.paths("/blobs/")) == 5
    assert str(caught.value).startswith(f"{proxy.address}/team/base:1: layer {LARGE}: ")
    assert not place.exists()


def test_little_by_little(
    address: str, client: Client, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts that gain something do not count, but there are not endlessly many."""
    monkeypatch.setattr(registry, "_MOST_ATTEMPTS", 12)
    with FaultProxy(address, Fault(what="truncate", after=400_000, times=-1)) as proxy:
        assert client.fetch(proxy.address, place) == LAYERS[1]
        assert len(proxy.paths("/blobs/")) == 8
    place.unlink()
    with (
        FaultProxy(address, Fault(what="truncate", after=100, times=-1)) as proxy,
        pytest.raises(ImageError, match="again and again"),
    ):
        client.fetch(proxy.address, place)
    assert len(proxy.paths("/blobs/")) == 12


def test_broken_document(address: str, pushed: Pushed, client: Client) -> None:
    """Manifest and configuration are asked for again; not endlessly."""
    faults = [Fault(what="reset", path=path, after=20) for path in ("/manifests/", "/blobs/")]
    with FaultProxy(address, *faults) as proxy:
        assert client.digest(f"{proxy.address}/team/base:1") == pushed.digest
        assert len(proxy.paths()) == 4
    with FaultProxy(address, Fault(what="truncate", path="", after=20, times=-1)) as proxy:
        assert "the connection broke, again and again" in client.refused(
            f"{proxy.address}/team/base:1"
        )
        assert len(proxy.paths()) == 5


@pytest.mark.parametrize("what", ["silent", "drop"])
def test_no_answer(
    address: str, client: Client, place: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A request that gets no answer is made again."""
    monkeypatch.setattr(transport, "_READ", 1.0)
    faults = [Fault(what=what, path=path) for path in ("/manifests/", LARGE)]
    with FaultProxy(address, *faults) as proxy:
        assert client.digest(f"{proxy.address}/team/base:1")
        assert client.fetch(proxy.address, place) == LAYERS[1]


def test_registry_that_ends_in_the_middle(client: Client, place: Path, address: str) -> None:
    """A registry that is gone after its manifest came is an error, not unavailable."""
    with FaultProxy(address) as proxy:
        client.digest(f"{proxy.address}/team/base:1")
    with pytest.raises(ImageError, match="cannot be reached any more, again and again"):
        Client().fetch(proxy.address, place)  # a client's own connection would last


# Content that is not what it should be


@pytest.mark.parametrize(
    ("what", "words"),
    [("flip", "its content has the digest sha256:"), ("longer", "has more than its 3000000 bytes")],
)
def test_wrong_bytes(
    address: str, client: Client, tmp_path: Path, place: Path, what: str, words: str
) -> None:
    """Wrong bytes are asked for once more; then they are an error, and no file stays."""
    with FaultProxy(address, Fault(what=what)) as proxy:
        assert client.fetch(proxy.address, place) == LAYERS[1]
        assert len(proxy.paths()) == 2
    with FaultProxy(address, Fault(what=what, times=-1)) as proxy:
        with pytest.raises(ImageError, match=words) as caught:
            client.fetch(proxy.address, tmp_path / "other")
        assert len(proxy.paths()) == 2
    assert LARGE in str(caught.value)
    assert not (tmp_path / "other").exists()


def test_wrong_documents(address: str, pushed: Pushed, client: Client) -> None:
    """A manifest or a configuration with another digest, or too long, is an error."""
    by_digest = f"team/base@{pushed.digest}"
    for path, name in (
        ("/manifests/", by_digest),
        ("/manifests/", "team/base:1"),
        ("/blobs/", "team/base:1"),
    ):
        with FaultProxy(address, Fault(what="flip", path=path, times=-1)) as proxy:
            assert "digest" in client.refused(f"{proxy.address}/{name}")
    large = Fault(what="answer", path="", body=b" " * (LARGEST_MANIFEST + 1))
    with FaultProxy(address, large) as proxy:
        assert f"more than {LARGEST_MANIFEST} bytes" in client.refused(
            f"{proxy.address}/team/base:1"
        )


def test_configuration_that_is_too_long(address: str, client: Client) -> None:
    """A configuration that is said to be large is not asked for."""
    config = {"mediaType": registries.CONFIG, "digest": LARGE, "size": LARGEST_MANIFEST + 1}
    manifest = {"schemaVersion": 2, "config": config, "layers": []}
    fault = Fault(what="answer", path="", body=json.dumps(manifest).encode())
    with FaultProxy(address, fault) as proxy:
        assert "are too many for a document" in client.refused(f"{proxy.address}/team/base:1")
        assert len(proxy.paths()) == 1


def test_media_type_of_the_answer(address: str, client: Client) -> None:
    """A manifest of before 2016 is told from its answer, and refused with a hint."""
    headers = {"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"}
    fault = Fault(what="answer", path="", headers=headers, body=b'{"schemaVersion": 1}')
    with FaultProxy(address, fault) as proxy:
        assert "push the image again" in client.refused(f"{proxy.address}/team/base:1")


def test_layer_that_cannot_be_written(address: str, client: Client, place: Path) -> None:
    """A file that is there is not written over, and stays."""
    place.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        client.fetch(address, place)

    assert place.read_bytes() == b"mine"


# Not now


@pytest.mark.parametrize("status", STATUSES)
def test_not_now(address: str, client: Client, status: int) -> None:
    """A registry that has no time gets some."""
    fault = Fault(what="answer", path="", status=status, headers={"Retry-After": "0"}, times=3)
    with FaultProxy(address, fault) as proxy:
        assert client.digest(f"{proxy.address}/team/base:1")
        assert len(proxy.paths("/manifests/")) == 4
    assert client.said == []


def test_never(address: str, client: Client) -> None:
    """A registry that never has time is an error that says what its answer means."""
    said = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "You have reached your limit."}]}'
    cases = (
        (429, ": rate limit (tried 4 times): You have reached your limit. Log in (docker login "),
        (503, "failed with 503 (tried 4 times): You have reached your limit. It may pass"),
        (408, "answered 408 (tried 4 times): You have reached your limit. It may pass"),
    )
    for status, words in cases:
        fault = Fault(what="answer", path="", status=status, body=said, times=-1)
        with FaultProxy(address, fault) as proxy:
            assert words in client.refused(f"{proxy.address}/team/base:1")
            assert len(proxy.paths()) == 4


def test_waits_are_told_and_bounded(
    address: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait is as long as the registry wants, and told; one that is too long is not begun."""
    monkeypatch.setattr(transport, "PATIENCE", 0.02)
    busy = Fault(what="answer", path="", status=429, headers={"Retry-After": "3600"}, times=-1)
    with FaultProxy(address, busy) as proxy:
        text = client.refused(f"{proxy.address}/team/base:1")
        assert "rate limit (asks to wait 3600 s). Log in (" in text
        assert len(proxy.paths()) == 1
        assert client.said == []

        busy.headers = {}
        text = client.refused(f"{proxy.address}/team/base:1")
        assert "rate limit (tried 2 times). Log in (" in text  # 0.01 s, and not 0.02 s more
        assert len(proxy.paths()) == 3
        said = f"{proxy.url} answered 429, waiting 0.01 s"
        assert client.said == [f"{proxy.address}/team/base:1: {said}"]


def test_error_that_does_not_pass(address: str, client: Client) -> None:
    """What no other attempt makes better is not tried again."""
    for status, words in ((501, "failed with 501"), (418, "answered 418"), (204, "answered 204")):
        with FaultProxy(address, Fault(what="answer", path="", status=status)) as proxy:
            text = client.refused(f"{proxy.address}/team/base:1")
            assert words in text
            assert "tried" not in text
            assert len(proxy.paths()) == 1
    assert client.said == []


def test_broken_connections_are_told(address: str, client: Client, place: Path) -> None:
    """Each wait after a broken connection is told, and how often it was tried in the end."""
    with FaultProxy(address, Fault(what="drop", path="", times=-1)) as proxy:
        reference = f"{proxy.address}/team/base:1"
        assert "the connection broke, again and again (tried 5 times)" in client.refused(reference)
        broke = f"{reference}: registry {proxy.address}: the connection broke, waiting 0."
        assert len(client.said) == 4
        assert all(each.startswith(broke) for each in client.said)

        client.said.clear()
        proxy.faults = [Fault(what="truncate")]
        client.fetch(proxy.address, place)
        broke = f"registry {proxy.address}: the connection broke, waiting 0.01 s"
        assert client.said == [f"{reference}: layer {LARGE}: {broke}"]


# Redirects and proxies


def test_redirect_without_the_login(
    guarded: str, address: str, tmp_path: Path, place: Path
) -> None:
    """Another host than the registry is never told who asks."""
    with FaultProxy(address) as other:
        moved = Fault(what="answer", status=307, times=-1)
        with FaultProxy(guarded, moved) as proxy:
            moved.headers = {"Location": f"{other.url}/v2/team/base/blobs/{LARGE}?signature=x"}
            client = logged_in(tmp_path / "docker", proxy.address)
            with contextlib.suppress(ImageError):  # the configuration is redirected, too
                client.digest(f"{proxy.address}/team/base:1")
            assert client.fetch(proxy.address, place) == LAYERS[1]
            client.registries.close()
            assert "authorization" in proxy.requests[-1].headers
        assert other.requests
        assert not any("authorization" in each.headers for each in other.requests)


def test_redirect_on_the_same_host(guarded: str, tmp_path: Path) -> None:
    """The registry itself is told who asks, wherever it leads on itself."""
    with FaultProxy(guarded) as proxy:
        here = {"Location": "/v2/team/base/manifests/1?x"}
        proxy.faults = [Fault(what="answer", path="tags-of-old", status=302, headers=here)]
        client = logged_in(tmp_path / "docker", proxy.address)
        client.digest(f"{proxy.address}/team/base:1")
        client.digest(f"{proxy.address}/team/base:tags-of-old")
        client.registries.close()

        assert "authorization" in proxy.requests[-2].headers


@pytest.mark.parametrize("location", ["", "ftp://x/", "http://[x/", "//[", "file:///etc/passwd"])
def test_redirect_to_nowhere(address: str, client: Client, location: str) -> None:
    """A redirect that is none is an error."""
    fault = Fault(what="answer", path="", status=302, headers={"Location": location})
    with FaultProxy(address, fault) as proxy:
        assert "leads where no one may follow" in client.refused(f"{proxy.address}/team/base:1")


def test_redirect_for_ever(address: str, client: Client) -> None:
    """Redirects end."""
    fault = Fault(what="answer", path="", status=302, headers={"Location": "x"}, times=-1)
    with FaultProxy(address, fault) as proxy:
        assert "more than 5 redirects" in client.refused(f"{proxy.address}/team/base:1")
        assert len(proxy.paths()) == 6


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_proxy(address: str, name: str) -> None:
    """A proxy of the environment is asked, but not for the hosts that it is not for."""
    with FaultProxy(address) as proxy:
        client = Client({name: proxy.url})
        client.digest("registry.invalid:5000/team/base:1")
        client.digest(f"{address}/team/base:1")
        client.registries.close()
        assert proxy.paths("/manifests/") == [
            "http://registry.invalid:5000/v2/team/base/manifests/1"
        ]
        other = Client(
            {name: proxy.url, name.replace("http", "no").replace("HTTP", "NO"): ".invalid"}
        )
        with pytest.raises(ImageUnavailable):
            other.digest("registry.invalid:5000/team/base:1")
        other.registries.close()


def test_proxy_that_is_none() -> None:
    """A proxy of a kind that is not spoken here is an error that keeps its password."""
    client = Client({"HTTP_PROXY": f"gopher://me:{PASSWORD}@x.invalid"})
    assert "registry.invalid:5000 cannot be asked" in client.refused("registry.invalid:5000/a/b:1")
    client.registries.close()


# Out of reach


def test_out_of_reach(client: Client) -> None:
    """A registry that is not there is noticed once, and not tried again in the run."""
    port = registries.free_port()
    reason = f"registry 127.0.0.1:{port} cannot be reached from here"
    with pytest.raises(ImageUnavailable, match=reason):
        client.digest(f"127.0.0.1:{port}/team/one:1")
    with registries.listener(port) as seen:
        with pytest.raises(ImageUnavailable, match=f"^127.0.0.1:{port}/team/two:1: {reason}$"):
            client.digest(f"127.0.0.1:{port}/team/two:1")
        with pytest.raises(ImageUnavailable, match=r"registry nowhere.invalid cannot be"):
            client.digest("nowhere.invalid/team/one:1")

    assert seen == []
    assert client.said == [reason, "registry nowhere.invalid cannot be reached from here"]


def test_token_server_out_of_reach(address: str, client: Client) -> None:
    """A registry whose token server is out of reach is so itself."""
    port = registries.free_port()
    challenge = {"WWW-Authenticate": f'Bearer realm="http://127.0.0.1:{port}/token"'}
    fault = Fault(what="answer", path="", status=401, headers=challenge)
    with (
        FaultProxy(address, fault) as proxy,
        pytest.raises(ImageUnavailable, match=f"127.0.0.1:{port}, which registry {proxy.address}"),
    ):
        client.digest(f"{proxy.address}/team/base:1")


# Cancelled


def test_cancelled_in_the_middle(address: str, client: Client, place: Path) -> None:
    """A run that ends does not wait for a layer, and leaves nothing of it."""

    class Ending(FaultProxy):
        def answer(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
            client.cancelled.set()
            super().answer(request, handler)

    with Ending(address) as proxy, pytest.raises(ImageError, match=r"^cancelled$"):
        client.fetch(proxy.address, place)
    assert not place.exists()


def test_cancelled_while_waiting(address: str) -> None:
    """A run that ends does not wait until a registry has time."""
    cancelled = threading.Event()
    opened = Registries(environ={}, progress=lambda _: cancelled.set(), cancelled=cancelled)
    busy = Fault(what="answer", path="", status=503, headers={"Retry-After": "50"})
    with FaultProxy(address, busy) as proxy, pytest.raises(ImageError, match=r"^cancelled$"):
        opened.image(f"{proxy.address}/team/base:1", AMD64, insecure=True)
    opened.close()


def test_how_far_it_is(
    address: str, client: Client, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that takes long is told about."""
    monkeypatch.setattr(registry, "_NOTE_EVERY", 0.0)
    client.fetch(address, place)

    start = f"{address}/team/base:1: pulling layer {LARGE[:19]}, "
    assert client.said[-1] == f"{start}3 of 3 MB"
    assert all(each.startswith(start) for each in client.said)


def test_server_of_nothing(client: Client) -> None:
    """Something that is no registry at all is an error."""
    with Server() as server:
        assert "there is no such image or tag" in client.refused(f"{server.address}/team/base:1")
