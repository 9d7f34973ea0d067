"""Who runs a program in an image: its user, as container engines find them in the image's files."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nox_variants import rootfs

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 65536
_ID, _GID, _HOME = 2, 3, 5
"""Fields of passwd(5); a group's number has the same as a user's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user of an image, by number.

    Attributes:
        uid: Of the user.
        gid: Of the group.
        home: The user's home folder.
    """

    uid: int
    gid: int
    home: str


def find(lower: tuple[Path, ...], user: str) -> Account | None:
    """Return whom a user's name stands for; None where the image does not say so.

    Args:
        lower: The folders of the image's root, base first.
        user: ``USER``, ``UID`` or either with ``:GROUP`` (OCI image-spec, config.md); empty for
            root.
    """
    name, _, group = user.partition(":")
    entry = _entry(lower, "/etc/passwd", name or "0", fields=_GID + 1)
    uid = _number(entry[_ID] if entry else name or "0")
    gid = _number(entry[_GID]) if entry else 0
    if group:
        found = _entry(lower, "/etc/group", group, fields=_ID + 1)
        gid = _number(found[_ID] if found else group)
    if uid is None or gid is None:
        return None
    return Account(uid=uid, gid=gid, home="".join(entry[_HOME : _HOME + 1]) or "/")


def _entry(lower: tuple[Path, ...], path: str, wanted: str, *, fields: int) -> list[str]:
    """Return the first line of passwd(5) or group(5) with a name or a number, in fields."""
    file, text = rootfs.resolve(lower, path), ""
    with suppress(OSError):
        if file is not None and file.is_file():
            with file.open("rb") as opened:
                text = opened.read(_MOST_BYTES).decode(errors="replace")
    lines = (line.split(":") for line in text.splitlines())
    whole = (line for line in lines if len(line) >= fields)
    return next((line for line in whole if wanted in {line[0], line[_ID]}), [])


def _number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and int(word) < 2**32 - 1 else None
