"""What a dynamic loader looks for, and where: as glibc's and musl's do it, without running them.

Both load breadth first: what the program needs, then what that needs. They differ in where they
look and in what they check. Which of them a loader is, and which folders it looks in by default, is
read out of the loader itself.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from nox_variants import rootfs
from nox_variants.results import Library, Linkage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from nox_variants.model import Pairs
    from nox_variants.results import FileFacts
    from nox_variants.rootfs import Found, Root

_MOST_OBJECTS = 512
_MOST_LOOKS = 20_000
_MOST_VERSIONS = 50_000
_MOST_FOLDERS = 512
_MOST_DEFAULTS = 16
_LOADER_BYTES = 4 << 20
_LONGEST_NAME = 255

_MUSL_WORDS = re.compile(rb"musl libc|/lib/ld-musl-")
_MUSL_MACHINE = re.compile(r"ld-musl-([\w-]+)\.so")
_MUSL_SELF = re.compile(r"lib(c|pthread|rt|m|dl|util|xnet)\.")
_MUSL_FOLDERS = ("/lib", "/usr/local/lib", "/usr/lib")
_GLIBC_CACHE = re.compile(rb"\0(/[!-~]{0,200}/ld\.so\.cache)\0")
_GLIBC_FOLDERS = re.compile(rb"(?:/[!-~]{0,200}lib[!-~]{0,200}/\0)+")
_FALLBACK = {64: ("/lib64", "/usr/lib64", "/lib", "/usr/lib"), 32: ("/lib", "/usr/lib")}
_LEVEL = re.compile(r"[\w-]+")
_TOKEN = re.compile(r"\$(?:(ORIGIN|LIB|PLATFORM)(?!\w)|\{(ORIGIN|LIB|PLATFORM)\})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a loader found: how a program starts.

    Attributes:
        libraries: All that was looked for.
        imports: Of :data:`elf.WATCHED`, what the program and its libraries take from others.
        truncated: Whether a bound ended the search.
    """

    libraries: tuple[Library, ...] = ()
    imports: tuple[str, ...] = ()
    truncated: bool = False


@dataclass(eq=False, slots=True, kw_only=True)
class _Object:
    """A file that was loaded.

    Attributes:
        path: In the root, as it was opened.
        origin: The folder that ``$ORIGIN`` stands for.
        facts: What it says about itself.
        file: Where its bytes are: what it is known by.
        parent: What needed it first.
    """

    path: str
    origin: str
    facts: FileFacts
    file: Path
    parent: _Object | None = None


class _TooMuchError(Exception):
    """A bound ended the search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is loaded.

    Attributes:
        path: As it was executed; what its libraries are said to be needed by.
        found: Its file.
        facts: What it says about itself.
        env: Its environment.
        workdir: Where it starts.
    """

    path: str
    found: Found
    facts: FileFacts
    env: Pairs
    workdir: str


def load(root: Root, program: Program, found: Found) -> Loaded:
    """Return what the loader of a dynamic program finds.

    A loader that is neither glibc's nor musl's is not known well enough: it finds nothing, and the
    search counts as ended too early.

    Args:
        root: Where both are.
        program: The program.
        found: Its loader.
    """
    habits = rootfs.learnt(found, _habits) or _Habits()
    if program.facts.linkage is Linkage.MUSL_DYNAMIC or habits.musl:
        return _Musl(root, program, found).load()
    if program.facts.linkage is Linkage.GLIBC_DYNAMIC:
        return _Glibc(root, program, found, habits).load()
    return Loaded(truncated=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Habits:
    """What a loader's own bytes say.

    Attributes:
        musl: Whether it is musl's, or calls that; nothing else is read then.
        folders: The folders that it looks in by default; empty when it does not say.
        cache: Its cache.
    """

    musl: bool = False
    folders: tuple[str, ...] = ()
    cache: str = rootfs.LD_SO_CACHE


def _habits(path: Path) -> _Habits:
    with path.open("rb") as file:
        data = file.read(_LOADER_BYTES)
    if _MUSL_WORDS.search(data):
        return _Habits(musl=True)
    lists = (match.group() for match in _GLIBC_FOLDERS.finditer(data))
    longest = max(lists, key=lambda each: each.count(b"\0"), default=b"")
    folders = [each.rstrip(b"/").decode() for each in longest.split(b"\0") if each]
    cache = _GLIBC_CACHE.search(data)
    return _Habits(
        folders=tuple(dict.fromkeys(folders[:_MOST_DEFAULTS])),
        cache=cache[1].decode() if cache else rootfs.LD_SO_CACHE,
    )


class _Loader(ABC):
    """What both loaders do alike."""

    def __init__(self, root: Root, program: Program, found: Found) -> None:
        self.root = root
        self.program = program
        self.env = dict(program.env)
        self.main = _Object(
            path=program.path,
            origin=_folder(program.found.real),
            facts=program.facts,
            file=program.found.path,
        )
        path = program.facts.interpreter
        self.itself = _Object(
            path=path, origin=_folder(path), facts=root.facts(found), file=found.path
        )
        self.objects = [self.main, self.itself]
        self.names: dict[str, _Object | None] = {path: self.itself}
        self.sonames = {each.facts.soname: each for each in reversed(self.objects)}
        self.libraries: dict[tuple[str, str], Library] = {}
        self._files = {each.file: each for each in self.objects}
        self._looks = 0

    def load(self) -> Loaded:
        """Load breadth first, then check versions."""
        truncated = False
        try:
            for each in self._breadth_first():
                for name in each.facts.needed:
                    self._need(name, each)
            self.check_versions()
        except _TooMuchError:
            truncated = True
        own = [each for each in self.objects if each is not self.itself]
        return Loaded(
            libraries=tuple(self.libraries.values()),
            imports=tuple(sorted({name for each in own for name in each.facts.imports})),
            truncated=truncated,
        )

    def _breadth_first(self) -> Iterator[_Object]:
        """Yield what is loaded, and what gets loaded meanwhile."""
        yield self.main
        at = 2
        while at < len(self.objects):
            yield self.objects[at]
            at += 1

    def _need(self, name: str, by: _Object) -> None:
        self._look()
        if name in self.names:
            return
        searched: list[str] = []
        found = self.loaded(name) or self._open(name, by, searched)
        self.names[name] = found
        self.libraries[name, by.path] = Library(
            name=name,
            needed_by=by.path,
            path=found.path if found else "",
            searched=tuple(dict.fromkeys(searched)),
        )

    def _open(self, name: str, by: _Object, searched: list[str]) -> _Object | None:
        """Look for what is not loaded yet; note the folders that were looked at."""
        for path in self._paths(name, by, searched):
            self._look()
            found = self.root.find(path)
            taken = self.takes(self.root.facts(found)) if found and found.regular else None
            if found and taken is not None:
                return self._map(path, found, by) if taken else None
        return None

    def _look(self) -> None:
        self._looks += 1
        if self._looks > _MOST_LOOKS:
            raise _TooMuchError

    def _map(self, path: str, found: Found, by: _Object) -> _Object:
        """Return what is made of a file; the same file is loaded once."""
        if found.path in self._files:
            return self._files[found.path]
        if len(self.objects) >= _MOST_OBJECTS:
            raise _TooMuchError
        path = self._plain(path)
        facts = self.root.facts(found)
        made = _Object(path=path, origin=_folder(path), facts=facts, file=found.path, parent=by)
        self._files[found.path] = made
        self.sonames.setdefault(facts.soname, made)
        self.objects.append(made)
        return made

    def _paths(self, name: str, by: _Object, searched: list[str]) -> Iterator[str]:
        if "/" in name:
            yield self._absolute(self.expand_name(name, by))
        elif 0 < len(name) <= _LONGEST_NAME:
            for folder, paths in self.places(name, by):
                searched.append(folder)
                yield from paths

    def _plain(self, path: str) -> str:
        """Return a path without ``..``."""
        folder, _, name = path.rpartition("/")
        found = self.root.find(folder) if ".." in folder.split("/") else None
        return f"{found.real.rstrip('/')}/{name}" if found else path

    def _absolute(self, path: str) -> str:
        """Return a path from the top of the root; it is relative to the working directory."""
        folder = "" if path.startswith("/") else self.program.workdir.strip("/") + "/"
        return "/" + (folder + path).lstrip("/")

    def within(self, name: str, folders: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield folders, each with the path of a library in it."""
        for folder in islice(folders, _MOST_FOLDERS):
            if len(folder) >= rootfs.LONGEST_PATH:
                continue
            path = self._absolute(folder).rstrip("/")
            yield path or "/", [f"{path}/{name}"]

    def fits(self, facts: FileFacts) -> bool:
        """Tell whether a file is for the program's word size and machine."""
        return (facts.bits, facts.machine) == (self.main.facts.bits, self.main.facts.machine)

    @abstractmethod
    def loaded(self, name: str) -> _Object | None:
        """Return what has been loaded by that name."""

    @abstractmethod
    def places(self, name: str, by: _Object) -> Iterator[tuple[str, list[str]]]:
        """Yield folders, in order, each with the paths that are tried there."""

    @abstractmethod
    def takes(self, facts: FileFacts) -> bool | None:
        """Tell whether a file is loaded; None where the search goes on although it is there."""

    def expand_name(self, name: str, by: _Object) -> str:  # noqa: ARG002  # by those that do
        """Return the path that a name with a slash stands for."""
        return name

    def check_versions(self) -> None:  # noqa: B027  # not every loader does
        """Note which versions are not defined."""


class _Glibc(_Loader):
    """glibc's loader (elf/dl-load.c, `_dl_map_object`; ld.so(8))."""

    def __init__(self, root: Root, program: Program, found: Found, habits: _Habits) -> None:
        super().__init__(root, program, found)
        self._folders = habits.folders or _FALLBACK[program.facts.bits or 64]
        self._cache = root.cache(habits.cache)
        self._env = re.split("[:;]", text) if (text := self.env.get("LD_LIBRARY_PATH")) else []

    def loaded(self, name: str) -> _Object | None:
        """Compare the names that it was asked for by, and DT_SONAME."""
        return self.names.get(name) or (self.sonames.get(name) if name else None)

    def places(self, name: str, by: _Object) -> Iterator[tuple[str, list[str]]]:
        """Look at DT_RPATH, LD_LIBRARY_PATH, DT_RUNPATH, the cache, and the default folders."""
        for each in () if by.facts.runpath else _chain(by):
            yield from self._within(name, each.facts.rpath, each)
        yield from self._within(name, self._env, self.main)
        yield from self._within(name, by.facts.runpath, by)
        for path in self._cache.get(name, ()):
            yield _folder(path), [path]
        yield from self._within(name, self._folders, self.main)

    def _within(
        self, name: str, folders: Iterable[str], by: _Object
    ) -> Iterator[tuple[str, list[str]]]:
        """Look in the folders for some processors last: which one this will be, nobody knows."""
        for folder, paths in self.within(name, (self._expand(each, by) for each in folders)):
            special = f"{folder.rstrip('/')}/glibc-hwcaps"
            levels = self.root.names(special, _LEVEL) if self.root.find(special) else []
            more = [f"{special}/{level}/{name}" for level in reversed(levels)]
            yield folder, [*paths, *more]

    def _expand(self, text: str, by: _Object) -> str:
        """Put in ``$ORIGIN``, ``$LIB`` and ``$PLATFORM``."""
        library = self._folders[0].removeprefix("/usr").strip("/")
        return _expanded(text, by.origin, library, self.main.facts.machine)

    def expand_name(self, name: str, by: _Object) -> str:
        """Put in what is put into folders too."""
        return self._expand(name, by)

    def takes(self, facts: FileFacts) -> bool | None:
        """Go on behind a file for another word size or machine (`open_verify`).

        One that is no ELF file at all is taken: it ends the program, but it is there.
        """
        return True if self.fits(facts) or not facts.machine else None

    def check_versions(self) -> None:
        """Look for each version in a library that defines some; weak ones need not be there.

        See elf/dl-version.c.
        """
        required = ((by, *each) for by in self.objects for each in by.facts.requires)
        for number, (by, name, version) in enumerate(required):
            if number >= _MOST_VERSIONS:
                raise _TooMuchError
            found = self.loaded(name)
            if found and found.facts.defines and version not in found.facts.defines:
                blank = Library(name=name, needed_by=by.path, path=found.path)
                known = self.libraries.get((name, by.path), blank)
                undefined = (*known.undefined, version)
                self.libraries[name, by.path] = replace(known, undefined=undefined)


class _Musl(_Loader):
    """musl's loader (ldso/dynlink.c, `load_library`). It checks no versions."""

    def loaded(self, name: str) -> _Object | None:
        """Take itself for the libraries that it is, and compare names; it knows no DT_SONAME."""
        return self.itself if _MUSL_SELF.match(name) else self.names.get(name)

    def places(self, name: str, by: _Object) -> Iterator[tuple[str, list[str]]]:
        """Look at LD_LIBRARY_PATH, the folders of all that led here, and the default ones."""
        yield from self.within(name, _split(self.env.get("LD_LIBRARY_PATH", "")))
        for each in _chain(by):
            folders = each.facts.runpath or each.facts.rpath
            yield from self.within(name, _musl_expanded(folders, each.origin))
        yield from self.within(name, self._defaults())

    def _defaults(self) -> Iterable[str]:
        path = self.itself.path
        prefix = path.rsplit("/", 2)[0] if path.startswith("/") else ""
        machine = _MUSL_MACHINE.search(path)
        file = f"{prefix}/etc/ld-musl-{machine[1] if machine else self.main.facts.machine}.path"
        return _split(self.root.text(file)) if self.root.find(file) else _MUSL_FOLDERS

    def takes(self, facts: FileFacts) -> bool | None:
        """End the search at the first file, of whatever kind it is."""
        return self.fits(facts)


@lru_cache(maxsize=1024)
def _expanded(text: str, origin: str, library: str, platform: str) -> str:
    """Put in what glibc's tokens stand for; what is too long for a path is cut off."""
    values = {"ORIGIN": origin, "LIB": library, "PLATFORM": platform}
    return _TOKEN.sub(lambda match: values[match[1] or match[2]], text)[: rootfs.LONGEST_PATH]


@lru_cache(maxsize=1024)
def _musl_expanded(folders: tuple[str, ...], origin: str) -> tuple[str, ...]:
    """Put in ``$ORIGIN``; no folder counts where anything else begins with ``$``."""
    text = ":".join(folders).replace("${ORIGIN}", origin).replace("$ORIGIN", origin)
    return () if "$" in text else tuple(each[: rootfs.LONGEST_PATH] for each in _split(text))


def _chain(each: _Object | None) -> Iterator[_Object]:
    """Yield a file and what led to it, up to the program."""
    while each:
        yield each
        each = each.parent


def _split(text: str) -> list[str]:
    return [each for each in re.split("[:\n]", text) if each]


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "/"
