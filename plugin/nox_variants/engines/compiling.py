"""Build stages in the sandbox: a key for all that goes in, a cache entry for what comes out."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import posixpath
import shutil
import stat
import time
from collections import deque
from contextlib import suppress
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from nox_variants import elf, rootfs
from nox_variants.errors import BuildFailed, StoreError
from nox_variants.model import Digest
from nox_variants.oci.digest import canonical_json, sha256_file
from nox_variants.results import Artifact, Build, ElfFacts, Linkage
from nox_variants.sandbox.bubblewrap import Root, run_command

if TYPE_CHECKING:
    import threading
    from pathlib import Path

    from nox_variants.plan import BuildStage
    from nox_variants.results import PreparedImage
    from nox_variants.sources import Snapshot
    from nox_variants.store import Store

FORMAT = 1
"""Part of every key: a change of what an entry holds makes old ones unused."""

LOG_KEPT = 64 * 1024
"""Bytes of a failed build's output that are shown: its end."""

LOG_WRITTEN = 16 * 1024 * 1024
"""Bytes of a build's output that are kept in the store."""

SHELL = "/bin/sh"

_FOLDER_MODE = 0o755
_NAMED = 10
_MODE = 0o777


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compiler:
    """Compiles build stages, or takes them from the store.

    Attributes:
        store: Where builds and caches are.
        epoch: ``SOURCE_DATE_EPOCH``, in seconds since 1970.
        platform: ``linux/amd64``.
        use_cache: Whether a build of an earlier run is good.
        cancelled: Ends a compile.
    """

    store: Store
    epoch: int
    platform: str
    use_cache: bool
    cancelled: threading.Event

    def build(self, stage: BuildStage, image: PreparedImage, root: Path, source: Snapshot) -> Build:
        """Return a stage's build.

        Args:
            stage: What is compiled.
            image: The build image.
            root: The build image's root filesystem.
            source: The source.

        Raises:
            BuildFailed: A command failed, or an artifact is missing.
        """
        key = self._key(stage, image, source)
        if self.use_cache and (build := self._find(key)):
            return build
        begun = time.time_ns()
        with self.store.lock(f"build-{key}", cancelled=self.cancelled):
            build = self._find(key)
            if build and (self.use_cache or self._newer(key, begun)):
                return build
            if build:
                self.store.discard("builds", key)
            return self._compile(key, stage, image, root, source)

    def _newer(self, key: str, begun: int) -> bool:
        """Tell whether another process made the entry while this one waited for the lock."""
        return (self.store.entry("builds", key) / "build.json").stat().st_mtime_ns > begun

    def _key(self, stage: BuildStage, image: PreparedImage, source: Snapshot) -> str:
        value = {
            "format": FORMAT,
            "image": image.digest,
            "source": source.digest,
            "workdir": stage.workdir,
            "commands": stage.commands,
            "env": [*image.env, *stage.env],
            "caches": stage.caches,
            "artifacts": stage.artifacts,
            "network": stage.network,
            "epoch": self.epoch,
            "platform": self.platform,
        }
        return hashlib.sha256(canonical_json(value)).hexdigest()

    def _find(self, key: str) -> Build | None:
        """Return a build of the store whose artifacts are what they were; discard it otherwise."""
        folder = self.store.find("builds", key)
        if folder is None:
            return None
        try:
            values = self.store.read_json(folder / "build.json")
            artifacts = tuple(_artifact(folder, each) for each in values["artifacts"])
            intact = all(sha256_file(each.file) == each.digest for each in artifacts)
            if intact and (folder / "upper").is_dir():
                return Build(key=key, artifacts=artifacts, seconds=values["seconds"], cached=True)
        except (StoreError, OSError, LookupError, TypeError, ValueError):
            pass
        self.store.discard("builds", key)
        return None

    def _compile(
        self, key: str, stage: BuildStage, image: PreparedImage, root: Path, source: Snapshot
    ) -> Build:
        begin = time.perf_counter()
        with self.store.publish("builds", key) as staging:
            overlay = _overlay(staging, stage, (root, source.root))
            with (staging / "log.txt").open("wb") as file:
                log = _Log(file)
                try:
                    self._run(stage, image, overlay, log)
                    found = _artifacts(stage, overlay)
                except BuildFailed as error:
                    seconds = time.perf_counter() - begin
                    raise BuildFailed(error.message, log=log.end(), seconds=seconds) from None
            _remove_work(overlay)
            seconds = round(time.perf_counter() - begin, 6)
            values = [_keep(staging, path, file) for path, file in found]
            self.store.write_json(staging / "build.json", {"artifacts": values, "seconds": seconds})
        folder = self.store.entry("builds", key)
        artifacts = tuple(_artifact(folder, each) for each in values)
        return Build(key=key, artifacts=artifacts, seconds=seconds, cached=False, log=log.end())

    def _run(self, stage: BuildStage, image: PreparedImage, overlay: Root, log: _Log) -> None:
        if rootfs.resolve(overlay.stack, SHELL) is None:
            raise BuildFailed(f"{image.name} has no {SHELL} to run the build's commands")
        env = (*image.env, ("SOURCE_DATE_EPOCH", str(self.epoch)), *stage.env)
        for command in stage.commands:
            code = run_command(
                overlay,
                (SHELL, "-c", command),
                workdir=stage.workdir,
                env=env,
                binds=tuple((self._cache(image, path), path) for path in stage.caches),
                network=stage.network,
                log=log.write,
                cancelled=self.cancelled,
            )
            if code:
                raise BuildFailed(f"{command!r} ended with exit code {code} in {image.name}")

    def _cache(self, image: PreparedImage, path: str) -> Path:
        """Return the kept folder of a cache path: one per image, for toolchains differ."""
        return self.store.cache(hashlib.sha256(f"{image.digest} {path}".encode()).hexdigest())


def _overlay(staging: Path, stage: BuildStage, lower: tuple[Path, ...]) -> Root:
    """Make the writable half of a build's root, with the folders that the stage counts on."""
    overlay = Root(lower=lower, upper=staging / "upper", work=staging / "work")
    for half in (overlay.upper, staging / "work"):
        half.mkdir()
        half.chmod(_FOLDER_MODE)
    parents = (posixpath.dirname(path) for path in stage.artifacts)
    for path in (stage.workdir, *parents, *stage.caches):
        made = rootfs.resolve(overlay.stack, path)
        if made is None or not made.is_dir():
            _make_folder(overlay, path)
    return overlay


def _make_folder(overlay: Root, path: str) -> None:
    """Make a folder as ``mkdir -p`` in the root would: those above it stay what they are."""
    place = PurePosixPath(overlay.place(path))
    for each in (*list(reversed(place.parents))[1:], place):
        above = rootfs.resolve(overlay.lower, str(each))
        folder = overlay.upper / each.relative_to("/")
        folder.mkdir(exist_ok=True)
        folder.chmod(stat.S_IMODE(above.stat().st_mode) if above else _FOLDER_MODE)


def _remove_work(overlay: Root) -> None:
    """Remove the overlay's own folder: its child has mode 0."""
    if overlay.work is not None:
        for child in overlay.work.iterdir():
            child.chmod(0o700)
        shutil.rmtree(overlay.work)


def _artifacts(stage: BuildStage, overlay: Root) -> list[tuple[str, Path]]:
    """Return each artifact's path and file; the links of an untrusted build stay in its root."""
    found = []
    for path in stage.artifacts:
        file = rootfs.resolve(overlay.stack, path)
        if file is None or not stat.S_ISREG(file.lstat().st_mode):
            raise BuildFailed(f"the build made no file {path}{_neighbours(overlay, path)}")
        found.append((path, file))
    return found


def _neighbours(overlay: Root, path: str) -> str:
    """Say what lies where an artifact should be."""
    folder = posixpath.dirname(path)
    if rootfs.resolve(overlay.stack, folder) is None:
        return f": there is no folder {folder}"
    names: set[str] = set()
    for layer in overlay.stack:
        with suppress(OSError), os.scandir(layer / overlay.place(folder)[1:]) as scan:
            for entry in scan:
                removed = stat.S_ISCHR(entry.stat(follow_symlinks=False).st_mode)
                (names.discard if removed else names.add)(entry.name)
    found = ", ".join(map(repr, sorted(names)[:_NAMED]))
    return f": {folder} holds {found}" if found else f": {folder} is empty"


def _keep(staging: Path, path: str, file: Path) -> dict[str, Any]:
    """Copy an artifact out of the build's root and return what the entry says about it."""
    name = hashlib.sha256(path.encode()).hexdigest()[:16]
    kept = staging / "artifacts" / name
    kept.parent.mkdir(exist_ok=True)
    mode = file.stat().st_mode & _MODE
    if not mode & stat.S_IRUSR and file.is_relative_to(staging):
        mode |= stat.S_IRUSR  # root could read it, an ordinary user could not
        file.chmod(mode)
    shutil.copyfile(file, kept)
    kept.chmod(mode)
    return {
        "path": path,
        "name": name,
        "size": kept.stat().st_size,
        "digest": sha256_file(kept),
        "facts": dataclasses.asdict(elf.read_facts(kept)),
    }


def _artifact(folder: Path, values: dict[str, Any]) -> Artifact:
    facts = dict(values["facts"])
    return Artifact(
        path=values["path"],
        file=folder / "artifacts" / values["name"],
        size=values["size"],
        digest=Digest(values["digest"]),
        facts=ElfFacts(
            **{**facts, "linkage": Linkage(facts["linkage"]), "needed": tuple(facts["needed"])}
        ),
    )


class _Log:
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
