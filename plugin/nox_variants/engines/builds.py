"""Builds in the store: found, or made once, whatever engine compiles. Knows no engine."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
import time
from collections import deque
from typing import IO, TYPE_CHECKING, Any

from nox_variants import programfile
from nox_variants.engines import trees
from nox_variants.errors import BuildFailed, StoreError
from nox_variants.model import Digest
from nox_variants.oci.digest import canonical_json
from nox_variants.results import Artifact, Build, FileFacts, Linkage
from nox_variants.subject import quote

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from nox_variants.plan import BuildStage
    from nox_variants.results import PreparedImage
    from nox_variants.sources import Snapshot
    from nox_variants.store import Store

FORMAT = 4
"""Part of every key: a change of what an entry holds makes old ones unused."""

LOG_KEPT = 64 * 1024
"""Bytes of a failed build's output that are shown: its end."""

LOG_WRITTEN = 16 * 1024 * 1024
"""Bytes of a build's output that are kept in the store."""

LITTLE = 1024 * 1024
"""Bytes of free disk with which a command's failure says nothing about the program."""

_FULL = re.compile("no space left on device|disk quota exceeded", re.IGNORECASE)
"""The words of C libraries for ENOSPC and EDQUOT; Go, Java and Node have the same."""

_LAST_LINES = 40
"""A linker that found no room has removed what took it: its words are all that is left."""


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """What a stage puts out: its path in the image, and the copy of it.

    Attributes:
        path: In the build image.
        copy: Copies it to a path that is not there.
    """

    path: str
    copy: Callable[[Path], object]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Builds:
    """The builds of the store.

    Attributes:
        store: Where they are.
        engine: What compiles; builds of different engines are different entries.
        epoch: ``SOURCE_DATE_EPOCH``, in seconds since 1970.
        platform: ``linux/amd64``.
        use_cache: Whether a build of an earlier run is good.
        cancelled: Ends the wait for another process.
    """

    store: Store
    engine: str
    epoch: int
    platform: str
    use_cache: bool
    cancelled: threading.Event

    def key(self, stage: BuildStage, image: PreparedImage, source: Snapshot) -> str:
        """Return the identity of everything that goes into a build."""
        value = {
            "format": FORMAT,
            "engine": self.engine,
            "image": image.digest,
            "source": source.digest,
            "workdir": stage.workdir,
            "commands": stage.commands,
            "env": [*image.env, *stage.env],
            "caches": stage.caches,
            "artifacts": stage.outputs,
            "network": stage.network,
            "epoch": self.epoch,
            "platform": self.platform,
        }
        return hashlib.sha256(canonical_json(value)).hexdigest()

    def get(
        self,
        key: str,
        compile_: Callable[[Path, Log], list[Output]],
        intact: Callable[[Path], bool],
    ) -> Build:
        """Return a build, compiled at most once at a time, also across processes.

        Args:
            key: Its identity.
            compile_: Compiles, given an empty folder that becomes the entry and the log; returns
                what the stage puts out, in its order.
            intact: Tells whether what an entry holds besides artifacts is still good.

        Raises:
            BuildFailed: A command failed, or an artifact is missing.
        """
        if self.use_cache and (build := self._find(key, intact)):
            return build
        before = self._identity(key)
        with self.store.lock(f"build-{key}", cancelled=self.cancelled):
            build = self._find(key, intact)
            if build and (self.use_cache or self._identity(key) != before):
                return build
            if build:
                self.store.discard("builds", key)
            return self._compile(key, compile_)

    def _identity(self, key: str) -> tuple[int, int] | None:
        """Return what an entry made anew has not: another process made it while this one waited.

        That does not ask whether it is newer: clocks jump.
        """
        try:
            status = (self.store.entry("builds", key) / "build.json").stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _find(self, key: str, intact: Callable[[Path], bool]) -> Build | None:
        """Return a build whose artifacts are what they were; discard it otherwise."""
        folder = self.store.find("builds", key)
        if folder is None:
            return None
        try:
            values = self.store.read_json(folder / "build.json")
            artifacts = tuple(_artifact(folder, each) for each in values["artifacts"])
            unchanged = all(
                trees.described(each.file) == (each.digest, each.size) for each in artifacts
            )
            if unchanged and intact(folder):
                return Build(key=key, artifacts=artifacts, seconds=values["seconds"], cached=True)
        except (StoreError, OSError, LookupError, TypeError, ValueError):
            pass
        self.store.discard("builds", key)
        return None

    def _compile(self, key: str, compile_: Callable[[Path, Log], list[Output]]) -> Build:
        begin = time.perf_counter()
        with self.store.publish("builds", key) as staging:
            with (staging / "log.txt").open("wb") as file:
                log = Log(file)
                try:
                    found = compile_(staging, log)
                except BuildFailed as error:
                    seconds = time.perf_counter() - begin
                    raise failure(error, log, staging, seconds=seconds) from None
            seconds = round(time.perf_counter() - begin, 6)
            values = [_keep(staging, output) for output in found]
            self.store.write_json(staging / "build.json", {"artifacts": values, "seconds": seconds})
        folder = self.store.entry("builds", key)
        artifacts = tuple(_artifact(folder, each) for each in values)
        return Build(key=key, artifacts=artifacts, seconds=seconds, cached=False, log=log.end())


def failure(
    error: BuildFailed, log: Log, folder: Path, *, seconds: float = 0.0
) -> BuildFailed | StoreError:
    """Return why a stage gave nothing: not the program, where the disk had no room for it.

    Args:
        error: Which command failed, or what it did not make.
        log: The commands' output.
        folder: A folder of the file system that they wrote to.
        seconds: How long it took.
    """
    lines = log.end().splitlines()[-_LAST_LINES:]
    words = next((line.strip() for line in lines if _FULL.search(line)), "")
    if not words and _has_room(folder):
        return BuildFailed(error.message, log=log.end(), seconds=seconds)
    reason = f": {quote(words)}" if words else f", and {folder} is on a disk without room"
    return StoreError(
        f"{error.message}{reason}",
        hint="The disk is full, here or where it is built: free some space, or point"
        " NOX_VARIANTS_HOME elsewhere.",
    )


def _has_room(folder: Path) -> bool:
    found = os.statvfs(folder)
    inodes = not found.f_files or found.f_favail > 0
    return inodes and found.f_bavail * found.f_frsize >= LITTLE


def _keep(staging: Path, output: Output) -> dict[str, Any]:
    """Copy what a stage puts out, and return what the entry says about it."""
    name = hashlib.sha256(output.path.encode()).hexdigest()[:16]
    kept = staging / "artifacts" / name
    kept.parent.mkdir(exist_ok=True)
    output.copy(kept)
    digest, size = trees.described(kept)
    nothing = FileFacts(linkage=Linkage.OTHER)
    facts = nothing if kept.is_dir() else programfile.read_facts(kept)
    return {
        "path": output.path,
        "name": name,
        "size": size,
        "digest": digest,
        "facts": dataclasses.asdict(facts),
    }


def _artifact(folder: Path, values: dict[str, Any]) -> Artifact:
    return Artifact(
        path=values["path"],
        file=folder / "artifacts" / values["name"],
        size=values["size"],
        digest=Digest(values["digest"]),
        facts=file_facts(values["facts"]),
    )


def file_facts(values: dict[str, Any]) -> FileFacts:
    """Return facts as they were before JSON made lists of tuples."""
    known = {name: _tuples(value) for name, value in values.items()}
    return FileFacts(**{**known, "linkage": Linkage(known["linkage"])})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value


class Log:
    """A build's output: a bounded file, and its end for the user."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._written = 0
        self._last: deque[bytes] = deque()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Take a piece of output."""
        room = LOG_WRITTEN - self._written
        self._written += self._file.write(data[:room])
        self._last.append(data)
        self._size += len(data)
        while self._size - len(self._last[0]) >= LOG_KEPT:
            self._size -= len(self._last.popleft())

    def end(self) -> str:
        """Return the end of the output as text."""
        return b"".join(self._last)[-LOG_KEPT:].decode(errors="replace")
