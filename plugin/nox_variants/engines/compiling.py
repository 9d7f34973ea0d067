"""Build stages in the sandbox: commands on an overlay, and what they leave in it."""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from nox_variants import elf, rootfs
from nox_variants.engines import trees
from nox_variants.engines.builds import Builds, Output
from nox_variants.errors import BuildFailed
from nox_variants.results import EngineName
from nox_variants.sandbox.command import Root, run_command

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from nox_variants.engines.builds import Log
    from nox_variants.model import Pairs
    from nox_variants.plan import BuildStage
    from nox_variants.results import Build, PreparedImage
    from nox_variants.rootfs import Found
    from nox_variants.sources import Snapshot
    from nox_variants.store import Store

CHANGES = "upper"
"""The folder of an entry with what the commands changed in their root."""

SHELL = "/bin/sh"

_WORK = "work"
_FOLDER_MODE = 0o755
_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
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

        def compile_(staging: Path, log: Log) -> list[Output]:
            elf.load_meanwhile()
            overlay = _overlay(staging, stage, (root, source.root))
            self._run(stage, image, overlay, log)
            remove_work(staging / _WORK)
            return _outputs(stage, overlay)

        builds = Builds(
            store=self.store,
            engine=EngineName.EMBEDDED,
            epoch=self.epoch,
            platform=self.platform,
            use_cache=self.use_cache,
            cancelled=self.cancelled,
        )
        key = builds.key(stage, image, source)
        return builds.get(key, compile_, intact=lambda folder: (folder / CHANGES).is_dir())

    def _run(self, stage: BuildStage, image: PreparedImage, overlay: Root, log: Log) -> None:
        run_commands(
            overlay,
            stage.commands,
            image=image.name,
            workdir=stage.workdir,
            env=(*image.env, ("SOURCE_DATE_EPOCH", str(self.epoch)), *stage.env),
            binds=tuple((self._cache(image, path), path) for path in stage.caches),
            network=stage.network,
            log=log.write,
            cancelled=self.cancelled,
        )

    def _cache(self, image: PreparedImage, path: str) -> Path:
        """Return the kept folder of a cache path: one per image, for toolchains differ."""
        return self.store.cache(hashlib.sha256(f"{image.digest} {path}".encode()).hexdigest())


def run_commands(
    overlay: Root,
    commands: tuple[str, ...],
    *,
    image: str,
    workdir: str,
    env: Pairs,
    binds: tuple[tuple[Path, str], ...] = (),
    network: bool,
    log: Callable[[bytes], None],
    cancelled: threading.Event,
) -> None:
    """Run shell commands in a root, one after the other.

    Args:
        overlay: The root.
        commands: Each has a shell of its own.
        image: The image's name, for sentences.
        workdir: Where they start.
        env: Their environment.
        binds: Folders of this machine that appear, writable, at paths of the root.
        network: Whether they share this machine's network.
        log: Called with their output as it comes.
        cancelled: Ends them.

    Raises:
        BuildFailed: A command failed, or there is no shell.
    """
    check_shell(overlay.stack, image)
    for command in commands:
        code = run_command(
            overlay,
            (SHELL, "-c", command),
            workdir=workdir,
            env=env,
            binds=binds,
            network=network,
            log=log,
            cancelled=cancelled,
        )
        if code:
            raise BuildFailed(f"{command!r} ended with exit code {code} in {image}")


def check_shell(stack: tuple[Path, ...], image: str) -> None:
    """Look for the shell that runs commands.

    Raises:
        BuildFailed: The root has none.
    """
    if rootfs.resolve(stack, SHELL) is None:
        raise BuildFailed(f"{image} has no {SHELL} to run the build's commands")


def remove_work(folder: Path) -> None:
    """Remove an overlay's own folder: its child has mode 0."""
    for child in folder.iterdir():
        child.chmod(0o700)
    shutil.rmtree(folder)


def _overlay(staging: Path, stage: BuildStage, lower: tuple[Path, ...]) -> Root:
    """Make the writable half of a build's root, with the folders that the stage counts on."""
    overlay = Root(lower=lower, upper=staging / CHANGES, work=staging / _WORK)
    for half in (overlay.upper, staging / _WORK):
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


def _outputs(stage: BuildStage, overlay: Root) -> list[Output]:
    """Return all that a stage puts out; the links of an untrusted build stay in its root."""
    root = rootfs.Root(overlay.stack)

    def output(path: str, found: Found) -> Output:
        return Output(path, lambda target: trees.copy(root, found, target, own=overlay.upper))

    outputs = []
    for path in stage.outputs:
        found = root.find(path)
        if found is None or not (found.regular or found.merged):
            made = "made" if path in stage.artifacts else "has"
            raise BuildFailed(f"the build {made} no file {path}{_neighbours(overlay, path)}")
        outputs.append(output(path, found))
    return outputs


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
