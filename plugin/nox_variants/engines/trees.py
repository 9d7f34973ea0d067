"""Files and folders out of a root as plain copies: what builds make, and what images get."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

from nox_variants.errors import BuildFailed
from nox_variants.oci.digest import sha256_file
from nox_variants.oci.layer import DEEPEST, digest_tree

if TYPE_CHECKING:
    from pathlib import Path

    from nox_variants.model import Digest
    from nox_variants.rootfs import Found, Root

_MODE = 0o777
_SHOWN = 60


def copy(root: Root, found: Found, target: Path, *, own: Path) -> None:
    """Copy a file, or a folder with all that is in it, out of a root; links stay links.

    Args:
        root: The root.
        found: What is copied.
        target: The copy; what is above it is there, it is not.
        own: A folder whose files may be made readable for that.

    Raises:
        BuildFailed: There is something that is no file, folder or link, or too deep a folder.
    """
    if found.real.count("/") > DEEPEST:
        raise BuildFailed(f"{found.real[:_SHOWN]}... lies in more than {DEEPEST} folders")
    if found.merged:
        target.mkdir()
        for name, child in root.children(found):
            copy(root, child, target / name, own=own)
        target.chmod(mode(found.path) | stat.S_IRWXU)
    elif stat.S_ISLNK(found.mode):
        target.symlink_to(os.readlink(found.path))  # noqa: PTH115  # the text itself
    elif found.regular:
        if not found.mode & stat.S_IRUSR and found.path.is_relative_to(own):
            found.path.chmod(found.mode & _MODE | stat.S_IRUSR)  # an ordinary user could not
        shutil.copyfile(found.path, target)
        target.chmod(found.mode & _MODE | stat.S_IRUSR)
    else:
        raise BuildFailed(f"{found.real} is no file, no folder and no link: it cannot be copied")


def merge(tree: Path, target: Path) -> None:
    """Copy a plain file or folder; a folder's content joins what is there.

    Args:
        tree: What is copied.
        target: Where it comes to.
    """
    if tree.is_dir():
        shutil.copytree(tree, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copyfile(tree, target)
        target.chmod(mode(tree))


def mode(tree: Path) -> int:
    """Return the permissions of a file or folder."""
    return tree.stat().st_mode & _MODE


def described(tree: Path) -> tuple[Digest, int]:
    """Return the digest of a file or folder, and the bytes of its regular files.

    Raises:
        LayoutError: It cannot be read.
    """
    if not tree.is_dir():
        return sha256_file(tree), tree.stat().st_size
    facts = digest_tree(tree, mtime=0)
    return facts.diff_id, facts.content
