"""Root filesystems to facts: what a program would find there. Never looks at the host.

A root is a stack of folders, a later one hiding an earlier one's files. Links are followed inside
the stack: an absolute one starts again at its top, ``..`` stops there.
"""

from __future__ import annotations

import os
import stat
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from nox_variants.model import RootFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_LINKS = 40
"""Links followed for one path (path_resolution(7): ELOOP)."""

_MOST_FILES = 20_000
_MOST_LINES = 1000
_MOST_BYTES = 65536

LOADERS = (
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-linux-riscv64-lp64d.so.1",
    "/lib64/ld64.so.2",
    "/lib/ld64.so.1",
    *(
        f"/lib/ld-musl-{machine}.so.1"
        for machine in ("x86_64", "i386", "aarch64", "armhf", "riscv64", "powerpc64le", "s390x")
    ),
)

_TRIPLETS = ("x86_64-linux-gnu", "aarch64-linux-gnu", "arm-linux-gnueabihf", "i386-linux-gnu")
_FOLDERS = (
    *("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib"),
    *(f"{prefix}/{triplet}" for triplet in _TRIPLETS for prefix in ("/lib", "/usr/lib")),
)


def read(lower: tuple[Path, ...], paths: tuple[str, ...] = ()) -> RootFacts:
    """Return what a root offers.

    Args:
        lower: The folders of the root, base first.
        paths: Paths to look for by name, such as a program's interpreter.
    """
    return RootFacts(
        loaders=frozenset(path for path in LOADERS if _executable(lower, path)),
        libraries=frozenset(islice(_libraries(lower), _MOST_FILES)),
        shell=_executable(lower, "/bin/sh"),
        interpreters=frozenset(path for path in paths if _executable(lower, path)),
    )


def resolve(lower: tuple[Path, ...], path: str) -> Path | None:
    """Return the file of this machine that a path of the root leads to, or None.

    Args:
        lower: The folders of the root, base first.
        path: An absolute path of the root.
    """
    pending, done = [part for part in reversed(path.split("/")) if part], ()
    links = 0
    found: Path | None = lower[-1] if lower else None
    while pending:
        part = pending.pop()
        if part == "." or (part == ".." and not done):
            continue
        if part == "..":
            done = done[:-1]
            continue
        found = _top(lower, (*done, part))
        if found is None:
            return None
        if not found.is_symlink():
            done = (*done, part)
            continue
        links += 1
        target = os.readlink(found)  # noqa: PTH115  # the text itself, `..` included
        if links > MOST_LINKS:
            return None
        if target.startswith("/"):
            done = ()
        pending.extend(piece for piece in reversed(target.split("/")) if piece)
    return _top(lower, done)


def _top(lower: tuple[Path, ...], parts: tuple[str, ...]) -> Path | None:
    """Return the topmost folder's file of that name; no part of it may be a link any more."""
    for folder in reversed(lower):
        path = folder.joinpath(*parts)
        try:
            path.lstat()
        except OSError:
            continue
        return path
    return None


def _executable(lower: tuple[Path, ...], path: str) -> bool:
    found = resolve(lower, path)
    if found is None:
        return False
    status = found.lstat()
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)


def _libraries(lower: tuple[Path, ...]) -> Iterator[str]:
    """Yield the names of files in the folders that a loader searches by default."""
    for name in dict.fromkeys((*_FOLDERS, *_configured(lower))):
        for folder in lower:
            resolved = resolve((folder,), name)
            if resolved is not None and resolved.is_dir() and not resolved.is_symlink():
                yield from (entry for entry in _names(resolved) if ".so" in entry)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(islice(os.listdir(folder), _MOST_FILES))  # noqa: PTH208
    except OSError:
        return []


def _configured(lower: tuple[Path, ...]) -> Iterator[str]:
    """Yield the folders that ld.so.conf, its includes, and musl's path file name."""
    files = ["/etc/ld.so.conf"]
    for folder, suffix in (("/etc/ld.so.conf.d", ".conf"), ("/etc", ".path")):
        resolved = resolve(lower, folder)
        if resolved is not None and resolved.is_dir():
            files += [f"{folder}/{name}" for name in _names(resolved) if name.endswith(suffix)]
    for file in files:
        for line in islice(_text(lower, file).splitlines(), _MOST_LINES):
            yield from (part for part in line.split("#")[0].split(":") if part.startswith("/"))


def _text(lower: tuple[Path, ...], path: str) -> str:
    found = resolve(lower, path)
    if found is None or not stat.S_ISREG(found.lstat().st_mode):
        return ""
    with found.open("rb") as file:
        return file.read(_MOST_BYTES).decode(errors="replace")
