"""Tars that a fuzzer changes: their sums are mended, or it would never get behind them."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import zstandard

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK = 512
_PACKED: dict[bytes, Callable[[bytes], bytes]] = {b"g": gzip.compress, b"z": zstandard.compress}


def tar_of(data: bytes) -> bytes:
    """Return the file that an input stands for.

    Its first byte says what is done to the rest: `r` nothing, so that the compressed forms are
    tried themselves; else it is a tar whose sums are mended, `g` under gzip, `z` under zstd.
    """
    first, rest = data[:1], data[1:]
    if first in {b"", b"r"}:
        return rest
    return _PACKED.get(first, bytes)(mended(rest))


def mended(data: bytes) -> bytes:
    """Return a tar whose headers have the right sums, as far as they can be followed."""
    tar, at = bytearray(data), 0
    while at + _BLOCK <= len(tar):
        block = bytes(tar[at : at + _BLOCK])
        if any(block):
            total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
            tar[at + 148 : at + 156] = b"%06o\0 " % total
        at += _BLOCK + _padded(block[124:136])
    return bytes(tar)


def _padded(field: bytes) -> int:
    try:
        size = int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return 0
    return max(0, size) + -max(0, size) % _BLOCK
