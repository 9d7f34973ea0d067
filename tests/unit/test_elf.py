"""ELF files are read, never run: made by hand here, and by the host's compilers."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import require
from elffiles import (
    ADDRESS,
    BODY,
    CLASSES,
    DT_FLAGS_1,
    DT_GNU_HASH,
    DT_HASH,
    DT_NEEDED,
    DT_RPATH,
    DT_RUNPATH,
    DT_SONAME,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMTAB,
    DT_VERDEF,
    DT_VERDEFNUM,
    DT_VERNEED,
    DT_VERNEEDNUM,
    DYN,
    GLIBC_LOADER,
    INTERP,
    MUSL_LOADER,
    NOTE,
    PIE,
    REL,
    Maker,
    abi_note,
    dynamic,
    note,
    symbol,
)
from nox_variants import elf, programfile
from nox_variants.results import FileFacts, Linkage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(("bits", "order"), CLASSES)
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (3, {"i686"}),
        (8, {"mips", "mips64"}),
        (20, {"ppc"}),
        (21, {"ppc64", "ppc64le"}),
        (22, {"s390x"}),
        (40, {"arm"}),
        (62, {"x86_64"}),
        (183, {"aarch64"}),
        (243, {"riscv32", "riscv64"}),
        (258, {"loongarch64"}),
        (9999, {"machine-9999"}),
    ],
)
def test_machine(number: int, words: set[str], bits: int, order: str) -> None:
    """Every machine has its word of `uname -m`, which word size and byte order may decide."""
    maker = Maker(bits=bits, order=order)
    maker.machine = number

    word = elf.machine(maker.build()[:20])

    decides = {8: bits == 64, 21: order == "<", 243: bits == 64}
    assert word == sorted(words)[decides.get(number, False)]


@pytest.mark.parametrize(
    "head",
    [
        b"",
        Maker().build()[:19],
        b"\x7fELG" + Maker().build()[4:],
        Maker().build()[:5] + b"\3" + Maker().build()[6:],
    ],
)
def test_no_machine(head: bytes) -> None:
    """A header that is short, no ELF header, or of no byte order has no machine."""
    assert elf.machine(head) == ""


@pytest.mark.parametrize(("bits", "order"), CLASSES)
def test_static(read: Callable[[bytes], FileFacts], bits: int, order: str) -> None:
    """An ET_EXEC file without an interpreter is static, and needs nothing."""
    facts = read(Maker(bits=bits, order=order).build())

    assert facts == FileFacts(linkage=Linkage.STATIC, machine="x86_64", bits=bits)


@pytest.mark.parametrize(("bits", "order"), CLASSES)
def test_dynamic(read: Callable[[bytes], FileFacts], bits: int, order: str) -> None:
    """A dynamic file names its loader, its libraries in order, and the glibc that it needs."""
    maker = dynamic(
        Maker(kind=DYN, bits=bits, order=order),
        needed=["libm.so.6", "libc.so.6"],
        versions=["GLIBC_2.9", "GLIBC_2.34", "GLIBC_2.4"],
    )
    maker.add(NOTE, abi_note(maker))

    assert read(maker.build()) == FileFacts(
        linkage=Linkage.GLIBC_DYNAMIC,
        machine="x86_64",
        bits=bits,
        interpreter="/lib64/ld-linux-x86-64.so.2",
        needed=("libm.so.6", "libc.so.6"),
        requires=tuple(("libc.so.6", f"GLIBC_{number}") for number in ("2.9", "2.34", "2.4")),
        glibc="2.34",
        abi_tag=True,
    )


@pytest.mark.parametrize(
    ("interpreter", "linkage"),
    [
        (b"/lib/ld-linux.so.2", Linkage.GLIBC_DYNAMIC),
        (b"/lib64/ld64.so.2", Linkage.GLIBC_DYNAMIC),
        (b"/lib/ld.so.1", Linkage.GLIBC_DYNAMIC),
        (b"/nix/store/x/ld-linux-aarch64.so.1", Linkage.GLIBC_DYNAMIC),
        (b"/lib/ld-musl-aarch64.so.1", Linkage.MUSL_DYNAMIC),
        (b"ld-musl-x86_64.so.1", Linkage.MUSL_DYNAMIC),
        (b"/system/bin/linker64", Linkage.OTHER_DYNAMIC),
        (b"/ld-musl/loader", Linkage.OTHER_DYNAMIC),
    ],
)
def test_loader_tells_the_libc(
    read: Callable[[bytes], FileFacts], interpreter: bytes, linkage: Linkage
) -> None:
    """The loader's file name, and not its folder, says which libc a dynamic file is for."""
    facts = read(dynamic(Maker(), interpreter=interpreter + b"\0").build())

    assert (facts.linkage, facts.interpreter) == (linkage, interpreter.decode())


def test_strings_may_begin_where_the_file_does(read: Callable[[bytes], FileFacts]) -> None:
    """The first mapped byte is mapped: a string table there is the ELF header, read as text."""
    maker = Maker().add(INTERP, GLIBC_LOADER)

    facts = read(maker.dynamic((DT_NEEDED, 1), (DT_STRTAB, ADDRESS)).build())

    assert facts.needed == ("ELF\2\1\1",)


def test_first_interpreter_counts(read: Callable[[bytes], FileFacts]) -> None:
    """Of two interpreters the first is the one that the kernel takes."""
    facts = read(dynamic(Maker()).add(INTERP, MUSL_LOADER).build())

    assert facts.linkage is Linkage.GLIBC_DYNAMIC


@pytest.mark.parametrize(
    ("needed", "flags", "linkage"),
    [
        ([], PIE, Linkage.STATIC_PIE),
        ([], 0, Linkage.STATIC_PIE),
        (["libc.so.6"], PIE | 1, Linkage.STATIC_PIE),
        (["libc.so.6"], 1, Linkage.OTHER),
    ],
)
def test_without_interpreter(
    read: Callable[[bytes], FileFacts], needed: list[str], flags: int, linkage: Linkage
) -> None:
    """ET_DYN without an interpreter is a static-pie program, or a library that is no program."""
    maker = Maker(kind=DYN)
    strings = b"\0libc.so.6\0"
    maker.add(0, strings)
    tags = [(DT_NEEDED, 1) for _ in needed]
    maker.dynamic(*tags, (DT_STRTAB, maker.place(0)), (DT_FLAGS_1, flags))

    facts = read(maker.build())

    assert (facts.linkage, facts.needed) == (linkage, tuple(needed))


def test_static_pie_without_dynamic_segment(read: Callable[[bytes], FileFacts]) -> None:
    """A position-independent file with nothing to relocate is static-pie too."""
    assert read(Maker(kind=DYN).build()).linkage is Linkage.STATIC_PIE


def test_object_file_is_no_program(read: Callable[[bytes], FileFacts]) -> None:
    """A relocatable file has a machine and cannot be run, even with an interpreter."""
    facts = read(dynamic(Maker(kind=REL)).build())

    assert (facts.linkage, facts.machine) == (Linkage.OTHER, "x86_64")


@pytest.mark.parametrize(
    ("versions", "glibc"),
    [
        ([], ""),
        (["GLIBC_2.2.5"], "2.2.5"),
        (["GLIBC_2.2.5", "GLIBC_PRIVATE", "GLIBC_ABI_DT_RELR"], "2.2.5"),
        (["GLIBCXX_3.4.30", "GCC_3.0", "CXXABI_1.3"], ""),
        (["GLIBC_2.10", "GLIBC_2.9"], "2.10"),
    ],
)
def test_glibc_version(read: Callable[[bytes], FileFacts], versions: list[str], glibc: str) -> None:
    """The highest GLIBC version counts, by number; other names and words do not."""
    assert read(dynamic(Maker(), versions=versions).build()).glibc == glibc


def test_abi_tag(read: Callable[[bytes], FileFacts]) -> None:
    """Only a GNU ABI note for Linux is glibc's, in any segment and behind any other note."""
    maker = Maker()
    other = note(maker, b"Go\0", 4, b"build-id") + note(maker, b"GNU\0", 3, b"12345678")

    def tagged(*notes: bytes) -> bool:
        made = Maker()
        for each in notes:
            made.add(NOTE, each)
        return read(made.build()).abi_tag

    assert tagged(abi_note(maker))
    assert tagged(other + abi_note(maker))
    assert tagged(other, abi_note(maker), other)
    assert not tagged(other)
    assert not tagged(abi_note(maker, system=1))
    assert not tagged(note(maker, b"BSD\0", 1, bytes(16)))


@pytest.mark.parametrize(("bits", "order"), CLASSES)
def test_section_headers_are_not_trusted(
    read: Callable[[bytes], FileFacts], bits: int, order: str
) -> None:
    """Section headers that lie change nothing: neither kernel nor loader looks at them."""
    plain, lying = (dynamic(Maker(bits=bits, order=order)) for _ in range(2))
    lying.sections = b"\xff" * 64

    assert read(lying.build()) == read(plain.build())


TEXTS = ((DT_SONAME, "libx.so.1"), (DT_RPATH, "/a::$ORIGIN/b"), (DT_RUNPATH, "/c:/d"))


@pytest.mark.parametrize(("bits", "order"), CLASSES)
def test_what_a_library_says(read: Callable[[bytes], FileFacts], bits: int, order: str) -> None:
    """A library has a name, folders for what it needs, and versions; the file's own is none."""
    maker = Maker(kind=DYN, bits=bits, order=order)
    facts = read(dynamic(maker, interpreter=None, texts=TEXTS[:2], defines=("X_1", "X_2")).build())

    assert (facts.soname, facts.defines) == ("libx.so.1", ("X_1", "X_2"))
    assert (facts.rpath, facts.runpath) == (("/a", "", "$ORIGIN/b"), ())


@pytest.mark.parametrize(
    ("texts", "folders"),
    [
        (TEXTS, ((), ("/c", "/d"))),
        (((DT_RPATH, ""),), ((), ())),
        (((DT_RPATH, "/a"), (DT_RUNPATH, "")), ((), ())),
    ],
)
def test_runpath_makes_rpath_void(
    read: Callable[[bytes], FileFacts], texts: tuple[tuple[int, str], ...], folders: object
) -> None:
    """DT_RPATH counts only where there is no DT_RUNPATH, and an empty one is none."""
    facts = read(dynamic(Maker(), texts=texts).build())

    assert (facts.rpath, facts.runpath) == folders


def test_weak_versions_need_not_be_there(read: Callable[[bytes], FileFacts]) -> None:
    """A weak reference to a version is no requirement (VER_FLG_WEAK)."""
    facts = read(dynamic(Maker(), versions=["GLIBC_2.34"], weak=True).build())

    assert (facts.requires, facts.glibc) == ((), "")


NAMES = ("puts", "dlopen", "getaddrinfo", "my_getpwnam")


@pytest.mark.parametrize(("bits", "order"), CLASSES)
@pytest.mark.parametrize("table", [DT_HASH, DT_GNU_HASH, 0])
def test_imports(read: Callable[[bytes], FileFacts], table: int, bits: int, order: str) -> None:
    """Watched functions that are undefined are imports, whatever tells how many symbols are."""
    maker = Maker(kind=DYN, bits=bits, order=order)
    maker.add(INTERP, GLIBC_LOADER)
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in NAMES) + b"getpwuid\0"
    symbols = [symbol(maker, strings.index(name.encode())) for name in ("dlopen", "getaddrinfo")]
    defined = symbol(maker, strings.index(b"getpwuid"), section=1)
    maker.add(0, symbol(maker, 0) + b"".join(symbols) + defined).add(0, strings)
    words = (1, 4, 0, 0) if table == DT_HASH else (1, 3, 0, 0, 3)
    maker.add(0, maker.pack("I" * len(words), *words))
    tags = [(DT_SYMTAB, maker.place(1)), (DT_STRTAB, maker.place(2)), (DT_STRSZ, len(strings))]
    maker.dynamic(*tags, *([(table, maker.place(3))] if table else []))

    assert read(maker.build()).imports == ("dlopen", "getaddrinfo")


def test_an_empty_hash_table_lists_nothing(read: Callable[[bytes], FileFacts]) -> None:
    """A DT_GNU_HASH without symbols says nothing about those that are undefined."""
    maker = Maker(kind=DYN).add(INTERP, GLIBC_LOADER)
    maker.add(0, symbol(maker, 0) + symbol(maker, 1)).add(0, b"\0dlopen\0")
    maker.add(0, maker.pack("IIIII", 1, 1, 0, 0, 0))
    tags = [(DT_SYMTAB, maker.place(1)), (DT_STRTAB, maker.place(2)), (DT_STRSZ, 8)]
    maker.dynamic(*tags, (DT_GNU_HASH, maker.place(3)))

    assert read(maker.build()).imports == ("dlopen",)


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param([(DT_HASH, 1)], id="unmapped-table"),
        pytest.param([(DT_STRSZ, 2**40)], id="huge-strings"),
        pytest.param([(DT_SYMTAB, 1)], id="unmapped-symbols"),
    ],
)
def test_absurd_symbols_import_nothing(
    read: Callable[[bytes], FileFacts], tags: list[tuple[int, int]]
) -> None:
    """Symbols that make no sense are none; what the loader uses is read all the same."""
    facts = read(dynamic(Maker(), undefined=["dlopen"], tags=tags).build())

    assert (facts.imports, facts.linkage) == ((), Linkage.GLIBC_DYNAMIC)
    assert read(dynamic(Maker(), undefined=["dlopen"]).build()).imports == ("dlopen",)


def static(bits: int, order: str, *, stripped: bool, tagged: bool = True) -> bytes:
    """Return a static program with one watched function, and the words of NSS."""
    maker = Maker(bits=bits, order=order)
    strings = b"\0__getpwnam\0dlopen\0"
    symbols = symbol(maker, 3, 1) + symbol(maker, 12, 1)
    maker.add(NOTE, abi_note(maker) if tagged else b"")
    maker.add(0, symbols).add(0, strings).add(0, b"x" * (1 << 20) + b"/etc/nsswitch.conf\0")
    begin = [maker.place(number) - ADDRESS for number in (1, 2)]
    form = "IIQQQQIIQQ"
    table = maker.pack(form, 0, 2, 0, 0, begin[0], len(symbols), 1, 0, 0, 0)
    names = maker.pack(form, 0, 3, 0, 0, begin[1], len(strings), 0, 0, 0, 0)
    maker.section_count = 0 if stripped else 2
    maker.sections = table + names
    return maker.build()


@pytest.mark.parametrize(("bits", "order"), CLASSES)
def test_static_functions(read: Callable[[bytes], FileFacts], bits: int, order: str) -> None:
    """A static program has functions in it; with symbols stripped, their words give NSS away."""
    assert read(static(bits, order, stripped=False)).imports == ("getpwnam",)
    assert read(static(bits, order, stripped=True)).imports == (elf.NSS,)
    assert read(static(bits, order, stripped=True, tagged=False)).imports == ()


GCC, GCC_11 = b"GCC: (Debian 12.2.0-14) 12.2.0", b"GCC: (Debian 11.2.0-19) 11.2.0"
CLANG = b"Debian clang version 14.0.6"
RUSTC = b"rustc version 1.95.0 (59807616e 2026-04-14)"
LLD = b"Linker: LLD 22.1.2 (/checkout/src/llvm-project/llvm 1cb4e3833c1919c2e6f)"


def lines(*words: bytes) -> bytes:
    """Return a section ``.comment``."""
    return b"\0" + b"".join(word + b"\0" for word in words)


def go_info(version: bytes, flags: int = 2) -> bytes:
    """Return a section ``.go.buildinfo``; flags of 2 say that the version is in it."""
    head = b"\xff Go buildinf:" + bytes([8, flags]) + bytes(16)
    return head + bytes([len(version) & 0x7F | 0x80, len(version) >> 7]) + version + b"\x04path"


@pytest.mark.parametrize(("bits", "order"), CLASSES)
@pytest.mark.parametrize(
    ("comment", "compiler"),
    [
        pytest.param(lines(GCC), GCC, id="gcc"),
        pytest.param(lines(GCC_11, GCC), GCC, id="after-the-start-files"),
        pytest.param(lines(RUSTC, LLD, GCC), RUSTC, id="rust"),
        pytest.param(lines(GCC, CLANG, RUSTC, LLD), RUSTC, id="rust-with-c"),
        pytest.param(lines(GCC, CLANG, LLD), CLANG, id="clang"),
        pytest.param(lines(GCC, b"mold 1.10.1", b"The Netwide Assembler 2.16"), GCC, id="others"),
        pytest.param(lines(LLD), b"", id="linker-only"),
        pytest.param(b"", b"", id="empty"),
        pytest.param(b"\0" * 100, b"", id="nulls"),
        pytest.param(b" x\t\x1b[31my\n ", b"x[31my", id="controls"),
        pytest.param(b"\xff\xfe", "\N{REPLACEMENT CHARACTER}".encode() * 2, id="no-text"),
        pytest.param(b"y" * 5000, b"y" * 200, id="long"),
        pytest.param(lines(GCC) + b"z" * (1 << 20), b"z" * 200, id="huge"),
    ],
)
def test_compiler(
    read: Callable[[bytes], FileFacts], bits: int, order: str, comment: bytes, compiler: bytes
) -> None:
    """The compiler of the program itself is told, bounded and printable, as it calls itself."""
    maker = Maker(bits=bits, order=order).named((b".text", 0, b"x"), (b".comment", 0, comment))

    assert read(maker.build()).compiler == compiler.decode()


@pytest.mark.parametrize(("bits", "order"), CLASSES)
@pytest.mark.parametrize(
    ("info", "compiler"),
    [
        pytest.param(go_info(b"go1.22.5"), "go1.22.5", id="go"),
        pytest.param(go_info(b"go1.22.5", flags=3), "go1.22.5", id="other-order"),
        pytest.param(go_info(b"go" + b"1" * 900), "go" + "1" * 198, id="long"),
        pytest.param(go_info(b"go1.17", flags=0), GCC.decode(), id="pointer"),
        pytest.param(go_info(b"go1.22.5")[:31], GCC.decode(), id="cut"),
        pytest.param(b"\xff Go buildinf:\x08\2" + b"\xff" * 80, GCC.decode(), id="endless-length"),
        pytest.param(b"x" + go_info(b"go1.22.5"), GCC.decode(), id="other-magic"),
        pytest.param(go_info(b""), GCC.decode(), id="empty"),
    ],
)
def test_go_compiler(
    read: Callable[[bytes], FileFacts], bits: int, order: str, info: bytes, compiler: str
) -> None:
    """A Go program names its Go, also with C in it."""
    maker = Maker(bits=bits, order=order)
    maker.named((b".comment", 0, lines(GCC)), (b".go.buildinfo", 0, info))

    assert read(maker.build()).compiler == compiler


@pytest.mark.parametrize(
    ("comment", "compiler"),
    [(lines(GCC), "rustc"), (lines(GCC, RUSTC), RUSTC.decode()), (b"", "")],
)
def test_rust_without_a_line(
    read: Callable[[bytes], FileFacts], comment: bytes, compiler: str
) -> None:
    """A Rust that leaves no line of its own is not taken for the GCC of the start files."""
    constants = b"x" * 100_000 + b"RUST_BACKTRACE\0"
    maker = Maker().named((b".rodata", 0, constants), (b".comment", 0, comment))

    assert read(maker.build()).compiler == compiler


def test_sections_that_lie(read: Callable[[bytes], FileFacts]) -> None:
    """Wrong section headers cost the compiler, and nothing else that a dynamic file says."""
    plain = read(dynamic(Maker()).build())
    good = dynamic(Maker()).named((b".comment", 0, lines(GCC)))
    data = good.build()
    begin = len(data) - len(good.sections)
    lies = {
        "far": data[:0x28] + b"\xff" * 8 + data[0x30:],
        "many": data[:0x3C] + b"\xff\xff" + data[0x3E:],
        "no-names": data[:0x3E] + b"\xff\xff" + data[0x40:],
        "other-size": data[:0x3A] + b"\0\0" + data[0x3C:],
        "cut": data[:-1],
        "huge-names": data[: begin + 128 + 32] + b"\xff" * 8 + data[begin + 128 + 40 :],
        "huge": data[: begin + 64 + 32] + b"\xff" * 8 + data[begin + 64 + 40 :],
        "far-section": data[: begin + 64 + 24] + b"\xff" * 8 + data[begin + 64 + 32 :],
        "no-bytes": data[: begin + 64 + 4] + b"\x08" + data[begin + 64 + 5 :],
    }

    assert read(data) == replace(plain, compiler=GCC.decode())
    found = {name: read(lie) for name, lie in lies.items()}
    assert {name: replace(facts, compiler="") for name, facts in found.items()} == dict.fromkeys(
        lies, plain
    )
    told = {name for name, facts in found.items() if facts.compiler}
    assert told == {"huge-names", "huge"}  # no more is read than there may be


def many_needed(count: int) -> Maker:
    """Return a file that needs one library many times."""
    return dynamic(Maker(), needed=["libc.so.6"], tags=[(DT_NEEDED, 1)] * (count - 1))


def many_notes(count: int) -> Maker:
    """Return a static file with many notes, the last one the ABI tag."""
    maker = Maker()
    return maker.add(NOTE, note(maker, b"x\0", 9, b"") * (count - 1) + abi_note(maker))


def version_loop() -> Maker:
    """Return a file whose version lists lead back to themselves."""
    maker = Maker().add(INTERP, GLIBC_LOADER)
    maker.add(0, b"\0GLIBC_2.0\0\0")
    loop = maker.pack("HHIII", 1, 2000, 0, 16, 0) + maker.pack("IHHII", 0, 0, 0, 1, 0)
    maker.add(0, loop)
    versions = ((DT_VERNEED, maker.place(2)), (DT_VERNEEDNUM, 500))
    return maker.dynamic((DT_STRTAB, maker.place(1)), *versions)


def without_count() -> Maker:
    """Return a file with versions and no count of them."""
    return dynamic(Maker(), tags=[(DT_VERNEED, ADDRESS)])


def segments(count: int) -> Maker:
    """Return a static file with a number of segments, the PT_LOAD included."""
    maker = Maker()
    for _ in range(count - 1):
        maker.add(0, b"")
    return maker


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(dynamic(Maker(), interpreter=b"/lib/ld.so").build(), id="no-null"),
        pytest.param(dynamic(Maker(), interpreter=b"").build(), id="empty-interpreter"),
        pytest.param(dynamic(Maker(), interpreter=b"\0\0").build(), id="null-interpreter"),
        pytest.param(dynamic(Maker(), interpreter=b"/" * 4096 + b"\0").build(), id="long-path"),
        pytest.param(many_needed(513).build(), id="needed"),
        pytest.param(many_notes(258).build(), id="notes"),
        pytest.param(dynamic(Maker(), tags=[(24, 0)] * 2047).build(), id="tags"),
        pytest.param(segments(129).build(), id="segments"),
        pytest.param(version_loop().build(), id="version-loop"),
        pytest.param(without_count().build(), id="no-version-count"),
        pytest.param(
            dynamic(Maker(), tags=[(DT_VERNEED, ADDRESS), (DT_VERNEEDNUM, 513)]).build(),
            id="version-count",
        ),
        pytest.param(
            dynamic(Maker(), tags=[(DT_VERNEED, 1), (DT_VERNEEDNUM, 1)]).build(),
            id="unmapped-versions",
        ),
        pytest.param(
            dynamic(Maker(), tags=[(DT_VERDEF, ADDRESS), (DT_VERDEFNUM, 513)]).build(),
            id="definition-count",
        ),
        pytest.param(
            dynamic(Maker(), texts=[(DT_RUNPATH, "x" * 4000)], needed=["y" * 4000] * 70).build(),
            id="too-much-text",
        ),
        pytest.param(Maker().dynamic((DT_NEEDED, 1)).build(), id="no-strings"),
        pytest.param(
            Maker().dynamic((DT_NEEDED, 1), (DT_STRTAB, 1)).build(), id="unmapped-strings"
        ),
        pytest.param(dynamic(Maker()).build()[:-1], id="cut"),
        pytest.param(Maker().build()[:40], id="cut-header"),
        pytest.param(Maker(bits=32).build()[:30], id="cut-short-header"),
        pytest.param(Maker().add(NOTE, b"\xff" * 64).build(), id="huge-note"),
        pytest.param(Maker().add(INTERP, b"/x\0", size=2**40).build(), id="huge-interpreter"),
    ],
)
def test_hostile_elf(read: Callable[[bytes], FileFacts], data: bytes) -> None:
    """A file that cannot be believed, or asks for too much, keeps what its header says only."""
    bits = 32 if data[4] == 1 else 64

    assert read(data) == FileFacts(linkage=Linkage.OTHER, machine="x86_64", bits=bits)


def test_bounds_are_reached(read: Callable[[bytes], FileFacts]) -> None:
    """What is just within the bounds is read."""
    long = b"/" * 4095 + b"\0"

    assert read(dynamic(Maker(), interpreter=long).build()).interpreter == "/" * 4095
    assert len(read(many_needed(512).build()).needed) == 512
    assert read(many_notes(257).build()).abi_tag
    assert read(segments(128).build()).linkage is Linkage.STATIC
    assert read(dynamic(Maker(), tags=[(24, 0)] * 2045).build()).linkage is Linkage.GLIBC_DYNAMIC


def far_segments(data: bytes) -> bytes:
    """Return a file whose program headers are said to lie where no file has anything."""
    place, size = (32, 8) if data[4] == 2 else (28, 4)  # e_phoff
    return data[:place] + b"\xff" * size + data[place + size :]


TAKEN: dict[str, Callable[[Maker], bytes]] = {
    "static": lambda made: made.build(),
    "dynamic": lambda made: dynamic(made).build(),
    "short-interpreter": lambda made: dynamic(made, interpreter=b"/\0").build(),
    "many-needed": lambda made: dynamic(made, tags=[(DT_NEEDED, 1)] * 600).build(),
}
REFUSED: dict[str, Callable[[Maker], bytes]] = {
    "open-interpreter": lambda made: dynamic(made, interpreter=b"/x").build(),
    "no-interpreter": lambda made: dynamic(made, interpreter=b"\0").build(),
    "long-interpreter": lambda made: dynamic(made, interpreter=b"/" * 4096 + b"\0").build(),
    "cut-interpreter": lambda made: made.add(INTERP, b"/x\0", size=4000).build(),
    "cut-segments": lambda made: made.build()[:70],
    "far-segments": lambda made: far_segments(made.build()),
    "cut-header": lambda made: made.build()[:30],
    "other-magic": lambda made: b"\0" + made.build()[1:],
    "other-class": lambda made: made.build()[:4] + b"\7" + made.build()[5:],
    "object": lambda made: Maker(kind=REL, bits=made.bits, order=made.order).build(),
}


@pytest.mark.parametrize(("bits", "order"), CLASSES)
@pytest.mark.parametrize("name", [*TAKEN, *REFUSED])
def test_headers_that_linux_takes(bits: int, order: str, name: str) -> None:
    """The kernel looks at headers and the interpreter's name, and at nothing else."""
    data = (TAKEN | REFUSED)[name](Maker(bits=bits, order=order))

    assert elf.taken(io.BytesIO(data)) is (name in TAKEN)


def test_unknown_class(read: Callable[[bytes], FileFacts]) -> None:
    """A word size that does not exist is 0 bits, and the rest is not looked at."""
    data = Maker().build()

    facts = read(data[:4] + b"\7" + data[5:])

    assert facts == FileFacts(linkage=Linkage.OTHER, machine="x86_64", bits=0)


def test_huge_file_is_not_read(tmp_path: Path) -> None:
    """A terabyte of nothing, half of it declared as notes, is given up on after a few of them."""
    file = tmp_path / "huge"
    maker = Maker().add(NOTE, b"", size=2**39)
    file.write_bytes(maker.build())
    os.truncate(file, 2**40)

    assert programfile.read_facts(file).linkage is Linkage.OTHER


def test_window_has_an_end() -> None:
    """A parser that reads too often, too much, or to the end is stopped."""
    window = elf._Window(io.BytesIO(b"0123456789" * 10), b"abc")

    assert (window.read(5), window.tell()) == (b"abc34", 5)
    for size in (-1, elf._READ_BYTES + 1):
        with pytest.raises(ValueError, match=str(size)):
            window.read(size)
    for _ in range(elf._READ_CALLS - 3):
        window.seek(1)
        assert window.read(3) == b"bc3"
    with pytest.raises(ValueError, match="1"):
        window.read(1)


FILES = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For examples that are files: a busy disk is no failure."""

VALID = [
    maker.add(NOTE, abi_note(maker)).build()
    for bits, order in CLASSES
    for maker in [
        dynamic(
            Maker(kind=DYN, bits=bits, order=order),
            versions=["GLIBC_2.34"],
            defines=["X_1"],
            undefined=["dlopen"],
            texts=TEXTS,
        ).named((b".comment", 0, lines(GCC)), (b".go.buildinfo", 0, go_info(b"go1.22.5")))
    ]
]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that many examples are written to."""
    return tmp_path_factory.mktemp("elf") / "program"


def believable(facts: FileFacts, data: bytes) -> bool:
    """Tell whether facts are within all bounds, and agree with the header."""
    texts = (facts.interpreter, *facts.needed, facts.glibc, facts.soname, *facts.defines)
    return (
        len(facts.compiler) <= 200
        and facts.compiler.isprintable()
        and facts.machine == elf.machine(data)
        and facts.bits in {0, 32, 64}
        and len(facts.needed) <= 512
        and all(len(text) <= 4096 for text in texts)
    )


@FILES
@given(data=st.data(), whole=st.sampled_from(VALID))
def test_damaged_elf(scratch: Path, data: st.DataObject, whole: bytes) -> None:
    """A file that is cut off or overwritten anywhere that matters never raises."""
    headers, body = range(64 + 9 * 56), range(BODY, len(whole))
    damage = data.draw(
        st.dictionaries(st.sampled_from([*headers, *body]), st.integers(0, 255), max_size=8)
    )
    broken = bytearray(whole)
    for at, value in damage.items():
        broken[at] = value
    cut = data.draw(st.none() | st.sampled_from([*headers, *body]))
    scratch.write_bytes(broken[:cut])

    assert believable(programfile.read_facts(scratch), bytes(broken[:cut]))


@FILES
@given(tail=st.binary(max_size=400), head=st.sampled_from([b"", *(each[:64] for each in VALID)]))
def test_random_bytes(scratch: Path, head: bytes, tail: bytes) -> None:
    """Any bytes behind the magic number, and behind a good header, never raise."""
    data = (head or elf.MAGIC) + tail
    scratch.write_bytes(data)

    assert believable(programfile.read_facts(scratch), data)


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("compiler", "linkage", "abi_tag"),
    [
        ("gcc", Linkage.GLIBC_DYNAMIC, True),
        ("gcc -no-pie", Linkage.GLIBC_DYNAMIC, True),
        ("gcc -static", Linkage.STATIC, True),
        ("gcc -static-pie", Linkage.STATIC_PIE, True),
        ("gcc -shared -fPIC", Linkage.OTHER, False),
        ("musl-gcc", Linkage.MUSL_DYNAMIC, False),
        ("musl-gcc -static", Linkage.STATIC, False),
    ],
)
def test_real_binaries(tmp_path: Path, compiler: str, linkage: Linkage, abi_tag: bool) -> None:  # noqa: FBT001
    """What compilers of this machine make is what they were asked for."""
    command = compiler.split()
    if shutil.which(command[0]) is None:
        require("compilers", f"{command[0]} is not installed")
    source, program = tmp_path / "hello.c", tmp_path / "hello"
    source.write_text('#include <stdio.h>\nint main(void) { puts("Hello"); return 0; }\n')
    subprocess.run([*command, "-o", program, source], check=True)

    facts = programfile.read_facts(program)

    assert (facts.linkage, facts.abi_tag) == (linkage, abi_tag)
    assert facts.machine == os.uname().machine
    assert facts.compiler.startswith("GCC: (")
    version = subprocess.run(
        ["gcc", "-dumpfullversion"], check=True, capture_output=True, text=True
    )
    assert facts.compiler.endswith(version.stdout.strip())
    needed = {Linkage.GLIBC_DYNAMIC: "libc.so.6", Linkage.MUSL_DYNAMIC: "libc.so"}.get(linkage)
    assert linkage is Linkage.OTHER or facts.needed == ((needed,) if needed else ())
    assert facts.interpreter.startswith("/lib") == bool(needed)
    assert facts.glibc.startswith("2.") == ("libc.so.6" in facts.needed)
