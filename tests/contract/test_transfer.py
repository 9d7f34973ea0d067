"""Compressed sizes: the same figure on every engine, and the registry's own for its layers."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import daemons
import dockerbench
import registries
from handmade import SMOKE, Bench
from nox_variants.engines.docker import connection
from nox_variants.engines.embedded import EmbeddedEngine
from nox_variants.images.provider import Images
from nox_variants.model import Image, ImageSource, SourceKind
from nox_variants.oci.layer import write_tree
from nox_variants.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemons import Service
    from nox_variants.plan import Plan
    from nox_variants.results import VariantImage

pytestmark = pytest.mark.sandbox

SMALL_CHANGE = 2048
"""Bytes by which layers that a daemon has made may differ: headers of folders, and their times."""

PACKAGES = "Package: busybox\nVersion: 1\n"


def zipped(data: bytes, level: int = 6) -> int:
    """Return the size of bytes under gzip."""
    return len(gzip.compress(data, level, mtime=0))


def tar(root: Path) -> bytes:
    """Return a folder as a layer."""
    out = io.BytesIO()
    write_tree(root, out, mtime=0)
    return out.getvalue()


def program(roots: dict[str, Path], folder: Path, link: str = "static") -> bytes:
    """Return the layer that a plan's program is in, made here."""
    folder.mkdir()
    shutil.copy(roots["gcc"] / f"usr/lib/hello-{link}", folder / "hello-c")
    return tar(folder)


def made(bench: Bench, plan: Plan) -> VariantImage:
    """Make an image whose compressed size is asked for."""
    return bench.image(replace(plan, transfer=True))


@pytest.mark.parametrize("run", ["alpine", "scratch"])
def test_plain_variant(real: Bench, roots: dict[str, Path], tmp_path: Path, run: str) -> None:
    """It is what gzip makes of the base's layer, and of one with the program in it."""
    base = zipped(tar(roots[run])) if run in roots else 0

    image = made(real, real.plan(run=run))

    assert image.sizes.transfer == base + zipped(program(roots, tmp_path / "program"))


def test_layout(bench: Bench, roots: dict[str, Path]) -> None:
    """It is what gzip makes of the base's layer and of the blobs of the image's layout."""
    image = made(bench, bench.plan(run="gcc", run_install=("echo more > /etc/more",)))

    blobs = [bench.blob(image, each).read_bytes() for each in image.layers[1:]]
    assert len(blobs) == 3
    assert image.sizes.transfer == zipped(tar(roots["gcc"])) + sum(map(zipped, blobs))


@pytest.mark.parametrize(
    ("run", "install"), [("gcc", ()), ("alpine", ("cp /hello-c /more",))], ids=["single", "install"]
)
def test_layers_of_a_daemons_own(
    real: Bench,
    roots: dict[str, Path],
    tmp_path: Path,
    run: str,
    install: tuple[str, ...],
) -> None:
    """What only a daemon has is compressed as it has it: the base's layer exactly, as always."""
    plan = real.plan(run=run, run_install=install)
    base = zipped(tar(roots[run]))
    own = zipped(program(roots, tmp_path / "program"))

    image = made(real, plan)

    assert image.sizes.transfer is not None
    expected = base + own * (1 + len(install))
    assert abs(image.sizes.transfer - expected) < SMALL_CHANGE
    assert made(real, plan).sizes == image.sizes


def test_kept_for_the_next_run(real: Bench, home: Path) -> None:
    """What was found out once is used again, for daemons' own layers, too."""
    first = made(real, real.plan(run="gcc"))
    files = [*home.glob("facts/*/transfer.json")]
    for file in files:
        sizes = Store.read_json(file)["sizes"]
        Store.write_json(file, {"sizes": [each + 1000 for each in sizes]})

    again = made(real, real.plan(run="gcc"))

    assert first.sizes.transfer is not None
    assert again.sizes.transfer is not None
    assert again.sizes.transfer > first.sizes.transfer
    assert (again.sizes.transfer - first.sizes.transfer) % 1000 == 0


# Registries


@pytest.fixture
def base(roots: dict[str, Path], tmp_path: Path) -> tuple[bytes, bytes]:
    """Give layers that are compressed as nobody here would: a root, and its list of packages."""
    status = tmp_path / "packages" / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True)
    status.write_text(PACKAGES, encoding="utf-8")
    plain = tar(roots["gcc"]), tar(tmp_path / "packages")
    folder = tmp_path / "registry"
    (folder / "data").mkdir(parents=True)
    (folder / "registry").symlink_to(folder / "data")
    with registries.registry(folder) as address:
        layers = [gzip.compress(each, 1, mtime=0) for each in plain]
        config = registries.configuration([*plain])
        registries.push(f"http://{address}", "team/base", "1", layers, config)
    return layers[0], layers[1]


@contextlib.contextmanager
def open_pulling(
    service: Service | None, home: Path, source: Path, said: list[str]
) -> Iterator[Bench]:
    """Yield an engine that pulls: a daemon's, or the embedded one."""
    if service:
        made, _ = dockerbench.open_pulling(service, home, source, said)
        yield made
        made.engine.close()
        return
    store, cancelled = Store(home), threading.Event()
    images = Images(
        store,
        policy="auto",
        refresh=False,
        progress=said.append,
        cancelled=cancelled,
        root=home,
        host="linux/amd64",
        environ=dict(os.environ),
    )
    engine = EmbeddedEngine(
        store=store,
        images=images,
        roots=(source.parent,),
        output=source.parent / ".variants",
        use_cache=True,
        epoch=0,
        host="linux/amd64",
        cancelled=cancelled,
    )
    yield Bench(engine, source)


def pulled(address: str, *setup: str) -> Image:
    """Return an image of a registry."""
    source = ImageSource(
        kind=SourceKind.REGISTRY, reference=f"{address}/team/base:1", insecure=True, setup=setup
    )
    return Image(name="gcc", sources=(source,))


def on(bench: Bench, image: Image) -> Plan:
    """Return a plan of an image that is built and run in."""
    return bench.plan(run="alpine", stage_image=image, run_image=image, smoke=SMOKE)


@pytest.mark.parametrize("kind", ["embedded", pytest.param("docker", marks=pytest.mark.docker)])
def test_layers_of_a_registry(
    request: pytest.FixtureRequest,
    kind: str,
    base: tuple[bytes, bytes],
    roots: dict[str, Path],
    home: Path,
    source: Path,
    tmp_path: Path,
) -> None:
    """A registry's layers count as it has them, with and without a daemon; packages are known."""
    service = request.getfixturevalue("docker_service") if kind == "docker" else None
    port = registries.free_port()
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "registry").symlink_to(tmp_path / "registry" / "data")
    below, own = sum(map(len, base)), zipped(program(roots, tmp_path / "program"))
    said: list[str] = []
    with (
        registries.registry(tmp_path / "registry", port=port) as address,
        open_pulling(service, home, source, said) as bench,
    ):
        if service:
            with daemons.registry(service, inside, port):
                bench.engine.prepare(pulled(address))
        image = made(bench, on(bench, pulled(address)))
        prepared = bench.engine.prepare(pulled(address))

        assert image.sizes.transfer == below + own
        assert prepared.packages == ("busybox=1",)
        marked = pulled(address, "echo done > /etc/mark")
        larger = made(bench, on(bench, marked)).sizes.transfer
        assert larger is not None
        assert 0 < larger - below - own < SMALL_CHANGE
    assert not [each for each in said if "not known" in each]

    with open_pulling(service, home, source, said) as bench:  # and no registry any more
        assert made(bench, on(bench, pulled(address))).sizes == image.sizes


@pytest.mark.docker
def test_registry_that_does_not_tell(
    base: tuple[bytes, bytes], docker_service: Service, home: Path, source: Path, tmp_path: Path
) -> None:
    """Where only a daemon has the image and its registry is gone, the size is not known."""
    del base
    port = registries.free_port()
    said: list[str] = []
    with open_pulling(docker_service, home, source, said) as bench:
        with daemons.registry(docker_service, tmp_path / "registry", port) as address:
            bench.engine.prepare(pulled(address))
        plain = bench.image(on(bench, pulled(address)))

        assert made(bench, on(bench, pulled(address))).sizes == plain.sizes
        assert plain.sizes.transfer is None
        assert len([each for each in said if "its transfer size is not known" in each]) == 1


@pytest.mark.docker
def test_image_that_only_a_daemon_has(
    roots: dict[str, Path], docker_service: Service, home: Path, source: Path, tmp_path: Path
) -> None:
    """An image that no registry has is compressed as the daemon has it."""
    file = tmp_path / "root.tar"
    file.write_bytes(tar(roots["gcc"]))
    own = zipped(program(roots, tmp_path / "program"))
    with open_pulling(docker_service, home, source, []) as bench:
        daemon = connection.connect("docker", dockerbench.environment("buildkit", docker_service))
        daemon.client.api.import_image_from_file(str(file), repository="local/base", tag="1")
        source_ = ImageSource(kind=SourceKind.REGISTRY, reference="local/base:1")

        image = made(bench, on(bench, Image(name="gcc", sources=(source_,))))

        daemon.client.close()
        assert image.sizes.transfer is not None
        assert abs(image.sizes.transfer - zipped(file.read_bytes()) - own) < SMALL_CHANGE
