"""Sandboxes whose process is killed while they are made: nothing of them stays, or begins."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from nox_variants.errors import SandboxError
from nox_variants.sandbox.command import Root, run_command
from sandboxed import nothing_left, program_runs, token, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandboxed import User

pytestmark = pytest.mark.sandbox

BEGIN = """
import subprocess, sys
from nox_variants.sandbox import bubblewrap, guardian, seccomp

root, word = sys.argv[1], input()  # no process but bwrap's has the word among its own
flags = [*bubblewrap.NAMESPACES, "--ro-bind", root, "/", "--dev", "/dev", "--proc", "/proc"]
pipes = {"stdin": subprocess.DEVNULL, "stderr": None}
"""

AT_THE_ENTRANCE = """
with guardian.Entrance(seccomp.program()) as entrance:
    calls = entrance.reading
    flags += ["--seccomp", str(calls), "--", "/probe", "outlive", word]
    process = bubblewrap.start(flags, pass_fds=(calls,), **pipes)
    entrance.started()
    entrance.reached(lambda: process.poll() is not None)
    print("made", flush=True)
    input()
"""

BEFORE_NAMESPACES = """
import os
reading, writing = os.pipe()  # bwrap does not come further than to its own arguments
flags = ["--args", str(reading), *flags, "--", "/probe", "outlive", word]
process = bubblewrap.start(flags, pass_fds=(reading, writing), **pipes)
print("made", flush=True)
input()
"""

BEGUN = """
import pathlib
flags = [flag for flag in flags if flag != "--die-with-parent"]
with guardian.Entrance(seccomp.program()) as entrance:
    calls = entrance.reading
    flags += ["--as-pid-1", "--seccomp", str(calls), "--", "/probe", "outlive", word]
    process = bubblewrap.start(flags, pass_fds=(calls,), **pipes)
    entrance.started()
    entrance.reached(lambda: process.poll() is not None)
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    entrance.open(int(children.read_text()))
    print("made", flush=True)
    input()
"""


@contextmanager
def maker(script: str, root: Path, word: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that makes a sandbox, and wait until it has come as far as it comes."""
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN + script, root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{word}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "made\n"
        yield process


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(BEFORE_NAMESPACES, id="in the group"),
        pytest.param(AT_THE_ENTRANCE, id="at the entrance"),
    ],
)
def test_killed_while_a_sandbox_is_made(script: str, me: User) -> None:
    """Bwrap would not be told, or not by then, that its parent is gone: the guardian ends it."""
    word = token()
    with maker(script, me.root, word) as process:
        wait_until(lambda: not nothing_left(word), "bwrap is executed")  # after Popen knows
        assert not program_runs(word)
        process.kill()

    wait_until(lambda: nothing_left(word), "it ends")


def test_killed_before_the_kernel_knows(me: User) -> None:
    """A program that has begun in a session of its own, and is not to die with its parent, does."""
    word = token()
    with maker(BEGUN, me.root, word) as process:
        wait_until(lambda: program_runs(word), "it begins")
        process.kill()

    wait_until(lambda: nothing_left(word), "it ends")


def test_cancelled_while_a_sandbox_is_made(me: User, place: Path) -> None:
    """A command that has not begun yet does not, and nobody waits for it."""
    word, cancelled = token(), Late()
    overlay = me.overlay(place)

    with pytest.raises(SandboxError, match="cancelled"):
        run_command(
            Root(lower=overlay.lower, upper=overlay.upper, work=overlay.work),
            ("/probe", "outlive", word),
            workdir="/",
            env=(),
            network=False,
            log=lambda _: None,
            cancelled=cancelled,
        )

    assert nothing_left(word)


class Late(threading.Event):
    """Is set from the second question on: when bwrap has been started."""

    def is_set(self) -> bool:
        """Tell whether it was asked before."""
        before = super().is_set()
        self.set()
        return before
