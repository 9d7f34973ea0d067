"""Whole runs on machines that fail: full and read-only disks, clocks that jump, many at once."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import smallmatrix
from conftest import require
from smallmatrix import COMPILED, EXPECTED, Whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from projects import Project

pytestmark = [pytest.mark.subprocess, pytest.mark.sandbox]

MATRIX = ("-s", "matrix", "--", "--json", "out.json")
YEAR = 365 * 24 * 3600


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archives of the images."""
    return smallmatrix.save(tmp_path_factory.mktemp("images"))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder that a test may mount something on."""
    made = tmp_path / "disk"
    made.mkdir()
    return made


@pytest.fixture
def project(tmp_path: Path, disk: Path, archives: Path) -> Project:
    """A project with a store of its own on that disk."""
    return smallmatrix.make(tmp_path / "project", disk / "home", archives)


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """Mount a small tmpfs; skip where that is not allowed."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        require("sandbox", "mounting a tmpfs needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, option: str) -> None:
    """Change a mount."""
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True)


def outcomes(project: Project) -> dict[str, tuple[str | None, str]]:
    """Return verdict and outcome of each variant of the last run."""
    return {name: (each["verdict"], each["outcome"]) for name, each in project.records().items()}


def test_full_store(disk: Path, project: Project) -> None:
    """A store without room is an error for the variants that need some; later all is well.

    The smallest holds no image, the others one and the other half of what builds make.
    """
    with mounted(disk, "2m"):
        for size in ("2m", "10500k", "13m"):
            remount(disk, f"size={size}")
            done = project.nox(*MATRIX)

            assert done.returncode == 1
            assert "Traceback" not in done.stdout + done.stderr
            for name, seen in outcomes(project).items():
                assert seen in {EXPECTED[name], (None, "error")}, name
            reasons = [each["reason"] for each in project.records().values() if each["reason"]]
            assert reasons
            assert all("The disk is full" in reason for reason in reasons)
        assert Whole(project).damage() == []

        remount(disk, "size=64m")
        assert project.nox(*MATRIX).returncode == 0
        assert outcomes(project) == EXPECTED
        assert Whole(project).damage() == []


def test_full_project(project: Project) -> None:
    """A project's folder without room ends the run, or is an error for what did not fit."""
    folder = project.folder / ".variants"
    with mounted(folder, "64k"):
        done = project.nox(*MATRIX)
        assert done.returncode == 1
        assert "history.sqlite: database or disk is full" in done.stdout + done.stderr

        remount(folder, "size=300k")
        done = project.nox(*MATRIX)
        assert done.returncode == 1
        for name, seen in outcomes(project).items():
            assert seen in {EXPECTED[name], (None, "error")}, name

        remount(folder, "size=64m")
        assert project.nox(*MATRIX).returncode == 0
        assert outcomes(project) == EXPECTED
        assert Whole(project).half_written() == []


def test_read_only(disk: Path, project: Project) -> None:
    """A store or a project that cannot be written is said at once, and later all is well."""
    folder = project.folder / ".variants"
    with mounted(disk, "64m"), mounted(folder, "64m"):
        assert project.nox(*MATRIX).returncode == 0
        for place, words in (
            (disk, "The file system is read-only: point NOX_VARIANTS_HOME elsewhere."),
            (
                folder,
                "history.sqlite: unable to open database file. Is the disk full or read-only?",
            ),
        ):
            remount(place, "ro")
            done = project.nox("-s", "matrix")
            assert done.returncode == 1
            assert words in done.stdout + done.stderr
            assert "Traceback" not in done.stdout + done.stderr
            remount(place, "rw")
        assert project.nox(*MATRIX).returncode == 0
        assert outcomes(project) == EXPECTED


@pytest.mark.parametrize("time", [0, 130 * YEAR], ids=["1970", "2099"])
def test_clock_that_was_wrong(time: float, project: Project) -> None:
    """What was made at a wrong time is used, made anew and removed as anything else."""
    assert project.nox(*MATRIX).returncode == 0
    whole = Whole(project)
    for folder in (project.home, project.folder):
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (time, time), follow_symlinks=False)

    assert project.nox(*MATRIX).returncode == 0
    assert outcomes(project) == EXPECTED
    assert whole.compiled() == COMPILED
    assert whole.damage() == []

    again = project.nox("-s", "hello(scratch,static)", "--", "--no-cache")
    assert again.returncode == 0, again.stdout
    assert whole.compiled() == [*COMPILED, "s"]

    assert project.cli("clean", "--older-than", "1d").returncode == 0
    assert (project.home / "images").is_dir()
    assert project.cli("clean", "--keep", "0").returncode == 0
    assert not list((project.home / "builds").iterdir())
    assert whole.damage() == []
    assert sorted(whole.records().values()) == [1, 8, 8]


@pytest.mark.parametrize("many", [2, 4, 8])
def test_many_runs_at_once(many: int, project: Project) -> None:
    """All say the same, each compile is done once, and the history has every record of each."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "nox", *MATRIX[:-1], f"{number}.json"],
            cwd=project.folder,
            env=project.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(many)
    ]
    said = [process.communicate()[0] for process in started]

    assert [process.returncode for process in started] == [0] * many, said
    first, *others = (
        {name: smallmatrix.essence(each) for name, each in project.records(f"{n}.json").items()}
        for n in range(many)
    )
    assert {name: (each["verdict"], each["outcome"]) for name, each in first.items()} == EXPECTED
    assert all(each == first for each in others)
    whole = Whole(project)
    assert whole.compiled() == COMPILED
    assert whole.records() == dict.fromkeys(whole.records(), len(EXPECTED))
    assert len(whole.records()) == many
    assert whole.damage() == whole.half_written() == []
