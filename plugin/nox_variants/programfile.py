"""What any program file says about itself: ELF, scripts, and what a Java runtime takes.

Nothing is executed, and no file, however made, takes long or much memory.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import IO, TYPE_CHECKING

from nox_variants import elf
from nox_variants.results import FileFacts, Linkage

if TYPE_CHECKING:
    import zipfile
    from pathlib import Path

SHEBANG_LENGTH = 256
"""What Linux reads of a script's first line (linux/binfmts.h, BINPRM_BUF_SIZE)."""

_BLANKS = b" \t"
_CLASS = b"\xca\xfe\xba\xbe"
_CLASS_HEADER = 8
_FIRST_MAJOR = 45
"""The first class file version (JVMS, table 4.1-A); a fat Mach-O file's number is smaller."""

_ZIP = b"PK\3\4"
_ZIP_END = b"PK\5\6"
_ZIP_END_BYTES = 22 + 65535
_ZIP_DIRECTORY = 8 << 20
_MANIFEST = "META-INF/MANIFEST.MF"
_MANIFEST_BYTES = 65536


def read_facts(path: Path) -> FileFacts:
    """Return what a file says about itself.

    A file of no known form, and one that cannot be understood, is :attr:`Linkage.OTHER`: the kernel
    will say what it thinks of it.

    Raises:
        OSError: The file cannot be opened or read.
    """
    with open(path, "rb", opener=_open) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return FileFacts(linkage=Linkage.OTHER)
        head = file.read(SHEBANG_LENGTH)
        if head.startswith(b"#!"):
            return _script(head)
        if head.startswith(elf.MAGIC):
            return elf.facts(file, head)
        version = _class_version(head)
        if head.startswith(_ZIP):
            version = _jar_version(file)
        return FileFacts(linkage=Linkage.OTHER, class_version=version)


def _open(path: str, flags: int) -> int:
    """Open without blocking: a FIFO among a build's artifacts must not stop us for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _script(head: bytes) -> FileFacts:
    """Read a script's first line as Linux does (fs/binfmt_script.c).

    A carriage return stays where it is, and so it does in the kernel. A line that is cut off within
    the interpreter's name names none.
    """
    line, newline, _ = head[2:].partition(b"\n")
    if not newline:
        line = line.ljust(SHEBANG_LENGTH - 2, b"\0")
        if _word_end(line.lstrip(_BLANKS)) < 0:
            return FileFacts(linkage=Linkage.SCRIPT)
        line = line[:-1]
    line = line.strip(_BLANKS) + b"\0"
    at = _word_end(line)
    return FileFacts(
        linkage=Linkage.SCRIPT,
        interpreter=_text(line[:at]),
        argument=_text(line[at:].lstrip(_BLANKS).partition(b"\0")[0]),
    )


def _word_end(line: bytes) -> int:
    """Return where the first word ends; -1 where it does not."""
    return next((at for at, byte in enumerate(line) if byte in b" \t\0"), -1)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _class_version(head: bytes) -> int:
    """Return the major version of a class file (JVMS, 4.1); 0 for anything else."""
    if len(head) < _CLASS_HEADER or not head.startswith(_CLASS):
        return 0
    (major,) = struct.unpack(">H", head[6:8])
    return int(major) if major >= _FIRST_MAJOR else 0


def _jar_version(file: IO[bytes]) -> int:
    """Return the version of the class that a jar's manifest says to run; 0 where there is none."""
    import zipfile  # noqa: PLC0415  # 9 ms, where there is a jar

    try:
        if _directory_size(file) > _ZIP_DIRECTORY:
            return 0
        with zipfile.ZipFile(file) as jar:
            name = _main_class(_beginning(jar, _MANIFEST, _MANIFEST_BYTES))
            return _class_version(_beginning(jar, name, _CLASS_HEADER)) if name else 0
    except Exception:  # noqa: BLE001  # a hostile file makes the parser raise anything at all
        return 0


def _directory_size(file: IO[bytes]) -> int:
    """Return what a zip file's end says about the size of its directory (APPNOTE, 4.3.16)."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _ZIP_END_BYTES))
    end = file.read(_ZIP_END_BYTES)
    (directory,) = struct.unpack_from("<I", end, end.rindex(_ZIP_END) + 12)
    return int(directory)


def _beginning(jar: zipfile.ZipFile, name: str, size: int) -> bytes:
    with jar.open(name) as file:
        return file.read(size)


def _main_class(manifest: bytes) -> str:
    """Return the path of the class that is run (JAR File Specification, "Main Attributes")."""
    text = _text(manifest).replace("\r\n", "\n").replace("\r", "\n").replace("\n ", "")
    for line in text.split("\n\n", 1)[0].split("\n"):
        name, colon, value = line.partition(": ")
        if colon and name.lower() == "main-class":
            return value.strip().replace(".", "/") + ".class"
    return ""
