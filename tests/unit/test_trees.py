"""Files and folders out of a root: what is copied is what the root shows, and nothing else."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from nox_variants.engines import trees
from nox_variants.errors import BuildFailed
from nox_variants.oci.layer import DEEPEST
from nox_variants.rootfs import Found, Root

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def lower(tmp_path: Path) -> tuple[Path, Path]:
    """Give two folders of a root: the second lies on top of the first."""
    below, above = tmp_path / "below", tmp_path / "above"
    for folder in (below, above):
        (folder / "app/data").mkdir(parents=True)
    (below / "app/old").write_text("old", encoding="utf-8")
    (below / "app/data/both").write_text("below", encoding="utf-8")
    (above / "app/data/both").write_text("above", encoding="utf-8")
    (above / "app/data/both").chmod(0o750)
    return below, above


def copied(lower: tuple[Path, ...], path: str, target: Path) -> Path:
    """Return the copy of what a root has at a path."""
    root = Root(lower)
    found = root.find(path)
    assert found is not None
    trees.copy(root, found, target, own=lower[-1])
    return target


def listed(folder: Path) -> list[str]:
    """Return all paths below a folder."""
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


def test_merged_folders(lower: tuple[Path, Path], tmp_path: Path) -> None:
    """A folder is what both layers make of it; the upper one's file wins, with its mode."""
    target = copied(lower, "/app", tmp_path / "copy")

    assert listed(target) == ["data", "data/both", "old"]
    both = target / "data/both"
    assert both.read_text(encoding="utf-8") == "above"
    assert stat.S_IMODE(both.stat().st_mode) == 0o750


def test_links_stay(lower: tuple[Path, Path], tmp_path: Path) -> None:
    """Links are copied as they are, wherever they lead; one that leads to the whole is followed."""
    (lower[1] / "app/out").symlink_to("/etc/passwd")
    (lower[1] / "app/up").symlink_to("../../../..")
    (lower[1] / "way").symlink_to("app")

    target = copied(lower, "/way", tmp_path / "copy")

    assert (target / "out").readlink().as_posix() == "/etc/passwd"
    assert (target / "up").readlink().as_posix() == "../../../.."
    assert not target.is_symlink()


def test_what_is_no_file(lower: tuple[Path, Path], tmp_path: Path) -> None:
    """A pipe cannot be copied; it is named."""
    os.mkfifo(lower[1] / "app/data/pipe")

    with pytest.raises(BuildFailed, match=r"^/app/data/pipe is no file, no folder and no link"):
        copied(lower, "/app", tmp_path / "copy")


def test_unreadable_files(lower: tuple[Path, Path], tmp_path: Path) -> None:
    """A file without permissions is read where it is the build's own, and made readable."""
    (lower[1] / "app/secret").write_text("x", encoding="utf-8")
    (lower[1] / "app/secret").chmod(0)
    (lower[1] / "app/data").chmod(0o555)

    target = copied(lower, "/app", tmp_path / "copy")

    assert stat.S_IMODE((target / "secret").stat().st_mode) == 0o400
    assert stat.S_IMODE((target / "data").stat().st_mode) == 0o755  # so that it can be removed


def test_too_deep(tmp_path: Path) -> None:
    """A folder that is made to hurt who walks it is refused, and named in part."""
    deep = tmp_path / "root" / "/".join(["d"] * (DEEPEST + 1))
    deep.mkdir(parents=True)

    with pytest.raises(BuildFailed, match=r"^/d/d.*\.\.\. lies in more than 200 folders$"):
        copied((tmp_path / "root",), "/d", tmp_path / "copy")


def test_merge(lower: tuple[Path, Path], tmp_path: Path) -> None:
    """A folder's content joins what is there; a file takes its place."""
    target = tmp_path / "target"
    (target / "data").mkdir(parents=True)
    (target / "data/there").touch()

    trees.merge(lower[1] / "app", target)
    trees.merge(lower[0] / "app/old", target / "data/there")

    assert listed(target) == ["data", "data/both", "data/there"]
    assert (target / "data/there").read_text(encoding="utf-8") == "old"


def test_described(lower: tuple[Path, Path]) -> None:
    """A digest tells contents, names and modes apart; the size is that of the regular files."""
    folder = lower[1] / "app"
    digest, size = trees.described(folder)
    assert size == len("above")
    assert trees.described(folder / "data/both")[1] == len("above")

    (folder / "data/both").chmod(0o700)
    other, _ = trees.described(folder)
    assert other != digest


def test_children(lower: tuple[Path, Path]) -> None:
    """What is in a folder is named once, whatever layers have it."""
    root = Root(lower)
    found = root.find("/app")
    assert isinstance(found, Found)

    assert [name for name, _ in root.children(found)] == ["data", "old"]
