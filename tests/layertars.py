"""Tars of layers made by hand, as wrong as a test wants, and what became of them."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any, Literal, TypeAlias

Entry: TypeAlias = tuple[tarfile.TarInfo, bytes]


Layout: TypeAlias = Literal[0, 1, 2]


Tree: TypeAlias = "dict[str, str | bytes | None]"
"""By path: a file's bytes, a link's target, None for a folder."""


def entry(kind: bytes, name: str, data: bytes = b"", link: str = "", **fields: Any) -> Entry:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(data), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def file(name: str, data: bytes = b"", **fields: Any) -> Entry:
    return entry(tarfile.REGTYPE, name, data, **fields)


def folder(name: str, mode: int = 0o755, **fields: Any) -> Entry:
    return entry(tarfile.DIRTYPE, name, mode=mode, **fields)


def symlink(name: str, target: str, **fields: Any) -> Entry:
    return entry(tarfile.SYMTYPE, name, link=target, **fields)


def hard_link(name: str, target: str, **fields: Any) -> Entry:
    return entry(tarfile.LNKTYPE, name, link=target, **fields)


def pax(name: str, **records: str) -> Entry:
    """Return a file whose pax records say something else than its header."""
    return file(name, pax_headers=records)


def headers(info: tarfile.TarInfo, layout: Layout = tarfile.PAX_FORMAT) -> bytes:
    return info.tobuf(layout, "utf-8", "surrogateescape")


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def tar(*entries: Entry, layout: Layout = tarfile.PAX_FORMAT, end: bytes = bytes(1024)) -> bytes:
    """Return a plain tar; an entry's size may say something else than its data."""
    return b"".join(headers(info, layout) + padded(data) for info, data in entries) + end


def patched(block: bytes, start: int, data: bytes) -> bytes:
    """Change bytes of a header, and its sum with them."""
    block = block[:start] + data + block[start + len(data) :]
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block[:512]) + block[156:]


def content(path: Path) -> bytes | str | None:
    if path.is_symlink():
        return str(path.readlink())
    return None if path.is_dir() else path.read_bytes()


def tree(root: Path) -> Tree:
    """Return what is in a folder; no link is followed."""
    found: Tree = {}
    for path, folders, files in os.walk(root):
        for name in (*folders, *files):
            full = Path(path) / name
            found[str(full.relative_to(root))] = content(full)
    return found


def snapshot(path: Path) -> list[tuple[str, bytes | str | None, int, int, int]]:
    """Return all that must not change of a folder."""
    found = []
    for each in (path, *sorted(path.rglob("*"))):
        status = each.lstat()
        found.append(
            (str(each), content(each), status.st_mode, status.st_mtime_ns, status.st_nlink)
        )
    return found
