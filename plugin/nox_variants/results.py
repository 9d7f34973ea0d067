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
    """

    name: EngineName
    version: str
    notes: tuple[str, ...] = ()


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
