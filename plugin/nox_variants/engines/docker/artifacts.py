"""A build stage's artifacts: how they come out of a daemon, and how it says that they do not."""

from __future__ import annotations

import posixpath
import re
import stat
import tarfile
import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from nox_variants.engines.docker import builders
from nox_variants.engines.docker.connection import explained
from nox_variants.engines.docker.labels import OWNER, owner
from nox_variants.errors import BuildFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nox_variants.engines.docker.connection import Daemon, DaemonError
    from nox_variants.engines.docker.containers import Reaper
    from nox_variants.errors import VariantsError
    from nox_variants.plan import BuildStage

_EXIT_CODE = re.compile(r"(?:exit code: |non-zero code: |exit status )(\d+)\D*$")
_MOST_LINKS = 40
_LARGEST = 4 << 30


def copy(daemon: Daemon, reaper: Reaper, tag: str, stage: BuildStage, work: Path) -> None:
    """Copy a stage's artifacts out of its image, each to its number in a folder.

    Raises:
        BuildFailed: One is missing, or too large.
        DaemonError: The daemon failed.
    """
    with _stopped(daemon, reaper, tag) as container:
        for number, path in enumerate(stage.artifacts):
            _copy_out(container, path, work / str(number))


def collected(stage: BuildStage, work: Path) -> list[tuple[str, Path]]:
    """Return each artifact's path in the image and its file, named by its number in a folder.

    Raises:
        BuildFailed: One is no file, or too large.
    """
    found = [(path, work / str(number)) for number, path in enumerate(stage.artifacts)]
    for path, file in found:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise BuildFailed(f"the build made no file {path}")
        _check_size(status.st_size)
    return found


def missing(error: DaemonError, stage: BuildStage) -> VariantsError:
    """Return a failed build's error: the stage's own fault where an artifact is missing."""
    found = builders.MISSING.search(error.message)
    if found is None or not stage.artifacts:
        return error
    path = found["path"]
    if path in stage.artifacts:
        return BuildFailed(f"the build made no file {path}")
    made = " or ".join(stage.artifacts)
    return BuildFailed(f"the build made no file {made}: a link leads to {path}, which is not there")


def failed_command(words: str, stage: BuildStage) -> str:
    """Return which command failed and how, in the words of every engine."""
    code = _EXIT_CODE.search(words)
    if code is None:
        return words
    named = [command for command in stage.commands if command.strip() in words]
    command = repr((named or stage.commands)[0]) if named or len(stage.commands) == 1 else "it"
    return f"{command} ended with exit code {code[1]} in {stage.image.name}"


@contextmanager
def _stopped(daemon: Daemon, reaper: Reaper, tag: str) -> Iterator[Any]:
    """Create a container that is never started: its files can be read."""
    with explained(f"reading {tag}"):
        created = daemon.client.containers.create(tag, command=["-"], labels={OWNER: owner()})
        try:
            yield created
        finally:
            reaper.remove(created)


def _copy_out(container: Any, path: str, file: Path) -> None:
    """Copy a regular file out of a container; links are followed inside it."""
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
                if member is None or not member.isreg():
                    break
                _write(tar, member, file)
                return
    raise BuildFailed(f"the build made no file {path}")


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
