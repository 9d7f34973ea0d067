"""Source folders to snapshots in the store: what was hashed is what is built.

A snapshot holds what ``.dockerignore`` leaves, with modes reduced to the executable bit and one
modification time, at the work directory of build stages. The user's folder is never mounted.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants.errors import SourceError
from nox_variants.oci.digest import canonical_json
from nox_variants.plan import WORKDIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nox_variants.store import Store

MOST_FILES = 100_000
MOST_BYTES = 2 * 1024**3

_IGNORE_FILE = ".dockerignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A source folder in the store.

    Attributes:
        digest: Hex digest of names, executable bits, bytes and link targets.
        root: A root filesystem with nothing but the source at :data:`~nox_variants.plan.WORKDIR`.
    """

    digest: str
    root: Path


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    path: Path
    kind: str
    content: str


class Sources:
    """The snapshots of a run: each folder is read once.

    Args:
        store: Where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._taken: dict[Path, Snapshot] = {}

    def snapshot(self, folder: Path) -> Snapshot:
        """Return the snapshot of a folder.

        Raises:
            SourceError: It cannot be read, leads out of itself, or holds what no image can.
        """
        with self._lock:
            if folder not in self._taken:
                self._taken[folder] = self._take(folder)
            return self._taken[folder]

    def _take(self, folder: Path) -> Snapshot:
        entries = sorted(_read(folder), key=lambda entry: entry.name)
        described = [(entry.name, entry.kind, entry.content) for entry in entries]
        digest = hashlib.sha256(canonical_json([WORKDIR, described])).hexdigest()
        if self._store.find("sources", digest) is None:
            with self._store.publish("sources", digest) as staging:
                _copy(entries, staging / "root" / WORKDIR.lstrip("/"))
        return Snapshot(digest=digest, root=self._store.entry("sources", digest) / "root")


def _read(folder: Path) -> Iterator[_Entry]:
    files = size = 0
    for name, path, status in _walk(folder, _ignored(folder)):
        files, size = files + 1, size + status.st_size
        if files > MOST_FILES or size > MOST_BYTES:
            raise SourceError(
                f"{folder}: more than {MOST_FILES} files or {MOST_BYTES // 1024**3} GiB",
                hint="Leave out what the build does not need with a .dockerignore.",
            )
        yield _entry(folder, name, path, status)


def _walk(
    folder: Path, ignored: Callable[[str], bool], prefix: str = ""
) -> Iterator[tuple[str, Path, os.stat_result]]:
    try:
        with os.scandir(folder / prefix) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(f"{folder / prefix}: cannot be read: {error.strerror}") from error
    for entry in entries:
        name = prefix + entry.name
        status = entry.stat(follow_symlinks=False)
        if not ignored(name):
            yield name, Path(entry.path), status
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(folder, ignored, f"{name}/")


def _ignored(folder: Path) -> Callable[[str], bool]:
    """Return what tells whether ``.dockerignore`` leaves a name out, as Docker would."""
    try:
        text = (folder / _IGNORE_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return lambda _: False
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder / _IGNORE_FILE}: cannot be read: {error}") from error
    from docker.utils.build import PatternMatcher  # noqa: PLC0415  # 100 ms, where the file is there

    lines = (line.strip() for line in text.splitlines())
    matcher = PatternMatcher([line for line in lines if line and not line.startswith("#")])
    return lambda name: bool(matcher.matches(Path(name)))


def _entry(folder: Path, name: str, path: Path, status: os.stat_result) -> _Entry:
    mode = status.st_mode
    try:
        if stat.S_ISREG(mode):
            with path.open("rb", buffering=0) as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            return _Entry(name, path, "x" if mode & 0o100 else "f", content)
        if stat.S_ISLNK(mode):
            return _Entry(name, path, "l", _inside(folder, name, os.fspath(path.readlink())))
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        return _Entry(name, path, "d", "")
    raise SourceError(
        f"{path}: is a device, socket or pipe", hint="Remove it, or name it in .dockerignore."
    )


def _inside(folder: Path, name: str, target: str) -> str:
    """Return a link's target after checking that it stays in the folder."""
    parent = os.path.dirname(name)  # noqa: PTH120  # a name, not a path of this machine
    joined = os.path.normpath(os.path.join(parent, target))  # noqa: PTH118
    if target.startswith("/") or joined == ".." or joined.startswith("../"):
        raise SourceError(
            f"{folder / name}: is a link that leads out of the source folder, to {target!r}",
            hint="Copy the file into the folder, or name the link in .dockerignore.",
        )
    return target


def _copy(entries: list[_Entry], target: Path) -> None:
    target.mkdir(parents=True)
    for entry in entries:
        path = target / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        match entry.kind:
            case "d":
                path.mkdir(exist_ok=True)
            case "l":
                path.symlink_to(entry.content)
            case _:
                _copy_file(entry, path)


def _copy_file(entry: _Entry, path: Path) -> None:
    shutil.copyfile(entry.path, path)
    path.chmod(0o755 if entry.kind == "x" else 0o644)
    with path.open("rb", buffering=0) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry.content:
            raise SourceError(f"{entry.path}: changed while it was read", hint="Run again.")
