"""The project's matrix with all images out of a registry is the same on every engine."""

from __future__ import annotations

import io
import shutil
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

import daemons
import registries
import standins
from dockerbench import environment
from nox_variants.oci.layer import write_tree
from projects import NOXFILE, REPOSITORY, Project

if TYPE_CHECKING:
    from pathlib import Path

    from daemons import Service

pytestmark = [pytest.mark.apt, pytest.mark.sandbox, pytest.mark.docker]

NAMES = ("gcc", "alpine-gcc", "golang", "ubuntu", "busybox:glibc", "alpine")
"""The images of what is run here, but for one that only a registry has."""

SMALL = tuple(
    part
    for name in ("java", "node", "python", "ruby", "rust")
    for part in ("--skip", f"hello-{name}*")
)
"""Options that leave out programs whose images are large and show nothing more."""

LACKING = """\
  alpine-g++: {registry: null}
  alpine-rust: {registry: null}
"""

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
def host(storage: Path, shared_home: Path) -> Any:
    """Start a registry for the embedded engine, with the stand-ins as its images."""
    with registries.registry(storage) as address:
        made = standins.roots(shared_home, REPOSITORY / "variants.yaml", NAMES)
        for name, root in made.items():
            out = io.BytesIO()
            write_tree(root, out, mtime=0)
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
    shutil.copytree(REPOSITORY / "examples", made.folder / "examples")
    images = [
        IMAGE.format(
            name=f'"{name}"',
            host=host,
            repository=repository(name),
            setup=SETUP if name == "alpine" else "",
        )
        for name in NAMES
    ]
    own = (REPOSITORY / "variants.yaml").read_text(encoding="utf-8")
    made.write("variants.yaml", f"{own}\nimages:\n{LACKING}{''.join(images)}")
    return made


def agreed(record: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a record that does not depend on the engine."""
    names = ("verdict", "cause", "explanation", "outcome", "linkage", "sizes")
    return {name: record[name] for name in names}


def run(project: Project, engine: str, *options: str, **environ: str) -> dict[str, Any]:
    """Run the matrix, every image from its registry."""
    done = project.nox(
        *("-s", "matrix", "--", "--engine", engine, "--images", "registry"),
        *("--json", "run.json", *options),
        **environ,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stand-ins" not in done.stdout
    return project.records("run.json")


def test_same_on_every_engine(
    host: str, storage: Path, docker_service: Service, tmp_path: Path
) -> None:
    """Verdicts, causes, sizes and digests are equal, with and without a daemon."""
    ours = run(write(tmp_path / "embedded", tmp_path / "home", host), "embedded", *SMALL)
    with daemons.registry(docker_service, storage) as address:
        project = write(tmp_path / "docker", tmp_path / "docker-home", address)
        theirs = run(project, "docker", *SMALL, **environment("buildkit", docker_service))

    outcomes = [each["outcome"] for each in ours.values()]
    assert len(outcomes) == 33
    assert outcomes.count("skipped") == 1
    assert not {"failed", "error"} & set(outcomes)
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
        first = run(project, "embedded", "--only", "hello-c*")

    again = run(project, "embedded", "--only", "hello-c*")

    assert {name: agreed(each) for name, each in again.items()} == {
        name: agreed(each) for name, each in first.items()
    }


def test_archives(host: str, docker_service: Service, tmp_path: Path, shared_home: Path) -> None:
    """An image out of a file runs on both engines, with the same verdicts and sizes."""
    assert host
    found = {}
    for engine in ("embedded", "docker"):
        project = write(tmp_path / engine, tmp_path / "home", host)
        with tarfile.open(project.folder / "alpine.tar", "w") as tar:
            tar.add(
                standins.roots(shared_home, REPOSITORY / "variants.yaml", ["alpine"])["alpine"],
                arcname=".",
            )
        file = project.folder / "variants.yaml"
        text = file.read_text(encoding="utf-8").partition("\nimages:\n")[0]
        file.write_text(
            f"{text}\nimages:\n  alpine: {{registry: null, apt: null, archive: alpine.tar}}\n",
            encoding="utf-8",
        )
        done = project.nox(
            *("-s", "matrix", "--", "--engine", engine, "--images", "auto"),
            *("--only", "hello-c(alpine*", "--json", "run.json"),
            **{**environment("buildkit", docker_service), "NOX_VARIANTS_HOME": str(shared_home)},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found[engine] = {name: agreed(each) for name, each in project.records("run.json").items()}
        sources = {
            image["source"]
            for each in project.records("run.json").values()
            for image in each["images"]
            if image["name"] == "alpine"
        }
        assert sources == {"archive"}

    assert len(found["embedded"]) == 4
    assert found["embedded"] == found["docker"]
