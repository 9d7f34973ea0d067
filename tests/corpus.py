"""Roots of every kind, made for real, and images of programs in them."""

from __future__ import annotations

import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import standins
from conftest import require
from nox_variants.images.apt import Apt
from nox_variants.images.packages import unpack
from nox_variants.model import CopiedFile, Image
from nox_variants.store import Store
from nox_variants.subject import Subject
from programs import PROGRAMS, compile_java, compile_others, make_files
from projects import REPOSITORY
from samples import APT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from handmade import Bench
    from nox_variants.plan import Plan
    from nox_variants.results import Build, VariantImage

MADE = "/corpus"
"""Where the build image has all files; its one build stage copies them."""

# --- roots ----------------------------------------------------------------------------------------

STAND_INS = {
    "busybox": "busybox",
    "alpine": "alpine",
    "glibc": "busybox:glibc",
    "debian": "debian",
    "distroless": "distroless/static",
}
"""Roots that are stand-ins, and their names in the catalogue."""

_OLD_RELEASES = {"Debian": "bullseye", "Ubuntu": "focal"}
_LIBC = "lib/x86_64-linux-gnu/libc.so.6"
_LOADER = "lib64/ld-linux-x86-64.so.2"
_MUSL_PATH = "etc/ld-musl-x86_64.path"
_CONF = "/opt/own\n"
_JAVA_LIBRARIES = (
    *("libc", "libm", "libz", "libdl", "libpthread", "librt", "libgcc_s", "libstdc++"),
    "ld-linux-x86-64",
)


class Roots:
    """Makes roots below a folder, each out of another one.

    Args:
        folder: The folder.
        made: Files of programs.
        bases: Roots that are there.
    """

    def __init__(self, folder: Path, made: Path, bases: Mapping[str, Path]) -> None:
        self._folder = folder
        self._made = made
        self.all = dict(bases)

    def derive(self, name: str, base: str, change: Callable[[Path], object]) -> None:
        """Make a root: a changed copy."""
        root = self._folder / name
        if base:
            shutil.copytree(self.all[base], root, symlinks=True)
        else:
            root.mkdir()
        change(root)
        self.all[name] = root

    def put(self, name: str, target: str) -> Callable[[Path], object]:
        """Return a change that copies a file of a program into a root."""

        def change(root: Path) -> None:
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._made / name, root / target)

        return change


def _linked(path: str, to: str) -> Callable[[Path], object]:
    """Return a change that puts a symbolic link in a file's place."""

    def change(root: Path) -> None:
        (root / path).unlink()
        (root / path).symlink_to(to)

    return change


def _written(path: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / path).write_text(text, encoding="utf-8")


def _after(*changes: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for each in changes:
            each(root)

    return change


def _cached(root: Path) -> None:
    """Let ldconfig(8) write the loader's cache."""
    tool = shutil.which("ldconfig") or "/sbin/ldconfig"  # not on every user's PATH
    subprocess.run([tool, "-X", "-r", root], check=True, capture_output=True)


def make_roots(roots: Roots) -> None:
    """Make all roots that are no stand-ins and no old release's."""
    put, derive = roots.put, roots.derive
    derive("no-libc", "glibc", lambda root: (root / _LIBC).unlink())
    loader = (roots.all["glibc"] / _LOADER).readlink()
    real = f"lib/x86_64-linux-gnu/{loader.name}"
    derive("loader-locked", "glibc", lambda root: (root / real).chmod(0o644))
    derive("loader-dangling", "glibc", _linked(_LOADER, "/nowhere/ld.so"))
    derive("loader-cycle", "glibc", _linked(_LOADER, loader.name))
    derive("libc-dangling", "glibc", _linked(_LIBC, "libc-gone.so"))
    derive("libc-cycle", "glibc", _linked(_LIBC, "libc.so.6"))
    derive("loader-text", "glibc", put("text", real))
    derive("loader-foreign", "glibc", put("aarch64-static", real))
    own = put("libown.so", "opt/own/libown.so")
    conf = _written("etc/ld.so.conf", _CONF)
    derive("conf-only", "glibc", _after(own, conf))
    derive("conf-cache", "glibc", _after(own, conf, _cached))
    gone = put("libown.so", "opt/own/libown.so")
    stale = _after(gone, conf, _cached, lambda root: (root / "opt/own/libown.so").unlink())
    derive("cache-stale", "glibc", stale)
    derive("lib-default", "glibc", put("libown.so", "usr/lib/x86_64-linux-gnu/libown.so"))
    derive("lib-usr", "glibc", put("libown.so", "usr/lib/libown.so"))
    derive("lib-local", "glibc", put("libown.so", "usr/local/lib/libown.so"))
    hwcaps = "usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v2/libown.so"
    derive("lib-hwcaps", "glibc", put("libown.so", hwcaps))
    foreign = "usr/lib/x86_64-linux-gnu/libown.so"
    derive("lib-foreign", "glibc", put("aarch64-dynamic", foreign))
    derive("both-libcs", "glibc", lambda root: _with_musl(root, roots.all["alpine"]))
    musl_own = put("musl-libown.so", "opt/own/libown.so")
    derive("musl-path", "alpine", _after(musl_own, _written(_MUSL_PATH, _CONF)))
    derive("musl-no-path", "alpine", musl_own)
    musl_usr = put("musl-libown.so", "usr/lib/libown.so")
    derive("musl-usr", "alpine", _after(musl_usr, lambda root: (root / _MUSL_PATH).unlink()))
    derive("musl-elsewhere", "alpine", _after(musl_usr, _written(_MUSL_PATH, _CONF)))
    derive("python", "busybox", put("c-static", "usr/bin/python3"))
    derive("python-dynamic", "busybox", put("c-dynamic", "usr/bin/python3"))
    locked = _after(put("c-static", "usr/bin/python3"), _locked("usr/bin/python3"))
    derive("python-locked", "busybox", locked)
    derive("sh-dangling", "busybox", _linked("bin/sh", "/nowhere/sh"))
    derive("users", "", _after(_folder("etc"), _written("etc/passwd", "root:x:0:0::/:\n")))
    derive("libc-users", "glibc", _written("etc/passwd", "root:x:0:0::/:\n"))


def _with_musl(root: Path, alpine: Path) -> None:
    for path in ("lib/x86_64-linux-musl", "lib/ld-musl-x86_64.so.1"):
        source = alpine / path
        if source.is_dir():
            shutil.copytree(source, root / path, symlinks=True)
        else:
            shutil.copy(source, root / path, follow_symlinks=False)


def _locked(path: str) -> Callable[[Path], object]:
    return lambda root: (root / path).chmod(0o644)


def _folder(path: str) -> Callable[[Path], object]:
    return lambda root: (root / path).mkdir(parents=True)


def make_old(home: Path, roots: Roots) -> None:
    """Make roots of an older release's libraries, which are downloaded once and kept.

    Args:
        home: Where apt has the lists of this machine's own release already, and packages are kept.
        roots: Where they go.
    """
    store = Store(home / "old-release")
    sources = store.home / "sources.list"
    if not sources.exists():
        sources.write_text(_old_sources(home), encoding="utf-8")
    kept = Apt(
        store,
        progress=lambda _: None,
        cancelled=threading.Event(),
        sources=sources,
        lists_age=float("inf"),
    ).fetch("old", ["libc6", "libgcc-s1", "libstdc++6"])
    packages = {package.name: package for package in kept}

    def unpacked(*names: str) -> Callable[[Path], object]:
        wanted = [packages[each] for each in names]
        return lambda root: unpack(wanted, root, cancelled=threading.Event())

    roots.derive("old", "", unpacked("libc6"))
    roots.derive("old-c++", "", unpacked("libc6", "libgcc-s1", "libstdc++6"))
    passwd = _written("etc/passwd", "root:x:0:0::/:\n")
    roots.derive("old-users", "old", passwd)
    module = "lib/x86_64-linux-gnu/libnss_files.so.2"
    roots.derive("old-no-nss", "old-users", lambda root: (root / module).unlink())


def _old_sources(home: Path) -> str:
    """Return the line of a sources.list: this machine's mirror, with an older release."""
    state = home / "apt"
    done = subprocess.run(
        [
            *("apt-get", "-o", f"Dir::State={state}", "-o", f"Dir::State::Lists={state}/lists"),
            *("indextargets", "--format", "$(ORIGIN) $(COMPONENT) $(REPO_URI)"),
            "Created-By: Packages",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        origin, component, uri = line.split(" ", 2)
        if origin in _OLD_RELEASES and component == "main" and "security" not in uri:
            break
    else:
        require("apt", "no mirror of this machine has an older release")
    keyring = Path("/usr/share/keyrings", f"{origin.lower()}-archive-keyring.gpg")
    signed = f"[signed-by={keyring}] " if keyring.exists() else ""
    return f"deb {signed}{uri} {_OLD_RELEASES[origin]} main\n"


def make_java(java: Path, roots: Roots) -> None:
    """Make a root with a Java runtime and nothing else."""
    libraries = Path("usr/lib/x86_64-linux-gnu")

    def change(root: Path) -> None:
        shutil.copytree(java / "jre", root / "jre", symlinks=True)
        (root / libraries).mkdir(parents=True)
        for name in _JAVA_LIBRARIES:
            for file in (java / libraries).glob(f"{name}.so*"):
                shutil.copy(file, root / libraries, follow_symlinks=False)
        (root / "lib64").mkdir()
        loader = "ld-linux-x86-64.so.2"
        (root / "lib64" / loader).symlink_to(f"/{libraries}/{loader}")
        (root / "lib").symlink_to("usr/lib")
        (root / "usr/bin").mkdir()
        (root / "usr/bin/java").symlink_to("/jre/bin/java")

    roots.derive("java", "", change)


def make_corpus(home: Path, folder: Path) -> dict[str, Path]:
    """Make all programs and roots; returns the roots, of which `build` has the programs.

    Args:
        home: The store of stand-ins.
        folder: A new folder.
    """
    (folder / "roots/gcc").mkdir(parents=True)
    (folder / "project").mkdir()
    made = folder / "roots/gcc" / MADE.lstrip("/")
    made.mkdir()
    make_files(made)
    compile_others(home, folder / "project", made)
    java = compile_java(home, made)
    bases = standins.roots(home, REPOSITORY / "variants.yaml", STAND_INS.values())
    roots = Roots(folder / "roots", made, {name: bases[of] for name, of in STAND_INS.items()})
    roots.derive("build", "busybox", lambda root: shutil.copytree(made, root / MADE.lstrip("/")))
    make_roots(roots)
    make_old(home, roots)
    make_java(java, roots)
    return roots.all


# --- pairs ----------------------------------------------------------------------------------------


def plan(bench: Bench, name: str, root: str) -> Plan:
    """Return a plan: a program in a root."""
    program = PROGRAMS[name]
    files = sorted({file for each in PROGRAMS.values() for file, _ in each.files})
    made = bench.plan(
        f"mkdir -p /out && cp -a {MADE}/. /out",
        run="alpine",
        smoke=program.smoke,
        stage_image=Image(name="build", sources=(APT,)),
        stage_artifacts=tuple(f"/out/{file}" for file in files),
        run_image=Image(name=root, sources=(APT,)),
        run_files=tuple(
            CopiedFile(source=f"/out/{file}", target=place) for file, place in program.files
        ),
        run_cmd=program.cmd,
        run_env=program.env,
    )
    return replace(made, variant=replace(made.variant, program=name, run_image=root))


def subject(bench: Bench, made: Plan, build: Build, image: VariantImage, machine: str) -> Subject:
    """Return what is known of an image before it runs."""
    artifacts = {each.path: each.facts for each in build.artifacts}
    return Subject(
        facts=bench.engine.inspect(image),
        artifact=artifacts[made.run.files[0].source],
        smoke=made.smoke,
        machine=machine,
        run_image=made.run.image.name,
        cmd=image.cmd,
    )
