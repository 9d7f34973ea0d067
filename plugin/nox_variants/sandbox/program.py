"""A program under test in bubblewrap: contained, bounded, observed.

The root is a read-only overlay of what ships. The program is PID 1, as in a container: it has no
network but loopback, no capabilities, a bounded /tmp and /dev/shm, and limits on time, memory,
processes, output and file size that hold for root as well.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from select import EPOLLIN, epoll
from typing import IO, TYPE_CHECKING

from nox_variants.errors import SandboxError
from nox_variants.results import Observation
from nox_variants.sandbox.bubblewrap import PATH, find_bwrap, setup_error
from nox_variants.sandbox.watchdog import usage

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from nox_variants.model import Pairs, Smoke

TICK = 0.01
"""Seconds between two looks at the process tree."""

GRACE = 2.0
"""Seconds that the sandbox gets to end after its program was killed."""

HOSTNAME = "variant"

TMP_SIZE = 64 * 1024 * 1024
SHM_SIZE = 16 * 1024 * 1024

OPEN_FILES = 1024

SIGNALLED = 128
"""Exit codes above say which signal ended the program, as `docker run` reports it."""

_SIGNALS = 64
_CHUNK = 65536

_CONTAINMENT = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--as-pid-1", "--die-with-parent"),
    *("--new-session", "--cap-drop", "ALL", "--clearenv", "--hostname", HOSTNAME),
    *("--uid", "0", "--gid", "0"),
)

_MOUNTS = (
    *("--proc", "/proc", "--dev", "/dev"),
    *("--perms", "1777", "--size", str(SHM_SIZE), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),  # noqa: S108
    *("--perms", "1777", "--size", str(TMP_SIZE), "--tmpfs", "/tmp", "--remount-ro", "/"),  # noqa: S108
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is run.

    Attributes:
        lower: Folders of the root, base first, at least two, each with what the mounts need.
        argv: The command: a path and arguments.
        env: Environment of the image and of the smoke run.
        workdir: Where it starts.
    """

    lower: tuple[Path, ...]
    argv: tuple[str, ...]
    env: Pairs
    workdir: str


def run_program(program: Program, smoke: Smoke, cancelled: threading.Event) -> Observation:
    """Run a program within the limits and report what was seen.

    Args:
        program: What is run.
        smoke: Standard input and the limits.
        cancelled: Ends the program and everything that it started.

    Raises:
        SandboxError: The sandbox could not be set up, or the run was cancelled.
        EngineUnavailable: The kernel forbids sandboxes.
    """
    with ExitStack() as stack:
        sandbox = _Sandbox(program, smoke, stack)
        sandbox.release()
        sandbox.watch(cancelled)
        return sandbox.observation()


class _Sandbox:
    """One run of bubblewrap, from its start to its end, in one thread.

    ``--die-with-parent`` follows the thread that started it: the same thread has to wait.
    """

    def __init__(self, program: Program, smoke: Smoke, stack: ExitStack) -> None:
        self._smoke = smoke
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self._truncated = self._timed_out = self._out_of_memory = self._process_limit = False
        self._killed_at = 0.0
        self._status, status_write = os.pipe()
        block_read, self._block = os.pipe()
        stack.callback(os.close, self._status)
        stack.callback(os.close, self._block)
        try:
            self._process = stack.enter_context(
                subprocess.Popen(
                    _command(program, status_write, block_read),
                    stdin=stack.enter_context(_stdin(smoke.stdin)),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    pass_fds=(status_write, block_read),
                    start_new_session=True,
                )
            )
        finally:
            os.close(status_write)
            os.close(block_read)
        stack.callback(self._process.kill)
        self._inner = self._child_pid()
        self._pidfd = os.pidfd_open(self._inner)
        stack.callback(os.close, self._pidfd)
        self._begin = self._end = time.monotonic()

    def _child_pid(self) -> int:
        """Wait until the sandbox is made; its program still waits for us."""
        line = b""
        while not line.endswith(b"}\n"):
            data = os.read(self._status, _CHUNK)
            if not data:
                raise setup_error(
                    _stream(self._process.stderr).read(_CHUNK).decode(errors="replace")
                )
            line += data
        return int(json.loads(line)["child-pid"])

    def release(self) -> None:
        """Set the limits that the kernel keeps, and let the program begin."""
        smoke = self._smoke
        for what, most in (
            (resource.RLIMIT_FSIZE, smoke.file_size),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NPROC, 2 * smoke.processes + 16),
            (resource.RLIMIT_NOFILE, OPEN_FILES),
        ):
            _, hard = resource.prlimit(self._inner, what)
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.prlimit(self._inner, what, (bound, bound))
        self._begin = time.monotonic()
        os.write(self._block, b"x")

    def watch(self, cancelled: threading.Event) -> None:
        """Collect output until everything has ended; end it when it breaks a limit.

        The outer bwrap holds both pipes open until it has reaped its child: their end is the end.
        """
        files = {
            _stream(self._process.stdout).fileno(): "stdout",
            _stream(self._process.stderr).fileno(): "stderr",
        }
        with epoll() as poller:
            for descriptor in files:
                poller.register(descriptor, EPOLLIN)
            while files:
                for descriptor, _ in poller.poll(TICK):
                    if not self._read(descriptor, files[descriptor]):
                        poller.unregister(descriptor)
                        del files[descriptor]
                self._enforce(cancelled)
        self._end = time.monotonic()
        self._process.wait()
        if cancelled.is_set():
            raise SandboxError("cancelled")

    def _read(self, descriptor: int, name: str) -> bool:
        """Keep what fits and throw the rest away, so that the program is never blocked."""
        data = os.read(descriptor, _CHUNK)
        kept = self._output[name]
        room = self._smoke.output - len(kept)
        kept += data[:room]
        self._truncated |= len(data) > room
        return bool(data)

    def _enforce(self, cancelled: threading.Event) -> None:
        now = time.monotonic()
        if self._killed_at:
            if now > self._killed_at + GRACE:
                self._process.kill()
            return
        used = usage(self._inner, enough=self._smoke.processes)
        self._timed_out = now > self._begin + self._smoke.timeout
        self._out_of_memory = used.memory > self._smoke.memory
        self._process_limit = used.processes > self._smoke.processes
        if self._timed_out or self._out_of_memory or self._process_limit or cancelled.is_set():
            self._killed_at = now
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def observation(self) -> Observation:
        """Return what was seen; bwrap reports an exit code only when its exec succeeded."""
        stdout, stderr = (bytes(data).decode(errors="replace") for data in self._output.values())
        status = os.read(self._status, _CHUNK)
        code = json.loads(status)["exit-code"] if status else None
        if code is None and not self._killed_at:
            return _not_started(stderr)
        if self._killed_at:
            code = None
        return Observation(
            started=True,
            exit_code=code,
            signal=_signal(code),
            stdout=stdout,
            stderr=stderr,
            truncated=self._truncated,
            timed_out=self._timed_out,
            out_of_memory=self._out_of_memory,
            process_limit=self._process_limit,
            seconds=self._end - self._begin,
        )


def _signal(code: int | None) -> int | None:
    return code - SIGNALLED if code and SIGNALLED < code <= SIGNALLED + _SIGNALS else None


def _not_started(words: str) -> Observation:
    """Return the observation of a failed exec, or raise when the sandbox itself failed."""
    if not words.startswith("bwrap: execvp "):
        raise setup_error(words)
    return Observation(started=False, exec_error=words.strip().removeprefix("bwrap: execvp "))


def _command(program: Program, status: int, block: int) -> list[str]:
    """Return bwrap's command line; the order of mounts is the order of flags."""
    command = [str(find_bwrap()), *_CONTAINMENT]
    command += ["--json-status-fd", str(status), "--block-fd", str(block)]
    for path in program.lower:
        command += ["--overlay-src", str(path)]
    command += ["--ro-overlay", "/", *_MOUNTS]
    defaults = {"PATH": PATH, "HOSTNAME": HOSTNAME, "HOME": "/root"}
    for name, value in {**defaults, **dict(program.env)}.items():
        command += ["--setenv", name, value]
    return [*command, "--chdir", program.workdir, "--", *program.argv]


def _stdin(text: str | None) -> IO[bytes]:
    """Return an open file with the program's standard input."""
    file = os.fdopen(os.memfd_create("stdin"), "w+b")
    file.write((text or "").encode())
    file.seek(0)
    return file


def _stream(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise AssertionError
    return pipe
