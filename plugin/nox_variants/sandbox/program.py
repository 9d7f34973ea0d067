"""A program under test in bubblewrap: contained, bounded, observed.

The root is a read-only overlay of what ships. The program is PID 1, as in a container: it has no
network but loopback, no capabilities, a bounded /tmp and /dev/shm, and limits on time, memory,
processes, output and file size that hold for root as well.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.results import Observation
from nox_variants.sandbox import seccomp
from nox_variants.sandbox.bubblewrap import (
    EXEC_FAILED,
    HOSTNAME,
    PATH,
    memory_file,
    setup_error,
    start,
    stop_if,
    stream,
)
from nox_variants.sandbox.watchdog import Usage, usage

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from nox_variants.model import Pairs, Smoke

TICK = 0.01
"""Seconds between two looks at the processes of the sandbox."""

GRACE = 2.0
"""Seconds that the sandbox gets to end after its program was killed."""

TMP_SIZE = 64 * 1024 * 1024
SHM_SIZE = 16 * 1024 * 1024

OPEN_FILES = 1024

SIGNALLED = 128
"""Exit codes above say which signal ended the program, as `docker run` reports it."""

_SIGNALS = 64
_CHUNK = 65536
_WORDS = 4096

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
        lower: Folders of the root, base first, at least two. The last has the folders dev, proc
            and tmp: mount points must not be links of an untrusted image.
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
    stop_if(cancelled)
    with ExitStack() as stack:
        sandbox = _Sandbox(program, smoke, stack)
        sandbox.release()
        sandbox.watch(cancelled)
        stop_if(cancelled)
        return sandbox.observation()


class _Sandbox:
    """One run of bubblewrap, from its start to its end, in one thread."""

    def __init__(self, program: Program, smoke: Smoke, stack: ExitStack) -> None:
        self._smoke = smoke
        self._stack = stack
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._sizes = {"stdout": 0, "stderr": 0}
        self._timed_out = self._out_of_memory = self._process_limit = False
        self._killed_at = self._next_look = 0.0
        self._proc = ""
        self._status, status_write = os.pipe()
        block_read, self._block = os.pipe()
        stack.callback(os.close, self._status)
        stack.callback(os.close, self._block)
        try:
            calls = stack.enter_context(memory_file(seccomp.program())).fileno()
            stdin = smoke.stdin
            self._process = stack.enter_context(
                start(
                    _flags(program, status=status_write, block=block_read, calls=calls),
                    stdin=subprocess.DEVNULL
                    if stdin is None
                    else stack.enter_context(memory_file(stdin.encode())),
                    stderr=subprocess.PIPE,
                    pass_fds=(status_write, block_read, calls),
                )
            )
        finally:
            os.close(status_write)
            os.close(block_read)
        stack.callback(self._process.kill)
        self._inner, self._pidfd = self._child()
        stack.callback(os.close, self._pidfd)
        stack.callback(self._kill)
        self._begin = self._end = time.monotonic()

    def _child(self) -> tuple[int, int]:
        """Return process id and descriptor of what becomes the program; it still waits for us."""
        line = b""
        while not line.endswith(b"}\n"):
            data = os.read(self._status, _CHUNK)
            if not data:
                raise self._setup_error()
            line += data
        inner = int(json.loads(line)["child-pid"])
        try:
            return inner, os.pidfd_open(inner)
        except ProcessLookupError:
            raise self._setup_error() from None

    def _setup_error(self) -> Exception:
        words = stream(self._process.stderr).read(_WORDS).decode(errors="replace")
        return setup_error(words, self._process.wait())

    def release(self) -> None:
        """Set the limits that the kernel keeps, and let the program begin."""
        import resource  # noqa: PLC0415  # not on Windows, where this module still has to load

        smoke = self._smoke
        self._begin = time.monotonic()
        # Where the sandbox could not be made there is nobody left: its words say why, later.
        with suppress(ProcessLookupError, BrokenPipeError):
            for what, most in (
                (resource.RLIMIT_FSIZE, smoke.file_size),
                (resource.RLIMIT_CORE, 0),
                (resource.RLIMIT_NPROC, 2 * smoke.processes + 16),
                (resource.RLIMIT_NOFILE, OPEN_FILES),
            ):
                _, hard = resource.prlimit(self._inner, what)
                bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.prlimit(self._inner, what, (bound, bound))
            os.write(self._block, b"x")

    def watch(self, cancelled: threading.Event) -> None:
        """Collect output until everything has ended; end it when it breaks a limit.

        The outer bwrap holds both pipes open until it has reaped its child: their end is the end.
        """
        files = {
            stream(self._process.stdout).fileno(): "stdout",
            stream(self._process.stderr).fileno(): "stderr",
        }
        poller = select.poll()
        for descriptor in files:
            poller.register(descriptor, select.POLLIN)
        while files:
            for descriptor, _ in poller.poll(TICK * 1000):
                if not self._read(descriptor, files[descriptor]):
                    poller.unregister(descriptor)
                    del files[descriptor]
            self._enforce(cancelled)
        self._end = time.monotonic()
        self._process.wait()

    def _read(self, descriptor: int, name: str) -> bool:
        """Keep what fits and throw the rest away, so that the program is never blocked."""
        data = os.read(descriptor, _CHUNK)
        kept = self._kept[name]
        kept += data[: max(self._smoke.output, _WORDS) - len(kept)]
        self._sizes[name] += len(data)
        return bool(data)

    def _enforce(self, cancelled: threading.Event) -> None:
        now = time.monotonic()
        if self._killed_at:
            if now > self._killed_at + GRACE:
                self._process.kill()
            return
        if now < self._next_look:
            return
        self._next_look = now + TICK
        used = self._usage()
        self._timed_out = now > self._begin + self._smoke.timeout
        self._out_of_memory = used.memory > self._smoke.memory
        self._process_limit = used.processes > self._smoke.processes
        if self._timed_out or self._out_of_memory or self._process_limit or cancelled.is_set():
            self._killed_at = now
            self._kill()

    def _kill(self) -> None:
        """End PID 1 and with it all others; the outer bwrap is left to see it and to end."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _usage(self) -> Usage:
        self._proc = self._proc or self._own_proc()
        if not self._proc:
            return Usage(0, 0)
        return usage(self._proc, memory=self._smoke.memory, processes=self._smoke.processes)

    def _own_proc(self) -> str:
        """Return where to read the sandbox's own /proc; nothing until the sandbox has its root."""
        try:
            descriptor = os.open(f"/proc/{self._inner}/root/proc", os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return ""
        self._stack.callback(os.close, descriptor)
        still_ours = os.fstat(descriptor).st_dev == os.stat("/proc").st_dev  # noqa: PTH116
        return "" if still_ours else f"/proc/self/fd/{descriptor}"

    def observation(self) -> Observation:
        """Return what was seen; bwrap reports an exit code only when its exec succeeded."""
        status = os.read(self._status, _CHUNK)
        if not status and not self._killed_at:
            return self._not_started()
        code = None if self._killed_at else int(json.loads(status)["exit-code"])
        most = self._smoke.output
        stdout, stderr = (
            bytes(kept[:most]).decode(errors="replace") for kept in self._kept.values()
        )
        return Observation(
            started=True,
            exit_code=code,
            signal=_signal(code),
            stdout=stdout,
            stderr=stderr,
            truncated=max(self._sizes.values()) > most,
            timed_out=self._timed_out,
            out_of_memory=self._out_of_memory,
            process_limit=self._process_limit,
            seconds=self._end - self._begin,
        )

    def _not_started(self) -> Observation:
        """Return the observation of a failed exec, or raise when the sandbox itself failed."""
        words = bytes(self._kept["stderr"]).decode(errors="replace")
        if self._process.returncode < 0 or not words.startswith(EXEC_FAILED):
            raise setup_error(words, self._process.returncode)
        return Observation(started=False, exec_error=words.strip().removeprefix(EXEC_FAILED))


def _signal(code: int | None) -> int | None:
    return code - SIGNALLED if code and SIGNALLED < code <= SIGNALLED + _SIGNALS else None


def _flags(program: Program, *, status: int, block: int, calls: int) -> list[str]:
    """Return bwrap's flags; the order of mounts is the order of flags."""
    flags = [*_CONTAINMENT, "--seccomp", str(calls)]
    flags += ["--json-status-fd", str(status), "--block-fd", str(block)]
    for path in program.lower:
        flags += ["--overlay-src", str(path)]
    flags += ["--ro-overlay", "/", *_MOUNTS]
    defaults = {"PATH": PATH, "HOSTNAME": HOSTNAME, "HOME": "/root"}
    for name, value in {**defaults, **dict(program.env)}.items():
        flags += ["--setenv", name, value]
    return [*flags, "--chdir", program.workdir, "--", *program.argv]
