"""A flattened root filesystem out of a tar, such as `docker export` writes; the tar is untrusted.

Nothing is written outside the folder: names are cleaned, and no link is ever followed on the way.
"""

from __future__ import annotations

import os
import stat
import tarfile
from typing import IO, TYPE_CHECKING

from nox_variants.errors import LayoutError

if TYPE_CHECKING:
    from pathlib import Path

MOST_ENTRIES = 2_000_000
MOST_BYTES = 64 << 30

_CHUNK = 1 << 20


def unpack(stream: IO[bytes], root: Path) -> None:
    """Unpack a tar into an empty folder; devices, sockets and owners are left out.

    Raises:
        LayoutError: It is no tar, has a name that leads out, or is too large.
    """
    entries = size = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                entries, size = entries + 1, size + member.size
                if entries > MOST_ENTRIES or size > MOST_BYTES:
                    raise LayoutError("the image has too many files, or too large ones")
                _entry(tar, member, root)
    except tarfile.TarError as error:
        raise LayoutError(f"the image is no tar: {error}") from error


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    path = _place(root, member.name)
    if path == root:
        return
    _clear(path, keep_folder=member.isdir())
    if member.isdir():
        path.mkdir(exist_ok=True)
        path.chmod((member.mode & 0o777) | stat.S_IRWXU)
    elif member.issym():
        path.symlink_to(member.linkname)
    elif member.islnk():
        target = _place(root, member.linkname)
        if not os.path.lexists(target):
            raise LayoutError(
                f"{member.name!r}: is a link to {member.linkname!r}, which is not there"
            )
        os.link(target, path, follow_symlinks=False)
    elif member.isreg():
        _file(tar, member, path)


def _place(root: Path, name: str) -> Path:
    """Return where an entry goes; its parents are made, and are real folders."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts or "\0" in name:
        raise LayoutError(f"{name!r}: leads out of the image")
    path = root
    for part in parts[:-1]:
        path /= part
        if not os.path.lexists(path):
            path.mkdir()
        elif not stat.S_ISDIR(path.lstat().st_mode):
            raise LayoutError(f"{name!r}: lies behind {part!r}, which is no folder")
    return path / parts[-1] if parts else root


def _clear(path: Path, *, keep_folder: bool) -> None:
    """Make room for an entry: a later one with the same name replaces an earlier one."""
    if not os.path.lexists(path):
        return
    if stat.S_ISDIR(path.lstat().st_mode):
        if not keep_folder:
            raise LayoutError(f"{path.name!r}: is a folder and something else")
    else:
        path.unlink()


def _file(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise AssertionError(member.name)
    with path.open("xb") as target:
        while data := source.read(_CHUNK):
            target.write(data)
    path.chmod((member.mode & 0o777) | stat.S_IRUSR)
