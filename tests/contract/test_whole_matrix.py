"""The project's own matrix is the same on every engine: verdicts, causes, linkage and sizes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from dockerbench import environment
from projects import NOXFILE, REPOSITORY, Project

if TYPE_CHECKING:
    from pathlib import Path

    from daemons import Service

pytestmark = [pytest.mark.apt, pytest.mark.sandbox, pytest.mark.docker]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, shared_home: Path) -> Project:
    """The repository's own file and examples."""
    made = Project(folder=tmp_path_factory.mktemp("own"), home=shared_home)
    made.write("noxfile.py", NOXFILE)
    shutil.copy(REPOSITORY / "variants.yaml", made.folder)
    shutil.copytree(REPOSITORY / "examples", made.folder / "examples")
    return made


@pytest.fixture(scope="module")
def embedded(project: Project) -> dict[str, Any]:
    """What the embedded engine finds out."""
    return run(project, "embedded")


def run(project: Project, engine: str, **environ: str) -> dict[str, Any]:
    """Run the whole matrix and return what every engine has to agree on, by variant."""
    done = project.nox(
        *("-s", "matrix", "--", "--engine", engine, "--json", f"{engine}.json"), **environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = project.records(f"{engine}.json")
    assert {record["engine"]["name"] for record in records.values()} == {engine}
    return {name: agreed(record) for name, record in records.items()}


def agreed(record: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a record that does not depend on the engine."""
    names = ("verdict", "cause", "explanation", "predicted", "contradiction", "shell", "outcome")
    return {name: record[name] for name in (*names, "linkage", "sizes", "images")}


def test_predictions_come_true(embedded: dict[str, Any]) -> None:
    """What was predicted of each variant is what was seen."""
    ran = [each for each in embedded.values() if each["verdict"]]

    assert len(ran) == 52
    for each in ran:
        assert each["predicted"] == {"verdict": each["verdict"], "cause": each["cause"]}
        assert each["contradiction"] == ""


def test_embedded(embedded: dict[str, Any]) -> None:
    """Every variant is accounted for, and those that need what Debian lacks are skipped."""
    outcomes = [each["outcome"] for each in embedded.values()]

    assert len(outcomes) == 55
    assert (outcomes.count("passed"), outcomes.count("xfailed")) == (40, 12)
    assert outcomes.count("skipped") == 3


COMPILERS = {"c": "GCC: (", "cpp": "GCC: (", "go": "go1.", "rust": "rustc"}
"""How what compiled an example begins to speak of itself."""


@pytest.mark.parametrize("name", COMPILERS)
def test_compilers(name: str, embedded: dict[str, Any]) -> None:
    """What compiled a program is told by the program, however it is linked."""
    told = {
        each["linkage"]["compiler"]
        for variant, each in embedded.items()
        if variant.startswith(f"hello-{name}(") and each["linkage"]
    }

    assert told
    assert not [compiler for compiler in told if not compiler.startswith(COMPILERS[name])]


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_daemons_agree(
    engine: str, project: Project, embedded: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """A daemon finds what the embedded engine finds, for each of them, to the byte."""
    service: Service = request.getfixturevalue(f"{engine}_service")
    way = {"docker": "buildkit", "podman": "podman"}[engine]
    environ = {
        name: value
        for name, value in environment(way, service).items()
        if name in {"DOCKER_HOST", "CONTAINER_HOST"}
    }

    assert run(project, engine, **environ, NOX_VARIANTS_IMAGES="apt") == embedded


def test_auto_takes_the_daemon(project: Project, docker_service: Service) -> None:
    """With Docker answering, `auto` takes it and says so; tagged images stand side by side."""
    only = ("--only", "hello-c(scratch,*)", "--images", "apt", "--engine", "auto")
    done = project.nox("-s", "matrix", "--", *only, DOCKER_HOST=docker_service.url)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "engine: docker " in done.stdout
    assert "it answers at DOCKER_HOST; it builds with" in done.stdout


def test_auto_without_a_daemon(project: Project) -> None:
    """Where the named daemon does not answer, `auto` says so and takes the embedded engine."""
    only = ("--only", "hello-c(scratch,static)", "--engine", "auto")
    done = project.nox("-s", "matrix", "--", *only, DOCKER_HOST="unix:///nowhere/socket")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "engine: embedded " in done.stdout
    assert "there is no such socket" in done.stdout


def test_engine_that_does_not_answer(project: Project) -> None:
    """An engine that was asked for and is not there is an error with what was tried."""
    asked = ("-s", "matrix", "--", "--engine", "docker")
    done = project.nox(*asked, DOCKER_HOST="unix:///nowhere/socket")

    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "docker does not answer: unix:///nowhere/socket (DOCKER_HOST)" in said
    assert "Traceback" not in said
