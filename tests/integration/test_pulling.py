"""Images of a real registry, pulled by a real daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import docker
import pytest

import daemons
from dockerbench import open_pulling
from handmade import GREETING, SMOKE, HandMade
from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.model import Image, ImageSource, LinkMode, SourceKind
from nox_variants.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemons import Service

pytestmark = [pytest.mark.docker, pytest.mark.sandbox]


@pytest.fixture
def address(
    docker_service: Service, home: Path, roots: dict[str, Path], tmp_path: Path
) -> Iterator[str]:
    """Give a registry with ``team/base:1``: the hand-made gcc image."""
    with daemons.registry(docker_service, tmp_path) as where:
        client = docker.DockerClient(base_url=docker_service.url)
        store = Store(home)
        image = HandMade(store, roots).prepare(_image("gcc", ""))
        archive = tmp_path / "root.tar"
        with archive.open("wb") as file:
            from nox_variants.oci.layer import write_tree  # noqa: PLC0415

            write_tree(store.entry("images", image.digest[7:]) / "root", file, mtime=0)
        client.api.import_image_from_file(
            str(archive), repository=f"{where}/team/base", tag="1", changes=["ENV FROM=registry"]
        )
        client.images.push(f"{where}/team/base", tag="1")
        client.images.remove(f"{where}/team/base:1", force=True)
        store.close()
        yield where
        client.close()


def _image(name: str, reference: str, *setup: str) -> Image:
    source = ImageSource(kind=SourceKind.REGISTRY, reference=reference, setup=setup)
    return Image(name=name, sources=(source,))


def test_pulled_once(
    address: str, docker_service: Service, home: Path, source: Path, roots: dict[str, Path]
) -> None:
    """An image is pulled with its digest, its content and its environment, and only once."""
    said: list[str] = []
    bench, images = open_pulling(docker_service, home, source, said)
    image = _image("gcc", f"{address}/team/base:1")

    prepared = bench.engine.prepare(image)
    again = bench.engine.prepare(image)

    assert prepared == again
    assert (prepared.kind, prepared.stand_in) == (SourceKind.REGISTRY, False)
    assert prepared.digest.startswith("sha256:")
    assert ("FROM", "registry") in prepared.env
    content = sum(
        file.stat().st_size
        for file in roots["gcc"].rglob("*")
        if file.is_file() and not file.is_symlink()
    )
    assert prepared.content == content
    assert (images.root(prepared) / "bin/busybox").is_file()
    assert said == [f"gcc: pulling {address}/team/base:1"]
    bench.engine.close()


def test_built_and_run_on(address: str, docker_service: Service, home: Path, source: Path) -> None:
    """Variants are built in and run on what was pulled, with its setup on top."""
    said: list[str] = []
    bench, _ = open_pulling(docker_service, home, source, said)
    plain = _image("gcc", f"{address}/team/base:1")
    extended = _image("alpine", f"{address}/team/base:1", "echo set up > /etc/mark")
    plan = bench.plan(run="alpine", stage_image=plain, run_image=extended)

    seen = bench.run(plan)
    marked = bench.run(
        bench.plan(
            run="alpine",
            stage_image=plain,
            run_image=extended,
            run_cmd=("/bin/cat", "/etc/mark"),
        )
    )

    assert (seen.exit_code, seen.stdout) == (0, GREETING)
    assert marked.stdout == "set up\n"
    assert "alpine: running its setup" in said
    bench.engine.close()


def test_loader_of_a_pulled_image(
    address: str, docker_service: Service, home: Path, source: Path
) -> None:
    """What a pulled root offers is known, and explains what does not start on it."""
    bench, _ = open_pulling(docker_service, home, source, [])
    base = _image("gcc", f"{address}/team/base:1")
    plan = bench.plan(run="alpine", link=LinkMode.DYNAMIC, stage_image=base, run_image=base)
    image = bench.image(plan)

    assert not bench.engine.smoke(image, SMOKE).started
    root = bench.engine.inspect(image).root
    assert (root.shell, root.loaders) == (True, frozenset())
    bench.engine.close()


def test_what_the_registry_does_not_have(
    address: str, docker_service: Service, home: Path, source: Path
) -> None:
    """A reference that is not there is an error with a hint; no stand-in hides it."""
    bench, _ = open_pulling(docker_service, home, source, [])

    with pytest.raises(ImageError, match="cannot be pulled") as caught:
        bench.engine.prepare(_image("gcc", f"{address}/team/base:nothing"))

    assert "Is the reference right?" in str(caught.value)
    bench.engine.close()


def test_registry_that_cannot_be_reached(docker_service: Service, home: Path, source: Path) -> None:
    """No registry is noticed once; every image of it is then unavailable at once."""
    said: list[str] = []
    bench, _ = open_pulling(docker_service, home, source, said)

    for name in ("one", "two"):
        with pytest.raises(ImageUnavailable, match=r"registry 127.0.0.1:1 cannot be reached"):
            bench.engine.prepare(_image(name, f"127.0.0.1:1/team/{name}:1"))

    assert said == [
        "one: pulling 127.0.0.1:1/team/one:1",
        "registry 127.0.0.1:1 cannot be reached from here",
    ]
    bench.engine.close()
