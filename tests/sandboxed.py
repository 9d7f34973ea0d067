"""Runs in the sandbox by the user of the tests and by another one; what is left of them."""

from __future__ import annotations

import importlib
import os
import pickle
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nox_variants.errors import VariantsError
from nox_variants.model import Smoke
from nox_variants.sandbox.bubblewrap import find_bwrap
from nox_variants.sandbox.command import Root, run_command
from nox_variants.sandbox.program import Program, run_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nox_variants.results import Observation

OTHER = 65534
"""The user that tests run as which root started: nobody."""

LATE = (
    *("elftools.elf.elffile", "encodings.ascii", "fcntl", "packaging.version", "resource"),
    "termios",
    *("ctypes", "handmade", "nox_variants.sandbox.exits"),
)
"""What is imported late, and may lie in a folder of the user who runs the tests."""

PATIENCE = 30.0
"""Seconds that are waited for what has to happen, before the test fails."""


def give(folder: Path, uid: int | None) -> None:
    """Give a folder and all below it to a user."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, *2 * (-1 if uid is None else uid,), follow_symlinks=False)


@dataclass(frozen=True)
class User:
    """Who runs something in the sandbox: this process, or one of another user."""

    uid: int | None
    root: Path
    skeleton: Path
    process: Child | None = None

    def program(self, *argv: str, **changes: Any) -> Program:
        """Return a run of the probe: ``/probe`` and arguments, or a path and arguments."""
        argv = argv if argv[0].startswith("/") else ("/probe", *argv)
        options = {"lower": (self.root, self.skeleton), "env": (), "workdir": "/"} | changes
        return Program(argv=argv, **options)

    def run(self, *argv: str, cancel_on: str = "", **limits: Any) -> Observation:
        """Run the probe within limits."""
        return self.observe(self.program(*argv), Smoke(**limits), cancel_on)

    def observe(self, program: Program, smoke: Smoke, cancel_on: str = "") -> Observation:
        """Run a program."""
        seen: Observation = self._call(observe, program, smoke, cancel_on)
        return seen

    def start(self, program: Program, smoke: Smoke, cancel_on: str = "") -> Child:
        """Start a process that runs a program."""
        return child(self.uid, observe, program, smoke, cancel_on)

    def command(self, root: Root, *argv: str, **options: Any) -> tuple[int, str]:
        """Run the probe as a build's command; returns its exit code and its output."""
        argv = argv if argv[0].startswith("/") else ("/probe", *argv)
        result: tuple[int, str] = self._call(command, root, argv, **options)
        return result

    def _call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if self.process is None:
            return function(*args, **options)
        self.process.send(function, *args, **options)
        return self.process.answer()

    def overlay(self, folder: Path) -> Root:
        """Return the root of a build, with its writable half in a new folder."""
        overlay = Root(
            lower=(self.root, self.skeleton), upper=folder / "upper", work=folder / "work"
        )
        for path in (folder, overlay.upper, folder / "work"):
            path.mkdir()
        give(folder, self.uid)
        return overlay


def observe(program: Program, smoke: Smoke, cancel_on: str = "") -> Observation:
    """Run a program; cancel as soon as a process has a word in its command line."""
    cancelled = threading.Event()
    with cancelling(cancelled, cancel_on):
        return run_program(program, smoke, cancelled)


def command(
    root: Root, argv: tuple[str, ...], cancel_on: str = "", **changes: Any
) -> tuple[int, str]:
    """Run a build's command; returns its exit code and its output."""
    cancelled, output = threading.Event(), bytearray()
    defaults = {"workdir": "/", "env": (), "network": False, "log": output.extend}
    options: dict[str, Any] = defaults | changes
    with cancelling(cancelled, cancel_on):
        code = run_command(root, argv, cancelled=cancelled, **options)
    return code, output.decode()


class cancelling:  # noqa: N801  # used as a function
    """Sets an event as soon as a process has a word in its command line; never without a word."""

    def __init__(self, cancelled: threading.Event, word: str) -> None:
        self._thread = threading.Thread(target=self._wait)
        self._cancelled = cancelled
        self._word = word
        self._over = False

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._thread.join()

    def _wait(self) -> None:
        while self._word and not self._over:
            if program_runs(self._word):
                self._cancelled.set()
                return
            time.sleep(0.01)


def token() -> str:
    """Return a word that no other process of this machine has in its command line."""
    return f"token-{secrets.token_hex(8)}"


def processes(word: str) -> Iterator[tuple[int, list[str]]]:
    """Yield process ids and command lines that have an argument; zombies have none."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if word in words:
            yield int(file.parent.name), words


def program_runs(word: str) -> bool:
    """Tell whether a sandbox's program runs: bwrap's own command line has its words as well."""
    return any("--die-with-parent" not in words for _, words in processes(word))


def open_files() -> list[str]:
    """Return the numbers of this process's open files."""
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def nothing_left(word: str) -> bool:
    """Tell whether neither the program nor bwrap is there any more."""
    return not list(processes(word))


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what has to happen."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE:g} s in vain: {what}"
        time.sleep(0.01)


def child(uid: int | None, function: Callable[..., Any], *args: Any, **options: Any) -> Child:
    """Start a process that calls a test module's function, as another user unless that is None."""
    made = Child(uid)
    made.send(function, *args, **options)
    return made


class Child:
    """A process, of another user unless that is None, that calls functions of test modules."""

    def __init__(self, uid: int | None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin, self.process.stdout
        pickle.dump(uid, self._input)

    def send(self, function: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Let it call a function."""
        pickle.dump((function.__module__, function.__name__, args, options), self._input)
        self._input.flush()

    def answer(self) -> Any:
        """Return what the function returned, or raise what it raised."""
        value = pickle.load(self._output)  # noqa: S301  # our own
        if isinstance(value, BaseException):
            raise value
        return value

    def result(self) -> Any:
        """Return the last answer, and let the process end."""
        with self.process:
            return self.answer()


def _serve() -> None:
    uid = pickle.load(sys.stdin.buffer)  # noqa: S301
    for late in LATE:
        importlib.import_module(late)
    find_bwrap()
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        if not os.access(sys.executable, os.X_OK):
            sys.executable = "/usr/bin/python3"  # every user has one of her own, but for tests
    while True:
        try:
            module, name, args, options = pickle.load(sys.stdin.buffer)  # noqa: S301
        except EOFError:
            os._exit(0)  # coverage could not write its file now
        try:
            value = getattr(importlib.import_module(module), name)(*args, **options)
        except VariantsError as error:
            value = error
        sys.stdout.buffer.write(pickle.dumps(value))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()
