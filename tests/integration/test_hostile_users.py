"""Memory that lies in files, and calls that reach deep: hostile programs of every user.

The program is that of tests/contract/test_hostile_programs.py, which runs it on every engine.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conftest import require
from nox_variants.model import Smoke
from sandboxed import nothing_left, token

if TYPE_CHECKING:
    from nox_variants.results import Observation
    from sandboxed import User

pytestmark = pytest.mark.sandbox

MB = 1 << 20

PROGRAM = Path(__file__).parents[1] / "contract/hostile.c"


@pytest.fixture(scope="session")
def hostile(public: Path) -> Path:
    """Give a root with the program, which every user can read."""
    if shutil.which("gcc") is None:
        require("compilers", "gcc is not installed")
    folder = public / "hostile"
    (folder / "tmp").mkdir(parents=True)
    words = ["gcc", "-O1", "-static", str(PROGRAM), "-o", str(folder / "hostile")]
    subprocess.run(words, check=True)
    return folder


def attack(user: User, hostile: Path, *args: str, memory: int) -> Observation:
    """Run the program within a limit on memory."""
    program = user.program("/hostile", *args, lower=(hostile, user.skeleton))
    return user.observe(program, Smoke(memory=memory, timeout=20))


@pytest.mark.parametrize("what", ["memory", "memory-files", "inodes"])
def test_memory(user: User, hostile: Path, what: str) -> None:
    """Memory counts where it is mapped, in memory files, and in the inodes of empty files."""
    word = token()
    seen = attack(user, hostile, what, word, memory=64 * MB)

    assert (seen.out_of_memory, seen.timed_out) == (True, False)
    assert nothing_left(word)


@pytest.mark.parametrize(("memory", "ended"), [(100 * MB, False), (60 * MB, True)])
def test_folders(user: User, hostile: Path, memory: int, ended: bool) -> None:  # noqa: FBT001
    """What lies in /tmp and /dev/shm counts as memory, as in a container."""
    seen = attack(user, hostile, "disk", token(), memory=memory)

    assert seen.out_of_memory == ended


@pytest.mark.parametrize("what", ["mapped-file", "mapped-memory-file"])
def test_mapped_files_count_once(user: User, hostile: Path, what: str) -> None:
    """A file of 40 MB that is mapped takes 40 MB."""
    seen = attack(user, hostile, what, token(), memory=60 * MB)

    assert (seen.exit_code, seen.out_of_memory, seen.stdout) == (0, False, "mapped: done\n")


def test_first_to_go(user: User, hostile: Path) -> None:
    """Where the machine runs out of memory, the kernel is told to end the program first."""
    seen = attack(user, hostile, "first-to-go", token(), memory=64 * MB)

    assert seen.stdout == "1000\n"
