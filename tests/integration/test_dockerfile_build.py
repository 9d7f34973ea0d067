"""Exported folders go through real builders, and what comes out runs."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from projects import REPOSITORY, Project

if TYPE_CHECKING:
    from pathlib import Path

    from handmade import Docker

pytestmark = [pytest.mark.docker, pytest.mark.apt, pytest.mark.sandbox]

BUILDERS = {"buildkit": (), "classic": ("--classic",)}
BUILDKIT = {"buildkit": "1", "classic": "0"}

HELLO = {
    "hello-c(scratch,static)": "hello-c/gcc-static.scratch",
    "hello-c(alpine,dynamic,alpine-gcc)": "hello-c/alpine-gcc-dynamic.alpine",
    "hello-c(gcc,dynamic)": "hello-c/gcc-dynamic.gcc",
    "hello-go(scratch,static)": "hello-go/golang-static.scratch",
    "hello-go(golang,dynamic)": "hello-go/golang-dynamic.golang",
}

VALUE = r"""a "b" 'c' $d ${e} \f \\ #g  `h`"""
BROKEN = "one\n  # two <<END $three\n"

SHOW = """pwd; ls; ls -A /tmp "/root/my cache" 2>/dev/null | grep -E 'left|hidden|kept' || echo none
echo "$VALUE" """

ODD = f"""\
version: 1
programs:
  odd:
    language: odd
    source: odd
    run: ["busybox:glibc", gcc]
languages:
  odd:
    artifact: /o ut/{{program}}
    caches: [/root/my cache]
    link:
      dynamic:
        build: gcc
        env: {{VALUE: {json.dumps(VALUE)}, BROKEN: {json.dumps(BROKEN)}}}
        commands:
          - "[ -d '/o ut' ] && [ -d '/root/my cache' ] && cd /tmp && exit 0; exit 1"
          - "# only a comment"
          - "echo '#!/bin/sh' > '/o ut/odd' # and one behind"
          - |
            cat >> '/o ut/odd' <<'HERE'
            cat <<'END'
            HERE
            printf '%s\\n%s\\n' "$VALUE" "$BROKEN" >> '/o ut/odd'
            echo END >> '/o ut/odd'
          - touch '/root/my cache/kept' /tmp/left /tmp/.hidden && chmod 755 '/o ut/odd'
"""


def build(docker: Docker, folder: Path, builder: str) -> str:
    """Build a folder without a network, and return the image's id."""
    done = subprocess.run(
        [docker.client, "build", "--quiet", "--network=none", str(folder)],
        env={**os.environ, "DOCKER_HOST": docker.host, "DOCKER_BUILDKIT": BUILDKIT[builder]},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module", params=BUILDERS)
def exported(
    request: pytest.FixtureRequest, shared_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """Give the folders of the examples, and whom they are for."""
    output = tmp_path_factory.mktemp("out") / "all"
    export(Project(REPOSITORY, shared_home), output, *HELLO, *BUILDERS[request.param])
    return output, request.param


def export(project: Project, output: Path, *arguments: str) -> None:
    """Export what arguments name."""
    done = project.cli("export", *arguments, "--format", "dockerfile", "--output", str(output))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("variant", HELLO)
def test_examples(docker: Docker, exported: tuple[Path, str], variant: str) -> None:
    """`docker build .` in the folder makes an image whose command prints what it should."""
    output, builder = exported

    image = build(docker, output / HELLO[variant], builder)

    assert docker.run(image) == (0, "Hello, world!\n")


@pytest.mark.parametrize("builder", BUILDERS)
def test_awkward_words(docker: Docker, shared_home: Path, tmp_path: Path, builder: str) -> None:
    """Commands, values and paths reach the shell as they were written, with either builder."""
    project = Project(tmp_path / "project", shared_home)
    project.write("variants.yaml", ODD)
    project.write("odd/a file", "")
    output = tmp_path / "out"
    export(project, output, "--all", *BUILDERS[builder])

    runs = ("busybox_glibc", "gcc")
    images = [build(docker, output / "odd" / f"gcc-dynamic.{run}", builder) for run in runs]

    expected = (0, f"{VALUE}\n{BROKEN}\n")
    assert [docker.run(image) for image in images] == [expected, expected]


@pytest.mark.parametrize("builder", BUILDERS)
def test_what_ships(docker: Docker, shared_home: Path, tmp_path: Path, builder: str) -> None:
    """Of a build whose stage ships, caches, temporary files and its environment do not."""
    project = Project(tmp_path / "project", shared_home)
    project.write("variants.yaml", ODD)
    project.write("odd/a file", "")
    export(project, tmp_path / "out", "odd(gcc,dynamic)", *BUILDERS[builder])
    image = build(docker, tmp_path / "out", builder)

    done = docker("run", "--rm", "--network=none", image, "/bin/sh", "-c", SHOW)

    assert done.stdout.splitlines() == ["/src", "a file", "none", ""]
