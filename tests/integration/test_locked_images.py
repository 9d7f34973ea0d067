"""Images that variants.lock pins: of real registries, of packages, by daemons and without one."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import daemons
import registries
from debian import Repository
from dockerbench import WAYS, environment
from nox_variants import config, invocation
from nox_variants.baseline import Pin
from nox_variants.engines.docker import builders, choosing, connection
from nox_variants.engines.docker.engine import DockerEngine
from nox_variants.engines.docker.pulling import Puller
from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images.provider import Images
from nox_variants.model import Digest, Image, ImageSource, SourceKind
from nox_variants.oci.layer import write_tree
from nox_variants.options import Options
from nox_variants.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemons import Service
    from nox_variants.images.locking import Locked
    from nox_variants.results import PreparedImage


def layer(text: bytes) -> bytes:
    """Return a layer of one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    return out.getvalue()


def lock(image: PreparedImage) -> Locked:
    """Return what a lock keeps of an image."""
    pin = Pin(digest=image.digest, reference=image.pinned or image.reference)
    return {(image.name, image.kind): pin}


def opened(home: Path, locked: Locked | None = None, **changes: Any) -> Images:
    options: dict[str, Any] = {
        "policy": "auto",
        "refresh": False,
        "progress": lambda _: None,
        "cancelled": threading.Event(),
        "root": home,
        "host": "linux/amd64",
        "environ": dict(os.environ),
    }
    return Images(Store(home), locked=locked, **options | changes)


def content(images: Images, image: PreparedImage) -> bytes:
    return (images.root(image) / "file").read_bytes()


# --- registries, without a daemon ----------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry; yields ``HOST:PORT``."""
    with registries.registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture
def proxy(registry: str) -> Iterator[registries.FaultProxy]:
    """What counts requests, and makes things go wrong."""
    with registries.FaultProxy(registry) as made:
        yield made


def named(address: str, repository: str, *setup: str) -> Image:
    source = ImageSource(
        kind=SourceKind.REGISTRY,
        reference=f"{address}/{repository}:1",
        insecure=True,
        setup=setup,
    )
    return Image(name="base", sources=(source,))


@pytest.mark.subprocess
def test_tag_that_moved(home: Path, tmp_path: Path, registry: str) -> None:
    """A locked run gets the old content, also on another machine; one without a lock the new."""
    old = registries.push(f"http://{registry}", "moved", "1", [layer(b"old")])
    image = named(registry, "moved")
    locked = lock(opened(home).prepare(image))
    registries.push(f"http://{registry}", "moved", "1", [layer(b"new")])

    assert [*locked.values()] == [
        Pin(digest=locked["base", SourceKind.REGISTRY].digest, reference=reference(old, image))
    ]
    for folder in (home, tmp_path / "other"):
        for refresh in (False, True):
            held = opened(folder, locked, refresh=refresh)
            free = opened(folder, refresh=refresh)
            assert content(held, held.prepare(image)) == b"old"
            new = free.prepare(image)
            assert content(free, new) == (b"old" if folder == home and not refresh else b"new")
            assert held.prepare(image).pinned == reference(old, image)


def reference(pushed: registries.Pushed, image: Image) -> str:
    return f"{image.sources[0].reference}@{pushed.digest}"


@pytest.mark.subprocess
def test_digest_of_an_index(home: Path, registry: str) -> None:
    """An index's digest, which a daemon knows an image by, gives the same image."""
    url = f"http://{registry}"
    pushed = registries.push(url, "many", "", [layer(b"amd64")])
    index = registries.push_index(
        url, "many", "1", [(pushed, {"os": "linux", "architecture": "amd64"})]
    )
    image = named(registry, "many")
    free = opened(home).prepare(image)
    pin = Pin(digest=free.digest, reference=reference(index, image))

    held = opened(home, {("base", SourceKind.REGISTRY): pin}).prepare(image)

    assert free.pinned == reference(pushed, image)
    assert (held.digest, held.pinned) == (free.digest, reference(index, image))


@pytest.mark.subprocess
def test_locked_image_is_there(home: Path, proxy: registries.FaultProxy, registry: str) -> None:
    """What a run without a lock pulled is used without a question, as long as it is whole."""
    registries.push(f"http://{registry}", "kept", "1", [layer(b"kept")])
    image = named(proxy.address, "kept")
    locked = lock(opened(home).prepare(image))
    asked = len(proxy.requests)

    opened(home, locked).prepare(image)
    assert len(proxy.requests) == asked

    opened(home, locked, refresh=True).prepare(image)
    digest = image_digest(locked)
    assert proxy.requests[asked].path == f"/v2/kept/manifests/{digest}"


def image_digest(locked: Locked) -> str:
    (pin,) = locked.values()
    return pin.reference.partition("@")[2]


@pytest.mark.subprocess
def test_registry_that_lies(home: Path, proxy: registries.FaultProxy, registry: str) -> None:
    """What a registry gives for a digest is compared with it; one that has nothing says so."""
    first = registries.push(f"http://{registry}", "lies", "1", [layer(b"1")])
    second = registries.push(f"http://{registry}", "lies", "2", [layer(b"2")])
    image = named(proxy.address, "lies")
    document = json.dumps({"schemaVersion": 2}).encode()
    proxy.faults.append(registries.Fault(what="answer", path="/manifests/", body=document))
    locked = {
        ("base", SourceKind.REGISTRY): Pin(
            digest=Digest(first.digest), reference=reference(first, image)
        )
    }

    with pytest.raises(ImageError, match=f"{first.digest}: its content has the digest"):
        opened(home, locked).prepare(image)

    gone = Pin(
        digest=Digest(second.digest), reference=f"{image.sources[0].reference}@sha256:{'0' * 64}"
    )
    with pytest.raises(ImageError, match="no such image"):
        opened(home, {("base", SourceKind.REGISTRY): gone}).prepare(image)


# --- packages ------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository of the test's own, in place of the host's."""
    made = Repository(tmp_path / "repository")
    lists = tmp_path / "sources.list"
    lists.write_text(made.local(), encoding="utf-8")
    file = tmp_path / "apt.conf"
    file.write_text(
        f'Dir::Etc::sourcelist "{lists}";\nDir::Etc::sourceparts "-";\n', encoding="utf-8"
    )
    monkeypatch.setenv("APT_CONFIG", str(file))
    return made


@pytest.mark.apt
@pytest.mark.sandbox
def test_packages_that_moved_on(home: Path, tmp_path: Path, repository: Repository) -> None:
    """The stand-in of an earlier run is used; where it is not, the packages' digest is named."""
    source = ImageSource(kind=SourceKind.APT, packages=("one",))
    image = Image(name="gcc", sources=(source,))
    package = repository.add("one", {"file": ("1", 0o644)}, version="1")
    first = opened(home).prepare(image)
    package.unlink()
    repository.add("one", {"file": ("2", 0o644)}, version="2")
    second = opened(home, refresh=True).prepare(image)

    assert first.digest != second.digest
    assert opened(home, lock(first)).prepare(image) == first
    assert opened(tmp_path / "other", lock(second)).prepare(image) == second
    with pytest.raises(ImageError) as raised:
        opened(tmp_path / "other", lock(first)).prepare(image)
    assert str(raised.value) == (
        f"image gcc: variants.lock has {first.digest[:19]}..., its apt packages give"
        f" {second.digest[:19]}... now. nox -s matrix -- --update-baseline takes the new one."
    )


@pytest.mark.apt
@pytest.mark.sandbox
def test_store_that_is_behind(home: Path, tmp_path: Path, repository: Repository) -> None:
    """A lock of newer packages than those of an earlier run makes the image of today's lists."""
    source = ImageSource(kind=SourceKind.APT, packages=("one",))
    image = Image(name="gcc", sources=(source,))
    package = repository.add("one", {"file": ("1", 0o644)}, version="1")
    behind = opened(home).prepare(image)
    package.unlink()
    repository.add("one", {"file": ("2", 0o644)}, version="2")
    newer = opened(tmp_path / "other").prepare(image)

    assert opened(home).prepare(image) == behind
    assert opened(home, lock(newer)).prepare(image) == newer


# --- daemons -------------------------------------------------------------------------------------

MARKS = (pytest.mark.docker, pytest.mark.subprocess)

builds = pytest.mark.parametrize("way", [pytest.param(way, marks=MARKS) for way in WAYS])
"""Every way to build."""

pulls = pytest.mark.parametrize(
    "way", [pytest.param(way, marks=MARKS) for way in ("buildkit", "podman")]
)
"""Every daemon."""


class Pulls:
    """A daemon that pulls from a registry of its own.

    Attributes:
        name: The repository, as the daemon names it.
        said: What was said about what takes long.
    """

    def __init__(
        self, way: str, service: Service, home: Path, repository: tuple[str, str, str]
    ) -> None:
        self._address, self._repository, self._url = repository
        self.name = f"{self._address}/{self._repository}"
        self.said: list[str] = []
        self._environ = environment(way, service)
        self._way = way
        self._home = home

    def push(self, *layers: bytes) -> registries.Pushed:
        """Push an image to the tag."""
        made = registries.configuration([*layers])
        config = {**made, "history": [{"created_by": "test"} for _ in layers]}  # for Podman's build
        return registries.push(self._url, self._repository, "1", [*layers], config)

    def engine(self, locked: Locked | None = None, *, refresh: bool = False) -> DockerEngine:
        """Return an engine."""
        daemon = connection.connect(WAYS[self._way], self._environ)
        builder = (
            choosing.choose(daemon, self._environ)
            if self._way == "buildkit"
            else builders.Classic(daemon=daemon)
        )
        store, cancelled = Store(self._home), threading.Event()
        puller = Puller(
            daemon=daemon,
            builder=builder,
            store=store,
            refresh=refresh,
            progress=self.said.append,
            cancelled=cancelled,
        )
        self.images = opened(self._home, locked, pull=puller, refresh=refresh)
        return DockerEngine(
            daemon=daemon,
            builder=builder,
            store=store,
            images=self.images,
            helper=Image(name="python", sources=()),
            roots=(self._home,),
            output=self._home,
            use_cache=True,
            epoch=0,
            host="linux/amd64",
            revision="",
            cancelled=cancelled,
        )

    def prepared(self, *setup: str, **options: Any) -> tuple[PreparedImage, bytes]:
        """Return the image of the tag, and what its file holds."""
        with closing(self.engine(**options)) as engine:
            made = engine.prepare(named(self._address, self._repository, *setup))
            return made, content(self.images, made)


@pytest.fixture
def pulling(
    way: str, request: pytest.FixtureRequest, home: Path, tmp_path: Path
) -> Iterator[Pulls]:
    """A daemon and a registry, which the test reaches at another address."""
    service: Service = request.getfixturevalue(f"{WAYS[way]}_service")
    settings = service.folder / ".config/containers/registries.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text('[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n', encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "registry").symlink_to("data")
    with registries.registry(tmp_path) as ours, daemons.registry(service, tmp_path) as address:
        # A repository of the test's own: the daemon keeps what others pulled.
        repository = f"{way}/{request.node.name.partition('[')[0]}"
        yield Pulls(way, service, home, (address, repository, f"http://{ours}"))


@pulls
def test_daemon_and_a_tag_that_moved(pulling: Pulls) -> None:
    """A daemon pulls by the locked digest, uses what it has of it, and moves no tag."""
    digest = Digest(pulling.push(layer(b"old")).digest)
    pin = Pin(digest=digest, reference=f"{pulling.name}:1@{digest}")
    locked = {("base", SourceKind.REGISTRY): pin}
    pulling.push(layer(b"new"))
    new, now = pulling.prepared()
    asked = pulling.said[:]
    pulling.said.clear()

    held, was = pulling.prepared(locked=locked)
    assert (was, now) == (b"old", b"new")
    assert (held.digest, held.pinned) == (digest, pin.reference)
    assert pulling.prepared(locked=locked) == (held, was)
    assert (asked, pulling.said) == (
        [f"base: pulling {pulling.name}:1"],
        [f"base: pulling {pulling.name}@{digest}"],
    )
    assert pulling.prepared(locked=locked, refresh=True) == (held, was)
    assert pulling.prepared() == (new, now)
    assert new.pinned == f"{pulling.name}:1@{new.digest}"
    assert pulling.prepared(locked=lock(new))[1] == b"new"


@builds
def test_daemon_and_a_setup(pulling: Pulls, roots: dict[str, Path]) -> None:
    """Setup is done on what is locked, not on what has the tag."""
    out = io.BytesIO()
    write_tree(roots["gcc"], out, mtime=0)
    old = pulling.push(out.getvalue(), layer(b"old"))
    pulling.push(out.getvalue(), layer(b"new"))
    setup = "echo more >> /file"
    pin = Pin(digest=Digest(old.digest), reference=f"{pulling.name}:1@{old.digest}")

    held, was = pulling.prepared(setup, locked={("base", SourceKind.REGISTRY): pin})

    assert (held.pinned, was) == (pin.reference, b"oldmore\n")
    assert pulling.prepared(setup)[1] == b"newmore\n"


@pulls
def test_daemon_and_a_digest_that_is_gone(pulling: Pulls) -> None:
    """A digest that the registry does not have is an error; the tag's image is not taken."""
    new = pulling.push(layer(b"new"))
    gone = Pin(digest=Digest(new.digest), reference=f"{pulling.name}:1@sha256:{'0' * 64}")

    with pytest.raises(ImageError, match="cannot be pulled"):
        pulling.prepared(locked={("base", SourceKind.REGISTRY): gone})
    with pytest.raises(ImageError, match=r"not in variants\.lock"):
        pulling.prepared(locked={})


# --- engines as a run opens them -----------------------------------------------------------------

FILE = """\
version: 1
programs:
  hello: {language: c, source: ., run: [alpine], link: [static]}
"""


@pytest.mark.docker
@pytest.mark.sandbox
@pytest.mark.parametrize("name", ["embedded", "docker"])
def test_engines_keep_to_the_lock(
    name: str, tmp_path: Path, home: Path, docker_service: Service
) -> None:
    """Each engine is held to the lock; what smoke runs bring is in none, and had all the same."""
    (tmp_path / "variants.yaml").write_text(FILE, encoding="utf-8")
    settings = config.load(tmp_path / "variants.yaml")
    known = {image.name: image for image in settings.images}
    environ = {**environment("buildkit", docker_service), "NOX_VARIANTS_HOME": str(home)}
    options = Options(engine=name, images="registry")
    engine, _ = invocation.choose_engine(
        settings, options, environ=environ, progress=lambda _: None, locked={}
    )

    with closing(engine):
        with pytest.raises(ImageError, match=r"alpine \(registry\): not in variants\.lock"):
            engine.prepare(known["alpine"])
        if isinstance(engine, DockerEngine):  # no registry is reached from its network
            with pytest.raises(ImageUnavailable, match="cannot be reached"):
                engine._tools.prepare(known["python:slim"])
