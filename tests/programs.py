"""Programs of every kind, made for real: compiled, written or patched."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from elftools.elf.elffile import ELFFile

from conftest import require
from nox_variants.config import load
from nox_variants.engines.embedded import EmbeddedEngine
from nox_variants.images.provider import Images
from nox_variants.invocation import host_platform
from nox_variants.model import Image, ImageSource, Need, Smoke, SourceKind
from nox_variants.plan import SHELL, BuildStage
from nox_variants.store import Store
from projects import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from nox_variants.model import Pairs

HELLO = Smoke(stdout="hello\n")
EXECUTABLE = 0o755

# --- programs -------------------------------------------------------------------------------------

SOURCES = {
    "hello.c": '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n',
    "hello.cpp": """\
#include <cstdio>
#include <istream>
#include <string>
int main(int argc, char **) {
    std::string text("hell");
    text.append(argc, 'o');
    std::istream(nullptr) >> text;
    return std::puts(text.c_str()) < 0;
}
""",
    "digits.cpp": """\
#include <charconv>
#include <cstdio>
int main(int argc, char **) {
    char text[64];
    std::to_chars(text, text + sizeof text, 1.5 * argc);
    return std::puts(text[0] == '1' ? "hello" : "no") < 0;
}
""",
    "deep.c": "int deep(void) { return 0; }\n",
    "own.c": "int own(void) { return 0; }\n",
    "own-deep.c": "int deep(void);\nint own(void) { return deep(); }\n",
    "use.c": """\
#include <stdio.h>
int own(void);
int main(void) { puts("hello"); return own(); }
""",
    "user.c": """\
#include <pwd.h>
#include <stdio.h>
int main(void) {
    if (!getpwuid(0)) return fputs("no passwd entry for uid 0\\n", stderr), 1;
    puts("hello");
    return 0;
}
""",
    "zone.c": """\
#include <stdio.h>
#include <time.h>
int main(void) {
    time_t epoch = 0;
    if (localtime(&epoch)->tm_hour != 1) return fputs("it is not 1 o'clock\\n", stderr), 1;
    puts("hello");
    return 0;
}
""",
    "lookup.go": """\
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	if len(os.Args) > 1 {
		fmt.Println(net.LookupHost(os.Args[1]))
	}
	fmt.Println("hello")
}
""",
}

_OWN = "use.c -L. -l:libown.so -Wl,-rpath-link,."
_RUNPATH = "-Wl,--enable-new-dtags,-rpath,$ORIGIN/lib"
_RPATH = "-Wl,--disable-new-dtags,-rpath,$ORIGIN/lib"
_SHARED = "-shared -fPIC -Wl,--no-as-needed"

COMPILED = {
    "c-dynamic": "gcc hello.c",
    "c-static": "gcc -static hello.c",
    "c-static-pie": "gcc -static-pie hello.c",
    "c-musl": "musl-gcc -static hello.c",
    "musl-dynamic": "musl-gcc hello.c",
    "cxx-dynamic": "g++ hello.cpp",
    "cxx-static": "g++ -static hello.cpp",
    "cxx-own": "g++ -static-libgcc -static-libstdc++ hello.cpp",
    "cxx-digits": "g++ -std=c++17 digits.cpp",
    "libdeep.so": f"gcc {_SHARED} -Wl,-soname,libdeep.so deep.c",
    "libown.so": f"gcc {_SHARED} -Wl,-soname,libown.so own.c",
    "libchain.so": f"gcc {_SHARED} -Wl,-soname,libown.so own-deep.c -L. -l:libdeep.so",
    "use": f"gcc {_OWN}",
    "use-runpath": f"gcc {_OWN} {_RUNPATH}",
    "use-rpath": f"gcc {_OWN} {_RPATH}",
    "musl-libdeep.so": f"musl-gcc {_SHARED} -Wl,-soname,libdeep.so deep.c",
    "musl-libown.so": f"musl-gcc {_SHARED} -Wl,-soname,libown.so own.c",
    "musl-libchain.so": f"musl-gcc {_SHARED} -Wl,-soname,libown.so own-deep.c -L. -l:libdeep.so",
    "musl-use": f"musl-gcc {_OWN}",
    "musl-use-runpath": f"musl-gcc {_OWN} {_RUNPATH}",
    "user-dynamic": "gcc user.c",
    "user-static": "gcc -static -Wno-error user.c",
    "user-musl": "musl-gcc -static user.c",
    "zone-dynamic": "gcc zone.c",
    "zone-static": "gcc -static zone.c",
    "zone-musl": "musl-gcc -static zone.c",
}
"""How each file is compiled, in this order."""

TEXTS = {
    "text": "echo hello\n",
    "empty": "",
    "sh": "#!/bin/sh\necho hello\n",
    "sh-crlf": "#!/bin/sh\r\necho hello\r\n",
    "env-python": "#!/usr/bin/env python3\nprint('hello')\n",
    "env-python-crlf": "#!/usr/bin/env python3\r\nprint('hello')\r\n",
    "for-nobody": "#!/opt/nothing/interpreter\nhello\n",
    "for-runner": "#!/runner\nhello\n",
    "for-text": "#!/text\nhello\n",
    **{f"chain-{number}": f"#!/chain-{number + 1}\n" for number in range(1, 6)},
    "chain-end": "#!/bin/sh\necho hello\n",
    "bare": "#!\necho hello\n",
}
"""Scripts and other texts."""

MACHINES = {"aarch64": 183, "riscv64": 243}
"""Numbers of other machines (ELF specification, `e_machine`)."""

_EXIT = bytes.fromhex("31c0 40 31db cd80")
"""`exit(0)` for i686."""


def make_files(folder: Path) -> None:
    """Compile, write and patch the files of all programs but those of other compilers."""
    for name, text in {**SOURCES, **TEXTS}.items():
        (folder / name).write_bytes(text.encode())
    for name, command in COMPILED.items():
        compiler, *rest = command.split()
        if shutil.which(compiler) is None:
            require("compilers", f"{compiler} is needed to make programs")
        done = subprocess.run(
            [compiler, "-s", *rest, "-o", name], cwd=folder, capture_output=True, check=False
        )
        assert done.returncode == 0, (name, done.stderr.decode())
    for name, data in _patched(folder).items():
        (folder / name).write_bytes(data)
    for path in folder.iterdir():
        path.chmod(EXECUTABLE)
    (folder / "locked").chmod(0o644)


def _patched(folder: Path) -> dict[str, bytes]:
    """Return the files that no compiler here makes."""
    hello, static, cxx, digits = (
        (folder / name).read_bytes()
        for name in ("c-dynamic", "c-static", "cxx-dynamic", "cxx-digits")
    )
    start, oldest = "GLIBC_2.34", "GLIBC_2.2.5"
    files = {
        "locked": static,
        "truncated": hello[:100],
        "c-newer": with_version(hello, start, "GLIBC_2.99"),
        "c-older": with_version(hello, start, oldest),
        "libnewer.so": with_version((folder / "libown.so").read_bytes(), oldest, "GLIBC_2.9.9"),
        "user-older": with_version((folder / "user-dynamic").read_bytes(), start, oldest),
        "cxx-newer": with_version(cxx, "GLIBCXX_3.4.21", "GLIBCXX_3.4.99"),
        "cxx-older": with_version(cxx, start, oldest),
        "cxx-digits-older": with_version(digits, start, oldest),
        "i686-static": program_for_i686(""),
        "i686-dynamic": program_for_i686("/lib/ld-linux.so.2"),
    }
    for name, number in MACHINES.items():
        files[f"{name}-static"] = with_machine(static, number)
        files[f"{name}-dynamic"] = with_machine(hello, number)
    return files


def with_machine(data: bytes, number: int) -> bytes:
    """Return an ELF file for another machine."""
    return data[:18] + struct.pack("<H", number) + data[20:]


def with_version(data: bytes, old: str, new: str) -> bytes:
    """Return a program that requires another symbol version in place of one that it requires.

    It names the new one where its strings have it already, else in the place of the old one.
    """
    made, file = bytearray(data), ELFFile(io.BytesIO(data))
    strings: Any = file.get_section_by_name(".dynstr")
    needs: Any = file.get_section_by_name(".gnu.version_r")
    names = strings.data()
    at = names.find(f"\0{new}\0".encode()) + 1
    begin = needs["sh_offset"]
    while True:
        _, count, _, first, following = struct.unpack_from("<HHIII", data, begin)
        version = begin + first
        for _ in range(count):
            _, flags, index, name, next_version = struct.unpack_from("<IHHII", data, version)
            if strings.get_string(name) == old:
                if not at:
                    assert len(old) == len(new)
                    place = strings["sh_offset"] + name
                    made[place : place + len(new)] = new.encode()
                entry = (_elf_hash(new), flags, index, at or name, next_version)
                struct.pack_into("<IHHII", made, version, *entry)
            version += next_version
        if not following:
            break
        begin += following
    assert bytes(made) != data, f"no {old} is required"
    return bytes(made)


def _elf_hash(name: str) -> int:
    """Return the hash of a symbol's name (ELF specification, "Hash Table")."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high
    return value


def program_for_i686(interpreter: str) -> bytes:
    """Return a 32-bit program that ends at once."""
    name = interpreter.encode() + b"\0" if interpreter else b""
    count, base = (2, 0x8048000) if name else (1, 0x8048000)
    code_at = 52 + 32 * count + len(name)
    size = code_at + len(_EXIT)
    header = struct.pack(
        "<16sHHIIIIIHHHHHH",
        *(b"\x7fELF\1\1\1", 2, 3, 1, base + code_at, 52, 0, 0, 52, 32, count, 0, 0, 0),
    )
    segments = struct.pack("<8I", 1, 0, base, base, size, size, 5, 0x1000)
    if name:
        place = 52 + 32 * count
        inside = (3, place, base + place, base + place, len(name), len(name), 4, 1)
        segments = struct.pack("<8I", *inside) + segments
    return header + segments + name + _EXIT


@dataclass(frozen=True, kw_only=True)
class Program:
    """What goes into an image, the command, and what is asked of it.

    Attributes:
        files: Names of files, and their places in the image; the first one is the artifact.
        cmd: The command.
        env: Environment of the image.
        smoke: The smoke run.
    """

    files: tuple[tuple[str, str], ...]
    cmd: tuple[str, ...] = ("/hello",)
    env: Pairs = ()
    smoke: Smoke = HELLO


def _alone(name: str, **changes: Any) -> Program:
    return Program(files=((name, "/hello"),), **changes)


def _beside(name: str, **libraries: str) -> Program:
    """Return a program with libraries in the folder lib beside it: soname without .so, and file."""
    places = tuple((file, f"/opt/use/lib/{soname}.so") for soname, file in libraries.items())
    return Program(files=((name, "/opt/use/use"), *places), cmd=("/opt/use/use",))


def _scripts(number: int) -> Program:
    """Return scripts that are each other's interpreters."""
    links = tuple((f"chain-{each}", f"/chain-{each}") for each in range(1, number))
    return Program(files=(*links, ("chain-end", f"/chain-{number}")), cmd=("/chain-1",))


_USERS = Smoke(stdout="hello\n", needs=(Need.USERS,))
_ZONES = Smoke(stdout="hello\n", needs=(Need.TIME_ZONES,))
_PARIS = (("TZ", "Europe/Paris"),)
_JAVA = ("java", "-cp", "/", "Hello")

PROGRAMS = {
    **{
        name: _alone(name)
        for name in (
            *("c-dynamic", "c-static", "c-static-pie", "c-musl", "musl-dynamic"),
            *("c-newer", "c-older", "cxx-dynamic", "cxx-static", "cxx-own", "cxx-newer"),
            *("cxx-older", "cxx-digits", "cxx-digits-older", "use"),
            *("aarch64-static", "aarch64-dynamic", "riscv64-static", "riscv64-dynamic"),
            *("truncated", "text", "empty", "sh", "sh-crlf", "env-python", "env-python-crlf"),
            *("for-nobody", "bare", "locked", "go-static", "go-cgo", "rust-dynamic"),
        )
    },
    "i686-static": _alone("i686-static", smoke=Smoke()),
    "i686-dynamic": _alone("i686-dynamic", smoke=Smoke()),
    "runpath-alone": _beside("use-runpath"),
    "runpath": _beside("use-runpath", libown="libown.so"),
    "runpath-lacks": _beside("use-runpath", libown="libchain.so"),
    "runpath-chain": _beside("use-runpath", libown="libchain.so", libdeep="libdeep.so"),
    "rpath-alone": _beside("use-rpath"),
    "rpath": _beside("use-rpath", libown="libown.so"),
    "rpath-lacks": _beside("use-rpath", libown="libchain.so"),
    "rpath-chain": _beside("use-rpath", libown="libchain.so", libdeep="libdeep.so"),
    "runpath-newer": _beside("use-runpath", libown="libnewer.so"),
    "foreign-library": _beside("use-runpath", libown="aarch64-dynamic"),
    "library-path": replace(
        _beside("use", libown="libown.so"), env=(("LD_LIBRARY_PATH", "/opt/use/lib"),)
    ),
    "musl-use": _alone("musl-use"),
    "musl-runpath-alone": _beside("musl-use-runpath"),
    "musl-runpath": _beside("musl-use-runpath", libown="musl-libown.so"),
    "musl-foreign": _beside("musl-use-runpath", libown="aarch64-dynamic"),
    "musl-no-library": _beside("musl-use-runpath", libown="text"),
    "musl-runpath-chain": _beside(
        "musl-use-runpath", libown="musl-libchain.so", libdeep="musl-libdeep.so"
    ),
    "for-runner": Program(files=(("for-runner", "/hello"), ("sh", "/runner"))),
    "for-program": Program(files=(("for-runner", "/hello"), ("c-dynamic", "/runner"))),
    "five-scripts": _scripts(5),
    "six-scripts": _scripts(6),
    "library": _alone("libown.so"),
    "for-text": Program(files=(("for-text", "/hello"), ("text", "/text"))),
    "folder": Program(files=(("c-static", "/opt/hello/hello"),), cmd=("/opt/hello",)),
    "absent": _alone("c-static", cmd=("/opt/nothing",)),
    "shell-form": _alone("c-static", cmd=(*SHELL, "/hello")),
    **{
        f"user-{way}": _alone(f"user-{way}", smoke=_USERS)
        for way in ("dynamic", "older", "static", "musl")
    },
    **{
        f"zone-{way}": _alone(f"zone-{way}", smoke=_ZONES, env=_PARIS)
        for way in ("dynamic", "static", "musl")
    },
    "java": Program(files=(("Hello.class", "/Hello.class"),), cmd=_JAVA),
    "java-newer": Program(files=(("Newer.class", "/Hello.class"),), cmd=_JAVA),
}
"""Programs by the names that tests use."""


# --- other compilers ------------------------------------------------------------------

_JAVA_SOURCE = (
    r"class Hello { public static void main(String[] a) { System.out.println(\"hello\"); } }"
)

JAVA = Image(
    name="java",
    sources=(
        ImageSource(
            kind=SourceKind.APT,
            packages=("default-jdk-headless", "coreutils", "dash"),
            setup=(
                "mkdir /made",
                f'echo "{_JAVA_SOURCE}" >/made/Hello.java',
                "/usr/lib/jvm/default-java/bin/javac -d /made /made/Hello.java",
                "/usr/lib/jvm/default-java/bin/jlink --add-modules java.base --output /jre",
            ),
        ),
    ),
)
"""A compiled class and the runtime that it needs, of whatever release this machine has."""


def provider(home: Path) -> Images:
    """Return what makes stand-ins."""
    return Images(
        Store(home),
        policy="apt",
        refresh=False,
        progress=lambda _: None,
        cancelled=threading.Event(),
        root=home,
        host=host_platform(),
        environ=os.environ,
    )


def compile_others(home: Path, project: Path, folder: Path) -> None:
    """Build Go and Rust programs in the embedded engine, as the repository's own matrix does.

    Args:
        home: The store.
        project: A new project's folder.
        folder: Where the files go.
    """
    settings = load(REPOSITORY / "variants.yaml")
    images = {image.name: image for image in settings.images}
    languages = {program.name: program.language for program in settings.programs}
    shutil.copytree(REPOSITORY / "examples/hello-go", project / "lookup")
    (project / "lookup/hello.go").write_text(SOURCES["lookup.go"], encoding="utf-8")
    (project / "rust").mkdir()
    rust = 'fn main() { println!("hello"); }\n'
    (project / "rust/hello.rs").write_text(rust, encoding="utf-8")
    engine = EmbeddedEngine(
        store=Store(home),
        images=provider(home),
        roots=(project,),
        output=project / ".variants",
        use_cache=True,
        epoch=0,
        host=host_platform(),
        cancelled=threading.Event(),
    )
    for name, language, link, source in (
        ("go-static", languages["hello-go"], "static", "lookup"),
        ("go-cgo", languages["hello-go"], "dynamic", "lookup"),
        ("rust-dynamic", languages["hello-rust"], "dynamic", "rust"),
    ):
        (recipe,) = (each for each in language.recipes if each.link == link)
        image = engine.prepare(images[recipe.image])
        stage = BuildStage(
            image=images[recipe.image],
            source=project / source,
            workdir="/src",
            commands=tuple(
                line.replace("{program}", name).replace("{flags}", "") for line in recipe.commands
            ),
            env=recipe.env,
            caches=language.caches,
            artifacts=(language.artifact.replace("{program}", name),),
            network=False,
        )
        shutil.copy(engine.build(stage, image).artifacts[0].file, folder / name)


def compile_java(home: Path, folder: Path) -> Path:
    """Make the files of Java programs; returns the root that compiled them."""
    images = provider(home)
    root = images.root(images.prepare(JAVA))
    data = (root / "made/Hello.class").read_bytes()
    (major,) = struct.unpack(">H", data[6:8])
    (folder / "Hello.class").write_bytes(data)
    (folder / "Newer.class").write_bytes(data[:6] + struct.pack(">H", major + 4) + data[8:])
    return root
