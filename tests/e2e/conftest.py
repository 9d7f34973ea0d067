"""Fixtures of the end-to-end tests: a project, and a store that they share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from projects import HELLO, NOXFILE, REPOSITORY, Project


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that all end-to-end tests share, so that images are prepared once."""
    kept = os.environ.get("VARIANTS_TEST_HOME")
    return Path(kept) if kept else tmp_path_factory.mktemp("home")


@pytest.fixture
def project(tmp_path: Path, shared_home: Path) -> Project:
    """The C program of the examples over three run images and two link modes."""
    made = Project(folder=tmp_path / "project", home=shared_home)
    made.write("noxfile.py", NOXFILE)
    made.write("variants.yaml", HELLO)
    shutil.copytree(REPOSITORY / "examples" / "hello-c", made.folder / "hello-c")
    return made
