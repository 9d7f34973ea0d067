"""How programs would start: roots made by hand, and this machine's own programs against `ldd`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import require
from elffiles import (
    DT_RPATH,
    DT_RUNPATH,
    DT_SONAME,
    DYN,
    GLIBC_LOADER,
    MUSL_LOADER,
    Maker,
    cache,
    dynamic,
)
from nox_variants import elf, startup
from nox_variants.results import Library, Linkage, Startup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nox_variants.model import Pairs

LOADER = "lib64/ld-linux-x86-64.so.2"
MUSL = "lib/ld-musl-x86_64.so.1"


def program(*needed: str, rpath: str = "", runpath: str = "", musl: bool = False) -> bytes:
    """Return a dynamic program."""
    interpreter = MUSL_LOADER if musl else GLIBC_LOADER
    texts = [(DT_RPATH, rpath)] * bool(rpath) + [(DT_RUNPATH, runpath)] * bool(runpath)
    return dynamic(Maker(), interpreter=interpreter, needed=needed, texts=texts).build()


def library(
    *needed: str,
    soname: str = "",
    rpath: str = "",
    runpath: str = "",
    defines: Sequence[str] = (),
    versions: Sequence[str] = (),
    undefined: Sequence[str] = (),
    maker: Maker | None = None,
) -> bytes:
    """Return a library."""
    texts = [(DT_RPATH, rpath)] * bool(rpath) + [(DT_RUNPATH, runpath)] * bool(runpath)
    texts += [(DT_SONAME, soname)] * bool(soname)
    return dynamic(
        maker or Maker(kind=DYN),
        interpreter=None,
        needed=needed,
        texts=texts,
        defines=defines,
        versions=versions,
        undefined=undefined,
    ).build()


GLIBC = library(soname="ld-linux-x86-64.so.2") + b"\0/lib/\0/usr/lib/\0\0"
"""A loader that says where it looks."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with both loaders and nothing else."""
    return write(tmp_path / "root", {LOADER: GLIBC, MUSL: library(soname="libc.so")})


def write(root: Path, files: Mapping[str, bytes | str]) -> Path:
    """Write files, all of them executable; ``-> x`` is a link."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(data, str) and data.startswith("-> "):
            path.symlink_to(data[3:])
            continue
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(0o755)
    return root


def read(root: Path, *argv: str, env: Pairs = (), workdir: str = "/") -> Startup:
    """Return how a command of a root would start."""
    return startup.read((root,), argv, env, workdir)


def paths(root: Path, *argv: str, env: Pairs = (), workdir: str = "/") -> dict[str, str]:
    """Return where libraries are found."""
    found = read(root, *argv, env=env, workdir=workdir).libraries
    return {each.name: each.path for each in found}


# --- what the kernel executes ---------------------------------------------------------------------

ENV = "#!/usr/bin/env {}\n"


@pytest.mark.parametrize(
    ("argv", "env", "workdir", "steps"),
    [
        (["/bin/a"], {}, "/", ["/bin/a"]),
        (["a"], {}, "/", ["/bin/a"]),
        (["b"], {}, "/", ["/usr/local/bin/b"]),
        (["a"], {"PATH": "/opt:/none"}, "/", ["a"]),
        (["c"], {"PATH": "/opt:/bin"}, "/", ["/opt/c"]),
        (["plain"], {"PATH": "/opt:/bin"}, "/", ["/bin/plain"]),
        (["plain"], {"PATH": "/opt"}, "/", ["/opt/plain"]),
        (["a"], {"PATH": "../bin"}, "/opt", ["/opt/../bin/a"]),
        (["c"], {"PATH": ""}, "/opt", ["c"]),
        (["./c"], {}, "/opt", ["/opt/c"]),
        (["../bin/a"], {}, "/opt/", ["/opt/../bin/a"]),
        (["/none"], {}, "/", ["/none"]),
        (["folder"], {}, "/", ["folder"]),
    ],
)
def test_command(
    root: Path, argv: list[str], env: dict[str, str], workdir: str, steps: list[str]
) -> None:
    """A name is looked up in PATH, a path is taken from the working directory."""
    files = {"bin/a": "a", "bin/b": "b", "usr/local/bin/b": "b", "opt/c": "c", "bin/c": "c"}
    write(root, {**files, "bin/plain": "p", "opt/plain": "p", "bin/folder/x": "x"})
    (root / "opt/plain").chmod(0o644)

    found = read(root, *argv, env=tuple(env.items()), workdir=workdir).steps

    assert [step.path for step in found] == steps


@pytest.mark.parametrize(
    ("script", "steps"),
    [
        ("#!/bin/sh\n", ["/bin/sh"]),
        ("#!/bin/sh\r\n", ["/bin/sh\r"]),
        ("#!sh\n", ["sh"]),
        ("#!/bin/next\n", ["/bin/next", "/bin/sh"]),
        (ENV.format("sh"), ["/usr/bin/env", "/bin/sh"]),
        (ENV.format("next"), ["/usr/bin/env", "/bin/next", "/bin/sh"]),
        (ENV.format("none"), ["/usr/bin/env", "none"]),
        (ENV.format("sh\r"), ["/usr/bin/env", "sh\r"]),
        (ENV.format("sh -e"), ["/usr/bin/env", "sh -e"]),
        (ENV.format("-S sh -e"), ["/usr/bin/env", "/bin/sh"]),
        (ENV.format("-S -i A=b -u X sh -e"), ["/usr/bin/env", "/bin/sh"]),
        (ENV.format("--split-string=sh"), ["/usr/bin/env", "/bin/sh"]),
        (ENV.format(""), ["/usr/bin/env"]),
        (ENV.format("-i"), ["/usr/bin/env"]),
        (ENV.format("A=b"), ["/usr/bin/env"]),
        ("#!/plain\n", ["/plain"]),
        ("#!\n", []),
        ("#!/none/env sh\n", ["/none/env"]),
    ],
)
def test_script(root: Path, script: str, steps: list[str]) -> None:
    """A script leads to its interpreter, and by way of `env` to a name of PATH."""
    static = Maker().build()
    write(root, {"script": script, "bin/sh": static, "bin/next": "#! /bin/sh\n", "plain": static})
    write(root, {"usr/bin/env": static})
    (root / "plain").chmod(0o644)

    found = read(root, "/script").steps

    assert [step.path for step in found] == ["/script", *steps]
    assert [step.executable for step in found if step.facts and step.path == "/plain"] in (
        [],
        [False],
    )


@pytest.mark.parametrize("text", ["#!/script\n", ENV.format("script")])
def test_endless_scripts(root: Path, text: str) -> None:
    """A script that is its own interpreter ends, as the kernel ends it."""
    write(root, {"script": text, "usr/bin/env": Maker().build()})

    found = read(root, "/script", env=(("PATH", "/"),))

    assert len(found.steps) == (6 if text == "#!/script\n" else 8)


@pytest.mark.subprocess
@pytest.mark.parametrize("count", [5, 6])
def test_nesting_as_the_kernel_does(tmp_path: Path, count: int) -> None:
    """This machine's kernel follows as many scripts as we do."""
    names = [str(tmp_path / f"s{number}") for number in range(count + 1)]
    Path(names[0]).symlink_to(shutil.which("true") or "/bin/true")
    for name, interpreter in zip(names[1:], names, strict=False):
        Path(name).write_text(f"#!{interpreter}\n")
        Path(name).chmod(0o755)

    try:
        subprocess.run([names[-1]], check=True)
        works = True
    except OSError:
        works = False

    steps = read(Path("/"), names[-1]).steps
    assert works == (steps[-1].facts is not None and steps[-1].facts.linkage is not Linkage.SCRIPT)


def test_nothing_to_start(root: Path) -> None:
    """No command has no steps; an empty root has nothing of what a command needs."""
    assert read(root) == Startup(steps=())
    (step,) = startup.read((), ("/app",), ()).steps
    assert (step.path, step.facts, step.executable) == ("/app", None, False)


def test_folder_and_static_program(root: Path) -> None:
    """A folder is there and no program; a static program has no loader, and its functions."""
    write(root, {"bin/static": Maker().build()})

    assert [(step.facts is None, step.executable) for step in read(root, "/bin").steps] == [
        (False, False)
    ]
    found = read(root, "/bin/static")
    assert (found.loader, found.libraries, found.steps[0].executable) == (None, (), True)


@pytest.mark.parametrize(
    ("change", "there", "executable"),
    [(None, True, True), (0o644, True, False), ("x", False, False)],
)
def test_loader(root: Path, change: int | str | None, there: bool, executable: bool) -> None:  # noqa: FBT001
    """The loader is a step of its own; where it cannot run, nothing is looked for."""
    write(root, {"app": program("libx.so.1")})
    if isinstance(change, int):
        (root / LOADER).chmod(change)
    elif change:
        (root / LOADER).unlink()

    found = read(root, "/app")

    assert found.loader is not None
    assert (found.loader.facts is not None, found.loader.executable) == (there, executable)
    assert bool(found.libraries) == executable


# --- what glibc's loader finds --------------------------------------------------------------------


def test_breadth_first(root: Path) -> None:
    """Libraries are found as they are needed, level by level, each once, by whom first."""
    write(
        root, {"app": program("liba.so", "libb.so", "gone.so"), "lib/liba.so": library("libc.so")}
    )
    write(root, {"usr/lib/libb.so": library("libc.so", "app", "liba.so", "lost.so")})
    write(root, {"lib/libc.so": library("libb.so", "ld-linux-x86-64.so.2")})

    found = read(root, "/app").libraries

    both = ("/lib", "/usr/lib")
    assert found == (
        Library(name="liba.so", needed_by="/app", path="/lib/liba.so", searched=("/lib",)),
        Library(name="libb.so", needed_by="/app", path="/usr/lib/libb.so", searched=both),
        Library(name="gone.so", needed_by="/app", searched=both),
        Library(name="libc.so", needed_by="/lib/liba.so", path="/lib/libc.so", searched=("/lib",)),
        Library(name="app", needed_by="/usr/lib/libb.so", searched=both),
        Library(name="lost.so", needed_by="/usr/lib/libb.so", searched=both),
        Library(name="ld-linux-x86-64.so.2", needed_by="/lib/libc.so", path=f"/{LOADER}"),
    )


@pytest.mark.parametrize(
    ("app", "env", "path"),
    [
        (program("x.so"), "", "/cached/x.so"),
        (program("x.so", rpath="/r"), "/e", "/r/x.so"),
        (program("x.so", runpath="/r"), "/e", "/e/x.so"),
        (program("x.so", runpath="/r"), "", "/r/x.so"),
        (program("x.so", rpath="/none:/r"), "", "/r/x.so"),
        (program("x.so", rpath="/e", runpath="/none"), "", "/cached/x.so"),
        (program("x.so"), "/none;/e", "/e/x.so"),
        (program("x.so"), "/none:", "/work/x.so"),
        (program("x.so", rpath="r"), "", "/work/r/x.so"),
        (program("x.so", rpath="$ORIGIN/../r"), "", "/r/x.so"),
        (program("x.so", rpath="${ORIGIN}/priv"), "", "/opt/real/priv/x.so"),
        (program("x.so", rpath="/$LIB/sub"), "", "/lib/sub/x.so"),
        (program("x.so", rpath="/opt/${PLATFORM}"), "", "/opt/x86_64/x.so"),
        (program("x.so", rpath="/$LIBRARY"), "", "/cached/x.so"),
        (program("/e/x.so"), "", "/e/x.so"),
        (program("r/x.so"), "", "/work/r/x.so"),
        (program("$ORIGIN/priv/x.so"), "", "/opt/real/priv/x.so"),
        (program("x.so", rpath="/hwcaps"), "", "/hwcaps/glibc-hwcaps/x86-64-v3/x.so"),
        (program("x.so", rpath="/none/" + "x" * 300), "", "/cached/x.so"),
    ],
)
def test_where_glibc_looks(root: Path, app: bytes, env: str, path: str) -> None:
    """Every place comes in its turn, with what it stands for put in."""
    places = ["e", "r", "work", "work/r", "opt/real/priv", "lib/sub", "opt/x86_64", "cached", "lib"]
    write(root, {f"{place}/x.so": library() for place in places})
    write(root, {f"hwcaps/glibc-hwcaps/x86-64-v{number}/x.so": library() for number in (2, 3)})
    write(root, {"opt/real/app": app, "r/app": "-> ../opt/real/app", "bin/app": "-> /r/app"})
    write(root, {"opt/r/x.so": "-> /r/x.so"})
    write(root, {"etc/ld.so.cache": cache([("x.so", "/gone/x.so"), ("x.so", "/cached/x.so")])})

    environment = (("LD_LIBRARY_PATH", env),) if env else ()
    (found,) = paths(root, "/bin/app", env=environment, workdir="/work").values()

    assert found.replace("/opt/r/", "/r/") == path


def test_without_a_cache(root: Path) -> None:
    """ld.so.conf is nothing to the loader: `ldconfig` reads it."""
    write(root, {"app": program("x.so"), "extra/x.so": library(), "etc/ld.so.conf": "/extra\n"})

    assert paths(root, "/app") == {"x.so": ""}


def test_whose_folders_count(root: Path) -> None:
    """DT_RPATH is for all that a file leads to; DT_RUNPATH is for the file alone, and ends that."""
    write(root, {"app": program("a.so", "b.so", rpath="/r"), "r/a.so": library("c.so")})
    write(root, {"r/b.so": library("d.so", "e.so", runpath="/u"), "u/d.so": library("f.so")})
    write(root, {f"{name}.so": library() for name in ("r/c", "r/e", "u/f", "r/f")})

    found = paths(root, "/app")

    assert (found["c.so"], found["d.so"], found["e.so"], found["f.so"]) == (
        *("/r/c.so", "/u/d.so", "", "/r/f.so"),
    )


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        (library(maker=Maker(kind=DYN, bits=32)), "/usr/lib/x.so"),
        (library(maker=Maker(kind=DYN, order=">")), "/usr/lib/x.so"),
        (b"GROUP ( libx.so.1 )", "/lib/x.so"),
    ],
)
def test_candidates(root: Path, wrong: bytes, path: str) -> None:
    """A file for another machine is passed over; one that is no library ends the search."""
    if wrong.startswith(b"\x7fELF\2\2"):
        wrong = wrong[:18] + (22).to_bytes(2, "big") + wrong[20:]  # s390x
    write(root, {"app": program("x.so"), "lib/x.so": wrong, "usr/lib/x.so": library()})
    write(root, {"usr/lib/folder.so/x": "", "lib/folder.so/x": ""})

    assert paths(root, "/app") == {"x.so": path}
    write(root, {"app": program("folder.so")})
    assert paths(root, "/app") == {"folder.so": ""}


def test_a_file_is_loaded_once(root: Path) -> None:
    """What is there by another name, a DT_SONAME or a link, is not looked for again."""
    write(root, {"app": program("a.so", "a.so.1", "b.so"), "lib/b.so": "-> a.so"})
    write(root, {"lib/a.so": library("gone.so", soname="a.so.1")})

    found = read(root, "/app").libraries

    assert [(each.name, each.path) for each in found] == [
        ("a.so", "/lib/a.so"),
        ("a.so.1", "/lib/a.so"),
        ("b.so", "/lib/a.so"),
        ("gone.so", ""),
    ]


def test_versions(root: Path) -> None:
    """Versions that a library lacks are noted for each that requires them; without any, none."""
    app = dynamic(Maker(), needed=["liba.so", "libc.so.6"], versions=["V_1", "V_3"]).build()
    other = library("libc.so.6", versions=["V_2", "V_4"])
    write(root, {"app": app, "lib/liba.so": other})
    write(root, {"lib/libc.so.6": library(defines=["V_1", "V_2"])})

    def undefined() -> list[tuple[str, str, tuple[str, ...]]]:
        found = read(root, "/app").libraries
        return [(each.name, each.needed_by, each.undefined) for each in found]

    assert undefined() == [
        ("liba.so", "/app", ()),
        ("libc.so.6", "/app", ("V_3",)),
        ("libc.so.6", "/lib/liba.so", ("V_4",)),
    ]
    (root / "lib/libc.so.6").unlink()
    write(root, {"lib/libc.so.6": library()})
    assert undefined() == [("liba.so", "/app", ()), ("libc.so.6", "/app", ())]


def test_imports_of_all(root: Path) -> None:
    """What a library imports counts as the program's; NSS is recognised by it."""
    write(root, {"app": program("a.so"), "lib/a.so": library(undefined=["getaddrinfo", "dlopen"])})

    found = read(root, "/app")

    assert found.imports == ("dlopen", "getaddrinfo")
    assert startup.uses_nss(found)
    assert not startup.uses_nss(Startup(steps=(), imports=("dlopen", "iconv_open")))
    assert startup.uses_nss(Startup(steps=(), imports=(elf.NSS,)))


# --- what musl's loader finds ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "env", "path"),
    [
        (program("x.so", musl=True), "", "/usr/local/lib/x.so"),
        (program("x.so", rpath="/r", musl=True), "/e", "/e/x.so"),
        (program("x.so", runpath="/r", musl=True), "", "/r/x.so"),
        (program("x.so", rpath="/e", runpath="/r", musl=True), "", "/r/x.so"),
        (program("x.so", rpath="$ORIGIN/r", musl=True), "", "/r/x.so"),
        (program("x.so", rpath="/r:/$LIB", musl=True), "", "/usr/local/lib/x.so"),
        (program("x.so", musl=True), ":\n/none\n/e", "/e/x.so"),
        (program("libc.so", musl=True), "", f"/{MUSL}"),
        (program("libpthread.so.0", musl=True), "", f"/{MUSL}"),
        (program("libm.so.6", musl=True), "", f"/{MUSL}"),
        (program("libmagic.so.1", musl=True), "", ""),
    ],
)
def test_where_musl_looks(root: Path, app: bytes, env: str, path: str) -> None:
    """Every place comes in its turn; libraries of libc are the loader itself."""
    places = ["e", "r", "usr/lib", "usr/local/lib"]
    write(root, {f"{place}/x.so": library() for place in places} | {"app": app})
    write(root, {"lib/libm.so.6": library()})

    (found,) = paths(root, "/app", env=(("LD_LIBRARY_PATH", env),)).values()

    assert found == path


def test_folders_of_musl(root: Path) -> None:
    """Folders lead on to what a library needs, whatever kind they are; a file replaces others."""
    write(
        root, {"app": program("a.so", runpath="/r", musl=True), "r/a.so": library("b.so", "c.so")}
    )
    write(root, {"r/b.so": library(), "opt/c.so": library(), "lib/c.so": library()})
    write(root, {"etc/ld-musl-x86_64.path": "/opt:/more\n"})

    assert paths(root, "/app") == {"a.so": "/r/a.so", "b.so": "/r/b.so", "c.so": "/opt/c.so"}


def test_musl_takes_the_first(root: Path) -> None:
    """A file for another machine ends the search, and is as good as none; versions are nothing."""
    wrong = library(maker=Maker(kind=DYN, bits=32))
    write(root, {"app": program("x.so", musl=True), "lib/x.so": wrong, "usr/lib/x.so": library()})
    assert paths(root, "/app") == {"x.so": ""}

    (root / "lib/x.so").unlink()
    versions = dynamic(Maker(), interpreter=MUSL_LOADER, needed=["x.so"], versions=["V"]).build()
    write(root, {"app": versions, "lib/x.so": library(defines=["W"])})
    assert [each.undefined for each in read(root, "/app").libraries] == [()]


def test_a_loader_that_calls_musl(root: Path) -> None:
    """A loader in glibc's place that calls musl's (gcompat) looks where that one looks."""
    (root / LOADER).write_bytes(library() + b"\0/lib/ld-musl-x86_64.so.1\0")
    write(root, {"app": program("libc.so.6", "x.so"), "usr/local/lib/x.so": library()})

    assert paths(root, "/app") == {"libc.so.6": f"/{LOADER}", "x.so": "/usr/local/lib/x.so"}


def test_unknown_loader(root: Path) -> None:
    """What a loader of another kind finds, nobody says."""
    app = dynamic(Maker(), interpreter=b"/system/bin/linker64\0").build()
    write(root, {"app": app, "system/bin/linker64": library()})

    found = read(root, "/app")

    assert (found.libraries, found.truncated) == ((), True)


# --- what is hostile ------------------------------------------------------------------------------


def test_search_is_bounded(root: Path) -> None:
    """Too many libraries, or too many folders to look in, end the search, and it says so."""
    chain = {f"lib/l{number}.so": library(f"l{number + 1}.so") for number in range(520)}
    write(root, chain | {"app": program("l0.so")})
    found = read(root, "/app")
    assert (found.truncated, len(found.libraries)) == (True, 510)

    names = [f"n{number}" for number in range(500)]
    write(root, {"app": program(*names, rpath=":".join(f"/{number}" for number in range(200)))})
    found = read(root, "/app")
    assert found.truncated
    assert 0 < len(found.libraries) < len(names)


def test_this_machine_is_never_seen(tmp_path: Path) -> None:
    """Links and ``..`` lead nowhere outside, whatever they say."""
    root = write(
        tmp_path / "root", {LOADER: GLIBC, "app": program("x.so", rpath=f"{tmp_path}/out")}
    )
    write(tmp_path / "out", {"x.so": library()})
    write(root, {"lib/x.so": f"-> {tmp_path}/out/x.so", "usr/lib/x.so": "-> ../../../out/x.so"})

    assert paths(root, "/app") == {"x.so": ""}


PIECES = {
    "app": program("a.so", "b.so", rpath="$ORIGIN/../lib:/r"),
    "lib/a.so": library("b.so", "gone.so", runpath="/r", versions=["V_1"]),
    "r/b.so": library("a.so", soname="c.so", defines=["V_2"]),
    "etc/ld.so.cache": cache([("b.so", "/r/b.so"), ("gone.so", "/gone.so")]),
    LOADER: GLIBC,
}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    damage=st.dictionaries(
        st.tuples(st.sampled_from(sorted(PIECES)), st.integers(0, 400) | st.integers(8464, 9400)),
        st.integers(0, 255),
        max_size=10,
    ),
    links=st.dictionaries(
        st.sampled_from(["r/l", "lib/gone.so", "gone.so", "usr"]),
        st.sampled_from(["/", ".", "..", "l", "/r/l/l", "/lib/gone.so", "../app", "/usr/usr"]),
    ),
)
def test_damaged_roots(
    tmp_path_factory: pytest.TempPathFactory,
    damage: dict[tuple[str, int], int],
    links: dict[str, str],
) -> None:
    """Whatever files say and links lead to, there is an answer, and it names what was there."""
    with tempfile.TemporaryDirectory(dir=tmp_path_factory.getbasetemp()) as folder:
        files = {name: bytearray(data) for name, data in PIECES.items()}
        for (name, at), value in damage.items():
            files[name][at % len(files[name])] = value
        write(Path(folder), {name: bytes(data) for name, data in files.items()})
        write(Path(folder), {name: f"-> {target}" for name, target in links.items()})

        found = startup.image_facts((Path(folder),), ("/app",), (), "/").startup

    assert [step.path for step in found.steps][:1] == ["/app"]
    assert all(each.path.startswith("/") for each in found.libraries if each.path)


# --- this machine's own programs ------------------------------------------------------------------

PROGRAMS = ("ls", "bash", "git", "curl", "gcc", "openssl", "perl")


@pytest.mark.subprocess
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_ldd_says(name: str) -> None:
    """What `ldd` lists for programs of this machine, in its order and at its paths."""
    path = shutil.which(name, path="/usr/bin:/bin")
    if path is None or shutil.which("ldd") is None:
        require("compilers", f"{name} is not installed")

    found = startup.read((Path("/"),), (path,), tuple(os.environ.items()))

    real = found.steps[-1].path
    assert {each.name: each.path for each in found.libraries} == traced(real)
    assert not found.truncated
    assert all(not each.undefined for each in found.libraries)


def traced(path: str) -> dict[str, str]:
    """Return names and paths that the loader prints when it is asked to (ld.so(8))."""
    done = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
    found = {}
    for line in done.stdout.splitlines():
        match = re.fullmatch(r"\s*(?:(\S+) => )?(/\S+|not found)(?: \(0x[0-9a-f]+\))?", line)
        if match:
            where = "" if match[2] == "not found" else match[2]
            found[match[1] or Path(match[2]).name] = where
    return found


@pytest.mark.subprocess
def test_image_facts_of_this_machine() -> None:
    """Root and start of one image are read together."""
    facts = startup.image_facts((Path("/"),), ("sh", "-c", "true"), (), "/")

    assert facts.root.shell
    assert facts.startup.steps[0].path.endswith("/sh")
    if facts.startup.loader is not None:
        assert facts.startup.loader.path in facts.root.loaders
