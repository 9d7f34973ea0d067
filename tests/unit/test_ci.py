"""Workflows: what the command writes, and that the project's own is that."""

from __future__ import annotations

import json
import re
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from nox_variants import cli

REPOSITORY = Path(__file__).parents[2]
NIGHTLY = REPOSITORY / ".github" / "workflows" / "nightly.yml"
FILE = """\
version: 1
programs:
  hello-c:
    language: c
    source: .
    run: [scratch, "busybox:glibc"]
    link: [static, dynamic]
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and being there."""
    (tmp_path / "variants.yaml").write_text(FILE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what the command prints."""
    assert cli.main(["ci", *arguments]) == 0
    return capsys.readouterr().out


def loaded(text: str) -> Any:
    """Return a workflow's values; YAML 1.1 takes `on` for true."""
    return yaml.safe_load(re.sub(r"^on:", '"on":', text, flags=re.MULTILINE))


def test_the_projects_own_workflow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """nightly.yml is what its first line says."""
    monkeypatch.chdir(REPOSITORY)
    text = NIGHTLY.read_text("utf-8")
    words = shlex.split(text.splitlines()[0].removeprefix("# Made by: "))
    assert words[:2] == ["nox-variants", "ci"]
    at = words.index("--output")

    found = written(capsys, *words[2:at])

    first, rest = found.split("\n", 1)
    assert f"{first} --output {words[at + 1]}\n{rest}" == text


def test_github(capsys: pytest.CaptureFixture[str]) -> None:
    """Three ways to start, no right but to read, actions by commit, the selector never a script."""
    values = loaded(written(capsys))

    assert set(values["on"]) == {"schedule", "pull_request", "workflow_dispatch"}
    assert values["permissions"] == {"contents": "read"}
    rights = {
        name: job["permissions"] for name, job in values["jobs"].items() if "permissions" in job
    }
    assert rights == {"comment": {"pull-requests": "write"}}
    steps = [step for job in values["jobs"].values() for step in job["steps"]]
    assert all(
        re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]) for step in steps if "uses" in step
    )
    assert not any("${{" in step.get("run", "") for step in steps)
    assert not any("sysctl" in step.get("run", "") for step in steps)


def test_options_reach_the_workflow(capsys: pytest.CaptureFixture[str]) -> None:
    """Engine, number of jobs, and what is installed, quoted as YAML needs it."""
    install = 'pip install "nox>=2026.8" .: #x'

    values = loaded(written(capsys, "--engine", "embedded", "--shards", "7", "--install", install))

    steps = values["jobs"]["variants"]["steps"]
    assert values["env"]["NOX_VARIANTS_ENGINE"] == "embedded"
    assert install in [step.get("run") for step in steps]
    assert any("userns" in step.get("run", "") for step in steps)
    assert "--emit-matrix --shards 7 --only" in values["jobs"]["shards"]["steps"][-1]["run"]


@pytest.mark.parametrize("shards", [(), ("--shards", "5")])
def test_gitlab(capsys: pytest.CaptureFixture[str], shards: tuple[str, ...]) -> None:
    """It is of the form that GitLab's own schema has."""
    values = yaml.safe_load(written(capsys, "--provider", "gitlab", *shards))

    schema = resources.files("check_jsonschema") / "builtin_schemas/vendor/gitlab-ci.json"
    validator = Draft7Validator(json.loads(schema.read_text("utf-8")))
    assert [error.message for error in validator.iter_errors(values)] == []
    assert values["variants"].get("parallel") == (5 if shards else None)


def test_the_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    """A line of JSON; no more jobs than there are build stages."""
    text = written(capsys, "--emit-matrix", "--shards", "9")

    assert text.count("\n") == 1
    names = [each["name"] for each in json.loads(text)["include"]]
    assert names == ["1/2", "2/2"]


def test_a_matrix_of_a_selection(capsys: pytest.CaptureFixture[str]) -> None:
    """What is left out makes no job."""
    text = written(capsys, "--emit-matrix", "--shards", "9", "--only", "*static*")

    assert len(json.loads(text)["include"]) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--shards", "257"), "github makes from 1 to 256 jobs"),
        (("--provider", "gitlab", "--shards", "201"), "from 1 to 200 jobs"),
        (("--shards", "0"), "from 1 to 256"),
        (("--provider", "gitlab", "--emit-matrix"), "CI_NODE_INDEX"),
        (("--install", "a\nb"), "more than a line"),
        (("--emit-matrix", "--only", "nothing"), "no variant matches"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each says what would do."""
    assert cli.main(["ci", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_written_to_a_file(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    """It says by which command it was made."""
    assert written(capsys, "--output", ".github/workflows/variants.yml") == ""

    first = (project / ".github/workflows/variants.yml").read_text("utf-8").splitlines()[0]
    expected = "nox-variants ci --provider github --output .github/workflows/variants.yml"
    assert first == f"# Made by: {expected}"


def test_a_file_that_cannot_be_written(capsys: pytest.CaptureFixture[str], project: Path) -> None:
    """A file where a folder has to be is a sentence."""
    (project / ".github").write_text("", encoding="utf-8")

    assert cli.main(["ci", "--output", ".github/workflows/variants.yml"]) == 2
    assert "--output .github/workflows/variants.yml: cannot be written" in capsys.readouterr().err
