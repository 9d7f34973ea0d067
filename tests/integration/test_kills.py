"""Whole runs that are killed at any moment, as the out-of-memory killer does: only Nox itself."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import smallmatrix
from smallmatrix import EXPECTED, Whole

if TYPE_CHECKING:
    from pathlib import Path

    from projects import Project

pytestmark = [pytest.mark.subprocess, pytest.mark.sandbox]

MOMENTS = int(os.environ.get("VARIANTS_KILLS", "8"))
"""How many runs are killed; each is followed by a whole one."""

SEED = int(os.environ.get("VARIANTS_KILLS_SEED", "9"))

PATIENCE = 30
"""Seconds that orphans have to end by themselves. The program that is ended by Nox sleeps longer.
"""

REAPER = """
import ctypes, os, signal, sys, time
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans become its children
process = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
time.sleep(float(sys.argv[1]))
os.kill(process, signal.SIGKILL)
killed, orphans = os.waitpid(process, 0)[1] == signal.SIGKILL, 0
try:
    while os.wait():
        orphans += 1
except ChildProcessError:
    print(f"\\n{int(killed)} {orphans}")  # a killed run may have begun a line
"""


@pytest.fixture
def project(tmp_path: Path, home: Path) -> Project:
    """A project with a store of its own."""
    return smallmatrix.make(tmp_path / "project", home, smallmatrix.save(tmp_path))


def results(project: Project) -> dict[str, dict[str, Any]]:
    """Run the matrix; returns what every run has to say about each variant."""
    done = project.nox("-s", "matrix", "--", "--json", "out.json")
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: smallmatrix.essence(each) for name, each in project.records().items()}


def kill(project: Project, moment: float) -> tuple[int, int]:
    """Kill a run; returns whether it was still going on, and how many orphans had to end."""
    words = ("-c", REAPER, str(moment), sys.executable, "-m", "nox", "-s", "matrix")
    done = subprocess.run(
        [sys.executable, *words],
        cwd=project.folder,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=moment + PATIENCE,
    )
    killed, orphans = map(int, done.stdout.splitlines()[-1].split())
    return killed, orphans


def test_killed_at_any_moment(project: Project) -> None:
    """However a run is killed, the store is whole, nothing goes on, and the next one is as ever."""
    begin = time.monotonic()
    expected = results(project)
    span = time.monotonic() - begin
    assert {name: (each["verdict"], each["outcome"]) for name, each in expected.items()} == EXPECTED
    chance = random.Random(SEED)  # noqa: S311  # the same moments every time
    whole, kills, orphans = Whole(project), 0, 0
    for _ in range(MOMENTS):
        shutil.rmtree(project.home)
        shutil.rmtree(project.folder / ".variants")
        killed, left = kill(project, chance.uniform(0.2, 1.0) * span)
        kills, orphans = kills + killed, orphans + left

        assert whole.damage() == []
        before = whole.records()
        assert results(project) == expected
        assert whole.damage() == whole.half_written() == []
        assert sorted(whole.records().values()) == sorted([*before.values(), len(expected)])
    print(f"{kills} of {MOMENTS} runs were killed, {orphans} orphans ended by themselves")  # noqa: T201
