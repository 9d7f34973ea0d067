"""The example of what small images lack beside libraries: as it says, on every engine."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from dockerbench import environment
from projects import REPOSITORY, Project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.apt, pytest.mark.sandbox]

CAUSES = {
    "missing-loader": 5,
    "missing-certificates": 3,
    "name-resolution": 3,
    "missing-timezone-data": 2,
    "missing-user": 2,
    "missing-shell": 1,
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, shared_home: Path) -> Project:
    """A copy of the example."""
    folder = tmp_path_factory.mktemp("example") / "probes"
    shutil.copytree(REPOSITORY / "examples/probes", folder)
    return Project(folder=folder, home=shared_home)


@pytest.mark.parametrize("engine", ["embedded", pytest.param("docker", marks=pytest.mark.docker)])
def test_example(engine: str, project: Project, request: pytest.FixtureRequest) -> None:
    """Each program fails for the cause that the file names, and works where it has a remedy."""
    environ: dict[str, str] = {}
    if engine == "docker":
        service = request.getfixturevalue("docker_service")
        environ = {
            name: value
            for name, value in environment("buildkit", service).items()
            if name == "DOCKER_HOST"
        }
    done = project.nox(
        *("-s", "matrix", "--", "--engine", engine, "--images", "apt", "--json", "out.json"),
        **environ,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    records = list(project.records().values())
    assert {record["outcome"] for record in records} == {"passed", "xfailed"}
    assert causes(records) == CAUSES
    for record in records:
        assert record["predicted"] == {"verdict": record["verdict"], "cause": record["cause"]}
    assert "DEFECT" not in done.stdout


def causes(records: list[dict[str, Any]]) -> dict[str, int]:
    """Return how often each cause is there, the most frequent first."""
    found = [record["cause"] for record in records if record["cause"]]
    return {cause: found.count(cause) for cause in dict.fromkeys(CAUSES)} | {
        cause: found.count(cause) for cause in found
    }
