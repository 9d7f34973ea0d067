"""What an ELF file says about itself: read with pyelftools, never executed, not believed.

Program headers are what the kernel and the loader use, and all that counts here; section headers
may be stripped or wrong, and are only asked for what nothing else leads to: the symbols of a static
program, and what compiled it. All reading goes through a window that is bounded in bytes and steps,
so that no file, however made, takes long or much memory.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import threading
from typing import IO, TYPE_CHECKING, Any, cast

from nox_variants import toolchain
from nox_variants.results import FileFacts, Linkage
from nox_variants.sections import HEADERS, Sections

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from elftools.elf.elffile import ELFFile


MAGIC = b"\x7fELF"

HEADER_LENGTH = 20
"""Bytes of an ELF header up to and with e_machine."""

NSS_FUNCTIONS = frozenset(
    {
        "getaddrinfo",
        "gethostbyname",
        "gethostbyname_r",
        "getpwnam",
        "getpwuid",
        "getpwnam_r",
        "getpwuid_r",
        "getgrnam",
        "getgrgid",
        "getservbyname",
        "getprotobyname",
    }
)
"""Functions that ask glibc's name service switch: modules and files in /etc answer them."""

NSS = "nss"
"""Stands for :data:`NSS_FUNCTIONS` that are in a static program whose symbols were stripped."""

WATCHED = NSS_FUNCTIONS | {"dlopen", "iconv_open"}
"""Functions that need more of an image than the libraries that a file names."""

_PATH_LENGTH = 4096
_SEGMENTS = 128
_ENTRIES = 2048
_NEEDED = 512
_NOTES = 256
_READ_BYTES = 32 << 20
_READ_CALLS = 20_000
_TABLE_BYTES = 8 << 20
_TEXT_BYTES = 1 << 18
_COMPILER_BYTES = 65536
_CONSTANTS_BYTES = 4 << 20
_CHUNK = 1 << 20
_DF_1_PIE = 0x08000000
_BITS = {1: 32, 2: 64}
_ORDERS = {1: "<", 2: ">"}
_MACHINES = {
    3: "i686",
    20: "ppc",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    258: "loongarch64",
}
_MIPS, _PPC64, _RISCV = 8, 21, 243
_VER_FLG_BASE, _VER_FLG_WEAK = 1, 2
_HEADER_BYTES = 64
_EXECUTED = {2, 3}  # ET_EXEC, ET_DYN
_PT_INTERP = 3
_SEGMENT = {32: ("IIIIIIII", 1, 4), 64: ("IIQQQQQQ", 2, 5)}  # and p_offset's, p_filesz's place
_SEGMENT_BYTES = 65536
_SYMBOLS = {32: "IIIBBH", 64: "IBBHQQ"}
_TABLES = frozenset(
    f"DT_{name}"
    for name in ("STRTAB", "GNU_HASH", "VERSYM", "VERNEED", "VERDEF", "REL", "RELA", "JMPREL")
)
_NSSWITCH = b"/etc/nsswitch.conf\0"
_GLIBC_LOADERS = ("ld-linux", "ld64.so", "ld.so")


def facts(file: IO[bytes], head: bytes) -> FileFacts:
    """Return what an ELF file says about itself.

    One that cannot be understood is :attr:`Linkage.OTHER`, with what its header says: the kernel
    will say what it thinks of it.

    Args:
        file: The file.
        head: Its first bytes, at least a whole ELF header where there is one.
    """
    blank = FileFacts(linkage=Linkage.OTHER, machine=machine(head), bits=_bits(head))
    try:
        return _read(file, head, blank)
    except Exception:  # noqa: BLE001  # a hostile file makes the parser raise anything at all
        return blank


def machine(head: bytes) -> str:
    """Return the machine of an ELF header in ``uname -m`` words; empty when it is none.

    Args:
        head: At least :data:`HEADER_LENGTH` bytes (ELF specification, "ELF Header").
    """
    if len(head) < HEADER_LENGTH or not head.startswith(MAGIC) or head[5] not in _ORDERS:
        return ""
    order = _ORDERS[head[5]]
    (number,) = struct.unpack(f"{order}H", head[18:20])
    if number == _PPC64:
        return "ppc64le" if order == "<" else "ppc64"
    if number == _RISCV:
        return f"riscv{_bits(head)}"
    if number == _MIPS:
        return "mips64" if _bits(head) == 64 else "mips"  # noqa: PLR2004  # bits
    return _MACHINES.get(number, f"machine-{number}")


def taken(file: IO[bytes]) -> bool:
    """Tell whether Linux takes an ELF file's headers (fs/binfmt_elf.c, `load_elf_binary`).

    Args:
        file: The file, at its beginning.
    """
    head = file.read(_HEADER_BYTES)
    try:
        order, bits = _ORDERS[head[5]], _BITS[head[4]]
        header = struct.unpack_from(f"{order}{HEADERS[bits]}", head)
    except (LookupError, struct.error):
        return False
    kind, start, size, count = header[1], header[5], header[9], header[10]
    form, offset, length = _SEGMENT[bits]
    executed = head.startswith(MAGIC) and kind in _EXECUTED
    if not executed or size != struct.calcsize(f"{order}{form}"):
        return False
    table = _piece(file, start, size * count, _SEGMENT_BYTES)
    interpreters = (
        _piece(file, each[offset], each[length], _PATH_LENGTH)
        for each in struct.iter_unpack(f"{order}{form}", table)
        if each[0] == _PT_INTERP
    )
    return bool(table) and next(interpreters, b"\0").endswith(b"\0")


def _piece(file: IO[bytes], at: int, size: int, most: int) -> bytes:
    """Return bytes of a file; none where there are more than `most`, or fewer than asked for."""
    if not 1 < size <= most:
        return b""
    try:
        file.seek(at)
        data = file.read(size)
    except (OSError, OverflowError):  # no file is that large
        return b""
    return data if len(data) == size else b""


def _bits(head: bytes) -> int:
    return _BITS.get(head[4], 0) if len(head) >= HEADER_LENGTH else 0


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


@functools.cache
def load_meanwhile() -> None:
    """Load the parser while a compile is waited for, which may well leave an ELF file."""
    threading.Thread(target=_parser, name="nox-variants-elf", daemon=True).start()


def _parser() -> type[ELFFile]:
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415  # 15 ms, where there is an ELF file

    return ELFFile


def _read(file: IO[bytes], head: bytes, blank: FileFacts) -> FileFacts:
    window = _Window(file, _without_sections(head))
    return _Reader(_parser()(cast("IO[bytes]", window)), head).facts(blank)


def _without_sections(head: bytes) -> bytes:
    """Return the ELF header with no section headers: they are neither needed nor trusted."""
    wide = _bits(head) == 64  # noqa: PLR2004  # bits
    e_shoff, e_shnum = (0x28, 0x3C) if wide else (0x20, 0x30)
    blank = bytearray(head[: 0x40 if wide else 0x34])
    blank[e_shoff : e_shoff + (8 if wide else 4)] = bytes(8 if wide else 4)
    blank[e_shnum : e_shnum + 4] = bytes(4)
    return bytes(blank)


class _Window(io.RawIOBase):
    """A file behind a replaced header, with an end to how much and how often is read."""

    def __init__(self, file: IO[bytes], header: bytes) -> None:
        super().__init__()
        self._file = file
        self._header = header
        self._bytes = _READ_BYTES
        self._calls = _READ_CALLS

    def read(self, size: int = -1, /) -> bytes:
        """Read, within what is left to be read."""
        self._calls -= 1
        if self._calls < 0 or not 0 <= size <= self._bytes:
            raise ValueError(size)
        at = self._file.tell()
        data = self._file.read(size)
        self._bytes -= len(data)
        covered = self._header[at : at + len(data)]
        return covered + data[len(covered) :]

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move; where to is not checked, there is nothing to read behind the end."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._file.tell()


class _Reader:
    """Reads program headers and what they point to. Anything wrong raises anything."""

    def __init__(self, elf: Any, head: bytes) -> None:
        self._elf = elf
        self._head = head
        self._order = "<" if elf.little_endian else ">"
        self._interpreter = ""
        self._abi_tag = False
        self._dynamic: dict[str, int] = {}
        self._needed: list[int] = []
        self._loads: list[tuple[int, int, int]] = []
        self._names = 0

    def facts(self, blank: FileFacts) -> FileFacts:
        """Return what the file says, on top of what its header says."""
        for number in range(_bounded(self._elf.num_segments(), _SEGMENTS)):
            self._segment(self._elf.get_segment(number))
        linkage = self._linkage()
        requires = tuple(dict.fromkeys(self._requires()))
        return FileFacts(
            linkage=linkage,
            machine=blank.machine,
            bits=blank.bits,
            interpreter=self._interpreter,
            needed=tuple(self._string(offset) for offset in self._needed),
            rpath=() if "DT_RUNPATH" in self._dynamic else self._folders("DT_RPATH"),
            runpath=self._folders("DT_RUNPATH"),
            soname=self._named("DT_SONAME"),
            requires=requires,
            defines=tuple(self._defines()),
            glibc=_highest(version for _, version in requires),
            abi_tag=self._abi_tag,
            imports=tuple(sorted(self._imports(linkage))),
            compiler=self._compiler(),
        )

    def _segment(self, segment: Any) -> None:
        kind = segment["p_type"]
        if kind == "PT_INTERP" and not self._interpreter:
            self._interpreter = self._read_interpreter(segment)
        elif kind == "PT_NOTE":
            self._abi_tag = self._abi_tag or _has_abi_tag(segment)
        elif kind == "PT_DYNAMIC":
            self._read_dynamic(segment)
        elif kind == "PT_LOAD":
            place = (segment["p_vaddr"], segment["p_filesz"], segment["p_offset"])
            self._loads.append(place)

    def _read_interpreter(self, segment: Any) -> str:
        data = self._at(segment["p_offset"], _bounded(segment["p_filesz"], _PATH_LENGTH))
        path = data.split(b"\0", 1)[0]
        if not path or data[-1:] != b"\0":
            raise ValueError(data)  # the kernel refuses it too (fs/binfmt_elf.c)
        return _text(path)

    def _read_dynamic(self, segment: Any) -> None:
        for number, tag in enumerate(segment.iter_tags()):
            _bounded(number, _ENTRIES)
            name = tag.entry.d_tag
            if name == "DT_NEEDED":
                self._needed.append(tag.entry.d_val)
                _bounded(len(self._needed), _NEEDED)
            else:
                self._dynamic[str(name)] = tag.entry.d_val

    def _linkage(self) -> Linkage:
        kind = self._elf["e_type"]
        if kind not in {"ET_EXEC", "ET_DYN"}:
            return Linkage.OTHER
        if self._interpreter:
            return _by_loader(self._interpreter)
        if kind == "ET_EXEC":
            return Linkage.STATIC
        pie = self._dynamic.get("DT_FLAGS_1", 0) & _DF_1_PIE
        return Linkage.STATIC_PIE if pie or not self._needed else Linkage.OTHER

    def _requires(self) -> Iterator[tuple[str, str]]:
        """Yield the versions that have to be there (gABI supplement, "Version Dependencies")."""
        for at in self._chain("DT_VERNEED", 16, 12):
            _, count, library, first, _ = self._unpack("HHIII", at)
            at_version = at + first
            for _ in range(_bounded(count, _ENTRIES)):
                _, flags, _, name, following = self._unpack("IHHII", at_version)
                if not flags & _VER_FLG_WEAK:
                    yield self._string(library), self._string(name)
                at_version += following

    def _defines(self) -> Iterator[str]:
        """Yield the versions that are there ("Version Definitions"), without the file's own."""
        for at in self._chain("DT_VERDEF", 20, 16):
            _, flags, _, _, _, first, _ = self._unpack("HHHHIII", at)
            if not flags & _VER_FLG_BASE:
                name, _ = self._unpack("II", at + first)
                yield self._string(name)

    def _chain(self, tag: str, size: int, next_at: int) -> Iterator[int]:
        """Yield where the entries of a list lie, each of which says how far the next one is."""
        if tag not in self._dynamic:
            return
        at = self._offset(self._dynamic[tag])
        for _ in range(_bounded(self._dynamic[f"{tag}NUM"], _NEEDED)):
            yield at
            (following,) = struct.unpack(f"{self._order}I", self._at(at, size)[next_at:])
            at += following

    def _folders(self, tag: str) -> tuple[str, ...]:
        text = self._named(tag)
        return tuple(text.split(":")) if text else ()

    def _named(self, tag: str) -> str:
        return self._string(self._dynamic[tag]) if tag in self._dynamic else ""

    def _imports(self, linkage: Linkage) -> frozenset[str]:
        """Return the watched functions; none where a table is too large, or makes no sense."""
        static = (
            linkage in {Linkage.STATIC, Linkage.STATIC_PIE} and "DT_SONAME" not in self._dynamic
        )
        try:
            undefined = self._undefined() if "DT_SYMTAB" in self._dynamic else frozenset()
            return self._linked_in() if static and not undefined else undefined
        except (KeyError, ValueError, ZeroDivisionError, struct.error):
            return frozenset()

    def _undefined(self) -> frozenset[str]:
        """Return the names that other files have to define."""
        start = self._dynamic["DT_SYMTAB"]
        strings = self._table(self._dynamic["DT_STRTAB"], self._dynamic["DT_STRSZ"])
        if not any(_offsets(strings)):
            return frozenset()
        symbols = self._table(start, self._symbols(start) * self._symbol_size)
        return self._symbol_names(symbols, strings, defined=False)

    def _symbols(self, start: int) -> int:
        """Return how many symbols may be undefined, of which no tag tells the number."""
        if "DT_HASH" in self._dynamic:  # gABI, "Hash Table": nchain is the number of symbols
            return int(self._unpack("II", self._offset(self._dynamic["DT_HASH"]))[1])
        if "DT_GNU_HASH" in self._dynamic:  # it lists defined ones only, from the second word on
            at = self._offset(self._dynamic["DT_GNU_HASH"])
            _, hashed, words, _ = self._unpack("IIII", at)
            if any(self._at(at + 16 + words * (self._elf.elfclass // 8), 4)):
                return int(hashed)
        after = (value for name, value in self._dynamic.items() if name in _TABLES)
        return (min(value for value in after if value > start) - start) // self._symbol_size

    @property
    def _symbol_size(self) -> int:
        return struct.calcsize(f"{self._order}{_SYMBOLS[self._elf.elfclass]}")

    def _linked_in(self) -> frozenset[str]:
        """Return what a static program has of the watched functions; ``dlopen`` it always has."""
        for symbols, strings in self._sections().symbol_tables():
            return self._symbol_names(symbols, strings, defined=True) - {"dlopen"}
        return frozenset({NSS} if self._abi_tag and self._contains(_NSSWITCH) else ())

    def _sections(self) -> Sections:
        return Sections(self._head, self._elf.elfclass, self._order, self._at)

    def _compiler(self) -> str:
        """Return what compiled the file; nothing where its sections make no sense."""
        try:
            sections = self._sections()
            return toolchain.compiler(
                sections.beginning(b".go.buildinfo", _COMPILER_BYTES),
                sections.beginning(b".comment", _COMPILER_BYTES),
                lambda: sections.beginning(b".rodata", _CONSTANTS_BYTES),
            )
        except (LookupError, ValueError, OverflowError, OSError, struct.error):
            return ""

    def _symbol_names(self, symbols: bytes, strings: bytes, *, defined: bool) -> frozenset[str]:
        """Return the watched functions among symbols (gABI, "Symbol Table")."""
        offsets = {at: name for name, found in _offsets(strings).items() for at in found}
        form = _SYMBOLS[self._elf.elfclass]
        section_at = form.index("H")
        whole = len(symbols) - len(symbols) % self._symbol_size
        return frozenset(
            offsets[symbol[0]]
            for symbol in struct.iter_unpack(f"{self._order}{form}", symbols[:whole])
            if symbol[0] in offsets and bool(symbol[section_at]) == defined
        )

    def _contains(self, words: bytes) -> bool:
        """Tell whether the file has some bytes anywhere, as far as is read."""
        last, at = b"", 0
        while data := self._at(at, _CHUNK):
            if words in last + data:
                return True
            last, at = data[-len(words) :], at + len(data)
        return False

    def _table(self, address: int, size: int) -> bytes:
        return self._at(self._offset(address), _bounded(size, _TABLE_BYTES))

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        form = f"{self._order}{form}"
        return struct.unpack(form, self._at(at, struct.calcsize(form)))

    def _string(self, offset: int) -> str:
        data = self._at(self._offset(self._dynamic["DT_STRTAB"]) + offset, _PATH_LENGTH)
        name = data.split(b"\0", 1)[0]
        self._names = _bounded(self._names + len(name), _TEXT_BYTES)
        return _text(name)

    def _offset(self, address: int) -> int:
        """Return where in the file the bytes of an address lie."""
        for start, size, offset in self._loads:
            if start <= address < start + size:
                return offset + address - start
        raise ValueError(address)

    def _at(self, offset: int, size: int) -> bytes:
        self._elf.stream.seek(offset)
        return bytes(self._elf.stream.read(size))


def _offsets(strings: bytes) -> dict[str, list[int]]:
    """Return where in a string table the watched names stand, also as the end of another."""
    found: dict[str, list[int]] = {}
    for name in WATCHED:
        word, at = name.encode() + b"\0", -1
        while (at := strings.find(word, at + 1)) >= 0:
            found.setdefault(name, []).append(at)
    return found


def _bounded(number: int, most: int) -> int:
    if number > most:
        raise ValueError(number)
    return number


def _by_loader(interpreter: str) -> Linkage:
    name = interpreter.rpartition("/")[2]
    if name.startswith("ld-musl"):
        return Linkage.MUSL_DYNAMIC
    if name.startswith(_GLIBC_LOADERS):
        return Linkage.GLIBC_DYNAMIC
    return Linkage.OTHER_DYNAMIC


def _has_abi_tag(segment: Any) -> bool:
    """Tell whether glibc's start files left their note (LSB Core, "ABI note tag")."""
    for number, note in enumerate(segment.iter_notes()):
        _bounded(number, _NOTES)
        if (note["n_name"], note["n_type"]) == ("GNU", "NT_GNU_ABI_TAG"):
            return bool(note["n_desc"]["abi_os"] == "ELF_NOTE_OS_LINUX")
    return False


def _highest(versions: Iterable[str]) -> str:
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415  # with the parser

    found = []
    for name in versions:
        prefix, _, number = name.partition("_")
        try:
            found.extend([Version(number)] if prefix == "GLIBC" else [])
        except InvalidVersion:
            continue  # GLIBC_PRIVATE, GLIBC_ABI_DT_RELR
    return str(max(found)) if found else ""
