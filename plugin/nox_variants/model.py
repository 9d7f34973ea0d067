"""The values that flow through the program: frozen, hashable, without I/O.

``variants.yaml -> Settings -> Variant -> Plan -> (engine values) -> Record``. Imports nothing of
the package, and neither os, subprocess, time, nox nor docker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from pathlib import Path

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


class Linkage(StrEnum):
    """How an artifact really is linked."""

    STATIC = "static"
    STATIC_PIE = "static-pie"
    GLIBC_DYNAMIC = "glibc-dynamic"
    MUSL_DYNAMIC = "musl-dynamic"
    OTHER_DYNAMIC = "other-dynamic"
    SCRIPT = "script"
    OTHER = "other"


class Verdict(StrEnum):
    """Whether the program works in its run image."""

    WORKS = "works"
    FAILS = "fails"


class Cause(StrEnum):
    """Why a program fails in its run image. Slugs are stable."""

    BUILD_FAILED = "build-failed"
    MISSING_LOADER = "missing-loader"
    MISSING_LIBRARY = "missing-library"
    WRONG_ARCHITECTURE = "wrong-architecture"
    NOT_EXECUTABLE = "not-executable"
    EXIT_CODE = "exit-code"
    WRONG_OUTPUT = "wrong-output"
    TIMEOUT = "timeout"
    KILLED_BY_SIGNAL = "killed-by-signal"
    OUT_OF_MEMORY = "out-of-memory"
    PROCESS_LIMIT = "process-limit"


class Outcome(StrEnum):
    """A verdict held against the expectation, in pytest's words."""

    PASSED = "passed"
    FAILED = "failed"
    XFAILED = "xfailed"
    XPASSED = "xpassed"
    ERROR = "error"
    SKIPPED = "skipped"

    @property
    def bad(self) -> bool:
        """Whether this outcome makes the run's exit code non-zero."""
        return self in {Outcome.FAILED, Outcome.XPASSED, Outcome.ERROR}


class EngineName(StrEnum):
    """What builds and runs variants."""

    EMBEDDED = "embedded"
    DOCKER = "docker"
    PODMAN = "podman"


class SourceKind(StrEnum):
    """Where an image comes from."""

    REGISTRY = "registry"
    APT = "apt"
    ARCHIVE = "archive"
    SCRATCH = "scratch"


class Role(StrEnum):
    """What an image is used for in a plan."""

    BUILD = "build"
    RUN = "run"


# --- configuration ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A place in a configuration file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """One way to get an image.

    Attributes:
        kind: Where it comes from.
        reference: The registry reference, or the archive's path; empty for apt.
        packages: The apt packages to install; empty for others.
        setup: Shell commands run on top, in order.
        unavailable: Why this source can never give the image; empty when it can.
    """

    kind: SourceKind
    reference: str = ""
    packages: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    unavailable: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image of the catalogue or the file, under the name that variants use.

    Attributes:
        name: ``busybox:glibc``.
        sources: In the order in which they are tried: registry, apt, archive.
        env: Environment of the image itself, where its source does not carry one.
    """

    name: str
    sources: tuple[ImageSource, ...]
    env: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a language builds for one link mode.

    Attributes:
        link: The link mode.
        image: The default build image's name.
        commands: Shell commands, run in the source folder; ``{program}`` already replaced where
            a :class:`Program` holds the recipe.
        env: Environment of the commands.
    """

    link: LinkMode
    image: str
    commands: tuple[str, ...]
    env: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A language of the catalogue or the file: data, not code.

    Attributes:
        name: ``c``.
        recipes: One per link mode that the language has.
        artifact: Absolute path of the built program in the build image, with ``{program}``.
        caches: Absolute paths in the build image that are kept between builds.
        static_by_nature: Whether a dynamic build may rightly be static (Go without cgo).
        mismatch_hint: What to do when a static build comes out dynamic.
    """

    name: str
    recipes: tuple[Recipe, ...]
    artifact: str
    caches: tuple[str, ...] = ()
    static_by_nature: bool = False
    mismatch_hint: str = ""

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
    location: Location | None = field(default=None, compare=False)


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
class Inclusion:
    """One combination added to the product; ``build`` is None for the default build image."""

    run: str
    link: LinkMode
    build: str | None = None
    location: Location | None = field(default=None, compare=False)


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
        memory: Resident memory of the process tree, in bytes.
        processes: Processes and threads of the tree.
        output: Bytes kept of standard output and of standard error, each; more is cut off.
        file_size: Bytes that a single file may grow to.
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
        include: Combinations added after the product.
        exclude: Combinations taken out of the product.
        expect: Expectations; the last one that matches a variant counts.
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
    include: tuple[Inclusion, ...] = ()
    exclude: tuple[Selector, ...] = ()
    expect: tuple[Expectation, ...] = ()
    smoke: Smoke = field(default_factory=Smoke)
    network: bool = True
    location: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A whole, valid configuration file.

    Attributes:
        file: The file.
        root: The folder of the file, resolved.
        programs: In the file's order.
        images: Catalogue and file merged, by name.
    """

    file: Path
    root: Path
    programs: tuple[Program, ...]
    images: tuple[Image, ...]


# --- matrix and plan -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is expected of one variant, and where the file says so (None: works, by default)."""

    verdict: Verdict = Verdict.WORKS
    cause: Cause | None = None
    location: Location | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One combination: a program built in one image, linked one way, run in another image."""

    id: VariantId
    program: str
    language: str
    build_image: str
    run_image: str
    link: LinkMode
    expected: Expected = field(default_factory=Expected)

    @property
    def single_stage(self) -> bool:
        """Whether the build image itself is shipped: the baseline of the series' table."""
        return self.build_image == self.run_image


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildStage:
    """What has to be compiled, where and how. Equal stages are equal values: that is the sharing.

    Attributes:
        image: The build image.
        source: The source folder on this machine.
        workdir: Where the source stands in the build image, and where commands run.
        commands: Shell commands, in order, each with ``/bin/sh -c``.
        env: Environment of the commands, on top of the image's.
        caches: Folders kept between builds.
        artifacts: Absolute paths that the build must make.
        network: Whether commands may use the network.
    """

    image: Image
    source: Path
    workdir: str
    commands: tuple[str, ...]
    env: Pairs
    caches: tuple[str, ...]
    artifacts: tuple[str, ...]
    network: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedFile:
    """A file copied from the build stage into the run image. Both paths are absolute."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStage:
    """The image that ships.

    Attributes:
        image: The run image.
        files: What is copied from the build stage; empty for a single-stage image.
        env: Environment of the image's configuration, on top of the base's.
        workdir: Working directory of the image's configuration.
        cmd: The command, exec form.
        single_stage: Whether this is the build stage itself.
    """

    image: Image
    files: tuple[CopiedFile, ...]
    env: Pairs
    workdir: str
    cmd: tuple[str, ...]
    single_stage: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a variant needs done, without an engine."""

    variant: Variant
    language: Language
    build: BuildStage
    run: RunStage
    smoke: Smoke


# --- what engines give back ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """A usable engine: its name and version, as the record keeps them."""

    name: EngineName
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """An image that is on this machine, ready to build in or run on.

    Attributes:
        name: The image's name in the file.
        kind: The source that gave it.
        reference: Registry reference, archive path, or the apt packages asked for.
        digest: Digest of its content; engines find the image by it.
        stand_in: Whether it only stands in for the image of that name.
        packages: ``name=version`` of everything in it, where that is known.
        layers: Diff ids of its layers, base first (OCI image-spec, config.md).
        layer_sizes: Bytes of each layer's uncompressed tar, base first.
        content: Bytes of regular files over all its layers.
        env: Environment of its configuration.
    """

    name: str
    kind: SourceKind
    reference: str
    digest: Digest
    stand_in: bool = False
    packages: tuple[str, ...] = ()
    layers: tuple[Digest, ...] = ()
    layer_sizes: tuple[int, ...] = ()
    content: int = 0
    env: Pairs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ElfFacts:
    """What a program file says about itself; read, never executed.

    Attributes:
        linkage: How it is linked.
        machine: The ELF machine in ``uname -m`` words (``x86_64``), empty for no ELF file.
        bits: 32 or 64; 0 for no ELF file.
        interpreter: PT_INTERP, or the path behind ``#!`` of a script; empty when there is none.
        needed: DT_NEEDED, in order.
        glibc: The highest GLIBC symbol version required (``2.34``), empty when none.
        abi_tag: Whether a GNU ABI tag shows that glibc's start files were linked in.
    """

    linkage: Linkage
    machine: str = ""
    bits: int = 0
    interpreter: str = ""
    needed: tuple[str, ...] = ()
    glibc: str = ""
    abi_tag: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that a build made.

    Attributes:
        path: Its absolute path in the build image.
        file: Where its bytes are on this machine now.
        size: In bytes.
        digest: Of its bytes.
        facts: What it says about itself.
    """

    path: str
    file: Path
    size: int
    digest: Digest
    facts: ElfFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A build stage that went well.

    Attributes:
        key: Identity of everything that went into it; engines find the result by it.
        artifacts: In the order of the stage's.
        seconds: Wall time of the compile that made it, also when it came from the cache.
        cached: Whether nothing had to be compiled this time.
        log: The build's output, bounded.
    """

    key: str
    artifacts: tuple[Artifact, ...]
    seconds: float
    cached: bool
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes in bytes, the same on every engine.

    Attributes:
        binary: The artifact.
        content: Regular files over all layers.
        above_base: The same without the base's layers.
        transfer: Compressed layers; None when not asked for.
    """

    binary: int
    content: int
    above_base: int
    transfer: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantImage:
    """A variant's image as an engine holds it.

    Attributes:
        config_digest: Digest of the image configuration: the image id.
        tag: ``PROGRAM:BUILD-LINK.RUN``.
        path: Where its layout lies, or empty when an engine keeps it itself.
        layers: Diff ids, base first.
        sizes: In bytes.
        cmd: The command of its configuration.
        env: The environment of its configuration.
        workdir: The working directory of its configuration.
    """

    config_digest: Digest
    tag: str
    path: str
    layers: tuple[Digest, ...]
    sizes: Sizes
    cmd: tuple[str, ...]
    env: Pairs = ()
    workdir: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen of one smoke run. Facts only; judging is `diagnosis`'s work.

    Attributes:
        started: Whether the kernel executed the program at all.
        exec_error: The engine's words when it did not.
        exit_code: None when a limit ended it; 128 and the signal's number when a signal did, as
            `docker run` reports it.
        signal: The number of the signal that ended it, else None.
        stdout: Decoded as UTF-8 with replacement, bounded.
        stderr: Likewise.
        truncated: Whether output was cut off.
        timed_out: Whether it was ended for its time.
        out_of_memory: Whether it, or a child of it, was ended for its memory.
        process_limit: Whether it was ended for the number of its processes.
        seconds: From the program's start to its end, wall time.
    """

    started: bool
    exec_error: str = ""
    exit_code: int | None = None
    signal: int | None = None
    stdout: str = ""
    stderr: str = ""
    truncated: bool = False
    timed_out: bool = False
    out_of_memory: bool = False
    process_limit: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFacts:
    """What a root filesystem offers to a program.

    Attributes:
        loaders: Absolute paths at which a dynamic loader can be executed (links followed inside
            the root).
        libraries: File names found in the loader's default folders.
        shell: Whether ``/bin/sh`` can be executed.
        interpreters: Of the paths asked about, those that exist as executable files.
    """

    loaders: frozenset[str] = frozenset()
    libraries: frozenset[str] = frozenset()
    shell: bool = False
    interpreters: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A judgement with its reason: the verdict, why it fails, and a sentence that says so."""

    verdict: Verdict
    cause: Cause | None = None
    explanation: str = ""
