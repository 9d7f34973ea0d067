"""Stand-in images out of the host's Debian or Ubuntu packages: unprivileged, signatures checked.

Apt works on a private state below the store; packages are unpacked, never installed: no maintainer
script runs. What such scripts would make (alternatives, applet links) a `setup` command makes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.sandbox.bubblewrap import find_bwrap

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from nox_variants.store import Store

LISTS_AGE = 24 * 3600
"""Seconds after which package lists are fetched again."""

_TOOLS = ("apt-get", "dpkg-deb", "tar")
_LINKS = ("bin", "sbin", "lib", "lib64")
_FOLDERS = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var")
_LEFT_OUT = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
)
_URI = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+\.deb) (?P<size>\d+)", re.MULTILINE)
_POLL = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A downloaded package."""

    name: str
    version: str
    file: Path

    def __str__(self) -> str:
        return f"{self.name}={self.version}"


class Apt:
    """Apt on a private state.

    Args:
        store: Where state and downloads are kept.
        progress: Told what takes long.
        cancelled: Ends every child.
        sources: A ``sources.list`` to use in place of the host's; for tests.
    """

    def __init__(
        self,
        store: Store,
        *,
        progress: Callable[[str], None],
        cancelled: threading.Event,
        sources: Path | None = None,
    ) -> None:
        self._store = store
        self._progress = progress
        self._cancelled = cancelled
        self._sources = sources

    def fetch(self, image: str, names: Sequence[str]) -> tuple[Package, ...]:
        """Return packages and all that they depend on, downloaded.

        Args:
            image: The image they are for, for messages.
            names: What is asked for.

        Raises:
            ImageUnavailable: There is no apt here, or no such package.
            ImageError: The mirror, the signatures or the disk.
        """
        for tool in _TOOLS:
            if shutil.which(tool) is None:
                raise ImageUnavailable(
                    f"{image}: apt stand-ins need {tool}, which this machine does not have",
                    hint="Use Debian or Ubuntu, or an image with another source.",
                )
        with self._store.lock("apt", cancelled=self._cancelled):
            found = self._resolve(image, names)
            self._download(image, names, found)
        return tuple(self._package(match["file"]) for match in found)

    def _state(self) -> Path:
        state = self._store.folder("apt")
        for name in ("lists/partial", "archives/partial", "empty/partial"):
            (state / name).mkdir(parents=True, exist_ok=True)
        return state

    def _resolve(self, image: str, names: Sequence[str]) -> list[re.Match[str]]:
        """Return a match of :data:`_URI` per package of the closure."""
        marker = self._state() / "updated"
        fresh = marker.exists() and time.time() - marker.stat().st_mtime < LISTS_AGE
        trouble = "" if fresh else self._update(marker)
        code, output = self._plan(names)
        if code and fresh:
            trouble = self._update(marker)
            code, output = self._plan(names)
        if code:
            raise _resolve_error(image, output, trouble)
        return list(_URI.finditer(output))

    def _plan(self, names: Sequence[str]) -> tuple[int, str]:
        empty = f"Dir::Cache::archives={self._state() / 'empty'}"
        return self._apt("-o", empty, "-qq", "-y", "--print-uris", "install", *names)

    def _update(self, marker: Path) -> str:
        """Fetch package lists; return what went wrong with some of them, for a later error."""
        self._progress("apt: fetching package lists")
        code, output = self._apt("-q", "update")
        lines = [line for line in output.splitlines() if line.startswith(("E: ", "W: ", "Err:"))]
        if not code and not any("Failed to fetch" in line for line in lines):
            marker.touch()
        return "\n".join(lines)

    def _download(self, image: str, names: Sequence[str], found: Sequence[re.Match[str]]) -> None:
        archives = self._state() / "archives"
        missing = [match for match in found if not (archives / match["file"]).exists()]
        if not missing:
            return
        size = sum(int(match["size"]) for match in missing) / 1e6
        self._progress(f"{image}: downloading {len(missing)} packages, {size:.1f} MB")
        code, output = self._apt("-q", "-y", "--download-only", "install", *names)
        if code:
            raise _download_error(image, output)

    def _package(self, file: str) -> Package:
        name, version, _ = file.removesuffix(".deb").split("_")
        path = self._state() / "archives" / file
        return Package(name=name, version=unquote(version), file=path)

    def _apt(self, *arguments: str) -> tuple[int, str]:
        state = self._state()
        options = {
            "Debug::NoLocking": "true",
            "Dir::State": state,
            "Dir::State::Lists": state / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": state,
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "APT::Install-Recommends": "false",
            "APT::Get::AllowUnauthenticated": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
        }
        if self._sources is not None:
            options |= {"Dir::Etc::sourcelist": self._sources, "Dir::Etc::sourceparts": "-"}
        flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return self._run(["apt-get", *flags, *arguments])

    def unpack(self, packages: Sequence[Package], root: Path) -> None:
        """Unpack packages into an empty folder, as files of the caller.

        Tar runs in a sandbox in which nothing but `root` can be written: no link of a package
        leads out of it.

        Raises:
            ImageError: A package cannot be unpacked.
        """
        for name in _FOLDERS:
            (root / name).mkdir()
        (root / "tmp").chmod(0o1777)
        for name in _LINKS:
            (root / "usr" / name).mkdir()
            (root / name).symlink_to(f"usr/{name}")
        for package in packages:
            self._unpack(package, root)
        _drop_setuid(root)

    def _unpack(self, package: Package, root: Path) -> None:
        excluded = [f"--exclude=./{name}/*" for name in _LEFT_OUT]
        isolation: list[str | Path] = [
            "--unshare-all",
            "--unshare-user",
            "--uid",
            "0",
            "--gid",
            "0",
            "--die-with-parent",
        ]
        mounts: list[str | Path] = [
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "--bind",
            root,
            root,
        ]
        tar: list[str | Path] = [
            "tar",
            "-x",
            "-C",
            root,
            "--keep-directory-symlink",
            "--no-same-owner",
            *excluded,
        ]
        with (
            tempfile.TemporaryFile() as errors,
            subprocess.Popen(
                ["dpkg-deb", "--fsys-tarfile", package.file],
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            ) as source,
        ):
            code, output = self._run(
                [find_bwrap(), *isolation, *mounts, "--", *tar], stdin=source.stdout
            )
            if source.stdout is not None:
                source.stdout.close()
            if code or source.wait():
                errors.seek(0)
                words = (output + errors.read(1000).decode(errors="replace")).strip()
                package.file.unlink(missing_ok=True)
                raise ImageError(
                    f"{package.file.name}: cannot be unpacked: {_last(words)}",
                    hint="It was removed and will be downloaded again. Is the disk full?",
                )

    def _run(self, command: Sequence[str | Path], stdin: object = None) -> tuple[int, str]:
        """Run a command to its end; returns exit code and output."""
        with tempfile.TemporaryFile() as output:
            process = subprocess.Popen(
                command,
                stdin=stdin or subprocess.DEVNULL,  # type: ignore[call-overload]
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
                umask=0o022,
            )
            try:
                while True:
                    try:
                        process.wait(_POLL)
                        break
                    except subprocess.TimeoutExpired:
                        if self._cancelled.is_set():
                            raise ImageError("cancelled") from None
            except BaseException:
                _end_group(process)
                raise
            output.seek(0)
            return process.returncode, output.read().decode(errors="replace")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def _drop_setuid(root: Path) -> None:
    """Take setuid and setgid from all files: a cache folder is no place for them."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118  # tens of thousands of files
            mode = os.lstat(path).st_mode
            if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
                os.chmod(path, stat.S_IMODE(mode) & 0o1777)  # noqa: PTH101


def _last(words: str) -> str:
    return (words.splitlines() or ["no reason was given"])[-1]


def _resolve_error(image: str, output: str, trouble: str) -> ImageError | ImageUnavailable:
    errors = [line.removeprefix("E: ") for line in output.splitlines() if line.startswith("E: ")]
    words = "; ".join(errors) or _last(output.strip())
    if trouble:
        return ImageError(
            f"{image}: apt cannot fetch package lists: {_last(trouble)}",
            hint="Is the network up, and the mirror reachable? apt-get update shows it.",
        )
    return ImageUnavailable(
        f"{image}: {words}", hint="This machine's Debian or Ubuntu release does not have it."
    )


def _download_error(image: str, output: str) -> ImageError:
    errors = [line for line in output.splitlines() if line.startswith(("E: ", "Err"))]
    words = "; ".join(errors[:3]) or _last(output.strip())
    if "unauthenticated" in output or "could not be authenticated" in output:
        return ImageError(
            f"{image}: apt cannot check the packages' signatures: {words}",
            hint="Install the archive's key, or remove that source from apt's list.",
        )
    return ImageError(
        f"{image}: downloading packages failed: {words}",
        hint="Is the network up, and is there room? Run again: what was downloaded is kept.",
    )
