"""What a program file says about itself: read with pyelftools, never executed, not believed.

Only program headers are looked at: they are what the kernel and the loader use, and section
headers may be stripped or wrong. All reading goes through a window that is bounded in bytes and
steps, so that no file, however made, takes long or much memory.
"""

from __future__ import annotations

import io
import os
import stat
import struct
from typing import IO, TYPE_CHECKING, Any, cast

from nox_variants.results import ElfFacts, Linkage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAGIC = b"\x7fELF"

SHEBANG_LENGTH = 256
"""What Linux reads of a script's first line (linux/binfmts.h, BINPRM_BUF_SIZE)."""

HEADER_LENGTH = 20
"""Bytes of an ELF header up to and with e_machine."""

_PATH_LENGTH = 4096
_SEGMENTS = 128
_ENTRIES = 2048
_NEEDED = 512
_NOTES = 256
_READ_BYTES = 16 << 20
_READ_CALLS = 20_000
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
_GLIBC_LOADERS = ("ld-linux", "ld64.so", "ld.so")


def read_facts(path: Path) -> ElfFacts:
    """Return what a file says about itself.

    A file that is no ELF file and no script, and an ELF file that cannot be understood, are
    :attr:`Linkage.OTHER`: the kernel will say what it thinks of them.

    Raises:
        OSError: The file cannot be opened or read.
    """
    with open(path, "rb", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return ElfFacts(linkage=Linkage.OTHER)
        head = file.read(SHEBANG_LENGTH)
        if head.startswith(b"#!"):
            return ElfFacts(linkage=Linkage.SCRIPT, interpreter=_interpreter(head))
        if not head.startswith(MAGIC):
            return ElfFacts(linkage=Linkage.OTHER)
        facts = ElfFacts(linkage=Linkage.OTHER, machine=machine(head), bits=_bits(head))
        try:
            return _read_elf(file, head, facts)
        except Exception:  # noqa: BLE001  # a hostile file makes the parser raise anything at all
            return facts


def _open(path: str, flags: int) -> int:
    """Open without blocking: a FIFO among a build's artifacts must not stop us for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


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


def _bits(head: bytes) -> int:
    return _BITS.get(head[4], 0) if len(head) >= HEADER_LENGTH else 0


def _interpreter(head: bytes) -> str:
    """Return the path behind ``#!``; a carriage return stays, for the kernel keeps it too."""
    line = head[2:].split(b"\n", 1)[0].strip(b" \t")
    return _text(line.replace(b"\t", b" ").split(b" ", 1)[0])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _read_elf(file: IO[bytes], head: bytes, facts: ElfFacts) -> ElfFacts:
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415  # 45 ms, once per compile

    window = _Window(file, _without_sections(head))
    return _Reader(ELFFile(cast("IO[bytes]", window))).facts(facts)


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

    def __init__(self, elf: Any) -> None:
        self._elf = elf
        self._interpreter = ""
        self._abi_tag = False
        self._dynamic: dict[str, int] = {}
        self._needed: list[int] = []
        self._loads: list[tuple[int, int, int]] = []

    def facts(self, facts: ElfFacts) -> ElfFacts:
        """Return what the file says, on top of what its header says."""
        for number in range(_bounded(self._elf.num_segments(), _SEGMENTS)):
            self._segment(self._elf.get_segment(number))
        return ElfFacts(
            linkage=self._linkage(),
            machine=facts.machine,
            bits=facts.bits,
            interpreter=self._interpreter,
            needed=tuple(self._string(offset) for offset in self._needed),
            glibc=_highest(self._versions()),
            abi_tag=self._abi_tag,
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

    def _versions(self) -> Iterator[str]:
        """Yield the symbol versions needed (gABI supplement, "Version Dependencies")."""
        if "DT_VERNEED" not in self._dynamic:
            return
        order = "<" if self._elf.little_endian else ">"
        at = self._offset(self._dynamic["DT_VERNEED"])
        for _ in range(_bounded(self._dynamic["DT_VERNEEDNUM"], _NEEDED)):
            _, count, _, first, following = struct.unpack(f"{order}HHIII", self._at(at, 16))
            yield from self._version_names(order, at + first, count)
            at += following

    def _version_names(self, order: str, at: int, count: int) -> Iterator[str]:
        for _ in range(_bounded(count, _ENTRIES)):
            _, _, _, name, following = struct.unpack(f"{order}IHHII", self._at(at, 16))
            yield self._string(name)
            at += following

    def _string(self, offset: int) -> str:
        data = self._at(self._offset(self._dynamic["DT_STRTAB"]) + offset, _PATH_LENGTH)
        return _text(data.split(b"\0", 1)[0])

    def _offset(self, address: int) -> int:
        """Return where in the file the bytes of an address lie."""
        for start, size, offset in self._loads:
            if start <= address < start + size:
                return offset + address - start
        raise ValueError(address)

    def _at(self, offset: int, size: int) -> bytes:
        self._elf.stream.seek(offset)
        return bytes(self._elf.stream.read(size))


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


def _highest(versions: Iterator[str]) -> str:
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415  # with the parser

    found = []
    for name in versions:
        prefix, _, number = name.partition("_")
        try:
            found.extend([Version(number)] if prefix == "GLIBC" else [])
        except InvalidVersion:
            continue  # GLIBC_PRIVATE, GLIBC_ABI_DT_RELR
    return str(max(found)) if found else ""
