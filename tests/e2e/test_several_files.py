"""A project of several files: one run, one history, from Nox and from the command line."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from projects import REPOSITORY, Project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.subprocess

FILES = ("c/variants.yaml", "go/variants.yaml", "shared.yaml")
DEFAULTS = """\
version: 1
defaults: {{language: {0}, run: [scratch, small], link: static, smoke: {{matches: "(?i)hello"}}}}
programs: {{hello-{0}: {{source: "{{program}}"}}}}
"""


@pytest.fixture
def project(tmp_path: Path, shared_home: Path) -> Project:
    """Two files with a program each, and one with the image that both run in."""
    made = Project(folder=tmp_path / "project", home=shared_home)
    made.write("noxfile.py", f"import nox_variants\n\nnox_variants.register{FILES!r}\n")
    made.write("shared.yaml", "version: 1\nimages: {small: {apt: busybox-static}}\n")
    for name in ("c", "go"):
        made.write(f"{name}/variants.yaml", DEFAULTS.format(name))
        example = f"hello-{name}"
        shutil.copytree(REPOSITORY / "examples" / example, made.folder / name / example)
    return made


def options(*files: str) -> list[str]:
    """Return the options that name files."""
    return [word for file in files for word in ("--file", file)]


def test_nox_lists_all_programs(project: Project) -> None:
    """One `matrix` over the programs of all files, and their sessions in order."""
    done = project.nox("-l")

    assert done.returncode == 0, done.stderr
    assert "Build, smoke-run and record all 4 variants of hello-c, hello-go." in done.stdout
    listed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("- hello")]
    assert listed == [
        f"hello-{name}({run},static)" for name in ("c", "go") for run in ("scratch", "small")
    ]


def test_mistakes_of_all_files(project: Project) -> None:
    """Nox ends with status 2, and a line for each mistake in each file."""
    for name in ("c", "go"):
        file = project.folder / name / "variants.yaml"
        file.write_text(file.read_text(encoding="utf-8").replace("small", "smal"), encoding="utf-8")

    done = project.nox("-l")

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"{name}/variants.yaml:2:{column}: defaults.run[1]: unknown image 'smal'."
        " Did you mean 'small'?"
        for name, column in (("c", 40), ("go", 41))
    ]


@pytest.mark.sandbox
def test_run_and_explain(project: Project) -> None:
    """Variants of both files run together; what was recorded lies beside the noxfile."""
    done = project.nox("-s", "matrix", "--", "--json", "out.json")

    assert done.returncode == 0, done.stdout + done.stderr
    assert {record["outcome"] for record in project.records().values()} == {"passed"}
    assert sorted(path.parent.name for path in project.folder.rglob(".variants")) == ["project"]
    explained = project.cli("explain", "hello-go(small,static)", *options(*FILES))
    assert explained.returncode == 0, explained.stdout + explained.stderr
    assert "hello-go(small,static)" in explained.stdout


def test_command_line(project: Project) -> None:
    """`--file` may be repeated; one file alone does not know what is in another."""
    done = project.cli("list", "--json", *options(*FILES))

    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 4
    alone = project.cli("list", *options("c/variants.yaml"))
    assert alone.returncode == 2
    assert "unknown image 'small'" in alone.stderr


def test_one_file_is_written(project: Project) -> None:
    """`init` writes one file, and says so when it is given two names."""
    done = project.cli("init", *options("a.yaml", "b.yaml"))

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--file: more than one file is given. It writes one." in done.stderr
