"""What the store holds: its parts, how large they are, and when they were used last. Reads only."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants.errors import StoreError
from nox_variants.oci.digest import hex_of
from nox_variants.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KINDS = {
    "images": "images",
    "builds": "builds",
    "blobs": "image layers",
    "layers": "layers",
    "layouts": "image layouts",
    "sources": "sources",
    "caches": "caches",
    "apt/archives": "apt downloads",
    "facts": "facts",
    "refs": "names",
}
"""Folders of the store whose parts can be removed one by one, in the user's words."""

OTHER = {"apt/lists": "apt lists", "tmp": "unfinished work"}
"""Folders that take room, too."""

_BLOCK = 512
"""Bytes of a block in ``st_blocks`` (inode(7))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the store that can be removed on its own.

    Attributes:
        kind: Its folder below the store's.
        path: Where it is.
        used: When it was made or used last, in seconds since 1970.
    """

    kind: str
    path: Path
    used: float


class Meter:
    """Adds up what files take on the disk; one that has several names is counted once.

    Args:
        most: How many files are looked at, at most; None for all.
    """

    def __init__(self, most: int | None = None) -> None:
        self._left = most
        self._seen: set[tuple[int, int]] = set()

    @property
    def spent(self) -> bool:
        """Whether it stopped before everything was counted."""
        return self._left == -1

    def size(self, path: Path) -> int:
        """Return the bytes of a file or of a folder and all that is in it."""
        return sum(map(self._bytes, _below(path, self)))

    def go_on(self) -> bool:
        """Tell whether one more file may be looked at."""
        if self._left is None:
            return True
        self._left = max(self._left - 1, -1)
        return self._left >= 0

    def _bytes(self, status: os.stat_result) -> int:
        identity = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if identity in self._seen:
                return 0
            self._seen.add(identity)
        return status.st_blocks * _BLOCK


def _below(path: Path, meter: Meter) -> Iterator[os.stat_result]:
    """Yield the status of a path and of all below it; what cannot be read is left out."""
    todo = [os.fspath(path)]
    while todo and meter.go_on():
        name = todo.pop()
        try:
            status = os.lstat(name)
            yield status
            if stat.S_ISDIR(status.st_mode):
                with os.scandir(name) as found:
                    todo.extend(each.path for each in found)
        except OSError:
            continue


def parts(home: Path) -> tuple[Part, ...]:
    """Return the parts of a store, those that were not used for the longest time first."""
    images = _images(home)
    found = [
        Part(kind=kind, path=path, used=max(_used(kind, status), images.get(path.name, 0)))
        for kind in KINDS
        for path, status in _entries(home / kind)
    ]
    return tuple(sorted(found, key=lambda part: (part.used, part.path)))


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield what lies in a folder of the store; apt keeps what is not complete in ``partial``."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name != "partial":
            try:
                yield path, path.lstat()
            except OSError:
                continue


def _used(kind: str, status: os.stat_result) -> float:
    """Return when a part was used: apt gives downloads the time that they have at the mirror."""
    if kind == "apt/archives":
        return max(status.st_ctime, status.st_atime)
    return status.st_mtime


def _images(home: Path) -> Mapping[str, float]:
    """Return when the names of images were used, by the image that they name."""
    used: dict[str, float] = {}
    for folder, status in _entries(home / "refs"):
        try:
            key = hex_of(Store.read_json(folder / "image.json")["digest"])
        except (StoreError, LookupError, TypeError, ValueError):
            continue
        used[key] = max(used.get(key, 0), status.st_mtime)
    return used


def surplus(
    measured: Mapping[Part, int], *, keep: int | None, older_than: float | None, now: float
) -> tuple[Part, ...]:
    """Return the parts to remove, those that were not used for the longest time first.

    Args:
        measured: The bytes of every part.
        keep: How many bytes may stay, or None for all.
        older_than: Seconds after which an unused part goes, or None for never.
        now: In seconds since 1970.
    """
    total, found = sum(measured.values()), []
    for part in sorted(measured, key=lambda part: (part.used, part.path)):
        old = older_than is not None and now - part.used > older_than
        if old or (keep is not None and total > keep):
            found.append(part)
            total -= measured[part]
    return tuple(found)


def counted(some: tuple[Part, ...]) -> str:
    """Return how many parts of each kind there are: ``builds 2, images 1``."""
    numbers = Counter(part.kind for part in some)
    return ", ".join(f"{name} {numbers[kind]}" for kind, name in KINDS.items() if numbers[kind])
