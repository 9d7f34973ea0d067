"""What an invocation needs around the run: its folder, the clock of sources, the JSON file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from nox_variants import invocation
from nox_variants.errors import UsageError
from ordinary import ordinary_user
from samples import SETTINGS

if TYPE_CHECKING:
    from pathlib import Path


def test_project_folder_is_made_and_ignored(tmp_path: Path) -> None:
    """`.variants` keeps itself out of git; what the user wrote there stays."""
    settings = replace(SETTINGS, root=tmp_path)

    folder = invocation.project_folder(settings)
    (folder / ".gitignore").write_text("# mine\n", encoding="utf-8")
    again = invocation.project_folder(settings)

    assert again == folder == tmp_path / ".variants"
    assert (folder / ".gitignore").read_text(encoding="utf-8") == "# mine\n"


def test_project_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """A read-only folder is one sentence."""
    tmp_path.chmod(0o500)

    with ordinary_user(), pytest.raises(UsageError) as caught:
        invocation.project_folder(replace(SETTINGS, root=tmp_path))

    assert str(caught.value) == (
        f"{tmp_path / '.variants'}: cannot be made: Permission denied."
        " Is the folder writable for you?"
    )


@pytest.mark.parametrize(
    ("text", "epoch"), [(None, 0), ("", 0), ("0", 0), ("1700000000", 1700000000)]
)
def test_source_date_epoch(text: str | None, epoch: int) -> None:
    """The variable of reproducible-builds.org is honoured; without it time begins in 1970."""
    environ = {} if text is None else {"SOURCE_DATE_EPOCH": text}

    assert invocation.source_date_epoch(environ) == epoch


@pytest.mark.parametrize("text", ["now", "-1", "1.5", "99999999999"])
def test_source_date_epoch_that_is_none(text: str) -> None:
    """Anything but seconds is a mistake with a hint."""
    with pytest.raises(UsageError) as caught:
        invocation.source_date_epoch({"SOURCE_DATE_EPOCH": text})

    assert repr(text) in str(caught.value)
    assert "git log" in str(caught.value)


@pytest.mark.subprocess
def test_git_commit_of_a_folder_without_git(tmp_path: Path) -> None:
    """Outside a repository there is no commit, and no noise."""
    assert invocation._git_commit(tmp_path) is None
