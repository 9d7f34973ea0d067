"""The cache in which glibc's loader looks libraries up: /etc/ld.so.cache, as `ldconfig` writes it.

Reads bytes only; what it says about files is a claim, and they may be gone.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BYTES = 8 << 20
"""What is read of a cache; Debian's with thousands of libraries has some hundred kilobytes."""

_OLD_MAGIC = b"ld.so-1.7.0"
_OLD_HEADER, _OLD_ENTRY = "<12sI", 12
_MAGIC = b"glibc-ld.so.cache1.1"
_HEADER = "20sIIB3xI12x"
_ENTRY = "iIIIQ"
_BIG_ENDIAN = 3
_MOST_ENTRIES = 65536
_MOST_TEXT = 4096
_MOST_PATHS = 16


def parse(data: bytes) -> Mapping[str, tuple[str, ...]]:
    """Return the paths of each library name (glibc, sysdeps/generic/dl-cache.h).

    Entries for some processors only come last. Entries of other architectures are not told apart:
    the files themselves say what they are for. What makes no sense is as good as no cache.

    Args:
        data: The file, with or without the older form before the newer one.
    """
    try:
        return _parse(data[_begin(data) :])
    except struct.error:
        return {}


def _begin(data: bytes) -> int:
    """Return where the newer form begins: at once, or aligned behind the older one."""
    if not data.startswith(_OLD_MAGIC):
        return 0
    _, count = struct.unpack_from(_OLD_HEADER, data)
    end: int = struct.calcsize(_OLD_HEADER) + count * _OLD_ENTRY
    return end if data.startswith(_MAGIC, end) else end + -end % 8


def _parse(data: bytes) -> Mapping[str, tuple[str, ...]]:
    if not data.startswith(_MAGIC):
        return {}
    order = "<"
    _, count, _, flags, _ = struct.unpack_from(f"{order}{_HEADER}", data)
    if flags & 3 == _BIG_ENDIAN:
        order = ">"
        _, count, _, flags, _ = struct.unpack_from(f"{order}{_HEADER}", data)
    begin, size = struct.calcsize(f"{order}{_HEADER}"), struct.calcsize(f"{order}{_ENTRY}")
    if count > min(_MOST_ENTRIES, (len(data) - begin) // size):
        return {}
    entries = struct.iter_unpack(f"{order}{_ENTRY}", data[begin : begin + count * size])
    found: dict[str, list[str]] = {}
    left = MOST_BYTES
    for _, key, value, _, _ in sorted(entries, key=lambda entry: entry[4] != 0):
        name, path = _text(data, key), _text(data, value)
        left -= len(name) + len(path)
        if left < 0:
            return {}
        paths = found.setdefault(name, [])
        if path.startswith("/") and len(paths) < _MOST_PATHS:
            paths.append(path)
    return {name: tuple(paths) for name, paths in found.items()}


def _text(data: bytes, at: int) -> str:
    return data[at : at + _MOST_TEXT].partition(b"\0")[0].decode("utf-8", "replace")
