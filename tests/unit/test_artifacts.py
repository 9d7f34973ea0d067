"""What a daemon sends of a build's files: untrusted, like all that comes from elsewhere."""

from __future__ import annotations

import io
import tarfile
import threading
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from nox_variants.engines.docker import artifacts
from nox_variants.errors import BuildFailed, LayoutError
from nox_variants.model import LinkMode
from nox_variants.plan import BuildStage, make_plans
from samples import SETTINGS, variant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from nox_variants.engines.builds import Output

(PLAN,) = make_plans(SETTINGS, [variant("scratch", LinkMode.STATIC)])
STAGE: BuildStage = replace(PLAN.build, artifacts=("/out/app",))


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    """Return an entry of a tar; a file says ``hello``."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    made.mode = 0o755
    made.size = 5 if kind == tarfile.REGTYPE else 0
    return made


class Container:
    """Sends one archive, whatever it is asked for."""

    def __init__(self, *entries: tarfile.TarInfo) -> None:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for each in entries:
                tar.addfile(each, io.BytesIO(b"hello"))
        self._data = out.getvalue()

    def get_archive(self, path: str) -> tuple[Iterator[bytes], dict[str, str]]:
        """Return the archive."""
        return iter([self._data]), {"name": path}


def copied(work: Path, *entries: tarfile.TarInfo) -> list[Output]:
    """Return what comes out of a daemon that sends some entries."""
    work.mkdir()
    containers = SimpleNamespace(create=lambda *_, **__: Container(*entries))
    daemon = SimpleNamespace(client=SimpleNamespace(containers=containers))
    reaper = SimpleNamespace(remove=lambda _: None)
    return artifacts.copied(
        cast("Any", daemon),
        cast("Any", reaper),
        "stage:1",
        STAGE,
        work,
        cancelled=threading.Event(),
    )


def test_folder(tmp_path: Path) -> None:
    """A folder comes with its files, its links as they are, and hard links to its own files."""
    (output,) = copied(
        tmp_path / "work",
        entry("app/", tarfile.DIRTYPE),
        entry("app/run"),
        entry("app/again", tarfile.LNKTYPE, "app/run"),
        entry("app/away", tarfile.SYMTYPE, "/etc/passwd"),
    )

    output.copy(tmp_path / "copy")

    assert output.path == "/out/app"
    said = {(tmp_path / "copy" / name).read_bytes() for name in ("run", "again")}
    assert said == {b"hello"}
    assert (tmp_path / "copy/away").readlink().as_posix() == "/etc/passwd"


@pytest.mark.parametrize(
    "hostile",
    [
        (entry("app/steal", tarfile.LNKTYPE, "../../secret"),),
        (entry("app/steal", tarfile.LNKTYPE, "app/../../../secret"),),
        (entry("app/way", tarfile.SYMTYPE, "/"), entry("app/way/planted")),
        (entry("app/../../planted"),),
        (entry("../planted"),),
    ],
    ids=["hard link up", "hard link through", "through a link", "a name up", "beside"],
)
def test_nothing_gets_out(tmp_path: Path, hostile: tuple[tarfile.TarInfo, ...]) -> None:
    """Neither is a file of this machine taken in, nor one written outside the folder."""
    (tmp_path / "secret").write_text("secret", encoding="utf-8")

    with suppress(LayoutError, BuildFailed):
        (output,) = copied(tmp_path / "work", entry("app/", tarfile.DIRTYPE), *hostile)
        output.copy(tmp_path / "copy")

    taken = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert all(path.read_bytes() == b"hello" for path in taken)
    assert (tmp_path / "secret").stat().st_nlink == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"secret", "work", "copy"}


@pytest.mark.parametrize("top", ["..", "/", "."])
def test_folder_without_a_name(tmp_path: Path, top: str) -> None:
    """A folder that calls itself something else moves nothing of this machine."""
    (tmp_path / "kept").touch()

    with suppress(LayoutError, BuildFailed):
        copied(tmp_path / "work", entry(top, tarfile.DIRTYPE), entry(f"{top}/x"))

    assert {path.name for path in tmp_path.iterdir()} == {"kept", "work"}


def test_nothing_sent(tmp_path: Path) -> None:
    """A pipe in place of an artifact is no artifact."""
    with pytest.raises(BuildFailed, match=r"^the build made no file /out/app$"):
        copied(tmp_path / "work", entry("app", tarfile.FIFOTYPE))
