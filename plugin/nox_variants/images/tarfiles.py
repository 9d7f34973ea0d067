"""Tar files, plain or compressed, of which single members are read where they lie.

All of a file is untrusted. It is indexed here and not by :mod:`tarfile`, which takes into memory
what a header asks for, and ends at a broken header as at an end. A compressed file becomes a
temporary one without a name. Knows how a root filesystem differs from an image's archive, and
nothing else about images.

A name that is there twice means its last member, as for `tar -x`. Members with absolute names or
``..`` are no members. Links lead from member to member: Docker and Podman write a layer that is
there twice as one.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from nox_variants.errors import ImageError, LayoutError
from nox_variants.images.content import LARGEST_BLOB
from nox_variants.images.layerstream import MOST_ENTRIES, uncompressed
from nox_variants.oci.digest import short
from nox_variants.oci.layer import BLOCK

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator, Mapping

LARGEST = LARGEST_BLOB
"""Bytes of a compressed archive's tar."""

LARGEST_EXTENSION = 1 << 20
"""Bytes of a long name or of pax records before a member."""

MOST_NAMES = 200_000
"""Members of a tar that is no root filesystem."""

MOST_LINKS = 8

WHOLE = "."
"""The name of the tar itself, which no member has."""

KINDS = "It has to be what `docker save` or `podman save` writes, or a root filesystem's tar."
"""The hint for what is no image."""

_CHUNK = 1 << 20
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2"}
_USUAL = frozenset(["bin", "dev", "etc", "lib", "lib64", "proc", "sbin", "sys", "usr", "var"])
"""Folders that a root filesystem has, and an image's archive has not."""

_FILES, _LINKS, _HEADER_ONLY = b"07\0", b"12", b"123456"
_HARD_LINK, _SPARSE, _FOLDER, _PAX, _LONG_NAME = b"1", b"S", b"5", b"x", b"L"
_EXTENSIONS = b"xgLK"
_OCTAL = re.compile(rb"[0-7]*")
_OUTSIDE = ".."


@dataclass(frozen=True, slots=True)
class _Member:
    """A member of a tar: where its bytes are, or where its link leads."""

    start: int
    size: int
    target: str


class Tar:
    """A tar's members, by name.

    Args:
        file: The tar; closed with this.
        cancelled: Ends the indexing.

    Raises:
        LayoutError: It is none, is damaged, or is no image's.
    """

    def __init__(self, file: IO[bytes], cancelled: threading.Event) -> None:
        self._file = file
        size = os.fstat(file.fileno()).st_size
        whole = _Member(0, size, "")
        self._members = _members(_entries(file.fileno(), size, cancelled))
        self._members[WHOLE] = whole

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def has(self, name: str) -> bool:
        """Tell whether there is such a member."""
        return name in self._members

    def size(self, name: str) -> int:
        """Return a member's bytes."""
        return self._member(name).size

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a member's content."""
        member = self._member(name)
        yield from read_range(self._file.fileno(), member.start, member.size)

    def real(self, name: str) -> str:
        """Return the name of the file that a member is, or that its link leads to."""
        if _leads_out(name):
            raise LayoutError(f"{short(name)}: leads out of the archive")
        place = name if name == WHOLE else _clean(name)
        for _ in range(MOST_LINKS):
            member = self._members.get(place)
            if member is None:
                raise LayoutError(f"{short(name)}: is missing")
            if not member.target:
                return place
            place = member.target
        raise LayoutError(f"{short(name)}: is a link that leads nowhere")

    def _member(self, name: str) -> _Member:
        return self._members[self.real(name)]


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _clean(name: str) -> str:
    """Return a name without detours."""
    words: list[str] = []
    for word in name.split("/"):
        if word == "..":
            if not words:
                return _OUTSIDE
            words.pop()
        elif word not in {"", "."}:
            words.append(word)
    return "/".join(words)


def _members(entries: Iterable[_Entry]) -> dict[str, _Member]:
    """Return a tar's members by name; none when it is a root filesystem."""
    found: dict[str, _Member] = {}
    is_root = has_content = False
    for entry in entries:
        name = _clean(entry.name)
        top, below, _ = name.partition("/")
        is_root = is_root or (top in _USUAL and bool(below or entry.kind not in _FILES))
        has_content = has_content or entry.kind in _FILES + _LINKS + _SPARSE
        if is_root or entry.kind not in _FILES + _LINKS or _leads_out(entry.name) or not name:
            continue
        found[name] = _Member(entry.start, entry.size, _target(entry))
        if len(found) > MOST_NAMES:
            raise LayoutError(f"has more than {MOST_NAMES} files, and no folder of a system")
    if not is_root:
        _check_members(found, has_content=has_content)
    return {} if is_root else found


def _target(entry: _Entry) -> str:
    if entry.kind in _FILES:
        return ""
    if entry.link.startswith("/"):
        return _OUTSIDE
    above = "" if entry.kind == _HARD_LINK else entry.name.rpartition("/")[0]
    return _clean(f"{above}/{entry.link}") or _OUTSIDE


def _check_members(members: Mapping[str, _Member], *, has_content: bool) -> None:
    """Refuse what would be taken for a root filesystem and is none."""
    if not has_content:
        raise LayoutError("is empty: it has no files", hint=KINDS)
    if "oci-layout" in members or "manifest.json" in members:
        return
    if "repositories" in members:
        raise LayoutError("is an archive of Docker before 1.10", hint="Save the image again.")
    below = [name for name in members if name.count("/") == 1 and name.endswith("/oci-layout")]
    if below:
        raise LayoutError(
            f"has an OCI layout in a folder: {short(below[0])}",
            hint="Pack what is in the folder: tar -C FOLDER -cf FILE.tar .",
        )


def compression(data: bytes) -> str:
    """Return what a file is compressed with, as its first bytes say; nothing when it is not."""
    return next((form for magic, form in _MAGIC.items() if data.startswith(magic)), "")


def plain(file: IO[bytes], cancelled: threading.Event) -> IO[bytes]:
    """Return another handle of a file, or of a temporary one without a name: decompressed."""
    form = compression(os.pread(file.fileno(), BLOCK, 0))
    if not form:
        return os.fdopen(os.dup(file.fileno()), "rb", buffering=0)
    if form not in {"gzip", "zstd"}:
        raise LayoutError(f"is compressed with {form}", hint="Decompress it first.")
    out = tempfile.TemporaryFile()  # noqa: SIM115  # the archive's own, closed by it
    try:
        for piece in _bounded(uncompressed(file, cancelled, what="the archive")):
            go_on(cancelled)
            out.write(piece)
        out.flush()
    except BaseException:
        out.close()
        raise
    return out


def _bounded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > LARGEST:
            raise LayoutError(
                f"is too large: more than {LARGEST} bytes when decompressed",
                hint="Is it an image at all? What is that large is not read.",
            )
        yield piece


def go_on(cancelled: threading.Event) -> None:
    """Raise an error in a run that was cancelled."""
    if cancelled.is_set():
        raise ImageError("cancelled")


def read_range(handle: int, start: int, size: int) -> Iterator[bytes]:
    """Yield a part of a file; several threads may."""
    end = start + size
    while start < end:
        try:
            piece = os.pread(handle, min(_CHUNK, end - start), start)
        except OSError as error:
            raise LayoutError(f"cannot be read at byte {start}: {error.strerror}") from error
        if not piece:
            raise LayoutError(f"ends at byte {start}, not at {end}")
        yield piece
        start += len(piece)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tar's entry (POSIX pax and ustar, GNU tar)."""

    name: str
    kind: bytes
    start: int
    size: int
    link: str


def _entries(handle: int, end: int, cancelled: threading.Event) -> Iterator[_Entry]:
    """Yield a tar's entries.

    Raises:
        LayoutError: It is none, or not a whole one.
    """
    offset = count = 0
    said: dict[bytes, bytes] = {}
    while (block := os.pread(handle, BLOCK, offset)).strip(b"\0"):
        go_on(cancelled)
        count += 1
        kind, size = block[156:157], _number(block[124:136])
        if count > MOST_ENTRIES:
            raise LayoutError(f"has more than {MOST_ENTRIES} entries")
        if len(block) < BLOCK or size is None or _number(block[148:156]) != _checksum(block):
            if offset:
                raise LayoutError(f"is a damaged tar at byte {offset}")
            raise LayoutError("is no tar", hint=KINDS)
        if kind in _EXTENSIONS:
            said |= _extension(handle, kind, offset + BLOCK, min(size, end))
            offset = _after(offset + BLOCK, size, end)
            continue
        entry = _entry(handle, block, offset, size, said)
        yield entry
        said = {}
        offset = _after(entry.start, entry.size, end)
    if not count:
        raise LayoutError("is empty", hint=KINDS)


def _after(start: int, size: int, end: int) -> int:
    if start + size > end:
        raise LayoutError(f"is a truncated tar: it should have {start + size} bytes and has {end}")
    return start + size + -size % BLOCK


def _entry(
    handle: int, block: bytes, offset: int, size: int, said: Mapping[bytes, bytes]
) -> _Entry:
    kind, start, name = block[156:157], offset + BLOCK, _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = _text(block[345:500]) + b"/" + name
    name = said.get(b"path", name)
    if kind == b"\0" and name.endswith(b"/"):
        kind = _FOLDER
    if b"size" in said:
        if not re.fullmatch(rb"[0-9]{1,18}", said[b"size"]):
            raise LayoutError(f"is a damaged tar at byte {offset}: size {short(said[b'size'])}")
        size = int(said[b"size"])
    more = kind == _SPARSE and block[482]
    while more:
        block = os.pread(handle, BLOCK, start)
        start += BLOCK
        more = len(block) == BLOCK and block[504]
    link = said.get(b"linkpath", _text(block[157:257]))
    return _Entry(_decoded(name), kind, start, 0 if kind in _HEADER_ONLY else size, _decoded(link))


def _extension(handle: int, kind: bytes, start: int, size: int) -> dict[bytes, bytes]:
    """Return what is said about the next entry; what is said about all of them is not needed."""
    if size > LARGEST_EXTENSION:
        raise LayoutError(f"is a hostile tar at byte {start}: a name or a record of {size} bytes")
    data = b"".join(read_range(handle, start, size))
    if kind in b"LK":
        return {b"path" if kind == _LONG_NAME else b"linkpath": _text(data)}
    return _records(data) if kind == _PAX else {}


def _records(data: bytes) -> dict[bytes, bytes]:
    """Return pax records (POSIX pax, "pax Header Block"), of which three are needed."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        length, _, _ = data[at : at + 10].partition(b" ")
        end = at + int(length) if length.isdigit() else at
        key, equals, value = data[at + len(length) + 1 : end].partition(b"=")
        if end > len(data) or not equals or not value.endswith(b"\n"):
            raise LayoutError(f"is a damaged tar: pax record {short(data[at : at + 40])}")
        if key in {b"path", b"linkpath", b"size"}:
            found[key] = value[:-1]
        at = end
    return found


def _number(field: bytes) -> int | None:
    """Return a header's number; none where there is no positive one."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:])
    text = field.strip(b" \0")
    return int(text or b"0", 8) if _OCTAL.fullmatch(text) else None


def _checksum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _decoded(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
