"""The documentation: it builds without a warning, and everything that it shows is so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from conftest import require
from nox_variants import config, filemodel
from nox_variants.errors import ConfigError
from pages import DOCS, PAGES, Block, blocks, commands, play, unlike
from projects import NOXFILE, REPOSITORY, Project

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_RUN = {
    "pip install ./nox-variants": "needs a clone of this repository beside it",
    "docker login registry.example.com:5000": "needs an account",
}
"""Commands that no test can run, and why."""

COMPLETE = {"version": 1, "programs": {"a": {"language": "c", "source": ".", "run": "scratch"}}}
"""What a part of a file lacks."""


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a page's commands: stand-ins, so that all machines say the same."""
    project = Project(folder=home, home=home)
    return project.environment(
        NOX_VARIANTS_IMAGES="apt",
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        PYTHONUNBUFFERED="1",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with the sources of the examples."""
    made = tmp_path / "project"
    shutil.copytree(
        REPOSITORY / "examples", made / "examples", ignore=shutil.ignore_patterns(".variants")
    )
    (made / "noxfile.py").write_text(NOXFILE, encoding="utf-8")
    return made


def of_kind(kind: str) -> Iterator[tuple[str, Block]]:
    """Yield all blocks of a kind, with their pages."""
    for page in PAGES:
        for block in blocks(page):
            if block.kind == kind:
                yield page, block


@pytest.mark.subprocess
def test_build(tmp_path: Path) -> None:
    """Sphinx builds every page without a warning; what is generated is there."""
    options = ("-W", "--keep-going", "-n", "-q", "-b", "html", "-d", tmp_path / "trees")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, DOCS, tmp_path / "html"],
        text=True,
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    html = tmp_path / "html"
    assert {path.relative_to(html).as_posix() for path in html.rglob("*.html")} >= {
        page.replace(".md", ".html") for page in PAGES
    }
    assert "musl-tools" in (html / "reference/catalogue.html").read_text(encoding="utf-8")
    assert "<!-- generated" not in (html / "reference/record.html").read_text(encoding="utf-8")


@pytest.mark.apt
@pytest.mark.sandbox
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.kind == "console" for block in blocks(page))]
)
def test_page(page: str, folder: Path, shared_home: Path) -> None:
    """Each command does, and prints, what its page says."""
    if page == "howto/publish.md" and shutil.which("docker-registry") is None:
        require("registry", "docker-registry is not installed")
    for command, status, output in play(page, folder, environment(shared_home)):
        where = f"docs/{page}:{command.line}: {command.text}\n{output}"
        assert (status != 0) == command.fails, where
        assert unlike(command.shown, output) == "", where


@pytest.mark.subprocess
def test_what_is_not_run(tmp_path: Path) -> None:
    """What is shown without being run is known, and does not work where there is nothing."""
    shown = {
        command.text
        for _, block in of_kind("console")
        if "not-run" in block.classes
        for command in commands(block)
    }

    assert shown == set(NOT_RUN)
    for text, reason in NOT_RUN.items():
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert done.returncode != 0, f"{text} works without what is said of it: {reason}"


@pytest.mark.parametrize("kind", ["sh", "shell", "bash"])
def test_commands_are_in_console_blocks(kind: str) -> None:
    """No command escapes by standing in a block of another kind."""
    assert list(of_kind(kind)) == []


@pytest.mark.parametrize(
    ("page", "block"),
    [pytest.param(page, block, id=f"{page}:{block.line}") for page, block in of_kind("yaml")],
)
def test_yaml(page: str, block: Block, folder: Path) -> None:
    """What is a variants.yaml, whole or in part, is read by the code that reads yours.

    One of class ``mistake`` is refused.
    """
    values = yaml.safe_load(block.text)
    if not set(values) <= set(filemodel.File.model_fields):
        assert page in {"howto/ci.md", "howto/publish.md"}
        return
    file = folder / "variants.yaml"
    lacking = {name: value for name, value in COMPLETE.items() if name not in values}
    file.write_text((yaml.safe_dump(lacking) if lacking else "") + block.text, encoding="utf-8")

    if "mistake" in block.classes:
        with pytest.raises(ConfigError):
            config.load(file)
    else:
        assert config.load(file).programs
