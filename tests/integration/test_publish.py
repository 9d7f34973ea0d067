"""Variants of every engine in a real registry, pulled back and run."""

from __future__ import annotations

import datetime as dt
import gzip
import os
import threading
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import requests

import registries
from dockerbench import WAYS, environment, opened
from handmade import GREETING, SMOKE, Bench, HandMade, open_engine
from nox_variants import publishing, runner
from nox_variants.commands.publish import Publication, Registry, Wanted
from nox_variants.engines.embedded import EmbeddedEngine
from nox_variants.engines.outgoing import RunImages
from nox_variants.images.packing import GZIP
from nox_variants.images.provider import Images
from nox_variants.model import Image, ImageSource, LinkMode, Smoke, SourceKind
from nox_variants.oci.layer import digest_tree, write_tree
from nox_variants.results import Outcome
from nox_variants.sandbox.program import Program, run_program
from nox_variants.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from daemons import Service
    from handmade import Docker
    from nox_variants.engines.protocol import Engine
    from nox_variants.oci.layout import LayerBlob
    from nox_variants.plan import Plan
    from nox_variants.record import Record
    from nox_variants.results import PreparedImage

pytestmark = pytest.mark.sandbox

REAL = {
    "embedded": (),
    "buildkit": (pytest.mark.docker,),
    "podman": (pytest.mark.docker,),
}
"""Every engine, and what it needs."""


class Silent:
    """Is told how a run goes."""

    def started(self, task: runner.Task) -> None:
        """Take note of a beginning."""

    def finished(self, task: runner.Task, result: object) -> None:
        """Take note of a result."""

    def recorded(self, record: Record) -> None:
        """Take note of a record."""


def records(engine: Engine, *plans: Plan) -> tuple[Record, ...]:
    """Run plans as `nox -s matrix` does."""
    context = runner.RunContext(
        run_id="20261129T000000000000Z-00000000",
        platform="linux/amd64",
        machine="x86_64",
        engine=engine.probe(),
        git_commit="1" * 40,
        tools={},
        clock=lambda: dt.datetime.now(dt.UTC),
    )
    return runner.run(plans, engine, context, Silent(), jobs=1)


@dataclass(frozen=True)
class Desk:
    """A project whose variants are published.

    Attributes:
        bench: Its engine.
        home: Its store.
        environ: The environment, with the daemon.
        address: The registry.
    """

    bench: Bench
    home: Path
    environ: Mapping[str, str]
    address: str

    def publish(
        self, plans: tuple[Plan, ...], found: tuple[Record, ...], *, stand_ins: bool = True
    ) -> tuple[int, list[Record]]:
        """Publish plans with their records; returns the exit code and what was kept."""
        kept: list[Record] = []
        cancelled, folder = threading.Event(), self.bench.source.parent
        with closing(Store(self.home)) as store:
            images = RunImages(
                store=store,
                folder=folder / ".variants" / "images",
                environ=self.environ,
                cancelled=cancelled,
            )
            registry = Registry(
                self.address,
                insecure=True,
                folder=folder,
                store=store,
                environ=self.environ,
                cancelled=cancelled,
            )
            with closing(images), closing(registry):
                publication = Publication(
                    images=images, keep=kept.append, stand_ins=stand_ins, push=registry.push
                )
                wanted = [
                    Wanted(plan.variant, record, self.target(plan))
                    for plan, record in zip(plans, found, strict=True)
                ]
                return publication.run(wanted, "RUN"), kept

    def target(self, plan: Plan) -> Any:
        """Return the name of a plan's variant in the registry."""
        return publishing.target(f"{self.address}/me/demo", plan.variant)

    def manifest(self, plan: Plan) -> Any:
        """Return what the registry has of a plan."""
        target = self.target(plan)
        url = f"http://{self.address}/v2/{target.repository}/manifests/{target.tag}"
        return self.get(url).json()

    def get(self, url: str) -> requests.Response:
        """Ask the registry."""
        with requests.Session() as session:
            session.trust_env = False
            return session.get(url, headers={"Accept": registries.MANIFEST}, timeout=60)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Give an empty registry, whose data is the test's own."""
    with registries.registry(tmp_path / "registry") as where:
        yield where


def service(request: pytest.FixtureRequest, way: str) -> Service | None:
    """Return the daemon of a way to build."""
    if way not in WAYS:
        return None
    found: Service = request.getfixturevalue(f"{WAYS[way]}_service")
    return found


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, marks in REAL.items()])
def desk(
    request: pytest.FixtureRequest,
    roots: dict[str, Path],
    source: Path,
    home: Path,
    address: str,
) -> Iterator[Desk]:
    """Give a project of each engine."""
    environ = dict(os.environ)
    if request.param in WAYS:
        environ = environment(request.param, service(request, request.param))
    environ["DOCKER_CONFIG"] = str(source)  # which has no login
    for bench in opened(request, home=home, roots=roots, source=source):
        yield Desk(bench, home, environ, address)


@pytest.fixture
def embedded(roots: dict[str, Path], source: Path, home: Path, address: str) -> Desk:
    """Give a project of the embedded engine."""
    return Desk(Bench(open_engine(home, roots, source.parent), source), home, {}, address)


def run_pulled(
    reference: str, argv: tuple[str, ...], home: Path, skeleton: Path
) -> tuple[int | None, str]:
    """Pull an image as a run does, and run its program; returns exit code and output."""
    with closing(Store(home)) as store:
        images = Images(
            store,
            policy="auto",
            refresh=False,
            progress=lambda _: None,
            cancelled=threading.Event(),
            root=home,
            host="linux/amd64",
            environ={},
        )
        place = ImageSource(kind=SourceKind.REGISTRY, reference=reference, insecure=True)
        root = images.root(images.prepare(Image(name="pulled", sources=(place,))))
        program = Program(lower=(root, skeleton), argv=argv, env=(), workdir="/", user="")
        seen = run_program(program, SMOKE, threading.Event())
        return seen.exit_code, seen.stdout


def test_pulled_back(
    desk: Desk, skeleton: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was published is what was tried: it is pulled by its digest and runs."""
    plans = tuple(desk.bench.plan(run=run) for run in ("scratch", "alpine", "gcc"))
    made = records(desk.bench.engine, *plans)
    assert [each.outcome for each in made] == [Outcome.PASSED] * 3

    status, kept = desk.publish(plans, made)

    assert status == 0, capsys.readouterr().err
    lines = capsys.readouterr().out.splitlines()
    for plan, record, line in zip(plans, kept, lines, strict=True):
        assert record.image is not None
        (reference,) = record.image.published
        assert line == f"{plan.variant.id}: {reference}"
        target = desk.target(plan)
        assert reference.startswith(f"{desk.address}/me/demo/hello-c:{target.tag}@sha256:")
        assert run_pulled(reference, plan.run.cmd, tmp_path / "other", skeleton) == (0, GREETING)
        manifest = desk.manifest(plan)
        assert manifest["config"]["digest"] == record.image.config_digest
        assert {each["mediaType"] for each in manifest["layers"]} == {GZIP}


@pytest.mark.docker
def test_pulled_back_by_docker(
    desk: Desk, docker: Docker, capsys: pytest.CaptureFixture[str]
) -> None:
    """Docker pulls what was published, and runs it; the image's id is the recorded one."""
    plan = desk.bench.plan(
        run="alpine", run_env=(("NAME", "value"),), smoke=Smoke(stdout=f"{GREETING}value\n")
    )
    made = records(desk.bench.engine, plan)

    status, kept = desk.publish((plan,), made)

    assert (status, len(kept)) == (0, 1), capsys.readouterr().err
    assert kept[0].image is not None
    (reference,) = kept[0].image.published
    pulled = docker("pull", reference)
    assert pulled.returncode == 0, pulled.stderr
    inspected = docker("image", "inspect", "--format", "{{.Id}}", reference).stdout
    assert inspected.strip() == kept[0].image.config_digest
    assert docker.run(reference) == (0, f"{GREETING}value\n")


def test_again(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """The same again gives the same digest, and sends nothing."""
    plan = desk.bench.plan(run="alpine")
    made = records(desk.bench.engine, plan)
    status, kept = desk.publish((plan,), made)
    assert status == 0, capsys.readouterr().err

    with registries.FaultProxy(desk.address) as proxy:
        beside = replace(desk, address=proxy.address)
        assert beside.publish((plan,), made)[0] == 0
        methods = [each.method for each in proxy.requests]

    assert methods == ["HEAD"]
    assert kept[0].image is not None
    digest = kept[0].image.published[0].rpartition("@")[2]
    assert digest in capsys.readouterr().out.splitlines()[-1]


def test_annotations(desk: Desk) -> None:
    """A manifest says the same on every engine: what it is, of which commit, and what stands in."""
    plan = desk.bench.plan(run="alpine")

    desk.publish((plan,), records(desk.bench.engine, plan))

    said = desk.manifest(plan)["annotations"]
    config = desk.manifest(plan)["config"]["digest"]
    place = f"http://{desk.address}/v2/{desk.target(plan).repository}/blobs/{config}"
    assert said.pop("org.opencontainers.image.created") == desk.get(place).json()["created"]
    assert said == {
        "io.github.nox-variants.stand-in": "alpine",
        "io.github.nox-variants.variant": "hello-c(alpine,static)",
        "org.opencontainers.image.revision": "1" * 40,
        "org.opencontainers.image.title": "hello-c",
    }


def test_run_image(desk: Desk, roots: dict[str, Path]) -> None:
    """Of the run image, every engine publishes the same layer."""
    plan = desk.bench.plan(run="alpine")

    desk.publish((plan,), records(desk.bench.engine, plan))

    digest = desk.manifest(plan)["layers"][0]["digest"]
    repository = desk.target(plan).repository
    layer = desk.get(f"http://{desk.address}/v2/{repository}/blobs/{digest}").content
    assert registries.sha256(layer) == digest
    expected = digest_tree(roots["alpine"], mtime=0).diff_id
    assert registries.sha256(gzip.decompress(layer)) == expected


def test_only_what_passed(embedded: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """What fails, fails as expected or was not run is not sent, and it is said why."""
    bench = embedded.bench
    good, wrong = bench.plan(), bench.plan(run="alpine", smoke=Smoke(stdout="Bye!\n"))
    missing = bench.plan(link=LinkMode.DYNAMIC)
    made = records(bench.engine, good, wrong, missing)

    with registries.FaultProxy(embedded.address) as proxy:
        desk = replace(embedded, address=proxy.address)
        status, kept = desk.publish((good, wrong, missing), made)
        asked = proxy.paths("manifests/")

    assert (status, [each.variant for each in kept]) == (0, ["hello-c(scratch,static)"])
    assert {path.partition("manifests/")[2].partition(":")[0] for path in asked} == {
        "gcc-static.scratch",
        "sha256",
    }
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("hello-c(alpine,static): left out: failed: ")
    assert said[1].startswith("hello-c(scratch,dynamic): left out: failed: ")
    assert said[2] == "run RUN: 1 published, 2 left out, 0 not published"


def test_name_in_a_record(embedded: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """Where an image lies is known by its variant; no record leads to another place."""
    plan = embedded.bench.plan()
    (made,) = records(embedded.bench.engine, plan)

    status, _ = embedded.publish((plan,), (replace(made, program="../../elsewhere"),))

    assert status == 0, capsys.readouterr().err


def test_gone(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """An image that another run has replaced or removed is not published."""
    plan = desk.bench.plan()
    (made,) = records(desk.bench.engine, plan)
    assert made.image is not None
    other = replace(made, image=replace(made.image, config_digest=digest_of("never made")))

    status, kept = desk.publish((plan,), (other,))

    assert (status, kept) == (1, [])
    said = capsys.readouterr().err
    assert "hello-c(scratch,static): not published: " in said
    assert "Run the matrix again: nox -s matrix" in said


def digest_of(text: str) -> Any:
    """Return the digest of a text."""
    return registries.sha256(text.encode())


class Mixed(HandMade):
    """Hand-made images, and such that come from a registry."""

    def __init__(self, store: Store, roots: Mapping[str, Path], real: Images) -> None:
        super().__init__(store, roots)
        self._real = real

    def prepare(self, image: Image) -> PreparedImage:
        """Return an image of where it comes from."""
        if image.sources and image.sources[0].kind is SourceKind.REGISTRY:
            return self._real.prepare(image)
        return super().prepare(image)

    def layers(self, image: PreparedImage) -> list[LayerBlob]:
        """Return its layers."""
        return self._real.layers(image) if image.blobs else super().layers(image)


def test_base_of_a_registry(
    roots: dict[str, Path], source: Path, home: Path, address: str, tmp_path: Path
) -> None:
    """Layers of a registry's base travel as they came; the manifest names the base."""
    tar = tmp_path / "base.tar"
    with tar.open("wb") as out:
        write_tree(roots["alpine"], out, mtime=0)
    layer = tar.read_bytes()
    packed = gzip.compress(layer, 9)
    config = registries.configuration([layer])
    pushed = registries.push(f"http://{address}", "team/base", "1", [packed], config)
    store, cancelled = Store(home), threading.Event()
    real = Images(
        store,
        policy="auto",
        refresh=False,
        progress=lambda _: None,
        cancelled=cancelled,
        root=home,
        host="linux/amd64",
        environ={},
    )
    engine = EmbeddedEngine(
        store=store,
        images=Mixed(store, roots, real),
        roots=(source.parent,),
        output=source.parent / ".variants",
        use_cache=True,
        epoch=0,
        host="linux/amd64",
        cancelled=cancelled,
    )
    bench = Bench(engine, source)
    place = ImageSource(kind=SourceKind.REGISTRY, reference=f"{address}/team/base:1", insecure=True)
    plan = bench.plan(run="alpine", run_image=Image(name="alpine", sources=(place,)))
    desk = Desk(bench, home, {}, address)

    status, kept = desk.publish((plan,), records(bench.engine, plan), stand_ins=False)

    assert (status, len(kept)) == (0, 1)
    manifest = desk.manifest(plan)
    assert manifest["layers"][0] == {
        "mediaType": GZIP,
        "digest": registries.sha256(packed),
        "size": len(packed),
    }
    base = "org.opencontainers.image.base"
    assert manifest["annotations"][f"{base}.name"] == f"{address}/team/base:1"
    assert manifest["annotations"][f"{base}.digest"] == pushed.digest
    assert "io.github.nox-variants.stand-in" not in manifest["annotations"]
