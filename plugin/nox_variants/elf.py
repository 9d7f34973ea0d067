"""Program files to facts: read with pyelftools, never executed. Any bytes are welcome."""

from __future__ import annotations

import posixpath
from typing import IO, TYPE_CHECKING, Any

from nox_variants.model import ElfFacts, Linkage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from elftools.elf.elffile import ELFFile

MAGIC = b"\x7fELF"
SHEBANG_LENGTH = 256
"""What the kernel reads of a script's first line (linux/binfmts.h, BINPRM_BUF_SIZE)."""

HEADER_LENGTH = 20
"""Bytes of an ELF header up to and with e_machine."""

_DF_1_PIE = 0x08000000
_MOST_ENTRIES = 4096
_MACHINES = {
    3: "i686",
    8: "mips",
    20: "ppc",
    21: "ppc64le",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
_LITTLE, _BIG = 1, 2


def read_facts(path: Path) -> ElfFacts:
    """Return what a file says about itself.

    A file that is no ELF file and no script, and an ELF file that cannot be understood, are
    :attr:`Linkage.OTHER`: the kernel will say what it thinks of them.

    Args:
        path: A regular file.
    """
    with path.open("rb") as file:
        head = file.read(SHEBANG_LENGTH)
        if head.startswith(b"#!"):
            return ElfFacts(linkage=Linkage.SCRIPT, interpreter=_interpreter(head))
        if not head.startswith(MAGIC):
            return ElfFacts(linkage=Linkage.OTHER)
        try:
            return _elf_facts(file)
        except Exception:  # noqa: BLE001  # pyelftools raises anything on hostile input
            return ElfFacts(linkage=Linkage.OTHER, machine=machine(head), bits=_bits(head))


def machine(head: bytes) -> str:
    """Return the machine of an ELF header in ``uname -m`` words; empty when it is none.

    Args:
        head: At least :data:`HEADER_LENGTH` bytes (ELF specification, "ELF header").
    """
    if not head.startswith(MAGIC) or len(head) < HEADER_LENGTH or head[5] not in {_LITTLE, _BIG}:
        return ""
    number = int.from_bytes(head[18:20], "little" if head[5] == _LITTLE else "big")
    return _MACHINES.get(number, f"machine-{number}")


def _bits(head: bytes) -> int:
    return {1: 32, 2: 64}.get(head[4], 0) if len(head) > HEADER_LENGTH else 0


def _interpreter(head: bytes) -> str:
    """Return the path behind ``#!``; a carriage return stays, for it is part of the path."""
    line = head[2:].split(b"\n", 1)[0].strip(b" \t")
    return line.split(b" ", 1)[0].split(b"\t", 1)[0].decode(errors="replace")


def _elf_facts(file: IO[bytes]) -> ElfFacts:
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415  # 45 ms, once per compile

    elf = ELFFile(file)
    file.seek(0)
    head = file.read(HEADER_LENGTH)
    interpreter = next(
        (
            segment.get_interp_name()
            for segment in _segments(elf, "PT_INTERP")
            if segment["p_filesz"] < _MOST_ENTRIES
        ),
        "",
    )
    dynamic = next(_segments(elf, "PT_DYNAMIC"), None)
    needed, pie = _dynamic_facts(dynamic)
    return ElfFacts(
        linkage=_linkage(elf, interpreter, needed, pie=pie),
        machine=machine(head),
        bits=int(elf.elfclass),
        interpreter=interpreter,
        needed=needed,
        glibc=_highest_glibc(elf),
        abi_tag=_has_abi_tag(elf),
    )


def _segments(elf: ELFFile, kind: str) -> Iterator[Any]:
    if elf.num_segments() > _MOST_ENTRIES:
        return iter(())
    return (segment for segment in elf.iter_segments() if segment["p_type"] == kind)


def _dynamic_facts(dynamic: Any) -> tuple[tuple[str, ...], bool]:
    """Return DT_NEEDED in order, and whether DF_1_PIE is set."""
    needed, pie = [], False
    if dynamic is not None:
        for number, tag in enumerate(dynamic.iter_tags()):
            if number > _MOST_ENTRIES:
                break
            if tag.entry.d_tag == "DT_NEEDED":
                needed.append(str(tag.needed))
            elif tag.entry.d_tag == "DT_FLAGS_1":
                pie = bool(tag.entry.d_val & _DF_1_PIE)
    return tuple(needed), pie


def _linkage(elf: ELFFile, interpreter: str, needed: tuple[str, ...], *, pie: bool) -> Linkage:
    name = posixpath.basename(interpreter)
    if name.startswith("ld-musl"):
        return Linkage.MUSL_DYNAMIC
    if name.startswith(("ld-linux", "ld64.so", "ld.so")):
        return Linkage.GLIBC_DYNAMIC
    if interpreter or needed:
        return Linkage.OTHER_DYNAMIC
    match elf["e_type"]:
        case "ET_EXEC":
            return Linkage.STATIC
        case "ET_DYN" if pie or elf["e_entry"]:
            return Linkage.STATIC_PIE
        case _:
            return Linkage.OTHER


def _highest_glibc(elf: ELFFile) -> str:
    """Return the highest ``GLIBC_x.y`` that the version needs name, empty when there is none."""
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415

    section = elf.get_section_by_name(".gnu.version_r")
    if section is None or not hasattr(section, "iter_versions"):
        return ""
    found: list[Version] = []
    for _, versions in section.iter_versions():
        for version in versions:
            prefix, _, number = str(version.name).partition("_")
            if prefix == "GLIBC" and len(found) < _MOST_ENTRIES:
                try:
                    found.append(Version(number))
                except InvalidVersion:
                    continue
    return str(max(found)) if found else ""


def _has_abi_tag(elf: ELFFile) -> bool:
    """Tell whether glibc's start files were linked in: they carry a GNU ABI tag, musl's do not."""
    return any(
        note["n_name"] == "GNU" and note["n_type"] == "NT_GNU_ABI_TAG"
        for segment in _segments(elf, "PT_NOTE")
        for note, _ in zip(segment.iter_notes(), range(_MOST_ENTRIES), strict=False)
    )
