"""A shell beside a program's own files: the tools it brings, and how it runs in bubblewrap.

The tools lie in one folder that an image hardly has, at the end of PATH: the image's own files
win. The root can be written, and what was written is thrown away. Otherwise the shell has what the
program has in its smoke run, without the limits.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from nox_variants import programfile, rootfs, terminal
from nox_variants.errors import ImageError, SandboxError
from nox_variants.oci.digest import canonical_json
from nox_variants.results import Linkage
from nox_variants.sandbox import seccomp
from nox_variants.sandbox.bubblewrap import (
    AS_ROOT,
    HOSTNAME,
    NAMESPACES,
    PATH,
    find_bwrap,
    home,
    memory_file,
    proc_flags,
    said,
    setup_error,
)
from nox_variants.sandbox.program import SHM_SIZE, TMP_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nox_variants.model import Pairs
    from nox_variants.results import PreparedImage
    from nox_variants.store import Store

FOLDER = "/.debug/bin"
"""Where the tools are."""

_BUSYBOX = f"{FOLDER}/busybox"
_START = "/.debug/start"
_CONSOLE = "/dev/console"
_CHUNK = 65536
_UMASK = 0o022
_EOT = b"\x04"

_SCRIPT = f"""\
unset SHLVL PWD OLDPWD
[ "$1" ] && exec 0<>"$1" 1>&0 2>&0
shift
{FOLDER}/chmod u+w / 2>/dev/null
look_up() {{
  IFS=:
  set -f
  for nox_variants in $PATH; do
    nox_variants=$nox_variants/$1
    [ -f "$nox_variants" ] && [ -x "$nox_variants" ] && return
  done
  return 1
}}
if [ $# = 0 ]; then
  look_up sh && "$nox_variants" -c : </dev/null >/dev/null 2>&1 || nox_variants={FOLDER}/sh
else
  case $1 in
    */*) nox_variants=$1 ;;
    *) look_up "$1" || {{
      echo "nox-variants: $1: not found in PATH=$PATH" >&2
      exit 127
    }} ;;
  esac
  shift
fi
"$nox_variants" "$@"
exit $?
"""
"""What looks a command up, as every shell does, and runs it as a child.

Busybox itself would prefer its own tools to files in PATH, in some builds; and the first process of
a PID namespace is spared most signals. A terminal that is named becomes the session's own: the
first that its leader opens is the one that controls it (tty_ioctl(4)). Podman may make the root of
an image on nothing read-only even for its owner.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What is run.

    Attributes:
        lower: Folders of the root, base first; the last but one is the skeleton of smoke runs, the
            last has the tools.
        command: A command and its arguments; empty for a shell.
        env: Environment of the image and of the smoke run.
        workdir: Where it starts.
        terminal: The kind of the user's terminal, as TERM has it; empty for none.
    """

    lower: tuple[Path, ...]
    command: tuple[str, ...]
    env: Pairs
    workdir: str
    terminal: str


def tools(store: Store, image: PreparedImage, root: Path) -> Path:
    """Return a root with nothing but busybox, under all its names, in :data:`FOLDER`.

    Args:
        store: Where it is kept.
        image: An image with a static busybox.
        root: That image's files.

    Raises:
        ImageError: It has none.
    """
    identity = hashlib.sha256(canonical_json([image.digest, _SCRIPT])).hexdigest()
    key = f"skeleton-tools-{identity}"
    if store.find("layers", key) is None:
        busybox = _busybox(image, root)
        with store.publish("layers", key) as staging:
            folder = staging / "root" / FOLDER[1:]
            folder.mkdir(parents=True)
            shutil.copyfile(busybox, folder / "busybox")
            (folder / "busybox").chmod(0o755)
            for name in _names(root, busybox):
                (folder / name).symlink_to("busybox")
            (staging / "root" / _START[1:]).write_text(_SCRIPT, encoding="utf-8")
    return store.entry("layers", key) / "root"


def _busybox(image: PreparedImage, root: Path) -> Path:
    file = rootfs.resolve((root,), "/bin/busybox")
    if file is None or programfile.read_facts(file).linkage is not Linkage.STATIC:
        raise ImageError(
            f"image {image.name} has no static /bin/busybox to debug with",
            hint="Its sources under `images` in the file may have to be changed.",
        )
    return file


def _names(root: Path, busybox: Path) -> set[str]:
    """Return all names that an image has for busybox."""
    found = {"sh"}
    for place in ("/bin", "/sbin", "/usr/bin", "/usr/sbin"):
        folder = rootfs.resolve((root,), place)
        for entry in folder.iterdir() if folder is not None and folder.is_dir() else ():
            file = rootfs.resolve((root,), f"{place}/{entry.name}")
            if file is not None and file.is_file() and file.samefile(busybox):
                found.add(entry.name)
    return found - {"busybox"}


def argv(command: tuple[str, ...], console: str = "") -> tuple[str, ...]:
    """Return what the first process of a session executes.

    Args:
        command: A command and its arguments; empty for the image's shell, or the tools' own.
        console: A terminal that it has to make its own; empty where it has one or needs none.
    """
    return (_BUSYBOX, "sh", _START, console, *command)


def environment(env: Pairs, kind: str) -> dict[str, str]:
    """Return an environment with the tools at the end of PATH.

    Args:
        env: Environment of the image and of the smoke run.
        kind: The kind of the user's terminal; empty for none.
    """
    values = dict(env)
    values["PATH"] = f"{values.get('PATH') or PATH}:{FOLDER}"
    return {"TERM": kind, **values} if kind else values


def run_session(session: Session) -> int:
    """Run a session to its end.

    Returns:
        The command's exit code; 128 and the number for a signal.

    Raises:
        SandboxError: The sandbox could not be set up.
        EngineUnavailable: The kernel forbids sandboxes.
    """
    with ExitStack() as stack:
        status_read, status_write = os.pipe()
        status = stack.enter_context(os.fdopen(status_read, "rb"))
        calls = stack.enter_context(memory_file(seccomp.program())).fileno()
        with os.fdopen(status_write, "wb") as writing:
            flags = _flags(session, status=writing.fileno(), calls=calls)
            user = _Terminal(stack) if session.terminal else None
            process = stack.enter_context(
                _started(flags, (writing.fileno(), calls), user.other if user else None)
            )
        if user:
            user.relay()
        process.wait()
        code = said(status, "exit-code")
        if code is None:
            raise setup_error("bubblewrap's own words are above", process.returncode)
        return code


@contextmanager
def _started(
    flags: list[str], passed: tuple[int, ...], user: int | None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start bwrap; nothing of it is left at the end."""
    try:
        process = subprocess.Popen(
            [str(find_bwrap()), *flags],
            stdin=user,
            stdout=user,
            stderr=user,
            pass_fds=passed,
            start_new_session=True,
            umask=_UMASK,
        )
    except OSError as error:
        raise SandboxError(f"bubblewrap cannot be started: {error.strerror}") from error
    with process:
        try:
            yield process
        finally:
            process.kill()


class _Terminal:
    """A terminal of the session's own, and the user's as its window.

    The user's itself stays out of reach: it takes input that was pushed into it (ioctl_tty(2)).

    Attributes:
        other: Descriptor of the end that the session gets.
    """

    def __init__(self, stack: ExitStack) -> None:
        import termios  # noqa: PLC0415  # not on Windows, where this module still has to load

        own, self.other = os.openpty()
        self._other = stack.enter_context(os.fdopen(self.other, "wb", buffering=0))
        self._own: IO[bytes] = stack.enter_context(os.fdopen(own, "r+b", buffering=0))
        termios.tcsetattr(self.other, termios.TCSANOW, termios.tcgetattr(terminal.STDIN))

    def relay(self) -> None:
        """Pass everything on in both directions until the session ends."""
        self._other.close()
        with terminal.raw(self._resize):
            terminal.feed(self._own.write, lambda: self._own.write(_EOT))
            while data := self._read():
                terminal.write(terminal.STDOUT, data)

    def _read(self) -> bytes:
        with suppress(OSError):  # EIO: nobody has the other end any more
            return os.read(self._own.fileno(), _CHUNK)
        return b""

    def _resize(self, size: os.terminal_size) -> None:
        import termios  # noqa: PLC0415  # as above

        with suppress(OSError, ValueError):
            termios.tcsetwinsize(self._own.fileno(), (size.lines, size.columns))


def _flags(session: Session, *, status: int, calls: int) -> list[str]:
    """Return bwrap's flags; the order of mounts is the order of flags."""
    flags = [
        *NAMESPACES,
        *AS_ROOT,
        "--as-pid-1",
        "--seccomp",
        str(calls),
        "--json-status-fd",
        str(status),
    ]
    for path in session.lower:
        flags += ["--overlay-src", str(path)]
    flags += ["--tmp-overlay", "/", *proc_flags(), "--dev", "/dev"]
    for place, size in (("/dev/shm", SHM_SIZE), ("/tmp", TMP_SIZE)):  # noqa: S108  # the sandbox's
        flags += ["--perms", "1777", "--size", str(size), "--tmpfs", place]
    flags += ["--remount-ro", "/dev"]
    defaults = {"HOSTNAME": HOSTNAME, "HOME": home(session.lower)}
    for name, value in {**defaults, **environment(session.env, session.terminal)}.items():
        flags += ["--setenv", name, value]
    command = argv(session.command, _CONSOLE if session.terminal else "")
    return [*flags, "--chdir", session.workdir, "--", *command]
