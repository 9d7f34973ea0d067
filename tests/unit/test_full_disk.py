"""A stage that gave nothing: whether that says something about the program, or about the disk."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from nox_variants.engines import builds
from nox_variants.engines.builds import Log, failure
from nox_variants.errors import BuildFailed, StoreError

if TYPE_CHECKING:
    from pathlib import Path

ERROR = BuildFailed("'cc' ended with exit code 1 in gcc")


def log(text: str) -> Log:
    """Return the log of commands that have said something."""
    made = Log(io.BytesIO())
    made.write(text.encode())
    return made


@pytest.mark.parametrize(
    "words",
    [
        "/usr/bin/ld: final link failed: No space left on device",
        "write /tmp/go-link-1: no space left on device",
        "Error: ENOSPC: no space left on device, write",
        "cp: error writing 'x': Disk quota exceeded",
    ],
)
def test_words_of_a_full_disk(words: str, tmp_path: Path) -> None:
    """Compilers remove what did not fit: what they said about it is all that is left."""
    found = failure(ERROR, log(f"cc -o x x.c\n{words}\ncollect2: error\n"), tmp_path)

    assert isinstance(found, StoreError)
    assert found.message == f"{ERROR.message}: {words!r}"
    assert "free some space" in found.hint


@pytest.mark.parametrize(
    "text",
    [
        "x.c:1: error\n",
        "",
        "test_no_space_left_on_device ok\n",
        "no space left on device" + "\n" * 41,
    ],
)
def test_failure_of_the_program(text: str, tmp_path: Path) -> None:
    """On a disk with room, what is not among the last words is no reason."""
    found = failure(ERROR, log(text), tmp_path, seconds=2.0)

    assert isinstance(found, BuildFailed)
    assert (found.message, found.log, found.seconds) == (ERROR.message, text, 2.0)


def test_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room, nothing is a verdict, whatever was said."""
    monkeypatch.setattr(builds, "LITTLE", 1 << 70)

    found = failure(ERROR, log("x.c:1: error\n"), tmp_path)

    assert isinstance(found, StoreError)
    assert found.message == f"{ERROR.message}, and {tmp_path} is on a disk without room"
