"""Images from mirrors of a real registry, pulled by real daemons; what fails is tried again."""

from __future__ import annotations

import base64
import functools
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
import requests

import registries
from dockerbench import WAYS, environment
from nox_variants.baseline import Pin
from nox_variants.engines.docker import answers, builders, choosing, connection
from nox_variants.engines.docker.connection import DaemonError
from nox_variants.engines.docker.pulling import Puller
from nox_variants.errors import ImageError
from nox_variants.images import transport
from nox_variants.images.provider import Images
from nox_variants.images.transient import TransientError
from nox_variants.model import Digest, Image, ImageSource, Mirror, SourceKind
from nox_variants.oci.layer import write_tree
from nox_variants.store import Store
from projects import NOXFILE, Project
from registries import PASSWORD, USER, Fault, FaultProxy
from sandboxed import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from daemons import Service
    from nox_variants.engines.docker.connection import Daemon
    from nox_variants.results import PreparedImage
    from registries import Pushed

pytestmark = [pytest.mark.docker, pytest.mark.subprocess]


def layer(text: bytes) -> bytes:
    """Return a layer of one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    return out.getvalue()


@dataclass
class Pulls:
    """A daemon, a registry and its mirror on the daemon's own loopback.

    The mirror has the image below ``hub/``; both are one program with one storage.

    Attributes:
        way: How the daemon is used.
        service: The daemon.
        own: The image's own registry.
        mirror: Its mirror.
        name: The image's repository, which is the test's own: daemons keep what they pulled.
        pushed: The image.
        said: What was said.
    """

    way: str
    service: Service
    own: FaultProxy
    mirror: FaultProxy
    name: str
    pushed: Pushed
    home: Path
    said: list[str] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    note: Callable[[str], None] = lambda _: None

    @property
    def reference(self) -> str:
        """The image by its tag."""
        return f"{self.own.address}/{self.name}:1"

    @property
    def mirrored(self) -> str:
        """The same at the mirror."""
        return f"{self.mirror.address}/hub/{self.name}:1"

    @property
    def environ(self) -> dict[str, str]:
        """An environment in which a run finds the daemon."""
        return environment(self.way, self.service)

    @functools.cached_property
    def daemon(self) -> Daemon:
        """The daemon, as a run has it."""
        return connection.connect(WAYS[self.way], self.environ)

    def image(self, **changes: Any) -> Image:
        """Return the image of the file."""
        values: dict[str, Any] = {"reference": self.reference, "insecure": True, **changes}
        return Image(name="base", sources=(ImageSource(kind=SourceKind.REGISTRY, **values),))

    def images(self, *, refresh: bool = False, mirrors: bool = True, **changes: Any) -> Images:
        """Return images as a run has them."""

        def progress(text: str) -> None:
            self.said.append(text)
            self.note(text)

        environ, daemon, store = self.environ, self.daemon, Store(self.home)
        mirror = Mirror(host=self.mirror.address, prefix="hub", insecure=True)
        puller = Puller(
            daemon=daemon,
            builder=(
                choosing.choose(daemon, environ)
                if self.way == "buildkit"
                else builders.Classic(daemon=daemon)
            ),
            store=store,
            refresh=refresh,
            progress=progress,
            cancelled=self.cancelled,
            mirrors=(("*", (mirror,)),) if mirrors else (),
            environ=environ,
        )
        options: dict[str, Any] = {
            "policy": "auto",
            "refresh": refresh,
            "progress": progress,
            "cancelled": self.cancelled,
            "root": self.home,
            "host": "linux/amd64",
            "environ": environ,
            "pull": puller,
        }
        return Images(store, **options | changes)

    def prepared(self, **changes: Any) -> PreparedImage:
        """Prepare the image of the file in a run of its own."""
        return self.images(**changes).prepare(self.image())

    def failed(self, **changes: Any) -> ImageError:
        """Return how the image of the file fails in a run of its own."""
        with pytest.raises(ImageError) as caught:
            self.prepared(**changes)
        return caught.value


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what is broken on purpose."""
    monkeypatch.setattr(transport, "_FIRST_PAUSE", 0.01)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry; yields ``HOST:PORT``."""
    with registries.registry(tmp_path_factory.mktemp("registry")) as where:
        yield where


docker_only = pytest.mark.parametrize("both", ["buildkit"], indirect=True)
"""For what has nothing to do with the daemon, or where Podman tries for seconds by itself."""


@pytest.fixture(params=["buildkit", "podman"])
def both(request: pytest.FixtureRequest, address: str, home: Path) -> Iterator[Pulls]:
    """A daemon, an image in a registry, and in its mirror."""
    way: str = request.param
    service: Service = request.getfixturevalue(f"{WAYS[way]}_service")
    settings = service.folder / ".config/containers/registries.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text('[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n', encoding="utf-8")
    name = f"{way}/{request.node.name.partition('[')[0]}"
    layers = [layer(name.encode())]
    pushed = registries.push(f"http://{address}", name, "1", layers)
    registries.push(f"http://{address}", f"hub/{name}", "1", layers)
    beside, ports = service.process.pid, [registries.free_port() for _ in range(2)]
    with (
        FaultProxy(address, port=ports[0], beside=beside) as own,
        FaultProxy(address, port=ports[1], beside=beside) as mirror,
    ):
        yield Pulls(way, service, own, mirror, name, pushed, home)


def failing(status: int, path: str = "/manifests/", times: int = -1) -> Fault:
    """Return what a registry answers."""
    return Fault(what="answer", path=path, status=status, times=times)


def patient(both: Pulls, address: str, wait: str) -> FaultProxy:
    """Return the registry as this machine reaches it: it has no time, and says for how long."""
    busy = replace(failing(503), headers={"Retry-After": wait})
    return FaultProxy(address, busy, port=int(both.own.address.partition(":")[2]))


def asked(proxy: FaultProxy) -> int:
    """Return how often a daemon began to ask: it looks first whether that is a registry."""
    return len([path for path in proxy.paths() if path == "/v2/"])


# Who gives an image


def test_mirror_gives_it(both: Pulls) -> None:
    """All of an image comes from the mirror; it keeps its own name, and is there under it."""
    made = both.prepared()

    assert both.said == [f"base: pulling {both.mirrored}"]
    assert (made.reference, made.digest) == (both.reference, both.pushed.digest)
    assert made.pinned == f"{both.reference}@{both.pushed.digest}"
    assert both.prepared() == made
    assert both.prepared(mirrors=False).reference == both.reference
    assert len(both.said) == asked(both.mirror) == 1
    assert both.own.requests == []


def test_once_without_the_cache(both: Pulls) -> None:
    """Images that share a reference are pulled once in a run without the cache, and in the next."""
    for runs in (1, 2):
        images = both.images(refresh=True)
        for name in ("base", "other"):
            images.prepare(replace(both.image(), name=name))
        assert len(both.said) == asked(both.mirror) == runs
    assert both.own.requests == []


def test_locked(both: Pulls, address: str) -> None:
    """What the lock has is pulled by its digest from the mirror, where it is enough."""
    registries.push(f"http://{address}", f"hub/{both.name}", "1", [layer(b"new")])
    pinned = f"{both.reference}@{both.pushed.digest}"
    pin = Pin(digest=Digest(both.pushed.digest), reference=pinned)
    locked = {("base", SourceKind.REGISTRY): pin}

    held = both.prepared(locked=locked)

    by_digest = f"{both.mirror.address}/hub/{both.name}@{both.pushed.digest}"
    assert (held.digest, held.pinned, held.mirrored) == (both.pushed.digest, pinned, by_digest)
    assert both.prepared(locked=locked) == held
    assert both.said == [f"base: pulling {by_digest}"]
    assert both.own.requests == []
    assert both.prepared().digest != held.digest


def test_setup_on_what_is_locked(both: Pulls, address: str, roots: dict[str, Path]) -> None:
    """Setup is done on the locked image of the mirror; its own registry is not asked for it."""
    out = io.BytesIO()
    write_tree(roots["gcc"], out, mtime=0)
    layers = [out.getvalue(), layer(b"old")]
    history = {"history": [{"created_by": "test"} for _ in layers]}  # for Podman's build
    # Of an image that Podman has from two registries, it tells only one.
    config = {**registries.configuration(layers), **history, "author": both.name}
    old = registries.push(f"http://{address}", f"hub/{both.name}", "1", layers, config)
    registries.push(f"http://{address}", f"hub/{both.name}", "1", [layer(b"new")])
    pin = Pin(digest=Digest(old.digest), reference=f"{both.reference}@{old.digest}")

    images = both.images(locked={("base", SourceKind.REGISTRY): pin})
    made = images.prepare(both.image(setup=("echo more >> /file",)))

    assert made.pinned == pin.reference
    assert (images.root(made) / "file").read_text(encoding="utf-8") == "oldmore\n"
    assert both.own.requests == []


def test_mirror_that_fails(both: Pulls) -> None:
    """A mirror that fails is tried as often as a registry, and then not again in the run."""
    both.mirror.faults = [failing(500)]
    images = both.images(refresh=True)
    images.prepare(both.image())
    images.prepare(both.image(reference=f"{both.own.address}/hub/{both.name}:1"))

    assert asked(both.mirror) == 4
    waits = [each for each in both.said if ": its registry answered 500, waiting 0.0" in each]
    assert [each.startswith(f"base: {both.mirrored}: ") for each in waits] == [True] * 3
    told = [each for each in both.said if each.startswith("base: mirror ")]
    assert len(told) == 1
    assert told[0].startswith(f"base: mirror {both.mirrored} cannot be pulled: ")
    assert told[0].endswith(" (tried 4 times); it is not asked again in this run")


@docker_only
def test_mirror_that_does_not_have_it(both: Pulls) -> None:
    """What a mirror lacks is asked for once and said once, and had from the registry."""
    both.mirror.faults = [failing(404)]
    images = both.images(refresh=True)
    for name in ("base", "other"):
        images.prepare(replace(both.image(), name=name))

    assert (asked(both.mirror), asked(both.own)) == (1, 1)
    assert len([each for each in both.said if each.startswith("base: mirror ")]) == 1


@docker_only
def test_mirror_out_of_reach(both: Pulls) -> None:
    """A mirror that is not there is noticed once, and not asked again in the run."""
    both.mirror.close()
    images = both.images()
    images.prepare(both.image())
    images.prepare(both.image(reference=f"{both.own.address}/hub/{both.name}:1"))

    assert both.said == [
        f"base: pulling {both.mirrored}",
        f"registry {both.mirror.address} cannot be reached from here",
        f"base: pulling {both.reference}",
        f"base: pulling {both.own.address}/hub/{both.name}:1",
    ]


def test_credentials_of_the_mirror(
    both: Pulls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror is told its own login of docker's; the registry behind it gets nobody's."""
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with registries.registry(tmp_path / "guarded", htpasswd=registries.HTPASSWD) as where:
        session = requests.Session()
        session.auth = (USER, PASSWORD)
        name = f"hub/{both.name}"
        registries.push(f"http://{where}", name, "1", [layer(b"guarded")], session=session)
        with FaultProxy(where, beside=both.service.process.pid) as mirror:
            config = {"auths": {mirror.address: {"auth": login}}}
            (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
            guarded = replace(both, mirror=mirror)
            made = guarded.prepared()
            sent = {each.headers.get("authorization") for each in mirror.requests}

            mirror.faults = [failing(403)]
            guarded.prepared(refresh=True)

    assert made.digest != both.pushed.digest
    assert f"Basic {login}" in sent
    assert asked(both.own) == 1
    assert not any("authorization" in each.headers for each in both.own.requests)
    assert not any(secret in each for secret in (PASSWORD, login) for each in both.said)


# What is tried again


def test_registry_that_is_busy(both: Pulls) -> None:
    """A registry that has a bad moment is asked again, and each wait is told."""
    # Docker asks twice, with two methods, before it gives up.
    both.own.faults = [failing(500, times=2 if both.way == "buildkit" else 1)]
    both.prepared(mirrors=False)

    assert asked(both.own) == 2
    assert both.said == [
        f"base: pulling {both.reference}",
        f"base: {both.reference}: its registry answered 500, waiting 0.01 s",
    ]


@docker_only
def test_how_long_it_asks_to_wait(both: Pulls, address: str) -> None:
    """A registry that says for how long it has no time is left alone for so long."""
    both.own.faults = [failing(429, times=2)]
    with patient(both, address, "1") as here:
        both.prepared(mirrors=False)

    wait = f"base: {both.reference}: its registry answered 429, waiting 1 s"
    assert both.said[1:] == [wait]
    assert [(each.method, each.path) for each in here.requests] == [
        ("HEAD", f"/v2/{both.name}/manifests/1")
    ]


@docker_only
def test_too_long_to_wait(both: Pulls, address: str) -> None:
    """A registry that wants to be left alone for an hour is not waited for."""
    both.own.faults = [failing(503)]
    with patient(both, address, "3600"):
        error = both.failed(mirrors=False)

    assert isinstance(error, TransientError)
    assert error.message.endswith("(tried once, asks to wait 3600 s)")
    assert both.said == [f"base: pulling {both.reference}"]


def test_registry_that_stays_busy(both: Pulls) -> None:
    """After four tries it is an error that says so, and the mirrors that were tried."""
    both.own.faults, both.mirror.faults = [failing(500)], [failing(404)]
    error = both.failed()

    assert isinstance(error, TransientError)
    mirrors = f"(mirrors tried: {both.mirror.address}/hub)"
    assert error.message.endswith(f" (tried 4 times) {mirrors}")
    assert error.message.startswith(f"base: {both.reference} cannot be pulled: ")
    assert error.hint == "It may pass: try again later."
    assert asked(both.own) == 4


def test_what_does_not_pass(both: Pulls) -> None:
    """What another attempt would not better is asked for once, and no wait is told."""
    for number, status in enumerate((401, 403, 404, 418), start=1):
        both.own.faults = [failing(status)]
        error = both.failed(mirrors=False)

        assert not isinstance(error, TransientError)
        assert "tried" not in error.message
        assert asked(both.own) == number
    assert both.said == [f"base: pulling {both.reference}"] * 4


def test_nothing_by_that_tag(both: Pulls) -> None:
    """A tag that a real registry does not have is asked for once; the hint says what to look at."""
    image = both.image(reference=f"{both.own.address}/{both.name}:nothing")
    with pytest.raises(ImageError, match="manifest unknown") as caught:
        both.images(mirrors=False).prepare(image)

    assert caught.value.hint == "Is the reference right?"
    assert asked(both.own) == 1


# A run that ends


@docker_only
def test_cancelled_while_waiting(both: Pulls, address: str) -> None:
    """A run that ends does not wait until a registry has time."""
    both.own.faults = [failing(503)]
    both.note = lambda text: both.cancelled.set() if "waiting 50 s" in text else None
    with patient(both, address, "50"), pytest.raises(DaemonError, match=r"^cancelled$"):
        both.prepared(mirrors=False)

    assert asked(both.own) == 1


def test_cancelled_while_nothing_comes(both: Pulls, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that says nothing is told of, and left when the run ends."""
    monkeypatch.setattr(answers, "_SILENCE", 0.05)
    both.own.faults = [Fault(what="silent", path="", times=-1)]
    both.note = lambda text: both.cancelled.set() if "no word" in text else None

    with pytest.raises(DaemonError, match=r"^cancelled$"):
        both.prepared(mirrors=False)
    assert both.said[-1] == f"base: no word of {both.own.address} for 0.05 s"


VARIANTS = """\
version: 1
programs:
  hello-c: {{language: c, source: hello-c, run: scratch, link: static}}
mirrors: {{host: "{mirror}/hub", insecure: true}}
images:
  gcc: {{registry: {{reference: "{reference}", insecure: true}}, apt: null}}
"""


@pytest.fixture
def project(tmp_path: Path, both: Pulls) -> Project:
    """A project whose image is a registry's with a mirror, and the daemon's engine."""
    name = "CONTAINER_HOST" if both.way == "podman" else "DOCKER_HOST"
    environ = {"NOX_VARIANTS_ENGINE": WAYS[both.way], name: both.service.url}
    made = Project(folder=tmp_path / "project", home=both.home, environ=environ)
    made.write("noxfile.py", NOXFILE)
    made.write("hello-c/hello.c", "int main(void) { return 0; }\n")
    text = VARIANTS.format(reference=both.reference, mirror=both.mirror.address)
    made.write("variants.yaml", text)
    return made


def test_run_that_fails(project: Project, both: Pulls, address: str) -> None:
    """A registry that has no time makes an error, never a verdict; all of it is said."""
    both.mirror.faults, both.own.faults = [failing(404)], [failing(500)]
    with patient(both, address, "3600"):
        done = project.nox("-s", "matrix", "--", "--json", "out.json")

    assert done.returncode != 0
    (record,) = project.records().values()
    assert (record["outcome"], record["verdict"], record["cause"]) == ("error", None, None)
    assert f"{both.reference} cannot be pulled: " in record["reason"]
    said = done.stdout + done.stderr
    mirrors = f"(mirrors tried: {both.mirror.address}/hub)"
    assert f"(tried once, asks to wait 3600 s) {mirrors}. It may pass: try again later." in said


def test_interrupted_run(project: Project, both: Pulls) -> None:
    """Ctrl-C ends a run whose registry never answers."""
    both.mirror.faults = [Fault(what="silent", path="", times=-1)]
    process = subprocess.Popen(
        [sys.executable, "-m", "nox", "-s", "matrix"],
        cwd=project.folder,
        env=project.environment(),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: bool(both.mirror.requests), "a question")
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=15)  # a registry is waited for twice as long
        assert not both.mirror.ended.is_set()
    finally:
        process.kill()
        process.wait()
