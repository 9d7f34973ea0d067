"""Images from mirrors of a real registry, without a daemon; each is asked for once in a run."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
import requests

import registries
from nox_variants.baseline import Pin
from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images import transport
from nox_variants.images.provider import Images
from nox_variants.model import Image, ImageSource, Mirror, SourceKind
from nox_variants.oci.layer import write_tree
from nox_variants.store import Store
from projects import NOXFILE, Project
from registries import PASSWORD, USER, Fault, FaultProxy
from sandboxed import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nox_variants.results import PreparedImage
    from registries import Pushed

pytestmark = pytest.mark.subprocess


def layer(text: bytes) -> bytes:
    """Return a layer of one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    return out.getvalue()


LAYERS = [layer(b"1"), layer(b"2")]


@dataclass
class Registries:
    """A registry and its mirror, each behind what counts and what goes wrong.

    The mirror has the image below ``hub/``; both are one program with one storage.

    Attributes:
        own: The image's own registry.
        mirror: Its mirror.
        pushed: The image.
        said: What was said.
    """

    own: FaultProxy
    mirror: FaultProxy
    pushed: Pushed
    said: list[str] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def reference(self) -> str:
        """The image by its tag."""
        return f"{self.own.address}/team/base:1"

    @property
    def mirrored(self) -> str:
        """The same at the mirror."""
        return f"{self.mirror.address}/hub/team/base:1"

    def rule(self, registry: str = "*") -> Any:
        """Return the mirrors of a file."""
        mirror = Mirror(host=self.mirror.address, prefix="hub", insecure=True)
        return ((registry, (mirror,)),)

    def images(self, home: Path, **changes: Any) -> Images:
        """Return images as a run has them."""
        options: dict[str, Any] = {
            "policy": "auto",
            "refresh": False,
            "progress": self.said.append,
            "cancelled": self.cancelled,
            "root": home,
            "host": "linux/amd64",
            "environ": dict(os.environ),
            "mirrors": self.rule(),
        }
        return Images(Store(home), **options | changes)

    def image(self, **changes: Any) -> Image:
        """Return the image of the file."""
        values: dict[str, Any] = {"reference": self.reference, "insecure": True, **changes}
        return Image(name="base", sources=(ImageSource(kind=SourceKind.REGISTRY, **values),))

    def prepared(self, home: Path, **changes: Any) -> PreparedImage:
        """Prepare the image of the file in a run of its own."""
        return self.images(home, **changes).prepare(self.image())


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what is broken on purpose."""
    monkeypatch.setattr(transport, "_FIRST_PAUSE", 0.01)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry; yields ``HOST:PORT``."""
    with registries.registry(tmp_path_factory.mktemp("registry")) as where:
        yield where


@pytest.fixture
def both(address: str) -> Iterator[Registries]:
    """An image in a registry, and in its mirror."""
    pushed = registries.push(f"http://{address}", "team/base", "1", LAYERS)
    registries.push(f"http://{address}", "hub/team/base", "1", LAYERS)
    with FaultProxy(address) as own, FaultProxy(address) as mirror:
        yield Registries(own, mirror, pushed)


def failing(status: int, path: str = "", times: int = -1) -> Fault:
    """Return what a registry answers all the time, without a wait."""
    headers = {"Retry-After": "0"}
    return Fault(what="answer", path=path, status=status, headers=headers, times=times)


NOTHING = failing(404, "/manifests/")


# Who gives an image


def test_mirror_gives_it(home: Path, both: Registries) -> None:
    """All of an image comes from the mirror; it has its own name all the same."""
    made = both.prepared(home)

    assert both.own.requests == []
    assert [each.partition("/v2/")[2].split("/")[:3] for each in both.mirror.paths()] == [
        ["hub", "team", "base"]
    ] * 4
    assert (made.reference, made.digest) == (both.reference, both.pushed.digest)
    assert made.pinned == f"{both.reference}@{both.pushed.digest}"
    assert made.mirrored == ""
    assert [each for each in both.said if "unpacking" not in each] == []


def test_same_without_the_mirror(home: Path, tmp_path: Path, both: Registries) -> None:
    """Nothing tells from an image who gave it; what is there is used with other mirrors, too."""
    made = both.prepared(home)
    asked = len(both.mirror.requests)

    assert both.prepared(home, mirrors=()) == made == both.prepared(home)
    assert (both.own.requests, len(both.mirror.requests)) == ([], asked)
    assert both.prepared(tmp_path / "other", mirrors=()) == made


def test_image_of_the_hub(home: Path, both: Registries, address: str) -> None:
    """A short name is asked for below library; Docker Hub itself is not asked."""
    registries.push(f"http://{address}", "hub/library/ubuntu", "24.04", LAYERS)
    image = both.image(reference="ubuntu:24.04", insecure=False)

    made = both.images(home, mirrors=both.rule("docker.io")).prepare(image)

    assert (made.reference, made.pinned) == ("ubuntu:24.04", f"ubuntu:24.04@{made.digest}")
    assert both.mirror.paths()[0] == "/v2/hub/library/ubuntu/manifests/24.04"


def test_mirror_of_another_registry(home: Path, both: Registries) -> None:
    """A mirror is not asked for what it is no mirror of."""
    both.prepared(home, mirrors=both.rule("docker.io"))

    assert both.mirror.requests == []


def test_mirror_does_not_have_it(home: Path, both: Registries) -> None:
    """What a mirror lacks is said, and had from the registry."""
    both.mirror.faults = [NOTHING]

    assert both.prepared(home).digest == both.pushed.digest
    assert (
        both.said[0] == f"{both.reference}: mirror {both.mirrored}: there is no such image or tag"
    )
    assert len(both.own.paths()) == 4


def test_several_mirrors(home: Path, both: Registries, address: str) -> None:
    """Mirrors are asked in their order, the first that has an image gives it."""
    with FaultProxy(address, NOTHING) as first:
        ((_, (second,)),) = both.rule()
        mirrors = (("*", (Mirror(host=first.address, insecure=True), second)),)
        both.prepared(home, mirrors=mirrors)

        assert first.paths() == ["/v2/team/base/manifests/1"]
    assert (len(both.mirror.paths()), both.own.requests) == (4, [])


def test_mirror_out_of_reach(home: Path, both: Registries) -> None:
    """A mirror that cannot be reached is noticed once, and not tried again in the run."""
    port = registries.free_port()
    hosts = (f"127.0.0.1:{port}", "mirror.invalid")
    mirrors = (("*", tuple(Mirror(host=host, insecure=True) for host in hosts)),)
    images = both.images(home, mirrors=mirrors)
    with registries.listener(port) as seen:
        images_of_port_seen = seen
    images.prepare(both.image())
    with registries.listener(port) as seen:
        images.prepare(both.image(reference=f"{both.own.address}/hub/team/base:1"))
        assert seen == images_of_port_seen == []

    assert [each for each in both.said if "unpacking" not in each] == [
        f"registry {host} cannot be reached from here" for host in hosts
    ]


def test_mirror_that_fails(home: Path, both: Registries) -> None:
    """A mirror that fails is tried as often as a registry, and then not again in the run."""
    both.mirror.faults = [Fault(what="answer", path="", status=503, times=-1)]
    images = both.images(home)
    images.prepare(both.image())
    images.prepare(both.image(reference=f"{both.own.address}/hub/team/base:1"))

    assert len(both.mirror.requests) == 4
    notes = [each for each in both.said if "unpacking" not in each]
    waits = [f"{both.mirrored}: {both.mirror.url} answered 503, waiting 0.0" for _ in range(3)]
    assert [each.startswith(wait) for each, wait in zip(notes, waits, strict=False)] == [True] * 3
    assert notes[3:] == [
        (
            f"{both.reference}: mirror {both.mirrored}: registry {both.mirror.address} failed with"
            " 503 (tried 4 times); it is not asked again in this run"
        )
    ]


def test_all_fail(home: Path, both: Registries) -> None:
    """When nobody has it, the error is the registry's, and names the mirrors."""
    both.mirror.faults, both.own.faults = [NOTHING], [failing(429)]
    with pytest.raises(ImageError) as caught:
        both.prepared(home)

    assert str(caught.value) == (
        f"{both.reference}: registry {both.own.address}: rate limit (tried 4 times)"
        f" (mirrors tried: {both.mirror.address}/hub)."
        f" Log in (docker login {both.own.address}), or wait: that is a limit."
    )


def test_nobody_can_be_reached(home: Path, both: Registries) -> None:
    """A registry out of reach is passed over as without mirrors: another source may do."""
    both.mirror.faults = [NOTHING]
    image = both.image(reference="registry.invalid/team/base:1")
    with pytest.raises(ImageUnavailable) as caught:
        both.images(home).prepare(image)

    assert str(caught.value) == (
        "image base cannot be had here: registry: registry registry.invalid cannot be reached from"
        f" here (mirrors tried: {both.mirror.address}/hub)"
    )


def test_registry_out_of_reach(home: Path, both: Registries) -> None:
    """A mirror that has an image is enough: its registry need not be there."""
    image = both.image(reference="registry.invalid/team/base:1")

    made = both.images(home).prepare(image)

    assert made.pinned == f"registry.invalid/team/base:1@{both.pushed.digest}"


@pytest.mark.parametrize(
    "fault",
    [
        failing(404, "/blobs/"),
        Fault(what="answer", path="/blobs/", status=503, times=-1),
        Fault(what="truncate", path="/blobs/", after=0, times=-1),
        Fault(what="flip", path="/blobs/", times=-1),
    ],
    ids=["gone", "busy", "broken", "wrong"],
)
def test_mirror_that_fails_in_the_middle(home: Path, both: Registries, fault: Fault) -> None:
    """Layers that a mirror does not give whole come from the registry, with their digests."""
    configuration = replace(fault, what="nothing", times=1)
    both.mirror.faults = [configuration, fault]

    made = both.prepared(home)

    assert made.digest == both.pushed.digest
    assert [each.rpartition("/")[2] for each in both.own.paths()].count("1") == 0
    assert len(both.own.paths("/blobs/")) == 2
    said = [each for each in both.said if f"mirror {both.mirrored}: " in each]
    assert len(said) == 1


def test_mirror_that_lies(home: Path, both: Registries) -> None:
    """What a mirror gives for a digest is compared with it; something else is not taken."""
    document = json.dumps({"schemaVersion": 2}).encode()
    both.mirror.faults = [Fault(what="answer", path="/manifests/", body=document, times=-1)]
    pinned = f"{both.reference}@{both.pushed.digest}"

    made = both.images(home).prepare(both.image(reference=pinned))

    assert (made.digest, made.pinned) == (both.pushed.digest, pinned)
    assert "its content has the digest" in both.said[0]


def test_locked(home: Path, tmp_path: Path, both: Registries, address: str) -> None:
    """What the lock has is asked for by its digest, at mirrors, too."""
    made = both.prepared(home)
    locked = {("base", SourceKind.REGISTRY): Pin(digest=made.digest, reference=made.pinned)}
    registries.push(f"http://{address}", "hub/team/base", "1", [layer(b"new")])
    both.mirror.requests.clear()

    held = both.prepared(tmp_path / "other", locked=locked)

    assert held == made
    assert both.mirror.paths()[0] == f"/v2/hub/team/base/manifests/{both.pushed.digest}"
    assert both.own.requests == []
    assert both.prepared(tmp_path / "new").digest != made.digest


# Who asks


def test_credentials_of_the_mirror(home: Path, tmp_path: Path, both: Registries) -> None:
    """A mirror is told its own login of docker's, and nobody else; no note has it."""
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    with registries.registry(tmp_path / "guarded", htpasswd=registries.HTPASSWD) as where:
        session = requests.Session()
        session.auth = (USER, PASSWORD)
        registries.push(f"http://{where}", "team/base", "1", LAYERS, session=session)
        with FaultProxy(where) as mirror:
            config = {"auths": {mirror.address: {"auth": login}}}
            (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
            environ = {"DOCKER_CONFIG": str(tmp_path)}
            mirrors = (("*", (Mirror(host=mirror.address, insecure=True),)),)
            both.prepared(home, mirrors=mirrors, environ=environ)
            sent = [each.headers.get("authorization") for each in mirror.requests]

            mirror.faults = [failing(403)]
            both.prepared(tmp_path / "other", mirrors=mirrors, environ=environ)
            both.prepared(tmp_path / "third", mirrors=mirrors, environ={})

    assert sent == [None, *[f"Basic {login}"] * 4]
    assert len(both.own.requests) == 8
    assert not any("authorization" in each.headers for each in both.own.requests)
    assert any("does not allow it" in each for each in both.said)
    assert not any(secret in each for secret in (PASSWORD, login) for each in both.said)


# Once in a run


def test_two_images_of_one_reference(home: Path, both: Registries) -> None:
    """Images that share a reference ask for it once in a run, also one without the cache."""
    plain = both.image()
    others = [plain, replace(plain, env=(("A", "1"),)), replace(plain, name="other")]
    images = both.images(home, refresh=True)
    for image in others:
        images.prepare(image)
    with pytest.raises(ImageError, match="has no /bin/sh"):
        images.prepare(both.image(setup=("true",)))

    assert len(both.mirror.paths("/manifests/")) == 1
    assert len(both.mirror.paths("/blobs/")) == 3

    again = both.images(home, refresh=True)
    for image in others:
        again.prepare(image)
    assert len(both.mirror.paths("/manifests/")) == 2
    assert both.own.requests == []


def test_many_at_once(home: Path, both: Registries) -> None:
    """Threads that prepare images of one reference ask for it once."""
    images = both.images(home, refresh=True)
    others = [replace(both.image(), env=(("A", str(number)),)) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(images.prepare, others))

    assert {each.digest for each in made} == {both.pushed.digest}
    assert len(both.mirror.paths("/manifests/")) == 1
    assert len(both.mirror.paths("/blobs/")) == 3


def test_failure_is_not_kept(home: Path, both: Registries) -> None:
    """What failed once in a run may be there the next time it is asked for."""
    both.mirror.faults, both.own.faults = [NOTHING], [failing(404, "/manifests/", times=1)]
    images = both.images(home)
    with pytest.raises(ImageError, match="no such image"):
        images.prepare(both.image())

    assert images.prepare(both.image()).digest == both.pushed.digest


@pytest.mark.sandbox
def test_setup_on_a_shared_base(
    home: Path, both: Registries, address: str, roots: dict[str, Path]
) -> None:
    """A base and an image with setup on it take one manifest, and each layer once."""
    out = io.BytesIO()
    write_tree(roots["gcc"], out, mtime=0)
    registries.push(f"http://{address}", "hub/team/base", "1", [out.getvalue(), LAYERS[0]])
    images = both.images(home, refresh=True)

    images.prepare(both.image())
    extended = images.prepare(both.image(setup=("echo more >> /file",)))

    assert (images.root(extended) / "file").read_text(encoding="utf-8") == "1more\n"
    assert len(both.mirror.paths("/manifests/")) == 1
    assert len(both.mirror.paths("/blobs/")) == 3


# A run


VARIANTS = """\
version: 1
programs:
  hello-c:
    language: c
    source: hello-c
    run: [base, scratch]
    link: static
    expect:
      - {{run: "*", link: static, verdict: fails, cause: build-failed}}
mirrors:
  "{host}": {{host: {mirror}/hub, insecure: true}}
images:
  gcc:
    registry: {{reference: "{host}/team/base:1", insecure: true}}
    apt: null
  base:
    registry: {{reference: "{host}/team/base:1", insecure: true, setup: ["echo more >> /file"]}}
"""


@pytest.fixture
def project(tmp_path: Path, both: Registries) -> Project:
    """A project whose images are a registry's with a mirror."""
    made = Project(folder=tmp_path / "project", home=tmp_path / "home")
    made.write("noxfile.py", NOXFILE)
    made.write("hello-c/hello.c", "int main(void) { return 0; }\n")
    text = VARIANTS.format(host=both.own.address, mirror=both.mirror.address)
    made.write("variants.yaml", text)
    return made


def matrix(project: Project, *options: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """Run the matrix; returns what was printed and the records."""
    done = project.nox("-s", "matrix", "--", "--json", "out.json", "--images", "registry", *options)
    return done.stdout + done.stderr, project.records()


@pytest.mark.sandbox
def test_run_that_fails(project: Project, both: Registries) -> None:
    """A registry that has no time makes errors, never a verdict; all of it is said."""
    busy = failing(503)
    busy.body = b'{"errors": [{"message": "busy"}]}'
    both.mirror.faults, both.own.faults = [NOTHING], [busy]

    said, records = matrix(project)

    assert {each["outcome"] for each in records.values()} == {"error"}
    assert {each["verdict"] for each in records.values()} == {None}
    text = f"registry {both.own.address} failed with 503 (tried 4 times): busy"
    assert all(text in each["reason"] for each in records.values())
    assert f"(mirrors tried: {both.mirror.address}/hub)" in said
    assert "It may pass: try again later." in said


@pytest.mark.sandbox
def test_run_with_a_mirror(
    project: Project, both: Registries, address: str, roots: dict[str, Path]
) -> None:
    """A run takes its images from the mirror, each manifest once, also without the cache."""
    out = io.BytesIO()
    write_tree(roots["gcc"], out, mtime=0)
    pushed = registries.push(f"http://{address}", "hub/team/base", "1", [out.getvalue()])
    shutil.copy(roots["gcc"] / "usr/lib/hello-static", project.folder / "hello-c/made")

    said, records = matrix(project, "--no-cache")

    images = {each["name"]: each for record in records.values() for each in record["images"]}
    assert images["gcc"]["reference"] == both.reference, said
    assert images["gcc"]["pinned"] == f"{both.reference}@{pushed.digest}"
    assert images["base"]["pinned"] == images["gcc"]["pinned"]
    assert len(both.mirror.paths("/manifests/")) == 1
    assert both.own.requests == []


@pytest.mark.sandbox
@pytest.mark.parametrize("what", ["silent", "stall"])
def test_interrupted_run(project: Project, both: Registries, what: str) -> None:
    """Ctrl-C ends a run whose registry never answers, or stops in the middle of it."""
    both.mirror.faults = [Fault(what=what, path="", after=3, times=-1)]
    process = subprocess.Popen(
        [sys.executable, "-m", "nox", "-s", "matrix", "--", "--images", "registry"],
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
        assert both.own.requests == []
    finally:
        process.kill()
        process.wait()
