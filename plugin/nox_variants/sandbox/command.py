"""Commands in the sandbox: builds and `setup`, on a root that is not the host's.

They are uid 0, with the capabilities that container engines give a build.
"""

from __future__ import annotations

import os
import posixpath
import select
import signal
import subprocess
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from nox_variants import rootfs
from nox_variants.errors import SandboxError
from nox_variants.sandbox import seccomp
from nox_variants.sandbox.bubblewrap import (
    AS_ROOT,
    EXEC_FAILED,
    MAP_ALL,
    MAPPED_NAMESPACES,
    NAMESPACES,
    PATH,
    home,
    proc_flags,
    process_descriptor,
    said,
    setup_error,
    start,
    stop_if,
    stream,
)
from nox_variants.sandbox.guardian import Entrance

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from nox_variants.model import Pairs

NOT_EXECUTED = 127
"""What a shell returns for a command that cannot be executed."""

POLL_MS = 100
"""How often a running command is asked whether the run was cancelled."""

_CHUNK = 65536
_KEPT_ERROR = 4096

_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
        *("NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"),
    )
)
"""What Docker gives a build: with fewer, a read-only file would stop an ordinary user's only."""

_HOST_FILES = ("/etc/resolv.conf", "/etc/hosts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The root filesystem of a command.

    Attributes:
        lower: Read-only folders, stacked; a later one hides an earlier one's files.
        upper: Where changes go. Without `lower` it is the writable root itself.
        work: The overlay's own work folder, empty, on the file system of `upper`.
    """

    lower: tuple[Path, ...] = ()
    upper: Path
    work: Path | None = None

    @property
    def stack(self) -> tuple[Path, ...]:
        """All its folders, base first."""
        return (*self.lower, self.upper)

    def flags(self) -> tuple[str, ...]:
        """Return bwrap's flags that make it ``/``."""
        if not self.lower:
            return ("--bind", str(self.upper), "/")
        sources = tuple(part for path in self.lower for part in ("--overlay-src", str(path)))
        return (*sources, "--overlay", str(self.upper), str(self.work), "/")

    def place(self, path: str) -> str:
        """Return an absolute path with its links followed inside the root; it need not exist.

        Bwrap makes mount points with this machine's files still at hand below ``/oldroot``: a link
        that an earlier command left would lead it there.

        Raises:
            SandboxError: A link leads nowhere.
        """
        found = rootfs.resolve(self.stack, path)
        if found is not None:
            layer = next(each for each in self.stack if found.is_relative_to(each))
            return posixpath.normpath(f"/{found.relative_to(layer)}")
        parent, name = posixpath.split(posixpath.normpath(path))
        place = posixpath.join(self.place(parent), name)
        if any((layer / place[1:]).is_symlink() for layer in self.stack):
            raise SandboxError(f"{path} of the root is a link that leads nowhere")
        return place


def run_command(
    root: Root,
    argv: tuple[str, ...],
    *,
    workdir: str,
    env: Pairs,
    binds: tuple[tuple[Path, str], ...] = (),
    network: bool,
    log: Callable[[bytes], None],
    cancelled: threading.Event,
    mapped: bool = False,
) -> int:
    """Run a command to its end, with what a container engine gives a build.

    Args:
        root: Its root filesystem.
        argv: The command, a path and arguments.
        workdir: Where it starts; must exist.
        env: Its whole environment besides PATH and HOME, which have defaults.
        binds: Folders of this machine that appear, writable, at paths of the root.
        network: Whether it shares this machine's network.
        log: Called with its output, standard error included, as it comes.
        cancelled: Ends the command and everything that it started.
        mapped: Whether it may use all uids that the user may; it then shares the network.

    Returns:
        Its exit code; 128 and the number for a signal; 127 when it cannot be executed.

    Raises:
        SandboxError: The sandbox could not be set up, or the run was cancelled.
        EngineUnavailable: The kernel forbids sandboxes.
    """
    stop_if(cancelled)
    namespaces = MAPPED_NAMESPACES if mapped else (*NAMESPACES, *AS_ROOT)
    share = ("--share-net",) if network and not mapped else ()
    flags = [*namespaces, *share, *_build_flags(root, env, binds, network=network)]
    flags += ["--chdir", workdir, "--", *argv]
    status_read, status_write = os.pipe()
    with os.fdopen(status_read, "rb") as status, Entrance(seccomp.program()) as entrance:
        calls = entrance.reading
        try:
            process = start(
                ["--json-status-fd", str(status_write), "--seccomp", str(calls), *flags],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                pass_fds=(status_write, calls),
                within=MAP_ALL if mapped else (),
            )
        finally:
            os.close(status_write)
            entrance.started()
        inner = said(status, "child-pid")
        with process, _outlasting(inner) as end_sandbox:

            def end() -> None:
                process.kill()
                end_sandbox()

            try:
                entrance.reached(lambda: cancelled.is_set() or process.poll() is not None)
                if not cancelled.is_set():
                    entrance.open(inner)
                entrance.close()
                output = stream(process.stdout)
                last = _pump(output, log, cancelled, end).decode(errors="replace")
            except BaseException:
                end()
                raise
        stop_if(cancelled)
        if said(status, "exit-code") is not None:
            return process.returncode
    if last.startswith(EXEC_FAILED):
        return NOT_EXECUTED
    raise setup_error(last, process.returncode)


def _build_flags(
    root: Root, env: Pairs, binds: tuple[tuple[Path, str], ...], *, network: bool
) -> list[str]:
    """Return bwrap's flags for a build; the order of mounts is the order of flags."""
    flags = [part for name in _CAPABILITIES for part in ("--cap-add", name)]
    flags += [*root.flags(), *proc_flags(root.place("/proc")), "--dev", root.place("/dev")]
    # What a command leaves in /tmp is no part of an image, on any engine.
    flags += ["--perms", "1777", "--tmpfs", root.place("/tmp")]  # noqa: S108
    if network:
        for name in _HOST_FILES:
            flags += ["--ro-bind-try", name, root.place(name)]
    for path, target in binds:
        flags += ["--bind", str(path), root.place(target)]
    for name, value in {"PATH": PATH, "HOME": home(root.stack), **dict(env)}.items():
        flags += ["--setenv", name, value]
    return flags


def _pump(
    output: IO[bytes],
    log: Callable[[bytes], None],
    cancelled: threading.Event,
    end: Callable[[], None],
) -> bytes:
    """Pass output on until its end; end the sandbox when cancelled. Returns the last words."""
    descriptor, last = output.fileno(), b""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN | select.POLLHUP)
    while True:
        if cancelled.is_set():
            end()
        if not poller.poll(POLL_MS):
            continue
        data = os.read(descriptor, _CHUNK)
        if not data:
            return last
        last = (last + data)[-_KEPT_ERROR:]
        log(data)


@contextmanager
def _outlasting(inner: int | None) -> Iterator[Callable[[], None]]:
    """Wait until a sandbox's first process has ended, which it does after all others.

    Bwrap itself ends before: what a command left running could still write, for a moment.

    Yields:
        What ends that process. One whose sandbox is still being made does not end with bwrap: it
        waits for it to map its users, for ever.
    """
    descriptor = None if inner is None else process_descriptor(inner)

    def end() -> None:
        if descriptor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    try:
        yield end
    finally:
        if descriptor is not None:
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            ended.poll()
            os.close(descriptor)
