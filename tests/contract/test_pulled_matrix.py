"""A matrix whose images all come from a registry is the same on every engine."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from typing import TYPE_CHECKING, Any

import pytest

import daemons
import registries
from dockerbench import environment
from nox_variants.config import load
from nox_variants.images.provider import Images
from nox_variants.oci.layer import write_tree
from nox_variants.store import Store
from projects import HELLO, NOXFILE, Project

if TYPE_CHECKING:
    from pathlib import Path

    from daemons import Service

pytestmark = [pytest.mark.apt, pytest.mark.sandbox, pytest.mark.docker]

NAMES = ("gcc", "alpine-gcc", "busybox:glibc", "alpine")

IMAGE = """\
  {name}:
    registry: {{reference: "{host}/{repository}:1", insecure: true{setup}}}
    apt: null
"""

SETUP = ', setup: ["rm /etc/motd-of-tests && echo done > /etc/set-up"]'


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of two registries with the same content."""
    folder = tmp_path_factory.mktemp("registry")
    (folder / "data").mkdir()
    (folder / "registry").symlink_to(folder / "data")
    return folder


@pytest.fixture(scope="module")
def host(storage: Path, shared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Start a registry for the embedded engine, with the stand-ins as its images."""
    project = tmp_path_factory.mktemp("stand-ins")
    (project / "hello-c").mkdir()
    (project / "variants.yaml").write_text(HELLO, encoding="utf-8")
    images = Images(
        Store(shared_home),
        policy="apt",
        refresh=False,
        progress=lambda _: None,
        cancelled=threading.Event(),
        root=project,
        host="linux/amd64",
        environ=os.environ,
    )
    known = {image.name: image for image in load(project / "variants.yaml").images}
    with registries.registry(storage) as address:
        for name in NAMES:
            out = io.BytesIO()
            write_tree(images.root(images.prepare(known[name])), out, mtime=0)
            layers = [out.getvalue(), top()]
            registries.push(f"http://{address}", repository(name), "1", layers)
        yield address


def top() -> bytes:
    """Return a layer that adds a file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("etc/motd-of-tests")
        member.size = 6
        tar.addfile(member, io.BytesIO(b"hello\n"))
    return out.getvalue()


def repository(name: str) -> str:
    """Return an image's repository."""
    return name.replace(":", "-")


def write(folder: Path, home: Path, host: str) -> Project:
    """Write a project whose images are a registry's, one of them with setup."""
    made = Project(folder=folder, home=home)
    made.write("noxfile.py", NOXFILE)
    made.write("hello-c/hello.c", '#include <stdio.h>\nint main() { puts("Hello, world!"); }\n')
    images = [
        IMAGE.format(
            name=f'"{name}"',
            host=host,
            repository=repository(name),
            setup=SETUP if name == "alpine" else "",
        )
        for name in NAMES
    ]
    made.write("variants.yaml", f"{HELLO}images:\n{''.join(images)}")
    return made


def agreed(record: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a record that does not depend on the engine."""
    names = ("verdict", "cause", "explanation", "outcome", "linkage", "sizes")
    return {name: record[name] for name in names}


def run(project: Project, engine: str, **environ: str) -> dict[str, Any]:
    """Run the matrix, every image from its registry."""
    done = project.nox(
        *("-s", "matrix", "--", "--engine", engine, "--images", "registry"),
        *("--json", "run.json"),
        **environ,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stand-in" not in done.stdout
    return project.records("run.json")


def test_same_on_every_engine(
    host: str, storage: Path, docker_service: Service, tmp_path: Path
) -> None:
    """Verdicts, causes, sizes and digests are equal, with and without a daemon."""
    ours = run(write(tmp_path / "embedded", tmp_path / "home", host), "embedded")
    with daemons.registry(docker_service, storage) as address:
        project = write(tmp_path / "docker", tmp_path / "docker-home", address)
        theirs = run(project, "docker", **environment("buildkit", docker_service))

    assert len(ours) == 7
    for name, record in ours.items():
        other = theirs[name]
        assert agreed(record) == agreed(other), name
        pulled = [
            (mine["digest"], its["digest"])
            for mine, its in zip(record["images"], other["images"], strict=True)
            if mine["name"] != "alpine"  # its setup makes it each engine's own
        ]
        assert all(mine == its for mine, its in pulled)


def test_second_run_asks_nobody(host: str, storage: Path, tmp_path: Path) -> None:
    """What was pulled is used again, also when the registry is gone; nothing is a stand-in."""
    assert host
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "data").symlink_to(storage / "data")
    with registries.registry(tmp_path / "registry") as address:
        project = write(tmp_path / "project", tmp_path / "home", address)
        first = run(project, "embedded")

    again = run(project, "embedded")

    assert {name: agreed(each) for name, each in again.items()} == {
        name: agreed(each) for name, each in first.items()
    }
