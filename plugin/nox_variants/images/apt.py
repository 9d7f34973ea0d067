"""Packages of the host's Debian or Ubuntu release: unprivileged, signatures checked by apt.

Apt works on a private state below the store, with the host's sources and keys. What is downloaded
is kept, and used again only as the bytes that the signed lists name.
"""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from nox_variants.errors import ImageError, ImageUnavailable
from nox_variants.images.packages import Package
from nox_variants.images.process import run
from nox_variants.oci.digest import sha256_file

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from nox_variants.store import Store

LISTS_AGE = 24 * 3600
"""Seconds after which package lists are fetched again."""

NOTE_EVERY = 10.0
"""Seconds between two notes about a download."""

_TOOLS = ("apt-get", "dpkg-deb", "tar")
_URI = re.compile(
    r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+)(?: SHA256:(?P<digest>[0-9a-f]{64}))?",
    re.MULTILINE,
)
_CONFIG = "".join(
    f"#clear {name};\n"
    for name in (
        # Commands of the host's that are about the host's own state.
        "APT::Update::Pre-Invoke",
        "APT::Update::Post-Invoke",
        "APT::Update::Post-Invoke-Success",
        "APT::Update::Post-Invoke-Stats",
        "AptCli::Hooks",
        # Large lists that say nothing about dependencies.
        *(f"Acquire::IndexTargets::deb::{name}" for name in ("Contents-deb", "CNF", "DEP-11")),
        *(
            f"Acquire::IndexTargets::deb::DEP-11-icons{size}"
            for size in ("", "-small", "-hidpi", "-large", "-large-hidpi")
        ),
    )
)
"""What the host's configuration may add and no option takes away (apt.conf(5))."""

_ABSENT = (
    "Unable to locate package",
    "has no installation candidate",
    "was not found",
    "unmet dependencies",
    "held broken packages",
    "Unable to satisfy dependencies",  # apt 3 and its solver
)
_UNSIGNED = ("is not signed", "have a Release file", "GPG error", "NO_PUBKEY")
_UNSIGNED_HINT = "Install the archive's key, or remove that source from apt's list."


class Apt:
    """Apt on a private state.

    Args:
        store: Where state and downloads are kept.
        progress: Told what takes long.
        cancelled: Ends every child.
        sources: A ``sources.list`` to use in place of the host's; for tests.
        lists_age: How old package lists may be, in seconds.
        note_every: Seconds between two notes about a download.
    """

    def __init__(
        self,
        store: Store,
        *,
        progress: Callable[[str], None],
        cancelled: threading.Event,
        sources: Path | None = None,
        lists_age: float = LISTS_AGE,
        note_every: float = NOTE_EVERY,
    ) -> None:
        self._store = store
        self._progress = progress
        self._cancelled = cancelled
        self._sources = sources
        self._lists_age = lists_age
        self._note_every = note_every
        self._trouble: str | None = None
        """What went wrong when this run fetched lists; None before it did."""

    def fetch(self, image: str, names: Sequence[str]) -> tuple[Package, ...]:
        """Return packages and all that they depend on, downloaded.

        Args:
            image: The image they are for, for messages.
            names: What is asked for.

        Raises:
            ImageUnavailable: There is no apt here, or no such package.
            ImageError: The mirror, the signatures or the disk.
            StoreError: The store cannot be written.
        """
        for tool in _TOOLS:
            if shutil.which(tool) is None:
                raise ImageUnavailable(
                    f"{image}: apt stand-ins need {tool}, which this machine does not have",
                    hint="Use Debian or Ubuntu, or an image with another source.",
                )
        with self._store.lock("apt", cancelled=self._cancelled), self._store.explained():
            planned = self._get(image, names)
        return tuple(map(self._package, planned))

    def _get(self, image: str, names: Sequence[str]) -> list[re.Match[str]]:
        """Resolve and download; again with new lists, for a mirror keeps no superseded package."""
        if not self._fresh():
            self._update()
        try:
            return self._resolve_and_download(image, names)
        except (ImageError, ImageUnavailable):
            if self._cancelled.is_set() or self._trouble is not None:
                raise
        self._update()
        return self._resolve_and_download(image, names)

    def _resolve_and_download(self, image: str, names: Sequence[str]) -> list[re.Match[str]]:
        """Return a match of :data:`_URI` per package of the closure."""
        nothing = f"Dir::Cache::archives={self._folder('empty')}"
        sha256 = "Acquire::ForceHash=SHA256"
        code, output = self._apt(
            *("-o", nothing, "-o", sha256, "-qq", "-y", "--print-uris", "install", "--", *names)
        )
        if code:
            raise _resolve_error(image, output, self._trouble or "")
        planned = list(_URI.finditer(output))
        self._download(image, names, planned)
        return planned

    def _download(self, image: str, names: Sequence[str], planned: list[re.Match[str]]) -> None:
        missing = [each for each in planned if _local(each) or not _whole(self._file(each), each)]
        if not missing:
            return
        for each in missing:
            (self._folder("archives") / each["file"]).unlink(missing_ok=True)
        size = sum(int(each["size"]) for each in missing)
        self._progress(f"{image}: downloading {len(missing)} packages, {size / 1e6:.1f} MB")
        code, output = self._apt(
            *("-q", "-y", "--download-only", "install", "--", *names),
            watch=self._notes(image, missing, size),
        )
        if code:
            raise _download_error(image, output)
        for each in missing:
            if not _whole(self._file(each), each):
                raise ImageError(
                    f"{image}: {each['file']} is not what the package lists say",
                    hint="Does a local source of apt's have old lists? apt-get update shows it.",
                )

    def _notes(self, image: str, missing: list[re.Match[str]], size: int) -> Callable[[], None]:
        """Return what says now and then how much is there."""
        archives = self._folder("archives")
        files = [
            folder / each["file"] for each in missing for folder in (archives, archives / "partial")
        ]
        due = time.monotonic() + self._note_every

        def note() -> None:
            nonlocal due
            if time.monotonic() >= due:
                due += self._note_every
                here = sum(file.stat().st_size for file in files if file.exists())
                self._progress(f"{image}: downloaded {here / 1e6:.0f} of {size / 1e6:.0f} MB")

        return note

    def _fresh(self) -> bool:
        """Tell whether lists were fetched by this run, or by another not long ago."""
        if self._trouble is not None:
            return True
        marker = self._marker()
        # A marker of the future was left by a clock that was wrong: nobody knows its age.
        return marker.exists() and 0 <= time.time() - marker.stat().st_mtime < self._lists_age

    def _update(self) -> None:
        """Fetch package lists, and keep what went wrong with some of them for a later error."""
        self._progress("apt: fetching package lists")
        code, output = self._apt("-q", "update")
        self._trouble = ""
        if code or "Failed to fetch" in output:
            lines = output.splitlines()
            said = [line for sign in ("E: ", "W: ") for line in lines if line.startswith(sign)]
            self._trouble = (said or ["apt-get update said nothing"])[0]
        else:
            self._marker().touch()

    def _marker(self) -> Path:
        return self._folder("") / "updated"

    def _folder(self, name: str) -> Path:
        """Return a folder of the private state; apt wants some of them to be there."""
        state = self._store.folder("apt")
        for each in ("lists", "archives", "empty"):
            (state / each / "partial").mkdir(parents=True, exist_ok=True)
        return state / name

    def _file(self, planned: re.Match[str]) -> Path:
        """Return where a package is: apt leaves those of a local source where they are."""
        if _local(planned):
            return Path(unquote(planned["uri"].removeprefix("file:")))
        return self._folder("archives") / planned["file"]

    def _package(self, planned: re.Match[str]) -> Package:
        name, version, _ = planned["file"].removesuffix(".deb").split("_")
        return Package(
            name=name,
            version=unquote(version),
            file=self._file(planned),
            owned=not _local(planned),
        )

    def _apt(self, *arguments: str, watch: Callable[[], None] | None = None) -> tuple[int, str]:
        state = self._folder("")
        config = state / "apt.conf"
        config.write_text(_CONFIG, encoding="ascii")
        options: dict[str, object] = {
            "Debug::NoLocking": "true",
            "Dir::State": state,
            "Dir::State::Lists": state / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": state,
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "APT::Install-Recommends": "false",
            "APT::Install-Suggests": "false",
            "APT::Get::AllowUnauthenticated": "false",
            "APT::Cmd::Pattern-Only": "true",  # a name that is missing is no regular expression
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
        }
        if self._sources is not None:
            options |= {"Dir::Etc::sourcelist": self._sources, "Dir::Etc::sourceparts": "-"}
        flags = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return run(
            ["apt-get", "-c", config, *flags, *arguments], cancelled=self._cancelled, watch=watch
        )


def _local(planned: re.Match[str]) -> bool:
    return planned["uri"].startswith("file:")


def _whole(file: Path, planned: re.Match[str]) -> bool:
    """Tell whether a file holds the bytes that the package lists name."""
    return file.is_file() and sha256_file(file) == f"sha256:{planned['digest']}"


def _errors(output: str) -> str:
    """Return what apt says of errors; apt 3 goes on in lines that are indented."""
    joined = re.sub(r"\n +", " ", output)
    lines = [line.removeprefix("E: ") for line in joined.splitlines() if line.startswith("E: ")]
    return "; ".join(lines[:3]) or (output.strip().splitlines() or ["apt-get said nothing"])[-1]


def _resolve_error(image: str, output: str, trouble: str) -> ImageError | ImageUnavailable:
    if trouble:
        unsigned = any(sign in trouble for sign in _UNSIGNED)
        network = "Is the network up, and the mirror reachable? apt-get update shows it."
        return ImageError(
            f"{image}: apt cannot fetch package lists: {trouble}",
            hint=_UNSIGNED_HINT if unsigned else network,
        )
    if any(sign in output for sign in _ABSENT):
        return ImageUnavailable(
            f"{image}: {_errors(output)}",
            hint="This machine's Debian or Ubuntu release does not have it.",
        )
    return ImageError(
        f"{image}: apt cannot tell what its packages need: {_errors(output)}",
        hint="Is there room on the disk? Removing the folder apt of NOX_VARIANTS_HOME is safe.",
    )


def _download_error(image: str, output: str) -> ImageError:
    if "unauthenticated" in output:
        return ImageError(
            f"{image}: apt cannot check the packages' signatures: {_errors(output)}",
            hint=_UNSIGNED_HINT,
        )
    return ImageError(
        f"{image}: downloading packages failed: {_errors(output)}",
        hint="Is the network up, and is there room? Run again: what was downloaded is kept.",
    )
