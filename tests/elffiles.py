"""ELF files and a loader's cache made by hand: as small as they get, as wrong as a test wants."""

from __future__ import annotations

import struct
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

REL, EXEC, DYN = 1, 2, 3
LOAD, DYNAMIC, INTERP, NOTE = 1, 2, 3, 4
DT_NULL, DT_NEEDED, DT_STRTAB, DT_FLAGS_1 = 0, 1, 5, 0x6FFFFFFB
DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
DT_VERDEF, DT_VERDEFNUM = 0x6FFFFFFC, 0x6FFFFFFD
DT_HASH, DT_SYMTAB, DT_STRSZ, DT_SONAME, DT_RPATH, DT_RUNPATH = 4, 6, 10, 14, 15, 29
DT_GNU_HASH = 0x6FFFFEF5
PIE = 0x08000000
X86_64 = 62
GLIBC_LOADER = b"/lib64/ld-linux-x86-64.so.2\0"
MUSL_LOADER = b"/lib/ld-musl-x86_64.so.1\0"

ADDRESS = 0x40_0000
"""Where the one PT_LOAD segment maps the whole file."""

BODY = 64 + 150 * 56
"""Where in the file the segments begin: there is room for all headers that a test wants."""

CLASSES = [(bits, order) for bits in (32, 64) for order in "<>"]
"""Word sizes and byte orders, all of them."""


class Maker:
    """Makes one tiny ELF file: a header, program headers, and what they point to.

    It is a static program as long as nothing is added.
    """

    def __init__(self, *, kind: int = EXEC, bits: int = 64, order: str = "<") -> None:
        self.kind, self.bits, self.order = kind, bits, order
        self.machine = X86_64
        self.sections = b""
        self.section_count = 1
        self.section_names = 0
        self._segments: list[tuple[int, int, bytes]] = []

    def add(self, kind: int, data: bytes, size: int | None = None) -> Maker:
        """Add a segment; `size` is what its header says, when that is not true."""
        self._segments.append((kind, len(data) if size is None else size, data))
        return self

    def dynamic(self, *tags: tuple[int, int]) -> Maker:
        """Add a dynamic segment, with its end."""
        return self.add(DYNAMIC, self.pack("qQ" * (len(tags) + 1), *sum(tags, ()), DT_NULL, 0))

    def named(self, *sections: tuple[bytes, int, bytes]) -> Maker:
        """Give it sections: name, size and bytes; a size of 0 is that of the bytes."""
        names = b"\0" + b"".join(name + b"\0" for name, _, _ in sections)
        form, headers = "IIQQQQIIQQ", self.pack("IIQQQQIIQQ", *bytes(10))
        for name, size, data in (*sections, (b"", 0, names)):
            self.add(0, data)
            at = self.place(len(self._segments) - 1) - ADDRESS
            place = names.index(b"\0" + name + b"\0") + 1 if name else 0
            headers += self.pack(form, place, 1, 0, 0, at, size or len(data), 0, 0, 0, 0)
        self.sections = headers
        self.section_names = len(sections) + 1
        self.section_count = len(sections) + 2
        return self

    def place(self, number: int) -> int:
        """Return the address of a segment's bytes; segments added later do not count."""
        return ADDRESS + BODY + sum(len(data) for _, _, data in self._segments[:number])

    def pack(self, form: str, *values: int) -> bytes:
        """Pack as the file does: ``Q`` and ``q`` are words of its own size."""
        form = form if self.bits == 64 else form.replace("Q", "I").replace("q", "i")
        return struct.pack(f"{self.order}{form}", *values)

    def build(self) -> bytes:
        """Return the file."""
        lengths = (len(data) for _, _, data in self._segments)
        offsets = accumulate(lengths, initial=BODY)
        body = b"".join(data for _, _, data in self._segments)
        headers = [self._header(LOAD, 0, BODY + len(body))]
        headers += [
            self._header(kind, offset, size)
            for (kind, size, _), offset in zip(self._segments, offsets, strict=False)
        ]
        ident = b"\x7fELF" + bytes([self.bits // 32, "<>".index(self.order) + 1, 1]) + bytes(9)
        sizes = (64, 56, len(headers)) if self.bits == 64 else (52, 32, len(headers))
        shoff = BODY + len(body) if self.sections else 0
        size = struct.calcsize("<" + ("IIQQQQIIQQ" if self.bits == 64 else "I" * 10))
        entry = (
            self.kind,
            self.machine,
            1,
            0,
            sizes[0],
            shoff,
            0,
            *sizes,
            size,
            self.section_count,
            self.section_names,
        )
        header = ident + self.pack("HHIQQQIHHHHHH", *entry)
        return (header + b"".join(headers)).ljust(BODY, b"\0") + body + self.sections

    def _header(self, kind: int, offset: int, size: int) -> bytes:
        if self.bits == 64:
            return self.pack("IIQQQQQQ", kind, 5, offset, ADDRESS + offset, 0, size, size, 1)
        return self.pack("IIIIIIII", kind, offset, ADDRESS + offset, 0, size, size, 5, 1)


def dynamic(
    maker: Maker,
    *,
    interpreter: bytes | None = GLIBC_LOADER,
    needed: Sequence[str] = ("libc.so.6",),
    versions: Sequence[str] = (),
    defines: Sequence[str] = (),
    undefined: Sequence[str] = (),
    texts: Sequence[tuple[int, str]] = (),
    tags: Sequence[tuple[int, int]] = (),
    weak: bool = False,
) -> Maker:
    """Add an interpreter and a dynamic segment with all that it points to.

    The versions are required of the last library that is needed; `texts` are tags with strings.
    """
    strings, offsets = b"\0", {"": 0}
    for name in (*needed, *versions, *defines, *undefined, *(text for _, text in texts)):
        if name not in offsets:
            offsets[name] = len(strings)
            strings += name.encode() + b"\0"
    maker.add(0 if interpreter is None else INTERP, interpreter or b"")
    maker.add(0, strings)
    more = [(DT_STRTAB, maker.place(1)), (DT_STRSZ, len(strings))]
    aux = [
        maker.pack("IHHII", 0, 2 * weak, 0, offsets[name], 0 if name == versions[-1] else 16)
        for name in versions
    ]
    library = offsets[needed[-1]] if needed else 0
    more += [(DT_VERNEED, maker.place(2)), (DT_VERNEEDNUM, 1)] if versions else []
    maker.add(0, maker.pack("HHIII", 1, len(aux), library, 16, 0) + b"".join(aux))
    more += [(DT_VERDEF, maker.place(3)), (DT_VERDEFNUM, len(defines) + 1)] if defines else []
    definitions = [("", 1), *((name, 0) for name in defines)]
    maker.add(0, b"".join(definition(maker, offsets[name], base) for name, base in definitions))
    more += [(DT_SYMTAB, maker.place(4))] if undefined else []
    maker.add(0, b"".join(symbol(maker, offsets[name]) for name in ("", *undefined)))
    more += [(DT_HASH, maker.place(5))] if undefined else []
    maker.add(0, maker.pack("II", 1, len(undefined) + 1))
    return maker.dynamic(
        *((DT_NEEDED, offsets[name]) for name in needed),
        *((tag, offsets[text]) for tag, text in texts),
        *more,
        *tags,
    )


def definition(maker: Maker, name: int, base: int) -> bytes:
    """Return the definition of a version, or of the file itself."""
    return maker.pack("HHHHIIIII", 1, base, 1, 1, 0, 20, 28, name, 0)


def symbol(maker: Maker, name: int, section: int = 0) -> bytes:
    """Return a symbol; section 0 leaves it undefined."""
    if maker.bits == 64:
        return maker.pack("IBBHQQ", name, 0, 0, section, 0, 0)
    return maker.pack("IIIBBH", name, 0, 0, 0, 0, section)


def note(maker: Maker, name: bytes, kind: int, desc: bytes) -> bytes:
    """Return one note."""
    padded = name + bytes(-len(name) % 4)
    return maker.pack("III", len(name), len(desc), kind) + padded + desc + bytes(-len(desc) % 4)


def abi_note(maker: Maker, system: int = 0) -> bytes:
    """Return the note that glibc's start files leave; system 0 is Linux."""
    return note(maker, b"GNU\0", 1, maker.pack("IIII", system, 3, 2, 0))


OLD_CACHE = struct.pack("<12sI", b"ld.so-1.7.0", 2) + bytes(24)
"""The form of a cache that `ldconfig` may still write before today's."""

CACHED = (("liba.so.1", "/lib/liba.so.1"), ("liba.so.1", "/lib32/liba.so.1"), ("b", "/usr/b"))


def cache(
    entries: Sequence[tuple[str, str]] = CACHED,
    *,
    special: Sequence[int] = (),
    order: str = "<",
    count: int | None = None,
) -> bytes:
    """Return a cache; `special` are the numbers of entries for some processors."""
    strings, values = bytearray(), []
    begin = 48 + 24 * len(entries)
    for number, texts in enumerate(entries):
        at = []
        for text in texts:
            at.append(begin + len(strings))
            strings += text.encode() + b"\0"
        values.append(struct.pack(f"{order}iIIIQ", 0x303, *at, 0, (number in special) << 62))
    head = struct.pack(
        f"{order}20sIIB3xI12x",
        b"glibc-ld.so.cache1.1",
        len(entries) if count is None else count,
        len(strings),
        2 if order == "<" else 3,
        0,
    )
    return head + b"".join(values) + bytes(strings)
