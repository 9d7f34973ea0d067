"""The values of the file and of the matrix: frozen, hashable, without I/O.

``variants.yaml -> Settings -> Variant -> Plan -> (engine values) -> Record``. Knows nothing of the
package but :mod:`~nox_variants.limits` and :mod:`~nox_variants.registrycache`, and imports
neither os, subprocess, time, nox nor docker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from pathlib import Path

    from nox_variants.limits import Limit
    from nox_variants.registrycache import RegistryCache

Digest = NewType("Digest", str)
"""``sha256:`` and 64 lower-case hex digits (OCI image-spec, descriptor.md)."""

VariantId = NewType("VariantId", str)
"""``PROGRAM(RUN,LINK)``, or ``PROGRAM(RUN,LINK,BUILD)`` with any but the default build image."""

Pairs = tuple[tuple[str, str], ...]
"""An ordered, immutable mapping of strings: environment variables, labels."""


class LinkMode(StrEnum):
    """How the program is asked to be linked."""

    DYNAMIC = "dynamic"
    STATIC = "static"
    MUSL = "musl"


class Verdict(StrEnum):
    """Whether the program works in its run image."""

    WORKS = "works"
    FAILS = "fails"


class Libs(StrEnum):
    """Whether the libraries that a dynamic program needs are copied beside it."""

    NONE = "none"
    BUNDLE = "bundle"


class Need(StrEnum):
    """What a program asks of its image besides libraries: each is tried by a smoke run."""

    CERTIFICATES = "certificates"
    NAMES = "names"
    TIME_ZONES = "time-zones"
    USERS = "users"


class Cause(StrEnum):
    """Why a program fails in its run image. Slugs are stable."""

    BUILD_FAILED = "build-failed"
    MISSING_LOADER = "missing-loader"
    MISSING_LIBRARY = "missing-library"
    LIBC_TOO_OLD = "libc-too-old"
    LIBSTDCXX_TOO_OLD = "libstdcxx-too-old"
    WRONG_ARCHITECTURE = "wrong-architecture"
    MISSING_SHELL = "missing-shell"
    MISSING_INTERPRETER = "missing-interpreter"
    BAD_SHEBANG = "bad-shebang"
    NOT_EXECUTABLE = "not-executable"
    MISSING_CERTIFICATES = "missing-certificates"
    MISSING_TIMEZONE_DATA = "missing-timezone-data"
    NAME_RESOLUTION = "name-resolution"
    MISSING_USER = "missing-user"
    CLASS_VERSION = "class-version"
    EXIT_CODE = "exit-code"
    WRONG_OUTPUT = "wrong-output"
    TIMEOUT = "timeout"
    KILLED_BY_SIGNAL = "killed-by-signal"
    OUT_OF_MEMORY = "out-of-memory"
    PROCESS_LIMIT = "process-limit"
    READ_ONLY_FILESYSTEM = "read-only-filesystem"
    NOT_LISTENING = "not-listening"


class SourceKind(StrEnum):
    """Where an image comes from."""

    REGISTRY = "registry"
    APT = "apt"
    ARCHIVE = "archive"
    SCRATCH = "scratch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A place in a configuration file; line and column count from 1.

    Attributes:
        file: As the user named it.
        line: Counted from 1.
        column: Counted from 1.
        path: Keys and indexes that lead there: ``programs.hello-c.run[2]``.
        text: The line itself, where it is known.
    """

    file: str
    line: int
    column: int
    path: str = ""
    text: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


NOWHERE = Location(file="", line=0, column=0)
"""Where a value stands that no file says."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a configuration file: where, what, and what to do."""

    location: Location
    text: str

    def __str__(self) -> str:
        path = f"{self.location.path}: " if self.location.path else ""
        return f"{self.location}: {path}{self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """One way to get an image.

    Attributes:
        kind: Where it comes from.
        reference: The registry reference, or the archive's path; empty for apt.
        packages: The apt packages to install; empty for others.
        setup: Shell commands run on top, in order.
        unavailable: Why this source can never give the image; empty when it can.
        insecure: Whether its registry is spoken to in plain http.
    """

    kind: SourceKind
    reference: str = ""
    packages: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    unavailable: str = ""
    insecure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of the catalogue or the file, under the name that variants use.

    Attributes:
        name: ``busybox:glibc``.
        sources: In the order in which they are tried: registry, apt, archive.
        env: Environment of the image itself, where its source does not carry one.
        user: Who runs what it starts, where its source does not say so; empty for root.
    """

    name: str
    sources: tuple[ImageSource, ...]
    env: Pairs = ()
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a language builds for one link mode.

    Attributes:
        link: The link mode.
        image: The default build image's name.
        commands: Shell commands, run in the source folder; ``{program}`` already replaced where
            a :class:`Program` holds the recipe.
        env: Environment of the commands.
        install: Shell commands run in the run image, after the artifact was copied there.
    """

    link: LinkMode
    image: str
    commands: tuple[str, ...]
    env: Pairs = ()
    install: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A language of the catalogue or the file: data, not code.

    Attributes:
        name: ``c``.
        recipes: One per link mode that the language has.
        artifact: Absolute path of what is built, a file or a folder, in the build image; with
            ``{program}``.
        cmd: What starts it, where it does not start itself; with ``{artifact}``, ``{program}``.
        strip: A shell command that strips ``{artifact}``; empty where that makes no sense.
        caches: Absolute paths in the build image that are kept between builds.
        static_by_nature: Whether a dynamic build may rightly be static (Go without cgo).
        mismatch_hint: What to do when a static build comes out dynamic.
        only_dynamic: Why other link modes make no sense; empty where they do.
    """

    name: str
    recipes: tuple[Recipe, ...]
    artifact: str
    cmd: tuple[str, ...] = ()
    strip: str = ""
    caches: tuple[str, ...] = ()
    static_by_nature: bool = False
    mismatch_hint: str = ""
    only_dynamic: str = ""

    def recipe(self, link: LinkMode) -> Recipe | None:
        """Return the recipe for a link mode, or None when the language does not have it."""
        return next((recipe for recipe in self.recipes if recipe.link is link), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which variants a rule is about: per axis, glob patterns of which one must match.

    An axis that is None matches everything.
    """

    run: tuple[str, ...] | None = None
    link: tuple[str, ...] | None = None
    build: tuple[str, ...] | None = None
    location: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What is expected of the variants that a selector matches.

    Attributes:
        selector: The variants.
        verdict: The expected verdict.
        cause: The expected cause; None accepts any.
    """

    selector: Selector
    verdict: Verdict
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of the variants that a selector matches; per measure, the last that matches counts."""

    selector: Selector
    limits: tuple[Limit, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """One combination added to the product; ``build`` is None for the default build image."""

    run: str
    link: LinkMode
    build: str | None = None
    libs: Libs = Libs.NONE
    location: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How a program that serves HTTP is tried: one request as soon as it listens, then SIGTERM.

    Attributes:
        port: The TCP port that it listens on, at any address.
        path: The request's path.
        status: The status that counts as success.
        body: The exact body; None accepts any.
        matches: A regular expression (:mod:`re`, ``search``) for the body; None accepts any.
        stop: Seconds that it gets to end after SIGTERM.
    """

    port: int
    path: str = "/"
    status: int = 200
    body: str | None = None
    matches: str | None = None
    stop: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoke:
    """How a variant is smoke-run, and what must come of it.

    Attributes:
        args: Arguments added to the image's command.
        env: Environment added to the image's.
        stdin: Text on standard input; None is an empty standard input.
        stdout: The exact standard output; None accepts any.
        matches: A regular expression (:mod:`re`, ``search``) for standard output; None accepts any.
        exit_code: The exit code that counts as success.
        timeout: Wall time in seconds, after which the whole process tree is killed.
        memory: Of the process tree, and of what it keeps in files of memory, in bytes.
        processes: Processes and threads of the tree.
        output: Bytes kept of standard output and of standard error, each; more is cut off.
        file_size: Bytes that a single file may grow to.
        service: How it is asked, where it is a server.
        needs: What it is known to ask of its image; the run brings what answers.
        repeat: How many times it is run, for medians of its start-up time and peak memory.
    """

    args: tuple[str, ...] = ()
    env: Pairs = ()
    stdin: str | None = None
    stdout: str | None = None
    matches: str | None = None
    exit_code: int = 0
    timeout: float = 10.0
    memory: int = 512 * 1024 * 1024
    processes: int = 128
    output: int = 1024 * 1024
    file_size: int = 64 * 1024 * 1024
    service: Service | None = None
    needs: tuple[Need, ...] = ()
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """A file or folder of the build stage that the image gets.

    Attributes:
        source: Its absolute path there; in a program's options it may be one of the source folder.
        target: Its absolute path in the image.
    """

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a program changes about how it is built, and what its image says.

    Attributes:
        flags: Arguments added to the compiler's, where the language takes some.
        strip: Whether symbols are taken out of what was built.
        build_env: Environment of the build's commands, on top of the recipe's.
        artifacts: Absolute paths that the build makes, the program's own first; empty for the
            language's one.
        files: What the image gets beside them.
        env: Environment of the image.
        user: Who runs it: ``USER``, ``UID`` or either with ``:GROUP``; empty for the base's.
        labels: Of the image.
        entrypoint: Runs the command as its arguments; None is none.
    """

    flags: tuple[str, ...] = ()
    strip: bool = False
    build_env: Pairs = ()
    artifacts: tuple[str, ...] = ()
    files: tuple[CopiedFile, ...] = ()
    env: Pairs = ()
    user: str = ""
    labels: Pairs = ()
    entrypoint: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program of the file, with everything that its variants need.

    Attributes:
        name: An OCI repository name component.
        language: The language, as data.
        source: The resolved source folder, inside the file's folder.
        run: Run image names.
        link: Link modes.
        build: Build image names of the product; None uses each recipe's default.
        libs: Whether dynamic variants of the product bring their libraries; both is an axis.
        cmd: The image's command, a tuple in exec form, text in shell form; None is the artifact.
            ``{program}`` is the program's name, ``{artifact}`` the artifact's path in the image.
        options: How it is built, and what its image says.
        include: Combinations added after the product.
        exclude: Combinations taken out of the product.
        expect: Expectations; the last one that matches a variant counts.
        budgets: Limits of what is measured; likewise, for each measure.
        smoke: The smoke run.
        network: Whether the build may use the network.
        location: Where the program starts in the file.
    """

    name: str
    language: Language
    source: Path
    run: tuple[str, ...]
    link: tuple[LinkMode, ...]
    build: tuple[str, ...] | None = None
    libs: tuple[Libs, ...] = (Libs.NONE,)
    cmd: tuple[str, ...] | str | None = None
    options: Options = field(default_factory=Options)
    include: tuple[Inclusion, ...] = ()
    exclude: tuple[Selector, ...] = ()
    expect: tuple[Expectation, ...] = ()
    budgets: tuple[Budget, ...] = ()
    smoke: Smoke = field(default_factory=Smoke)
    network: bool = True
    location: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A registry that is asked for images of another.

    Attributes:
        host: ``mirror.example.com:5000``.
        prefix: What its repositories begin with, or empty: ``hub``.
        insecure: Whether it is spoken to in plain http.
    """

    host: str
    prefix: str = ""
    insecure: bool = False


Mirrors = tuple[tuple[str, tuple[Mirror, ...]], ...]
"""Mirrors by registry, in the order in which they are asked; ``*`` is every other registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The valid configuration files of a project.

    Attributes:
        root: The folder that holds all files, resolved: archives are relative to it.
        roots: The folder of each file, resolved: no source leads out of it.
        programs: In the order of the files.
        images: Catalogue and files merged, by name.
        cache: Where builds with buildx find layers, and leave them; None for nowhere.
        mirrors: What is asked for images before their own registries.
    """

    root: Path
    roots: tuple[Path, ...]
    programs: tuple[Program, ...]
    images: tuple[Image, ...]
    cache: RegistryCache | None = None
    mirrors: Mirrors = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is expected of one variant, and where the file says so (None: works, by default)."""

    verdict: Verdict = Verdict.WORKS
    cause: Cause | None = None
    location: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One combination: a program built in one image, linked one way, run in another image.

    `expected` and `limits` are what the program's rules say of it.
    """

    id: VariantId
    program: str
    language: str
    build_image: str
    run_image: str
    link: LinkMode
    libs: Libs = Libs.NONE
    expected: Expected = field(default_factory=Expected)
    limits: tuple[Limit, ...] = ()

    @property
    def linking(self) -> str:
        """The link mode as ids and selectors have it: ``dynamic+libs`` with its libraries."""
        return f"{self.link}+libs" if self.libs is Libs.BUNDLE else str(self.link)

    @property
    def single_stage(self) -> bool:
        """Whether the build image itself is shipped: the baseline of the series' table."""
        return self.build_image == self.run_image
