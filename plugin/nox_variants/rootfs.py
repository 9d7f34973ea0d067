"""What a root filesystem offers to a program; the root is data, and may be hostile.

A root is a stack of folders as overlayfs sees it: a later one wins, whiteouts and opaque folders
hide. Links are followed inside the stack: an absolute one starts again at its top, ``..`` stops
there. This machine's own files are never looked at.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeVar, cast

from nox_variants import ldcache, programfile
from nox_variants.results import FileFacts, Linkage, RootFacts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

T = TypeVar("T")

MOST_LINKS = 40
"""Links followed for one path (path_resolution(7): ELOOP)."""

LONGEST_PATH = 4096
"""What a path may not reach (limits.h, PATH_MAX)."""

LOADERS = (
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux.so.2",
    "/libx32/ld-linux-x32.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-linux-armhf.so.3",
    "/lib/ld-linux.so.3",
    "/lib/ld-linux-riscv64-lp64d.so.1",
    "/lib64/ld-linux-loongarch-lp64d.so.1",
    "/lib64/ld64.so.2",
    "/lib/ld64.so.1",
)
"""Where glibc's loaders are; musl's are ``/lib/ld-musl-MACHINE.so.1``."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where commands are found in an image that does not say so (as Docker does it)."""

BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where programs look for CA certificates (Go, crypto/x509/root_linux.go), in order."""

LD_SO_CACHE = "/etc/ld.so.cache"

_NSSWITCH = "/etc/nsswitch.conf"
_ZONES = "/usr/share/zoneinfo"
_ZONE_FOLDERS = ("Europe", "America", "Asia", "Etc", "")
_ZONE_MAGIC = b"TZif"
_JAVA_FEATURE = 44
"""A Java release takes class files up to its number and this one (JVMS, 4.1)."""

_FOLDERS = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib")
_TRIPLET_PARENTS = ("/lib", "/usr/lib", "/usr/local/lib")
_TRIPLET = re.compile(r"[a-z0-9_]+-linux-[a-z0-9]+")
_MUSL_LOADER = re.compile(r"ld-musl-[\w-]+\.so\.1")
_NSS_MODULE = re.compile(r"libnss_(.+)\.so\.2")
_ANY = re.compile(r"[^.].*")
_GLIBC_RELEASE = re.compile(rb"GNU C Library[^\n\0]{0,200}? release version (\d+(?:\.\d+)+)")
_MUSL_RELEASE = re.compile(rb"\0(\d\.\d{1,2}\.\d{1,2}(?:-git-[\w-]{1,40})?)\0")
_OS_NAME = re.compile(r"^PRETTY_NAME=(.+)$", re.MULTILINE)
_JAVA_RELEASE = re.compile(r"^JAVA_VERSION=\"(?:1\.)?(\d{1,3})\b", re.MULTILINE)
_JAVA_HOMES = (("/usr/lib/jvm", _ANY), ("/opt/java", _ANY), ("/usr/local", re.compile("openjdk.*")))
_JAVA_PLACES = ("/opt/java/openjdk", "/opt/jre", "/opt/jdk", "/jre", "/jdk", "/usr/java/default")

_MOST_NAMES = 20_000
_MOST_FOLDERS = 200
_MOST_BYTES = 65536
_MOST_LIBC_BYTES = 8 << 20
_MOST_COMPONENTS = 4096
_MOST_KNOWN = 50_000
_MOST_HOMES = 50
_MOST_ZONES = 20
_MOST_MODULES = 100
_LONGEST_OS = 200


def read(lower: tuple[Path, ...]) -> RootFacts:
    """Return what a root offers.

    Args:
        lower: The folders of the root, base first.
    """
    return facts(Root(lower))


def resolve(lower: tuple[Path, ...], path: str) -> Path | None:
    """Return where a path of the root lies on this machine, links followed inside the root.

    Args:
        lower: The folders of the root, base first.
        path: An absolute path of the root.

    Returns:
        The file, or the topmost of the folders that are merged under that path; None when there
        is nothing, also for a cycle of links and for what cannot be read.
    """
    found = Root(lower).find(path)
    return found.path if found else None


def place(lower: tuple[Path, ...], path: str) -> str:
    """Return where a file that is put into a root really gets, links to folders followed.

    Args:
        lower: The folders of the root, base first.
        path: An absolute path of the root; what is above it need not be there.
    """
    root = Root(lower)
    folder, _, name = path.rpartition("/")
    missing = [name]
    while folder and (found := root.find(folder)) is None:
        folder, _, name = folder.rpartition("/")
        missing.append(name)
    real = found.real if folder and found else ""
    return "/".join([real.rstrip("/"), *reversed(missing)])


@dataclass(frozen=True, slots=True)
class Found:
    """A file or folder of a root.

    Attributes:
        path: Where it lies on this machine; the topmost of merged folders.
        mode: Its type and permissions.
        real: Its path in the root, without links.
        merged: All the folders that are merged into it, the topmost first; empty for a file.
    """

    path: Path
    mode: int
    real: str
    merged: tuple[Path, ...] = ()

    @property
    def regular(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def executable(self) -> bool:
        """Whether it is a regular file that root may execute."""
        return self.regular and bool(self.mode & 0o111)


class Root:
    """A root filesystem; what was found once is not looked for again.

    Args:
        lower: Its folders, base first.
        told: What files say about themselves, by where they lie, where that is known already.
    """

    def __init__(
        self, lower: tuple[Path, ...], told: Mapping[Path, FileFacts] | None = None
    ) -> None:
        self._told = told or {}
        self._top = tuple(reversed(lower))
        self._folders: dict[tuple[Path, str], Found] = {}
        self._known: dict[str, Found | None] = {}
        self._caches: dict[str, Mapping[str, tuple[str, ...]]] = {}

    def find(self, path: str) -> Found | None:
        """Walk a path, one name at a time."""
        if len(path) >= LONGEST_PATH:
            return None
        if path in self._known:
            return self._known[path]
        try:
            found = self._walk(path)
        except (OSError, ValueError):  # ValueError: a null byte in a name
            found = None
        if len(self._known) < _MOST_KNOWN:
            self._known[path] = found
        return found

    def executable(self, path: str) -> bool:
        """Tell whether an absolute path leads to a regular file that may be executed."""
        found = self.find(path) if path.startswith("/") else None
        return found is not None and found.executable

    def names(self, folder: str, pattern: re.Pattern[str]) -> list[str]:
        """Return the names in a folder that fit a pattern, bounded and sorted."""
        found = self.find(folder)
        names = {
            name
            for each in (found.merged if found else ())
            for name in islice(_names(each), _MOST_NAMES)
            if pattern.fullmatch(name)
        }
        return sorted(names)

    def children(self, folder: Found) -> Iterator[tuple[str, Found]]:
        """Yield all that is in a folder, by name; links are not followed."""
        names = {name for each in folder.merged for name in _names(each)}
        for name in sorted(names):
            found = self._look_up(folder, name)
            if found is not None:
                yield name, found

    def data(self, path: str, size: int) -> bytes:
        """Return the beginning of a regular file; empty when there is none."""
        found = self.find(path)
        if found is None or not found.regular:
            return b""
        try:
            with found.path.open("rb") as file:
                return file.read(size)
        except OSError:
            return b""

    def text(self, path: str) -> str:
        """Return the beginning of a regular file as text; empty when there is none."""
        return self.data(path, _MOST_BYTES).decode("utf-8", "replace")

    def facts(self, found: Found) -> FileFacts:
        """Return what a file says about itself; one that cannot be read says nothing."""
        told = self._told.get(found.path) or learnt(found, programfile.read_facts)
        return told or FileFacts(linkage=Linkage.OTHER)

    def cache(self, path: str = LD_SO_CACHE) -> Mapping[str, tuple[str, ...]]:
        """Return the paths of library names in a cache of glibc's loader."""
        if path not in self._caches:
            self._caches[path] = ldcache.parse(self.data(path, ldcache.MOST_BYTES))
        return self._caches[path]

    def _walk(self, path: str) -> Found | None:
        if not self._top:
            return None
        root = Found(self._top[0], stat.S_IFDIR, "/", self._top)
        way, todo, links = [root], _parts(path), 0
        while todo:
            name = todo.pop()
            if not way[-1].merged:
                return None  # a file has no names below it, neither ``..`` nor ``.``
            if name in {"", "."}:
                continue
            if name == "..":
                way = way[:-1] or [root]
                continue
            found = self._look_up(way[-1], name)
            if found is None:
                return None
            if not stat.S_ISLNK(found.mode):
                way.append(found)
                continue
            links += 1
            if links > MOST_LINKS or len(todo) > _MOST_COMPONENTS:
                return None
            target = os.readlink(found.path)  # noqa: PTH115  # the text itself, `..` included
            way = [root] if target.startswith("/") else way
            todo += _parts(target)
        return way[-1]

    def _look_up(self, folder: Found, name: str) -> Found | None:
        """Return what a name means in a folder; folders are merged once."""
        key = folder.path, name
        found = self._folders.get(key) or _look_up(folder, name)
        if found and found.merged:
            self._folders[key] = found
        return found


def learnt(found: Found, read: Callable[[Path], T]) -> T | None:
    """Return what a file says, read once per process; None when it cannot be read.

    Args:
        found: A regular file.
        read: Reads it.
    """
    try:
        status = found.path.stat()
        key = found.path, status.st_mtime_ns, status.st_size, status.st_ino
        return cast("T", _learnt(read, *key))
    except OSError:
        return None


@lru_cache(maxsize=4096)
def _learnt(
    read: Callable[[Path], object], path: Path, _modified: int, _size: int, _inode: int
) -> object:
    return read(path)


def _parts(path: str) -> list[str]:
    """Return a path's names, the first one last."""
    return path.split("/")[::-1]


def _look_up(folder: Found, name: str) -> Found | None:
    """Return what a name means in a merged folder (Linux, overlayfs.rst)."""
    real = f"{folder.real.rstrip('/')}/{name}"
    merged: list[Path] = []
    for each in folder.merged:
        path = each / name
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            if merged or _is_whiteout(status):
                break
            return Found(path, status.st_mode, real)
        merged.append(path)
        if _is_opaque(path):
            break
    return Found(merged[0], stat.S_IFDIR, real, tuple(merged)) if merged else None


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(folder: Path) -> bool:
    try:
        return any(
            os.getxattr(folder, name) == b"y"
            for name in os.listxattr(folder)
            if name in {"user.overlay.opaque", "trusted.overlay.opaque"}
        )
    except (OSError, AttributeError):  # AttributeError: not Linux, where no overlayfs is either
        return False


def _names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as scan:
            yield from (entry.name for entry in scan)
    except OSError:
        return


# --- what it offers -------------------------------------------------------------------------------


def facts(root: Root, path: str = PATH) -> RootFacts:
    """Return what a root offers.

    Args:
        root: The root.
        path: ``PATH`` of the program's environment.
    """
    musl = [f"/lib/{name}" for name in root.names("/lib", _MUSL_LOADER)]
    loaders = [each for each in (*LOADERS, *musl) if root.executable(each)]
    return RootFacts(
        loaders=frozenset(loaders),
        libc=_libc(root, loaders),
        os=_os(root),
        shell=root.executable("/bin/sh"),
        certificates=next((each for each in BUNDLES if root.data(each, 1)), ""),
        timezones=_has_zones(root),
        users=frozenset(_users(root)),
        hosts=services(root, "hosts"),
        nss=frozenset(_nss_modules(root)),
        java=_java(root, path),
    )


def services(root: Root, database: str = "") -> tuple[str, ...]:
    """Return the services that nsswitch.conf(5) names, in order, each once.

    Args:
        root: The root.
        database: ``hosts``; by default of all databases.
    """
    found: dict[str, None] = {}
    for line in root.text(_NSSWITCH).splitlines():
        name, _, words = line.partition("#")[0].partition(":")
        if database in {"", name.strip()}:
            found.update(dict.fromkeys(re.sub(r"\[[^\]]*\]", " ", words).split()))
    return tuple(found)


def _libc(root: Root, loaders: list[str]) -> str:
    """Return libc and version; where there are two, glibc: the other one came as a package."""
    for loader in map(root.find, loaders):
        if loader is None:
            continue
        folder, _, name = loader.real.rpartition("/")
        if name.startswith(("ld-musl", "libc.")):
            return f"musl {learnt(loader, _musl_release) or ''}".rstrip()
        paths = (f"{each}/libc.so.6" for each in (folder, *_library_folders(root)))
        libc = next((each for each in map(root.find, paths) if each and each.regular), None)
        if libc:
            return f"glibc {learnt(libc, _glibc_release) or ''}".rstrip()
    return "glibc" if loaders else ""


def _glibc_release(path: Path) -> str:
    return _release(path, _GLIBC_RELEASE)


def _musl_release(path: Path) -> str:
    return _release(path, _MUSL_RELEASE)


def _release(path: Path, pattern: re.Pattern[bytes]) -> str:
    with path.open("rb") as file:
        match = pattern.search(file.read(_MOST_LIBC_BYTES))
    return match[1].decode() if match else ""


def _os(root: Root) -> str:
    text = root.text("/etc/os-release") or root.text("/usr/lib/os-release")
    match = _OS_NAME.search(text)
    name = match[1].strip().strip("\"'") if match else ""
    return "".join(filter(str.isprintable, name))[:_LONGEST_OS]


def _has_zones(root: Root) -> bool:
    paths = (
        f"{folder}/{name}"
        for folder in (f"{_ZONES}/{each}".rstrip("/") for each in _ZONE_FOLDERS)
        for name in root.names(folder, _ANY)[:_MOST_ZONES]
    )
    return any(root.data(path, len(_ZONE_MAGIC)) == _ZONE_MAGIC for path in paths)


def _users(root: Root) -> Iterator[str]:
    for line in root.text("/etc/passwd").splitlines():
        name, colon, _ = line.partition(":")
        if name and colon:
            yield name


def _nss_modules(root: Root) -> Iterator[str]:
    """Yield the modules in folders of libraries and in the loader's cache that are really there."""
    folders = dict.fromkeys(islice(_library_folders(root), _MOST_FOLDERS))
    listed = (
        (name, f"{folder}/{name}")
        for folder in folders
        if root.find(folder)
        for name in root.names(folder, _NSS_MODULE)[:_MOST_MODULES]
    )
    cached = ((name, path) for name, paths in root.cache().items() for path in paths)
    for name, path in chain(listed, cached):
        match = _NSS_MODULE.fullmatch(name)
        found = root.find(path) if match else None
        if match and found and found.regular:
            yield match[1]


def _library_folders(root: Root) -> Iterator[str]:
    yield from _FOLDERS
    for parent in _TRIPLET_PARENTS:
        yield from (f"{parent}/{name}" for name in root.names(parent, _TRIPLET))


def _java(root: Root, path: str) -> int:
    """Return what the Java on `PATH` takes, else the newest one in its usual places."""
    for folder in path.split(":"):
        found = root.find(f"{folder}/java")
        if found and found.executable:
            home = found.real.removesuffix("/bin/java")
            if version := max(_java_of(root, home), _java_of(root, home.removesuffix("/jre"))):
                return version
    homes = [
        f"{folder}/{name}"
        for folder, pattern in _JAVA_HOMES
        for name in root.names(folder, pattern)[:_MOST_HOMES]
    ]
    return max(_java_of(root, home) for home in (*homes, *_JAVA_PLACES))


def _java_of(root: Root, home: str) -> int:
    match = _JAVA_RELEASE.search(root.text(f"{home}/release"))
    return int(match[1]) + _JAVA_FEATURE if match else 0
