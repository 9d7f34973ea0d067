"""Archives that real Docker and Podman write, of images made by them."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import docker
import pytest

from conftest import require
from nox_variants.errors import ImageError
from nox_variants.images.archive import open_archive
from nox_variants.oci.digest import sha256_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from daemons import Service
    from nox_variants.images.content import ImageContent

pytestmark = pytest.mark.docker

NAME = "localhost/variants/made"


def tar(name: str, data: bytes = b"hello\n") -> bytes:
    """Return a tar with one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        made.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def read(path: Path) -> tuple[ImageContent, list[list[str]]]:
    """Return an archive's image, and the names of each layer's files."""
    names = []
    with open_archive(path, "linux/amd64", cancelled=threading.Event()) as found:
        for at, layer in enumerate(found.content.layers):
            file = path.with_name(f"{path.name}.{at}")
            found.fetch(layer, file)
            data = file.read_bytes()
            data = gzip.decompress(data) if layer.media_type.endswith("+gzip") else data
            assert sha256_bytes(data) == found.content.diff_ids[at]
            with tarfile.open(fileobj=io.BytesIO(data)) as made:
                names.append([name for name in made.getnames() if name.startswith("made")])
    return found.content, names


def configurations(path: Path) -> list[str]:
    """Return the digests of the configurations that `docker save` writes of."""
    with tarfile.open(path) as made:
        manifest = made.extractfile("manifest.json")
        assert manifest is not None
        names = [each["Config"] for each in json.load(manifest)]
    return [f"sha256:{name.rpartition('/')[2].removesuffix('.json')}" for name in names]


@pytest.fixture(scope="module")
def podman() -> Iterator[Callable[..., str]]:
    """Give Podman, with images of its own: ``made:1`` of two layers, ``made:2`` of one."""
    program = shutil.which("podman")
    if program is None or os.geteuid() != 0:
        require("podman", "podman is not installed, or the tests do not run as root")
    # Not pytest's: Podman's own paths may have 50 characters.
    place = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    folder = Path(place.name)
    own = [program, f"--root={folder}/root", f"--runroot={folder}/run", "--storage-driver=vfs"]

    def run(*arguments: str | Path) -> str:
        done = subprocess.run([*own, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    (folder / "root.tar").write_bytes(tar("made-base"))
    (folder / "own").write_text("own")
    run("import", "--change=ENV FROM=podman", folder / "root.tar", f"{NAME}:2")
    (folder / "Dockerfile").write_text(f"FROM {NAME}:2\nCOPY own /made-own\n")
    run("build", "--quiet", "--network=none", "--tag", f"{NAME}:1", folder)
    with place:
        yield run


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
def test_podman(podman: Callable[..., str], form: str, tmp_path: Path) -> None:
    """Every format that `podman save` writes as one file or as OCI folder is read."""
    podman("save", "--quiet", f"--format={form}", "--output", tmp_path / "image", f"{NAME}:1")
    content, names = read(tmp_path / "image")
    identity = podman("image", "inspect", "--format={{.Id}} {{.Digest}}", f"{NAME}:1").split()
    if form == "docker-archive":
        assert content.digest == f"sha256:{identity[0]}"
    assert ("FROM", "podman") in content.env
    assert names == [["made-base"], ["made-own"]]


def test_podman_export(podman: Callable[..., str], tmp_path: Path) -> None:
    """What `podman export` writes is a root filesystem."""
    container = podman("create", f"{NAME}:1", "/made")
    podman("export", "--output", tmp_path / "image", container)
    content, names = read(tmp_path / "image")
    assert (content.env, [sorted(each) for each in names]) == ((), [["made-base", "made-own"]])


def test_podman_several_images(podman: Callable[..., str], tmp_path: Path) -> None:
    """Two images in one file are named."""
    images = (f"{NAME}:1", f"{NAME}:2")
    podman("save", "--quiet", "--multi-image-archive", "--output", tmp_path / "image", *images)
    with pytest.raises(ImageError, match=r"has 2 images: .*made:1.*made:2"):
        read(tmp_path / "image")


@pytest.fixture
def client(docker_service: Service) -> docker.DockerClient:
    """Give a client of a daemon with ``made:1`` of three layers, two alike, ``made:2`` of one."""
    made = docker.DockerClient(base_url=docker_service.url)
    made.api.import_image_from_data(
        tar("made-base"), repository=NAME, tag="2", changes=["ENV FROM=docker"]
    )
    steps = f"FROM {NAME}:2\nCOPY own /made-own\nCOPY own /made-own\n".encode()
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as files:
        for name, data in {"Dockerfile": steps, "own": b"own"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            files.addfile(entry, io.BytesIO(data))
    context.seek(0)
    made.images.build(fileobj=context, custom_context=True, tag=f"{NAME}:1", rm=True)
    return made


def save(client: docker.DockerClient, path: Path, *names: str) -> None:
    """Write what `docker save` writes."""
    query = "&".join(f"names={NAME}:{name}" for name in names)
    answer = client.api.get(f"{client.api.base_url}/v{client.api.api_version}/images/get?{query}")
    answer.raise_for_status()
    path.write_bytes(answer.content)


def test_docker(client: docker.DockerClient, tmp_path: Path) -> None:
    """What `docker save` writes is read, with a layer that is there twice."""
    save(client, tmp_path / "image", "1")
    content, names = read(tmp_path / "image")
    found = client.images.get(f"{NAME}:1")
    assert list(content.diff_ids) == found.attrs["RootFS"]["Layers"]
    assert found.id in configurations(tmp_path / "image")
    assert ("FROM", "docker") in content.env
    assert names == [["made-base"], ["made-own"], ["made-own"]]


def test_docker_several_images(client: docker.DockerClient, tmp_path: Path) -> None:
    """Two images in one file are named."""
    save(client, tmp_path / "image", "1", "2")
    with pytest.raises(ImageError, match=r"has 2 images: .*made:(1|2).*made:(1|2)"):
        read(tmp_path / "image")
