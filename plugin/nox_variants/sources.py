"""Source folders to snapshots in the store: what was hashed is what is built.

A snapshot holds what ``.dockerignore`` leaves, with modes reduced to the executable bit and one
modification time, at the work directory of build stages. That time is when it was taken: tools
that compare times, such as make and cargo, must see that a changed file is newer than what an
earlier build left in a kept folder. The user's folder is never mounted.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nox_variants.errors import SourceError
from nox_variants.oci.digest import canonical_json
from nox_variants.plan import WORKDIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from nox_variants.store import Store

MOST_FILES = 100_000
MOST_BYTES = 2 * 1024**3

_IGNORE_FILE = ".dockerignore"
_OWN_FOLDER = ".variants"
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A source folder in the store.

    Attributes:
        digest: Hex digest of names, executable bits, bytes and link targets, and of nothing else.
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

    def described(self) -> tuple[str, str, str]:
        """Return what the digest is made of; names are bytes, and need not be UTF-8."""
        return _bytewise(self.name), self.kind, _bytewise(self.content)


def _bytewise(name: str) -> str:
    return os.fsencode(name).decode("latin-1")


class Sources:
    """The snapshots of a run: each folder is read once.

    Args:
        store: Where they are kept.
        roots: The folders of the files: what leads out of the innermost that it is in is refused.
            None: any folder.
    """

    def __init__(self, store: Store, *, roots: tuple[Path, ...] = ()) -> None:
        self._store = store
        self._roots = sorted(roots, key=lambda root: len(root.parts), reverse=True)
        self._lock = threading.Lock()
        self._taken: dict[Path, Snapshot] = {}

    def snapshot(self, folder: Path) -> Snapshot:
        """Return the snapshot of a folder.

        Raises:
            SourceError: It does not exist, is no folder or cannot be read, leads out of the
                project or of itself, or holds what no image can.
        """
        with self._lock:
            if folder not in self._taken:
                _check(folder, self._root(folder))
                self._taken[folder] = self._take(folder)
            return self._taken[folder]

    def _root(self, folder: Path) -> Path | None:
        """Return the root that a folder is in, or the outermost."""
        around = [root for root in self._roots if folder.is_relative_to(root)]
        return next(iter(around or self._roots[-1:]), None)

    def _take(self, folder: Path) -> Snapshot:
        entries = sorted(_read(folder), key=lambda entry: entry.name)
        digest = _digest(entries)
        if self._store.find("sources", digest) is None:
            with self._store.publish("sources", digest) as staging:
                _copy(entries, staging / "root" / WORKDIR.lstrip("/"))
                _finish(staging / "root", staging.stat().st_mtime_ns)
        return Snapshot(digest=digest, root=self._store.entry("sources", digest) / "root")


def digest_of(root: Path) -> str:
    """Return the digest of a snapshot, of its files as they are now.

    Raises:
        SourceError: They cannot be read.
    """
    return _digest(sorted(_read(root / WORKDIR.lstrip("/")), key=lambda entry: entry.name))


def _digest(entries: list[_Entry]) -> str:
    described = [entry.described() for entry in entries]
    return hashlib.sha256(canonical_json([WORKDIR, described])).hexdigest()


def _check(folder: Path, root: Path | None) -> None:
    """Refuse a source that is no folder of the project."""
    below = root is not None and folder.is_relative_to(root)
    name = f"source {str(folder.relative_to(root) if root and below else folder)!r}"
    if root is not None and not _within(folder, root):
        raise _outside(name, folder, root)
    try:
        if stat.S_ISDIR(folder.stat().st_mode):
            os.scandir(folder).close()
            return
    except FileNotFoundError:
        raise SourceError(
            f"{name} does not exist" + f" in {root}" * below,
            hint="Is it spelled right? It is relative to the folder of variants.yaml.",
        ) from None
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from error
    raise SourceError(
        f"{name} is a file, not a folder", hint="Name the folder that the file is in."
    )


def _within(path: Path, root: Path) -> bool:
    """Tell whether a path stays in a folder when all links are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _outside(name: str, folder: Path, root: Path) -> SourceError:
    """Return the error for a source outside of the project, with the link that leads there."""
    hint = "Move the folder into the project, or variants.yaml to a folder above both."
    for path in (*reversed(folder.parents), folder):
        if path.is_relative_to(root) and not _within(path, root):
            link = "" if path == folder else f": {str(path.relative_to(root))!r}"
            target = os.path.realpath(path)
            return SourceError(
                f"{name}{link} is a link that leads out of {root}, to {target!r}", hint=hint
            )
    return SourceError(f"{name} lies outside of {root}", hint=hint)


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


@dataclass(frozen=True, slots=True)
class _Ignored:
    """What ``.dockerignore`` leaves out, as the docker SDK does.

    Attributes:
        matches: Whether a name is left out.
        kept: Names and patterns that are kept nevertheless.
    """

    matches: Callable[[str], bool] = lambda name: name == _OWN_FOLDER
    kept: tuple[str, ...] = ()

    def whole(self, name: str) -> bool:
        """Tell whether a folder is left out with all that is in it."""
        return self.matches(name) and not any(each.startswith(name) for each in self.kept)


def _walk(folder: Path, ignored: _Ignored) -> Iterator[tuple[str, Path, os.stat_result]]:
    prefixes = [""]
    while prefixes:
        for name, path, status in _scan(folder, prefixes.pop()):
            if not ignored.matches(name):
                yield name, path, status
            if stat.S_ISDIR(status.st_mode) and not ignored.whole(name):
                prefixes.append(f"{name}/")


def _scan(folder: Path, prefix: str) -> list[tuple[str, Path, os.stat_result]]:
    try:
        with os.scandir(folder / prefix) as scan:
            return [
                (prefix + entry.name, Path(entry.path), entry.stat(follow_symlinks=False))
                for entry in scan
            ]
    except OSError as error:
        raise _unreadable(Path(error.filename), error) from error


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(
        f"{path}: cannot be read: {error.strerror}",
        hint="Make it readable, or name it in .dockerignore.",
    )


def _ignored(folder: Path) -> _Ignored:
    """Return what ``.dockerignore`` leaves out."""
    try:
        text = (folder / _IGNORE_FILE).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return _Ignored()
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder / _IGNORE_FILE}: cannot be read: {error}") from error
    from docker.utils.build import PatternMatcher  # noqa: PLC0415  # 100 ms, where the file is there

    lines = (line.strip() for line in text.splitlines())
    matcher = PatternMatcher(
        [line for line in lines if line and not line.startswith("#")] + [_OWN_FOLDER]
    )

    def matches(name: str) -> bool:
        # The stubs ask for a PathLike, which its own fnmatch does not take.
        return bool(matcher.matches(cast("os.PathLike[str]", name)))

    try:
        matches("name")
    except re.error as error:
        raise SourceError(f"{folder / _IGNORE_FILE}: has a wrong pattern: {error}") from error
    return _Ignored(
        matches, tuple(each.cleaned_pattern for each in matcher.patterns if each.exclusion)
    )


def _entry(folder: Path, name: str, path: Path, status: os.stat_result) -> _Entry:
    mode = status.st_mode
    try:
        if stat.S_ISREG(mode):
            with path.open("rb", buffering=0) as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            return _Entry(name, path, "x" if mode & stat.S_IXUSR else "f", content)
        if stat.S_ISLNK(mode):
            return _Entry(name, path, "l", _inside(folder, name, os.fspath(path.readlink())))
    except OSError as error:
        raise _unreadable(path, error) from error
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
    try:
        source = entry.path.open("rb", buffering=0)
    except OSError as error:
        raise _unreadable(entry.path, error) from error
    with source, path.open("wb") as out:
        shutil.copyfileobj(source, out, _CHUNK)
    path.chmod(0o755 if entry.kind == "x" else 0o644)
    with path.open("rb", buffering=0) as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry.content:
            raise SourceError(f"{entry.path}: changed while it was read", hint="Run again.")


def _finish(root: Path, time_ns: int) -> None:
    """Give everything one time, and folders the modes that no umask of the user's decides."""
    for parent, folders, files in os.walk(root, topdown=False):
        for path in (Path(parent, name) for name in (*folders, *files, "")):
            os.utime(path, ns=(time_ns, time_ns), follow_symlinks=False)
        Path(parent).chmod(0o755)
