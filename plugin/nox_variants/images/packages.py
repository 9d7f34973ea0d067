"""Debian packages to a root filesystem: unpacked in a sandbox, never installed.

No maintainer script runs: what such scripts would make (alternatives, applet links) a `setup`
command makes.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from nox_variants.errors import ImageError
from nox_variants.images.process import environment, run
from nox_variants.sandbox.bubblewrap import find_bwrap

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

_LINKS = ("bin", "sbin", "lib", "lib64")
_FOLDERS = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var")
_LEFT_OUT = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
)
_PROGRAMS = tuple(Path("/", name) for name in ("bin", "lib", "lib32", "lib64", "libx32", "sbin"))

_ISOLATION = ("--unshare-all", "--unshare-user", "--uid", "0", "--gid", "0", "--die-with-parent")
_ERRORS_KEPT = 4096
_FULL = ("No space left on device", "Wrote only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A downloaded package.

    Attributes:
        name: Its name.
        version: Its version, with the epoch.
        file: Where it is on this machine.
        owned: Whether the file is the store's own, and may be removed.
    """

    name: str
    version: str
    file: Path
    owned: bool = True

    def __str__(self) -> str:
        return f"{self.name}={self.version}"


def unpack(packages: Sequence[Package], root: Path, *, cancelled: threading.Event) -> None:
    """Unpack packages into an empty folder, as files of the caller.

    Tar runs in a sandbox in which nothing but `root` can be written: no link of a package leads
    out of it.

    Args:
        packages: In the order in which they are unpacked.
        root: The folder.
        cancelled: Ends it.

    Raises:
        ImageError: A package cannot be unpacked, or the run was cancelled.
    """
    for name in (*_FOLDERS, *(f"usr/{link}" for link in _LINKS)):
        (root / name).mkdir()
        (root / name).chmod(0o755)
    (root / "tmp").chmod(0o1777)
    for name in _LINKS:
        (root / name).symlink_to(f"usr/{name}")
    for package in packages:
        _unpack(package, root, cancelled)
    _drop_setuid(root)


def _unpack(package: Package, root: Path, cancelled: threading.Event) -> None:
    command: list[str | Path] = [
        *(find_bwrap(), *_ISOLATION),
        *_system(),
        *("--dev", "/dev", "--proc", "/proc", "--bind", root, root, "--remount-ro", "/", "--"),
        *("tar", "-x", "-C", root, "--keep-directory-symlink", "--no-same-owner"),
        *(f"--exclude=./{name}/*" for name in _LEFT_OUT),
    ]
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", package.file],
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env=environment(),
        ) as source,
    ):
        stream = cast("IO[bytes]", source.stdout)
        code, output = run(command, cancelled=cancelled, stdin=stream)
        stream.close()  # dpkg-deb must not wait for a tar that has ended
        if source.wait() or code:
            errors.seek(0)
            words = errors.read(_ERRORS_KEPT).decode(errors="replace")
            raise _failure(package, words, output)


def _system() -> Iterator[str]:
    """Yield the flags that show a sandbox this machine's programs and libraries.

    Not all of this machine: mounts that come and go below ``/``, such as containers', would end
    bwrap when one goes in the midst of it.
    """
    yield from ("--ro-bind", "/usr", "/usr")
    for path in _PROGRAMS:
        if path.is_symlink():
            yield from ("--symlink", os.fspath(path.readlink()), os.fspath(path))
        elif path.is_dir():
            yield from ("--ro-bind", os.fspath(path), os.fspath(path))


def _failure(package: Package, said_by_dpkg: str, said_by_tar: str) -> ImageError:
    """Return the error, in the words of the one who failed first; remove a bad package."""
    first = said_by_tar if "Broken pipe" in said_by_dpkg else said_by_dpkg or said_by_tar
    reason = (first.strip().splitlines() or ["no reason was given"])[0]
    message = f"{package.file.name}: cannot be unpacked: {reason}"
    if any(sign in said_by_tar for sign in _FULL):
        hint = "The disk is full: free some space, or point NOX_VARIANTS_HOME elsewhere."
        return ImageError(message, hint=hint)
    if not package.owned:
        return ImageError(message, hint="It lies in a local source of apt's: is it whole?")
    package.file.unlink(missing_ok=True)
    return ImageError(message, hint="It was removed and will be downloaded again.")


def _drop_setuid(root: Path) -> None:
    """Take setuid and setgid from everything: a cache folder is no place for them."""
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = os.path.join(parent, name)  # noqa: PTH118  # tens of thousands of files
            mode = os.lstat(path).st_mode
            if not stat.S_ISLNK(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                os.chmod(path, stat.S_IMODE(mode) & 0o1777)  # noqa: PTH101
