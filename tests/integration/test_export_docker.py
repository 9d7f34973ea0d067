"""Exported archives: what Docker makes of them, and what anybody else finds in them."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from handmade import GREETING, SMOKE, Bench, open_engine
from nox_variants.engines.embedded import EmbeddedEngine
from nox_variants.model import LinkMode
from nox_variants.oci.validation import validate

if TYPE_CHECKING:
    from pathlib import Path

    from handmade import Docker
    from nox_variants.plan import Plan
    from nox_variants.results import VariantImage

pytestmark = pytest.mark.sandbox


@pytest.fixture
def bench(roots: dict[str, Path], home: Path, tmp_path: Path) -> Bench:
    """Give an embedded engine and a project."""
    source = tmp_path / "project" / "hello-c"
    source.mkdir(parents=True)
    (source / "hello.c").write_text("int main(void) { return 0; }\n", encoding="utf-8")
    return Bench(open_engine(home, roots, source.parent), source)


def export(bench: Bench, plan: Plan, file: Path, *, docker: bool) -> VariantImage:
    """Make a plan's image and write it as an archive."""
    image = bench.image(plan)
    assert isinstance(bench.engine, EmbeddedEngine)
    bench.engine.export(image, bench.engine.prepare(plan.run.image), file, docker=docker)
    return image


def load(docker: Docker, bench: Bench, plan: Plan) -> VariantImage:
    """Make a plan's image and load it into Docker."""
    file = bench.source.parent / "image.tar"
    image = export(bench, plan, file, docker=True)
    done = docker("load", "--input", str(file))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"Loaded image: {image.tag}\n")
    return image


@pytest.mark.docker
@pytest.mark.parametrize("run", ["scratch", "alpine", "gcc"])
def test_docker_loads_and_runs(docker: Docker, bench: Bench, run: str) -> None:
    """Docker takes an archive, gives it our image id and layers, and the program works there."""
    image = load(docker, bench, bench.plan(run=run, run_env=(("NAME", "value"),)))
    (found,) = json.loads(docker("image", "inspect", image.tag).stdout)

    assert found["Id"] == image.config_digest
    assert found["RootFS"]["Layers"] == list(image.layers)
    assert (found["Config"]["Cmd"], found["Config"]["Env"]) == ([*image.cmd], ["NAME=value"])
    assert docker.run(image.tag) == (0, f"{GREETING}value\n")


@pytest.mark.docker
def test_size_that_docker_shows(docker: Docker, bench: Bench) -> None:
    """The content of an image on nothing is the size of its program, in Docker's words too."""
    image = load(docker, bench, bench.plan())
    (found,) = json.loads(docker("image", "inspect", image.tag).stdout)

    assert found["Size"] == image.sizes.content == image.sizes.binary


@pytest.mark.docker
def test_missing_loader(docker: Docker, bench: Bench) -> None:
    """What does not start here does not start there."""
    image = load(docker, bench, bench.plan(link=LinkMode.DYNAMIC))
    done = docker("run", "--rm", "--network=none", image.tag)

    assert (done.returncode > 0, done.stdout) == (True, "")
    assert "no such file or directory" in done.stderr.lower()
    assert not bench.engine.smoke(image, SMOKE).started


CONTAINED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")
"""What every engine's smoke run has."""

SCRIPTS = {
    "exit code": "exit 3",
    "signal to PID 1": "kill -TERM $$; kill -KILL $$; echo alive",
    "signal to a child": "sh -c 'kill -TERM $$'; echo $?; sh -c 'kill -SEGV $$'; echo $?",
    "environment": "env | grep -v ^HOSTNAME= | sort",
    "process ids": "echo $$ $PPID; id -u; id -g; pwd; umask",
    "hosts": "sed s/::0/::/ /etc/hosts | grep -v variant",
    "capabilities": "grep -E '^(NoNewPrivs|CapEff)' /proc/self/status",
    "kernel settings": "cd /proc/sys/vm; for f in *; do (: >> $f) && echo $f; done 2>&-; echo .",
    "devices": "ls /dev | grep -vE '^(console|core|mqueue)$'",
    "standard input": "cat; readlink /proc/self/fd/0",
    "loopback": "cat /proc/net/dev | cut -d : -f 1",
}


@pytest.mark.docker
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_same_as_in_docker(docker: Docker, bench: Bench, script: str) -> None:
    """What a program sees, and how it ends, is the same here and there."""
    (bench.source / "program").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    plan = bench.plan("cp program /out/hello-c; chmod 755 /out/hello-c", run="alpine")
    image = load(docker, bench, plan)
    seen = bench.engine.smoke(image, SMOKE)

    assert (seen.exit_code, seen.stdout) == docker.run(image.tag, *CONTAINED)


def test_oci_archive(bench: Bench, tmp_path: Path) -> None:
    """An OCI archive is a whole and valid layout, and nothing else."""
    file, folder = tmp_path / "image.tar", tmp_path / "unpacked"
    image = export(bench, bench.plan(run="alpine"), file, docker=False)
    with tarfile.open(file) as tar:
        names = [member.name for member in tar]
        tar.extractall(folder, filter="data")

    validate(folder)
    assert "manifest.json" not in names
    assert len(names) == len(set(names)) == 2 + 2 + len(image.layers) + 2


def test_docker_archive(bench: Bench, tmp_path: Path) -> None:
    """A Docker archive is the same with a manifest.json."""
    file, folder = tmp_path / "image.tar", tmp_path / "unpacked"
    image = export(bench, bench.plan(run="alpine"), file, docker=True)
    with tarfile.open(file) as tar:
        tar.extractall(folder, filter="data")

    validate(folder)
    (entry,) = json.loads((folder / "manifest.json").read_bytes())
    assert entry["RepoTags"] == [image.tag]
    assert len(entry["Layers"]) == len(image.layers)


def test_same_archive_again(bench: Bench, tmp_path: Path) -> None:
    """The same image is written as the same bytes."""
    files = [tmp_path / "one.tar", tmp_path / "two.tar"]
    for file in files:
        export(bench, bench.plan(run="gcc"), file, docker=True)

    assert files[0].read_bytes() == files[1].read_bytes()
