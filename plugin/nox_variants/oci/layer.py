"""A folder as a layer: one tar stream that depends on names, modes, links and bytes only.

The same folder gives the same bytes for root and for an ordinary user, on every file system and
with every Python: the headers are made here (POSIX ustar, pax records only for what ustar cannot
hold), not by :mod:`tarfile`, whose output may change. Owners are 0, times are clamped, setuid and
setgid are dropped, extended attributes are left out. Overlayfs's whiteouts and opaque folders
become those of the OCI image-spec (layer.md). Sockets and devices have no place in a layer and
are left out.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from nox_variants.errors import LayoutError
from nox_variants.model import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 512
"""Tar is made of blocks of this size."""

WHITEOUT = b".wh."
"""The prefix that hides a name of the layers below."""

DEEPEST = 200
"""Folders within folders: deeper trees are made to hurt who walks or removes them."""

OPAQUE = b".wh..wh..opq"
"""The name that hides all of a folder's content in the layers below."""

_CHUNK = 1 << 20
_NAME, _PREFIX, _LINK = 100, 155, 100
_OCTAL_11 = 0o77777777777
_OPAQUE_ATTRIBUTES = ("user.overlay.opaque", "trusted.overlay.opaque")


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What became of a folder.

    Attributes:
        diff_id: Digest of the uncompressed tar.
        content: Bytes of regular files, hard links counted once.
        size: Bytes of the tar.
        entries: Number of tar entries.
    """

    diff_id: Digest
    content: int
    size: int
    entries: int


class Writable(Protocol):
    """Where a layer's tar goes."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take all of the bytes."""


class _Nowhere:
    def write(self, data: bytes | memoryview, /) -> None:
        """Forget the data: only the digest is wanted."""


def digest_tree(root: Path, *, mtime: int) -> LayerFacts:
    """Return what :func:`write_tree` would write, without writing it.

    Raises:
        LayoutError: As :func:`write_tree`.
    """
    return _Writer(_Nowhere(), mtime).write(root)


def write_tree(root: Path, out: Writable, *, mtime: int) -> LayerFacts:
    """Write a folder's content, without the folder itself, as a layer.

    Args:
        root: The folder.
        out: Where the tar goes.
        mtime: The latest time that an entry may have, in seconds since 1970.

    Raises:
        LayoutError: Something cannot be read, changes meanwhile, or cannot be part of a layer.
            What `out` raises comes out as it is.
    """
    return _Writer(out, mtime).write(root)


class _Writer:
    def __init__(self, out: Writable, mtime: int) -> None:
        self._out = out
        self._mtime = mtime
        self._hash = hashlib.sha256()
        self._buffer = memoryview(bytearray(_CHUNK))
        self._seen: dict[tuple[int, int], bytes] = {}
        self._size = self._content = self._entries = 0

    def write(self, root: Path) -> LayerFacts:
        for path, name, status in _walk(os.fsencode(root)):
            self._entry(path, name, status)
        self._put(bytes(2 * BLOCK))
        return LayerFacts(
            diff_id=Digest(f"sha256:{self._hash.hexdigest()}"),
            content=self._content,
            size=self._size,
            entries=self._entries,
        )

    def _entry(self, path: bytes, name: bytes, status: os.stat_result) -> None:
        mode = status.st_mode
        if stat.S_ISREG(mode):
            self._file(path, name, status)
        elif stat.S_ISDIR(mode):
            self._header(name + b"/", status, b"5")
            if _opaque(path):
                self._marker(name + b"/" + OPAQUE)
        elif stat.S_ISLNK(mode):
            self._header(name, status, b"2", link=_target(path))
        elif stat.S_ISFIFO(mode):
            self._header(name, status, b"6")
        elif _is_whiteout(status):
            folder, _, last = name.rpartition(b"/")
            self._marker((folder + b"/" if folder else b"") + WHITEOUT + last)

    def _file(self, path: bytes, name: bytes, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            first = self._seen.setdefault((status.st_dev, status.st_ino), name)
            if first is not name:
                self._header(name, status, b"1", link=first)
                return
        self._header(name, status, b"0", size=status.st_size)
        self._content += status.st_size
        if status.st_size:
            for chunk in self._chunks(path, status.st_size):
                self._put(chunk)
            self._put(bytes(-status.st_size % BLOCK))

    def _chunks(self, path: bytes, left: int) -> Iterator[memoryview]:
        """Yield so many bytes of a file, in pieces that are good until the next one."""
        with _reading(path), open(path, "rb", buffering=0, opener=_opener) as file:
            while left:
                count = file.readinto(self._buffer[: min(left, _CHUNK)])
                if not count:
                    raise LayoutError(f"{os.fsdecode(path)}: became shorter while it was read")
                left -= count
                yield self._buffer[:count]

    def _marker(self, name: bytes) -> None:
        """Write one of the specification's marker files: empty, with nothing of its own."""
        self._entries += 1
        self._put(_headers(name, b"0", mode=0o644))

    def _header(
        self, name: bytes, status: os.stat_result, kind: bytes, *, size: int = 0, link: bytes = b""
    ) -> None:
        # A link's own mode means nothing, and file systems differ in what they say.
        mode = 0o777 if kind == b"2" else status.st_mode & 0o1777
        mtime = max(0, min(status.st_mtime_ns // 10**9, self._mtime))
        self._entries += 1
        self._put(_headers(name, kind, mode=mode, size=size, mtime=mtime, link=link))

    def _put(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self._out.write(data)
        self._size += len(data)


def header(name: str, size: int, *, mtime: int = 0) -> bytes:
    """Return the tar header of a regular file with mode 0644, or of a folder (``name/``), 0755."""
    if name.endswith("/"):
        return _headers(name.encode(), b"5", mode=0o755, mtime=mtime)
    return _headers(name.encode(), b"0", mode=0o644, size=size, mtime=mtime)


def plain_file(name: str, data: bytes) -> bytes:
    """Return the whole tar entry of a regular file with mode 0644."""
    return header(name, len(data)) + data + bytes(-len(data) % BLOCK)


def _headers(
    name: bytes, kind: bytes, *, mode: int, size: int = 0, mtime: int = 0, link: bytes = b""
) -> bytes:
    """Return an entry's header, behind one of pax records when ustar cannot hold the entry."""
    prefix, short = _split(name)
    records = b""
    if short is None:
        records += _record(b"path", name)
        prefix, short = b"", _ascii(name)
    if len(link) > _LINK:
        records += _record(b"linkpath", link)
        link = _ascii(link)
    if size > _OCTAL_11:
        records += _record(b"size", b"%d" % size)
        size = 0
    main = _block(short, kind, mode=mode, size=size, mtime=mtime, link=link, prefix=prefix)
    if not records:
        return main
    if not _is_utf8(records):
        records = _record(b"hdrcharset", b"BINARY") + records
    pax = _block(b"PaxHeaders.0", b"x", mode=0o644, size=len(records))
    return pax + records + bytes(-len(records) % BLOCK) + main


def _split(name: bytes) -> tuple[bytes, bytes | None]:
    """Split a name into ustar's prefix and name; the name is None when it cannot be done."""
    if len(name) <= _NAME:
        return b"", name
    # The shortest prefix that leaves a name which fits; a folder's last slash cannot be the place.
    at = name.find(b"/", len(name) - _NAME - 1, len(name) - 1)
    if at < 1 or at > _PREFIX:
        return b"", None
    return name[:at], name[at + 1 :]


def _block(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    size: int,
    mtime: int = 0,
    link: bytes = b"",
    prefix: bytes = b"",
) -> bytes:
    """Return one ustar header block (POSIX.1-2017, pax, "ustar Interchange Format")."""
    before = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        name.ljust(100, b"\0"),
        mode,
        0,
        0,
        size,
        mtime,
    )
    after = b"%s%sustar\x0000%s%s%s%s" % (
        kind,
        link.ljust(100, b"\0"),
        bytes(64),
        b"0000000\0" * 2,
        prefix.ljust(155, b"\0"),
        bytes(12),
    )
    checksum = sum(before) + sum(after) + 8 * 0x20
    return b"%s%06o\0 %s" % (before, checksum, after)


def _record(key: bytes, value: bytes) -> bytes:
    """Return one pax record: its length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _ascii(name: bytes) -> bytes:
    """Return what a reader without pax sees: something short that is plain ASCII."""
    cut = name[: _NAME - 1].decode("ascii", "replace").replace("\ufffd", "?").encode()
    return cut + b"/" if name.endswith(b"/") else cut


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _walk(root: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """Yield path, name in the layer and status, folders before what is in them, in byte order."""
    # An explicit stack: a build can make folders deeper than Python recurses.
    stack = [_entries(root, b"")]
    while stack:
        if not stack[-1]:
            stack.pop()
            continue
        path, name, status = stack[-1].pop()
        yield path, name, status
        if stat.S_ISDIR(status.st_mode):
            stack.append(_entries(path, name + b"/"))


def _entries(folder: bytes, prefix: bytes) -> list[tuple[bytes, bytes, os.stat_result]]:
    """Return a folder's entries, the first name last."""
    with _reading(folder):
        with os.scandir(folder) as scan:
            found = sorted(scan, key=lambda entry: entry.name, reverse=True)
        return [
            (entry.path, _checked(folder, prefix, entry.name), entry.stat(follow_symlinks=False))
            for entry in found
        ]


def _checked(folder: bytes, prefix: bytes, name: bytes) -> bytes:
    if name.startswith(WHITEOUT):
        raise LayoutError(
            f"{os.fsdecode(folder)}: a file cannot be part of an image: {os.fsdecode(name)!r}",
            hint="Names that start with '.wh.' hide files of the layers below (OCI image-spec).",
        )
    return prefix + name


def _target(path: bytes) -> bytes:
    with _reading(path):
        return os.readlink(path)  # noqa: PTH115  # bytes


def _opener(path: str | bytes, flags: int) -> int:
    """Open a file that may have been replaced: follow no link, wait for no pipe's writer."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _opaque(path: bytes) -> bool:
    if not hasattr(os, "listxattr"):  # pragma: no cover  # not Linux: no overlayfs either
        return False
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return False
    with _reading(path):
        return any(
            name in names and os.getxattr(path, name, follow_symlinks=False) == b"y"
            for name in _OPAQUE_ATTRIBUTES
        )


@contextmanager
def _reading(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LayoutError(
            f"{os.fsdecode(path)}: cannot be read into a layer: {error.strerror}"
        ) from error
