"""The collection of 51 as one file: each as it says, and what cannot be had says why not."""

from __future__ import annotations

import collections
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

import standins
from nox_variants import config, matrix
from projects import REPOSITORY, Project

if TYPE_CHECKING:
    from pathlib import Path

SERIES = REPOSITORY / "examples/series"

COLLECTION = {
    "hello-c": 9,
    "hello-go": 7,
    "hello-java": 10,
    "hello-py": 2,
    "hello-rust": 7,
    "pyds": 4,
    "pyyaml": 4,
    "whatsmyip": 8,
}
"""How many Dockerfiles each program had."""

CAUSES = {"missing-loader": 7, "missing-library": 1, "missing-shell": 1, "build-failed": 1}
OUTCOMES = {"passed": 24, "xfailed": 10, "skipped": 17}


def test_it_is_whole() -> None:
    """The file has as many variants as the collection had Dockerfiles, program by program."""
    variants = matrix.expand(config.load(SERIES / "variants.yaml")).variants

    count = collections.Counter(
        max((name for name in COLLECTION if variant.program.startswith(name)), key=len)
        for variant in variants
    )

    assert dict(count) == COLLECTION
    assert len(variants) == 51


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, shared_home: Path) -> Project:
    """A copy of the example whose wheels come from beside it: a build sees no mirror of ours."""
    folder = tmp_path_factory.mktemp("example") / "series"
    shutil.copytree(SERIES, folder, ignore=shutil.ignore_patterns(".variants", ".nox"))
    text = yaml.safe_load((folder / "variants.yaml").read_text(encoding="utf-8"))
    for name in ("pyds", "pyyaml"):
        fetch_wheels(folder / name, python(shared_home))
        text["programs"][name]["build_env"] = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/src/wheels",
        }
    (folder / "variants.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return Project(folder=folder, home=shared_home)


def fetch_wheels(source: Path, version: str) -> None:
    """Download what a program requires, for a version of Python."""
    wanted = ["--only-binary", ":all:", "--python-version", version, "--quiet"]
    place = ["--dest", str(source / "wheels"), "--requirement", str(source / "requirements.txt")]
    subprocess.run([sys.executable, "-m", "pip", "download", *wanted, *place], check=True)


def python(home: Path) -> str:
    """Return the version of the Python that the stand-in has."""
    root = standins.roots(home, SERIES / "variants.yaml", ["python:slim"])["python:slim"]
    (library,) = root.glob("usr/lib/python3.*")
    return library.name.removeprefix("python")


@pytest.mark.apt
@pytest.mark.sandbox
def test_collection(project: Project) -> None:
    """Every technique works or fails as the articles say; no variant is lost."""
    done = project.nox(*("-s", "matrix", "--", "--images", "apt", "--json", "out.json"))

    assert done.returncode == 0, done.stdout + done.stderr
    records = list(project.records().values())
    assert collections.Counter(record["outcome"] for record in records) == OUTCOMES
    causes = collections.Counter(record["cause"] for record in records if record["cause"])
    assert causes == CAUSES
    assert all(record["reason"] for record in records if record["outcome"] == "skipped")
    assert "DEFECT" not in done.stdout
