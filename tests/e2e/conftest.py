"""Fixtures of the end-to-end tests: a project, and a store that they share."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from projects import HELLO, NOXFILE, REPOSITORY, Project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, shared_home: Path) -> Project:
    """The C program of the examples over three run images and two link modes."""
    made = Project(folder=tmp_path / "project", home=shared_home)
    made.write("noxfile.py", NOXFILE)
    made.write("variants.yaml", HELLO)
    shutil.copytree(REPOSITORY / "examples" / "hello-c", made.folder / "hello-c")
    return made
