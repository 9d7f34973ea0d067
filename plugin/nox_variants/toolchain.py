"""What compiled a program, in its own words: pure, out of sections that nobody vouches for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = 200
"""Characters that are kept of a compiler's words."""

_GCC = "GCC:"
_RUST = "rustc "
_RUST_WORDS = b"RUST_BACKTRACE"
"""What every program with Rust's standard library looks for in its environment."""

_NO_COMPILERS = ("Linker:", "mold ", "The Netwide Assembler", "yasm ")
"""Beginnings of what linkers and assemblers say of themselves in the same place."""

_GO_MAGIC = b"\xff Go buildinf:"
_GO_FLAGS, _GO_INLINE, _GO_HEADER = 15, 2, 32
_VARINT_BYTES = 5


def compiler(build_info: bytes, comment: bytes, constants: Callable[[], bytes]) -> str:
    """Return what compiled a program; empty where nothing says so.

    Args:
        build_info: The beginning of its section ``.go.buildinfo``, which a Go program has even
            where C is linked in.
        comment: The beginning of its section ``.comment``.
        constants: Gives the beginning of its section ``.rodata``: Debian's Rust leaves no line, and
            GCC, which compiled the start files, would get the credit.
    """
    found = _go(build_info) or _c(comment)
    if found.startswith(_GCC) and _RUST_WORDS in constants():
        return _RUST.strip()
    return found


def _go(data: bytes) -> str:
    """Return the version of Go, since 1.18 (Go, debug/buildinfo: before, it was a pointer)."""
    if len(data) < _GO_HEADER or not data.startswith(_GO_MAGIC):
        return ""
    if not data[_GO_FLAGS] & _GO_INLINE:
        return ""
    length = 0
    for place, byte in enumerate(data[_GO_HEADER : _GO_HEADER + _VARINT_BYTES]):
        length |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:  # noqa: PLR2004  # the last byte of a varint
            begin = _GO_HEADER + place + 1
            return _shown(data[begin : begin + length])
    return ""


def _c(comment: bytes) -> str:
    """Return the compiler among those that left a line: each object file's left its own.

    The start files and the C library are linked in before and GCC compiled them, as a rule: what
    is not GCC compiled the program, and of several GCCs the last one.
    """
    lines = [_shown(line) for line in comment.split(b"\0")]
    lines = [line for line in lines if line and not line.startswith(_NO_COMPILERS)]
    rust = [line for line in lines if line.startswith(_RUST)]
    others = [line for line in lines if not line.startswith(_GCC)]
    return (rust or others or lines or [""])[-1]


def _shown(data: bytes) -> str:
    """Return words as they can be shown."""
    text = data[: 4 * LONGEST].decode("utf-8", "replace")
    return "".join(filter(str.isprintable, text)).strip()[:LONGEST]
