"""The section headers of an ELF file: names and places, none of them trusted.

They may be stripped, or wrong: whoever asks takes anything that is raised for an answer.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEADERS = {32: "16sHHIIIIIHHHHHH", 64: "16sHHIQQQIHHHHHH"}
"""The ELF header (gABI, "ELF Header"), by word size."""

_FORMS = {32: "IIIIIIIIII", 64: "IIQQQQIIQQ"}
_SECTIONS = 4096
_NAMES_BYTES = 65536
_TABLE_BYTES = 8 << 20
_SHT_SYMTAB, _SHT_NOBITS = 2, 8


class Sections:
    """The sections of a file.

    Args:
        head: Its ELF header.
        bits: 32 or 64.
        order: ``<`` or ``>``.
        read: Reads so many bytes at a place, fewer at the end of the file.
    """

    def __init__(
        self, head: bytes, bits: int, order: str, read: Callable[[int, int], bytes]
    ) -> None:
        self._read = read
        header = struct.unpack_from(f"{order}{HEADERS[bits]}", head)
        start, size, count, self._names = header[6], header[11], header[12], header[13]
        self._all: list[tuple[int, ...]] = []
        form = f"{order}{_FORMS[bits]}"
        if start and size == struct.calcsize(form):
            if count > _SECTIONS:
                raise ValueError(count)
            self._all = list(struct.iter_unpack(form, read(start, count * size)))

    def symbol_tables(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield the symbols and names of each SHT_SYMTAB (gABI, "Sections")."""
        for section in self._all:
            if section[1] == _SHT_SYMTAB and section[6] < len(self._all):
                yield self._whole(section), self._whole(self._all[section[6]])

    def beginning(self, name: bytes, most: int) -> bytes:
        """Return the first bytes of the section of a name; none where there is no such section."""
        if not 0 < self._names < len(self._all):
            return b""
        names, word = self._part(self._all[self._names], _NAMES_BYTES), name + b"\0"
        for section in self._all:
            if section[1] != _SHT_NOBITS and names.startswith(word, section[0]):
                return self._part(section, most)
        return b""

    def _whole(self, section: tuple[int, ...]) -> bytes:
        if section[5] > _TABLE_BYTES:
            raise ValueError(section[5])
        return self._part(section, _TABLE_BYTES)

    def _part(self, section: tuple[int, ...], most: int) -> bytes:
        return self._read(section[4], min(section[5], most))
