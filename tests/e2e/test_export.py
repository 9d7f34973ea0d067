"""Exports of a whole project, by the command."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from projects import HELLO

if TYPE_CHECKING:
    from projects import Project

pytestmark = [pytest.mark.apt, pytest.mark.sandbox]


def test_archive(project: Project) -> None:
    """A variant is compiled and written as an archive that Docker loads under its name."""
    done = project.cli("export", "hello-c(scratch,static)", "--output", "hello.tar")

    assert (done.returncode, done.stdout) == (0, "hello-c(scratch,static): hello.tar\n")
    with tarfile.open(project.folder / "hello.tar") as archive:
        file = archive.extractfile("manifest.json")
        assert file is not None
        (image,) = json.load(file)
    assert image["RepoTags"] == ["hello-c:gcc-static.scratch"]


def test_folders_with_stand_ins(project: Project) -> None:
    """All variants get folders; what two of them need is on the disk once; nothing is compiled."""
    done = project.cli("export", "--all", "--format", "dockerfile", "--output", "out")

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 7
    folders = {path.parent.name for path in project.folder.glob("out/hello-c/*/Dockerfile")}
    assert len(folders) == 7
    archives = list(project.folder.glob("out/hello-c/*/gcc.tar"))
    assert len({file.stat().st_ino for file in archives}) == 1
    assert len(archives) == 6
    assert not (project.folder / ".variants").exists()


def test_folders_with_libraries(project: Project) -> None:
    """What brings its libraries is compiled, for its Dockerfile copies each by its name."""
    project.write(
        "variants.yaml",
        HELLO.replace(
            "include:\n", "include:\n      - {run: scratch, link: dynamic, libs: bundle}\n"
        ),
    )

    name = "hello-c(scratch,dynamic+libs)"
    done = project.cli("export", name, "--format", "dockerfile", "--output", "out")

    assert done.returncode == 0, done.stderr
    text = (project.folder / "out/Dockerfile").read_text(encoding="utf-8")
    copied = [line.split()[-1] for line in text.splitlines() if line.startswith("COPY --from")]
    assert copied[0] == "/hello-c"
    assert {"libc.so.6"} < {path.rpartition("/")[2] for path in copied}
    assert any("/ld-linux" in path for path in copied)
