"""Images into real registries, over connections that break, with logins and without."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import random
import shlex
import threading
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

import registries
from nox_variants.errors import ImageError, ImageUnavailable, LayoutError
from nox_variants.images import pushing, transport
from nox_variants.images.content import Descriptor
from nox_variants.images.packing import GZIP, Layer, Outgoing
from nox_variants.images.registry import Registries
from nox_variants.images.transient import TransientError
from nox_variants.model import Digest
from pushers import (
    IMAGE,
    LARGE,
    REPOSITORY,
    SMALL,
    Client,
    assert_no_secret,
    got,
    image_of,
    methods,
    packed,
    write,
)
from registries import PASSWORD, USER, Fault, FaultProxy, Server, TokenServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from http.server import BaseHTTPRequestHandler
    from pathlib import Path

    from registries import Certificate, Request

pytestmark = pytest.mark.subprocess

AMD64 = "linux/amd64"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what is broken on purpose."""
    monkeypatch.setattr(transport, "_FIRST_PAUSE", 0.01)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Give a certificate of a private authority."""
    return registries.certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Give an empty registry for everybody."""
    with registries.registry(tmp_path / "registry") as where:
        yield where


@pytest.fixture
def proxy(address: str) -> Iterator[FaultProxy]:
    """Give what stands in front of the registry."""
    with FaultProxy(address) as made:
        yield made


@pytest.fixture
def client(proxy: FaultProxy, tmp_path: Path) -> Iterator[Client]:
    """Give who pushes through the proxy."""
    with closing(Client(proxy.address, tmp_path / "store")) as made:
        yield made


# What arrives


def test_what_is_pushed(client: Client, address: str) -> None:
    """Manifest, configuration and layers are there, each under its digest, in reproducible gzip."""
    digest = client.ship(annotations=(("a.b", "c"),))

    answer = got(address, f"{REPOSITORY}/manifests/1")
    manifest = answer.json()
    assert (registries.sha256(answer.content), answer.headers["Content-Type"]) == (
        digest,
        registries.MANIFEST,
    )
    assert (manifest["mediaType"], manifest["annotations"]) == (registries.MANIFEST, {"a.b": "c"})
    config = got(address, f"{REPOSITORY}/blobs/{manifest['config']['digest']}").content
    assert (config, len(config)) == (IMAGE.config, manifest["config"]["size"])
    for described, data in zip(manifest["layers"], (SMALL, LARGE), strict=True):
        blob = got(address, f"{REPOSITORY}/blobs/{described['digest']}").content
        assert registries.sha256(blob) == described["digest"]
        assert (len(blob), described["mediaType"]) == (described["size"], GZIP)
        assert gzip.decompress(blob) == data
        assert blob[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\x03"  # no name, no time


def test_pulled_back(client: Client, address: str, tmp_path: Path) -> None:
    """What was pushed is an image for our own client, down to the bytes of its layers."""
    digest = client.ship()

    reader = Registries(environ={}, progress=client.said.append, cancelled=threading.Event())
    with closing(reader):
        image = reader.image(f"{address}/{REPOSITORY}:1", AMD64, insecure=True)
        reader.blobs(f"{address}/{REPOSITORY}:1", insecure=True).fetch(
            image.layers[1], tmp_path / "layer"
        )
    assert image.digest == digest
    assert image.diff_ids == (registries.sha256(SMALL), registries.sha256(LARGE))
    assert gzip.decompress((tmp_path / "layer").read_bytes()) == LARGE


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_what_came_compressed(client: Client, address: str, form: str) -> None:
    """A layer that came compressed travels as it came."""
    layer = packed(LARGE, form)
    config = json.dumps(registries.configuration([LARGE])).encode()

    client.ship(Outgoing(config=config, layers=(layer,)))

    assert layer.packed is not None
    (described,) = got(address, f"{REPOSITORY}/manifests/1").json()["layers"]
    assert described == {
        "mediaType": f"{registries.LAYER}+{form}",
        "digest": layer.packed.digest,
        "size": layer.packed.size,
    }


def test_same_layer_twice(client: Client, proxy: FaultProxy, address: str) -> None:
    """A layer that an image has twice is sent once, and listed twice."""
    client.ship(image_of(SMALL, SMALL))

    layers = got(address, f"{REPOSITORY}/manifests/1").json()["layers"]
    assert (len(layers), layers[0]) == (2, layers[1])
    assert methods(proxy, f"digest={layers[0]['digest'].replace(':', '%3A')}") == ["PUT"]


def test_order(client: Client, proxy: FaultProxy) -> None:
    """A tag is set when all blobs are there, and looked at afterwards."""
    digest = client.ship()

    assert proxy.requests[-2].method == "PUT"
    assert proxy.requests[-2].path == f"/v2/{REPOSITORY}/manifests/1"
    assert (proxy.requests[-1].method, proxy.requests[-1].path) == (
        "HEAD",
        f"/v2/{REPOSITORY}/manifests/{digest}",
    )
    assert methods(proxy, "/manifests/") == ["PUT", "HEAD"]


# What is not sent again


def test_again(client: Client, proxy: FaultProxy) -> None:
    """The same again takes one question."""
    digest = client.ship()
    before = len(proxy.requests)

    assert client.ship() == digest
    assert [each.method for each in proxy.requests[before:]] == ["HEAD"]


def test_again_with_another_store(client: Client, proxy: FaultProxy, tmp_path: Path) -> None:
    """Who has compressed nothing before gets the same digests, and sends no blob."""
    digest = client.ship()
    before = len(proxy.requests)

    with closing(Client(proxy.address, tmp_path / "other")) as other:
        assert other.ship() == digest
    asked = [each.method for each in proxy.requests[before:]]
    assert (asked.count("PUT"), asked.count("POST")) == (1, 0)


def test_another_tag_and_annotation(client: Client, proxy: FaultProxy) -> None:
    """Another tag, and other annotations, are a manifest and no blob."""
    client.ship()
    before = len(proxy.requests)

    assert client.ship(tag="2", annotations=(("a.b", "c"),))
    assert [each.method for each in proxy.requests[before:]] == ["HEAD", "PUT", "HEAD"]


def test_mounted(client: Client, proxy: FaultProxy, address: str) -> None:
    """What one repository has is mounted into another, and not sent."""
    digest = client.ship()
    before = len(proxy.requests)

    assert client.ship(repository="team/other") == digest
    later = proxy.requests[before:]
    assert [each.method for each in later].count("POST") == 3
    for each in later:
        if each.method == "POST":
            query = parse_qs(urlsplit(each.path).query)
            assert query["from"] == [REPOSITORY]
    assert [each.path for each in later if each.method == "PUT"] == ["/v2/team/other/manifests/1"]
    assert got(address, "team/other/manifests/1").status_code == 200


@pytest.mark.parametrize("status", [401, 403, 405])
def test_mount_is_refused(client: Client, proxy: FaultProxy, address: str, status: int) -> None:
    """Where a registry mounts nothing, blobs are sent."""
    client.ship()
    proxy.faults.append(Fault(what="answer", path="mount=", status=status, times=-1))

    client.ship(repository="team/other")

    assert got(address, "team/other/manifests/1").status_code == 200


def test_mount_becomes_an_upload(client: Client, proxy: FaultProxy, address: str) -> None:
    """Where a registry begins an upload in place of a mount, that one is used."""
    client.pusher._homes[Digest(registries.sha256(SMALL))] = ["nobody/nothing"]

    client.blob(SMALL)

    assert methods(proxy) == ["HEAD", "POST", "PUT"]
    assert got(address, f"{REPOSITORY}/blobs/{registries.sha256(SMALL)}").content == SMALL


# What breaks


@pytest.mark.parametrize(
    "fault",
    [
        Fault(what="drop", path="digest=sha256"),
        Fault(what="drop", path="/blobs/uploads/"),
        Fault(what="drop", path="/blobs/sha256:"),
        Fault(what="drop", path="/manifests/1"),
        Fault(what="drop", path="/manifests/sha256:"),
        Fault(what="answer", path="digest=sha256", status=404),
        Fault(what="answer", path="digest=sha256", status=500, times=2),
        Fault(what="answer", path="digest=sha256", status=503, headers={"Retry-After": "0"}),
        Fault(what="answer", path="/blobs/uploads/", status=429, headers={"Retry-After": "0"}),
        Fault(what="answer", path="/blobs/sha256:", status=500, times=-1),
        Fault(what="answer", path="/manifests/1", status=500),
        Fault(what="answer", path="/manifests/sha256:", status=404),
    ],
    ids=lambda fault: f"{fault.what} {fault.status} {fault.path}",
)
def test_broken_once(client: Client, proxy: FaultProxy, address: str, fault: Fault) -> None:
    """What breaks is begun again, and everything arrives."""
    proxy.faults.append(Fault(**vars(fault)))

    digest = client.ship()

    answer = got(address, f"{REPOSITORY}/manifests/1")
    assert registries.sha256(answer.content) == digest
    for each in answer.json()["layers"]:
        assert got(address, f"{REPOSITORY}/blobs/{each['digest']}").status_code == 200


def test_broken_in_the_middle(client: Client, address: str) -> None:
    """A connection that ends in the middle of a blob does not leave half of it."""
    data = random.Random(3).randbytes(3_000_000)  # noqa: S311  # no secret
    broken = [True]

    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 1_000_000 and broken:
                broken.clear()
                raise transport.BrokenError("the connection broke")
            return super().read(size)

    digest = Digest(registries.sha256(data))
    described = Descriptor(media_type=GZIP, digest=digest, size=len(data))
    client.pusher.blob("it", REPOSITORY, described, lambda: Breaking(data))

    assert broken == []
    assert got(address, f"{REPOSITORY}/blobs/{digest}").content == data
    assert client.said == [f"it: registry {client.address}: the connection broke, waiting 0.01 s"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(what="drop", path="digest=sha256"), "the connection broke"),
        (
            Fault(what="answer", path="digest=sha256", status=404),
            "it does not go on with the upload that it had begun",
        ),
        (Fault(what="answer", path="digest=sha256", status=500), "it failed with 500"),
        (
            Fault(what="answer", path="/manifests/sha256:", status=404),
            "it does not have the manifest that it took",
        ),
    ],
    ids=["drop", "lost", "500", "not-there"],
)
def test_always_broken(client: Client, proxy: FaultProxy, fault: Fault, words: str) -> None:
    """What breaks every time is given up, and it is said what."""
    proxy.faults.append(Fault(**{**vars(fault), "times": -1}))

    text = client.refused(TransientError)

    assert f"registry {client.address}: {words}, again and again (tried 5 times)" in text
    assert text.endswith("It may pass: try again later.")


@pytest.mark.parametrize("what", ["drop", "answer"])
def test_no_tag_of_half_an_image(
    client: Client, proxy: FaultProxy, address: str, what: str
) -> None:
    """Where a layer does not arrive, there is no tag."""
    digest = Digest(registries.sha256(IMAGE.config)).replace(":", "%3A")
    proxy.faults.append(Fault(what=what, path=f"digest={digest}", status=413, times=-1))

    client.refused()

    assert got(address, f"{REPOSITORY}/manifests/1").status_code == 404
    assert methods(proxy, "/manifests/") == []


REFUSALS = {
    400: ("does not take it: no reason", ""),
    401: ("wants a login, or another one: no reason", "say so of an account that may not."),
    403: ("does not allow it: no reason", "push to it?"),
    404: ("has no such repository: no reason", "Make it there, or correct --to"),
    405: ("takes nothing: no reason", "Is it a mirror or a cache?"),
    409: ("does not let the tag be set: no reason", "may not be changed"),
    412: ("does not let the tag be set: no reason", "may not be changed"),
    413: ("takes nothing so large: no reason", "a proxy in front of it"),
    418: ("answered 418: no reason", "Is the reference right?"),
}


@pytest.mark.parametrize("path", ["/blobs/uploads/", "/manifests/1"])
@pytest.mark.parametrize("status", REFUSALS)
def test_refusals(client: Client, proxy: FaultProxy, path: str, status: int) -> None:
    """What a registry refuses is said in words, with its own and with what to do."""
    body = json.dumps({"errors": [{"message": "no reason"}]}).encode()
    proxy.faults.append(Fault(what="answer", path=path, status=status, body=body, times=-1))

    text = client.refused()

    what, hint = REFUSALS[status]
    assert f": registry {client.address} {what}" in text
    assert hint in text


def test_another_manifest(client: Client, proxy: FaultProxy) -> None:
    """A registry that says that it keeps something else is not believed."""
    other = registries.sha256(b"other")
    headers = {"Docker-Content-Digest": other}
    proxy.faults.append(Fault(what="answer", path="/manifests/1", status=201, headers=headers))

    assert f"made '{other}' of sha256:" in client.refused()


def test_changed_layer(client: Client, proxy: FaultProxy) -> None:
    """A layer that is not what its identity says is not sent."""
    wrong = Layer(diff_id=IMAGE.layers[0].diff_id, size=len(SMALL), write=partial(write, LARGE))

    with pytest.raises(LayoutError, match="came out as"):
        client.ship(Outgoing(config=IMAGE.config, layers=(wrong,)))
    assert methods(proxy) == []


def test_out_of_reach(tmp_path: Path) -> None:
    """A registry that nobody can reach is asked once."""
    with closing(Client(f"127.0.0.1:{registries.free_port()}", tmp_path / "store")) as client:
        text = client.refused(ImageUnavailable)
        again = client.refused(ImageUnavailable)

    assert f"{client.address} cannot be reached from here. Is the name right" in text
    assert again == text.partition(". Is")[0]


def test_gone_meanwhile(client: Client, proxy: FaultProxy) -> None:
    """A registry that cannot be reached any more is one whose connection broke."""
    client.blob(SMALL)
    proxy.close()
    client.pusher.close()

    assert "cannot be reached any more, again and again" in client.refused(TransientError)


def test_no_tls(address: str, tmp_path: Path) -> None:
    """A registry without TLS is not asked without it, and it is said how it would be."""
    with closing(Client(address, tmp_path / "store", insecure=False)) as client:
        text = client.refused()

    assert text.endswith("does not speak TLS. Give --insecure for plain HTTP.")


def test_tls(certificate: Certificate, tmp_path: Path) -> None:
    """A registry that wants TLS does not understand plain HTTP, and it is said how it would."""
    with (
        registries.registry(tmp_path / "registry", tls=certificate) as address,
        closing(Client(address, tmp_path / "store")) as client,
    ):
        text = client.refused()

    assert text.endswith("does not take it. Does it speak TLS? Then leave out --insecure.")


def test_cancelled(client: Client, proxy: FaultProxy) -> None:
    """Who was cancelled sends nothing."""
    client.cancelled.set()

    with pytest.raises(ImageError, match="cancelled"):
        client.blob(SMALL)
    with pytest.raises(ImageError, match="cancelled"):
        client.ship()
    assert methods(proxy) == []


def test_progress(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long is told: how far it is, of which image."""
    monkeypatch.setattr(pushing, "_NOTE_EVERY", 0.0)

    client.ship(image_of(LARGE))

    (described,) = got(client.address, f"{REPOSITORY}/manifests/1").json()["layers"]
    where = f"{client.address}/{REPOSITORY}:1"
    assert f"{where}: pushing {described['digest'][:19]}, 0 of 1 MB" in client.said
    assert f"{where}: pushing {described['digest'][:19]}, 1 of 1 MB" in client.said


# Where uploads lead


class Relative(FaultProxy):
    """A registry whose uploads have an address without a host."""

    def _ask(
        self, request: Request, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        status, given, body = super()._ask(request, headers)
        if "location" in given:
            parts = urlsplit(given["location"])
            given["location"] = f"{parts.path}?{parts.query}" if parts.query else parts.path
        return status, given, body


def test_relative_location(address: str, tmp_path: Path) -> None:
    """An upload's address may leave out the host, and has a query of its own."""
    with Relative(address) as proxy, closing(Client(proxy.address, tmp_path / "store")) as client:
        client.ship()
        puts = [each.path for each in proxy.requests if each.method == "PUT"]

    assert got(address, f"{REPOSITORY}/manifests/1").status_code == 200
    assert all("_state=" in path and "&digest=sha256%3A" in path for path in puts[:-1])


class Storage(Server):
    """Takes what is sent."""

    def answer(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
        """Take it."""
        del request
        registries.send(handler, 201, {}, b"")


@pytest.mark.parametrize("kind", ["location", "redirect"])
def test_credentials_stay(tmp_path: Path, kind: str) -> None:
    """What is sent to another host goes there without the registry's login."""
    folder = tmp_path / "registry"
    with (
        registries.registry(folder, htpasswd=registries.HTPASSWD) as address,
        Storage() as storage,
        FaultProxy(address) as proxy,
        closing(
            Client(proxy.address, tmp_path / "store", login(tmp_path, proxy.address))
        ) as client,
    ):
        client.blob(LARGE)
        place = {"Location": f"{storage.url}/there?signed=yes"}
        path, status = ("/uploads/", 202) if kind == "location" else ("digest=", 307)
        proxy.faults.append(Fault(what="answer", path=path, status=status, headers=place))
        client.blob(SMALL)

        assert "authorization" in proxy.requests[-1].headers
        (request,) = storage.requests
    assert (request.method, request.body) == ("PUT", SMALL)
    assert "authorization" not in request.headers
    query = parse_qs(urlsplit(request.path).query)
    assert query["signed"] == ["yes"]
    assert ("digest" in query) == (kind == "location")


class Curious(Server):
    """Wants to know who sends it something."""

    def answer(self, request: Request, handler: BaseHTTPRequestHandler) -> None:
        """Ask for a login."""
        del request
        registries.send(handler, 401, {"WWW-Authenticate": 'Basic realm="tests"'}, b"{}")


@pytest.mark.parametrize("kind", ["location", "redirect"])
def test_no_one_else_gets_a_login(tmp_path: Path, kind: str) -> None:
    """Another host that wants a login is told nothing, and it is no answer of the registry."""
    folder = tmp_path / "registry"
    with (
        registries.registry(folder, htpasswd=registries.HTPASSWD) as address,
        Curious() as curious,
        FaultProxy(address) as proxy,
        closing(
            Client(proxy.address, tmp_path / "store", login(tmp_path, proxy.address))
        ) as client,
    ):
        place = {"Location": f"{curious.url}/there"}
        path, status = ("/uploads/", 202) if kind == "location" else ("digest=", 307)
        proxy.faults.append(Fault(what="answer", path=path, status=status, headers=place))
        with pytest.raises(ImageError, match="wants a login, or another one"):
            client.blob(SMALL)

        (request,) = curious.requests
    assert "authorization" not in request.headers


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/there", "file:///etc/passwd", ""])
def test_where_no_one_may_follow(
    tmp_path: Path, address: str, certificate: Certificate, location: str
) -> None:
    """What was encrypted is not sent in plain text, and only HTTP is spoken."""
    fault = Fault(what="answer", path="/uploads/", status=202, headers={"Location": location})
    environ = {"SSL_CERT_FILE": str(certificate.authority)}
    with (
        FaultProxy(address, fault, tls=certificate) as proxy,
        closing(Client(proxy.address, tmp_path / "store", environ, insecure=False)) as client,
    ):
        text = client.refused()

    assert "leads where no one may follow" in text


# Who asks


def login(folder: Path, address: str, password: str = PASSWORD) -> dict[str, str]:
    """Return an environment with a login in docker's configuration."""
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    return configured(folder, {"auths": {address: {"auth": auth}}})


def configured(folder: Path, config: object) -> dict[str, str]:
    """Return an environment with a configuration of docker's."""
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return {"DOCKER_CONFIG": str(folder), "PATH": os.environ["PATH"]}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[str]:
    """Give a registry that wants a password."""
    with registries.registry(tmp_path / "guarded", htpasswd=registries.HTPASSWD) as where:
        yield where


def test_password(guarded: str, tmp_path: Path) -> None:
    """A login of docker's is enough, and is never told."""
    with closing(Client(guarded, tmp_path / "store", login(tmp_path, guarded))) as client:
        digest = client.ship()
        assert client.pusher.tells("it", REPOSITORY, "1", digest)

    assert_no_secret(*client.said)


def test_credential_helper(guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A credential helper of docker's is asked."""
    said = shlex.quote(json.dumps({"Username": USER, "Secret": PASSWORD}))
    program = tmp_path / "docker-credential-tests"
    program.write_text(f"#!/bin/sh\necho {said}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    environ = configured(tmp_path, {"credHelpers": {guarded: "tests"}})

    with closing(Client(guarded, tmp_path / "store", environ)) as client:
        digest = client.ship()
        assert client.pusher.tells("it", REPOSITORY, "1", digest)


@pytest.mark.parametrize("password", [None, "not-this-one"])
def test_no_login(guarded: str, tmp_path: Path, password: str | None) -> None:
    """Without a login, or with a wrong one, it is said how to log in."""
    environ = {} if password is None else login(tmp_path, guarded, password)
    with closing(Client(guarded, tmp_path / "store", environ)) as client:
        text = client.refused()

    assert "wants a login, or another one" in text
    assert f"docker login {guarded}, and again." in text
    assert "not-this-one" not in text


@pytest.fixture
def tokens(tmp_path: Path, certificate: Certificate) -> Iterator[TokenServer]:
    """Give who gives tokens to whom has the password."""
    folder = tmp_path / "tokens"
    with TokenServer(folder, user=USER, password=PASSWORD, tls=certificate) as made:
        yield made


def scopes(tokens: TokenServer) -> list[list[str]]:
    """Return what was asked for, each time."""
    return [parse_qs(urlsplit(path).query)["scope"] for path in tokens.paths()]


def test_tokens(tokens: TokenServer, certificate: Certificate, tmp_path: Path) -> None:
    """One token is good for a whole repository, another one for what is mounted from it."""
    with registries.registry(tmp_path / "registry", tls=certificate, token=tokens) as address:
        environ = login(tmp_path, address) | {"SSL_CERT_FILE": str(certificate.authority)}
        with closing(Client(address, tmp_path / "store", environ, insecure=False)) as client:
            digest = client.ship()
            assert scopes(tokens) == [[f"repository:{REPOSITORY}:pull,push"]]
            assert client.ship(repository="team/other") == digest

    own, both = "repository:team/other:pull,push", f"repository:{REPOSITORY}:pull"
    assert scopes(tokens)[1:] == [[own], [own, both]]
    assert_no_secret(*client.said)
    assert not any(token in text for token in tokens.tokens for text in client.said)


def test_no_token(tokens: TokenServer, certificate: Certificate, tmp_path: Path) -> None:
    """Where no token is given, it is said who did not give it, and how to log in."""
    with registries.registry(tmp_path / "registry", tls=certificate, token=tokens) as address:
        environ = login(tmp_path, address, "not-this-one")
        environ |= {"SSL_CERT_FILE": str(certificate.authority)}
        with closing(Client(address, tmp_path / "store", environ, insecure=False)) as client:
            text = client.refused()

    assert "wrong user or password" in text  # the server's own words
    assert f"docker login {address}" in text


def test_only_pulling_is_allowed(certificate: Certificate, tmp_path: Path) -> None:
    """A token that is not good for pushing is not enough, and that is said."""

    class Reading(TokenServer):
        def token(self, access: list[dict[str, Any]]) -> str:
            return super().token([{**each, "actions": ["pull"]} for each in access])

    with (
        Reading(tmp_path / "tokens", tls=certificate) as tokens,
        registries.registry(tmp_path / "registry", tls=certificate, token=tokens) as address,
    ):
        environ = {"SSL_CERT_FILE": str(certificate.authority)}
        with closing(Client(address, tmp_path / "store", environ, insecure=False)) as client:
            text = client.refused()

    assert "wants a login, or another one" in text
    assert not any(token in text for token in tokens.tokens)
