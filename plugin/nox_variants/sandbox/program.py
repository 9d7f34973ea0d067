"""A program under test in bubblewrap: contained, bounded, observed.

The root is a read-only overlay of what ships. The program is PID 1, as in a container: it has no
network but loopback, no capabilities, a bounded /tmp and /dev/shm, and limits on time, memory,
processes, output and file size that hold for root as well.
"""

from __future__ import annotations

import functools
import os
import select
import signal
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants.errors import SandboxError
from nox_variants.results import Observation
from nox_variants.sandbox import accounts, seccomp, watchdog
from nox_variants.sandbox.bubblewrap import (
    EXEC_FAILED,
    HOSTNAME,
    NAMESPACES,
    PATH,
    memory_file,
    proc_flags,
    process_descriptor,
    said,
    setup_error,
    start,
    stop_if,
    stream,
)
from nox_variants.sandbox.companion import Companion
from nox_variants.sandbox.guardian import Entrance
from nox_variants.sandbox.probes import Probe, not_started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nox_variants.model import Pairs, Smoke
    from nox_variants.sandbox.accounts import Account
    from nox_variants.sandbox.exits import Exits
    from nox_variants.sandbox.probes import Fixtures

TICK = 0.01
"""Seconds between two looks at the processes of the sandbox."""

SETUP = 30.0
"""Seconds that the sandbox gets to be made; it takes milliseconds."""

_LOOK = 0.0003
"""Seconds between two looks whether a sandbox has its /proc."""

FILES = 0.05
"""Seconds between two looks at what lies in files of memory."""

GRACE = 2.0
"""Seconds that the sandbox gets to end after its program was killed."""

TMP_SIZE = 64 * 1024 * 1024
SHM_SIZE = 16 * 1024 * 1024

HOSTS = (
    "127.0.0.1\tlocalhost\n"
    "::1\tlocalhost ip6-localhost ip6-loopback\n"
    "fe00::\tip6-localnet\n"
    "ff00::\tip6-mcastprefix\n"
    "ff02::1\tip6-allnodes\n"
    "ff02::2\tip6-allrouters\n"
)
"""/etc/hosts of a run without a network, as container engines give it."""

NO_RESOLVER = "# A smoke run has no network.\n"
"""/etc/resolv.conf of such a run."""

OPEN_FILES = 1024

SIGNALLED = 128
"""Exit codes above say which signal ended the program, as `docker run` reports it."""

_FIRST = -20
_SIGNALS = 64
_CHUNK = 65536
_WORDS = 4096

_DEV = ("--dev", "/dev", "--perms", "1777", "--size", str(SHM_SIZE), "--tmpfs", "/dev/shm")  # noqa: S108
_TMP = ("--perms", "1777", "--size", str(TMP_SIZE), "--tmpfs", "/tmp")  # noqa: S108
_MOUNTS = (*_DEV, "--remount-ro", "/dev", *_TMP, "--remount-ro", "/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is run.

    Attributes:
        lower: Folders of the root, base first, at least two. The last has the folders dev, proc
            and tmp: mount points must not be links of an untrusted image.
        argv: The command: a path and arguments.
        env: Environment of the image and of the smoke run.
        workdir: Where it starts.
        user: Who runs it, as :func:`accounts.find` takes it.
        files: Files that the run lays over the root's: the path of each, with links followed, and
            what it says.
        fixtures: What is brought into its network.
    """

    lower: tuple[Path, ...]
    argv: tuple[str, ...]
    env: Pairs
    workdir: str
    user: str = ""
    files: tuple[tuple[str, bytes], ...] = ()
    fixtures: Fixtures | None = None


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
    account = accounts.find(program.lower, program.user)
    if account is None:
        words = f"unable to find user {program.user}: no matching entries in passwd file"
        return Observation(started=False, exec_error=words, service=not_started(smoke))
    with ExitStack() as stack:
        sandbox = _Sandbox(program, account, smoke, stack)
        stack.enter_context(_urgent())
        sandbox.release(cancelled)
        sandbox.watch(cancelled)
        stop_if(cancelled)
        return sandbox.observation()


@contextmanager
def _urgent() -> Iterator[None]:
    """Let this thread go first where it may: as root, whose programs RLIMIT_NPROC does not bind.

    Otherwise it would be one among the thousands of a fork bomb that it has to end.
    """
    thread = threading.get_native_id()
    before = os.getpriority(os.PRIO_PROCESS, thread)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, thread, _FIRST)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, thread, before)


class _Sandbox:
    """One run of bubblewrap, from its start to its end, in one thread."""

    def __init__(self, program: Program, account: Account, smoke: Smoke, stack: ExitStack) -> None:
        self._smoke = smoke
        self._stack = stack
        self._probe = Probe(smoke)
        self._wanted = program.fixtures
        self._fixtures: Companion | None = None
        self._kept = {"stdout": bytearray(), "stderr": bytearray()}
        self._sizes = {"stdout": 0, "stderr": 0}
        self._timed_out = self._out_of_memory = self._process_limit = False
        self._killed_at = self._next_look = self._next_files = 0.0
        self._startup: float | None = None
        self._exits: Exits | None = None
        self._together = self._at_kill = self._in_files = 0
        self._proc = ""
        self._folders: list[int] = []
        status_read, status_write = os.pipe()
        block_read, self._block = os.pipe()
        self._status = stack.enter_context(os.fdopen(status_read, "rb"))
        stack.callback(os.close, self._block)
        try:
            self._entrance = stack.enter_context(Entrance(seccomp.program()))
            calls = self._entrance.reading
            stdin = smoke.stdin
            files = {
                path: stack.enter_context(memory_file(data)).fileno()
                for path, data in program.files
            }
            start_it = functools.partial(
                start,
                _flags(program, account, files, status=status_write, block=block_read, calls=calls),
                stdin=subprocess.DEVNULL
                if stdin is None
                else stack.enter_context(memory_file(stdin.encode())),
                stderr=subprocess.PIPE,
                pass_fds=(status_write, block_read, calls, *files.values()),
            )
            if smoke.repeat > 1:
                from nox_variants.sandbox.exits import Exits  # noqa: PLC0415  # most run once

                self._exits = stack.enter_context(Exits(start_it))
            self._process = stack.enter_context(
                start_it() if self._exits is None else self._exits.process
            )
        finally:
            os.close(status_write)
            os.close(block_read)
        self._entrance.started()
        stack.callback(self._process.kill)
        self._inner, self._pidfd = self._child()
        stack.callback(os.close, self._pidfd)
        self._ended = select.poll()
        self._ended.register(self._pidfd, select.POLLIN)
        self._begin = self._seconds = 0.0

    def _child(self) -> tuple[int, int]:
        """Return process id and descriptor of what becomes the program; it still waits for us."""
        inner = said(self._status, "child-pid")
        descriptor = None if inner is None else process_descriptor(inner)
        if inner is None or descriptor is None:
            words = stream(self._process.stderr).read(_WORDS).decode(errors="replace")
            raise setup_error(words, self._process.wait())
        return inner, descriptor

    def release(self, cancelled: threading.Event) -> None:
        """Set the limits that the kernel keeps, and let the program begin when all is made."""
        self._limit()
        self._proc = self._own_proc()
        if self._proc:
            self._stack.callback(self._end)
            if self._wanted is not None:
                self._fixtures = Companion(self._inner, self._probe, self._stack)
                self._fixtures.begin(self._wanted, cancelled)
            self._begin = time.monotonic()
            with suppress(BrokenPipeError):
                os.write(self._block, b"x")
            self._entrance.open(self._inner)

    def _limit(self) -> None:
        import resource  # noqa: PLC0415  # not on Windows, where this module still has to load

        smoke = self._smoke
        for what, most in (
            (resource.RLIMIT_FSIZE, smoke.file_size),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_NPROC, 2 * smoke.processes + 16),
            (resource.RLIMIT_NOFILE, OPEN_FILES),
        ):
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(self._inner, what)
                bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.prlimit(self._inner, what, (bound, bound))
        with suppress(OSError):  # where this machine runs out of memory, it is ended first
            Path(f"/proc/{self._inner}/oom_score_adj").write_text("1000", encoding="ascii")

    def _own_proc(self) -> str:
        """Return where the sandbox's own /proc can be read; nothing when it could not be made.

        From before the program's first instruction on, so that nothing it does can hide it.

        Raises:
            SandboxError: It was made, it seems, and cannot be read.
        """
        until = time.monotonic() + SETUP
        while not self._ended.poll(0):
            with suppress(OSError):  # it is not there yet, or has just been killed
                theirs, ours = map(os.stat, (f"/proc/{self._inner}/root/proc", "/proc"))
                # Until the sandbox has its root, that is this process's own /proc.
                if theirs.st_dev != ours.st_dev:
                    proc, *self._folders = map(self._open, ("proc", "tmp", "dev/shm"))
                    return f"/proc/self/fd/{proc}"
            if time.monotonic() > until:
                raise SandboxError(
                    "what runs in the sandbox cannot be watched: its /proc cannot be read",
                    hint="Does a security module keep processes of one user from each other?",
                )
            time.sleep(_LOOK)
        return ""

    def _open(self, place: str) -> int:
        """Open a folder of the sandbox until the run is over."""
        path = f"/proc/{self._inner}/root/{place}"
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        self._stack.callback(os.close, descriptor)
        return descriptor

    def watch(self, cancelled: threading.Event) -> None:
        """Collect output until everything has ended; end it when it breaks a limit.

        The outer bwrap holds both pipes open until it has reaped its child: their end is the end.
        """
        files = {
            stream(self._process.stdout).fileno(): "stdout",
            stream(self._process.stderr).fileno(): "stderr",
        }
        poller = select.poll()
        for descriptor in (*files, *self._said_by_fixtures()):
            poller.register(descriptor, select.POLLIN)
        poller.register(self._pidfd, select.POLLIN)
        while files:
            for descriptor, _ in poller.poll(TICK * 1000):
                if descriptor == self._pidfd:
                    self._startup = time.monotonic() - self._begin
                    poller.unregister(descriptor)
                elif descriptor not in files:
                    self._hear()
                elif not self._read(descriptor, files[descriptor]):
                    poller.unregister(descriptor)
                    del files[descriptor]
            self._enforce(cancelled)
        self._seconds = time.monotonic() - self._begin
        self._process.wait()
        if self._fixtures is not None:
            self._fixtures.finish(self._begin)

    def _said_by_fixtures(self) -> tuple[int, ...]:
        return () if self._fixtures is None else (self._fixtures.output.fileno(),)

    def _hear(self) -> None:
        """Take in what the fixtures say: when they have failed, the run is worth nothing."""
        if self._fixtures is not None:
            self._fixtures.read(time.monotonic() - self._begin)
            self._fixtures.check()

    def _read(self, descriptor: int, name: str) -> bool:
        """Keep what fits and throw the rest away, so that the program is never blocked."""
        data = os.read(descriptor, _CHUNK)
        kept = self._kept[name]
        kept += data[: max(self._smoke.output, _WORDS) - len(kept)]
        self._sizes[name] += len(data)
        return bool(data)

    def _enforce(self, cancelled: threading.Event) -> None:
        now = time.monotonic()
        if now < self._next_look or not self._proc:
            return
        self._next_look = now + TICK
        if not self._killed_at:
            self._judge(now, cancelled)
        if self._killed_at:
            self._kill()
            if now > self._killed_at + GRACE:
                self._process.kill()

    def _judge(self, now: float, cancelled: threading.Event) -> None:
        if now > self._next_files:
            self._next_files = now + FILES
            self._in_files = watchdog.stored(self._folders) + watchdog.memory_files(self._proc)
        closer = self._smoke.memory - self._in_files
        if self._exits is not None:
            closer = min(closer, self._together)
        used = watchdog.usage(self._proc, memory=closer, processes=self._smoke.processes)
        if used.processes > 1:  # a single one may still be bwrap; its exit says more
            self._together = max(self._together, used.memory)
        unmapped = max(0, self._in_files - used.shared)
        due = self._probe.due(now - self._begin)
        if due is signal.SIGTERM:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, due)
        late = now > self._begin + self._smoke.timeout
        self._timed_out = late and self._smoke.service is None
        self._out_of_memory = used.memory + unmapped > self._smoke.memory
        self._process_limit = used.processes > self._smoke.processes
        stop = due is signal.SIGKILL or cancelled.is_set()
        if stop or self._timed_out or self._out_of_memory or self._process_limit:
            self._killed_at = now
            self._at_kill = 0 if self._exits is None else watchdog.peaks(self._proc)

    def _kill(self) -> None:
        """Kill everything in the sandbox; the outer bwrap is left to see it, and ends."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            watchdog.kill(self._proc)

    def _end(self) -> None:
        """Kill everything that is still there when the run is over, for a while."""
        until = time.monotonic() + GRACE
        while not self._ended.poll(TICK * 1000) and time.monotonic() < until:
            self._kill()

    def observation(self) -> Observation:
        """Return what was seen; bwrap reports an exit code only when its exec succeeded."""
        code = None if self._killed_at else said(self._status, "exit-code")
        if code is None and not self._killed_at:
            return self._not_started()
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
            seconds=self._seconds,
            startup=self._started_up(),
            peak_memory=self._peak_memory(),
            service=self._probe.seen(self._seconds, killed=bool(self._killed_at)),
            distrusted=self._probe.distrusted,
        )

    def _started_up(self) -> float | None:
        if self._smoke.service is not None:
            return self._probe.answered
        if self._killed_at or self._startup is None:
            return None
        return self._startup - (self._exits.held(self._inner) if self._exits else 0.0)

    def _peak_memory(self) -> int | None:
        """Return the most memory of one process, or of several at one look, where that is known."""
        exits = self._exits
        if exits is None or not (self._at_kill or exits.saw(self._inner)):
            return None
        return max(self._at_kill, exits.peak(), self._together)

    def _not_started(self) -> Observation:
        """Return the observation of a failed exec, or raise when the sandbox itself failed."""
        words = bytes(self._kept["stderr"]).decode(errors="replace")
        if self._process.returncode < 0 or not words.startswith(EXEC_FAILED):
            raise setup_error(words, self._process.returncode)
        return Observation(
            started=False,
            exec_error=words.strip().removeprefix(EXEC_FAILED),
            service=not_started(self._smoke),
        )


def _signal(code: int | None) -> int | None:
    return code - SIGNALLED if code and SIGNALLED < code <= SIGNALLED + _SIGNALS else None


def _flags(
    program: Program,
    account: Account,
    files: dict[str, int],
    *,
    status: int,
    block: int,
    calls: int,
) -> list[str]:
    """Return bwrap's flags; the order of mounts is the order of flags."""
    flags = [*NAMESPACES, "--uid", str(account.uid), "--gid", str(account.gid)]
    flags += ["--as-pid-1", "--seccomp", str(calls)]
    flags += ["--json-status-fd", str(status), "--block-fd", str(block)]
    for path in program.lower:
        flags += ["--overlay-src", str(path)]
    flags += ["--ro-overlay", "/"]
    for place, file in files.items():
        flags += ["--perms", "0644", "--ro-bind-data", str(file), place]
    flags += [*proc_flags(), *_MOUNTS]
    defaults = {"PATH": PATH, "HOSTNAME": HOSTNAME, "HOME": account.home}
    for name, value in {**defaults, **dict(program.env)}.items():
        flags += ["--setenv", name, value]
    return [*flags, "--chdir", program.workdir, "--", *program.argv]
