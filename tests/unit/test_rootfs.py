"""Roots as the kernel sees them, links inside, layers that hide; and what they offer."""

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
    assert rootfs.read(()) == RootFacts()


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
    assert rootfs.resolve((root,), "/" * 4095) == root
    assert rootfs.resolve((root,), "/" * 4096) is None


def test_host_is_never_seen(root: Path) -> None:
    """Neither an absolute link, nor a relative one, nor a path leads out of the root."""
    secret = root.parent / "host" / "secret"
    make(root, f"absolute -> {secret}", "relative -> ../host/secret", "proc -> /proc/self/root")
    make(root, f"folder -> {root.parent}", "bin/sh -> /bin/sh")

    for path in ("/absolute", "/relative", "/folder/host/secret", "/../host/secret", str(secret)):
        assert rootfs.resolve((root,), path) is None
    assert rootfs.read((root,)) == RootFacts()

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


@pytest.mark.parametrize(
    ("entries", "shell"),
    [
        (["bin/sh*"], True),
        (["bin/busybox*", "bin/sh -> busybox"], True),
        (["usr/bin/dash*", "bin -> usr/bin", "usr/bin/sh -> /bin/dash"], True),
        (["bin/sh"], False),
        (["bin/sh/"], False),
        (["bin/sh -> none"], False),
    ],
)
def test_shell(root: Path, entries: list[str], shell: bool) -> None:  # noqa: FBT001
    """A shell is a regular file that can be executed."""
    assert rootfs.read((make(root, *entries),)).shell == shell


@pytest.mark.parametrize("mode", [0o400, 0o644, 0o100, 0o010, 0o001, 0o4755])
def test_any_execute_bit_counts(root: Path, mode: int) -> None:
    """Whoever may execute a file, it is a program; asked for by an absolute path."""
    make(root, "program")
    (root / "program").chmod(mode)

    read = rootfs.Root((root,))

    assert read.executable("/program") == (mode not in {0o400, 0o644})
    assert not read.executable("program")


def test_loaders(root: Path) -> None:
    """Loaders are found where programs look for them, also through links, if they can run."""
    make(root, "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2*", "usr/lib64/", "lib64 -> usr/lib64")
    make(root, "usr/lib64/ld-linux-x86-64.so.2 -> ../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
    make(root, "lib/ld-musl-x86_64.so.1*", "lib/ld-musl-arm.so.1", "lib/ld-linux.so.3")
    make(root, "lib/ld-musl-armhf.so.1 -> gone", "lib/ld-musl-x.so.1.bak*")

    assert rootfs.read((root,)).loaders == {GLIBC, "/lib/ld-musl-x86_64.so.1"}


def write(root: Path, **files: str | bytes) -> Path:
    """Write files: ``etc__passwd`` is /etc/passwd."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return root


BANNER = "\0GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.\n"
MUSL = "lib/ld-musl-x86_64.so.1*"


@pytest.mark.parametrize(
    ("entries", "text", "libc"),
    [
        (["lib64/ld-linux-x86-64.so.2*"], {"lib__libc.so.6": BANNER}, "glibc 2.36"),
        (
            ["lib64/ld-linux-x86-64.so.2 -> /opt/ld.so", "opt/ld.so*", "lib/libc.so.6"],
            {"opt__libc.so.6": BANNER},
            "glibc 2.36",
        ),
        (["lib64/ld-linux-x86-64.so.2*"], {"lib__a-linux-gnu__libc.so.6": "?"}, "glibc"),
        (["lib64/ld-linux-x86-64.so.2*"], {}, "glibc"),
        (["lib64/ld-linux-x86-64.so.2*", MUSL], {"lib__libc.so.6": BANNER}, "glibc 2.36"),
        (["lib64/ld-linux-x86-64.so.2*", MUSL], {}, "musl"),  # gcompat
        ([], {"lib__libc.so.6": BANNER}, ""),
        ([MUSL], {"lib__ld-musl-x86_64.so.1": "\x001.2\0x\x001.2.3\0"}, "musl 1.2.3"),
        ([MUSL], {"lib__ld-musl-x86_64.so.1": "127.0.0.1"}, "musl"),
    ],
)
def test_libc(root: Path, entries: list[str], text: dict[str, str], libc: str) -> None:
    """The libc that programs are started with, and the version that it says it is."""
    assert rootfs.read((write(make(root, *entries), **text),)).libc == libc


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"etc__os-release": 'ID=a\nPRETTY_NAME="Alpine Linux v3.20"\n'}, "Alpine Linux v3.20"),
        ({"usr__lib__os-release": "PRETTY_NAME=Void\n"}, "Void"),
        ({"etc__os-release": "PRETTY_NAME='a\x1b[31mb'"}, "a[31mb"),
        ({"etc__os-release": "PRETTY_NAME=" + "x" * 999}, "x" * 200),
        ({"etc__os-release": "NAME=a"}, ""),
    ],
)
def test_os(root: Path, files: dict[str, str], name: str) -> None:
    """The distribution's name, without its quotes and anything that cannot be printed."""
    assert rootfs.read((write(root, **files),)).os == name


def test_certificates(root: Path) -> None:
    """The first bundle that is a file with something in it, also behind a link."""
    make(root, "etc/ssl/certs/ca-certificates.crt/", "etc/ssl/cert.pem -> ca-bundle.pem")
    write(root, **{"etc__pki__tls__cacert.pem": ""})
    assert rootfs.read((root,)).certificates == ""

    make(root, "etc/ssl/ca-bundle.pem")
    assert rootfs.read((root,)).certificates == "/etc/ssl/ca-bundle.pem"


@pytest.mark.parametrize(
    ("name", "data", "there"),
    [
        ("Europe__Paris", b"TZif2\0", True),
        ("UTC", b"TZif2\0", True),
        ("Europe__Paris", b"Paris", False),
        ("zone.tab", b"TZ", False),
    ],
)
def test_time_zones(root: Path, name: str, data: bytes, there: bool) -> None:  # noqa: FBT001
    """There are time zones where a file of the folder is one (RFC 8536)."""
    write(root, **{f"usr__share__zoneinfo__{name}": data})

    assert rootfs.read((root,)).timezones == there


def test_users(root: Path) -> None:
    """Users are the names of /etc/passwd, whatever else its lines are."""
    lines = "root:x:0:0::/:/bin/sh\napp:x:1\n\n:x:2\nnonsense\n"
    write(root, etc__passwd=lines)

    assert rootfs.read((root,)).users == {"root", "app"}


NSSWITCH = """\
# hosts: never
passwd:   files systemd
hosts:    files mdns4_minimal [NOTFOUND=return !UNAVAIL=continue] dns # more
networks: files
"""


def test_services(root: Path) -> None:
    """Services of a database, or of all, in order and without what is done about them."""
    assert rootfs.read((write(root, **{"etc__nsswitch.conf": NSSWITCH}),)).hosts == (
        *("files", "mdns4_minimal", "dns"),
    )
    read = rootfs.Root((root,))
    assert rootfs.services(read) == ("files", "systemd", "mdns4_minimal", "dns")
    assert rootfs.services(read, "group") == ()


def test_nss_modules(tmp_path: Path) -> None:
    """Modules are found in the loader's folders, across layers, and only where they lead on."""
    lower = make(tmp_path / "0", "lib/libnss_dns.so.2", "lib/libnss_a.so.2", "lib/libnss_x.so.1")
    make(lower, "usr/lib/arm-linux-gnueabihf/libnss_arm.so.2", "usr/lib64/libnss_b.so.2 -> no")
    upper = make(tmp_path / "1", "!lib/libnss_a.so.2", "lib/libnss_c.so.2 -> libnss_dns.so.2")

    assert rootfs.read((lower, upper)).nss == {"dns", "arm", "c"}


OLD, NEW = 'JAVA_VERSION="1.8.0_392"\n', 'OS="Linux"\nJAVA_VERSION="17.0.9"\n'


@pytest.mark.parametrize(
    ("entries", "files", "java"),
    [
        ([], {"usr__lib__jvm__java-17__release": NEW, "usr__lib__jvm__java-8__release": OLD}, 61),
        ([], {"opt__java__openjdk__release": OLD}, 52),
        ([], {"usr__local__openjdk-17__release": NEW, "usr__local__other__release": NEW}, 61),
        (["usr/bin/java*"], {"jre__release": NEW}, 61),
        (
            ["usr/bin/java -> /usr/lib/jvm/8/jre/bin/java", "usr/lib/jvm/8/jre/bin/java*"],
            {"usr__lib__jvm__8__release": OLD, "usr__lib__jvm__17__release": NEW},
            52,
        ),
        (
            ["bin/java -> /home/jdk/bin/java", "home/jdk/bin/java*"],
            {"home__jdk__release": NEW},
            61,
        ),
        (["usr/bin/java*"], {"opt__java__release": "JAVA_VERSION=17"}, 0),
        ([], {"opt__jre__release": 'JAVA_VERSION="99999"'}, 0),
    ],
)
def test_java(root: Path, entries: list[str], files: dict[str, str], java: int) -> None:
    """A Java runtime takes the classes of its release: of the one on PATH, else of the newest."""
    assert rootfs.read((write(make(root, *entries), **files),)).java == java


@pytest.mark.parametrize(
    ("path", "placed"),
    [
        ("/app", "/app"),
        ("/new/lib/x.so", "/new/lib/x.so"),
        ("/lib/x.so", "/usr/lib/x.so"),
        ("/lib/new/x.so", "/usr/lib/new/x.so"),
        ("/lib/link", "/usr/lib/link"),
        ("/lib/../x", "/usr/x"),
        ("/up/x", "/x"),
    ],
)
def test_place(root: Path, path: str, placed: str) -> None:
    """What is put into a root gets where links to folders lead; it replaces a link to a file."""
    make(root, "usr/lib/link -> file", "lib -> usr/lib", "up -> ..")

    assert rootfs.place((root,), path) == placed
    assert rootfs.place((), path) == path


def test_facts_are_read_once(root: Path) -> None:
    """A file that did not change is not read again, in whatever root it is; a new one is."""
    make(root, "script")
    (root / "script").write_text("#!/bin/sh")
    found = rootfs.Root((root,)).find("/script")
    assert found
    first = rootfs.Root((root,)).facts(found)
    (root / "other").write_text("#!/bin/ls")
    (root / "other").rename(root / "script")

    assert rootfs.Root((root,)).facts(found).interpreter == "/bin/ls"
    assert first is not rootfs.Root((root,)).facts(found)
    assert rootfs.Root((root,)).facts(found) is rootfs.Root((root,)).facts(found)


def test_what_cannot_be_read_is_not_there(tmp_path: Path) -> None:
    """A folder that vanished has no names, a file that cannot be read has no text."""
    assert rootfs.Root((tmp_path / "gone",)).names("/", re.compile(".*")) == []
    # A regular file of every process, which nobody may read from its beginning.
    assert rootfs.Root((Path("/proc/self"),)).text("/mem") == ""
    assert rootfs.Root((tmp_path,)).text("/none") == ""
    assert rootfs.Root((tmp_path,)).text("/") == ""


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
