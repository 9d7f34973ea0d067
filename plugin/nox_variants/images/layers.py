"""Layers of an image (OCI image-spec, layer.md) applied in order into one folder.

Layers are untrusted: nothing outside the folder is touched. Parents that are links are followed
inside the folder, as container engines do, by looking at every component; a last component is never
followed. What exists is never written into, always replaced, so that folders may share files by
hard links. The folder must be nobody else's meanwhile.
"""

# Paths are bytes here: any name survives, and there are very many of them.
# ruff: noqa: PTH100, PTH101, PTH102, PTH106, PTH108, PTH115, PTH119, PTH120, PTH211

from __future__ import annotations

import errno
import os
import stat
import tarfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, cast

from nox_variants.errors import ImageError, LayoutError
from nox_variants.images.layerstream import (
    ENCODING,
    ERRORS,
    MOST_ENTRIES,
    Source,
    members,
    shown,
    uncompressed,
)

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection
    from pathlib import Path

    from nox_variants.model import Digest
from nox_variants.oci.layer import DEEPEST

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"

_METADATA = b".wh..wh."
"""What aufs keeps for itself; the specification took over :data:`OPAQUE` only."""

_FOLDER = 0o755
"""The mode of a folder that no entry gives one."""

_LINKS = 40
"""As many as Linux follows in one path."""

_LATEST = 2**33 - 1
"""The latest time that every tar header can hold."""

_LARGEST_ID = 2**32 - 2
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SPECIAL = frozenset({tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE})

_MACHINE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.EROFS,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
    }
)
"""Errors that no entry is to blame for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds over all layers of one image.

    Attributes:
        entries: Number of tar entries, and of folders made for entries that lack theirs.
        size: Bytes of all uncompressed tars, and of all files once their holes count.
    """

    entries: int = MOST_ENTRIES
    size: int = 64 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedLayer:
    """What a layer turned out to be.

    Attributes:
        diff_id: Digest of the uncompressed tar, with all that follows its end.
        size: Bytes of the uncompressed tar.
        content: Bytes of regular files, hard links counted once.
    """

    diff_id: Digest
    size: int
    content: int


class _EntryError(Exception):
    """What is wrong with an entry, as it is said behind the entry's name."""


class Unpacker:
    """Applies layers onto one root.

    Args:
        root: An empty folder, or one that another unpacker has finished.
        limits: Bounds over all layers.
        cancelled: Ends the work when set.
    """

    def __init__(
        self,
        root: Path,
        *,
        limits: Limits = Limits(),
        cancelled: threading.Event,
    ) -> None:
        self._root = os.fsencode(os.path.abspath(root))
        self._deepest = self._root.count(b"/") + DEEPEST
        self._limits = limits
        self._cancelled = cancelled
        self._entries = self._size = self._content = 0
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self._times: dict[bytes, int] = {}
        # Folders as entries name them, and where links lead: good until a folder or link goes.
        self._resolved = {b"": self._root}
        # What the layer that is being applied has made: its whiteouts are for the others.
        self._made: set[bytes] = set()

    @property
    def owners(self) -> dict[str, tuple[int, int, int]]:
        """Owner, group and mode by path, where the disk does not tell.

        That is what is not root's, or is setuid, setgid or sticky.
        """
        start = len(self._root)
        return {
            path[start:].decode(ENCODING, ERRORS) or "/": owner
            for path, owner in self._owners.items()
        }

    def apply(self, blob: IO[bytes]) -> AppliedLayer:
        """Apply a layer, compressed or not, on top of those before it.

        Raises:
            LayoutError: It is malformed, hostile or too large; the text names the entry. The root
                is of no use then.
            ImageError: The work was cancelled.
            OSError: The disk is full or fails.
        """
        self._made = set()
        left = self._limits.size - self._size
        source = Source(uncompressed(blob, self._cancelled), limit=left, cancelled=self._cancelled)
        before = self._content
        for member in members(source):
            if self._cancelled.is_set():
                raise ImageError("cancelled")
            try:
                self._count()
                self._entry(member, source)
            except (_EntryError, ValueError, OverflowError) as error:
                raise LayoutError(f"{shown(member.name)}: {error}") from error
            except OSError as error:
                if error.errno in _MACHINE:
                    raise
                raise LayoutError(f"{shown(member.name)}: {error.strerror}") from error
        diff_id = source.drain()
        self._size += source.size
        return AppliedLayer(diff_id=diff_id, size=source.size, content=self._content - before)

    def finish(self) -> None:
        """Give folders their times, which filling them has changed.

        Their modes stay as they are: the owner can always read, fill and remove them.
        """
        for path, time in self._times.items():
            os.utime(path, ns=(time, time), follow_symlinks=False)

    def _count(self) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise _EntryError(f"the image has more than {self._limits.entries} entries")

    def _entry(self, member: tarfile.TarInfo, source: Source) -> None:
        folder, last = self._place(member.name)
        if last.startswith(WHITEOUT):
            self._whiteout(folder, last)
            return
        if member.type in _SPECIAL:
            return
        if not last and not member.isdir():
            raise _EntryError("is the image's root, and no folder")
        parent = self._parent(folder)
        path = b"%s/%s" % (parent, last) if last else parent
        if path.count(b"/") > self._deepest:
            raise _EntryError(f"lies in more than {DEEPEST} folders")
        if member.isreg():
            self._file(member, path, source)
        elif member.isdir():
            self._folder(member, path)
            if folder in self._resolved:  # no more, when it replaced a link that led to itself
                self._resolved[b"%s/%s" % (folder, last) if folder else last] = path
        elif member.issym():
            self._symlink(member, path)
        elif member.islnk():
            self._hard_link(member, path)
        else:
            raise _EntryError(f"has a type that is unknown: {member.type!r}")
        self._made.add(path)

    # Names

    def _place(self, name: str) -> tuple[bytes, bytes]:
        """Split a name into its folder, relative to the root, and what it is called there."""
        raw = name.encode(ENCODING, ERRORS).removeprefix(b"./")
        folder, _, last = raw.rpartition(b"/")
        if folder in self._resolved and last not in {b"", b".", b".."} and b"\0" not in last:
            return folder, last
        parts = [part for part in raw.split(b"/") if part not in {b"", b"."}]
        if b".." in parts:
            raise _EntryError("leads out of the image")
        if len(parts) > DEEPEST:
            raise _EntryError(f"lies in more than {DEEPEST} folders")
        if b"\0" in raw:
            raise _EntryError("has a null byte in it")
        for number, part in enumerate(parts[:-1]):
            if part.startswith(WHITEOUT):
                if part == OPAQUE or not part.startswith(_METADATA):
                    raise _EntryError("lies behind a whiteout")
                return b"/".join(parts[:number]), part
        return b"/".join(parts[:-1]), parts[-1] if parts else b""

    def _parent(self, folder: bytes) -> bytes:
        """Return where a folder is; it is made when it is missing."""
        path = self._resolved.get(folder)
        if path is None:
            path = self._walk(folder, make=True)
            if path is None:
                raise AssertionError(folder)
            self._resolved[folder] = path
        return path

    def _existing(self, folder: bytes) -> bytes | None:
        """Return where a folder is, or None when there is none."""
        return self._resolved.get(folder) or self._walk(folder, make=False)

    def _walk(self, folder: bytes, *, make: bool) -> bytes | None:
        """Follow a folder's name from the root, and no link out of it."""
        todo = folder.split(b"/")[::-1]
        path, links = self._root, 0
        while todo:
            part = todo.pop()
            if part in {b"", b"."}:
                continue
            if part == b"..":  # in a link's target only
                path = os.path.dirname(path) if path != self._root else path
                continue
            following = b"%s/%s" % (path, part)
            mode = _mode(following)
            if stat.S_ISLNK(mode):
                links += 1
                if links > _LINKS:
                    raise _EntryError("lies behind too many links")
                target = os.readlink(following)
                todo.extend(target.split(b"/")[::-1])
                path = self._root if target.startswith(b"/") else path
                continue
            if not stat.S_ISDIR(mode):
                if not make:
                    return None
                self._missing_folder(following, mode)
            path = following
        return path

    def _missing_folder(self, path: bytes, mode: int) -> None:
        if mode:
            raise _EntryError(f"lies behind {os.path.basename(path)!r}, which is no folder")
        self._count()
        os.mkdir(path)
        os.chmod(path, _FOLDER)
        self._made.add(path)

    # Entries

    def _file(self, member: tarfile.TarInfo, path: bytes, source: Source) -> None:
        if member.size < 0:
            raise _EntryError("has a negative size")
        self._content += member.size
        if self._content > self._limits.size:
            raise _EntryError(f"the image has more than {self._limits.size} bytes")
        try:
            target = os.open(path, _NEW_FILE, 0o600)
        except FileExistsError:
            self._clear(path)
            target = os.open(path, _NEW_FILE, 0o600)
        try:
            if member.issparse():
                _fill_sparse(target, member, source)
            else:
                _fill(target, member.size, source)
            os.fchmod(target, (member.mode & 0o777) | stat.S_IRUSR)
            time = _nanoseconds(member)
            os.utime(target, ns=(time, time))
        finally:
            os.close(target)
        self._owned(path, member)

    def _folder(self, member: tarfile.TarInfo, path: bytes) -> None:
        try:
            os.mkdir(path)
        except FileExistsError:
            if not stat.S_ISDIR(_mode(path)):
                self._clear(path)
                os.mkdir(path)
        os.chmod(path, (member.mode & 0o777) | stat.S_IRWXU)
        self._times[path] = _nanoseconds(member)
        self._owned(path, member)

    def _symlink(self, member: tarfile.TarInfo, path: bytes) -> None:
        target = member.linkname.encode(ENCODING, ERRORS)
        if b"\0" in target:
            raise _EntryError("has a null byte in its target")
        try:
            os.symlink(target, path)
        except FileExistsError:
            self._clear(path)
            os.symlink(target, path)
        time = _nanoseconds(member)
        os.utime(path, ns=(time, time), follow_symlinks=False)
        self._owned(path, member, mode=0o777)

    def _hard_link(self, member: tarfile.TarInfo, path: bytes) -> None:
        try:
            target = self._link_target(member.linkname)
            if target == path:
                raise _EntryError("is itself")  # noqa: TRY301  # said in one place
        except _EntryError as error:
            text = f"is a hard link to {shown(member.linkname)}, which {error}"
            raise _EntryError(text) from error
        try:
            os.link(target, path, follow_symlinks=False)
        except FileExistsError:
            self._clear(path)
            os.link(target, path, follow_symlinks=False)
        # The same file has the same owner, whatever the entry says.
        owner = self._owners.get(target)
        if owner:
            self._owners[path] = owner

    def _link_target(self, name: str) -> bytes:
        folder, last = self._place(name)
        parent = self._existing(folder)
        target = b"%s/%s" % (parent or self._root, last)
        mode = _mode(target) if parent else 0
        if not mode:
            raise _EntryError("is not there")
        if not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            raise _EntryError("is no file")
        return target

    def _owned(self, path: bytes, member: tarfile.TarInfo, mode: int | None = None) -> None:
        """Record what is not written: an owner, and bits that would give rights."""
        for number in (member.uid, member.gid):
            if not 0 <= number <= _LARGEST_ID:
                raise _EntryError(f"has an owner that no system has: {number}")
        mode = member.mode & 0o7777 if mode is None else mode
        if member.uid or member.gid or mode & 0o7000:
            self._owners[path] = (member.uid, member.gid, mode)
        else:
            self._owners.pop(path, None)

    # Removal

    def _whiteout(self, folder: bytes, last: bytes) -> None:
        """Remove what the layers below have under a name, or in the folder."""
        name = last.removeprefix(WHITEOUT)
        if name in {b"", b".", b".."}:
            raise _EntryError("is a whiteout of no name")
        if last.startswith(_METADATA) and last != OPAQUE:
            return
        parent = self._existing(folder)
        if parent is None:
            return
        if last == OPAQUE:
            self._remove_in(parent, keep=self._made)
            return
        path = b"%s/%s" % (parent, name)
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            self._remove_folder(path, keep=self._made)
        elif mode and path not in self._made:
            self._remove_file(path, mode)

    def _clear(self, path: bytes) -> None:
        """Make room for an entry: a later one replaces an earlier one of the same name."""
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            self._remove_folder(path, keep=())
        else:
            self._remove_file(path, mode)

    def _remove_file(self, path: bytes, mode: int) -> None:
        os.unlink(path)
        self._owners.pop(path, None)
        if stat.S_ISLNK(mode):
            self._resolved = {b"": self._root}

    def _remove_folder(self, path: bytes, *, keep: Collection[bytes]) -> None:
        self._remove_in(path, keep=keep)
        self._remove_empty(path, keep)

    def _remove_in(self, path: bytes, *, keep: Collection[bytes]) -> None:
        """Remove all that is in a folder, but what is to be kept and what that lies in."""
        self._resolved = {b"": self._root}
        folders = [path]
        # Not recursive: an image may have folders deeper than Python recurses.
        for folder in folders:
            if self._cancelled.is_set():
                raise ImageError("cancelled")
            with os.scandir(folder) as scan:
                for entry in scan:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.path not in keep:
                        os.unlink(entry.path)
                        self._owners.pop(entry.path, None)
        for folder in folders[:0:-1]:
            self._remove_empty(folder, keep)

    def _remove_empty(self, path: bytes, keep: Collection[bytes]) -> None:
        """Remove a folder of a layer below; what is left of it was made by this layer."""
        if path in keep:
            return
        self._owners.pop(path, None)
        self._times.pop(path, None)
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            os.chmod(path, _FOLDER)


def _fill(target: int, size: int, source: Source) -> None:
    for piece in source.pieces(size):
        size -= len(piece)
        rest = piece
        while rest:
            rest = rest[os.write(target, rest) :]
    if size:
        raise _EntryError("is cut off: the layer ends in it")


def _fill_sparse(target: int, member: tarfile.TarInfo, source: Source) -> None:
    # A map that claims more than the entry has makes tarfile go backwards, which is refused.
    for offset, size in cast("list[tuple[int, int]]", member.sparse):
        if offset < 0 or size < 0 or offset + size > member.size:
            raise _EntryError("has a wrong map of its holes")
        os.lseek(target, offset, os.SEEK_SET)
        _fill(target, size, source)
    os.ftruncate(target, member.size)


def _mode(path: bytes) -> int:
    """Return a mode with its type, or 0 when nothing is there."""
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return 0


def _nanoseconds(member: tarfile.TarInfo) -> int:
    # In this order, pax's "nan" becomes 0.
    return int(min(max(0, member.mtime), _LATEST) * 10**9)
