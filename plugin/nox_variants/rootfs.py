"""What a root filesystem offers to a program; the root is data, and may be hostile.

A root is a stack of folders as overlayfs sees it: a later one wins, whiteouts and opaque folders
hide. Links are followed inside the stack: an absolute one starts again at its top, ``..`` stops
there. This machine's own files are never looked at.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from nox_variants.results import RootFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MOST_LINKS = 40
"""Links followed for one path (path_resolution(7): ELOOP)."""

LOADERS = (
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux.so.2",
    "/libx32/ld-linux-x32.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-linux.so.3",
    "/lib/ld-linux-riscv64-lp64d.so.1",
    "/lib64/ld-linux-loongarch-lp64d.so.1",
    "/lib64/ld64.so.2",
    "/lib/ld64.so.1",
)
"""Where glibc's loaders are; musl's are ``/lib/ld-musl-MACHINE.so.1``."""

_FOLDERS = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib")
_TRIPLET_PARENTS = ("/lib", "/usr/lib", "/usr/local/lib")
_TRIPLET = re.compile(r"[a-z0-9_]+-linux-[a-z0-9]+")
_LIBRARY = re.compile(r".+\.so(\..+)?")
_MUSL_LOADER = re.compile(r"ld-musl-[\w-]+\.so\.1")
_MUSL_PATH = re.compile(r"ld-musl-[\w-]+\.path")
_CONF = re.compile(r".*\.conf")

_MOST_NAMES = 20_000
_MOST_FOLDERS = 200
_MOST_BYTES = 65536
_MOST_COMPONENTS = 4096


def read(lower: tuple[Path, ...], paths: tuple[str, ...] = ()) -> RootFacts:
    """Return what a root offers.

    Args:
        lower: The folders of the root, base first.
        paths: Interpreters asked about by name.
    """
    root = _Root(lower)
    musl = (f"/lib/{name}" for name in root.names("/lib", _MUSL_LOADER))
    return RootFacts(
        loaders=frozenset(filter(root.executable, (*LOADERS, *musl))),
        libraries=frozenset(_libraries(root)),
        shell=root.executable("/bin/sh"),
        interpreters=frozenset(filter(root.executable, paths)),
    )


def resolve(lower: tuple[Path, ...], path: str) -> Path | None:
    """Return where a path of the root lies on this machine, links followed inside the root.

    Args:
        lower: The folders of the root, base first.
        path: An absolute path of the root.

    Returns:
        The file, or the topmost of the folders that are merged under that path; None when there
        is nothing, also for a cycle of links and for what cannot be read.
    """
    found = _Root(lower).find(path)
    return found.path if found else None


@dataclass(frozen=True, slots=True)
class _Found:
    """A file, or a folder with all the folders that are merged into it, the topmost first."""

    path: Path
    mode: int
    merged: tuple[Path, ...] = ()


class _Root:
    def __init__(self, lower: tuple[Path, ...]) -> None:
        self._top = tuple(reversed(lower))
        self._folders: dict[tuple[Path, str], _Found] = {}

    def find(self, path: str) -> _Found | None:
        """Walk a path, one name at a time."""
        try:
            return self._walk(path)
        except (OSError, ValueError):  # ValueError: a null byte in a name
            return None

    def executable(self, path: str) -> bool:
        """Tell whether an absolute path leads to a regular file that may be executed."""
        found = self.find(path) if path.startswith("/") else None
        return found is not None and stat.S_ISREG(found.mode) and bool(found.mode & 0o111)

    def names(self, folder: str, pattern: re.Pattern[str]) -> list[str]:
        """Return the names in a folder that fit a pattern, bounded and sorted."""
        found = self.find(folder)
        names = {
            name
            for each in (found.merged if found else ())
            for name in islice(_names(each), _MOST_NAMES)
            if pattern.fullmatch(name)
        }
        return sorted(names)

    def text(self, path: str) -> str:
        """Return the beginning of a regular file; empty when there is none."""
        found = self.find(path)
        if found is None or not stat.S_ISREG(found.mode):
            return ""
        try:
            with found.path.open("rb") as file:
                return file.read(_MOST_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""

    def _walk(self, path: str) -> _Found | None:
        if not self._top:
            return None
        root = _Found(self._top[0], stat.S_IFDIR, self._top)
        way, todo, links = [root], _parts(path), 0
        while todo:
            name = todo.pop()
            if not way[-1].merged:
                return None  # a file has no names below it, neither ``..`` nor ``.``
            if name in {"", "."}:
                continue
            if name == "..":
                way = way[:-1] or [root]
                continue
            found = self._look_up(way[-1], name)
            if found is None:
                return None
            if not stat.S_ISLNK(found.mode):
                way.append(found)
                continue
            links += 1
            if links > MOST_LINKS or len(todo) > _MOST_COMPONENTS:
                return None
            target = os.readlink(found.path)  # noqa: PTH115  # the text itself, `..` included
            way = [root] if target.startswith("/") else way
            todo += _parts(target)
        return way[-1]

    def _look_up(self, folder: _Found, name: str) -> _Found | None:
        """Return what a name means in a folder; folders are merged once."""
        key = folder.path, name
        found = self._folders.get(key) or _look_up(folder, name)
        if found and found.merged:
            self._folders[key] = found
        return found


def _parts(path: str) -> list[str]:
    """Return a path's names, the first one last."""
    return path.split("/")[::-1]


def _look_up(folder: _Found, name: str) -> _Found | None:
    """Return what a name means in a merged folder (Linux, overlayfs.rst)."""
    merged: list[Path] = []
    for each in folder.merged:
        path = each / name
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            if merged or _is_whiteout(status):
                break
            return _Found(path, status.st_mode)
        merged.append(path)
        if _is_opaque(path):
            break
    return _Found(merged[0], stat.S_IFDIR, tuple(merged)) if merged else None


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(folder: Path) -> bool:
    try:
        return any(
            os.getxattr(folder, name) == b"y"
            for name in os.listxattr(folder)
            if name in {"user.overlay.opaque", "trusted.overlay.opaque"}
        )
    except (OSError, AttributeError):  # AttributeError: not Linux, where no overlayfs is either
        return False


def _names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as scan:
            yield from (entry.name for entry in scan)
    except OSError:
        return


def _libraries(root: _Root) -> Iterator[str]:
    """Yield the names that a loader finds in its default folders and that lead to a file."""
    for folder in dict.fromkeys(islice(_library_folders(root), _MOST_FOLDERS)):
        for name in root.names(folder, _LIBRARY):
            found = root.find(f"{folder}/{name}")
            if found and stat.S_ISREG(found.mode):
                yield name


def _library_folders(root: _Root) -> Iterator[str]:
    yield from _FOLDERS
    for parent in _TRIPLET_PARENTS:
        yield from (f"{parent}/{name}" for name in root.names(parent, _TRIPLET))
    for name in root.names("/etc", _MUSL_PATH):  # musl, ldso/dynlink.c: `sys_path`
        yield from _absolute(re.split("[:\n]", root.text(f"/etc/{name}")))
    yield from _absolute(root.text("/etc/ld.so.conf").splitlines())
    for name in root.names("/etc/ld.so.conf.d", _CONF):  # what every ld.so.conf includes
        yield from _absolute(root.text(f"/etc/ld.so.conf.d/{name}").splitlines())


def _absolute(lines: Iterable[str]) -> Iterator[str]:
    folders = (line.partition("#")[0].strip() for line in lines)
    return (folder for folder in folders if folder.startswith("/"))
