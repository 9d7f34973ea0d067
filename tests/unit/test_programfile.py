"""Files that are no ELF files, and what is no program at all."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nox_variants import programfile
from nox_variants.results import FileFacts, Linkage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize(
    ("head", "interpreter", "argument"),
    [
        (b"#!/bin/sh\n", "/bin/sh", ""),
        (b"#! \t/usr/bin/env python3\nprint()\n", "/usr/bin/env", "python3"),
        (b"#!/bin/sh\t-e\n", "/bin/sh", "-e"),
        (b"#!/usr/bin/env -S python3 -u \t\n", "/usr/bin/env", "-S python3 -u"),
        (b"#!/bin/sh\r\n", "/bin/sh\r", ""),
        (b"#!/usr/bin/env python3\r\n", "/usr/bin/env", "python3\r"),
        (b"#!/bin/sh", "/bin/sh", ""),
        (b"#!/bin/sh -e", "/bin/sh", "-e"),
        (b"#!/bin/sh\0-e\n", "/bin/sh", ""),
        (b"#!\n/bin/sh", "", ""),
        (b"#! \t\n", "", ""),
        (b"#!", "", ""),
        (b"#!/b\xff\n", "/b\ufffd", ""),
        (b"#!/" + b"x" * 252 + b"\n", "/" + "x" * 252, ""),
        (b"#!/" + b"x" * 253 + b"\n", "", ""),
        (b"#!/bin/sh " + b"x" * 300, "/bin/sh", "x" * 245),
    ],
)
def test_script(
    read: Callable[[bytes], FileFacts], head: bytes, interpreter: str, argument: str
) -> None:
    """A script names its interpreter as the kernel reads it: one line, one argument, 256 bytes."""
    facts = FileFacts(linkage=Linkage.SCRIPT, interpreter=interpreter, argument=argument)

    assert read(head) == facts


@pytest.mark.subprocess
@pytest.mark.parametrize("length", [253, 254, 255, 256])
@pytest.mark.parametrize("end", [b"", b"\n", b" ", b" -x\n"])
def test_script_as_the_kernel_reads_it(tmp_path: Path, length: int, end: bytes) -> None:
    """This machine's kernel finds an interpreter exactly where we do, up to the last byte."""
    echo, script = tmp_path / "echo", tmp_path / "script"
    echo.symlink_to(shutil.which("echo") or "/bin/echo")
    line = b"#!" + f"{tmp_path}/".encode().ljust(length - 2 - 4, b"/") + b"echo"
    script.write_bytes(line + end)
    script.chmod(0o755)

    try:
        said = subprocess.run([script], capture_output=True, text=True, check=True).stdout
    except OSError:
        said = ""

    facts = programfile.read_facts(script)
    words = (facts.argument, str(script)) if facts.argument else (str(script),)
    assert said.split() == ([*words] if facts.interpreter else [])


def class_file(major: int) -> bytes:
    """Return the beginning of a class file."""
    return struct.pack(">IHH", 0xCAFEBABE, 0, major)


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (class_file(65), 65),
        (class_file(45), 45),
        (class_file(2), 0),  # a fat Mach-O file of two architectures
        (class_file(61)[:7], 0),
        (b"\xfe\xba" + class_file(61), 0),
    ],
)
def test_class_file(read: Callable[[bytes], FileFacts], data: bytes, version: int) -> None:
    """A class file says which Java it is for, and is no program."""
    assert read(data) == FileFacts(linkage=Linkage.OTHER, class_version=version)


def jar(**files: bytes) -> bytes:
    """Return a jar; ``MANIFEST`` is its manifest, ``a_B`` the class ``a.B``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            path = "META-INF/MANIFEST.MF" if name == "MANIFEST" else name.replace("_", "/")
            made.writestr(path if name == "MANIFEST" else f"{path}.class", data)
    return buffer.getvalue()


MANIFEST = b"Manifest-Version: 1.0\r\nMain-Class: a.B\r\n\r\nMain-Class: c\r\n"


@pytest.mark.parametrize(
    ("data", "version"),
    [
        (jar(MANIFEST=MANIFEST, c=class_file(50), a_B=class_file(61)), 61),
        (jar(MANIFEST=b"main-class: a\n .B\n", a_B=class_file(61)), 61),
        (jar(MANIFEST=b"Main-Class: a.C\n", a_B=class_file(61)), 0),
        (jar(MANIFEST=b"Name: x\n\nMain-Class: a.B\n", a_B=class_file(61)), 0),
        (jar(MANIFEST=b"x" * 70000 + b"\nMain-Class: a.B\n", a_B=class_file(61)), 0),
        (jar(MANIFEST=MANIFEST, a_B=b"none"), 0),
        (jar(a_B=class_file(61)), 0),
        (b"PK\3\4", 0),
        (jar(MANIFEST=MANIFEST, a_B=class_file(61))[:-30], 0),
        (b"PK\3\4PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 9, 9, 9 << 20, 4, 0), 0),
    ],
)
def test_jar(read: Callable[[bytes], FileFacts], data: bytes, version: int) -> None:
    """A jar is for the Java of the class that its manifest says to run."""
    assert read(data) == FileFacts(linkage=Linkage.OTHER, class_version=version)


@pytest.mark.parametrize("data", [b"", b"\x7fEL", b"hello", b"MZ\0\0", b" #!/bin/sh\n"])
def test_neither_program_nor_script(read: Callable[[bytes], FileFacts], data: bytes) -> None:
    """Anything else says nothing about itself."""
    assert read(data) == FileFacts(linkage=Linkage.OTHER)


def test_fifo_does_not_block(tmp_path: Path) -> None:
    """A FIFO that nobody writes to is no program, and is told so at once."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    assert programfile.read_facts(fifo) == FileFacts(linkage=Linkage.OTHER)


def test_unreadable(tmp_path: Path) -> None:
    """What cannot be opened is an OSError, and leaves no file open."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    with pytest.raises(FileNotFoundError):
        programfile.read_facts(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        programfile.read_facts(tmp_path)

    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


WHOLE = jar(MANIFEST=MANIFEST, a_B=class_file(61))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    head=st.sampled_from([b"#!", b"PK\3\4", b"\xca\xfe\xba\xbe", WHOLE]),
    damage=st.dictionaries(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), max_size=8),
    tail=st.binary(max_size=300),
)
def test_random_bytes(tmp_path: Path, head: bytes, damage: dict[int, int], tail: bytes) -> None:
    """Whatever follows the first bytes, and whatever is overwritten, never raises."""
    data = bytearray(head + tail)
    for at, value in damage.items():
        data[at % len(data)] = value
    file = tmp_path / "file"
    file.write_bytes(data)

    assert 0 <= programfile.read_facts(file).class_version < 1 << 16
