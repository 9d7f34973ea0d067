"""An image out of a registry on the loopback: against `docker pull`; its layer: against `tar`."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import daemons
import registries
import standins
from nox_variants.images.layers import Unpacker
from nox_variants.oci.layer import write_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = "bench/gcc"

PULL = """\
import os, pathlib, sys, threading
from nox_variants.images.provider import Images
from nox_variants.model import Image, ImageSource, SourceKind
from nox_variants.store import Store
source = ImageSource(kind=SourceKind.REGISTRY, reference=sys.argv[2], insecure=True)
home = pathlib.Path(sys.argv[1])
Images(
    Store(home), policy="auto", refresh=False, progress=lambda _: None, root=home,
    cancelled=threading.Event(), host="linux/amd64", environ=os.environ,
).prepare(Image(name="gcc", sources=(source,)))
"""


@dataclass
class PullSide:
    """Both ways to get the same image.

    Attributes:
        size: Bytes of the image's layer, uncompressed.
    """

    work: Path
    tar: Path
    size: int
    ours: str
    theirs: str
    docker_host: str

    @classmethod
    @contextlib.contextmanager
    def start(cls, work: Path, home: Path, file: Path) -> Iterator[PullSide]:
        """Push the stand-in of gcc, with a daemon beside the one registry and us beside another."""
        tar = work / "layer.tar"
        with tar.open("wb") as out:
            write_tree(standins.roots(home, file, ["gcc"])["gcc"], out, mtime=0)
        storage = work / "registry"
        (storage / "data").mkdir(parents=True)
        (storage / "registry").symlink_to(storage / "data")
        with registries.registry(storage) as ours, daemons.docker() as docker:
            data = tar.read_bytes()
            config = registries.configuration([data])
            packed = gzip.compress(data, compresslevel=6, mtime=0)
            registries.push(f"http://{ours}", REPOSITORY, "1", [packed], config)
            with daemons.registry(docker, storage) as theirs:
                yield cls(
                    work,
                    tar,
                    len(data),
                    f"{ours}/{REPOSITORY}:1",
                    f"{theirs}/{REPOSITORY}:1",
                    docker.url,
                )

    def pull(self) -> None:
        """Pull and unpack into a store."""
        command = [sys.executable, "-c", PULL, str(self.work / "home"), self.ours]
        subprocess.run(command, check=True)

    def forget(self) -> None:
        """Remove what both pulled."""
        shutil.rmtree(self.work / "home", ignore_errors=True)
        self._docker("rmi", "--force", self.theirs, check=False)

    def docker_pull(self) -> None:
        """Let Docker pull and unpack."""
        self._docker("pull", "--quiet", self.theirs)

    def _docker(self, *words: str, check: bool = True) -> None:
        client = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
        environ = {**os.environ, "DOCKER_HOST": self.docker_host}
        subprocess.run([client, *words], env=environ, check=check, capture_output=True)

    def unpack(self) -> None:
        """Unpack the layer's tar."""
        unpacker = Unpacker(self._fresh("unpacked"), cancelled=threading.Event())
        with self.tar.open("rb") as file:
            unpacker.apply(file)
        unpacker.finish()

    def untar(self) -> None:
        """Let GNU tar unpack it."""
        subprocess.run(["tar", "-xf", self.tar, "-C", self._fresh("untarred")], check=True)

    def _fresh(self, name: str) -> Path:
        folder = self.work / name
        folder.mkdir()
        return folder

    def forget_unpacked(self) -> None:
        """Remove what both unpacked."""
        for name in ("unpacked", "untarred"):
            shutil.rmtree(self.work / name, ignore_errors=True)
