"""What the project says of itself in several places is the same in all."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nox_variants
from nox_variants.cli import main

REPOSITORY = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
CACHES = shutil.ignore_patterns("__pycache__")
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_script_block_has_the_dependencies() -> None:
    """`pipx run nox` installs from the noxfile's block what the package depends on (PEP 723)."""
    text = (REPOSITORY / "noxfile.py").read_text(encoding="utf-8")
    block = re.search(r"^# /// script\n(.*?)^# ///$", text, re.MULTILINE | re.DOTALL)
    assert block is not None

    values = tomllib.loads(re.sub(r"^# ?", "", block[1], flags=re.MULTILINE))

    assert values["dependencies"] == PYPROJECT["project"]["dependencies"]
    assert values["requires-python"] == PYPROJECT["project"]["requires-python"]


def test_lock_has_what_the_sessions_need() -> None:
    """Each dependency, and each of the groups, is locked at a version that fits, by its hashes."""
    text = (REPOSITORY / "tests" / "requirements.txt").read_text(encoding="utf-8")
    entries = [each for each in text.replace("\\\n", " ").splitlines() if each[0] not in " #"]
    locked = {
        canonicalize_name(made.name): made
        for made in (Requirement(each.partition(" --hash")[0]) for each in entries)
    }
    groups = PYPROJECT["dependency-groups"]
    wanted = [
        *PYPROJECT["project"]["dependencies"],
        *groups["docs"],
        *groups["test"],
        *groups["lint"],
    ]

    assert all(" --hash=sha256:" in each for each in entries)
    assert "://" not in text
    for each in (Requirement(word) for word in wanted if isinstance(word, str)):
        (version,) = locked[canonicalize_name(each.name)].specifier
        assert each.specifier.contains(version.version), each


@pytest.mark.subprocess
def test_wheel_is_reproducible(tmp_path: Path) -> None:
    """Another folder, another time and another umask make the same wheel: of the package alone."""
    wheels: list[Path] = []
    for name, umask in (("one", 0o022), ("other", 0o077)):
        folder = tmp_path / name
        previous = os.umask(umask)
        try:
            for each in ("pyproject.toml", "README.md", "LICENSE", "plugin"):
                source, target = REPOSITORY / each, folder / each
                target.parent.mkdir(exist_ok=True)
                if source.is_dir():
                    shutil.copytree(source, target, copy_function=shutil.copyfile, ignore=CACHES)
                else:
                    shutil.copyfile(source, target)
            done = subprocess.run(
                [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / name],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            os.umask(previous)
        assert done.returncode == 0, done.stderr
        wheels += folder.glob("*.whl")

    one, other = wheels
    assert one.read_bytes() == other.read_bytes()
    package = REPOSITORY / "plugin" / "nox_variants"
    files = (path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc")
    names = {f"nox_variants/{path.relative_to(package).as_posix()}" for path in files}
    with zipfile.ZipFile(one) as wheel:
        assert {each for each in wheel.namelist() if ".dist-info/" not in each} == names
    assert "nox_variants/py.typed" in names
    assert "nox_variants/workflows/github.yml.jinja" in names


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


def test_promises_name_tests() -> None:
    """Every promise of SECURITY.md names tests, all of which there are."""
    text = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
    promised = text.partition("## What is promised")[2].partition("## What is not")[0]
    rows = [line for line in promised.splitlines() if re.match(r"\| (?!promise|-)", line)]
    named = [re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row) for row in rows]

    assert len(rows) > 20
    assert all(named)
    for file, test in (each for some in named for each in some):
        assert re.search(rf"^def {test}\(", (REPOSITORY / file).read_text("utf-8"), re.MULTILINE)
