"""Roots that are made to take for ever: an answer comes in bounded steps and memory."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elffiles import (
    BODY,
    DT_RPATH,
    DT_RUNPATH,
    DT_SONAME,
    DYN,
    GLIBC_LOADER,
    MUSL_LOADER,
    Maker,
    dynamic,
)
from nox_variants import startup
from nox_variants.diagnosis import predict
from nox_variants.model import Smoke, Verdict
from nox_variants.results import FileFacts, Linkage
from nox_variants.subject import Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nox_variants.results import ImageFacts

MOST_STEPS = 6_000_000
"""Calls of Python functions and of those in C: some seconds' worth."""

MOST_MEMORY = 24 << 20

LOADER = {
    "lib64/ld-linux-x86-64.so.2": dynamic(Maker(kind=DYN), interpreter=None, needed=()).build()
}
DEEP = 1000
MANY = 20_000


def elf(*needed: str, interpreter: bytes | None = None, **texts: str) -> bytes:
    """Return a library, or a program where there is an interpreter."""
    tags = {"rpath": DT_RPATH, "runpath": DT_RUNPATH, "soname": DT_SONAME}
    named = [(tags[name], text) for name, text in texts.items()]
    made = dynamic(Maker(kind=DYN), interpreter=interpreter, needed=needed, texts=named)
    return made.build()


def program(*needed: str, rpath: str = "") -> bytes:
    """Return a program of glibc."""
    return elf(*needed, interpreter=GLIBC_LOADER, rpath=rpath)


def write(root: Path, files: Mapping[str, bytes]) -> None:
    """Write executable files."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
        (root / name).chmod(0o755)


def links_in_circles(root: Path) -> None:
    """Folders that are each other, and themselves."""
    write(root, LOADER | {"hello": program("liba.so", rpath="/a/b/c:/a/a/a:/usr/usr/usr/lib")})
    for name, target in {
        "a": "/b",
        "b": "a",
        "usr": ".",
        "lib": "lib",
        "etc": "/lib64/../etc",
    }.items():
        (root / name).symlink_to(target)


def links_that_multiply(root: Path) -> None:
    """Links, each of which leads through the next one many times."""
    write(root, LOADER | {"hello": program("liba.so", rpath="/l0/x:/l1")})
    for number in range(40):
        (root / f"l{number}").symlink_to(f"l{number + 1}/.." * 300)


def deep_folders(root: Path) -> None:
    """A tree of a thousand levels, which an interpreter's name leads down."""
    with contextlib.chdir(root):  # a path of that length cannot be made at once
        for _ in range(DEEP):
            os.mkdir("d")  # noqa: PTH102  # a thousand times
            os.chdir("d")
    way = "/d" * DEEP
    write(root, {"hello": elf(interpreter=f"{way}/ld-linux.so\0".encode(), rpath=way)})


@pytest.fixture
def root() -> Iterator[Path]:
    """Give a folder; a tree that is too deep for :func:`shutil.rmtree` is taken down by hand."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        with contextlib.chdir(folder):
            levels = 0
            while os.path.isdir("d"):  # noqa: PTH112
                os.chdir("d")
                levels += 1
            for _ in range(levels):
                os.chdir("..")
                os.rmdir("d")  # noqa: PTH106


def long_interpreter(root: Path) -> None:
    """An interpreter whose name goes up and down a thousand times."""
    write(root, {"hello": elf(interpreter=b"/lib64/.." * 450 + b"/lib64/ld-linux.so\0")} | LOADER)


def long_shebangs(root: Path) -> None:
    """Scripts that are each other's interpreters, also behind `env`."""
    line = b"#!/usr/bin/env hello\n"
    write(root, {"usr/bin/env": Maker().build(), "usr/bin/hello": line, "hello": line})


def full_folder(root: Path) -> None:
    """A folder of libraries with twenty thousand of them, in which none is looked for."""
    write(root, LOADER | {"hello": program(*(f"gone{number}.so" for number in range(500)))})
    (root / "lib").mkdir()
    for number in range(MANY):
        os.close(os.open(root / "lib" / f"libnss_x{number}.so.2", os.O_CREAT | os.O_WRONLY))


def needed_in_circles(root: Path) -> None:
    """Libraries that need each other, themselves and the program."""
    libraries = {
        f"lib/lib{number}.so": elf("lib0.so", f"lib{number}.so", f"lib{(number + 1) % 100}.so")
        for number in range(100)
    }
    write(root, LOADER | libraries | {"hello": program("lib0.so", "hello", "/hello", rpath="/lib")})


def many_places(root: Path) -> None:
    """Libraries that all need many, which are to be in many folders."""
    folders = ":".join(f"/{number}" for number in range(600))
    wanted = [f"gone{number}.so" for number in range(400)]
    libraries = {f"lib/l{number}.so": elf(*wanted, rpath=folders) for number in range(50)}
    names = [f"l{number}.so" for number in range(50)]
    write(root, LOADER | libraries | {"hello": program(*names, rpath="/lib")})


def places_that_grow(root: Path) -> None:
    """Folders whose names become a thousand times as long as they are written."""
    folder = "d" * 250
    place = "/".join([folder] * 14)
    names = [f"gone{number}.so" for number in range(500)]
    write(root, LOADER | {f"{place}/hello": program(*names, rpath="$ORIGIN" * 550)})
    (root / "hello").symlink_to(f"{place}/hello")


def musl_places_that_grow(root: Path) -> None:
    """The same for musl."""
    places_that_grow(root)
    names = [f"gone{number}.so" for number in range(500)]
    (root / "hello").resolve().write_bytes(
        elf(*names, interpreter=MUSL_LOADER, runpath="$ORIGIN" * 550)
    )
    write(root, {"lib/ld-musl-x86_64.so.1": elf(soname="libc.so")})


def huge_files(root: Path) -> None:
    """Files of a terabyte where small ones are expected."""
    names = (
        "etc/ld.so.cache",
        "etc/passwd",
        "etc/nsswitch.conf",
        "etc/os-release",
        "lib/libc.so.6",
    )
    write(root, LOADER | {"hello": program("liba.so")} | dict.fromkeys(names, b"passwd: files\n"))
    for name in (*names, *LOADER):
        os.truncate(root / name, 2**40)


HOSTILE: list[Callable[[Path], None]] = [
    links_in_circles,
    links_that_multiply,
    deep_folders,
    long_interpreter,
    long_shebangs,
    full_folder,
    needed_in_circles,
    many_places,
    places_that_grow,
    musl_places_that_grow,
    huge_files,
]


def inspected(root: Path) -> ImageFacts:
    """Read an image."""
    return startup.image_facts((root,), ("/hello",), (), "/")


def counted(root: Path) -> int:
    """Return how many calls it takes to read an image."""
    steps = 0

    def count(_frame: object, event: str, _argument: Any) -> None:
        nonlocal steps
        steps += event in {"call", "c_call"}
        if steps > MOST_STEPS:
            sys.setprofile(None)
            raise AssertionError("it takes too long")

    sys.setprofile(count)
    try:
        inspected(root)
    finally:
        sys.setprofile(None)
    return steps


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_hostile_roots(make: Callable[[Path], None], root: Path) -> None:
    """What a root does to be hard to read costs a bounded number of steps and bytes."""
    make(root)
    steps = counted(root)
    tracemalloc.start()
    try:
        found = inspected(root)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert found.startup.steps[0].path == "/hello"
    assert found.startup.steps[0].facts is not None
    assert (steps <= MOST_STEPS, peak <= MOST_MEMORY) == (True, True), (steps, peak)


WHOLE = {
    **LOADER,
    "lib64/liba.so": elf(soname="liba.so"),
    "hello": dynamic(
        Maker(),
        needed=("liba.so",),
        versions=("GLIBC_2.34",),
        texts=[(DT_RUNPATH, "$ORIGIN/lib64")],
    ).build(),
}
PLACES = [*range(64 + 8 * 56), *range(BODY, len(WHOLE["hello"]))]
"""The headers of a program, and what they lead to."""


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(WHOLE)),
    damage=st.dictionaries(st.sampled_from(PLACES), st.integers(0, 255), max_size=6),
    cut=st.none() | st.sampled_from(PLACES),
)
def test_damaged_programs(name: str, damage: Mapping[int, int], cut: int | None) -> None:
    """However program, loader or library is damaged, there is a prediction, and a reason for it."""
    data = bytearray(WHOLE[name])
    for at, value in damage.items():
        data[at % len(data)] = value
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), WHOLE | {name: bytes(data[:cut])})
        found = predict(
            Subject(
                facts=inspected(Path(folder)),
                artifact=FileFacts(linkage=Linkage.OTHER),
                smoke=Smoke(),
                machine="x86_64",
                run_image="scratch",
                cmd=("/hello",),
            )
        )

    assert (found.verdict is Verdict.FAILS) == bool(found.cause) == bool(found.explanation)
    assert found.explanation.isprintable()
