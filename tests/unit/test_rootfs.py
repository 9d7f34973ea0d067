"""Roots as the kernel sees them: links stay inside, layers hide, libraries are found."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import require
from nox_variants import rootfs
from nox_variants.results import RootFacts

if TYPE_CHECKING:
    from collections.abc import Iterator

GLIBC = "/lib64/ld-linux-x86-64.so.2"


def make(folder: Path, *entries: str) -> Path:
    """Make a layer: ``a/`` a folder, ``a`` a file, ``a*`` a program, ``!a`` a whiteout, ``a -> b``.

    A folder ``a/!`` is opaque.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for entry in entries:
        name, _, target = entry.partition(" -> ")
        path = folder / name.strip("!*")
        path.parent.mkdir(parents=True, exist_ok=True)
        if target:
            path.symlink_to(target)
        elif name.startswith("!"):
            whiteout(path)
        elif name.endswith(("/", "/!")):
            path.mkdir(exist_ok=True)
            if name.endswith("!"):
                opaque(path)
        else:
            path.write_text(name)
            path.chmod(0o755 if name.endswith("*") else 0o644)
    return folder


def whiteout(path: Path) -> None:
    """Make what overlayfs takes for "nothing is here"."""
    try:
        os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
    except PermissionError as error:
        require("whiteouts", f"this machine makes no whiteouts: {error}")


def opaque(path: Path) -> None:
    """Make a folder hide what is below it."""
    try:
        os.setxattr(path, "user.overlay.opaque", b"y")
    except OSError as error:
        require("whiteouts", f"this machine makes no opaque folders: {error}")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where a test's only layer goes; beside it, the host's own files."""
    make(tmp_path / "host", "secret*")
    return tmp_path / "root"


def test_plain_paths(root: Path) -> None:
    """A path leads to its file or folder, however often it says so."""
    make(root, "usr/bin/true*")

    for path in ("/usr/bin/true", "usr/bin/true", "//usr/./bin/../bin//true"):
        assert rootfs.resolve((root,), path) == root / "usr/bin/true"
    assert rootfs.resolve((root,), "/usr/bin/") == root / "usr/bin"
    assert rootfs.resolve((root,), "/") == root


@pytest.mark.parametrize(
    "path",
    ["/none", "/none/..", "/file/", "/file/.", "/file/..", "/file/x", "/a\0b", "/" + "x" * 300],
)
def test_nothing_there(root: Path, path: str) -> None:
    """A path that the kernel would refuse leads nowhere."""
    make(root, "file")

    assert rootfs.resolve((root,), path) is None


def test_no_layers() -> None:
    """The empty root, `scratch`, has nothing, and offers nothing."""
    assert rootfs.resolve((), "/") is None
    assert rootfs.read((), ("/bin/sh",)) == RootFacts()


@pytest.mark.parametrize(
    "link",
    [
        "b/link -> ../a/file",
        "b/link -> /a/file",
        "b/link -> ../../../../a/file",
        "b/link -> /../a/./file",
        "b/link -> ../c/file",
        "b/link -> up/a/file",
    ],
)
def test_links(root: Path, link: str) -> None:
    """Links are followed from where they stand, or from the top of the root, and no further up."""
    make(root, "a/file", "b/", "c -> a", "b/up -> ..", link)

    assert rootfs.resolve((root,), "/b/link") == root / "a/file"


def test_parent_of_a_link_is_its_target_s(root: Path) -> None:
    """`..` behind a link to a folder goes up from the folder, as the kernel does."""
    make(root, "x/y/", "x/file", "file", "link -> x/y")

    assert rootfs.resolve((root,), "/link/../file") == root / "x/file"


@pytest.mark.parametrize("link", ["link -> link", "link -> a/../link", "link -> other"])
def test_cycles(root: Path, link: str) -> None:
    """A cycle of links leads nowhere."""
    make(root, "a/", "other -> link", link)

    assert rootfs.resolve((root,), "/link") is None


def test_forty_links(root: Path) -> None:
    """Forty links are followed, as the kernel does, and not one more."""
    make(root, "link0", *(f"link{number + 1} -> link{number}" for number in range(41)))

    assert rootfs.resolve((root,), "/link40") == root / "link0"
    assert rootfs.resolve((root,), "/link41") is None


def test_long_ways_are_bounded(root: Path) -> None:
    """Links that make a way ever longer are given up on before it takes long."""
    up = "/.." * 1300
    make(root, "link0 -> /", *(f"link{number + 1} -> link{number}{up}" for number in range(5)))

    assert rootfs.resolve((root,), "/link3") == root
    assert rootfs.resolve((root,), "/link5") is None


def test_host_is_never_seen(root: Path) -> None:
    """Neither an absolute link, nor a relative one, nor a path leads out of the root."""
    secret = root.parent / "host" / "secret"
    make(root, f"absolute -> {secret}", "relative -> ../host/secret", "proc -> /proc/self/root")
    make(root, f"folder -> {root.parent}", "bin/sh -> /bin/sh")

    for path in ("/absolute", "/relative", "/folder/host/secret", "/../host/secret", str(secret)):
        assert rootfs.resolve((root,), path) is None
    assert rootfs.read((root,), ("/absolute", "/relative")) == RootFacts()

    make(root, "host/secret", f"{secret.relative_to('/')}")

    assert rootfs.resolve((root,), "/relative") == root / "host/secret"
    assert rootfs.resolve((root,), "/absolute") == root / secret.relative_to("/")


def test_layers(tmp_path: Path) -> None:
    """A later layer wins, folders merge, links lead through all layers."""
    lower = make(tmp_path / "0", "etc/a", "etc/b", "usr/lib/libc.so", "lib -> usr/lib", "x", "d/y")
    upper = make(tmp_path / "1", "etc/b", "etc/c", "lib64 -> lib", "x/", "d")
    stack = (lower, upper)

    assert rootfs.resolve(stack, "/etc/a") == lower / "etc/a"
    assert rootfs.resolve(stack, "/etc/b") == upper / "etc/b"
    assert rootfs.resolve(stack, "/etc/c") == upper / "etc/c"
    assert rootfs.resolve(stack, "/etc") == upper / "etc"
    assert rootfs.resolve(stack, "/lib64/libc.so") == lower / "usr/lib/libc.so"
    assert rootfs.resolve(stack, "/x") == upper / "x"
    assert rootfs.resolve(stack, "/d") == upper / "d"
    assert rootfs.resolve(stack, "/d/y") is None


def test_whiteouts(tmp_path: Path) -> None:
    """A whiteout hides what is below it, and nothing above."""
    lower = make(tmp_path / "0", "a/file", "b/file", "c")
    middle = make(tmp_path / "1", "!a", "!b/file", "!c")
    upper = make(tmp_path / "2", "a/new", "c")

    assert rootfs.resolve((lower, middle), "/a") is None
    assert rootfs.resolve((lower, middle), "/b/file") is None
    assert rootfs.resolve((lower, middle), "/b") == middle / "b"
    assert rootfs.resolve((lower, middle, upper), "/a/new") == upper / "a/new"
    assert rootfs.resolve((lower, middle, upper), "/a/file") is None
    assert rootfs.resolve((lower, middle, upper), "/c") == upper / "c"


def test_opaque_folders(tmp_path: Path) -> None:
    """An opaque folder hides the folders below it, and another attribute does not."""
    lower = make(tmp_path / "0", "a/old", "b/old")
    upper = make(tmp_path / "1", "a/!", "a/new", "b/new")
    os.setxattr(upper / "b", "user.overlay.opaque", b"n")

    assert rootfs.resolve((lower, upper), "/a/new") == upper / "a/new"
    assert rootfs.resolve((lower, upper), "/a/old") is None
    assert rootfs.resolve((lower, upper), "/b/old") == lower / "b/old"
    assert not rootfs._is_opaque(tmp_path / "gone")


def test_interpreters_and_shell(root: Path) -> None:
    """What can be executed is a regular file with an execute bit, asked for by an absolute path."""
    make(root, "bin/busybox*", "bin/sh -> busybox", "bin/plain", "bin/folder/", "bin/lost -> none")
    asked = ("/bin/sh", "bin/sh", "/bin/busybox", "/bin/plain", "/bin/folder", "/bin/lost", "/bin/")

    facts = rootfs.read((root,), asked)

    assert facts.shell
    assert facts.interpreters == {"/bin/sh", "/bin/busybox"}
    assert not rootfs.read((make(root.parent / "other", "bin/sh"),)).shell


@pytest.mark.parametrize("mode", [0o400, 0o644, 0o100, 0o010, 0o001, 0o4755])
def test_any_execute_bit_counts(root: Path, mode: int) -> None:
    """Whoever may execute a file, it is a program."""
    make(root, "program")
    (root / "program").chmod(mode)

    facts = rootfs.read((root,), ("/program",))

    assert ("/program" in facts.interpreters) == (mode not in {0o400, 0o644})


def test_loaders(root: Path) -> None:
    """Loaders are found where programs look for them, also through links, if they can run."""
    make(root, "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2*", "usr/lib64/", "lib64 -> usr/lib64")
    make(root, "usr/lib64/ld-linux-x86-64.so.2 -> ../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    make(root, "lib/ld-musl-x86_64.so.1*", "lib/ld-musl-arm.so.1", "lib/ld-linux.so.3")
    make(root, "lib/ld-musl-armhf.so.1 -> gone", "lib/ld-musl-x.so.1.bak*")

    assert rootfs.read((root,)).loaders == {GLIBC, "/lib/ld-musl-x86_64.so.1"}


def test_libraries_of_default_folders(root: Path) -> None:
    """Libraries are found in the loader's folders and in those of the architecture, by name."""
    make(root, "lib/libc.so.6", "usr/lib/x86_64-linux-gnu/libz.so.1 -> libz.so.1.2")
    make(root, "usr/lib/x86_64-linux-gnu/libz.so.1.2", "usr/local/lib/libmine.so")
    make(root, "lib/arm-linux-gnueabihf/libarm.so", "lib64/libc.a", "lib64/lost.so -> none")
    make(root, "lib64/folder.so/", "opt/lib/libopt.so", "lib/x86_64-other-gnu/libother.so")

    libraries = rootfs.read((root,)).libraries

    assert libraries == {"libc.so.6", "libz.so.1", "libz.so.1.2", "libmine.so", "libarm.so"}


def test_libraries_of_configured_folders(root: Path) -> None:
    """Folders of ld.so.conf, of what it includes and of musl's path file are looked at too."""
    for name in ("a", "b", "c", "d", "e", "f"):
        make(root, f"opt/{name}/lib{name}.so")
    make(root, "etc/ld.so.conf.d/")
    files = {
        "ld.so.conf": "include /etc/ld.so.conf.d/*.conf\n# /opt/f\n /opt/a # mine\nopt/f\n",
        "ld.so.conf.d/local.conf": "/opt/b\n",
        "ld.so.conf.d/local.conf.bak": "/opt/f\n",
        "ld-musl-x86_64.path": "/opt/c:/opt/d\n/opt/e\n",
    }
    for name, text in files.items():
        (root / "etc" / name).write_text(text)

    assert rootfs.read((root,)).libraries == {f"lib{name}.so" for name in "abcde"}


def test_configuration_is_bounded(root: Path) -> None:
    """A configuration with too many folders, or too many bytes, is read as far as the bounds."""
    make(root, "opt/1/libnear.so", "opt/300/libfar.so", "opt/x/libdeep.so", "etc/")
    (root / "etc/ld.so.conf").write_text("".join(f"/opt/{number}\n" for number in range(301)))
    assert rootfs.read((root,)).libraries == {"libnear.so"}

    (root / "etc/ld.so.conf").write_text("/opt/1\n" + "#" * 65536 + "\n/opt/x\n")
    assert rootfs.read((root,)).libraries == {"libnear.so"}


def test_folders_are_listed_across_layers(tmp_path: Path) -> None:
    """Libraries of all layers count, those that a whiteout hides do not."""
    lower = make(tmp_path / "0", "lib/liba.so", "lib/libb.so", "lib/x86_64-linux-gnu/libc.so")
    upper = make(tmp_path / "1", "!lib/liba.so", "lib/libd.so", "!lib/x86_64-linux-gnu")

    assert rootfs.read((lower, upper)).libraries == {"libb.so", "libd.so"}


def test_what_cannot_be_read_is_not_there(tmp_path: Path) -> None:
    """A folder that vanished has no names, a file that cannot be read has no text."""
    assert rootfs._Root((tmp_path / "gone",)).names("/", re.compile(".*")) == []
    # A regular file of every process, which nobody may read from its beginning.
    assert rootfs._Root((Path("/proc/self"),)).text("/mem") == ""
    assert rootfs._Root((tmp_path,)).text("/none") == ""
    assert rootfs._Root((tmp_path,)).text("/") == ""


FILES = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For examples that are files: a busy disk is no failure."""

NAMES = st.sampled_from(["a", "b", "c"])
WORDS = st.sampled_from(["a", "b", "c", "..", ".", "", "host", "secret"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
WAYS = st.lists(WORDS, min_size=1, max_size=6).map("/".join)
TARGETS = (WAYS | WAYS.map("/{}".format)).filter(bool)


@st.composite
def trees(draw: st.DrawFn, *extra: str) -> tuple[str, ...]:
    """Draw the entries of a layer, as `make` takes them; some kinds beyond folder and file."""
    kinds: dict[str, str] = {}
    for path in draw(st.lists(PATHS, max_size=8)):
        above = {kinds.get(path[:at], "{}/") for at in (1, 3) if at < len(path)}
        below = any(other.startswith(f"{path}/") for other in kinds)
        if above <= {"{}/", "{}/!"} and not below:
            kinds[path] = draw(st.sampled_from(["{}", "{}/", *extra]))
    return tuple(kind.format(path, draw(TARGETS)) for path, kind in kinds.items())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where examples make their trees."""
    return tmp_path_factory.mktemp("rootfs").resolve()


@pytest.fixture(scope="module")
def outside(base: Path) -> str:
    """A folder of the host with the names that the trees use."""
    return str(make(base / "host", "secret", "a", "b/c"))


LINKED = trees("{} -> {}", "{} -> {}")


@FILES
@given(layers=st.lists(LINKED, min_size=1, max_size=3), way=WAYS, to_host=st.booleans())
def test_resolve_stays_inside(
    base: Path,
    outside: str,
    layers: list[tuple[str, ...]],
    way: str,
    to_host: bool,  # noqa: FBT001
) -> None:
    """Whatever links a root holds, a path leads to a real place inside its folders, or nowhere."""
    with tempfile.TemporaryDirectory(dir=base) as folder:
        stack = tuple(
            make(Path(folder, str(number)), *entries) for number, entries in enumerate(layers)
        )
        if to_host:
            make(stack[-1], f"host -> {outside}")

        found = rootfs.resolve(stack, f"/{way}")

        assert found is None or any(found.is_relative_to(layer) for layer in stack)
        assert found is None or found.resolve() == found


@FILES
@given(tree=LINKED, way=WAYS)
def test_resolve_as_the_kernel_does(base: Path, tree: tuple[str, ...], way: str) -> None:
    """In one layer, a path leads where openat2(2) says that it does inside that root."""
    with tempfile.TemporaryDirectory(dir=base) as folder:
        root = make(Path(folder), *tree)

        assert rootfs.resolve((root,), f"/{way}") == kernel_resolve(root, f"/{way}")


def kernel_resolve(root: Path, path: str) -> Path | None:
    """Return where a path leads inside a root, from the kernel itself."""
    libc = ctypes.CDLL(None, use_errno=True)
    how = struct.pack("QQQ", os.O_PATH | os.O_CLOEXEC, 0, 0x10)  # RESOLVE_IN_ROOT
    folder = os.open(root, os.O_PATH)
    try:
        file = -errno.EAGAIN
        while file == -errno.EAGAIN:  # something was renamed somewhere meanwhile
            file = libc.syscall(437, folder, path.encode(), how, len(how))
            file = file if file >= 0 else -ctypes.get_errno()
    finally:
        os.close(folder)
    if file in {-errno.ENOSYS, -errno.EPERM}:
        require("openat2", "this machine has no openat2(2)")
    if file < 0:
        return None
    try:
        return Path(f"/proc/self/fd/{file}").readlink()
    finally:
        os.close(file)


@FILES
@given(layers=st.lists(trees("!{}", "{}/!"), min_size=1, max_size=4))
def test_layers_as_if_applied(base: Path, layers: list[tuple[str, ...]]) -> None:
    """A stack looks as if each layer had been unpacked upon the ones before."""
    with tempfile.TemporaryDirectory(dir=base) as folder:
        stack = []
        seen: dict[str, Path] = {}
        for number, entries in enumerate(layers):
            stack.append(make(Path(folder, str(number)), *entries))
            unpack(stack[-1], seen)

        for path in every_path():
            assert rootfs.resolve(tuple(stack), f"/{path}") == seen.get(path)


def unpack(layer: Path, seen: dict[str, Path]) -> None:
    """Apply a layer to what is seen: where each path's file, or topmost folder, is."""
    for path in every_path():
        new, old = layer / path, seen.get(path)
        if not os.path.lexists(new):
            continue
        hides = not new.is_dir() or "user.overlay.opaque" in os.listxattr(new)
        if hides or (old is not None and not old.is_dir()):
            for hidden in [other for other in seen if f"{other}/".startswith(f"{path}/")]:
                del seen[hidden]
        if not new.is_char_device():
            seen[path] = new


def every_path() -> Iterator[str]:
    """Yield every path that a tree may hold, folders before what is in them."""
    for first in "abc":
        yield first
        for second in "abc":
            yield f"{first}/{second}"
            yield from (f"{first}/{second}/{third}" for third in "abc")
