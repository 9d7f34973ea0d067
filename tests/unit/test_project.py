"""What the project says of itself in several places is the same in all."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import nox_variants
from nox_variants.cli import main

REPOSITORY = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_script_block_has_the_dependencies() -> None:
    """`pipx run nox` installs from the noxfile's block what the package depends on (PEP 723)."""
    text = (REPOSITORY / "noxfile.py").read_text(encoding="utf-8")
    block = re.search(r"^# /// script\n(.*?)^# ///$", text, re.MULTILINE | re.DOTALL)
    assert block is not None

    values = tomllib.loads(re.sub(r"^# ?", "", block[1], flags=re.MULTILINE))

    assert values["dependencies"] == PYPROJECT["project"]["dependencies"]
    assert values["requires-python"] == PYPROJECT["project"]["requires-python"]


def test_version_is_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`nox-variants --version` prints the package's version."""
    with pytest.raises(SystemExit):
        main(["--version"])

    assert capsys.readouterr().out == f"{nox_variants.__version__}\n"


@pytest.mark.parametrize("session", ["matrix", "tests"])
def test_readme_has_both_commands(session: str) -> None:
    """Each of the README's two commands sets everything up by itself."""
    assert (
        "python3 -m venv .venv && .venv/bin/pip install --quiet nox &&"
        f" .venv/bin/nox -s {session}\n"
    ) in README


def test_readme_table_has_every_variant() -> None:
    """The README's table is of the file's own C program, whole."""
    table = README.partition("<!-- table -->")[2].partition("<!-- /table -->")[0]
    ids = re.findall(r"^hello-c\(\S+\)", table, re.MULTILINE)

    assert len(ids) == len(set(ids)) == 15
