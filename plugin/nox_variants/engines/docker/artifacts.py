"""A build stage's artifacts: how they come out of a daemon, and how it says that they do not."""

from __future__ import annotations

import posixpath
import re
import stat
import tarfile
import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from nox_variants import rootfs
from nox_variants.engines import trees
from nox_variants.engines.builds import Output
from nox_variants.engines.docker import builders
from nox_variants.engines.docker.connection import explained
from nox_variants.engines.docker.labels import OWNER, owner
from nox_variants.errors import BuildFailed
from nox_variants.images.layers import Unpacker

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from pathlib import Path

    from nox_variants.engines.docker.connection import Daemon, DaemonError
    from nox_variants.engines.docker.containers import Reaper
    from nox_variants.errors import VariantsError
    from nox_variants.plan import BuildStage

_EXIT_CODE = re.compile(r"(?:exit code: |non-zero code: |exit status )(\d+)\D*$")
_MOST_LINKS = 40
_LARGEST = 4 << 30


def copied(
    daemon: Daemon,
    reaper: Reaper,
    tag: str,
    stage: BuildStage,
    work: Path,
    *,
    cancelled: threading.Event,
) -> list[Output]:
    """Copy what a stage puts out from its image into a folder, and return it.

    Raises:
        BuildFailed: Something is missing, or too large.
        DaemonError: The daemon failed.
        LayoutError: What it sends is malformed, or hostile.
    """
    with _stopped(daemon, reaper, tag) as container:
        for number, path in enumerate(stage.outputs):
            if not _copy_out(container, path, work / str(number), cancelled):
                raise _no_file(stage, path)
    return collected(stage, work)


def collected(stage: BuildStage, work: Path) -> list[Output]:
    """Return what a stage puts out, each named by its number in a folder.

    Raises:
        BuildFailed: Something is neither file nor folder, or too large.
    """
    root = rootfs.Root((work,))

    def output(number: int, path: str) -> Output:
        found = root.find(f"/{number}")
        if found is None or not (found.regular or found.merged):
            raise _no_file(stage, path)
        if found.regular:
            _check_size(found.path.stat().st_size)
        return Output(path, lambda target: trees.copy(root, found, target, own=work))

    return [output(number, path) for number, path in enumerate(stage.outputs)]


def _no_file(stage: BuildStage, path: str) -> BuildFailed:
    made = "made" if path in stage.artifacts else "has"
    return BuildFailed(f"the build {made} no file {path}")


def missing(error: DaemonError, stage: BuildStage) -> VariantsError:
    """Return a failed build's error: the stage's own fault where an artifact is missing."""
    found = builders.MISSING.search(error.message)
    if found is None or not stage.outputs:
        return error
    path = found["path"]
    if path in stage.outputs:
        return _no_file(stage, path)
    made = " or ".join(stage.outputs)
    return BuildFailed(f"the build made no file {made}: a link leads to {path}, which is not there")


def failed_command(words: str, commands: tuple[str, ...], image: str) -> str:
    """Return which command failed in an image and how, in the words of every engine."""
    code = _EXIT_CODE.search(words)
    if code is None:
        return words
    named = [command for command in commands if command.strip() in words]
    command = repr((named or commands)[0]) if named or len(commands) == 1 else "it"
    return f"{command} ended with exit code {code[1]} in {image}"


@contextmanager
def _stopped(daemon: Daemon, reaper: Reaper, tag: str) -> Iterator[Any]:
    """Create a container that is never started: its files can be read."""
    with explained(f"reading {tag}"):
        created = daemon.client.containers.create(tag, command=["-"], labels={OWNER: owner()})
        try:
            yield created
        finally:
            reaper.remove(created)


def _copy_out(container: Any, path: str, target: Path, cancelled: threading.Event) -> bool:
    """Copy a file or folder out of a container, if it is there; links to it are followed inside."""
    from docker.errors import NotFound  # noqa: PLC0415  # with the SDK

    way = path
    for _ in range(_MOST_LINKS):
        try:
            stream, _ = container.get_archive(way)
        except NotFound:
            break
        with tempfile.TemporaryFile() as archive:
            _spool(stream, archive)
            with tarfile.open(fileobj=archive) as tar:
                member = tar.next()
                if member is not None and member.issym():
                    way = posixpath.normpath(
                        posixpath.join(posixpath.dirname(way), member.linkname)
                    )
                    continue
                if member is not None and member.isdir():
                    archive.seek(0)
                    _unpack(archive, member.name, target, cancelled)
                elif member is not None and member.isreg():
                    _write(tar, member, target)
                return target.exists()
    return False


def _unpack(archive: IO[bytes], top: str, target: Path, cancelled: threading.Event) -> None:
    """Write the folder that an archive holds; whatever its names are, nothing gets out of it."""
    root = target.with_name(f"{target.name}.root")
    root.mkdir()
    unpacker = Unpacker(root, cancelled=cancelled)
    unpacker.apply(archive)
    unpacker.finish()
    found = rootfs.resolve((root,), f"/{top}")
    if found is not None:
        found.rename(target)


def _spool(stream: Iterator[bytes], file: IO[bytes]) -> None:
    size = 0
    for chunk in stream:
        size += len(chunk)
        _check_size(size)
        file.write(chunk)
    file.seek(0)


def _check_size(size: int) -> None:
    if size > _LARGEST:
        raise BuildFailed(f"an artifact is larger than {_LARGEST >> 30} GiB")


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise AssertionError(member)
    with file.open("wb") as target:
        while data := source.read(1 << 20):
            target.write(data)
    file.chmod((member.mode & 0o777) | stat.S_IRUSR)
