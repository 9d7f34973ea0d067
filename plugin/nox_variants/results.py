"""What engines give back and what is made of it: frozen, hashable, without I/O.

Imports nothing of the package but other values.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from nox_variants.model import Cause, Digest, Pairs, SourceKind, Verdict


class Linkage(StrEnum):
    """How an artifact really is linked."""

    STATIC = "static"
    STATIC_PIE = "static-pie"
    GLIBC_DYNAMIC = "glibc-dynamic"
    MUSL_DYNAMIC = "musl-dynamic"
    OTHER_DYNAMIC = "other-dynamic"
    SCRIPT = "script"
    OTHER = "other"


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


class Role(StrEnum):
    """What an image is used for in a plan."""

    BUILD = "build"
    RUN = "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """A usable engine: its name and version, as the record keeps them.

    Attributes:
        name: The engine.
        version: Of the engine itself.
        notes: What it cannot do here, as sentences.
        builder: What builds Dockerfiles for it; empty where it builds itself.
    """

    name: EngineName
    version: str
    notes: tuple[str, ...] = ()
    builder: str = ""


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
        blobs: Digests of its layers as the store keeps them, base first; empty where its root is
            its only layer.
        content: Bytes of regular files over all its layers.
        env: Environment of its configuration.
        user: Who runs what it starts; empty for root.
        pinned: ``alpine:3.20@sha256:...``: by which its registry gives this very content again,
            without its setup; empty for other sources, and where only a daemon has it.
        mirrored: ``mirror.example.com/hub/library/alpine@sha256:...``: by which the mirror gives it
            again from which a daemon has it; empty where its own registry gave it.
    """

    name: str
    kind: SourceKind
    reference: str
    digest: Digest
    stand_in: bool = False
    packages: tuple[str, ...] = ()
    layers: tuple[Digest, ...] = ()
    layer_sizes: tuple[int, ...] = ()
    blobs: tuple[Digest, ...] = ()
    content: int = 0
    env: Pairs = ()
    user: str = ""
    pinned: str = ""
    mirrored: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What a program file says about itself; read, never executed.

    Attributes:
        linkage: How it is linked.
        machine: The ELF machine in ``uname -m`` words (``x86_64``), empty for no ELF file.
        bits: 32 or 64; 0 for no ELF file.
        interpreter: PT_INTERP, or the path behind ``#!`` of a script; empty when there is none.
        argument: What follows the interpreter in a script's first line, as one word.
        needed: DT_NEEDED, in order.
        rpath: Folders of DT_RPATH, in order, as they are written.
        runpath: Folders of DT_RUNPATH, likewise; where it is there, DT_RPATH counts for nothing.
        soname: DT_SONAME.
        requires: Symbol versions required, each with the library that has to define it:
            ``("libc.so.6", "GLIBC_2.34")`` (gABI supplement, "Version Dependencies").
        defines: Symbol versions that it defines ("Version Definitions").
        glibc: The highest GLIBC symbol version required (``2.34``), empty when none.
        abi_tag: Whether a GNU ABI tag shows that glibc's start files were linked in.
        imports: Of the functions that need more than libraries (:data:`elf.WATCHED`), those that it
            takes from a library, or has in itself where it is static: ``getaddrinfo``, ``dlopen``.
        class_version: Major version of a Java class file (JVMS, 4.1); 0 for any other.
        compiler: What compiled it, in its own words, printable and bounded: ``go1.22.5``,
            ``GCC: (Debian 12.2.0-14) 12.2.0``, or ``rustc`` where Rust leaves no version; empty
            where nothing says so, and for class files.
    """

    linkage: Linkage
    machine: str = ""
    bits: int = 0
    interpreter: str = ""
    argument: str = ""
    needed: tuple[str, ...] = ()
    rpath: tuple[str, ...] = ()
    runpath: tuple[str, ...] = ()
    soname: str = ""
    requires: Pairs = ()
    defines: tuple[str, ...] = ()
    glibc: str = ""
    abi_tag: bool = False
    imports: tuple[str, ...] = ()
    class_version: int = 0
    compiler: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file or folder that a build made, or that is taken out of its root.

    Attributes:
        path: Its absolute path in the build image.
        file: Where it is on this machine now.
        size: Bytes of its regular files.
        digest: Of its bytes.
        facts: What it says about itself; a folder says nothing.
    """

    path: str
    file: Path
    size: int
    digest: Digest
    facts: FileFacts


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
        transfer: Compressed layers; None when not asked for, and where nobody can tell what the
            registry of the base says.
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
        entrypoint: The entry point of its configuration, which gets the command for arguments.
        env: The environment of its configuration.
        workdir: The working directory of its configuration.
        user: Who runs it; empty for root.
    """

    config_digest: Digest
    tag: str
    path: str
    layers: tuple[Digest, ...]
    sizes: Sizes
    cmd: tuple[str, ...]
    entrypoint: tuple[str, ...] = ()
    env: Pairs = ()
    workdir: str = "/"
    user: str = ""

    @property
    def argv(self) -> tuple[str, ...]:
        """What it starts (OCI image-spec, config.md: Entrypoint and Cmd)."""
        return (*self.entrypoint, *self.cmd)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSeen:
    """What was seen of a server.

    Attributes:
        listened: Whether its port took a connection in time.
        seconds: From the program's start until then.
        status: Of the answer; 0 when there was none.
        body: Of the answer, decoded as UTF-8 with replacement, bounded.
        error: Why there was no answer, in one line.
        stopped: Whether SIGTERM ended it in time.
        stop_seconds: From SIGTERM to its end.
    """

    listened: bool
    seconds: float = 0.0
    status: int = 0
    body: str = ""
    error: str = ""
    stopped: bool = False
    stop_seconds: float = 0.0


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
        startup: Seconds from its execution until a program exits by itself, or until a server has
            answered its request; None where neither was seen. Engines differ by what starting and
            waiting for a process takes them.
        peak_memory: The most resident memory that one of its processes had, in bytes; or what
            several had together at one look, without pages of files, if that is more. None where
            it cannot be known, and where the smoke run is not repeated.
        service: What was seen of a server; None where the smoke run asks for none.
        distrusted: Whether a TLS client refused the certificate of the run's own server.
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
    startup: float | None = None
    peak_memory: int | None = None
    service: ServiceSeen | None = None
    distrusted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFacts:
    """What a root filesystem offers to a program.

    Attributes:
        loaders: Absolute paths at which a dynamic loader can be executed (links followed inside
            the root).
        libc: ``glibc`` or ``musl``, and its version where it is known: ``glibc 2.36``; empty for
            none.
        os: ``PRETTY_NAME`` of os-release(5); empty when there is none.
        shell: Whether ``/bin/sh`` can be executed.
        certificates: Path of the bundle of CA certificates; empty when there is none.
        timezones: Whether /usr/share/zoneinfo has time zones.
        users: Names in /etc/passwd.
        hosts: The services that nsswitch.conf(5) names for hosts; empty when there is no file.
        nss: Names of NSS modules that the loader finds: ``dns`` for ``libnss_dns.so.2``.
        java: The major version of class files that its Java runtime takes; 0 when there is none.
    """

    loaders: frozenset[str] = frozenset()
    libc: str = ""
    os: str = ""
    shell: bool = False
    certificates: str = ""
    timezones: bool = False
    users: frozenset[str] = frozenset()
    hosts: tuple[str, ...] = ()
    nss: frozenset[str] = frozenset()
    java: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A file that the kernel opens on the way to a program's first instruction.

    Attributes:
        path: As a script's first line names it; for a command where it was found, and its name
            where it was not.
        facts: What the file says about itself; None when there is no file.
        executable: Whether it is a regular file that root may execute.
    """

    path: str
    facts: FileFacts | None = None
    executable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """A library that a dynamic loader looks for.

    Attributes:
        name: As DT_NEEDED says.
        needed_by: Path, in the root, of what needs it; the program's own for its own.
        path: Where it was found, in the root; empty when it was not.
        searched: The folders that were looked at, in order, up to where it was found.
        undefined: Symbol versions that `needed_by` requires of it and that it does not define.
    """

    name: str
    needed_by: str
    path: str = ""
    searched: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """What kernel and loader find when an image's command is executed.

    Attributes:
        steps: The command's own file, then the interpreter of each script: the last one is what
            really runs.
        loader: PT_INTERP of what really runs; None for a static program.
        libraries: What that loader looks for, breadth first, as it does; each once, and again where
            something else requires versions of it that it does not define. Empty where there is no
            loader.
        imports: Of the functions that need more than libraries, those that the program or one of
            its libraries takes from another.
        truncated: Whether a bound ended the search: what is not there may have been overlooked.
    """

    steps: tuple[Step, ...]
    loader: Step | None = None
    libraries: tuple[Library, ...] = ()
    imports: tuple[str, ...] = ()
    truncated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What is known of a variant's image without running it: its root, and how it would start."""

    root: RootFacts
    startup: Startup


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A judgement with its reason: the verdict, why it fails, and a sentence that says so."""

    verdict: Verdict
    cause: Cause | None = None
    explanation: str = ""
