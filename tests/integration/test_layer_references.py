"""Any layers give what GNU tar makes of one, and Docker of several."""

from __future__ import annotations

import copy
import io
import shutil
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, cast

import docker
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from conftest import require
from imagefiles import Image
from imagefiles import tar as tar_of
from layermodel import LAYERS, PLAIN, as_builders_write, clear
from layertars import Entry, Tree, tar, tree
from nox_variants.images.layers import Unpacker
from nox_variants.programfile import read_facts
from nox_variants.sandbox.bubblewrap import find_bwrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemons import Service

HOST = ".host"
"""Where GNU tar finds itself: the root of its sandbox is that of the layer."""

NAME = "localhost/variants/references"


def unpacked(root: Path, *blobs: bytes) -> None:
    """Apply layers."""
    unpacker = Unpacker(root, cancelled=threading.Event())
    for blob in blobs:
        unpacker.apply(io.BytesIO(blob))
    unpacker.finish()


class GnuTar:
    """GNU tar in a sandbox."""

    def __init__(self) -> None:
        found = shutil.which("tar")
        if found is None:
            require("tar", "tar is not installed")
        program = Path(found).resolve()
        loader = Path(read_facts(program).interpreter).resolve()
        places = (program.parent, loader.parent)  # not all of /, where others mount and unmount
        self._mounts = [
            *("--tmpfs", f"/{HOST}"),
            *(word for each in places for word in ("--ro-bind", str(each), f"/{HOST}{each}")),
        ]
        self._command = [
            *(f"/{HOST}{loader}", "--library-path", f"/{HOST}{loader.parent}"),
            *(f"/{HOST}{program}", "--extract", "--file=-"),
            *("--absolute-names", "--no-same-owner"),
        ]

    def extract(self, blob: bytes, root: Path) -> str:
        """Extract a tar; returns what is wrong with it."""
        (root / HOST).mkdir()
        sandbox = ["--unshare-all", "--bind", str(root), "/", *self._mounts]
        done = subprocess.run(
            [find_bwrap(), *sandbox, "--chdir", "/", *self._command],
            input=blob,
            capture_output=True,
            check=False,
        )
        (root / HOST).rmdir()
        assert done.returncode in {0, 2}, done.stderr
        return done.stderr.decode()


def same_files(root: Path) -> set[frozenset[str]]:
    """Return the names that are one file, by hard links."""
    groups: dict[int, set[str]] = {}
    for name in tree(root):
        status = (root / name).lstat()
        if status.st_nlink > 1 and not (root / name).is_dir():
            groups.setdefault(status.st_ino, set()).add(name)
    return set(map(frozenset, groups.values()))


@pytest.mark.sandbox
def test_like_gnu_tar() -> None:
    """What tar extracts from a layer without whiteouts is what is in the root."""
    reference = GnuTar()
    compared = []

    @settings(max_examples=50, deadline=None, derandomize=True, database=None)
    @given(entries=st.lists(PLAIN, min_size=1, max_size=12).map(clear))
    def compare(entries: list[Entry]) -> None:
        blob = tar(*entries)
        with tempfile.TemporaryDirectory() as name:
            ours, theirs = Path(name, "ours"), Path(name, "theirs")
            ours.mkdir()
            theirs.mkdir()
            unpacked(ours, blob)
            # Unlike tar, engines make the folders that a link of the image only promises.
            if reference.extract(blob, theirs):
                return
            compared.append(blob)
            assert tree(ours) == tree(theirs)
            assert same_files(ours) == same_files(theirs)

    compare()

    assert len(compared) >= 25


def prefixed(number: int, entries: Sequence[Entry]) -> list[Entry]:
    """Return entries in a folder of their own."""
    found = []
    for info, data in entries:
        moved = copy.copy(info)
        moved.name = f"{number}/{info.name}"
        moved.linkname = f"{number}/{info.linkname}" if info.islnk() else info.linkname
        found.append((moved, data))
    return found


@pytest.fixture
def client(docker_service: Service) -> Iterator[docker.DockerClient]:
    """Give a client of a daemon of the tests' own."""
    made = docker.DockerClient(base_url=docker_service.url)
    yield made
    made.close()


def exported(client: docker.DockerClient, *blobs: bytes) -> Tree:
    """Return what Docker has in an image of layers, in folders with numbers."""
    saved = tar_of(Image(*blobs).saved(RepoTags=[f"{NAME}:1"]))
    (loaded,) = client.images.load(saved)
    container = client.containers.create(loaded, ["x"])
    data = b"".join(cast("Iterator[bytes]", container.export()))
    container.remove()
    client.images.remove(f"{NAME}:1")
    found: Tree = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as made:
        for each in made:
            name = each.name.rstrip("/")
            if name.partition("/")[0].isdigit():
                found[name] = _value(made, each, found)
    return found


def _value(exported: tarfile.TarFile, member: tarfile.TarInfo, known: Tree) -> bytes | str | None:
    if member.islnk():
        return known[member.linkname]
    content = exported.extractfile(member) if member.isreg() else None
    return content.read() if content else (member.linkname if member.issym() else None)


@pytest.mark.docker
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.large_base_example],
)
@given(images=st.lists(LAYERS, min_size=60, max_size=60))
def test_like_docker(images: list[list[list[Entry]]], client: docker.DockerClient) -> None:
    """What Docker merges of layers that a builder could have written is what is in the root."""
    written = [as_builders_write(each) for each in images]
    blobs = []
    for depth in range(4):
        parts = [each[depth] if depth < len(each) else [] for each in written]
        blobs.append(tar(*(moved for at, each in enumerate(parts) for moved in prefixed(at, each))))
    with tempfile.TemporaryDirectory() as name:
        unpacked(Path(name), *blobs)
        assert exported(client, *blobs) == tree(Path(name))
