"""Where libraries are found: what is said of a root, and what its own loader says in a sandbox."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import require
from nox_variants import startup
from nox_variants.sandbox.bubblewrap import find_bwrap

pytestmark = pytest.mark.sandbox

MAIN = "int y(void); int main(void) { return y(); }\n"


class Bench:
    """A root with a C library, and a compiler that puts files into it."""

    def __init__(self, root: Path, compiler: str) -> None:
        if shutil.which(compiler) is None:
            require("compilers", f"{compiler} is not installed")
        self.root = root
        self.musl = compiler == "musl-gcc"
        self._compiler = compiler
        for folder in ("a", "b", "proc", "dev", "opt/app/lib", "work", "etc"):
            (root / folder).mkdir(parents=True)
        self.compile(MAIN.replace("y()", "0"), "empty")
        facts = startup.read((Path("/"),), (str(root / "empty"),), ())
        assert facts.loader
        for path in {facts.loader.path, *(each.path for each in facts.libraries)}:
            self.copy(path)

    def copy(self, path: str) -> None:
        """Copy a file of this machine to the same place."""
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)

    def compile(self, source: str, name: str, *flags: str) -> Path:
        """Compile a file of the root."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        command = [self._compiler, "-x", "c", "-", "-o", str(target), *flags]
        subprocess.run(command, input=source.encode(), check=True)
        return target

    def library(self, name: str, *flags: str) -> Path:
        """Compile a library whose function is its name's first letter behind ``lib``."""
        function = Path(name).name[3]
        calls = "int x(void);" if function == "y" else ""
        source = f"{calls} int {function}(void) {{ return {'x()' if calls else '0'}; }}\n"
        soname = f"-Wl,-soname,{Path(name).name}"
        return self.compile(source, name, "-shared", "-fPIC", soname, *flags)

    def listed(self, program: str, env: dict[str, str]) -> dict[str, str]:
        """Return what the root's own loader lists, in a sandbox of that root."""
        words = [word for name, value in env.items() for word in ("--setenv", name, value)]
        trace = [] if self.musl else ["--setenv", "LD_TRACE_LOADED_OBJECTS", "1"]
        # musl follows no link of a program that it only lists.
        real = f"/{(self.root / program.lstrip('/')).resolve().relative_to(self.root.resolve())}"
        run = ["/lib/ld-musl-x86_64.so.1", "--list", real] if self.musl else [program]
        flags = ["--clearenv", "--chdir", "/work", *words, *trace]
        command = [
            str(find_bwrap()),
            "--bind",
            str(self.root),
            "/",
            "--proc",
            "/proc",
            *flags,
            *run,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = {}
        for line in (done.stdout + done.stderr).splitlines():
            if match := re.fullmatch(r"\s+(\S+)(?: => (\S+))? \(0x[0-9a-f]+\)", line):
                found[match[1]] = str(Path("/work", match[2] or match[1]))
            elif match := re.match(r"\s+(\S+) => not found|Error loading .*? (\S+):", line):
                found[match[1] or match[2]] = ""
        return found

    def said(self, program: str, env: dict[str, str]) -> dict[str, str]:
        """Return what is said without running anything."""
        found = startup.read((self.root,), (program,), tuple(env.items()), "/work")
        return {each.name: each.path for each in found.libraries if each.name[3:4] in {"x", "y"}}


@pytest.fixture(scope="module", params=["gcc", "musl-gcc"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A root for each libc."""
    return Bench(tmp_path_factory.mktemp("loader") / "root", request.param)


RPATH, RUNPATH = "-Wl,--disable-new-dtags,-rpath,", "-Wl,--enable-new-dtags,-rpath,"


@pytest.mark.parametrize("env", [{}, {"LD_LIBRARY_PATH": "/b"}, {"LD_LIBRARY_PATH": ":/none"}])
@pytest.mark.parametrize("inner", ["", RPATH + "/b", RUNPATH + "/b"])
@pytest.mark.parametrize("outer", ["", RPATH + "/a", RUNPATH + "/a", RUNPATH + "$ORIGIN/lib"])
def test_places(bench: Bench, outer: str, inner: str, env: dict[str, str]) -> None:
    """A program needs y, which needs x: both are found where the real loader finds them."""
    for folder in ("a", "b", "opt/app/lib", "work", "usr/lib"):
        bench.library(f"{folder}/libx.so")
    for folder in ("a", "opt/app/lib", "usr/lib"):
        link = [f"-L{bench.root}/a", "-lx", *filter(None, [inner])]
        bench.library(f"{folder}/liby.so", *link)
    link = [f"-L{bench.root}/a", "-ly", "-Wl,--allow-shlib-undefined", *filter(None, [outer])]
    bench.compile(MAIN, "opt/app/main", *link)
    (bench.root / "main").unlink(missing_ok=True)
    (bench.root / "main").symlink_to("opt/app/main")

    found = bench.said("/main", env)

    listed = bench.listed("/main", env)
    assert found == {name: path for name, path in listed.items() if name in found}
    assert set(found) == {"libx.so", "liby.so"}


def test_cache(tmp_path: Path) -> None:
    """A library that only the cache knows is found as glibc's own loader finds it."""
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin")
    if ldconfig is None:
        require("compilers", "ldconfig is needed")
    bench = Bench(tmp_path / "root", "gcc")
    bench.library("opt/cached/libx.so")
    bench.library("a/liby.so", f"-L{bench.root}/opt/cached", "-lx")
    bench.compile(MAIN, "main", f"-L{bench.root}/a", "-ly", "-Wl,--allow-shlib-undefined")
    (bench.root / "etc/ld.so.conf").write_text("/opt/cached\n")

    assert bench.said("/main", {"LD_LIBRARY_PATH": "/a"}) == {
        "liby.so": "/a/liby.so",
        "libx.so": "",
    }

    subprocess.run([ldconfig, "-r", bench.root], check=True)

    found = bench.said("/main", {"LD_LIBRARY_PATH": "/a"})
    listed = bench.listed("/main", {"LD_LIBRARY_PATH": "/a"})
    assert found == {"liby.so": "/a/liby.so", "libx.so": "/opt/cached/libx.so"}
    assert found == {name: path for name, path in listed.items() if name in found}
