"""A layer's tar as a stream: uncompressed, hashed and counted, its entries one after the other.

Streams are untrusted: every read is bounded, and one that does not end as it should is refused.
Nothing is written here. Imports :mod:`zstandard` only for a stream that needs it.
"""

from __future__ import annotations

import hashlib
import itertools
import tarfile
import zlib
from typing import IO, TYPE_CHECKING, cast

from nox_variants.errors import ImageError, LayoutError
from nox_variants.model import Digest

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator

ENCODING, ERRORS = "utf-8", "surrogateescape"
"""How names become texts and bytes again: any name survives."""

MOST_ENTRIES = 2_000_000
"""Entries of one tar, and of all layers of an image."""

_CHUNK = 1 << 20
_PIECE = 1 << 16
_ZSTD_PIECE = 1 << 10
"""Zstandard makes at most 128 KiB of 4 bytes: 32 MiB of so many."""

_ZSTD_WINDOW = 1 << 27
"""What zstd takes at most without being asked to (zstd --ultra, --long=27)."""

_HEADERS = 1 << 20
"""Bytes of headers that one entry may have, long names and pax records included."""

_NAME_SHOWN = 200

_DAMAGES = (tarfile.TarError, ValueError, OverflowError, EOFError, IndexError, RecursionError)
"""What :mod:`tarfile` raises for archives that are damaged, or made to hurt."""


class Source:
    """An uncompressed tar, hashed and counted while it passes; for tarfile, a file."""

    def __init__(self, chunks: Iterable[bytes], *, limit: int, cancelled: threading.Event) -> None:
        self._chunks = iter(chunks)
        self._limit = limit
        self._cancelled = cancelled
        self._hash = hashlib.sha256()
        self._chunk = b""
        self._at = 0
        self._allowance = 0
        self.size = 0
        self.last = b""

    def allow(self) -> None:
        """Let an entry's headers be read."""
        self._allowance = _HEADERS

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self.size - len(self._chunk) + self._at

    def read(self, count: int) -> bytes:
        """Return a piece of a header."""
        if not 0 <= count <= self._allowance:
            raise LayoutError("the layer has an entry with headers that are too large")
        self._allowance -= count
        self.last = self._chunk[self._at : self._at + count]
        if len(self.last) == count:
            self._at += count
        else:
            self.last = b"".join(self.pieces(count))
        return self.last

    def seek(self, position: int) -> None:
        """Skip bytes."""
        count = position - self.tell()
        if count < 0:
            raise LayoutError("the layer has an entry that leads backwards")
        for _ in self.pieces(count):
            pass

    def pieces(self, count: int) -> Iterator[memoryview]:
        """Yield so many bytes in pieces, fewer at the end of the layer."""
        while count and (self._at < len(self._chunk) or self._next()):
            piece = memoryview(self._chunk)[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def drain(self) -> Digest:
        """Read what is left, and return the digest of the whole."""
        while self._next():
            pass
        return Digest(f"sha256:{self._hash.hexdigest()}")

    def _next(self) -> bool:
        if self._cancelled.is_set():
            raise ImageError("cancelled")
        chunk = next(self._chunks, b"")
        if chunk:
            self._chunk, self._at = chunk, 0
            self.size += len(chunk)
            if self.size > self._limit:
                raise LayoutError("the image's layers are too large")
            self._hash.update(chunk)
        return bool(chunk)


def members(source: Source) -> Iterator[tarfile.TarInfo]:
    """Yield a layer's entries; the source stands at an entry's content then.

    Tarfile's stream mode would copy all content once more, and needs nothing but what a source
    can do.
    """
    source.allow()
    try:
        tar = tarfile.TarFile(fileobj=cast("IO[bytes]", source), encoding=ENCODING, errors=ERRORS)
    except _DAMAGES as error:
        raise LayoutError(
            f"the layer is no tar, neither plain nor compressed with gzip or zstd: {error}"
        ) from error
    known: list[tarfile.TarInfo] = vars(tar)["members"]
    behind = "its start"
    ended = vars(tar)["firstmember"] is None  # asked for the next one, tarfile would read on
    while not ended:
        source.allow()
        try:
            member = tar.next()
        except _DAMAGES as error:
            raise LayoutError(f"the layer is damaged behind {behind}: {error}") from error
        if member is None:
            break
        known.clear()  # or tarfile keeps them all
        yield member
        behind = shown(member.name)
    # Tarfile takes a broken header for the end; an archive ends with zeros, or just so.
    if source.last.strip(b"\0"):
        raise LayoutError(f"the layer is damaged behind {behind}: bad header")


def shown(name: str) -> str:
    """Return an entry's name as errors show it."""
    return repr(name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}...")


def uncompressed(
    blob: IO[bytes], cancelled: threading.Event, *, what: str = "the layer"
) -> Iterator[bytes]:
    """Return a tar in pieces, uncompressed as its first bytes say.

    Args:
        blob: Read from where it stands.
        cancelled: Ends the reading.
        what: The subject of errors.
    """
    first = b""
    while len(first) < 4 and (more := blob.read(_PIECE)):  # noqa: PLR2004  # the longest mark
        first += more
    if first.startswith(b"\x1f\x8b"):
        return _gunzipped(itertools.chain((first,), _read(blob, _PIECE, cancelled)), what)
    if first.startswith(b"\x28\xb5\x2f\xfd"):
        return _unzstandard(itertools.chain((first,), _read(blob, _PIECE, cancelled)), what)
    return itertools.chain(filter(None, (first,)), _read(blob, _CHUNK, cancelled))


def _read(blob: IO[bytes], size: int, cancelled: threading.Event) -> Iterator[bytes]:
    # Checked here too: much that is compressed may become nothing.
    while not cancelled.is_set() and (data := blob.read(size)):
        yield data
    if cancelled.is_set():
        raise ImageError("cancelled")


def _gunzipped(chunks: Iterable[bytes], what: str) -> Iterator[bytes]:
    """Yield what gzip members, and zeros between and behind them, hold (RFC 1952, 2.2)."""
    member = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        rest = chunk
        while rest:
            if member.eof:
                rest = rest.lstrip(b"\0")
                if not rest:
                    break
                member = zlib.decompressobj(wbits=31)
            try:
                data = member.decompress(rest, _CHUNK)
            except zlib.error as error:
                raise LayoutError(f"{what} is damaged: gzip: {error}") from error
            rest = member.unused_data if member.eof else member.unconsumed_tail
            if data:
                yield data
    if not member.eof:
        raise LayoutError(f"{what} is cut off: its gzip stream does not end")


def _unzstandard(chunks: Iterable[bytes], what: str) -> Iterator[bytes]:
    """Yield what zstd frames hold; those without content are skipped (RFC 8878, 3.1)."""
    try:
        import zstandard  # noqa: PLC0415  # only what is compressed so needs it
    except ImportError as error:
        raise LayoutError(
            f"{what} is compressed with zstd, and no package here reads that",
            hint="pip install zstandard",
        ) from error
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    frame = decompressor.decompressobj()
    for chunk in chunks:
        for start in range(0, len(chunk), _ZSTD_PIECE):
            rest = chunk[start : start + _ZSTD_PIECE]
            while rest:
                if frame.eof:
                    frame = decompressor.decompressobj()
                try:
                    data = frame.decompress(rest)
                except zstandard.ZstdError as error:
                    raise LayoutError(f"{what} is damaged: {error}") from error
                rest = frame.unused_data if frame.eof else b""
                if data:
                    yield data
    if not frame.eof:
        raise LayoutError(f"{what} is cut off: its zstd stream does not end")
