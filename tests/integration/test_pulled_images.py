"""Images out of registries and archives in the store: many processes, kill -9, a full disk."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

import registries
from conftest import require
from nox_variants.errors import ImageError, StoreError
from nox_variants.images.provider import Images
from nox_variants.model import Image, ImageSource, SourceKind
from nox_variants.oci import image as oci
from nox_variants.oci.digest import sha256_bytes
from nox_variants.oci.layout import write_archive
from nox_variants.store import Store
from nox_variants.verification import verify

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nox_variants.results import PreparedImage

pytestmark = pytest.mark.subprocess

PULL = """\
import os, pathlib, sys, threading
from nox_variants.images.provider import Images
from nox_variants.model import Image, ImageSource, SourceKind
from nox_variants.store import Store
source = ImageSource(kind=SourceKind.REGISTRY, reference=sys.argv[2], insecure=True)
home = pathlib.Path(sys.argv[1])
images = Images(
    Store(home), policy="auto", refresh=False, progress=lambda _: None, root=home,
    cancelled=threading.Event(), host="linux/amd64", environ=os.environ,
)
made = images.prepare(Image(name="base", sources=(source,)))
print(made.digest, made.content)
"""


def layer(**files: bytes) -> bytes:
    """Return a layer of files in /data; a name's double underscore is a dot."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"data/{name.replace('__', '.')}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


CHANCE = random.Random(4)  # noqa: S311  # the same bytes and moments every time

LAYERS = [
    layer(one=b"1" * 1000, two=b"2" * 2000),
    layer(__wh__one=b"", three=CHANCE.randbytes(8 << 20)),
    layer(four=b"4"),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with one image; yields ``HOST:PORT``."""
    with registries.registry(tmp_path_factory.mktemp("registry")) as address:
        registries.push(f"http://{address}", "base", "1", LAYERS)
        yield address


@pytest.fixture
def proxy(registry: str) -> Iterator[registries.FaultProxy]:
    """What counts requests."""
    with registries.FaultProxy(registry) as made:
        yield made


def images(home: Path, *, refresh: bool = False, root: Path | None = None) -> Images:
    return Images(
        Store(home),
        policy="auto",
        refresh=refresh,
        progress=lambda _: None,
        cancelled=threading.Event(),
        root=root or home,
        host="linux/amd64",
        environ=dict(os.environ),
    )


def pulled(home: Path, address: str, **options: Any) -> PreparedImage:
    source = ImageSource(kind=SourceKind.REGISTRY, reference=f"{address}/base:1", insecure=True)
    return images(home, **options).prepare(Image(name="base", sources=(source,)))


def files(home: Path, image: PreparedImage) -> dict[str, int]:
    """Return names and sizes of an image's files."""
    root = images(home).root(image)
    return {path.name: path.stat().st_size for path in (root / "data").iterdir()}


MERGED = {"two": 2000, "three": 8 << 20, "four": 1}


def sound(home: Path) -> bool:
    """Tell whether nothing in a store is damaged, and nothing unfinished lies around."""
    with closing(Store(home)) as store:
        left = [path for path in (home / "tmp").iterdir() if path.is_dir()]
        return not left and not [each for each in verify(store) if each.damage]


def blobs(proxy: registries.FaultProxy) -> list[str]:
    """Return the digests of blobs that were asked for."""
    return [each.path.rpartition("/")[2] for each in proxy.requests if "/blobs/" in each.path]


def test_environment_that_is_lacking(home: Path, registry: str) -> None:
    """The image's own environment counts; the file only adds variables that it lacks."""
    source = ImageSource(kind=SourceKind.REGISTRY, reference=f"{registry}/base:1", insecure=True)
    env = (("FROM", "file"), ("MORE", "1"))

    made = images(home).prepare(Image(name="base", sources=(source,), env=env, user="me"))

    assert (made.env, made.user) == ((("FROM", "registry"), ("MORE", "1")), "me")


def test_layers_merge(home: Path, registry: str) -> None:
    """Later layers win, whiteouts hide, and the layers are kept as they came."""
    made = pulled(home, registry)

    assert files(home, made) == MERGED
    assert made.content == sum(MERGED.values()) + 1000
    assert made.layers == made.blobs == tuple(map(sha256_bytes, LAYERS))
    assert made.layer_sizes == tuple(map(len, LAYERS))
    assert made.env == (("FROM", "registry"),)
    assert not made.stand_in
    assert sound(home)


def test_second_run_asks_nobody(home: Path, proxy: registries.FaultProxy) -> None:
    """A second run pulls nothing; one that refreshes asks for the manifest and nothing else."""
    first = pulled(home, proxy.address)
    asked = len(proxy.requests)

    assert pulled(home, proxy.address) == first
    assert len(proxy.requests) == asked

    assert pulled(home, proxy.address, refresh=True) == first
    assert [each.path.split("/")[-2] for each in proxy.requests[asked:]] == ["manifests", "blobs"]


def test_eight_processes(home: Path, proxy: registries.FaultProxy) -> None:
    """Eight at once get the same image, and every layer is fetched once."""
    command = [sys.executable, "-c", PULL, str(home), f"{proxy.address}/base:1"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    said = {process.communicate()[0] for process in started}

    assert len(said) == 1
    assert {process.returncode for process in started} == {0}
    asked = blobs(proxy)
    assert [asked.count(sha256_bytes(each)) for each in LAYERS] == [1, 1, 1]
    assert sound(home)


def test_killed_at_any_moment(home: Path, registry: str) -> None:
    """However often a pull is killed: what is in the store is whole, and the next one ends well."""
    command = [sys.executable, "-c", PULL, str(home), f"{registry}/base:1"]
    begin = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole = time.monotonic() - begin
    for _ in range(12):
        shutil.rmtree(home)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(CHANCE.uniform(0.2, 1.0) * whole)
        process.send_signal(signal.SIGKILL)
        process.wait()

        with closing(Store(home)) as store:
            assert not [each for each in verify(store) if each.damage]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert sound(home)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a small tmpfs; skip where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        require("sandbox", "mounting a tmpfs needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("size", ["4m", "12m"])
def test_full_disk(tmp_path: Path, registry: str, size: str) -> None:
    """A disk that is full while a layer is fetched or unpacked is said; later all is well."""
    disk = tmp_path / "disk"
    with small_disk(disk, size):
        with pytest.raises(StoreError, match="disk is full"):
            pulled(disk / "home", registry)
        assert sound(disk / "home")

        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert files(disk / "home", pulled(disk / "home", registry)) == MERGED
        assert sound(disk / "home")


def test_damaged_layer_is_fetched_again(home: Path, registry: str) -> None:
    """A layer that rotted in the store is noticed before it is used, and then had anew."""
    made = pulled(home, registry)
    for kind in ("images", "refs"):
        shutil.rmtree(home / kind)
    blob = home / "blobs" / sha256_bytes(LAYERS[2]).partition(":")[2] / "blob"
    blob.write_bytes(layer(five=b"5"))

    with pytest.raises(ImageError, match="its configuration says"):
        pulled(home, registry)
    assert pulled(home, registry) == made
    assert sound(home)


def test_layer_that_is_not_what_its_configuration_says(home: Path, registry: str) -> None:
    """Digests of the uncompressed layers are compared, too; nothing of it becomes an image."""
    config = registries.configuration([LAYERS[0]])
    registries.push(f"http://{registry}", "liar", "1", [LAYERS[2]], config)
    source = ImageSource(kind=SourceKind.REGISTRY, reference=f"{registry}/liar:1", insecure=True)

    with pytest.raises(ImageError, match="its configuration says"):
        images(home).prepare(Image(name="base", sources=(source,)))
    assert not list(home.glob("images/*"))


def test_archive(home: Path, tmp_path: Path, registry: str) -> None:
    """What is exported from layers is taken as an archive, with the same layers and files."""
    made = pulled(home, registry)
    config = oci.config(
        made.layers, cmd=("/x",), env=made.env, workdir="/", created=0, platform="linux/amd64"
    )
    sizes = list(zip(made.layers, made.layer_sizes, strict=True))
    write_archive(
        tmp_path / "saved.tar",
        tag="base:1",
        config=config,
        manifest=oci.manifest(config, sizes),
        layers=images(home).layers(made),
        docker=True,
    )
    source = ImageSource(kind=SourceKind.ARCHIVE, reference="saved.tar")
    again = images(tmp_path / "other", root=tmp_path).prepare(Image(name="b", sources=(source,)))

    assert (again.layers, again.content, again.env) == (made.layers, made.content, made.env)
    assert files(tmp_path / "other", again) == MERGED
